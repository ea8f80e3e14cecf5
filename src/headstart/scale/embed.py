"""The work of ``headstart embed``: from the images of a shard to a file of rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headstart.backbones import Backbone
from headstart.data import Dataset
from headstart.errors import DataError, OptionError
from headstart.features import Compute, embed
from headstart.features.extractor import load_backbone_graph
from headstart.features.image_rows import load_backbone, rows_of, unread_of
from headstart.features.rows import Source, Unread
from headstart.features.rows_folder import MAX_SHARD, find_shard, shard_bytes
from headstart.features.rows_folder import Shard as FileContent
from headstart.features.runtime import Graph
from headstart.files import json_text, write_atomic
from headstart.machine import instruction_set
from headstart.scale.contract import Report, ShardResult
from headstart.scale.shards import Shard

_LOADED: dict[bytes, tuple[Backbone, Graph]] = {}  # the last one, in a worker, by what computes


@dataclass(frozen=True)
class EmbedShard:
    """Computes the features of the images of a shard, and writes them as a Parquet file into ``folder``.

    ``source`` says by what they are computed: a worker loads that backbone by its id, and refuses another one, another
    runtime and another instruction set. ``compute`` has one worker and is fixed, so that every worker gives the same
    bytes.
    """

    folder: str
    source: Source
    compute: Compute

    def run(self, shard: Shard, report: Report) -> ShardResult:
        """Write the file of a shard. Raises HeadstartError, OSError."""
        backbone, graph = _loaded(self)
        dataset = shard.open()
        if shard.kind == "whole" and dataset.is_multi_label != self.source.is_multi_label:
            kinds = ["several labels an image" if of.is_multi_label else "one class" for of in (dataset, self.source)]
            raise OptionError(f"{shard.name} has {kinds[0]}, others have {kinds[1]}; read all with --multi-label.")
        features = embed(
            dataset, backbone, self.compute, load=lambda *_: graph, progress=lambda done, _total: report(done)
        )
        refused = tuple(Unread(image.path, image.reason) for image in dataset.quarantined)
        unread = (*refused, *unread_of(features, dataset))
        content = FileContent(rows_of(features, dataset, self.source), unread, _remarks(features.remarks, dataset))
        data = shard_bytes(content)
        if len(data) > MAX_SHARD:
            raise DataError(f"{shard.name} gives {len(data):,} bytes of rows, more than {MAX_SHARD:,}; split it.")
        write_atomic(self.path(shard), data)
        return _result(shard, content, data)

    def finished(self, shard: Shard) -> ShardResult | None:
        """Return the result of a shard whose file is there and whole."""
        found = find_shard(self.path(shard), self.source.channels)
        return None if found is None else _result(shard, found[1], found[0])

    def path(self, shard: Shard) -> Path:
        """Return the file of a shard, named by what is computed and by what."""
        return Path(self.folder) / f"{hashlib.sha256(self.key + shard.sha256.encode()).hexdigest()[:32]}.parquet"

    @cached_property
    def key(self) -> bytes:
        """What computes features, in one text: part of the names of files."""
        return json_text(self.source.to_dict()).encode()


def _result(shard: Shard, content: FileContent, data: bytes) -> ShardResult:
    return ShardResult(
        shard.sha256,
        len(content.rows),
        content.unread,
        remarks=dict(content.remarks),
        file_bytes=len(data),
        file_sha256=hashlib.sha256(data).hexdigest(),
    )


def _remarks(remarks: Mapping[str, int], dataset: Dataset) -> dict[str, int]:
    """Return remarks on images, and on the files that were skipped in an archive that only the worker lists."""
    skipped = Counter(f"{{count}} files inside the shards were skipped: {one.reason}." for one in dataset.skipped)
    return {**remarks, **skipped}


def _loaded(work: EmbedShard) -> tuple[Backbone, Graph]:
    """Load what computes features, once in a worker. Raises HeadstartError, also where that is something else here."""
    key = work.key
    if key not in _LOADED:
        here, there = (work.compute.resolve(), instruction_set()), work.source.machines[0]
        if here != (there.runtime, there.instruction_set):
            name = f"{here[0].name} {here[0].version} {here[0].precision} on {here[1]}"
            raise OptionError(f"A worker has {name}, not {there.name}; their features cannot be mixed: use one kind.")
        backbone = load_backbone(work.source)
        _LOADED.clear()
        _LOADED[key] = (backbone, load_backbone_graph(backbone, work.compute))
    return _LOADED[key]
