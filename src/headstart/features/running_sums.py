"""Sums over the shards of a dataset, which grow a shard at a time, and stay on the disk where a run is stopped.

Beside the files of statistics a folder of running sums has ``shards.json``: which shards were summed. Read as untrusted
data.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.errors import DataError, HeadstartError, untrusted
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
ANEW = "What an earlier run had summed was of other images, or was computed otherwise; all images were summed anew."


@dataclass(frozen=True)
class SummedShard:
    """How many images of a shard have a row, and a hash of what they held, empty where its name says that."""

    images: int
    contents: str = ""


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

    def add(self, name: str, shard: Shard, contents: str = "") -> None:
        """Add a shard to the sums in memory. Raises OptionError for more classes or images than can be summed."""
        with single_threaded_blas():  # workers may have all cores
            part = sum_rows(FeatureRows(self.source, shard.rows), self.taps)
        self.part = part if self.part is None else add_up([self.part, part])
        self.shards[name] = SummedShard(len(shard.rows), contents)
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
            "shards": {name: [shard.images, shard.contents] for name, shard in self.shards.items()},
            "remarks": dict(self.remarks),
        }
        part = replace(self.part, source=replace(self.source, unread=tuple(self.unread)))
        files = {**statistics_files(part), SHARDS: to_json(about)}

        def fill(new: Path) -> None:
            for name, content in files.items():
                (new / name).write_bytes(content)

        replace_folder(self.folder, fill)
        self._last = time.monotonic()
        return True


def read_sums(folder: Path, source: Source, taps: tuple[str, ...]) -> RunningSums | None:
    """Return the sums that an earlier run has left in a folder.

    None where there are none, and where they are damaged or not of these taps and this source.
    """
    recover_folder(folder)
    if not folder.is_dir() or folder.is_symlink():
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
    except HeadstartError:  # damaged: all is summed again, and the user is told
        return None
    if replace(part.source, unread=()).to_dict() != source.to_dict() or tuple(part.of_taps.taps) != taps:
        return None
    return RunningSums(folder, source, taps, part, shards, [*part.source.unread], remarks)


def _shard(entry: object) -> tuple[int, str]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise ValueError("a shard is no pair")
    images, contents = entry
    if type(images) is not int or images < 0 or not is_text(contents):
        raise ValueError("a shard cannot be read")
    return images, contents
