"""The int8 version of a backbone, which lies beside its graph: ``int8.onnx``, described by ``int8.json``.

The built-in backbones come with one; for others ``headstart backbones quantize`` makes it. It has the same input and
taps, and a hash of its own.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.errors import BackboneError, HeadstartError, OptionError, shell_word, untrusted
from headstart.files import read_json, to_json, write_atomic

GRAPH = "int8.onnx"
DESCRIPTION = "int8.json"
MAX_JSON_BYTES = 2**20


def int8_version(backbone: Backbone) -> Backbone | None:
    """Return the int8 version of a backbone; None if there is none, it is damaged, or it is that of another graph."""
    if backbone.precision == "int8":
        return backbone
    if isinstance(backbone.graph, bytes):
        return None
    graph = backbone.graph.with_name(GRAPH)
    with suppress(HeadstartError), untrusted(f"{graph.parent}", BackboneError):
        values = read_json(graph.with_name(DESCRIPTION), MAX_JSON_BYTES)
        sha256 = hashlib.sha256(graph.read_bytes()).hexdigest()
        if (values["sha256"], values["of"]) == (sha256, backbone.sha256):
            return replace(backbone, graph=graph, sha256=sha256, precision="int8")
    return None


def require_int8(backbone: Backbone, id: str | None = None) -> Backbone:
    """Return the int8 version of a backbone, called ``id`` in messages. Raises OptionError where there is none."""
    found = int8_version(backbone)
    if found is None:
        name = id or backbone.id
        raise OptionError(
            f"{name} has no int8 version; make one with: headstart backbones quantize {shell_word(name)} --images "
            "FOLDER, or leave out --precision int8."
        )
    return found


def write_int8(backbone: Backbone, graph: bytes, record: dict[str, Any]) -> Backbone:
    """Write the int8 version of a backbone beside its graph and return it; ``record`` says how it was made.

    Raises BackboneError when it cannot be written.
    """
    if isinstance(backbone.graph, bytes):
        raise BackboneError(f"{backbone.id} is not in the store; keep it there first: headstart backbones import.")
    path: Path = backbone.graph.with_name(GRAPH)
    description = {"format": 1, "sha256": hashlib.sha256(graph).hexdigest(), "of": backbone.sha256, **record}
    try:
        write_atomic(path, graph)
        write_atomic(path.with_name(DESCRIPTION), to_json(description, indent=1))
    except OSError as error:
        raise BackboneError(f"{path.parent} cannot be written: {error.strerror or error}.") from None
    return require_int8(backbone)
