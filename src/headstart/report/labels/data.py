"""The content of a report of several labels: per-image results, their summaries by label, and small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.report.data import ReliabilityBin, SpriteSheet

MAX_CELLS = 40  # of an image
MAX_CURVES = 60  # labels with a curve
MAX_PAIRED = 40  # labels in the matrix of co-occurrence
MAX_SUSPECTS = 60  # of a kind; each may be several images of one scene
MAX_MEMBERS = 60  # images of a suspect


@dataclass(frozen=True)
class Cell:
    """A label of one image: its probability, whether the image has it (None: not known), and whether it is said to."""

    label: int
    probability: float
    is_true: bool | None
    is_said: bool

    @property
    def is_error(self) -> bool:
        """Whether what is said of the label is known to be wrong."""
        return self.is_true is not None and self.is_true != self.is_said


@dataclass(frozen=True)
class LabelledImage:
    """Prediction for one image.

    ``set_index`` is the index into ``report.data.SETS``. ``cells`` are the labels that it has or is said to have, most
    probable first, else the most probable one; of very many ``MAX_CELLS``, errors before others. Images of one set
    with the same ``group`` show one scene or are copies; -1 means that the group is not known. ``unknown`` counts the
    labels of which it is not known whether it has them.
    """

    path: str
    set_index: int
    group: int
    cells: tuple[Cell, ...]
    unknown: int

    @property
    def is_correct(self) -> bool:
        """Whether no label is known to be said wrongly."""
        return not any(cell.is_error for cell in self.cells)


@dataclass(frozen=True)
class LabelCounts:
    """How often one label is found, missed, said wrongly, and rightly not said, of the images of which it is known."""

    found: int
    missed: int
    false_alarms: int
    rejected: int

    @property
    def recall(self) -> float | None:
        """The share of the images with the label of which it is said; None without such images."""
        count = self.found + self.missed
        return self.found / count if count else None

    @property
    def precision(self) -> float | None:
        """The share of the images of which the label is said that have it; None without such images."""
        count = self.found + self.false_alarms
        return self.found / count if count else None


@dataclass(frozen=True)
class LabelCurve:
    """Precision against recall of one label: points (recall, precision), highest threshold first."""

    label: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class LabelSummary:
    """Summary of all images of one of ``report.data.SETS``.

    ``counts`` [k] are by label; ``curves`` of the labels with the lowest average precision, lowest first.
    ``reliability`` compares the probabilities of all cells with the share of them that hold. ``true_pairs`` and
    ``said_pairs`` list (label, label, count): images that have both, and of which both are said, in the lower triangle
    with its diagonal, of the most frequent labels.
    """

    name: str
    counts: tuple[LabelCounts, ...]
    curves: tuple[LabelCurve, ...]
    reliability: tuple[ReliabilityBin, ...]
    true_pairs: tuple[tuple[int, int, int], ...]
    said_pairs: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Suspect:
    """A label of images of one scene that is suspect, as ``check.cells.suspect_cells`` says.

    ``kind`` is ``check.finding.MISSING`` where the images are labelled without it, ``WRONG`` where they have it;
    ``is_likely`` says whether it is likely to be so, not only possible. ``images`` are indices, that with the greatest
    contradiction first; ``probability`` is that of the label there.
    """

    kind: str
    is_likely: bool
    label: int
    images: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class LabelReport:
    """Everything a report of several labels shows beyond ``run.json``.

    ``images`` are those shown individually, out of ``total_images`` evaluated. ``suspects`` has the first of each kind,
    ``suspect_counts`` the number of all by kind. ``thumbnails`` are larger JPEGs of some images, by index. ``seconds``
    is the time that gathering the report took, ``date`` the day on which it was made, in UTC, as 2030-12-31.
    """

    labels: tuple[str, ...]
    total_images: int
    images: tuple[LabelledImage, ...]
    evaluations: tuple[LabelSummary, ...]
    suspects: tuple[Suspect, ...]
    suspect_counts: Mapping[str, int]
    sprite: SpriteSheet
    thumbnails: Mapping[int, bytes] = field(repr=False)
    seconds: float
    date: str
