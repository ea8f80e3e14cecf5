"""Accuracy with a 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution
MANY_GROUPS = 10_000  # of like size: from here on resampling takes seconds, and a linear approximation is as exact
FEW_GROUPS = 20  # of fewer the spread of a share is hardly known, the less the rarer errors are
T_GROUPS = 40  # of fewer the quantile of t is used for a mean (Cameron & Miller 2015, section VI)


@dataclass(frozen=True)
class Accuracy:
    """Number of correct predictions out of ``count``, with a 95% interval and the name of the method that gave it."""

    correct: int
    count: int
    interval: tuple[float, float]
    method: str

    @property
    def value(self) -> float:
        """The share of correct predictions, 0 to 1."""
        return self.correct / self.count

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form that ``fit --json`` and ``run.json`` use."""
        return {
            "correct": self.correct,
            "count": self.count,
            "value": self.value,
            "interval": list(self.interval),
            "method": self.method,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({self.correct}/{self.count}, 95% interval {low:.1%} to {high:.1%}, {self.method})"


def wilson(correct: float, count: float) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927): within 0..1, and never of zero width."""
    share = correct / count
    centre = (share + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    half_width = Z95 / (1 + Z95**2 / count) * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    # Rounding must not push the share itself out of its interval when all are correct, or none.
    return float(max(0.0, min(centre - half_width, share))), float(min(1.0, max(centre + half_width, share)))


def held_out_accuracy(correct: NDArray[np.bool_], groups: NDArray[np.integer] | None = None) -> Accuracy:
    """Return the accuracy on images that had no part in training, one entry [n] an image, with Wilson's interval.

    Where it is known which images show one thing, ``groups`` [n], the interval is that of
    ``leave_one_group_out_accuracy``: ten images of one specimen tell less than images of ten.
    """
    if groups is not None:
        return leave_one_group_out_accuracy(correct, groups)
    return Accuracy(int(correct.sum()), len(correct), wilson(int(correct.sum()), len(correct)), "Wilson")


def leave_one_group_out_accuracy(
    correct: NDArray[np.bool_], groups: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> Accuracy:
    """Return the accuracy of predictions, ``correct`` [n], of images by models that have not seen their ``groups`` [n].

    Groups, not images, are resampled, since the images of a group are alike. The spread of the resampled accuracies
    gives the effective number of independent images, between the number of groups and n, and Wilson's interval is
    taken at that number (Korn & Graubard 1998): with no error at all a plain bootstrap would give an interval of zero
    width. Where ``has_many_groups`` the spread is ``linear_variance``.
    """
    share, count = float(correct.mean()), effective_count(correct, groups, resamples=resamples, seed=seed)
    low, high = wilson(share * count, count)
    return Accuracy(int(correct.sum()), len(correct), (low, high), "groups resampled")


def effective_count(
    shares: NDArray[np.bool_ | np.float64], groups: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> float:
    """Return as how many independent images the images count whose groups are alike (``independent_images``).

    ``shares`` [n] are what each image adds to a mean, 0 to 1; ``groups`` [n].
    """
    sums, sizes = sums_by_group(shares, groups)
    share = float(shares.mean())
    if not 0 < share < 1 or len(sizes) in (1, len(shares)):  # no spread, or that of single images
        return independent_images(share, np.inf, sizes)
    are_many = has_many_groups(sizes)
    variance = linear_variance(sums, sizes) if are_many else float(resampled_means(sums, sizes, resamples, seed).var())
    return independent_images(share, variance, sizes)


def independent_images(share: float, variance: float, sizes: NDArray[np.float64]) -> float:
    """Return the number of independent images whose ``share``, 0 to 1, varies as that of groups of ``sizes`` [m] does.

    ``variance`` is what resampled groups have; infinity where it is not known. The number lies between that of the
    groups and that of the images. Of fewer than ``FEW_GROUPS`` the variance is itself hardly known, the less the rarer
    errors are, so that Wilson's interval is as wide as a quantile of t demands (Korn & Graubard 1998); its degrees of
    freedom are those of the variance of groups that are wholly right or wrong, which have the greatest kurtosis
    (Satterthwaite 1946). They then count as so many groups as ``equal_groups`` says.
    """
    count, images = share * (1 - share) / max(variance, 1e-12), float(sizes.sum())
    if len(sizes) >= FEW_GROUPS:
        return float(np.clip(count, len(sizes), images))
    groups = equal_groups(sizes)
    if groups <= 1:
        return 1.0
    unseen = (share * groups + 0.5) / (groups + 1)  # not 0 or 1, of which nothing would vary
    excess = 1 / (unseen * (1 - unseen)) - 3 - (groups - 3) / (groups - 1)
    freedom = float(np.clip(2 * groups / excess, 1, max(1.0, groups - 1)))
    count = min(count * (groups - 1) / groups, images) * (Z95 / t_quantile(freedom)) ** 2
    return float(np.clip(count, groups, images))


def share_interval(is_right: NDArray[np.bool_], groups: NDArray[np.integer]) -> tuple[float, float]:
    """Return the 95% interval of the share of images [n] of ``groups`` [n] that are right, without resampling.

    It is that of ``leave_one_group_out_accuracy`` by ``linear_variance``, for a thousandth of its time.
    """
    sums, sizes = sums_by_group(is_right, groups)
    share = float(is_right.mean())
    count = independent_images(share, linear_variance(sums, sizes), sizes)
    return wilson(share * count, count)


def sums_by_group(
    values: NDArray[np.bool_ | np.float64], groups: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of ``values`` [n] over each of the ``groups`` [n], and how many there are in it, both [m]."""
    index = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(index, weights=values.astype(np.float64)).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def t_quantile(freedom: float) -> float:
    """Return the 97.5% quantile of Student's t distribution with ``freedom`` >= 1 degrees of freedom.

    Of ``t = sqrt(freedom) * tan(angle)`` the angle has the density ``cos(angle) ** (freedom - 1)``, which is summed up.
    """
    angles = np.linspace(0, np.pi / 2, 10_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.cumsum(density[1:] + density[:-1])
    return float(np.sqrt(freedom) * np.tan(np.interp(0.95 * below[-1], below, angles[1:])))


def errors_to_each_side(groups: int) -> float:
    """Return how many standard errors a 95% interval reaches to each side, where ``groups`` > 1 gave the error.

    That is the normal quantile, of fewer than ``T_GROUPS`` the quantile of t.
    """
    return Z95 if groups >= T_GROUPS or groups < 2 else t_quantile(groups - 1)


def resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the means [resamples] of values whose groups are drawn again; each has a sum and a size [m]."""
    generator, equal = np.random.default_rng(seed), np.full(len(sizes), 1 / len(sizes))
    draws = (generator.multinomial(len(sizes), equal) for _ in range(resamples))  # one at a time: memory
    return np.array([(draw @ sums) / (draw @ sizes) for draw in draws])


def has_many_groups(sizes: NDArray[np.float64]) -> bool:
    """Return whether groups of these ``sizes`` [m] are so many that ``linear_variance`` is exact enough.

    They count as ``equal_groups``: a large one beside many small ones decides alone.
    """
    return equal_groups(sizes) > MANY_GROUPS


def equal_groups(sizes: NDArray[np.float64]) -> float:
    """Return how many groups of one size give a mean with the variance of groups of ``sizes`` [m] (Kish 1965, 8.2)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def linear_variance(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the variance that ``resampled_means`` have, but for about one part in the number of groups of one size.

    It is that of their linear approximation (Taylor linearisation; Cochran 1977, "Sampling techniques", section 6.3).
    """
    return float(((sums - sums.sum() / sizes.sum() * sizes) ** 2).sum() / sizes.sum() ** 2)


def binomial_tail(errors: int, count: int, rate: float) -> float:
    """Return the probability of at most so many errors in ``count`` trials, each with the probability ``rate``."""
    logs = (
        math.lgamma(count + 1)
        - math.lgamma(i + 1)
        - math.lgamma(count - i + 1)
        + i * math.log(rate)
        + (count - i) * math.log1p(-rate)
        for i in range(min(errors, count) + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def target_text(share: float) -> str:
    """Return a share that was asked for as a percentage, not rounded: what is promised is that and no more.

    >>> target_text(0.995), target_text(0.07)
    ('99.5%', '7%')
    """
    return f"{100 * share:.12g}%"


def disjoint(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Return whether two intervals (low, high) do not overlap."""
    return first[0] > second[1] or second[0] > first[1]
