"""``onnx:FILE``: any ONNX image classifier, brought into standard form once and kept in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.backbones import store
from headstart.backbones.backbone import MAX_FILE_BYTES, Backbone, InputOptions
from headstart.backbones.input_config import config_beside
from headstart.backbones.prepare import VERSION, GraphFile, prepare_file
from headstart.errors import BackboneError, OptionError


def load_onnx(file: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the backbone in an ONNX file. Raises BackboneError when it cannot be read, cut or run."""
    if options.weights:
        raise OptionError("An ONNX file holds its own weights; leave --weights out.")
    path = Path(file)
    if not path.is_file():
        raise BackboneError(f"There is no file {file!r}; give onnx: and the path of an ONNX image classifier.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BackboneError(f"{file} has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}.")
    content = path.read_bytes()
    config, config_name = config_beside(path)
    sha256 = hashlib.sha256(content).hexdigest()
    folder = _folder(path, content, sha256, config, options, taps)
    backbone = store.read(folder, f"onnx:{path.name}")
    if backbone is not None:
        return backbone
    record = {"source": f"{path.name} (sha256 {sha256})"}
    prepare_file(GraphFile(path, content, config, config_name), options, taps, folder, record)
    return store.read_back(folder, f"onnx:{path.name}")


def _folder(
    path: Path, content: bytes, sha256: str, config: Mapping[str, Any], options: InputOptions, taps: tuple[str, ...]
) -> Path:
    """Where the store keeps what is prepared from this file, the weights beside it and these settings."""
    weights = b""
    if b"location" in content:  # else it has no weights outside, and need not be parsed
        from headstart.backbones.onnx.external_data import parse_graph, weight_files

        for file in weight_files(parse_graph(content, path), path):
            with file.open("rb") as stream:
                weights += hashlib.file_digest(stream, "sha256").digest()
    return store.settings_folder([VERSION, sha256, asdict(options), config, taps], weights)
