"""Rank backbones, and places to cut them, on one dataset: by leave-one-group-out log-loss, with speed and size.

All backbones are compared on the same images and groups. ``fit`` groups scenes by the features of its own backbone;
here the similarity of two images is the mean over all backbones, so that no backbone defines the groups it is evaluated
on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.compare.entries import Entry
from headstart.compare.ranking import ComparedCut, rank
from headstart.compare.scores import Scored, require_label_variants, score_heads
from headstart.compare.variants import Variant
from headstart.data import Dataset, Quarantined
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, Features, embed
from headstart.features.input_scaling import open_backbone
from headstart.features.runtime import RuntimeInfo, images_per_second
from headstart.heads.candidates import ScoredCandidate
from headstart.heads.mlp import Log, no_log
from headstart.heads.selection import HeadOptions
from headstart.machine import single_threaded_blas
from headstart.splits.groups import Groups
from headstart.splits.label_split import LabelSplit, split_labels
from headstart.splits.split import Split, split_features

CUTS = ("auto", "all")
READING_SHARE = 0.7  # of a time limit; the heads need the rest
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CompareOptions:
    """How backbones are compared.

    ``cuts`` "auto" is one row for each backbone, with the cut and the head that ``fit`` would choose; "all" a row for
    each tap and each set of taps tried, with its best head. ``group_by`` is that of ``FitOptions``. ``time_limit`` in
    seconds: backbones that cannot be read in it are skipped, in the order given;
    ``max_size`` in megabytes: so are cuts whose graph is larger. ``variants`` (``make_variants``) are heads to compare
    on each backbone, a row for each; by default there is one, the head that ``fit`` chooses.
    """

    cuts: str = "auto"
    group_by: str = "auto"
    time_limit: float | None = None
    max_size: float | None = None
    compute: Compute = field(default_factory=Compute)
    seed: int = 0
    variants: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without images. Raises OptionError."""
        if self.cuts not in CUTS:
            raise OptionError(f"Cuts {self.cuts!r} are unknown; expected auto (as fit chooses) or all.")
        if self.cuts == "all" and self.variants:
            raise OptionError(
                "Every cut is compared with the best head for it; leave --cuts or the head's options out."
            )


@dataclass(frozen=True)
class BackboneComparison:
    """Result of a comparison: ``rows``, the least loss first, and the ``reason`` for the one recommended.

    With several labels an image, ``is_multi_label``, ``classes`` are these, and the accuracy of a row is its mAP.
    ``skipped`` are pairs of what was not compared and why. ``images`` counts those that every backbone could read;
    ``hits`` and ``misses`` are of the cache.
    """

    rows: tuple[ComparedCut, ...]
    reason: str
    skipped: tuple[tuple[str, str], ...]
    images: int
    classes: tuple[str, ...]
    groups: Groups
    quarantined: tuple[Quarantined, ...]
    runtime: RuntimeInfo
    hits: int
    misses: int
    seconds: float
    notes: tuple[str, ...]
    is_multi_label: bool = False

    @property
    def recommended(self) -> ComparedCut:
        """The row that is recommended."""
        return next(row for row in self.rows if row.recommended)

    def name_of(self, row: ComparedCut) -> str:
        """Return the label of a row, without the backbone where all rows have the same and differ in the variant."""
        is_alone = len({(other.backbone, other.weights) for other in self.rows}) == 1
        return row.variant_label if is_alone and row.variant_label else row.label

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        recommended = self.recommended
        return {
            "images": {"count": self.images, "quarantined": len(self.quarantined)},
            "labels" if self.is_multi_label else "classes": list(self.classes),
            "groups": self.groups.to_dict(),
            "runtime": self.runtime.to_dict(),
            "speed": "a short timed run of the network alone on this machine, all cores",
            "rows": [row.to_dict() for row in self.rows],
            "recommended": {
                "backbone": recommended.backbone,
                "weights": recommended.weights,
                "cut": list(recommended.cut),
                "variant": dict(recommended.variant),
                "reason": self.reason,
            },
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "seconds": self.seconds,
            "cache": {"hits": self.hits, "misses": self.misses},
        }


def compare_backbones(
    dataset: Dataset,
    entries: Sequence[Entry],
    options: CompareOptions | None = None,
    *,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
    log: Log = no_log,
) -> BackboneComparison:
    """Rank backbones on the training images of a dataset; validation and test images are not looked at.

    ``progress(label, done, total)`` counts the images of an entry; ``log`` receives lines of text about the trainings
    of mlp heads. Raises OptionError, DataError, BackboneError.
    """
    options = options or CompareOptions()
    budget = _Budget(time.perf_counter(), options.time_limit, options.max_size)
    train = _training_images(dataset, options)
    precision = options.compute.precision
    opened = [
        open_backbone(entry.backbone, InputOptions(weights=entry.weights), (), train, precision=precision)
        for entry in entries
    ]
    loaded = [entry.backbone for entry in opened]
    taps = [_small_enough_taps(*pair, budget) for pair in zip(entries, loaded, strict=True)]
    loaded_backbones = []
    for entry, backbone, small_taps in zip(entries, loaded, taps, strict=True):
        features = _read(entry, backbone, train, options, budget, cache, progress) if small_taps else None
        if features is not None:
            loaded_backbones.append(_LoadedBackbone(entry, backbone, small_taps, features))
    if not loaded_backbones:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in budget.skipped)
        raise OptionError(f"No backbone was compared ({reasons}); raise --time-limit or --max-size.")
    hits, misses = (sum(getattr(loaded.features, name) for loaded in loaded_backbones) for name in ("hits", "misses"))
    quarantined = {image.path: image for loaded in loaded_backbones for image in loaded.features.quarantined}
    loaded_backbones = _with_common_images(loaded_backbones)
    split = _split(loaded_backbones, train, options)
    scored = _score(loaded_backbones, split, options, budget, log)
    if not scored:
        limit = options.time_limit
        raise OptionError(f"The time limit of {limit:g} s passed before a head was evaluated; run again with more.")
    rows, reason = rank(scored, split.groups.index)
    notes = [entry.scaling.note for entry in opened if entry.scaling is not None]
    notes += [note for loaded in loaded_backbones for note in loaded.backbone.notes]
    return BackboneComparison(
        rows,
        reason,
        tuple(budget.skipped),
        len(split.train),
        split.names if isinstance(split, LabelSplit) else split.classes,
        split.groups,
        (*dataset.quarantined, *quarantined.values()),
        options.compute.resolve(),
        hits,
        misses,
        time.perf_counter() - budget.start,
        tuple(dict.fromkeys([*notes, *split.notes])),
        dataset.is_multi_label,
    )


def _training_images(dataset: Dataset, options: CompareOptions) -> Dataset:
    """Return the images to compare on. Raises DataError where there are none, OptionError for other heads."""
    if dataset.is_multi_label:
        require_label_variants(options.variants)
    train = dataset.split("train")
    if not (dataset.classes or dataset.is_multi_label) or not len(train):
        raise DataError(f"{dataset.uri} has no labelled training images; put the images in one folder per class.")
    return train


@dataclass(frozen=True)
class _LoadedBackbone:
    """A backbone that was read, with the taps to compare."""

    entry: Entry
    backbone: Backbone
    taps: tuple[str, ...]
    features: Features


@dataclass(frozen=True)
class _Budget:
    """When the run began, the limits in seconds and megabytes, and what was skipped because of them."""

    start: float
    time_limit: float | None
    max_size: float | None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def is_spent(self, share: float = 1.0) -> bool:
        """Return whether a share of the time limit has passed."""
        return self.time_limit is not None and time.perf_counter() - self.start >= self.time_limit * share


class _TimeLimitReached(Exception):
    """Raised from the progress callback of a pass over the images."""


def _small_enough_taps(entry: Entry, backbone: Backbone, budget: _Budget) -> tuple[str, ...]:
    """Return the taps up to which the graph is small enough."""
    taps = tuple(tap.name for tap in backbone.taps)
    if budget.max_size is None:
        return taps
    small = tuple(tap for tap in taps if len(_cut_graph(backbone, [tap])) <= budget.max_size * 1e6)
    if small != taps:
        too_large = ", ".join(tap for tap in taps if tap not in small)
        what = f"{entry.label} at {too_large}" if small else entry.label
        budget.skipped.append((what, f"larger than {budget.max_size:g} MB"))
    return small


def _cut_graph(backbone: Backbone, taps: Sequence[str]) -> bytes:
    graph: bytes = backbones.cut(backbone, taps).SerializeToString()
    return graph


def _read(
    entry: Entry,
    backbone: Backbone,
    train: Dataset,
    options: CompareOptions,
    budget: _Budget,
    cache: FeatureCache | None,
    progress: Progress | None,
) -> Features | None:
    """Compute the features of a backbone; None if the time is up. What was read until then is in the cache."""
    done = 0

    def report(count: int, total: int) -> None:
        nonlocal done
        done = count
        if progress is not None:
            progress(entry.label, count, total)
        if count < total and budget.is_spent(READING_SHARE):
            raise _TimeLimitReached

    try:
        if budget.is_spent(READING_SHARE):
            raise _TimeLimitReached
        return embed(train, backbone, options.compute, cache=cache, by_content=True, progress=report)
    except _TimeLimitReached:
        read = f" after {done} of {len(train)} images, which are cached" if done and cache is not None else ""
        budget.skipped.append((entry.label, f"the time limit of {budget.time_limit:g} s{read}"))
        return None


def _with_common_images(loaded_backbones: Sequence[_LoadedBackbone]) -> list[_LoadedBackbone]:
    """Restrict all features to the images that every backbone could read, in the order of the first."""
    common = loaded_backbones[0].features.index
    for loaded in loaded_backbones[1:]:
        common = common[np.isin(common, loaded.features.index)]
    restricted = []
    for loaded in loaded_backbones:
        features = loaded.features
        order = np.argsort(features.index)
        rows = order[np.searchsorted(features.index, common, sorter=order)]
        features = replace(
            features,
            values=features.vectors(rows),
            tiny_images=features.tiny_images[rows],
            image_stats=features.image_stats[rows],
            content_hashes=features.content_hashes[rows],
            index=common,
        )
        restricted.append(replace(loaded, features=features))
    return restricted


def _split(loaded_backbones: Sequence[_LoadedBackbone], train: Dataset, options: CompareOptions) -> Split | LabelSplit:
    """Compute labels and groups, the same for all backbones."""
    features = loaded_backbones[0].features
    if len(loaded_backbones) > 1:
        average = _average_directions([loaded.features for loaded in loaded_backbones])
        features = replace(features, values={"average": average})
    split = split_labels if train.is_multi_label else split_features
    return split(features, train, options.group_by, None, options.seed)


def _average_directions(features: Sequence[Features]) -> NDArray[np.float32]:
    """Return vectors [n, sum of d] whose cosine is the mean of the centred cosines of the backbones' deepest taps."""
    parts = []
    for backbone_features in features:
        deepest = np.asarray(backbone_features.deepest, np.float32)
        deepest = deepest - deepest.mean(axis=0)
        parts.append(deepest / np.maximum(np.linalg.norm(deepest, axis=1, keepdims=True), 1e-12))
    return np.concatenate(parts, axis=1)


def _score(
    loaded_backbones: Sequence[_LoadedBackbone],
    split: Split | LabelSplit,
    options: CompareOptions,
    budget: _Budget,
    log: Log,
) -> list[tuple[ComparedCut, ScoredCandidate]]:
    """Return a row for every cut or variant of every backbone, with its candidate, the least loss first."""
    scored = []
    variants = options.variants or (Variant({}, HeadOptions(seed=options.seed)),)
    for loaded in loaded_backbones:
        vectors = loaded.features.vectors(split.train)
        values = {tap: vectors[tap] for tap in loaded.taps}
        for variant in variants:
            if budget.is_spent():
                what = ", ".join(filter(None, (loaded.entry.label, variant.label)))
                budget.skipped.append((what, f"the time limit of {budget.time_limit:g} s, before its heads"))
                continue
            with single_threaded_blas():
                found = score_heads(values, split, variant, options.cuts, options.compute.threads, log)
            for one in found:
                row = replace(_row(loaded, one, split), variant=variant.values, variant_label=variant.label)
                scored.append((replace(row, fit_cut=one.fit_cut), one.candidate))
    scored.sort(key=lambda pair: pair[0].log_loss)
    return _with_size_and_speed(scored, loaded_backbones, options.compute, budget)


def _row(loaded: _LoadedBackbone, scored: Scored, split: Split | LabelSplit) -> ComparedCut:
    candidate = scored.candidate.candidate
    return ComparedCut.of(
        loaded.entry.backbone,
        loaded.entry.weights,
        loaded.backbone,
        scored.candidate.losses,
        split.groups.index,
        cut=candidate.taps,
        head={"kind": candidate.kind, **candidate.settings},
        accuracy=scored.accuracy,
    )


def _with_size_and_speed(
    scored: Sequence[tuple[ComparedCut, ScoredCandidate]],
    loaded_backbones: Sequence[_LoadedBackbone],
    compute: Compute,
    budget: _Budget,
) -> list[tuple[ComparedCut, ScoredCandidate]]:
    backbone_of: Mapping[Entry, Backbone] = {loaded.entry: loaded.backbone for loaded in loaded_backbones}
    speeds: dict[tuple[Entry, str], float] = {}
    measured = []
    for row, candidate in scored:
        entry = Entry(row.backbone, row.weights)
        backbone = backbone_of[entry]
        graph = _cut_graph(backbone, row.cut)
        deepest = [tap.name for tap in backbone.taps if tap.name in row.cut][-1]  # decides the speed
        key = (entry, deepest)
        if key not in speeds and not budget.is_spent():
            size = (backbone.preprocess.height, backbone.preprocess.width)
            speeds[key] = images_per_second(graph, size, backbone.batch, compute)
        measured.append((replace(row, bytes=len(graph), images_per_second=speeds.get(key)), candidate))
    return measured
