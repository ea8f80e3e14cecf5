"""The check of model.onnx, of which nothing is believed: its operators, the memory that it takes, and its weights.

The check takes longer than a prediction, so a graph that passed, or was composed on this machine, is remembered by its
hash in the cache folder.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from headstart.errors import BackboneError, ModelError, untrusted
from headstart.images.preprocess import Preprocess
from headstart.machine import cache_folder

VERSION = 1  # of the check: another one does not believe what was remembered before


def check_graph(graph: bytes, sha256: str, preprocess: Preprocess, batch: int | None, file: Path) -> None:
    """Raise ModelError for a graph that is not one, or has weights elsewhere, other operators, or takes too much."""
    if is_remembered(sha256):
        return
    from headstart.backbones.onnx.external_data import has_external_data, parse_graph
    from headstart.backbones.onnx.limits import check_size
    from headstart.backbones.onnx.shapes import infer_shapes

    try:
        with untrusted(f"{file.parent}: {file.name}", ModelError):
            model = parse_graph(graph, file)
            if has_external_data(model):
                raise ModelError(f"{file.parent}: {file.name} refers to other files; refused.")
            shapes = infer_shapes(model, "pixels", True, (preprocess.height, preprocess.width))
            check_size(model.graph, shapes, batch)
    except BackboneError as error:
        raise ModelError(f"{file.parent}: {file.name} cannot be used: {error}") from None
    remember(sha256)


def is_remembered(sha256: str) -> bool:
    """Return whether the graph with this hash passed the check on this machine."""
    try:
        return _mark(sha256).is_file()
    except OSError:
        return False


def remember(sha256: str) -> None:
    """Note that the graph with this hash passed the check; where the cache folder cannot be written it is repeated."""
    with suppress(OSError):
        mark = _mark(sha256)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _mark(sha256: str) -> Path:
    return cache_folder() / "checked_graphs" / f"{VERSION}-{sha256}"
