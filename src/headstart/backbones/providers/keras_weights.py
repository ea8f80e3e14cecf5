"""Weights for a Keras network from a file: HDF5 of Keras 1 to 3, or the weights inside a ``.keras`` file.

A ``.keras`` file is never loaded as a model: its architecture is the named network's, and nothing in it is executed.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.providers.framework import one_line
from headstart.backbones.providers.onnx_file import MAX_FILE
from headstart.errors import BackboneError, MissingExtraError

MAX_NODES = 100_000  # groups and data sets of a file
MAX_CONFIG = 64 * 2**20
INSIDE = "model.weights.h5"


def fill(network: Any, path: Path, name: str) -> None:
    """Put the weights of a file into ``network``, all or none. Raises BackboneError when they do not fit."""
    if zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
            inner = Path(folder) / INSIDE
            _unpack(path, inner)
            _fill(network, inner, path.name, name)
    else:
        _fill(network, path, path.name, name)


def _unpack(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.getinfo(INSIDE).file_size > MAX_FILE or packed.getinfo("config.json").file_size > MAX_CONFIG:
                raise BackboneError(f"{path.name} unpacks to more than the limit of {MAX_FILE:,} bytes.")
            if _has_lambda(json.loads(packed.read("config.json"))):
                raise BackboneError(f"{path.name} holds a Lambda layer, which is code; save the model without it.")
            with packed.open(INSIDE) as source, target.open("wb") as out:
                left = MAX_FILE
                while chunk := source.read(2**20):
                    left -= len(chunk)
                    if left < 0:
                        raise BackboneError(f"{path.name} unpacks to more than the limit of {MAX_FILE:,} bytes.")
                    out.write(chunk)
    except (
        KeyError,
        ValueError,
        RecursionError,
        OSError,
        NotImplementedError,
        zipfile.BadZipFile,
        RuntimeError,
    ) as error:
        raise BackboneError(f"{path.name} is no .keras file ({one_line(error, 120)}).") from None


def _has_lambda(config: Any) -> bool:
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if value.get("class_name") in ("Lambda", "__lambda__"):
                return True
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return False


def _fill(network: Any, path: Path, shown: str, name: str) -> None:
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py is not installed; run: pip install 'headstart[keras]'") from None
    try:
        with h5py.File(path, "r") as file:
            _check(file, shown)
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                _legacy(network, root, shown, name)
                return
    except OSError as error:
        raise BackboneError(f"{shown} cannot be read as HDF5 ({one_line(error, 120)}).") from None
    try:
        if path.name.endswith(".weights.h5"):
            network.load_weights(path)
        else:  # Keras reads the layout off the name
            with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
                linked = Path(folder) / INSIDE
                linked.symlink_to(path.resolve())
                network.load_weights(linked)
    except Exception as error:  # Keras raises ValueError, KeyError and its own kinds
        raise BackboneError(f"{shown} does not fit keras:{name}: {one_line(error)}") from None


def _check(file: Any, shown: str) -> None:
    """Refuse what reaches outside the file or unpacks to too much: links, virtual and external data sets."""
    import h5py

    stack, nodes, size = [file], 0, 0
    while stack:
        group = stack.pop()
        for key in group:
            nodes += 1
            link = group.get(key, getlink=True)
            item = group.get(key) if isinstance(link, h5py.HardLink) else None
            if nodes > MAX_NODES or item is None:
                raise BackboneError(f"{shown} holds a link or too many parts ({key[:60]!r}); refused.")
            if isinstance(item, h5py.Group):
                stack.append(item)
            elif not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
                raise BackboneError(f"{shown} keeps data outside itself ({key[:60]!r}); refused.")
            else:
                size += item.size * item.dtype.itemsize if item.shape is not None else 0
                if size > MAX_FILE:
                    raise BackboneError(f"{shown} unpacks to more than the limit of {MAX_FILE:,} bytes.")


def _legacy(network: Any, root: Any, shown: str, name: str) -> None:
    """The layout of Keras 1 and 2: layers in order, each with its weights in order. Names are not compared, since
    they count up within a process; shapes are. A classifier at the end of the file is left over."""
    found: list[tuple[str, Any]] = []
    for layer in _strings(root, "layer_names"):
        if layer not in root:
            raise BackboneError(f"{shown} lacks the layer {layer!r} that it lists.")
        for weight in _strings(root[layer], "weight_names"):
            if weight not in root[layer]:
                raise BackboneError(f"{shown} lacks the weight {weight!r} that it lists.")
            found.append((weight, root[layer][weight]))
    wanted = [(f"{layer.name}/{weight.name}", weight) for layer in network.layers for weight in _ordered(layer)]
    values = []
    for i, (label, variable) in enumerate(wanted):
        if i >= len(found):
            raise BackboneError(f"{shown} does not fit keras:{name}: it lacks {label} and {len(wanted) - i - 1} more.")
        weight, data = found[i]
        if tuple(data.shape) != tuple(variable.shape):
            raise BackboneError(
                f"{shown} does not fit keras:{name}: {label} is {tuple(variable.shape)}, "
                f"the file has {weight} of {tuple(data.shape)} in its place."
            )
        values.append(np.asarray(data, np.float32))
    for (_, variable), value in zip(wanted, values, strict=True):
        variable.assign(value)


def _ordered(layer: Any) -> list[Any]:
    """A layer's weights as the old layout has them: trainable ones first."""
    plain = [w for w in layer.weights if w.trainable]
    return plain + [w for w in layer.weights if not w.trainable]


def _strings(group: Any, attribute: str) -> list[str]:
    """A list of names; long ones are cut into ``attribute0``, ``attribute1``, ..."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]
