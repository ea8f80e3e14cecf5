"""``headstart embed --statistics``: sums over the images of a dataset, a shard at a time; no rows of all are ever kept.

In one process rows are in memory alone; only the cache, where that is on, keeps the features of every image. Workers
write the rows of a shard as a file, which is summed as it comes and then deleted. The sums so far are on the disk, so
that a run that was killed goes on. Where an image that they hold has changed since, that is an error: it cannot be
taken from a sum, and only the user may delete what took days of work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.classifier.embed_folder import (
    SHARD_IMAGES,
    DatasetShards,
    check_kept,
    contents_of,
    cuts,
    make_folder,
)
from headstart.classifier.embed_sharded import ShardPlan, Where, plan_shards
from headstart.classifier.kept_rows import with_dataset
from headstart.classifier.options import FitOptions
from headstart.data import Dataset, ReadOptions
from headstart.errors import DataError, OptionError
from headstart.features.features import Progress, remark_notes
from headstart.features.rows import Source, merge_sources
from headstart.features.rows_folder import foreign_to_rows, read_shard
from headstart.features.running_sums import FILES, RunningSums, cannot_go_on, read_sums
from headstart.features.statistics_folder import StatisticsPart, said_of, taps_to_sum
from headstart.files import TEMPORARY, foreign_files, json_text
from headstart.machine import is_left_by_system
from headstart.scale.addresses import common_folder, expand_braces
from headstart.scale.contract import Report, ShardResult
from headstart.scale.embed import EmbedShard
from headstart.scale.run import Progress as ShardProgress
from headstart.scale.run import run_shards
from headstart.scale.shards import Shard

ROWS, SUMS = "rows", "sums"  # in the folder of what is not finished


@dataclass(frozen=True)
class SummedImages:
    """The sums over the images of a dataset. ``missing`` shards could not be done; the same call tries them again.

    ``notes`` are lines on this run that the user must see. They are no part of what it has made, which is the same
    however often the run was stopped.
    """

    part: StatisticsPart
    missing: int = 0
    notes: tuple[str, ...] = ()


def unfinished_sums(output: Path) -> Path:
    """Return where the sums so far lie until they are written: beside ``output``, where every worker can write."""
    return output.resolve().with_name(f".{output.resolve().name}.unfinished-statistics")


def check_unfinished(folder: Path) -> None:
    """Raise OptionError where the folder of the sums so far has anything but them, which would be deleted with them."""
    foreign = _foreign(folder) if os.path.lexists(folder) else None
    if foreign is not None:
        raise OptionError(
            f"{folder} is for statistics that are not finished, and holds something else ({foreign}); move that "
            "elsewhere, or give another name for the statistics."
        )


def _foreign(folder: Path) -> str | None:
    """Return the path of something in the folder of the sums so far that no run has written; None where all is ours."""
    if folder.is_symlink() or not folder.is_dir():
        return folder.name
    return next(filter(None, map(_foreign_at, sorted(folder.iterdir()))), None)


def _foreign_at(path: Path) -> str | None:
    """Return what no run has written of a file or folder among the sums so far; None where all of it is ours."""
    if path.name not in (ROWS, SUMS):
        return None if path.name.startswith(TEMPORARY) or is_left_by_system(path) else path.name
    inside = foreign_to_rows(path) if path.name == ROWS else foreign_files(path, FILES.__contains__)
    if not inside:
        return None
    return path.name if inside == [path] else f"{path.name}/{inside[0].name}"


def forget_sums(folder: Path) -> None:
    """Delete the sums so far, once they are written as statistics, and nothing that others have put beside them."""
    for path in [*folder.iterdir()]:
        if _foreign_at(path) is not None:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=path.name.startswith(TEMPORARY))
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty
        folder.rmdir()


def sum_dataset(
    dataset: Dataset,
    folder: Path,
    options: FitOptions,
    *,
    shard_images: int = SHARD_IMAGES,
    progress: Progress | None = None,
) -> SummedImages:
    """Compute the features of all images of a dataset and sum them, those for training that have a label.

    ``folder`` holds the sums so far, under ``SUMS``, until ``forget_sums``: the same call goes on from them,
    once it has read again the images that they hold. ``options`` are those of ``embed_to_folder``, and say which taps
    are summed. Raises HeadstartError, also where sums are there that are not of these images and options; OSError.
    """
    if not len(dataset):
        raise DataError(f"{dataset.uri} has no images; expected some to compute features of.")
    check_kept(options)
    check_unfinished(folder)
    make_folder(folder)
    with options.open_cache() as cache:
        work = DatasetShards.open(dataset, options, cache)
        taps = taps_to_sum(work.source, options.head_options.taps)
        names = work.names(cuts(dataset, shard_images))
        sums = _begin(folder, work.source, taps, names, by_workers=False)
        for name, index in names.items():
            title = dataset.items[index.start].path
            if name in sums.shards:
                if sums.shards[name].contents != _digest(work.contents(index)):
                    raise OptionError(
                        cannot_go_on(
                            sums.folder, f"of {len(index):,} images, the first of them {title}, some have changed."
                        )
                    )
                if progress is not None:
                    progress(index.stop, len(dataset))
                continue
            shard = work.compute(index, progress)
            sums.add(name, shard, _digest(contents_of(shard)), title)
            sums.keep()
        sums.keep(at_once=True)
        notes = [*dataset.notes, *work.opened.notes, *remark_notes(sums.remarks)]
        of_run = () if cache is None else tuple(cache.notes)
    return SummedImages(_finished(sums, with_dataset(work.source, dataset, notes, sums.unread)), notes=of_run)


def sum_sharded(
    uri: str,
    folder: Path,
    options: FitOptions,
    reading: ReadOptions,
    where: Where,
    *,
    check: Callable[[Dataset, bool], None] | None = None,
    progress: Callable[[ShardProgress], None] | None = None,
) -> SummedImages:
    """Compute the features of all images by several workers, as ``embed_sharded`` does, and sum them as they come.

    ``folder`` holds the sums so far, under ``SUMS``, and under ``ROWS`` the rows of the few shards that are not among
    them yet. A file of a pattern that was summed and is not there now counts all the same, as a note says. All else is
    as in ``sum_dataset`` and ``embed_sharded``. Raises HeadstartError, OSError.
    """
    check_unfinished(folder)
    plan = plan_shards(uri, folder / ROWS, options, reading, where, check)
    work, by_hash = plan.work, {shard.sha256: shard for shard in plan.pieces.shards}
    away = _away(plan)
    taps = taps_to_sum(work.source, options.head_options.taps)
    sums = _begin(folder, work.source, taps, by_hash, by_workers=True, away=away.values())
    summed = [work.path(by_hash[name]) for name in sums.shards if name in by_hash]  # whose rows are to be deleted

    def forget(at_once: bool = False) -> None:
        if sums.keep(at_once=at_once):
            for path in summed:
                path.unlink(missing_ok=True)
            summed.clear()

    def arrived(shard: Shard, result: ShardResult) -> None:
        if shard.sha256 in sums.shards:
            return
        path = work.path(shard)
        entry = {"name": path.name, "sha256": result.file_sha256}
        sums.add(shard.sha256, read_shard(path.parent, entry, work.source.channels), title=shard.name)
        summed.append(path)
        forget()

    outcome = run_shards(
        plan.pieces.shards,
        _SumShard(work, sums),
        lambda count: where.open(work, count),
        progress=progress,
        arrived=arrived,
    )
    forget(at_once=True)
    plan, notes = _without_summed(plan, sums, away)
    source = plan.described(outcome, sums.unread, sums.remarks)
    return SummedImages(_finished(sums, source), plan.missing(outcome), notes)


def _away(plan: ShardPlan) -> dict[str, str]:
    """Return the names of the shards that a pattern names and that are not there, by their addresses."""
    pieces = plan.pieces
    if pieces.dataset is not None:
        return {}
    start = common_folder(expand_braces(pieces.uri))
    return {one.path: one.path.removeprefix(start) for one in pieces.quarantined}


def _without_summed(plan: ShardPlan, sums: RunningSums, away: dict[str, str]) -> tuple[ShardPlan, tuple[str, ...]]:
    """Return the plan in which nothing is missing that was summed before it went away, and a note of that."""
    summed = {shard.title for shard in sums.shards.values()} & {*away.values()}
    if not summed:
        return plan, ()
    missing = tuple(one for one in plan.pieces.quarantined if away.get(one.path) not in summed)
    more = f" and {len(summed) - 1:,} more" if len(summed) > 1 else ""
    note = f"Of the pattern {min(summed)}{more} cannot be read now; what an earlier run summed of it counts."
    return replace(plan, pieces=replace(plan.pieces, quarantined=missing)), (note,)


@dataclass(frozen=True)
class _SumShard:
    """The work of ``embed_sharded`` where shards that were summed are finished, though their rows are deleted."""

    work: EmbedShard
    sums: RunningSums

    def run(self, shard: Shard, report: Report) -> ShardResult:
        return self.work.run(shard, report)

    def finished(self, shard: Shard) -> ShardResult | None:
        summed = self.sums.shards.get(shard.sha256)
        return self.work.finished(shard) if summed is None else ShardResult(shard.sha256, summed.images)


def _begin(
    folder: Path,
    source: Source,
    taps: tuple[str, ...],
    names: Collection[str],
    *,
    by_workers: bool,
    away: Collection[str] = (),
) -> RunningSums:
    """Return the sums to go on from, new ones where there are none.

    ``names`` are those of the shards of the data, ``away`` the titles of others that belong to them. Raises OptionError
    where others were summed.
    """
    place = folder / SUMS
    sums = read_sums(place, source, taps) or RunningSums(place, source, taps)
    if any(bool(shard.contents) is by_workers for shard in sums.shards.values()):
        how = "in one process, without --on" if by_workers else "by workers, with --on"
        raise OptionError(cannot_go_on(place, f"they were summed {how}, where images are cut otherwise."))
    gone = [shard.title for name, shard in sums.shards.items() if name not in names and shard.title not in away]
    if gone:
        raise OptionError(
            cannot_go_on(
                place,
                f"{len(gone):,} of {len(sums.shards):,} summed shards (of {gone[0]}) are not in these data: "
                "there are other images, labels or files now, or they are read otherwise.",
            )
        )
    return sums


def _finished(sums: RunningSums, source: Source) -> StatisticsPart:
    """Return the sums as they are written. Raises DataError where no image is for training and has a label."""
    part = sums.part
    if part is None or not sum(shard.images for shard in sums.shards.values()):
        raise DataError(f"{source.uri} holds no image that could be read; compute statistics of others.")
    if not part.images:
        raise DataError(
            "There is nothing to sum: statistics are of training images with a label, and of these there are none "
            f"({said_of(part.left_out)}); give labels, or compute the features without --statistics."
        )
    return replace(part, source=merge_sources([source], [source.uri])[0])


def _digest(contents: dict[str, str]) -> str:
    """Return one hash of the hashes of images by path."""
    return hashlib.sha256(json_text(sorted(contents.items())).encode()).hexdigest()
