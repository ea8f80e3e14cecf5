"""Folders of features: a valid one with its listing or a Parquet file changed; hashes and sizes may still hold."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fuzz.mutate import mutate, mutate_json


def write(rng: random.Random, folder: Path, mutations: int, seed: Path) -> Path:
    """Write a folder of features like ``seed`` into the folder, and return its path."""
    features = folder / "rows"
    shutil.copytree(seed, features)
    if mutations:
        rng.choice((_listing, _listing, _shard, _shard, _table, _table, _link))(rng, features, mutations)
    return features


def _listing(rng: random.Random, features: Path, mutations: int) -> None:
    file = features / "features.json"
    if rng.random() < 0.05:
        file.write_text('{"format":1,"taps":' + rng.choice(("[" * 10**6, "9" * 10**6, '"' + "1 " * 10**7 + '"}')))
        return
    value = mutate_json(rng, json.loads(file.read_text("utf-8")), min(mutations, 3))
    file.write_text(json.dumps(value), "utf-8")


def _shard(rng: random.Random, features: Path, mutations: int) -> None:
    """Change bytes of a Parquet file, most often those of its footer."""
    data = next(features.glob("*.parquet")).read_bytes()
    end = rng.choice((0, len(data) - 2000, len(data) - 8))
    _replace(features, data[:end] + mutate(rng, data[end:], mutations), None)


def _table(rng: random.Random, features: Path, mutations: int) -> None:
    """Write the same columns otherwise: repeated, compressed, cut, of other types or lengths."""
    table = pyarrow.parquet.read_table(next(features.glob("*.parquet")))
    rows = table.num_rows
    kind = rng.randrange(5)
    if kind == 0:  # a small file of many rows
        table = pyarrow.concat_tables([table.slice(0, 1)] * rng.choice((2, 1000, 60_000)))
    elif kind == 1:
        long = pyarrow.array([rng.choice(("x" * 10**7, "", None, "../" * 99, "\x1b[31m"))] * rows, pyarrow.string())
        table = table.set_column(rng.randrange(1, 6), rng.choice(table.column_names[1:6]), long)
    elif kind == 2:
        table = table.select(rng.sample(table.column_names, len(table.column_names) - (mutations > 1)))
    elif kind == 3:
        place = rng.randrange(len(table.column_names))
        table = table.set_column(place, table.column_names[place], pyarrow.array([1.5] * rows))
    else:
        about = mutate_json(rng, json.loads(table.schema.metadata[b"headstart"]), mutations)
        table = table.replace_schema_metadata({"headstart": json.dumps(about)})
    stream = pyarrow.BufferOutputStream()
    compression = rng.choice(("none", "zstd", "gzip"))
    pyarrow.parquet.write_table(table, stream, compression=compression, use_dictionary=rng.random() < 0.5)
    _replace(features, stream.getvalue().to_pybytes(), table.num_rows)


def _replace(features: Path, data: bytes, rows: int | None) -> None:
    """Put a Parquet file into the place of the only one, as ``features.json`` describes it."""
    path, listing = next(features.glob("*.parquet")), features / "features.json"
    path.write_bytes(data)
    value = json.loads(listing.read_text("utf-8"))
    value["shards"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if rows is not None:
        value["shards"][0]["rows"] = value["images"] = rows
    listing.write_text(json.dumps(value), "utf-8")


def _link(rng: random.Random, features: Path, mutations: int) -> None:
    """Put a link, a folder or nothing in the place of a file."""
    file = rng.choice(sorted(features.iterdir()))
    file.unlink()
    target = rng.choice(("/etc/passwd", "/dev/zero", file.name, None, ""))
    if target is None:
        file.mkdir()
    elif target:
        file.symlink_to(target)
