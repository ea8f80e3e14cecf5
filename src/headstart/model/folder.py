"""The model folder: written whole or not at all, and read as untrusted data that is never executed."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ModelError, OptionError, shell_word, untrusted
from headstart.features.rows import FeatureRows
from headstart.features.rows_folder import write_rows
from headstart.files import encode, recover_folder, replace_folder, table_path, table_row, table_text, to_json
from headstart.heads.head import SIGMOID, Head
from headstart.heads.ood import OodDetector
from headstart.images.preprocess import Preprocess
from headstart.images.snippet import SNIPPET_FILE, preprocess_source
from headstart.model.card import model_card
from headstart.model.folder_files import (
    FEATURES,
    LIBRARY,
    check_keeps_none,
    check_output_folder,
    check_same_data,
    read_bytes,
    read_json_file,
    read_training_hashes,
    within_limit,
)
from headstart.model.graph_check import check_graph, graph_key, remember
from headstart.model.metadata import MULTI_LABEL
from headstart.model.model import GoldenSample, Model
from headstart.stats.conformal import ConformalThresholds, check_targets
from headstart.stats.decision import DecisionRule
from headstart.stats.label_thresholds import LabelThresholds

FORMAT = 3
MULTI_LABEL_FORMAT = 4  # of a model of several labels: a version that does not know them must not read it
MAX_CLASSES = 100_000
OOD_TENSORS = ("centre", "scales", "factor")


def write_model(
    model: Model,
    folder: str | os.PathLike[str],
    left_out: Sequence[tuple[str, str]] = (),
    *,
    overwrite: bool = False,
    rows: FeatureRows | None = None,
) -> Path:
    """Write the model folder. It appears whole or not at all.

    A model of the same data is replaced: of the same classes, and of the same source or at least half of the training
    images; one of other data, or one that keeps rows by one that keeps none, only with ``overwrite``. ``left_out`` are
    the paths that the model was not fitted to, and why; they are written to ``skipped.csv``. ``rows`` are kept in the
    folder ``features/`` within.

    Raises OptionError where anything lies there that Headstart did not write, or such a model; ModelError when it
    cannot be written.
    """
    target = check_output_folder(folder)
    if not overwrite:
        check_same_data(target, model)
        if rows is None:
            check_keeps_none(target)
    size = model.preprocess.height, model.preprocess.width
    remember(graph_key(model.sha256, size, model.batch))
    try:
        replace_folder(target, lambda new: _write_files(new, model, left_out, rows))
    except OSError as error:
        raise ModelError(
            f"Cannot write the model to {target}: {error.strerror or error}; nothing was changed."
        ) from None
    return target


def _write_files(
    folder: Path, model: Model, left_out: Sequence[tuple[str, str]], kept: FeatureRows | None = None
) -> None:
    from safetensors.numpy import save

    if kept is not None:
        write_rows(folder / FEATURES, kept)

    head, golden = model.head, model.golden
    config: dict[str, Any] = {
        "library_name": LIBRARY,
        "format": MULTI_LABEL_FORMAT if model.is_multi_label else FORMAT,
        "id2label": {str(i): name for i, name in enumerate(model.classes)},
        "label2id": {name: i for i, name in enumerate(model.classes)},
        "preprocess": model.preprocess.to_dict(),
        "backbone": dict(model.backbone),
        "cut": list(head.taps),
        "head": {"kind": head.kind, **head.settings},
        "temperature": head.temperature,
        "batch": model.batch,
        "sha256": {"model.onnx": model.sha256},
        **model.thresholds.to_dict(),
    }
    # Of rows that are kept, and of statistics, the file depends on them and on the options alone: no date.
    is_dated = kept is None and model.thresholds.is_measured
    about = ("version", "author", "date") if is_dated else ("version", "author")
    config |= {name: model.run[name] for name in about if model.run.get(name)}
    if model.rule is not None:
        config["decision"] = model.rule.to_dict()
    if model.label_thresholds is not None:
        config |= {"problem_type": MULTI_LABEL, "label_thresholds": model.label_thresholds.to_dict()}
    tensors = {"weights": head.weights, "bias": head.bias}
    if head.hidden_layer is not None:
        tensors |= {"hidden.weights": head.hidden_layer[0], "hidden.bias": head.hidden_layer[1]}
    tensors |= {f"ood.{name}": getattr(model.ood, name) for name in OOD_TENSORS}
    if golden is not None:
        config["golden"] = {
            "precision": golden.precision,
            "tolerance": dict(golden.tolerance),
            "distance_tolerance": dict(golden.ood_tolerance),
        }
        arrays = {
            "decoded": golden.decoded,
            "pixels": golden.pixels,
            "probabilities": golden.probabilities,
            "distances": golden.ood_scores,
        }
        files = {f"file_{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(golden.files)}
        np.savez(folder / "golden.npz", **arrays, **files)  # type: ignore[arg-type]
    (folder / "head.safetensors").write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
    (folder / "model.onnx").write_bytes(model.graph)
    (folder / "config.json").write_bytes(within_limit("config.json", to_json(config, indent=1)))
    (folder / "run.json").write_bytes(within_limit("run.json", to_json(dict(model.run), indent=1)))
    (folder / "README.md").write_bytes(encode(model_card(model)))
    (folder / SNIPPET_FILE).write_bytes(encode(preprocess_source(model.preprocess)))
    if model.training_hashes is not None:
        (folder / "training_images.bin").write_bytes(model.training_hashes.tobytes())
    if left_out:
        rows = [("path", "reason"), *((table_path(path), table_text(reason)) for path, reason in left_out)]
        (folder / "skipped.csv").write_bytes(encode("".join(map(table_row, rows))))


def read_model(folder: str | os.PathLike[str]) -> Model:
    """Read the model in a folder. Raises ModelError with what is wrong; never executes or unpickles anything."""
    path = Path(folder)
    config = _read_config(path)
    tensors = _tensors(path)
    try:
        with untrusted(f"{path}: config.json", ModelError):
            classes = _classes(config)
            preprocess = Preprocess.from_dict(config["preprocess"])
            head = _head(path, config, tensors, len(classes))
            ood = _ood(path, tensors, head)
            thresholds = _thresholds(config, len(classes))
            rule = DecisionRule.from_dict(config["decision"], len(classes)) if "decision" in config else None
            label_thresholds = None
            if config["format"] == MULTI_LABEL_FORMAT:
                label_thresholds = LabelThresholds.from_dict(config["label_thresholds"], len(classes))
                head = replace(head, activation=SIGMOID)
            backbone = {str(k): str(v) for k, v in config["backbone"].items()}
            batch = config.get("batch")
            if batch is not None and not (type(batch) is int and 1 <= batch <= 4096):
                raise ValueError(f"batch {batch!r} cannot be used")
            expected_hash = config["sha256"]["model.onnx"]
    except OptionError as error:
        raise ModelError(f"{path}: config.json cannot be used: {error}") from None
    graph = _read_graph(path, expected_hash)
    check_graph(graph, str(expected_hash), (preprocess.height, preprocess.width), batch, f"{path}: model.onnx")
    golden = _golden(path, config, preprocess, len(classes))
    return Model(
        classes,
        preprocess,
        backbone,
        head,
        ood,
        thresholds,
        graph,
        expected_hash,
        batch,
        golden,
        _run(path),
        read_training_hashes(path),
        rule,
        label_thresholds,
    )


def _run(folder: Path) -> dict[str, Any]:
    """Read what is known of the fit. No prediction needs it, so nothing is known where run.json cannot be read."""
    try:
        return read_json_file(folder, "run.json")
    except ModelError:
        return {}


def _read_config(folder: Path) -> dict[str, Any]:
    recover_folder(folder)
    if not folder.is_dir():
        raise ModelError(
            f"There is no model folder {folder}; make one with: headstart fit DATA -o {shell_word(folder)}"
        )
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} is not a model folder: it has no config.json; give one that headstart fit wrote.")
    config = read_json_file(folder, "config.json")
    version = config.get("format")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ModelError(f"{folder}: config.json has no format number; it is damaged or not Headstart's.")
    if version > MULTI_LABEL_FORMAT:
        raise ModelError(
            f"{folder} is of format {version}, newer than the {MULTI_LABEL_FORMAT} that this version reads; upgrade "
            "headstart."
        )
    if (version == MULTI_LABEL_FORMAT) != (config.get("problem_type") == MULTI_LABEL):
        raise ModelError(
            f"{folder}: config.json is of format {version} with problem_type {str(config.get('problem_type'))[:40]!r}; "
            f"{MULTI_LABEL} is of format {MULTI_LABEL_FORMAT}, and nothing else is."
        )
    if version < FORMAT:
        raise ModelError(
            f"{folder} is of format {version}, made by an earlier version; this version reads format {FORMAT}: "
            "fit the model again."
        )
    return config


def _read_graph(folder: Path, expected_hash: object) -> bytes:
    graph = read_bytes(folder, "model.onnx")
    if hashlib.sha256(graph).hexdigest() != expected_hash:
        raise ModelError(
            f"{folder}: model.onnx is not the file that config.json describes (its sha256 differs); fit or copy again."
        )
    return graph


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config["id2label"]
    fewest = 1 if config["format"] == MULTI_LABEL_FORMAT else 2
    if not fewest <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} classes")
    classes = tuple(names[str(i)] for i in range(len(names)))
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) != len(classes):
        raise ValueError("class names are not different texts")
    if config.get("label2id") != {name: i for i, name in enumerate(classes)}:
        raise ValueError("label2id is not the inverse of id2label; rename a class in both")
    return classes


def _tensors(folder: Path) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load

    data = read_bytes(folder, "head.safetensors")
    with untrusted(f"{folder}: head.safetensors", ModelError):
        tensors: dict[str, NDArray[Any]] = load(data)
    return tensors


def _head(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], classes: int) -> Head:
    nothing = np.empty(0, np.float32)
    weights, bias = tensors.get("weights", nothing), tensors.get("bias", nothing)
    fits = (
        weights.ndim == 2
        and weights.shape[1] == classes
        and bias.shape == (classes,)
        and all(t.dtype == np.float32 for name, t in tensors.items() if not name.startswith("ood."))
    )
    hidden_layer = None
    if fits and "hidden.weights" in tensors:
        hidden_weights, hidden_bias = tensors["hidden.weights"], tensors.get("hidden.bias", nothing)
        fits = hidden_weights.ndim == 2 and hidden_bias.shape == hidden_weights.shape[1:] == weights.shape[:1]
        hidden_layer = (hidden_weights, hidden_bias)
    if not fits:
        shapes = {name: t.shape for name, t in tensors.items()}
        raise ModelError(f"{folder}: head.safetensors does not fit {classes} classes: {shapes}.")
    temperature = float(config["temperature"])
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature {temperature}")
    settings = dict(config["head"])
    kind = str(settings.pop("kind"))
    return Head(kind, tuple(map(str, config["cut"])), weights, bias, temperature, hidden_layer, settings)


def _ood(folder: Path, tensors: Mapping[str, NDArray[Any]], head: Head) -> OodDetector:
    nothing = np.empty(0, np.float32)
    centre, scales, factor = (tensors.get(f"ood.{name}", nothing) for name in OOD_TENSORS)
    width = len(head.weights) if head.hidden_layer is None else len(head.hidden_layer[0])
    fits = (
        centre.shape == scales.shape == (width,)
        and factor.ndim == 2
        and factor.shape[0] == width
        and [str(array.dtype) for array in (centre, scales, factor)] == ["float32", "float32", "float16"]
        and all(np.isfinite(array).all() for array in (centre, scales, factor))
    )
    if not fits:
        shapes = {name: t.shape for name, t in tensors.items()}
        raise ModelError(f"{folder}: head.safetensors has no usable ood.* for {width} features: {shapes}.")
    return OodDetector(centre, scales, factor)


def _thresholds(config: Mapping[str, Any], classes: int) -> ConformalThresholds:
    set_thresholds, reject = config["set_thresholds"], config["reject_threshold"]
    if not isinstance(set_thresholds, list) or len(set_thresholds) != classes:
        raise ValueError(f"set_thresholds are not one number for each of {classes} classes")
    numbers = {"coverage": config["coverage"], "false_alarms": config["false_alarms"]}
    numbers |= {f"set_thresholds[{i}]": value for i, value in enumerate(set_thresholds)}
    numbers |= {} if reject is None else {"reject_threshold": reject}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {str(value)[:40]!r}, not a number from 0 to 1")
    check_targets(numbers["coverage"], numbers["false_alarms"])
    is_measured = config.get("measured", True)
    if type(is_measured) is not bool or not (is_measured or (reject is None and not any(set_thresholds))):
        raise ValueError("measured is no truth value, or there are thresholds that were not measured")
    return ConformalThresholds(
        float(numbers["coverage"]),
        tuple(map(float, set_thresholds)),
        float(numbers["false_alarms"]),
        float("inf") if reject is None else float(reject),
        is_measured,
    )


def _golden(folder: Path, config: Mapping[str, Any], preprocess: Preprocess, classes: int) -> GoldenSample | None:
    if "golden" not in config:
        return None
    if not (folder / "golden.npz").exists():
        raise ModelError(
            f"{folder} has no golden.npz; copy it again, or take the key golden out of config.json as well: then "
            "nothing is verified."
        )
    data = read_bytes(folder, "golden.npz")
    with untrusted(f"{folder}: golden.npz", ModelError):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed")  # never by us, and what it unpacks to would have no bound
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            decoded, pixels, probabilities = arrays["decoded"], arrays["pixels"], arrays["probabilities"]
            files = tuple(arrays[f"file_{i}"].tobytes() for i in range(len(pixels)))
            ood_scores = arrays["distances"].astype(np.float32)
        precision = str(config["golden"]["precision"])
        tolerance = {str(k): float(v) for k, v in config["golden"]["tolerance"].items()}
        ood_tolerance = {str(k): float(v) for k, v in config["golden"]["distance_tolerance"].items()}
        shape = (len(pixels), preprocess.height, preprocess.width, 3)
        has_images = all(array.dtype == np.uint8 and array.shape == shape for array in (decoded, pixels))
        if not has_images or probabilities.shape != (len(pixels), classes) or ood_scores.shape != (len(pixels),):
            raise ModelError(f"{folder}: golden.npz does not fit the model: {pixels.shape}, {probabilities.shape}.")
        probabilities = probabilities.astype(np.float32)
    return GoldenSample(files, decoded, pixels, probabilities, ood_scores, precision, tolerance, ood_tolerance)
