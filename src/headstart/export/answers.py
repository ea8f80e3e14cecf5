"""What a model answers for images, and how far the answers of two runtimes are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.export.about import About
from headstart.model.model import count_changed

LEAST = 1e-30  # float32 holds smaller probabilities, but not with all digits
LARGEST = 9.0  # of a score before a sigmoid: beyond, float32 has too few digits of its probability, near 0 or 1


@dataclass(frozen=True)
class Answers:
    """Answers for n images: ``probabilities`` [n, k] and ``ood_scores`` [n], float64.

    ``unread`` are the reasons, by place, why a target could not read an image; its row means nothing.
    """

    probabilities: NDArray[np.float64] = field(repr=False)
    ood_scores: NDArray[np.float64] = field(repr=False)
    unread: Mapping[int, str] = field(default_factory=dict)

    def rows(self, chosen: Sequence[int] | NDArray[np.integer]) -> Answers:
        """Return the answers of some images, all of which must have been read."""
        return Answers(self.probabilities[chosen], self.ood_scores[chosen])


def scores_of(probabilities: NDArray[np.float64], about: About) -> NDArray[np.float64]:
    """Return the scores [n, k] of probabilities [n, k]: a skew that probabilities near 0 and 1 hide is seen here.

    They are those before the softmax, but for a constant of each image, which the softmax removes. Of several labels
    they are those before the sigmoid, from ``-LARGEST`` to ``LARGEST``.
    """
    with np.errstate(invalid="ignore"):
        scores: NDArray[np.float64] = np.log(np.maximum(probabilities, LEAST))
        if about.is_multi_label:
            scores = np.clip(scores - np.log(np.maximum(1 - probabilities, LEAST)), -LARGEST, LARGEST)
    return scores


def join(parts: Sequence[Answers], classes: int) -> Answers:
    """Return the answers of several batches, one behind the other."""
    unread: dict[int, str] = {}
    start = 0
    for part in parts:
        unread |= {start + i: reason for i, reason in part.unread.items()}
        start += len(part.ood_scores)
    return Answers(
        np.concatenate([np.empty((0, classes)), *(part.probabilities for part in parts)]),
        np.concatenate([np.empty(0), *(part.ood_scores for part in parts)]),
        unread,
    )


@dataclass(frozen=True)
class Tolerance:
    """How far a probability, a score before the softmax and an OOD score may be from those of the reference."""

    probability: float
    score: float
    distance: float

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form."""
        return vars(self).copy()


# A score may differ by s where a probability may by s / 4, the steepest slope of the logistic function. fp32: the
# golden sample's 0.002. fp16: weights are rounded to one part in 2,048; that is of the size of scores around 10, some
# ten layers deep. int8 compares two runtimes on the same quantised graph, as the golden sample does.
TOLERANCES = {
    "fp32": Tolerance(0.002, 0.01, 0.002),
    "fp16": Tolerance(0.025, 0.1, 0.025),
    "int8": Tolerance(0.1, 0.4, 0.1),
}
OTHER_PIXELS = Tolerance(0.025, 0.1, 0.025)  # at least


def other_pixels(graph: Tolerance, expected: Answers, level_off: Answers | None, about: About) -> Tolerance:
    """Return the tolerance of images that another program decodes or resizes, ``graph`` being that of the same pixels.

    Another decoder, or a resize in another order, changes pixels by one or two levels of 255. What that does to a score
    depends on how steep a head is. So a score may differ by twice as much as it does in three of four images whose
    pixels are a level off or not, at random, and by 0.1 at least: ``level_off`` are the answers for such images,
    ``expected`` those for the images themselves; without ``level_off`` the least counts. Chosen on fifteen models and
    tried on sixteen: docs/benchmarks.md.
    """
    if level_off is None:
        level_off = expected
    scores = (scores_of(answers.probabilities, about) for answers in (expected, level_off))
    by_image = np.abs(np.subtract(*scores)).max(axis=1)
    score = max(graph.score, OTHER_PIXELS.score, 2 * float(np.quantile(by_image, 0.75)))
    return Tolerance(max(graph.probability, score / 4), score, max(graph.distance, OTHER_PIXELS.distance))


@dataclass(frozen=True)
class Comparison:
    """How far a target is from the reference on the images ``of`` a kind.

    ``probability``, ``score`` and ``distance`` are the largest differences; ``changed`` counts images that get another
    class, ``worst`` names the image with the largest difference in a score, ``unread`` those that the target could not
    read, and ``not_finite`` counts images whose answers are not numbers. Where an image may have several labels,
    ``changed`` counts images that get or lose one, and ``labels`` has for each its largest differences and of how many
    images it is decided otherwise.
    """

    of: str
    images: int
    probability: float = 0.0
    score: float = 0.0
    distance: float = 0.0
    changed: int = 0
    worst: str = ""
    not_finite: int = 0
    unread: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def problems(self, tolerance: Tolerance, *, may_change: bool) -> list[str]:
        """Return what leaves the tolerance, each as a text; ``may_change`` allows other classes within it."""
        found = [f"{self.not_finite} answers are not numbers (an overflow)"] if self.not_finite else []
        for name, value in tolerance.to_dict().items():
            if getattr(self, name) > value:
                before = "sigmoid" if self.labels else "softmax"
                what = {"score": f"score before the {before}", "distance": "OOD score"}.get(name, name)
                article = "an" if what.startswith("O") else "a"
                found.append(
                    f"{article} {what} differs by {getattr(self, name):.3g}, {value:g} is allowed ({self.worst})"
                )
        if self.changed and not may_change:
            labels = ", ".join(name for name, difference in self.labels.items() if difference["changed"])
            other = f"other labels ({labels})" if labels else "another class"
            found.append(f"{self.changed} of {self.images} images get {other}")
        return found

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        values = {**vars(self), "unread": dict(self.unread)}
        if not self.labels:
            del values["labels"]
        return values


def compare(of: str, names: Sequence[str], expected: Answers, found: Answers, about: About) -> Comparison:
    """Compare the answers ``found`` with those ``expected`` for the same images, called by ``names``."""
    unread = {names[i]: reason for i, reason in found.unread.items()}
    read = np.array([i for i in range(len(names)) if i not in found.unread], np.int64)
    is_finite = np.isfinite(found.probabilities[read]).all(axis=1) & np.isfinite(found.ood_scores[read])
    finite = read[is_finite]
    if not len(finite):
        return Comparison(of, len(read), not_finite=len(read), unread=unread)
    first, second = expected.rows(finite), found.rows(finite)
    scores = np.abs(scores_of(first.probabilities, about) - scores_of(second.probabilities, about))
    worst = int(scores.max(axis=1).argmax())
    label = f", {about.classes[int(scores[worst].argmax())]}" if about.is_multi_label else ""
    return Comparison(
        of,
        len(read),
        float(np.abs(first.probabilities - second.probabilities).max()),
        float(scores.max()),
        float(np.abs(first.ood_scores - second.ood_scores).max()),
        count_changed(first.probabilities, second.probabilities, about.rule, about.label_thresholds),
        names[int(finite[worst])] + label,
        len(read) - len(finite),
        unread,
        _by_label(first.probabilities, second.probabilities, scores, about),
    )


def _by_label(
    first: NDArray[np.float64], second: NDArray[np.float64], scores: NDArray[np.float64], about: About
) -> dict[str, dict[str, float]]:
    """Return ``labels`` of a comparison, of probabilities [n, k] and differences of scores [n, k]."""
    if about.label_thresholds is None:
        return {}
    probability, score = np.abs(first - second).max(axis=0), scores.max(axis=0)
    changed = (about.label_thresholds.decide(first) != about.label_thresholds.decide(second)).sum(axis=0)
    return {
        name: {"probability": float(probability[c]), "score": float(score[c]), "changed": int(changed[c])}
        for c, name in enumerate(about.classes)
    }
