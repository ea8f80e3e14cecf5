"""Which backbone, and where to cut it: ranked on the user's own pictures, from one pass over each backbone.

All are judged on the same pictures and the same groups. Groups that one backbone's features found would not be
fair: what it takes for one scene is left out whole, so its own nearest neighbours are never there to help it, while
the others keep theirs. Here two pictures are as alike as the backbones find them *on average* (the cosines of their
deepest taps), which no order and no single backbone decides; with one backbone they are the groups of ``fit``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.data import Dataset, Quarantined
from headstart.errors import DataError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import Features, embed
from headstart.features.runtime import RuntimeInfo, images_per_second, resolve_runtime
from headstart.heads import Candidate, as_good_as_the_best, judge
from headstart.splits.groups import Groups
from headstart.splits.split import Partition
from headstart.stats.accuracy import Z95, Accuracy, grouped_difference, leave_one_group_out_accuracy

CUTS = ("auto", "all")
PASSES = 0.7  # of a time limit, for reading features; the rest is for the heads and the timed runs

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Entry:
    """What is compared: the id of a backbone, and a file of weights in place of the published ones, or None."""

    backbone: str
    weights: str | None = None

    @property
    def label(self) -> str:
        """What to call it; no two of a comparison have the same."""
        return self.backbone if self.weights is None else f"{self.backbone} with {self.weights}"


def entries(names: Sequence[str], weights: Sequence[tuple[str, str]] = ()) -> tuple[Entry, ...]:
    """What ``compare`` looks at: every id in its order, one with several files once with each. Raises OptionError.

    >>> [entry.label for entry in entries(["headstart-s", "timm:net"], [("timm:net", "a.pth"), ("timm:net", "b.pth")])]
    ['headstart-s', 'timm:net with a.pth', 'timm:net with b.pth']
    """
    for name, file in weights:
        if name not in names:
            raise OptionError(f"Weights {file!r} are for {name!r}, which is not compared; expected an id that is.")
    found: list[Entry] = []
    for name in names:
        found += [Entry(name, file) for given, file in weights if given == name] or [Entry(name)]
    if not found or len(set(found)) < len(found):
        raise OptionError("Expected the ids of the backbones to compare, each once: --backbones A,B,C.")
    return tuple(found)


@dataclass(frozen=True)
class Row:
    """A backbone, cut: how its best head did on groups left out, and what it costs here.

    ``weights`` is the file it was given, None with the published ones. ``log_loss`` in nats with its 95%
    ``interval``; ``behind`` is how much of it more than the best row, with an interval; ``tied``: that difference is
    within the noise. ``bytes`` of the graph up to the cut; ``pictures_per_second`` of it, None if there was no time to
    measure. ``pareto``: no row is at least as good in loss, speed and size and better in one. ``fit_cut``: the cut
    that ``fit`` would choose of this backbone.
    """

    backbone: str
    sha256: str
    licence: str
    cut: tuple[str, ...]
    head: Mapping[str, object]
    log_loss: float
    interval: tuple[float, float]
    accuracy: Accuracy
    bytes: int
    pictures_per_second: float | None
    behind: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tied: bool = True
    pareto: bool = True
    recommended: bool = False
    fit_cut: bool = True
    weights: str | None = None

    @property
    def label(self) -> str:
        """The backbone, and its file of weights if it was given one."""
        return Entry(self.backbone, self.weights).label

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "backbone": self.backbone, "weights": self.weights, "sha256": self.sha256, "licence": self.licence,
            "cut": list(self.cut), "head": dict(self.head),
            "log_loss": {"value": self.log_loss, "interval": list(self.interval)},
            "accuracy": self.accuracy.to_dict(), "bytes": self.bytes,
            "pictures_per_second": self.pictures_per_second,
            "behind_best": {"value": self.behind[0], "interval": list(self.behind[1:])},
            "fit_cut": self.fit_cut,
            "tied_with_best": self.tied, "pareto": self.pareto, "recommended": self.recommended,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """``rows``, the least loss first; ``reason`` of the recommendation; ``skipped``: (what, why) was not looked
    at; how many pictures, their groups, what could not be read; cache hits and misses, and seconds taken."""

    rows: tuple[Row, ...]
    reason: str
    skipped: tuple[tuple[str, str], ...]
    pictures: int
    classes: tuple[str, ...]
    groups: Groups
    quarantined: tuple[Quarantined, ...]
    runtime: RuntimeInfo
    hits: int
    misses: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Limits:
    """When the run began, seconds it may take, bytes a cut may have, and what was therefore passed over."""

    began: float
    seconds: float | None
    bytes: float | None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def over(self, share: float = 1.0) -> bool:
        return self.seconds is not None and time.perf_counter() - self.began >= self.seconds * share


class _TimeUp(Exception):
    pass


def compare(
    dataset: Dataset,
    names: Sequence[str],
    *,
    weights: Sequence[tuple[str, str]] = (),
    cuts: str = "auto",
    group_by: str = "auto",
    time_limit: float | None = None,
    max_size: float | None = None,
    cache: FeatureCache | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Rank backbones on the training pictures of a data set.

    ``weights`` are pairs of an id among ``names`` and a file to use in place of the published weights; an id with
    several files is looked at with each. ``cuts`` "auto" is one row a backbone, with the cut and the head ``fit``
    would choose; "all" a row for each tap and each set of taps tried, all with heads without dropout and random
    features. ``time_limit`` in seconds: backbones that cannot be read in it are passed over, in the order given;
    ``max_size`` in megabytes: so are cuts whose graph is larger. ``progress(label, done, total)`` counts the pictures
    of an ``Entry``. Validation and test pictures are not looked at. Raises OptionError, DataError, BackboneError.
    """
    began = time.perf_counter()
    if cuts not in CUTS:
        raise OptionError(f"Cuts {cuts!r} are unknown; expected auto (as fit chooses) or all.")
    asked = entries(names, weights)
    limits = _Limits(began, time_limit, None if max_size is None else max_size * 1e6)
    train = dataset.split("train")
    if not dataset.classes or not len(train):
        raise DataError(f"{dataset.uri} has no labelled training pictures; put the pictures in one folder a class.")
    loaded = (backbones.load(one.backbone, options=InputOptions(weights=one.weights)) for one in asked)
    entrants = [one for pair in zip(asked, loaded, strict=True) if (one := _Entrant.of(*pair, limits))]
    read = []
    for entrant in entrants:
        found = _read(entrant, train, limits, cache, runtime, precision, workers, progress)
        if found is not None:
            read.append(replace(entrant, features=found))
    if not read:
        reasons = "; ".join(f"{name}: {why}" for name, why in limits.skipped)
        raise OptionError(f"No backbone was looked at ({reasons}); allow more.")
    split, aligned = _together(read, train, group_by, seed)
    judged = list(_rows(aligned, split, cuts, seed, limits, runtime, precision))
    if not judged:
        raise OptionError(f"The time limit of {time_limit:g} s passed before a head was judged; run again with more.")
    rows, reason = _ranked(judged, split.groups.index)
    refused = {q.path: q for one in read for q in one.features.quarantined}
    return Comparison(
        rows, reason, tuple(limits.skipped), len(split.train), split.classes, split.groups,
        (*dataset.quarantined, *refused.values()), resolve_runtime(runtime, precision),
        sum(one.features.hits for one in read), sum(one.features.misses for one in read),
        time.perf_counter() - began,
        tuple(dict.fromkeys([n for one in read for n in one.backbone.notes] + list(split.notes))),
    )  # fmt: skip


@dataclass(frozen=True)
class _Entrant:
    entry: Entry
    backbone: Backbone
    taps: tuple[str, ...]
    features: Features

    @classmethod
    def of(cls, entry: Entry, backbone: Backbone, limits: _Limits) -> _Entrant | None:
        """A backbone with the taps whose graph is small enough; None if none is."""
        taps = tuple(tap.name for tap in backbone.taps)
        small = tuple(t for t in taps if limits.bytes is None or len(_graph(backbone, [t])) <= limits.bytes)
        if limits.bytes is not None and small != taps:
            limit = f"larger than {limits.bytes / 1e6:g} MB"
            what = entry.label if not small else f"{entry.label} at {', '.join(t for t in taps if t not in small)}"
            limits.skipped.append((what, limit))
        return cls(entry, backbone, small, None) if small else None  # type: ignore[arg-type]  # read next


def _graph(backbone: Backbone, taps: Sequence[str]) -> bytes:
    graph: bytes = backbones.cut(backbone, taps).SerializeToString()
    return graph


def _read(
    entrant: _Entrant, train: Dataset, limits: _Limits, cache: FeatureCache | None, runtime: str, precision: str,
    workers: int | None, progress: Progress | None,
) -> Features | None:  # fmt: skip
    """The features of a backbone, or None if the time is up; what was read until then is in the cache."""
    done = 0

    def report(count: int, total: int) -> None:
        nonlocal done
        done = count
        if progress is not None:
            progress(entrant.entry.label, count, total)
        if count < total and limits.over(PASSES):
            raise _TimeUp

    try:
        if limits.over(PASSES):
            raise _TimeUp
        return embed(
            train, entrant.backbone, cache=cache, runtime=runtime, precision=precision, workers=workers,
            progress=report,
        )  # fmt: skip
    except _TimeUp:
        read = f" after {done} of {len(train)} pictures, which are kept" if done and cache is not None else ""
        limits.skipped.append((entrant.entry.label, f"the time limit of {limits.seconds:g} s{read}"))
        return None


def _together(
    read: Sequence[_Entrant], train: Dataset, group_by: str, seed: int
) -> tuple[Partition, tuple[_Entrant, ...]]:
    """Labels and groups, the same for all; and the features of the pictures that every backbone could read."""
    common = read[0].features.index
    for one in read[1:]:
        common = np.intersect1d(common, one.features.index)
    aligned = []
    for one in read:
        rows = np.searchsorted(one.features.index, common)
        aligned.append(replace(one, features=replace(
            one.features, values=one.features.vectors(rows), tiny_images=one.features.tiny_images[rows],
            image_stats=one.features.image_stats[rows], content_hashes=one.features.content_hashes[rows], index=common,
        )))  # fmt: skip
    first = aligned[0].features
    view = first if len(aligned) == 1 else replace(first, values={"average": _average([a.features for a in aligned])})
    return Partition.of(view, train, len(train), group_by, None, seed), tuple(aligned)


def _average(features: Sequence[Features]) -> NDArray[np.float32]:
    """Vectors [n, sum of d] whose cosine is the mean of the backbones' centred cosines of their deepest taps."""
    parts = []
    for one in features:
        deepest = np.asarray(list(one.values.values())[-1], np.float32)
        deepest = deepest - deepest.mean(axis=0)
        parts.append(deepest / np.maximum(np.linalg.norm(deepest, axis=1, keepdims=True), 1e-12))
    return np.concatenate(parts, axis=1)


def _rows(
    entrants: Sequence[_Entrant], split: Partition, cuts: str, seed: int, limits: _Limits, runtime: str, precision: str
) -> list[tuple[Row, Candidate]]:
    """A row for every cut of every backbone, with the candidate it stands for."""
    found = []
    for entrant in entrants:
        if limits.over():
            limits.skipped.append((entrant.entry.label, f"the time limit of {limits.seconds:g} s, before its heads"))
            continue
        values = entrant.features.vectors(split.train)
        judged = judge({tap: values[tap] for tap in entrant.taps}, split.labels, split.groups.index, seed=seed)
        candidates = [judged.chosen] if cuts == "auto" else list(judged.best.values())
        found += [
            (replace(_row(entrant, each, split), fit_cut=each.taps == judged.chosen.taps), each) for each in candidates
        ]
    by_label = {entrant.entry.label: entrant.backbone for entrant in entrants}
    speeds: dict[tuple[str, tuple[str, ...]], float] = {}
    timed = []
    for row, candidate in sorted(found, key=lambda pair: pair[0].log_loss):
        network = by_label[row.label]
        graph = _graph(network, row.cut)
        key = (row.label, tuple(t.name for t in network.taps if t.name in row.cut)[-1:])  # the deepest decides
        if key not in speeds and not limits.over():
            size = (network.preprocess.height, network.preprocess.width)
            speeds[key] = images_per_second(graph, size, network.batch, runtime=runtime, precision=precision)
        timed.append((replace(row, bytes=len(graph), pictures_per_second=speeds.get(key)), candidate))
    return timed


def _row(entrant: _Entrant, candidate: Candidate, split: Partition) -> Row:
    groups = split.groups.index
    loss, error = grouped_difference(candidate.losses, np.zeros(len(candidate.losses)), groups)
    right = candidate.scores.argmax(axis=1) == split.labels
    return Row(
        entrant.entry.backbone, entrant.backbone.sha256, entrant.backbone.licence, candidate.taps,
        {"kind": candidate.kind, **candidate.settings}, loss, (max(0.0, loss - Z95 * error), loss + Z95 * error),
        leave_one_group_out_accuracy(right, groups), 0, None, weights=entrant.entry.weights,
    )  # fmt: skip


def _ranked(judged: Sequence[tuple[Row, Candidate]], groups: NDArray[np.integer]) -> tuple[tuple[Row, ...], str]:
    """The rows by loss, ties and the Pareto set marked, one recommended; and why that one."""
    best = judged[0][1]
    rows = []
    for (row, candidate), tied in zip(judged, as_good_as_the_best([c for _, c in judged], groups), strict=True):
        behind, error = grouped_difference(candidate.losses, best.losses, groups)
        rows.append(replace(row, tied=tied, behind=(behind, behind - Z95 * error, behind + Z95 * error)))
    rows = [replace(row, pareto=not any(_dominates(other, row) for other in rows)) for row in rows]
    # A shallow cut can tie on training scenes and fail on others (see docs/decisions.md): fit's own preference holds.
    tied_rows = [row for row in rows if row.tied and row.fit_cut]
    chosen = min(tied_rows, key=lambda row: (-(row.pictures_per_second or 0.0), row.bytes, row.log_loss))
    rows = [replace(row, recommended=row is chosen) for row in rows]
    return tuple(rows), _reason(chosen, rows[0], sum(row.tied for row in rows), len(rows))


def _dominates(one: Row, other: Row) -> bool:
    ours, theirs = (
        (row.log_loss, -(row.pictures_per_second or 0.0), row.bytes) for row in (one, other)
    )  # fmt: skip
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _reason(chosen: Row, best: Row, tied: int, rows: int) -> str:
    if rows == 1:
        return "the only one looked at"
    if (chosen.label, chosen.cut) == (best.label, best.cut):
        if tied == 1:
            return "the best, and no other is as good within the noise"
        return "the best, and none that is as good within the noise is faster"
    ahead = f"as good as the best ({best.label} at {', '.join(best.cut)}) within the noise"
    if not chosen.pictures_per_second or not best.pictures_per_second:
        return f"{ahead}, and smaller" if chosen.bytes < best.bytes else f"{ahead}; speeds were not measured"
    faster = chosen.pictures_per_second / best.pictures_per_second
    return f"{ahead}, and {f'{faster:.1f} times as fast' if faster >= 1.05 else 'what fit would choose'}"
