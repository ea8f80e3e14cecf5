"""How a classifier is fitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from headstart.backbones import DEFAULT_BACKBONE, InputOptions
from headstart.classifier.class_settings import (
    ClassSettings,
    ClassWeight,
    Costs,
    Thresholds,
    check_decision_options,
)
from headstart.data import Dataset
from headstart.errors import OptionError, check_types
from headstart.features import Compute, FeatureCache
from headstart.heads.mlp import MlpConfig
from headstart.heads.selection import HeadOptions
from headstart.images.augment import views
from headstart.images.preprocess import DECODINGS
from headstart.splits.named import parse_group_by
from headstart.stats.conformal import check_targets
from headstart.stats.label_thresholds import check_target

MAX_TEXT = 200  # characters of a version and of an author


@dataclass(frozen=True)
class FitOptions:
    """How a classifier is fitted.

    ``backbone`` is an id, ``input_options`` how it wants its images; ``cut`` "auto" or the taps to use; ``head``
    "auto", "ridge", "lda", "centroid", "logistic" or "mlp"; ``dropout`` a rate in [0, 1) or None; ``mlp`` configures
    the training of an mlp head. ``views`` is the number of views of each training image to learn from (1: the image
    alone), ``augmentation`` how they differ: "flip", "light" or "lesson". ``group_by`` is "auto", "none", "folder",
    "name:PATTERN", "exif", "exif:SECONDS" or the name of a column; ``validation`` a dataset, its path or URL, a share
    of the groups in (0, 1), or None: the validation split of the data. ``coverage`` is the share of images whose
    prediction set is to hold their class, ``false_alarms`` the share that may be rejected although they belong to a
    class. ``compute`` runs the backbone, ``cache`` keeps features on disk, ``seed`` is the random seed.

    ``class_weight`` is by class how many times as frequent it counts as in the training images: a mapping, the path of
    a file, or "balanced" for classes that are equally frequent; probabilities are corrected for it in closed form.
    ``costs`` are by true class the cost of predicting each class, a mapping of mappings or the path of a file: the
    class with the least expected cost is then predicted. ``thresholds`` are by class the probability from which on it
    is predicted. ``model_version`` and ``author`` are what the model says of itself, each one line.

    ``decode`` "full" reads large JPEG files whole, for a model that will be used where they cannot be read at a
    fraction of their size, such as a browser; it is slower.

    ``target_recall`` or ``target_precision``, shares in (0, 1), are what the thresholds of several labels an image are
    to keep; without either a label holds from a probability of 0.5 on.
    """

    backbone: str = DEFAULT_BACKBONE
    input_options: InputOptions | None = None
    cut: str | Sequence[str] = "auto"
    head: str = "auto"
    dropout: float | None = None
    mlp: MlpConfig | None = None
    views: int = 1
    augmentation: str = "light"
    group_by: str = "auto"
    validation: Dataset | str | os.PathLike[str] | float | None = None
    coverage: float = 0.95
    false_alarms: float = 0.05
    compute: Compute = field(default_factory=Compute)
    cache: bool = True
    seed: int = 0
    class_weight: ClassWeight = None
    costs: Costs = None
    thresholds: Thresholds = None
    model_version: str = ""
    author: str = ""
    decode: str = "scaled"
    target_recall: float | None = None
    target_precision: float | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the data. Raises OptionError."""
        check_types(self)
        if not isinstance(self.cut, str):
            object.__setattr__(self, "cut", tuple(self.cut))
        if not self.cut or not all(isinstance(tap, str) for tap in self.cut):
            raise OptionError(f"A cut of {self.cut!r} cannot be used; give 'auto', or the names of taps.")
        if self.seed < 0:
            raise OptionError(f"A seed of {self.seed} cannot be used; give 0 or more.")
        if self.decode not in DECODINGS:
            raise OptionError(f"Decoding {self.decode!r} is unknown; expected {' or '.join(DECODINGS)}.")
        parse_group_by(self.group_by)
        check_targets(self.coverage, self.false_alarms)
        views(self.augmentation, self.views)
        check_decision_options(self.costs, self.thresholds)
        check_target(*self.label_target)
        if self.target_recall is not None and self.target_precision is not None:
            raise OptionError("A recall and a precision cannot both be kept by one threshold; give one target.")
        for name, text in (("version", self.model_version), ("author", self.author)):
            if not (isinstance(text, str) and len(text) <= MAX_TEXT and (text.isprintable() or not text)):
                raise OptionError(
                    f"The {name} of a model cannot be {text!r}; give one line of at most {MAX_TEXT} characters."
                )
        if self.class_weight is not None and self.mlp is not None and self.mlp.class_weights:
            raise OptionError(
                "Classes would be weighted twice, in the training and after it; leave one of the two weights out."
            )

    @property
    def head_options(self) -> HeadOptions:
        """The options of the head's selection. A cut may name several taps with commas."""
        cut = self.cut
        if isinstance(cut, str) and cut != "auto":
            cut = tuple(part.strip() for part in cut.split(","))
        return HeadOptions(
            cut if isinstance(cut, str) else tuple(cut), self.head, self.dropout, self.seed, self.mlp or MlpConfig()
        )

    @property
    def label_target(self) -> tuple[str, float]:
        """What the thresholds of several labels are to keep, "recall", "precision" or "", and the share."""
        if self.target_recall is not None:
            return "recall", self.target_recall
        return ("", 0.0) if self.target_precision is None else ("precision", self.target_precision)

    def require_single_label_options(self) -> None:
        """Raise OptionError for a target of several labels an image, which have no meaning for one class."""
        target, _ = self.label_target
        if target:
            raise OptionError(
                f"A target {target} is for several labels an image, and these images have one class; leave it out."
            )

    def require_multi_label_options(self) -> None:
        """Raise OptionError for options that have no meaning, or are not built, for several labels an image."""
        given = {
            "--head": self.head not in ("auto", "ridge"),
            "--dropout": self.dropout is not None,
            "--hidden and the other options of the mlp head": self.mlp is not None,
            "--class-weight": self.class_weight is not None,
            "--costs": self.costs is not None,
            "--threshold": self.thresholds is not None,
        }
        names = [name for name, is_given in given.items() if is_given]
        if names:
            raise OptionError(
                "With several labels an image, the head is ridge and thresholds follow a target recall or precision; "
                f"leave {' and '.join(names)} out."
            )

    @property
    def group_column(self) -> str | None:
        """The name of the column to group by, None where there is none."""
        return parse_group_by(self.group_by).column

    def class_settings(self, images: Dataset) -> ClassSettings:
        """Read and check what is set for the classes of the training images. Raises OptionError, DataError."""
        classes = {str(item.label) for item in images.items if item.split == "train"}
        return ClassSettings.of(self.class_weight, self.costs, self.thresholds, classes)

    def without_images(self) -> FitOptions:
        """Return the same as the pickle of a result holds it: a validation dataset without its images."""
        validation = self.validation
        return replace(self, validation=validation.without_images()) if isinstance(validation, Dataset) else self

    def open_cache(self, *, thumbnails: bool = False) -> AbstractContextManager[FeatureCache | None]:
        """Open the feature cache, or nothing; with ``thumbnails`` it keeps what a report shows of an image."""
        return FeatureCache(thumbnails=thumbnails) if self.cache else nullcontext()
