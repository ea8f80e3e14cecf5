"""``headstart embed``: the features of the images of a dataset as a folder of rows, shard by shard, to be continued."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones import Backbone
from headstart.classifier.embedded import OpenedImages, open_images
from headstart.classifier.kept_rows import describe_source, with_dataset
from headstart.classifier.options import FitOptions
from headstart.classifier.rendered_golden import rendered_features
from headstart.data import Dataset
from headstart.data.label_sets import label_text
from headstart.errors import DataError, OptionError
from headstart.features import Compute, FeatureCache, embed
from headstart.features.extractor import load_backbone_graph
from headstart.features.features import Progress, remark_notes
from headstart.features.image_rows import image_hash, rows_of, unread_of
from headstart.features.rows import Source, Unread
from headstart.features.rows_folder import (
    FILE,
    SHARD,
    Shard,
    find_shard,
    foreign_to_rows,
    import_pyarrow,
    listing,
    shard_bytes,
    shard_entry,
)
from headstart.features.runtime import Graph
from headstart.files import json_text, write_atomic
from headstart.machine import why_not_writable
from headstart.splits.named import parse_group_by

SHARD_IMAGES = 1024  # of the listing, one shard: about ten seconds of work, and 5 MB


@dataclass(frozen=True)
class EmbeddedFolder:
    """What ``embed_to_folder`` has written: the source, rows, bytes, and how many of the shards were there before.

    ``found_rows`` are the rows of those. ``missing`` shards could not be done; the same call tries them again.
    """

    source: Source
    rows: int
    bytes: int
    shards: int
    found: int
    found_rows: int
    missing: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that the user must see."""
        return self.source.notes


def embed_to_folder(
    dataset: Dataset,
    folder: Path,
    options: FitOptions,
    *,
    shard_images: int = SHARD_IMAGES,
    progress: Progress | None = None,
) -> EmbeddedFolder:
    """Compute the features of all images of a dataset, of all splits and without a label, too, into a folder.

    The listing is cut into shards of ``shard_images``, each a file that appears whole; ``features.json`` comes last. A
    shard that is there, of the same images with the same contents and computed alike, is not computed again. Of
    ``options`` only those count that say how features are computed, and a column of groups that the dataset was opened
    with. ``progress(done, total)`` counts images. Raises HeadstartError, OSError.
    """
    if not len(dataset):
        raise DataError(f"{dataset.uri} has no images; expected some to compute features of.")
    check_folder(folder, options)
    make_folder(folder)
    with options.open_cache() as cache:
        work = DatasetShards.open(dataset, options, cache)
        shards, found, found_rows, unread, remarks = [], 0, 0, list[Unread](), Counter[str]()
        for name, index in work.names(cuts(dataset, shard_images)).items():
            data, shard, was_there = _shard(work, folder / name, index, progress)
            shards.append(shard_entry(name, len(shard.rows), data))
            found += was_there
            found_rows += len(shard.rows) * was_there
            unread += shard.unread
            remarks.update(shard.remarks)
        notes = [*dataset.notes, *work.opened.notes, *remark_notes(remarks), *(() if cache is None else cache.notes)]
    source = with_dataset(work.source, dataset, notes, unread)
    about = listing(source, shards)
    write_atomic(folder / FILE, about)
    delete_others(folder, {shard["name"] for shard in shards})
    size = len(about) + sum(shard["bytes"] for shard in shards)
    return EmbeddedFolder(source, sum(shard["rows"] for shard in shards), size, len(shards), found, found_rows)


def cuts(dataset: Dataset, shard_images: int) -> list[range]:
    """Return the listing of a dataset in shards of ``shard_images``."""
    return [range(i, min(i + shard_images, len(dataset))) for i in range(0, len(dataset), shard_images)]


class DatasetShards:
    """The shards of a dataset, each computed when it is asked for; a graph is loaded once."""

    def __init__(self, dataset: Dataset, opened: OpenedImages, source: Source, cache: FeatureCache | None) -> None:
        self.dataset, self.opened, self.source, self.cache = dataset, opened, source, cache
        self._key = json_text(source.to_dict())
        self._graphs: dict[Compute, Graph] = {}

    @classmethod
    def open(cls, dataset: Dataset, options: FitOptions, cache: FeatureCache | None) -> DatasetShards:
        """Open the backbone for a dataset, and describe what it computes. Raises HeadstartError."""
        opened = open_images(dataset, options)
        golden = rendered_features(opened.backbone, opened.compute, embed)
        source = describe_source(opened.backbone, opened.options, opened.compute.resolve(), golden)
        return cls(dataset, opened, source, cache)

    def names(self, shards: Sequence[range]) -> dict[str, range]:
        """Return shards by the names of their files: hashes of their listings, and of what computes.

        Of shards with equal listings, as where a table names images twice, the second is another one than the first.
        """
        names: dict[str, range] = {}
        seen = Counter[str]()
        for index in shards:
            items = [self.dataset.items[i] for i in index]
            texts = [(item.path, label_text(item), item.split, item.group, item.folder) for item in items]
            sha256 = hashlib.sha256(f"{self._key}{texts!r}".encode("utf-8", "backslashreplace")).hexdigest()
            seen[sha256] += 1
            if seen[sha256] > 1:
                sha256 = hashlib.sha256(f"{sha256} {seen[sha256]}".encode()).hexdigest()
            names[f"{sha256[:32]}.parquet"] = index
        return names

    def compute(self, index: range, progress: Progress | None) -> Shard:
        """Compute the rows of the images at ``index``."""
        images = self.dataset.select(index)
        features = embed(
            images,
            self.opened.backbone,
            self.opened.compute,
            cache=self.cache,
            load=self._load,
            progress=None if progress is None else lambda done, _: progress(index.start + done, len(self.dataset)),
        )
        return Shard(rows_of(features, images, self.source), unread_of(features, images), features.remarks)

    def contents(self, index: range) -> dict[str, str]:
        """Return the SHA-256 of the images at ``index`` as they are now, in hexadecimal, by path."""
        images = self.dataset.select(index)
        return {item.path: image_hash(images, i) for i, item in enumerate(images.items)}

    def _load(self, backbone: Backbone, compute: Compute) -> Graph:
        if compute not in self._graphs:
            self._graphs[compute] = load_backbone_graph(backbone, compute)
        return self._graphs[compute]


def contents_of(shard: Shard) -> dict[str, str]:
    """Return the SHA-256 of the images of a shard as they were computed, in hexadecimal, by path."""
    known = dict(zip(shard.rows.paths, (content.hex() for content in shard.rows.hashes), strict=True))
    return known | {image.path: image.content_hash for image in shard.unread}


def _shard(work: DatasetShards, path: Path, index: range, progress: Progress | None) -> tuple[bytes, Shard, bool]:
    """Return the content of the shard of the images at ``index``, and whether it was there; else it is written."""
    found = find_shard(path, work.source.channels)
    if found is not None and contents_of(found[1]) == work.contents(index):
        if progress is not None:
            progress(index.stop, len(work.dataset))
        return (*found, True)
    shard = work.compute(index, progress)
    data = shard_bytes(shard)
    if path.exists():  # of images that have changed: what describes the old one must not stay beside the new one
        (path.parent / FILE).unlink(missing_ok=True)
    write_atomic(path, data)
    return data, shard, False


def check_folder(folder: Path, options: FitOptions) -> None:
    """Raise OptionError, MissingExtraError where features may not be written into a folder; nothing is changed."""
    check_kept(options)
    others = foreign_to_rows(folder) if os.path.lexists(folder) else []
    if others:
        held = f"holds other files than features ({others[0].name})"
        what = "is a link, or no folder" if others == [folder] else held
        raise OptionError(f"{folder} {what}; give another name for the folder.")


def check_kept(options: FitOptions) -> None:
    """Raise OptionError, MissingExtraError where features that are computed with ``options`` cannot be kept."""
    import_pyarrow()
    options.compute.resolve()
    if parse_group_by(options.group_by).kind == "exif":
        raise OptionError("Groups by EXIF times are not kept with features; group by auto, folder or name in merge.")


def make_folder(folder: Path) -> None:
    """Make a folder for what is computed. Raises OptionError where it cannot be written, OSError."""
    if reason := why_not_writable(folder / FILE):
        raise OptionError(f"Cannot write features to {folder}: {reason}; give another folder.")
    folder.mkdir(parents=True, exist_ok=True)


def delete_others(folder: Path, names: set[str]) -> None:
    """Delete the shards of another listing, which ``features.json`` no longer names."""
    for path in folder.iterdir():
        if SHARD.fullmatch(path.name) and path.name not in names:
            path.unlink()
