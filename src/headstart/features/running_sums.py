"""Sums over the shards of a dataset, which grow a shard at a time, and stay on the disk where a run is stopped.

Beside the files of statistics a folder of running sums has ``shards.json``: which shards were summed. Read as untrusted
data.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.errors import DataError, HeadstartError, OptionError, untrusted
from headstart.features.rows import FeatureRows, Source, Unread, is_text
from headstart.features.rows_folder import MAX_FILE, MAX_SHARDS, Shard
from headstart.features.statistics_folder import (
    FILE,
    SUMS,
    StatisticsPart,
    add_up,
    read_statistics,
    statistics_files,
    sum_rows,
)
from headstart.files import read_json, recover_folder, replace_folder, to_json
from headstart.machine import single_threaded_blas

SHARDS = "shards.json"
FILES = (FILE, SUMS, SHARDS)  # of a folder of running sums
KEPT_SECONDS = 5.0  # at least between two times that the sums are written: they take 7 MB and more


@dataclass(frozen=True)
class SummedShard:
    """How many images of a shard have a row, and a hash of what they held, empty where its name says that.

    ``title`` is what a person calls it: its archive, or the first of its images.
    """

    images: int
    contents: str = ""
    title: str = ""


@dataclass
class RunningSums:
    """The sums so far, in ``folder``: over the ``taps`` of rows that ``source`` computes.

    ``shards`` are those that were summed, by name; ``unread`` and ``remarks`` are of all of them, ``part`` is None
    before the first.
    """

    folder: Path
    source: Source
    taps: tuple[str, ...]
    part: StatisticsPart | None = None
    shards: dict[str, SummedShard] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    _last: float = field(default_factory=time.monotonic)

    def add(self, name: str, shard: Shard, contents: str = "", title: str = "") -> None:
        """Add a shard to the sums in memory. Raises OptionError for more classes or images than can be summed."""
        with single_threaded_blas():  # workers may have all cores
            part = sum_rows(FeatureRows(self.source, shard.rows), self.taps)
        self.part = part if self.part is None else add_up([self.part, part])
        self.shards[name] = SummedShard(len(shard.rows), contents, title)
        self.unread += shard.unread
        self.remarks.update(shard.remarks)

    def keep(self, *, at_once: bool = False) -> bool:
        """Write the sums where some seconds have passed since they were written, or ``at_once``; return whether.

        They are on the disk whole, those from before or these. Raises OptionError for more than can be read again,
        OSError.
        """
        if self.part is None or not (at_once or time.monotonic() - self._last >= KEPT_SECONDS):
            return False
        about = {
            "shards": {name: [shard.images, shard.contents, shard.title] for name, shard in self.shards.items()},
            "remarks": dict(self.remarks),
        }
        part = replace(self.part, source=replace(self.source, unread=tuple(self.unread)))
        files = {**statistics_files(part), SHARDS: to_json(about)}
        if len(self.shards) > MAX_SHARDS or len(files[SHARDS]) > MAX_FILE:
            raise OptionError(
                f"{SHARDS} would name {len(self.shards):,} shards in {len(files[SHARDS]):,} bytes, more than "
                f"{MAX_SHARDS:,} or {MAX_FILE:,}; sum parts of the images one by one, and merge these."
            )

        def fill(new: Path) -> None:
            for name, content in files.items():
                (new / name).write_bytes(content)

        replace_folder(self.folder, fill)
        self._last = time.monotonic()
        return True


def read_sums(folder: Path, source: Source, taps: tuple[str, ...]) -> RunningSums | None:
    """Return the sums that an earlier run has left in a folder, None where there are none.

    Raises DataError where they are damaged, OptionError where they are not of these taps and this source.
    """
    recover_folder(folder)
    if not os.path.lexists(folder):
        return None
    try:
        part = read_statistics(folder)
        with untrusted(str(folder / SHARDS), DataError):
            value = read_json(folder / SHARDS, MAX_FILE)
            shards = {name: SummedShard(*_shard(entry)) for name, entry in value["shards"].items()}
            if not shards or len(shards) > MAX_SHARDS:
                raise ValueError(f"{len(shards)} shards")
            remarks = Counter({remark: count for remark, count in value["remarks"].items() if type(count) is int})
            if not all(is_text(text) for text in (*shards, *remarks)):
                raise ValueError("a name is no text")
    except HeadstartError as error:
        raise DataError(cannot_go_on(folder, str(error))) from None
    known = replace(part.source, unread=())
    old, new = (_settings(*settings) for settings in ((known, (*part.of_taps.taps,)), (source, taps)))
    if differing := [
        f"{name} {old.get(name)}, now {new.get(name)}" for name in old | new if old.get(name) != new.get(name)
    ]:
        raise OptionError(cannot_go_on(folder, f"they were computed otherwise: {'; '.join(differing)[:1000]}."))
    if known.to_dict() != source.to_dict():
        raise OptionError(cannot_go_on(folder, "what computed them has other values for the same images."))
    return RunningSums(folder, source, taps, part, shards, [*part.source.unread], remarks)


def cannot_go_on(folder: Path, why: str) -> str:
    """Return a message on sums that are there and do not fit: they stand for work that nobody else may delete."""
    return (
        f"The sums in {folder} cannot be gone on from: {why} Nothing can be taken from a sum: give data and options as "
        "they were, or delete that folder, and all images are summed anew."
    )


def _settings(source: Source, taps: tuple[str, ...]) -> dict[str, Any]:
    """Return what a person may have set otherwise, by name."""
    backbone = source.backbone
    return {
        "backbone": f"{backbone['id']} in {backbone['precision']} ({backbone['sha256'][:12]})",
        "runtime": ", ".join(machine.name for machine in source.machines),
        "taps": ", ".join(source.taps),
        "summed": ", ".join(taps),
        "input": source.input_options,
        **source.preprocess.to_dict(),
    }


def _shard(entry: object) -> tuple[int, str, str]:
    if not isinstance(entry, list) or len(entry) != 3:
        raise ValueError("a shard is not of three values")
    images, contents, title = entry
    if type(images) is not int or images < 0 or not is_text(contents) or not is_text(title):
        raise ValueError("a shard cannot be read")
    return images, contents, title
