"""The content of a report: per-image results, their summaries, the findings of the data check, and small images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SETS = ("validation", "leave_group_out")  # how a prediction was made; ImageResult.set_index is an index into this
MAX_IMAGES = 10_000  # shown individually; summaries count all images
MAX_ERROR_GROUPS = 60  # shown as cards, each with the images of one scene
MAX_LOWEST_MARGIN = 12  # correct predictions shown as cards


@dataclass(frozen=True)
class ImageResult:
    """Prediction for one image. Classes are indices into ``Report.classes``.

    ``set_index`` is the index into ``SETS``. ``predicted_class`` and ``second_class`` are the two most probable
    classes; ``confidence`` and ``second_confidence`` are their probabilities. ``true_class_confidence`` is the
    probability of the true class (0 if the model does not have that class). Probabilities are rounded to six places.
    Images of one set with the same ``group`` show one scene or are copies; -1 means that the group is not known.
    """

    path: str
    set_index: int
    true_class: int
    predicted_class: int
    second_class: int
    confidence: float
    second_confidence: float
    true_class_confidence: float
    group: int = -1

    @property
    def is_correct(self) -> bool:
        """Whether the predicted class is the true class."""
        return self.predicted_class == self.true_class

    @property
    def margin(self) -> float:
        """Difference between the probabilities of the two most probable classes."""
        return self.confidence - self.second_confidence


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of similar confidence: their number, mean confidence, and accuracy with its 95% interval."""

    count: int
    mean_confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassThresholds:
    """What a threshold for one class would do, for each of ``thresholds.THRESHOLDS``.

    ``found`` are the images of the class, out of ``count``, that would be predicted as the class; ``false_alarms`` the
    images of other classes that would.
    """

    class_index: int
    count: int
    found: tuple[int, ...]
    false_alarms: tuple[int, ...]


@dataclass(frozen=True)
class EvaluationSummary:
    """Summary of all images of one of ``SETS``.

    ``confusion`` lists the non-zero cells (true class, predicted class, count). ``risk_coverage`` lists points
    (coverage, error rate): the share of the images with the highest confidence, and the share of those misclassified.
    ``thresholds`` has the classes with the most errors, up to ``thresholds.MAX_CLASSES``.
    """

    name: str
    confusion: tuple[tuple[int, int, int], ...]
    reliability: tuple[ReliabilityBin, ...]
    risk_coverage: tuple[tuple[float, float], ...]
    thresholds: tuple[ClassThresholds, ...] = ()

    @property
    def error_count(self) -> int:
        """Number of misclassified images."""
        return sum(count for truth, prediction, count in self.confusion if truth != prediction)


@dataclass(frozen=True)
class Projection:
    """Two-dimensional map of the images: coordinates from 0 to 1,000 for each, and a description of the axes."""

    name: str
    description: str
    x: tuple[int, ...]
    y: tuple[int, ...]


@dataclass(frozen=True)
class FindingSummary:
    """Finding of the data check. ``images`` are the indices of those of its files that the report shows."""

    kind: str
    files: tuple[str, ...]
    images: tuple[int, ...]
    certainty: str
    confidence: float
    action: str
    why: str


@dataclass(frozen=True)
class ActivationMap:
    """Class activation map of one image under the final head.

    ``image`` is an index into ``Report.images``. ``grid`` [h, w] holds the contribution of each location to the
    log-odds of class ``positive`` over class ``negative``, ``bias`` the part that no location contributes; ``score``
    is their sum. ``jpeg`` shows the preprocessed image, which the grid covers exactly.
    """

    image: int
    positive: int
    negative: int
    grid: tuple[tuple[float, ...], ...]
    bias: float
    score: float
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class SpriteSheet:
    """JPEG of one square tile per image, ``side`` pixels wide, with ``columns`` tiles in a row; empty if no images."""

    side: int
    columns: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True)
class Report:
    """Everything a report shows beyond ``run.json``.

    ``classes`` are the ``known_classes`` classes of the model, then those that occur in the validation images only.
    ``images`` are those shown individually, out of ``total_images`` evaluated. ``thumbnails`` are larger JPEGs of some
    of them, by index. ``finding_counts`` has the number of findings of each kind, ``findings`` the first of each.
    ``maps_unavailable`` is the reason why there are no ``activation_maps``, or empty. ``seconds`` is the time that
    gathering the report took. ``date`` is the day on which it was made, in UTC, as 2030-12-31.
    """

    classes: tuple[str, ...]
    known_classes: int
    total_images: int
    images: tuple[ImageResult, ...]
    evaluations: tuple[EvaluationSummary, ...]
    projections: tuple[Projection, ...]
    sprite: SpriteSheet
    thumbnails: Mapping[int, bytes] = field(repr=False)
    findings: tuple[FindingSummary, ...]
    finding_counts: Mapping[str, int]
    activation_maps: tuple[ActivationMap, ...]
    maps_unavailable: str
    seconds: float
    date: str


def grouped_errors(images: Sequence[ImageResult]) -> list[list[int]]:
    """Return the indices of misclassified images by group, highest confidence first, in and among the groups."""
    groups: dict[tuple[int, int], list[int]] = {}
    errors = (i for i, image in enumerate(images) if not image.is_correct)
    for i in sorted(errors, key=lambda i: -images[i].confidence):
        group = images[i].group
        groups.setdefault((images[i].set_index, group if group >= 0 else -1 - i), []).append(i)
    return list(groups.values())


def most_confident_errors(images: Sequence[ImageResult]) -> list[int]:
    """Return the index of the most confident error of each group, highest confidence first, of up to 60 groups."""
    return [group[0] for group in grouped_errors(images)[:MAX_ERROR_GROUPS]]


def lowest_margin(images: Sequence[ImageResult]) -> list[int]:
    """Return the indices of up to 12 correctly classified images, smallest margin first."""
    correct = [i for i, image in enumerate(images) if image.is_correct]
    return sorted(correct, key=lambda i: images[i].margin)[:MAX_LOWEST_MARGIN]
