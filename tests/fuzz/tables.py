"""Tables: CSV, TSV, JSON lines and Parquet, with odd cells, columns, encodings and images inside."""

from __future__ import annotations

import importlib.util
import io
import json
import random
from pathlib import Path
from typing import Any

from fuzz.images import image, seeds
from fuzz.mutate import mutate, mutate_json

ODD_CELLS = (
    *(
        "../x.jpg",
        "/dev/zero",
        "/etc/passwd",
        "a.jpg/",
        "",
        " ",
        "nan",
        "pipe.jpg",
        "http://127.0.0.1:9/x.jpg",
        "zip://",
    ),
    *("x" * 200_000, "\0", "\x1b[31m", '"', "'=1", "a|b", "a;b", "[1, 2]", "1.0", "\u202e", "a\nb", "-1e999", "\ud800"),
    *("link.jpg", "~/.profile", "file:///etc/passwd", "memory://x.jpg", "a.jpg?x", "C:\\a.jpg", "é.jpg", "." * 5_000),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "shift-jis", "cp037")


def write(rng: random.Random, folder: Path, mutations: int) -> Path:
    """Write a table, and images beside it, and return its path."""
    names = [f"{i}.jpg" for i in range(4)]
    for name in names:
        (folder / name).write_bytes(dict(seeds())["a.jpg"])
    if mutations:
        (folder / "link.jpg").symlink_to("/etc/passwd")
    rows: list[dict[str, Any]] = [{"path": n, "label": "ab"[i % 2], "group": f"g{i}"} for i, n in enumerate(names)]
    kinds = ["csv", "tsv", "jsonl", *(["parquet"] * 2 if importlib.util.find_spec("pyarrow") else [])]
    kind = rng.choice(kinds)
    path = folder / f"table.{kind}"
    if mutations and rng.random() < 0.5:
        for _ in range(mutations):
            rng.choice(rows)[rng.choice(("path", "label", "group", "split", "x", ""))] = rng.choice(ODD_CELLS)
    if mutations and rng.random() < 0.1:
        rows = [{**row, **{f"c{i}": i for i in range(rng.choice((100, 20_000)))}} for row in rows]
    elif mutations and rng.random() < 0.1:
        rows += [{"path": f"none{i}.jpg", "label": "a"} for i in range(100_000)]
    if kind == "parquet":
        data = _parquet(rng, rows, mutations)
    elif kind == "jsonl":
        lines = mutate_json(rng, rows, 1) if mutations and rng.random() < 0.3 else rows
        data = "\n".join(json.dumps(row) for row in lines).encode()
    else:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
        text = "\n".join({"csv": ",", "tsv": "\t"}[kind].join(row) for row in table)
        data = text.encode(rng.choice(ENCODINGS) if mutations else "utf-8", "replace")
    times = mutations if mutations and rng.random() < 0.6 else 0
    path.write_bytes(mutate(rng, data, times))
    return path


def _parquet(rng: random.Random, rows: list[dict[str, Any]], mutations: int) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = list(dict.fromkeys(column for row in rows for column in row))
    arrays = {c: [None if r.get(c) is None else str(r[c]).replace("\ud800", "?") for r in rows] for c in columns}
    table = pyarrow.table(arrays)
    if rng.random() < 0.5:
        files = [{"bytes": image(rng, mutations)[1], "path": rng.choice((None, "x.jpg"))} for _ in rows[:8]]
        table = table.slice(0, 8).drop_columns(["path"]).append_column("image", pyarrow.array(files))
    if mutations and rng.random() < 0.3:  # few bytes that stand for many
        count = rng.choice((100_000, 3_000_000))
        cell = rng.choice(("x", "x" * 500, "a.jpg"))
        many = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, pyarrow.int32()), [cell])
        table = pyarrow.table({"path": many, "label": many})
    if mutations and rng.random() < 0.3:
        odd = rng.choice((b"\xff", 1.5, True, [1], {"a": 1}, {"bytes": b"", "path": None}, {"bytes": 1, "path": 2}))
        table = table.append_column(rng.choice(("path2", "label", "")), pyarrow.array([odd] * len(table)))
    if mutations and rng.random() < 0.2:
        features = mutate_json(rng, {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}, 1)
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    stream = io.BytesIO()
    compression = rng.choice(("snappy", "gzip", "zstd", "none"))
    pyarrow.parquet.write_table(table, stream, compression=compression)
    return stream.getvalue()
