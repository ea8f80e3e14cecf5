"""Choose taps, kind of head and penalty by what each would have said of groups left out.

Candidates are compared by held-out log-loss. Two rules keep the choice honest when data are few:

- Log-loss is taken against labels softened by one unseen group (``calibration.smoothing``), so that heads
  without a single held-out mistake tie instead of racing to infinite confidence.
- Of tap sets that a paired test over groups cannot tell from the best at 95% (a rule in the spirit of Breiman
  et al. 1984, section 3.4.3), the earliest in a fixed order of preference is taken: the last tap alone first,
  since the deepest features were trained to be the most general, then more taps, then shallower ones.

Every tap is tried alone. Taps together, dropout and random features are tried only while mistakes are left
that they could be seen to mend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headstart.calibration import fit_temperature, log_losses, smoothing
from headstart.errors import DataError, OptionError
from headstart.evaluation import Z95, grouped_difference
from headstart.heads import held_out, solve
from headstart.heads.expansion import expansion_for
from headstart.heads.held_out import Basis
from headstart.heads.linear import Head, softmax
from headstart.heads.logistic import fit_logistic, held_out_logistic
from headstart.heads.statistics import Statistics
from headstart.heads.vectors import Vectors, one_hot
from headstart.runtime import cores

KINDS = ("auto", "ridge", "lda", "centroid", "logistic")
PENALTIES = tuple(float(x) for x in np.geomspace(10**-2.5, 10, 8))  # times the mean squared spread of a picture
DROPOUT_RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C
EXPANDED = 1024

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One head that was tried: its taps, kind and settings, and how it did on groups left out."""

    taps: tuple[str, ...]
    kind: str
    settings: Mapping[str, float | str]
    log_loss: float
    accuracy: float
    temperature: float
    losses: NDArray[np.float64] = field(repr=False, compare=False)
    scores: Array = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """The JSON form in ``run.json``."""
        return {
            "taps": list(self.taps),
            "kind": self.kind,
            **self.settings,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Choice:
    """The head chosen and fitted on all pictures, its held-out probabilities [n, k], and what was tried."""

    head: Head
    chosen: Candidate
    probabilities: Array
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Judged:
    """What was tried, the head chosen, and the best of each tap set as it was first tried: without dropout or random
    features. Only ``chosen`` and ``best`` keep their losses [n] and scores [n, k]."""

    chosen: Candidate
    best: Mapping[tuple[str, ...], Candidate]
    candidates: tuple[Candidate, ...]


def select(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    *,
    cut: str | Sequence[str] = "auto",
    kind: str = "auto",
    dropout: float | None = None,
    seed: int = 0,
) -> Choice:
    """Choose and fit a head: ``judge``, and then the head of its choice on all pictures."""
    judged = judge(values, labels, groups, cut=cut, kind=kind, dropout=dropout, seed=seed)
    with threadpool_limits(1, "blas"):
        head = _fit(_Problem.of(values, labels, groups), judged.chosen, seed)
    chosen = judged.chosen
    return Choice(head, chosen, softmax(chosen.scores / chosen.temperature), tuple(map(_bare, judged.candidates)))


def judge(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    *,
    cut: str | Sequence[str] = "auto",
    kind: str = "auto",
    dropout: float | None = None,
    seed: int = 0,
) -> Judged:
    """Try heads and choose one.

    ``values`` maps tap names, shallow to deep, to vectors [n, channels]; ``labels`` [n] are 0..k-1, each
    present; ``groups`` [n] are left out whole. ``cut`` is "auto" or the taps to use side by side. ``dropout``
    in [0, 1) fixes the rate of the ridge head's closed-form dropout. Raises OptionError, DataError.
    """
    _check_options(values, labels, cut, kind, dropout)
    problem = _Problem.of(values, labels, groups)
    # One thread of linear algebra in each of several workers: eigh gains little from two threads, and its
    # threads wait for each other by spinning, which on a busy machine made a fit ten times slower.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:

        def tried(tap_sets: Sequence[tuple[str, ...]]) -> list[Candidate]:
            found = pool.map(lambda taps: _lean(_candidates(problem, taps, kind, dropout)), tap_sets)
            return [candidate for some in found for candidate in some]

        alone = [(tap,) for tap in reversed(list(values))]
        candidates = tried(alone if cut == "auto" else [_taps(cut)])
        chosen = _simplest_of_the_best(candidates, groups)
        if cut == "auto" and _has_room(chosen, groups):
            together = [tuple(values)[-number:] for number in range(2, min(3, len(values)) + 1)]
            candidates += tried(together)
            chosen = _simplest_of_the_best(candidates, groups, [alone[0], *together, *alone[1:]])
        best = {taps: min(same, key=lambda c: c.log_loss) for taps, same in _by_taps(candidates).items()}
        if kind in ("auto", "ridge") and dropout is None and _has_room(chosen, groups):
            # One after the other: each needs several matrices of its number of features squared.
            refined = _lean(_dropout_candidates(problem, chosen.taps)) + _lean(_expanded(problem, chosen.taps, seed))
            candidates += refined
            chosen = _simplest_of_the_best([chosen, *refined], groups)
    return Judged(chosen, best, tuple(candidates))


def as_good_as_the_best(candidates: Sequence[Candidate], groups: NDArray[np.integer]) -> list[bool]:
    """Which candidates a paired test over groups cannot tell from the one with the least loss (95%, two-sided)."""
    best = min(candidates, key=lambda c: c.log_loss)
    differences = (grouped_difference(each.losses, best.losses, groups) for each in candidates)
    return [worse <= Z95 * error for worse, error in differences]


@dataclass(frozen=True)
class _Problem:
    values: Mapping[str, NDArray[np.floating]]
    labels: NDArray[np.integer]
    classes: int
    groups: NDArray[np.integer]
    smooth: float

    @classmethod
    def of(
        cls, values: Mapping[str, NDArray[np.floating]], labels: NDArray[np.integer], groups: NDArray[np.integer]
    ) -> _Problem:
        return cls(values, labels, int(labels.max()) + 1, groups, smoothing(len(np.unique(groups))))

    def vectors(self, taps: Sequence[str]) -> Vectors:
        """The taps side by side, each scaled to the same total variance, so that none drowns another."""
        parts = tuple(self.values[tap] for tap in taps)
        scales = []
        for part in parts:
            mean, squares = Vectors.of(part).moments()
            variance = float((squares - mean**2).sum())
            scales.append(np.full(part.shape[1], 1 / np.sqrt(variance) if variance > 0 else 1.0))
        return Vectors(parts, np.concatenate(scales))

    def for_dropout(self, taps: Sequence[str]) -> Vectors:
        """Dropout's penalty is on each number's own second moment: divide by its root, then the penalty is even.

        The moments are those of all pictures, also where a group is left out: they use no label.
        """
        plain = Vectors.of(*(self.values[tap] for tap in taps))
        moments = plain.moments()[1] * len(plain)
        return replace(plain, scales=np.where(moments > 0, 1 / np.sqrt(np.where(moments > 0, moments, 1)), 0.0))

    def expanded(self, taps: Sequence[str], seed: int) -> Vectors:
        """Random ReLU features of the taps."""
        plain = self.vectors(taps)
        return replace(plain, bend=expansion_for(plain, EXPANDED, seed))

    def ridges(
        self,
        taps: tuple[str, ...],
        basis: Basis,
        penalties: Mapping[float, float],
        name: str,
        more: dict[str, float],
    ) -> list[Candidate]:
        """A candidate for each setting (called ``name``) and the absolute penalty it stands for."""
        found, targets = [], one_hot(self.labels, self.classes)
        for some in self._chunks(penalties):
            scores = held_out.ridge(basis, targets, self.groups, [penalties[p] for p in some])
            found += [
                self.candidate(taps, "ridge", {name: p, **more}, one) for p, one in zip(some, scores, strict=True)
            ]
        return found

    def ldas(self, taps: tuple[str, ...], basis: Basis, shrinkages: Mapping[float, float]) -> list[Candidate]:
        """The same for LDA."""
        found = []
        for some in self._chunks(shrinkages):
            absolute = [shrinkages[p] for p in some]
            scores = held_out.lda(basis, self.labels, self.classes, self.groups, absolute)
            found += [self.candidate(taps, "lda", {"shrinkage": p}, one) for p, one in zip(some, scores, strict=True)]
        return found

    def _chunks(self, settings: Mapping[float, float]) -> Iterator[list[float]]:
        """The settings, as many at a time as keep their scores in 160 MB."""
        step = max(1, 20_000_000 // (len(self.labels) * self.classes))
        names = list(settings)
        return (names[i : i + step] for i in range(0, len(names), step))

    def candidate(self, taps: tuple[str, ...], kind: str, settings: dict[str, float | str], scores: Array) -> Candidate:
        temperature = fit_temperature(scores, self.labels, self.smooth)
        losses = log_losses(scores, self.labels, temperature, self.smooth)
        right = float((scores.argmax(axis=1) == self.labels).mean())
        return Candidate(taps, kind, settings, float(losses.mean()), right, temperature, losses, scores)


def _check_options(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    cut: str | Sequence[str],
    kind: str,
    dropout: float | None,
) -> None:
    if kind not in KINDS:
        raise OptionError(f"Unknown head {kind!r}; choose one of {', '.join(KINDS)}.")
    if cut != "auto":
        for tap in [cut] if isinstance(cut, str) else cut:
            if tap not in values:
                raise OptionError(f"Unknown cut {tap!r}; this backbone has {', '.join(values)}.")
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise OptionError(f"Dropout rate {dropout} cannot be used; give one from 0 up to, not including, 1.")
        if kind not in ("auto", "ridge"):
            raise OptionError(f"Dropout has no closed form on the {kind} head; use --head ridge with it.")
    if len(np.unique(labels)) < 2:
        raise DataError("All pictures are of one class; a classifier needs pictures of at least two classes.")


def _taps(cut: str | Sequence[str]) -> tuple[str, ...]:
    return (cut,) if isinstance(cut, str) else tuple(cut)


def _candidates(problem: _Problem, taps: tuple[str, ...], kind: str, dropout: float | None) -> list[Candidate]:
    if dropout is not None:
        return _dropout_candidates(problem, taps, (dropout,))
    found = []
    basis = Basis.of(problem.vectors(taps))
    unit = float(basis.spread.sum()) / len(problem.labels)
    if kind in ("auto", "ridge"):
        found += problem.ridges(taps, basis, {p: p * unit for p in PENALTIES}, "penalty", {})
    if kind in ("auto", "lda"):
        found += problem.ldas(taps, basis, {p: p * unit for p in PENALTIES})
    if kind in ("auto", "centroid"):
        scores = held_out.centroid(basis, problem.labels, problem.classes, problem.groups)
        found.append(problem.candidate(taps, "centroid", {}, scores))
    if kind == "logistic":
        for c, scores in held_out_logistic(
            basis.at(slice(None)) / np.sqrt(unit),
            problem.labels,
            problem.classes,
            problem.groups,
            INVERSE_PENALTIES,
        ):
            found.append(problem.candidate(taps, "logistic", {"C": c}, scores))
    return found


def _lean(candidates: list[Candidate]) -> list[Candidate]:
    """Only the best keeps its scores and losses: nobody asks for the others', and they grow with the pictures."""
    best = min(candidates, key=lambda c: c.log_loss)
    return [replace(c, scores=c.scores.copy()) if c is best else _bare(c) for c in candidates]


def _bare(candidate: Candidate) -> Candidate:
    return replace(candidate, scores=np.empty((0, 0)), losses=np.empty(0))


def _dropout_candidates(
    problem: _Problem, taps: tuple[str, ...], rates: Sequence[float] = DROPOUT_RATES
) -> list[Candidate]:
    basis = Basis.of(problem.for_dropout(taps))
    return problem.ridges(taps, basis, {rate: max(rate / (1 - rate), 1e-6) for rate in rates}, "dropout", {})


def _expanded(problem: _Problem, taps: tuple[str, ...], seed: int) -> list[Candidate]:
    basis = Basis.of(problem.expanded(taps, seed))
    unit = float(basis.spread.sum()) / len(problem.labels)
    return problem.ridges(taps, basis, {p: p * unit for p in PENALTIES}, "penalty", {"expansion": EXPANDED})


def _has_room(candidate: Candidate, groups: NDArray[np.integer]) -> bool:
    """Whether mistakes are left that a richer head could be seen to mend: at least two groups' worth."""
    return (1 - candidate.accuracy) * len(np.unique(groups)) >= 2


def _simplest_of_the_best(
    candidates: Sequence[Candidate], groups: NDArray[np.integer], order: Sequence[tuple[str, ...]] = ()
) -> Candidate:
    """The best of the first tap set that is not significantly worse than the best of all; without ``order``, as tried.

    Random features count as a richer set than the same taps without.
    """
    places = {taps: place for place, taps in enumerate(order)}
    sets = dict.fromkeys((c.taps, "expansion" in c.settings) for c in candidates)
    champions = [
        min((c for c in candidates if (c.taps, "expansion" in c.settings) == one), key=lambda c: c.log_loss)
        for one in sorted(sets, key=lambda pair: places.get(pair[0], 0))
    ]
    alike = as_good_as_the_best(champions, groups)
    return next(champion for champion, good in zip(champions, alike, strict=True) if good)


def _by_taps(candidates: Sequence[Candidate]) -> dict[tuple[str, ...], list[Candidate]]:
    found: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate.taps, []).append(candidate)
    return found


def _fit(problem: _Problem, chosen: Candidate, seed: int) -> Head:
    """The chosen head on all pictures, its scales folded into weights of the taps' own vectors."""
    taps, settings, expansion = chosen.taps, chosen.settings, None
    if "expansion" in settings:
        vectors = problem.expanded(taps, seed)
        assert vectors.bend is not None
        expansion = ((vectors.scales[:, None] * vectors.bend[0]).astype(np.float32), vectors.bend[1].astype(np.float32))
    else:
        vectors = problem.for_dropout(taps) if "dropout" in settings else problem.vectors(taps)
    mean, squares = vectors.moments()
    unit = float((squares - mean**2).sum())
    if chosen.kind == "logistic":
        basis = Basis.of(vectors)
        inner, bias = fit_logistic(
            basis.at(slice(None)) / np.sqrt(unit), problem.labels, problem.classes, float(settings["C"])
        )
        weights = basis.weights(inner / np.sqrt(unit))
    else:
        blocks = (
            Statistics.of(vectors.rows(block) - mean, problem.labels[block], problem.classes)
            for block in vectors.blocks()
        )
        weights, bias = _solved(reduce(add, blocks), chosen, unit)
    bias = bias - mean @ weights
    if expansion is None:
        weights = weights * vectors.scales[:, None]
    return Head(
        chosen.kind, taps, weights.astype(np.float32), bias.astype(np.float32), chosen.temperature, expansion,
        dict(settings),
    )  # fmt: skip


def _solved(statistics: Statistics, chosen: Candidate, unit: float) -> solve.Solution:
    settings = chosen.settings
    if "dropout" in settings:
        rate = float(settings["dropout"])
        return solve.ridge(statistics, max(rate / (1 - rate), 1e-6))
    if chosen.kind == "ridge":
        return solve.ridge(statistics, float(settings["penalty"]) * unit)
    if chosen.kind == "lda":
        return solve.lda(statistics, float(settings["shrinkage"]) * unit)
    return solve.centroid(statistics)
