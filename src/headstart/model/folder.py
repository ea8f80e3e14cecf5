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
from numpy.typing import NDArray

from headstart.errors import ModelError, OptionError
from headstart.heads import Familiar, Head
from headstart.images.preprocess import Preprocess
from headstart.model.card import card
from headstart.model.model import Golden, Model
from headstart.stats import ConformalThresholds, check_targets

FORMAT = 2  # 1 had neither prediction sets nor distances
LIMITS = {
    "config.json": 64 * 2**20,
    "run.json": 256 * 2**20,
    "head.safetensors": 2 * 2**30,
    "golden.npz": 256 * 2**20,
    "model.onnx": 2 * 2**30,
}
MAX_CLASSES = 100_000
LIBRARY = "headstart"  # config.json's library_name: by it a folder is known as ours
WRITTEN = frozenset({*LIMITS, "README.md", "report.html", "report.json", "training.svg"})  # all that is ever put there
FAMILIAR = ("centre", "scales", "factor")


def write(model: Model, folder: str | os.PathLike[str]) -> Path:
    """Write the model folder. It appears whole or not at all; an older model there is replaced.

    Raises OptionError where anything lies there that Headstart did not write, ModelError when it cannot be written.
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
    """The folder, if a model may be written there: it is new, empty, or holds a model of ours and nothing else.

    Raises OptionError where it holds anything that Headstart did not write; nothing in it is touched.
    """
    target = Path(folder)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OptionError(f"{target} is not a folder; give another name for the model.")
    names = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if names and not _is_ours(target / "config.json"):
        raise OptionError(f"{target} holds files that are not a Headstart model; give another name for the model.")
    foreign = [name for name in names if name not in WRITTEN or (target / name).is_dir()]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OptionError(
            f"{target} is a model, but also holds {', '.join(foreign[:3])}{more}, which Headstart did not write; "
            "move that elsewhere, or give another name for the model."
        )
    return target


def _is_ours(config: Path) -> bool:
    """Whether a config.json says that Headstart wrote it: many other programs keep a file of that name."""
    try:
        value = json.loads(config.read_bytes()) if config.stat().st_size <= LIMITS["config.json"] else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("library_name") == LIBRARY


def _fill(folder: Path, model: Model) -> None:
    from safetensors.numpy import save

    head, golden = model.head, model.golden
    config: dict[str, Any] = {
        "library_name": LIBRARY,
        "format": FORMAT,
        "id2label": {str(i): name for i, name in enumerate(model.classes)},
        "label2id": {name: i for i, name in enumerate(model.classes)},
        "preprocess": model.preprocess.to_dict(),
        "backbone": dict(model.backbone),
        "cut": list(head.taps),
        "head": {"kind": head.kind, **head.settings},
        "temperature": head.temperature,
        "batch": model.batch,
        "sha256": {"model.onnx": model.sha256},
    }
    tensors = {"weights": head.weights, "bias": head.bias}
    if head.expansion is not None:
        tensors |= {"expansion": head.expansion[0], "offset": head.expansion[1]}
    if model.promises is None or model.familiar is None:
        config["format"] = 1
    else:
        config |= _promised(model.promises)
        tensors |= {f"familiar.{name}": getattr(model.familiar, name) for name in FAMILIAR}
    if golden is not None:
        config["golden"] = {"precision": golden.precision, "tolerance": dict(golden.tolerance)}
        files = {f"file_{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(golden.files)}
        arrays = {"decoded": golden.decoded, "pixels": golden.pixels, "probabilities": golden.probabilities}
        if golden.distances is not None:
            arrays["distances"] = golden.distances
            config["golden"]["distance_tolerance"] = dict(golden.distance_tolerance)
        np.savez(folder / "golden.npz", **arrays, **files)  # type: ignore[arg-type]
    (folder / "head.safetensors").write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
    (folder / "model.onnx").write_bytes(model.graph)
    for name, value in (("config.json", config), ("run.json", dict(model.run))):
        text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
        (folder / name).write_bytes(_encoded(text + "\n"))
    (folder / "README.md").write_bytes(_encoded(card(model)))
    for path in folder.iterdir():  # on disk before the rename makes it visible
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())


def _encoded(text: str) -> bytes:
    """UTF-8. A byte of a file name that is none (Python keeps it as a lone surrogate) is written as ``\\udcNN``, which
    JSON reads back as the same name."""
    return text.encode("utf-8", "backslashreplace")


def _promised(promises: ConformalThresholds) -> dict[str, object]:
    reject = promises.reject_threshold
    return {
        "coverage": promises.coverage,
        "set_thresholds": list(promises.set_thresholds),
        "false_alarms": promises.false_alarms,
        "reject_threshold": reject if np.isfinite(reject) else None,  # JSON has no infinity; null refuses nothing
    }


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
        tensors = _tensors(path)
        head = _head(path, config, tensors, len(classes))
        promises = _promises(config, len(classes)) if version > 1 else None
        familiar = _familiar(path, tensors, head) if version > 1 else None
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
    golden = _golden(path, config, preprocess, len(classes), promises is not None)
    return Model(classes, preprocess, backbone, head, graph, digest, batch, golden, run, path, familiar, promises)


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


def _tensors(folder: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, NDArray[Any]] = load(_bytes(folder, "head.safetensors"))
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}: head.safetensors is damaged: {error}.") from None
    return tensors


def _head(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], classes: int) -> Head:
    nothing = np.empty(0, np.float32)
    weights, bias = tensors.get("weights", nothing), tensors.get("bias", nothing)
    shapes_fit = (
        weights.ndim == 2
        and weights.shape[1] == classes
        and bias.shape == (classes,)
        and all(t.dtype == np.float32 for name, t in tensors.items() if not name.startswith("familiar."))
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


def _familiar(folder: Path, tensors: Mapping[str, NDArray[Any]], head: Head) -> Familiar:
    nothing = np.empty(0, np.float32)
    centre, scales, factor = (tensors.get(f"familiar.{name}", nothing) for name in FAMILIAR)
    width = len(head.weights) if head.expansion is None else len(head.expansion[0])
    if not (
        centre.shape == scales.shape == (width,)
        and factor.ndim == 2
        and factor.shape[0] == width
        and [str(array.dtype) for array in (centre, scales, factor)] == ["float32", "float32", "float16"]
        and all(np.isfinite(array).all() for array in (centre, scales, factor))
    ):
        shapes = {name: t.shape for name, t in tensors.items()}
        raise ModelError(f"{folder}: head.safetensors has no usable familiar.* for {width} features: {shapes}.")
    return Familiar(centre, scales, factor)


def _promises(config: Mapping[str, Any], classes: int) -> ConformalThresholds:
    thresholds, reject = config["set_thresholds"], config["reject_threshold"]
    if not isinstance(thresholds, list) or len(thresholds) != classes:
        raise ValueError(f"set_thresholds are not one number for each of {classes} classes")
    named = {"coverage": config["coverage"], "false_alarms": config["false_alarms"]}
    named |= {f"set_thresholds[{i}]": value for i, value in enumerate(thresholds)}
    named |= {} if reject is None else {"reject_threshold": reject}
    for name, value in named.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {str(value)[:40]!r}, no number from 0 to 1")
    check_targets(named["coverage"], named["false_alarms"])
    return ConformalThresholds(
        float(named["coverage"]), tuple(map(float, thresholds)), float(named["false_alarms"]),
        float("inf") if reject is None else float(reject),
    )  # fmt: skip


def _golden(
    folder: Path, config: Mapping[str, Any], preprocess: Preprocess, classes: int, with_distances: bool
) -> Golden | None:
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
            distances = arrays["distances"].astype(np.float32) if with_distances else None
        precision = str(config["golden"]["precision"])
        tolerance = {str(k): float(v) for k, v in config["golden"]["tolerance"].items()}
        further = config["golden"]["distance_tolerance"] if with_distances else {}
        further = {str(k): float(v) for k, v in further.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{folder}: golden.npz is damaged: {error}.") from None
    shape = (len(pixels), preprocess.height, preprocess.width, 3)
    pictures = all(array.dtype == np.uint8 and array.shape == shape for array in (decoded, pixels))
    shapes_fit = probabilities.shape == (len(pixels), classes) and (
        distances is None or distances.shape == (len(pixels),)
    )
    if not pictures or not shapes_fit:
        raise ModelError(f"{folder}: golden.npz does not fit the model: {pixels.shape}, {probabilities.shape}.")
    return Golden(files, decoded, pixels, probabilities.astype(np.float32), precision, tolerance, distances, further)
