"""A dataset, or a set of archives and tables, cut into fixed shards: the units that workers take.

The cut depends on the data alone, never on who works on it. Images of a folder or of a table of paths are cut by the
hash of their paths, so that an image more changes one shard and leaves the others as they are. Images inside an archive
or a table are cut in their order, since they are read from its start. Of a pattern such as ``{000..999}.tar`` every
file is one shard, which the worker lists: whoever plans the work reads none of them.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import lru_cache
from stat import S_ISREG

from headstart.data import Dataset, Item, Quarantined, ReadOptions, Skipped, open_dataset
from headstart.data.archives import ARCHIVE_SUFFIXES
from headstart.data.label_sets import label_text
from headstart.data.reading import read_file
from headstart.data.table_files import TABLES
from headstart.errors import DataError, OptionError
from headstart.files import json_text
from headstart.scale.addresses import common_folder, expand_braces, folder_identities, has_braces, identities, identity

SHARD_IMAGES = 1024  # on average: half a minute of work for a core, 4 MB of vectors
MAX_WHOLE = 2**16  # images in one archive that is a shard
WHOLE_SUFFIXES = (*ARCHIVE_SUFFIXES, ".parquet")
OPENED = 2  # archives or tables that a worker keeps open
FORMAT = "headstart-shard-1"


@dataclass(frozen=True)
class Shard:
    """A fixed part of a dataset, which a worker opens by itself. It can be sent to another process or machine.

    ``name`` is shown to people. ``sha256`` is the hash, in hexadecimal, of its listing: the name, label, split and
    group of each image, and the size and version of its file, or of the archive or table that holds it; of shards with
    equal listings also of which it is. ``count`` is
    how many images it has, None for a whole archive or table. ``uri`` is what is opened, ``items`` are its images
    where they are known, and ``kind`` says how they are read: "files" by their paths, "part" from ``uri``, of which
    they are a part, and "whole" are all images of ``uri``. ``folder`` is as in ``Dataset``.
    """

    name: str
    sha256: str
    uri: str
    kind: str
    options: ReadOptions
    items: tuple[Item, ...] = ()
    folder: str = ""

    @property
    def count(self) -> int | None:
        """How many images it has, None where only the worker that opens it will know."""
        return None if self.kind == "whole" else len(self.items)

    def open(self) -> Dataset:
        """Return its images as a dataset. Raises DataError, also where the files changed since they were listed."""
        if self.kind == "whole":
            dataset = open_dataset(self.uri, self.options)
            if len(dataset) > MAX_WHOLE:
                raise DataError(
                    f"{self.uri} has {len(dataset):,} images, more than the limit of {MAX_WHOLE:,}; split it."
                )
            return dataset
        labels = sorted({item.label for item in self.items if item.label is not None})
        if self.kind == "files":
            keyed = tuple(replace(item, key=i) for i, item in enumerate(self.items))
            places = [_place(self.folder, item) for item in self.items]
            return Dataset(
                self.uri, keyed, tuple(labels), (), (), lambda key: read_file(places[key]), self.folder, "files"
            )
        dataset, paths = _opened(self.uri, self.options)
        for item in self.items:
            if paths.get(item.key) != item.path:
                raise DataError(f"{self.uri} changed since it was listed, at {item.path}; run the command again.")
        return replace(dataset, items=self.items, classes=tuple(labels), skipped=(), quarantined=(), notes=())


@dataclass(frozen=True)
class Cut:
    """A dataset as shards. ``skipped``, ``quarantined`` and ``notes`` are as in ``Dataset``; whole shards add theirs.

    ``dataset`` holds all images where they are listed, None where whole archives are not yet.
    """

    uri: str
    shards: tuple[Shard, ...]
    skipped: tuple[Skipped, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    dataset: Dataset | None = field(default=None, repr=False)

    @property
    def count(self) -> int | None:
        """How many images all shards have, None where that is not known yet."""
        counts = [shard.count for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)


def cut(uri: str | os.PathLike[str], options: ReadOptions | None = None, *, images: int = SHARD_IMAGES) -> Cut:
    """Cut the dataset at a path, an fsspec URL, or a pattern with braces into shards of about ``images`` images.

    Every archive (zip, tar) or Parquet file that a pattern names is a shard of its own; one that is not there is
    quarantined. Raises DataError, OptionError.
    """
    text, options = os.fspath(uri), options or ReadOptions()
    if has_braces(text):
        return _cut_pattern(text, options)
    dataset = open_dataset(text, options)
    short = _short_paths(text, dataset)
    versions, container = _local_versions(text, dataset), list[object]()
    kind = "part" if versions is None else "files"
    if versions is None:
        versions = _remote_versions(text, short)
    if versions is None:
        versions, container = [[] for _ in short], _container(text)
        parts = [[*range(i, min(i + images, len(short)))] for i in range(0, len(short), images)]
    else:
        parts = _by_hash(short, images)
    shards, seen = [], Counter[str]()
    for part in parts:
        items = tuple(dataset.items[i] for i in part)
        rows = [
            [short[i], label_text(item), item.split, item.group, item.folder, *versions[i]]
            for i, item in zip(part, items, strict=True)
        ]
        name = f"{short[part[0]]} and {len(part) - 1:,} more" if len(part) > 1 else short[part[0]]
        sha256 = _hash([container, rows])
        seen[sha256] += 1
        if seen[sha256] > 1:  # of a table that names images twice, which are two shards
            sha256 = _hash([sha256, seen[sha256]])
        shards.append(Shard(name, sha256, text, kind, options, items, dataset.folder))
    return Cut(text, tuple(shards), dataset.skipped, dataset.quarantined, dataset.notes, dataset)


def _cut_pattern(pattern: str, options: ReadOptions) -> Cut:
    """Make a shard of every file that a pattern names. Raises DataError where none of them is there."""
    if options.classes is not None:
        raise OptionError("--classes renames the classes of one dataset, not of a pattern of archives; leave it out.")
    addresses = expand_braces(pattern)
    for address in addresses:
        if not address.split("?")[0].lower().endswith(WHOLE_SUFFIXES):
            raise OptionError(
                f"{address} is no archive and no Parquet file; a pattern names {', '.join(WHOLE_SUFFIXES)}."
            )
    folder = common_folder(addresses)
    shards, missing = [], []
    reading = list(astuple(options))  # labels depend on it
    for address, found in zip(addresses, identities(addresses), strict=True):
        if isinstance(found, str):
            missing.append(Quarantined(address, f"It cannot be read: {found}."))
            continue
        name = address.removeprefix(folder)
        shards.append(Shard(name, _hash([name, *found, reading]), address, "whole", options))
    if not shards:
        raise DataError(
            f"Nothing of {pattern} can be read ({missing[0].path}: {missing[0].reason}); check the pattern."
        )
    return Cut(pattern, tuple(shards), (), tuple(missing))


def _place(folder: str, item: Item) -> str:
    return f"{folder}/{item.path}" if folder else item.path


def _is_remote(uri: str) -> bool:
    return "://" in uri or "::" in uri


def _local_versions(uri: str, dataset: Dataset) -> list[list[object]] | None:
    """Return size and time of change of each image's file; None where one of them is no local file under its path."""
    if _is_remote(uri):
        return None
    versions: list[list[object]] = []
    for item in dataset.items:
        try:
            status = os.stat(_place(dataset.folder, item))  # noqa: PTH116  # a Path each is slow for thousands
        except (OSError, ValueError):
            return None
        if not S_ISREG(status.st_mode):
            return None
        versions.append([status.st_size, str(status.st_mtime_ns)])
    return versions


def _remote_versions(uri: str, names: Sequence[str]) -> list[list[object]] | None:
    """Return size and version of each image in a folder behind an address; None for an archive, a table, or a path."""
    if not _is_remote(uri) or uri.split("?")[0].lower().endswith((*ARCHIVE_SUFFIXES, *TABLES)):
        return None
    known = folder_identities(uri)
    return [[*known[name]] for name in names] if all(name in known for name in names) else None


def _container(uri: str) -> list[object]:
    """Return size and version of an archive or table, or of all those in a local folder."""
    if not os.path.isdir(uri):  # noqa: PTH112
        return [*identity(uri)]
    found = sorted(
        os.path.relpath(f"{folder}/{name}", uri)
        for folder, _, names in os.walk(uri)
        for name in names
        if name.lower().endswith((*ARCHIVE_SUFFIXES, *TABLES))
    )
    return [[name, *identity(f"{uri}/{name}")] for name in found]


def _short_paths(uri: str, dataset: Dataset) -> list[str]:
    """Return the paths of a dataset below it, so that a dataset that is moved is cut in the same way."""
    start = "" if dataset.folder else uri.rstrip("/") + "/"
    return [item.path.removeprefix(start) for item in dataset.items]


def _by_hash(paths: Sequence[str], images: int) -> list[list[int]]:
    """Deal images into 2^k parts by the first k bits of the SHA-256 of their paths, about ``images`` in each."""
    bits = max(-(-len(paths) // images) - 1, 0).bit_length()
    parts: list[list[int]] = [[] for _ in range(2**bits)]
    for i, path in enumerate(paths):
        digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()
        parts[int.from_bytes(digest[:8], "big") >> (64 - bits)].append(i)
    return [part for part in parts if part]


def _hash(listing: object) -> str:
    return hashlib.sha256(json_text([FORMAT, listing]).encode()).hexdigest()


@lru_cache(OPENED)
def _opened(uri: str, options: ReadOptions) -> tuple[Dataset, dict[int, str]]:
    """Open what several shards are parts of, once in a worker; also the path of each key."""
    dataset = open_dataset(uri, options)
    return dataset, {item.key: item.path for item in dataset.items}
