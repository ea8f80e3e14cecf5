"""The check of the ONNX file of a model or an export, of which nothing is believed: operators, memory, weights, input.

The check takes longer than a prediction, so a graph that passed, or was composed on this machine, is remembered in the
cache folder, by its hash and what it was checked for.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from headstart.errors import BackboneError, ModelError, untrusted
from headstart.machine import cache_folder

VERSION = 2  # of the check: another one does not believe what was remembered before


def check_graph(
    graph: bytes, sha256: str, size: tuple[int, int], batch: int | None, what: str, input: str = "pixels"
) -> None:
    """Raise ModelError for a graph that is not one, or has weights elsewhere, other operators, or takes too much.

    ``sha256`` is that of the graph; ``size`` is the (height, width) of the images, ``batch`` the only batch that it
    takes, or None; ``what`` names the file. ``input`` is the one input that it must have: "pixels", NHWC, or another
    one, NCHW.
    """
    key = graph_key(sha256, size, batch, input)
    if is_remembered(key):
        return
    from headstart.backbones.onnx.external_data import has_external_data, parse_graph
    from headstart.backbones.onnx.limits import check_size
    from headstart.backbones.onnx.shapes import infer_shapes

    try:
        with untrusted(what, ModelError):
            model = parse_graph(graph, Path(what))
            if has_external_data(model):
                raise ModelError(f"{what} refers to other files; refused.")
            inputs = [value.name for value in model.graph.input]
            if inputs != [input]:
                raise ModelError(f"{what} has the inputs {', '.join(inputs)[:100]!r}, not {input!r}; refused.")
            check_size(model.graph, infer_shapes(model, input, input == "pixels", size), batch)
    except BackboneError as error:
        raise ModelError(f"{what} cannot be used: {error}") from None
    remember(key)


def graph_key(sha256: str, size: tuple[int, int], batch: int | None, input: str = "pixels") -> str:
    """Return what a graph is remembered by, a SHA-256: for other images, or another batch, it takes other memory."""
    return hashlib.sha256(f"{sha256} {input} {size} {batch}".encode()).hexdigest()


def is_remembered(key: str) -> bool:
    """Return whether the graph with this key passed the check on this machine."""
    try:
        return _mark(key).is_file()
    except OSError:
        return False


def remember(key: str) -> None:
    """Note that the graph with this key passed the check; where the cache folder cannot be written it is repeated."""
    with suppress(OSError):
        mark = _mark(key)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _mark(key: str) -> Path:
    return cache_folder() / "checked_graphs" / f"{VERSION}-{key}"
