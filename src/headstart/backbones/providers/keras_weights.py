"""Weights for a Keras network from a file: HDF5 of Keras 1 to 3, or the weights inside a ``.keras`` file.

A ``.keras`` file is never loaded as a model: the architecture is that of the named network, and nothing in the file is
executed.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.backbone import MAX_FILE_BYTES
from headstart.errors import BackboneError, missing_extra, one_line

MAX_NODES = 100_000  # groups and datasets of an HDF5 file
MAX_CONFIG_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
WEIGHTS_ENTRY = "model.weights.h5"  # of a .keras file; Keras recognises its layout by this ending


def load_weights(network: Any, path: Path, name: str) -> None:
    """Load all weights of a file into ``network``, or none. Raises BackboneError when they do not fit."""
    if not zipfile.is_zipfile(path):
        _load_hdf5(network, path, path.name, name)
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        weights = Path(folder) / WEIGHTS_ENTRY
        _unpack(path, weights)
        _load_hdf5(network, weights, path.name, name)


def _unpack(path: Path, target: Path) -> None:
    """Write the weights in a ``.keras`` file to ``target``. Raises BackboneError."""
    too_large = f"{path.name} unpacks to more than the limit of {MAX_FILE_BYTES:,} bytes."
    try:
        with zipfile.ZipFile(path) as archive:
            weights_size = archive.getinfo(WEIGHTS_ENTRY).file_size
            if weights_size > MAX_FILE_BYTES or archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                raise BackboneError(too_large)
            if _has_lambda(json.loads(archive.read("config.json"))):
                raise BackboneError(f"{path.name} holds a Lambda layer, which is code; save the model without it.")
            with archive.open(WEIGHTS_ENTRY) as source, target.open("wb") as stream:
                remaining = MAX_FILE_BYTES
                while chunk := source.read(CHUNK_BYTES):
                    remaining -= len(chunk)
                    if remaining < 0:
                        raise BackboneError(too_large)
                    stream.write(chunk)
    except (
        KeyError,
        ValueError,
        RecursionError,
        OSError,
        NotImplementedError,
        zipfile.BadZipFile,
        RuntimeError,
    ) as error:
        raise BackboneError(f"{path.name} is not a .keras file ({one_line(error, 120)}).") from None


def _has_lambda(config: Any) -> bool:
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.get("class_name") in ("Lambda", "__lambda__"):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _load_hdf5(network: Any, path: Path, file_name: str, name: str) -> None:
    """Load an HDF5 file; ``file_name`` is what messages call it, since ``path`` may be temporary."""
    try:
        import h5py
    except ImportError:
        raise missing_extra("h5py is not installed", "keras") from None
    try:
        with h5py.File(path, "r") as file:
            _check_contents(file, file_name)
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                _load_legacy(network, root, file_name, name)
                return
    except OSError as error:
        raise BackboneError(f"{file_name} cannot be read as HDF5 ({one_line(error, 120)}).") from None
    try:
        if path.name.endswith(".weights.h5"):
            network.load_weights(path)
        else:  # Keras tells the layout by the ending
            with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
                link = Path(folder) / WEIGHTS_ENTRY
                link.symlink_to(path.resolve())
                network.load_weights(link)
    except Exception as error:  # Keras raises ValueError, KeyError and its own kinds
        raise BackboneError(f"{file_name} does not fit keras:{name}: {one_line(error)}") from None


def _check_contents(file: Any, file_name: str) -> None:
    """Raise BackboneError for links, for datasets outside the file, and for more than the limits of parts and bytes."""
    import h5py

    pending = [file]
    nodes = 0
    size = 0
    while pending:
        group = pending.pop()
        for key in group:
            nodes += 1
            link = group.get(key, getlink=True)
            item = group.get(key) if isinstance(link, h5py.HardLink) else None
            if nodes > MAX_NODES or item is None:
                raise BackboneError(f"{file_name} holds a link or too many parts ({key[:60]!r}); refused.")
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
                raise BackboneError(f"{file_name} keeps data outside itself ({key[:60]!r}); refused.")
            else:
                size += item.size * item.dtype.itemsize if item.shape is not None else 0
                if size > MAX_FILE_BYTES:
                    raise BackboneError(f"{file_name} unpacks to more than the limit of {MAX_FILE_BYTES:,} bytes.")


def _load_legacy(network: Any, root: Any, file_name: str, name: str) -> None:
    """Load the layout of Keras 1 and 2: layers in order, each with its weights in order.

    Shapes are compared, but names are not, since they count up within a process. Weights at the end of the file that
    the network does not have, such as a classifier's, are ignored.
    """
    stored = _legacy_weights(root, file_name)
    variables = [
        (f"{layer.name}/{variable.name}", variable) for layer in network.layers for variable in _in_legacy_order(layer)
    ]
    values = []
    for i, (label, variable) in enumerate(variables):
        if i >= len(stored):
            missing = len(variables) - i - 1
            raise BackboneError(f"{file_name} does not fit keras:{name}: it lacks {label} and {missing} more.")
        weight, data = stored[i]
        if tuple(data.shape) != tuple(variable.shape):
            raise BackboneError(
                f"{file_name} does not fit keras:{name}: {label} is {tuple(variable.shape)}, "
                f"the file has {weight} of {tuple(data.shape)} in its place."
            )
        values.append(np.asarray(data, np.float32))
    for (_, variable), value in zip(variables, values, strict=True):
        variable.assign(value)


def _legacy_weights(root: Any, file_name: str) -> list[tuple[str, Any]]:
    """Names and datasets of all weights, in the order of the file. Raises BackboneError for one that is not there."""
    weights: list[tuple[str, Any]] = []
    for layer in _strings(root, "layer_names"):
        if layer not in root:
            raise BackboneError(f"{file_name} lacks the layer {layer!r} that it lists.")
        for weight in _strings(root[layer], "weight_names"):
            if weight not in root[layer]:
                raise BackboneError(f"{file_name} lacks the weight {weight!r} that it lists.")
            weights.append((weight, root[layer][weight]))
    return weights


def _in_legacy_order(layer: Any) -> list[Any]:
    """A layer's weights as the old layout has them: trainable ones first."""
    trainable = [weight for weight in layer.weights if weight.trainable]
    return trainable + [weight for weight in layer.weights if not weight.trainable]


def _strings(group: Any, attribute: str) -> list[str]:
    """A list of names in an attribute; long lists are split into ``attribute0``, ``attribute1``, ..."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]
