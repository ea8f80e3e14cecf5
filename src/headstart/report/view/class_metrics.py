"""Precision, recall and F1 of each class, what the model is good at, and what it should not be trusted with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from headstart.report.data import EvaluationSummary, Report
from headstart.report.text import SET_TITLES
from headstart.stats.accuracy import wilson

MAX_ROWS = 60
GOOD, GOOD_AT_LEAST, POOR = 0.9, 0.8, 0.8  # see Verdict


@dataclass(frozen=True)
class Mistake:
    """How many images of class ``true_class`` were predicted as another one."""

    true_class: int
    predicted_class: int
    count: int


@dataclass(frozen=True)
class ClassMetrics:
    """Results of one class: its images, those predicted as it, those of both, and its most frequent mistakes.

    ``missed_as`` is what its images are most often mistaken for, ``called_wrongly`` what is most often mistaken for it.
    ``groups`` are how many groups its images and those predicted as it are of; None where that is not known.
    """

    class_index: int
    count: int
    predicted: int
    correct: int
    missed_as: Mistake | None
    called_wrongly: Mistake | None
    groups: tuple[int, int] | None = None

    @property
    def recall(self) -> float | None:
        """Share of its images that are predicted as the class; None where it has no images."""
        return self.correct / self.count if self.count else None

    @property
    def precision(self) -> float | None:
        """Share of the images predicted as the class that are of it; None where it is never predicted."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; None where the class has no images."""
        return 2 * self.correct / (self.count + self.predicted) if self.count else None

    @property
    def is_good(self) -> bool:
        """Whether recall and precision are at least 90%, and the lower ends of their 95% intervals at least 80%.

        Of the intervals a group counts as one image, as for ``stats.classification.weak_classes``.
        """
        counts = (self.count, self.predicted)
        return all(
            count and self.correct / count >= GOOD and wilson(self.correct / count * m, m)[0] >= GOOD_AT_LEAST
            for count, m in zip(counts, self.groups or counts, strict=True)
        )

    @property
    def is_poor(self) -> bool:
        """Whether recall or precision is below 80%, or the class was never predicted."""
        return any(not count or self.correct / count < POOR for count in (self.count, self.predicted))


@dataclass(frozen=True)
class ClassesView:
    """Metrics on one of ``SETS``, worst class first, and their means over the classes with images (None counts as 0).

    ``hidden`` is the number of classes that are left out of ``rows``.
    """

    set_index: int
    title: str
    rows: tuple[ClassMetrics, ...]
    hidden: int
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True)
class Verdict:
    """The result in a sentence, of the classes that were measured: good, poor (worst first), and neither of these.

    ``weakest`` is the class with the lowest recall, ``confusions`` are the two most frequent ones.
    """

    title: str
    good: tuple[ClassMetrics, ...]
    poor: tuple[ClassMetrics, ...]
    others: tuple[ClassMetrics, ...]
    weakest: ClassMetrics
    confusions: tuple[Mistake, ...]
    set_index: int


def class_metrics(summary: EvaluationSummary, known_classes: int) -> list[ClassMetrics]:
    """Return the metrics of the model's classes that have images or are predicted, in their order."""
    counts, predicted, correct = Counter[int](), Counter[int](), Counter[int]()
    missed, called = defaultdict[int, list[Mistake]](list), defaultdict[int, list[Mistake]](list)
    for truth, prediction, count in summary.confusion:
        counts[truth] += count
        predicted[prediction] += count
        if truth == prediction:
            correct[truth] += count
        else:
            mistake = Mistake(truth, prediction, count)
            missed[truth].append(mistake)
            called[prediction].append(mistake)
    present = sorted(c for c in {*counts, *predicted} if c < known_classes)
    return [
        ClassMetrics(c, counts[c], predicted[c], correct[c], _most_frequent(missed[c]), _most_frequent(called[c]))
        for c in present
    ]


def classes_view(summary: EvaluationSummary, report: Report, set_index: int) -> ClassesView:
    """Return the table of the classes on one set."""
    rows = class_metrics(summary, report.known_classes)
    with_images = [row for row in rows if row.count]

    def mean(values: Iterable[float | None]) -> float:
        return sum(value or 0.0 for value in values) / max(1, len(with_images))

    return ClassesView(
        set_index,
        SET_TITLES[summary.name],
        tuple(sorted(rows, key=lambda row: (row.f1 or 0.0, row.class_index))[:MAX_ROWS]),
        max(0, len(rows) - MAX_ROWS),
        mean(row.precision for row in with_images),
        mean(row.recall for row in with_images),
        mean(row.f1 for row in with_images),
    )


def verdict(summary: EvaluationSummary, report: Report, set_index: int) -> Verdict | None:
    """Return what the model is good at and what not, None where no class of the model has an image."""
    rows = [row for row in class_metrics(summary, report.known_classes) if row.count]
    rows = _with_groups(rows, report, set_index, sum(count for _, _, count in summary.confusion))
    if not rows:
        return None
    worst_first = sorted(rows, key=lambda row: min(row.recall or 0.0, row.precision or 0.0))
    mistakes = [Mistake(t, p, n) for t, p, n in summary.confusion if t != p]
    mistakes.sort(key=lambda mistake: (-mistake.count, mistake.true_class, mistake.predicted_class))
    return Verdict(
        title=SET_TITLES[summary.name],
        good=tuple(row for row in rows if row.is_good),
        poor=tuple(row for row in worst_first if row.is_poor),
        others=tuple(row for row in rows if not row.is_good and not row.is_poor),
        weakest=min(rows, key=lambda row: row.recall or 0.0),
        confusions=tuple(mistakes[:2]),
        set_index=set_index,
    )


def _with_groups(rows: list[ClassMetrics], report: Report, set_index: int, total: int) -> list[ClassMetrics]:
    """Add the groups of each class, where the report shows all images, of which there are ``total``, one by one."""
    images = [image for image in report.images if image.set_index == set_index]
    if len(images) != total or any(image.group < 0 for image in images):
        return rows
    own, predicted = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for image in images:
        own[image.true_class].add(image.group)
        predicted[image.predicted_class].add(image.group)
    return [replace(row, groups=(len(own[row.class_index]), len(predicted[row.class_index]))) for row in rows]


def _most_frequent(mistakes: Iterable[Mistake]) -> Mistake | None:
    return max(mistakes, key=lambda mistake: mistake.count, default=None)
