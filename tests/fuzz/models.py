"""Model folders: a valid one with one or more files changed, so that their checks of each other may still hold."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np

from fuzz import graphs
from fuzz.mutate import EXTREMES, mutate, mutate_json


def write(rng: random.Random, folder: Path, mutations: int, seed: Path) -> Path:
    """Write a model folder like ``seed`` into the folder, and return its path."""
    model = folder / "model"
    shutil.copytree(seed, model)
    if mutations:
        rng.choice((_json, _json, _golden, _golden, _graph, _graph, _head, _bytes, _link))(rng, model, mutations)
    return model


def _json(rng: random.Random, model: Path, mutations: int) -> None:
    file = model / rng.choice(("config.json", "config.json", "run.json", "report.json"))
    if rng.random() < 0.05:
        long = ("[" * 10**6, "[" + "[0]," * 10**7 + "0]}", "9" * 10**6, "[" + '{"a":0},' * 10**6 + "0]}")
        file.write_text('{"a":' + rng.choice(long))
        return
    value = mutate_json(rng, json.loads(file.read_text("utf-8")), min(mutations, 3))
    file.write_text(json.dumps(value), "utf-8")


def _golden(rng: random.Random, model: Path, mutations: int) -> None:
    """Change headers of arrays, their values, or how they are packed."""
    with np.load(model / "golden.npz") as arrays:
        members = {name: _npy(array) for name, array in arrays.items()}
    name = rng.choice(list(members))
    odd = (
        np.zeros(0),
        np.zeros((2**20, 64)),
        np.array("x"),
        np.full(3, np.nan),
        np.zeros(3, "M8[s]"),
        np.zeros(3, "c16"),
    )
    header = rng.choice(
        (
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (99999999999,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}",
            "(" * 3_000,
            "{'descr': [('a', '<f4', (2**9,))], 'shape': (1,)}",
            "{'descr': '|V2147483647', 'fortran_order': False, 'shape': (9,)}",
        )
    )
    new = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode()
    members[name] = rng.choice((_npy(rng.choice(odd)), new, mutate(rng, members[name], mutations), bytes(300_000_000)))
    if rng.random() < 0.1:
        members[""] = b""
    with zipfile.ZipFile(model / "golden.npz", "w", rng.choice((0, 8, 12, 14))) as archive:
        for member, data in members.items():
            archive.writestr(f"{member}.npy", data)
    if rng.random() < 0.3:
        _bytes_of(rng, model / "golden.npz", mutations)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _graph(rng: random.Random, model: Path, mutations: int) -> None:
    """Change the graph and the hash that config.json names."""
    data = graphs.mutated(rng, (model / "model.onnx").read_bytes(), mutations)
    (model / "model.onnx").write_bytes(data)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["sha256"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    (model / "config.json").write_text(json.dumps(config), "utf-8")


def _head(rng: random.Random, model: Path, mutations: int) -> None:
    """Change the header of the tensors, or the numbers."""
    data = (model / "head.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.dumps(mutate_json(rng, json.loads(data[8 : 8 + size]), min(mutations, 3))).encode()
    claimed = rng.choice((len(header), len(header), rng.choice(EXTREMES)))
    body = data[8 + size :] if rng.random() < 0.5 else bytes(255 for _ in data[8 + size :])
    (model / "head.safetensors").write_bytes(struct.pack("<Q", claimed) + header + body)


def _bytes(rng: random.Random, model: Path, mutations: int) -> None:
    _bytes_of(rng, rng.choice(sorted(model.iterdir())), mutations)


def _bytes_of(rng: random.Random, file: Path, mutations: int) -> None:
    file.write_bytes(mutate(rng, file.read_bytes(), mutations))


def _link(rng: random.Random, model: Path, mutations: int) -> None:
    """Put a link, a folder or nothing in the place of a file."""
    file = rng.choice(sorted(model.iterdir()))
    file.unlink()
    target = rng.choice(("/etc/passwd", "/dev/zero", file.name, "config.json", None, ""))
    if target is None:
        file.mkdir()
    elif target:
        file.symlink_to(target)
