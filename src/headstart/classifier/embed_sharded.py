"""``headstart embed --on``: the features of a dataset as a folder of rows, by several processes or on Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.classifier.embed_folder import EmbeddedFolder, check_folder, delete_others, make_folder
from headstart.classifier.embedded import open_images
from headstart.classifier.kept_rows import describe_source, with_dataset
from headstart.classifier.options import FitOptions
from headstart.classifier.rendered_golden import rendered_features
from headstart.data import Dataset, Quarantined, ReadOptions
from headstart.errors import DataError, OptionError
from headstart.features import Compute, embed
from headstart.features.features import remark_notes
from headstart.features.rows import Source, Unread
from headstart.features.rows_folder import FILE, listing
from headstart.files import write_atomic
from headstart.scale.embed import EmbedShard
from headstart.scale.processes import ProcessWorkers
from headstart.scale.ray import RayWorkers, check_installed
from headstart.scale.run import Outcome, Progress, Workers, run_shards
from headstart.scale.shards import Cut, cut

KINDS = ("processes", "ray")
MAX_NAMED = 3  # shards in a note


@dataclass(frozen=True)
class Where:
    """Who computes: ``on`` is one of ``KINDS``, ``workers`` how many (None: one for each core).

    ``address`` is that of a Ray cluster, or "auto"; None starts Ray here. Raises OptionError.
    """

    on: str = "processes"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.on not in KINDS:
            raise OptionError(f"Unknown kind of workers {self.on!r}; choose one of {', '.join(KINDS)}.")
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"{self.workers} workers cannot be used; give 1 or more.")
        if self.address is not None and self.on != "ray":
            raise OptionError("--address is that of a Ray cluster; give --on ray too.")

    def open(self, work: EmbedShard, shards: int) -> Workers:
        """Return the workers for at most so many shards. Raises MissingExtraError, OptionError."""
        if self.on == "processes":
            return ProcessWorkers(work, self.workers, shards)
        return RayWorkers(work, self.workers, shards, self.address)


@dataclass(frozen=True)
class ShardPlan:
    """What is to be computed, and by what: the shards, and ``work``, what is done with each.

    ``notes`` are lines about the backbone that the user must see.
    """

    pieces: Cut
    work: EmbedShard
    notes: tuple[str, ...]

    def described(self, outcome: Outcome, unread: Sequence[Unread], remarks: Mapping[str, int]) -> Source:
        """Return the source of the work, with what is known of its images once the work is done."""
        notes = [*self.pieces.notes, *self.notes, *remark_notes(remarks), *_shard_notes(self.pieces, outcome)]
        source = self.work.source
        described = with_dataset(source, _listed(self.pieces, outcome), notes, unread)
        return replace(described, is_multi_label=source.is_multi_label)

    def missing(self, outcome: Outcome) -> int:
        """Return how many shards are missing."""
        return len(_lost(self.pieces, outcome))


def plan_shards(
    uri: str,
    folder: Path,
    options: FitOptions,
    reading: ReadOptions,
    where: Where,
    check: Callable[[Dataset, bool], None] | None = None,
) -> ShardPlan:
    """Cut the images at ``uri`` into shards, and make the ``folder`` for their rows, as ``embed_sharded`` does."""
    pieces = cut(uri, reading)
    if not pieces.shards:
        raise DataError(f"{uri} has no images; expected some to compute features of.")
    runtime = options.compute.resolve()
    compute = Compute(runtime.name, runtime.precision, 1, fixed=True)
    first = pieces.dataset or pieces.shards[0].open()
    if check is not None:
        check(first, pieces.dataset is not None)
    if where.on == "ray":
        check_installed()  # before the folder is made
    check_folder(folder, options)
    make_folder(folder)
    opened = open_images(first, options)
    golden = rendered_features(opened.backbone, compute, embed)
    source = describe_source(opened.backbone, opened.options, runtime, golden)
    source = replace(source, is_multi_label=first.is_multi_label)
    return ShardPlan(pieces, EmbedShard(str(folder.resolve()), source, compute), opened.notes)


def embed_sharded(
    uri: str,
    folder: Path,
    options: FitOptions,
    reading: ReadOptions,
    where: Where,
    *,
    check: Callable[[Dataset, bool], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> EmbeddedFolder:
    """Compute the features of all images at a path, URL or pattern of archives into a folder, by several workers.

    The files of rows are the same bytes for any number and kind of workers, whoever of them dies, and however often the
    run is continued. A shard whose file is there is not computed again: its name holds the hash of its listing. Of a
    pattern, the input of the backbone is found by the images of the first file. ``options`` are those that
    ``embed_to_folder`` takes, without the cache. Before anything is written or computed, ``check(images, are_all)``
    may refuse the data, of which it is given all images, or those of the first file of a pattern. Raises
    HeadstartError, OSError.
    """
    plan = plan_shards(uri, folder, options, reading, where, check)
    shards, work = plan.pieces.shards, plan.work
    outcome = run_shards(shards, work, lambda count: where.open(work, count), progress=progress)
    by_hash = {shard.sha256: shard for shard in shards}
    files = {result.sha256: work.path(by_hash[result.sha256]).name for result in outcome.results}
    entries = [
        {"name": files[one.sha256], "rows": one.images, "bytes": one.file_bytes, "sha256": one.file_sha256}
        for one in outcome.results
    ]
    unread = [image for result in outcome.results for image in result.unread]
    remarks = sum((Counter(result.remarks) for result in outcome.results), Counter[str]())
    source = plan.described(outcome, unread, remarks)
    about = listing(source, entries)
    write_atomic(folder / FILE, about)
    delete_others(folder, {*files.values()})
    size = len(about) + sum(one.file_bytes for one in outcome.results)
    found, found_rows, missing = outcome.resumed, outcome.resumed_images, plan.missing(outcome)
    return EmbeddedFolder(source, outcome.images, size, len(outcome.results), found, found_rows, missing)


def _listed(pieces: Cut, outcome: Outcome) -> Dataset:
    """Return what is known of the images without opening a shard, and the shards that could not be done."""
    lost = (*pieces.quarantined, *outcome.quarantined)
    dataset = pieces.dataset
    layout, class_names = ("shards", ()) if dataset is None else (dataset.layout, dataset.class_names)
    return Dataset(pieces.uri, (), (), pieces.skipped, lost, _no_images, layout=layout, class_names=class_names)


def _no_images(key: int) -> bytes:
    raise AssertionError(f"image {key} is of a shard")


def _lost(pieces: Cut, outcome: Outcome) -> tuple[Quarantined, ...]:
    """Return the shards that are missing: of a pattern, a file that is not there is a whole one."""
    return (*(pieces.quarantined if pieces.dataset is None else ()), *outcome.quarantined)


def _shard_notes(pieces: Cut, outcome: Outcome) -> list[str]:
    """Say which shards are missing."""
    notes = []
    if lost := _lost(pieces, outcome):
        named = "; ".join(f"{one.path}: {one.reason}" for one in lost[:MAX_NAMED])
        more = f"; and {len(lost) - MAX_NAMED} more" if len(lost) > MAX_NAMED else ""
        notes.append(
            f"{len(lost)} of {len(lost) + len(outcome.results)} shards are missing ({named}{more}); the same command "
            "tries them again."
        )
    return notes
