"""Write a model folder whole or not at all; read one as if an enemy had made it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle.card import card
from headstart.bundle.model import Golden, Model
from headstart.errors import ModelError, OptionError
from headstart.heads import Head
from headstart.preprocess import Preprocess

FORMAT = 1
LIMITS = {
    "config.json": 64 * 2**20,
    "run.json": 256 * 2**20,
    "head.safetensors": 2 * 2**30,
    "golden.npz": 256 * 2**20,
    "model.onnx": 2 * 2**30,
}
MAX_CLASSES = 100_000


def write(model: Model, folder: str | os.PathLike[str]) -> Path:
    """Write the model folder. It appears whole or not at all; an older model there is replaced.

    Raises OptionError where something else lies there, ModelError when it cannot be written.
    """
    target = check_target(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            made = Path(temporary) / "new"
            made.mkdir()
            _fill(made, model)
            if target.exists():
                target.replace(Path(temporary) / "old")
            made.replace(target)
    except OSError as error:
        raise ModelError(
            f"Cannot write the model to {target}: {error.strerror or error}; nothing was changed."
        ) from None
    return target


def check_target(folder: str | os.PathLike[str]) -> Path:
    """The folder, if a model may be written there. Raises OptionError where something else lies there."""
    target = Path(folder)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OptionError(f"{target} is not a folder; give another name for the model.")
    if target.exists() and any(target.iterdir()) and not (target / "config.json").is_file():
        raise OptionError(f"{target} holds something that is not a model; give another name or empty it.")
    return target


def _fill(folder: Path, model: Model) -> None:
    from safetensors.numpy import save

    head, golden = model.head, model.golden
    config = {
        "format": FORMAT,
        "id2label": {str(i): name for i, name in enumerate(model.classes)},
        "label2id": {name: i for i, name in enumerate(model.classes)},
        "preprocess": model.preprocess.to_dict(),
        "backbone": dict(model.backbone),
        "cut": list(head.taps),
        "head": {"kind": head.kind, **head.settings},
        "temperature": head.temperature,
        "reject_threshold": None,
        "batch": model.batch,
        "sha256": {"model.onnx": model.sha256},
    }
    if golden is not None:
        config["golden"] = {"precision": golden.precision, "tolerance": dict(golden.tolerance)}
        files = {f"file_{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(golden.files)}
        arrays = {"decoded": golden.decoded, "pixels": golden.pixels, "probabilities": golden.probabilities}
        np.savez(folder / "golden.npz", **arrays, **files)  # type: ignore[arg-type]
    tensors = {"weights": head.weights, "bias": head.bias}
    if head.expansion is not None:
        tensors |= {"expansion": head.expansion[0], "offset": head.expansion[1]}
    (folder / "head.safetensors").write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
    (folder / "model.onnx").write_bytes(model.graph)
    for name, value in (("config.json", config), ("run.json", dict(model.run))):
        text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
        (folder / name).write_text(text + "\n", "utf-8")
    (folder / "README.md").write_text(card(model), "utf-8")
    for path in folder.iterdir():  # on disk before the rename makes it visible
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())


def read(folder: str | os.PathLike[str]) -> Model:
    """The model in a folder. Raises ModelError with what is wrong; never executes or unpickles anything."""
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"There is no model folder {path}; make one with: headstart fit DATA -o {path}")
    if not (path / "config.json").exists():
        raise ModelError(f"{path} is not a model folder: it has no config.json.")
    config = _json(path, "config.json")
    version = config.get("format")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ModelError(f"{path}: config.json has no format number; it is damaged or not Headstart's.")
    if version > FORMAT:
        raise ModelError(
            f"{path} is of format {version}, newer than the {FORMAT} this version reads; upgrade headstart."
        )
    try:
        classes = _classes(config)
        preprocess = Preprocess.from_dict(config["preprocess"])
        head = _head(path, config, len(classes))
        backbone = {str(k): str(v) for k, v in config["backbone"].items()}
        batch = config.get("batch")
        if batch is not None and not (type(batch) is int and 1 <= batch <= 4096):
            raise ValueError(f"batch {batch!r} cannot be used")
        expected = config["sha256"]["model.onnx"]
    except OptionError as error:
        raise ModelError(f"{path}: config.json cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: config.json is damaged: {type(error).__name__} {error}.") from None
    graph = _bytes(path, "model.onnx")
    digest = hashlib.sha256(graph).hexdigest()
    if digest != expected:
        raise ModelError(
            f"{path}: model.onnx is not the file config.json describes (its sha256 differs); fit or copy again."
        )
    # A tensor kept outside the file is an entry with the key "location" (onnx.proto, TensorProto.external_data).
    if b"\x0a\x08location" in graph:
        raise ModelError(f"{path}: model.onnx refers to other files; refused.")
    run = _json(path, "run.json") if (path / "run.json").exists() else {}
    golden = _golden(path, config, preprocess, len(classes))
    return Model(classes, preprocess, backbone, head, graph, digest, batch, golden, run, path)


def _bytes(folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.is_file():
        raise ModelError(f"{folder} has no {name}; the folder is not whole: copy or fit it again.")
    if file.resolve().parent != folder.resolve():
        raise ModelError(f"{folder}: {name} is a link out of the folder; refused.")
    if file.stat().st_size > LIMITS[name]:
        raise ModelError(f"{folder}: {name} has more than {LIMITS[name]:,} bytes; refused.")
    return file.read_bytes()


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(folder, name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder}: {name} is damaged: {error}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{folder}: {name} is damaged: expected an object.")
    return value


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config["id2label"]
    if not 1 < len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} classes")
    classes = tuple(names[str(i)] for i in range(len(names)))
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) != len(classes):
        raise ValueError("class names are not different texts")
    return classes


def _head(folder: Path, config: Mapping[str, Any], classes: int) -> Head:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(_bytes(folder, "head.safetensors"))
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}: head.safetensors is damaged: {error}.") from None
    nothing = np.empty(0, np.float32)
    weights, bias = tensors.get("weights", nothing), tensors.get("bias", nothing)
    shapes_fit = (
        weights.ndim == 2
        and weights.shape[1] == classes
        and bias.shape == (classes,)
        and all(t.dtype == np.float32 for t in tensors.values())
    )
    expansion = None
    if shapes_fit and "expansion" in tensors:
        matrix, offset = tensors["expansion"], tensors.get("offset", nothing)
        shapes_fit = matrix.ndim == 2 and offset.shape == matrix.shape[1:] == weights.shape[:1]
        expansion = (matrix, offset)
    if not shapes_fit:
        shapes = {name: t.shape for name, t in tensors.items()}
        raise ModelError(f"{folder}: head.safetensors does not fit {classes} classes: {shapes}.")
    temperature = float(config["temperature"])
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature {temperature}")
    settings = dict(config["head"])
    kind = str(settings.pop("kind"))
    return Head(kind, tuple(map(str, config["cut"])), weights, bias, temperature, expansion, settings)


def _golden(folder: Path, config: Mapping[str, Any], preprocess: Preprocess, classes: int) -> Golden | None:
    if "golden" not in config:
        return None
    data = _bytes(folder, "golden.npz")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 2 * LIMITS["golden.npz"]:
                raise ValueError("it unpacks to too much")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            decoded, pixels, probabilities = arrays["decoded"], arrays["pixels"], arrays["probabilities"]
            files = tuple(arrays[f"file_{i}"].tobytes() for i in range(len(pixels)))
        precision = str(config["golden"]["precision"])
        tolerance = {str(k): float(v) for k, v in config["golden"]["tolerance"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{folder}: golden.npz is damaged: {error}.") from None
    shape = (len(pixels), preprocess.height, preprocess.width, 3)
    pictures = all(array.dtype == np.uint8 and array.shape == shape for array in (decoded, pixels))
    if not pictures or probabilities.shape != (len(pixels), classes):
        raise ModelError(f"{folder}: golden.npz does not fit the model: {pixels.shape}, {probabilities.shape}.")
    return Golden(files, decoded, pixels, probabilities.astype(np.float32), precision, tolerance)
