"""Checks of a graph in standard form: that it runs, that its values are finite, and which batch sizes it allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BackboneError, one_line
from headstart.machine import import_onnxruntime

Arrays = list[NDArray[Any]]
FATAL_ONLY = 4  # of ONNX Runtime's log levels: what is wrong with a foreign graph is an exception, and reported once


def open_session(graph: bytes) -> Any:
    """An ``onnxruntime.InferenceSession`` of a graph, for a single run. Raises what ONNX Runtime raises."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.enable_cpu_mem_arena = False  # it would keep up to twice the memory, for further runs
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def allowed_batch(graph: bytes, size: tuple[int, int], declared: int | None) -> int | None:
    """The only batch size that a graph for images of (height, width) ``size`` allows; None for any.

    Any is allowed if a batch of two gives what the two images give one by one; else it is ``declared``, or 1. Raises
    BackboneError if the graph cannot be run, or gives values that are not finite.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    try:
        session = open_session(graph)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BackboneError(f"The graph cannot be run: {one_line(error)}") from None

    def run(batch: NDArray[np.uint8]) -> Arrays:
        values: Arrays = session.run(None, {"pixels": batch})
        return values

    try:
        together = run(pixels)
        if _equal(together, [run(pixels[i : i + 1]) for i in range(2)]):
            _check_finite(together)
            return None
    except Exception:  # not with a batch of two: the declared one is tried next
        pass
    batch = declared or 1
    try:
        _check_finite(run(np.concatenate([pixels] * -(-batch // 2))[:batch]))
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(f"The graph cannot be run: {one_line(error)}") from None
    return batch


def _equal(together: Arrays, single: Sequence[Arrays]) -> bool:
    """Whether the outputs of a batch are those of its images one by one, up to rounding."""
    return all(
        np.allclose(batch, np.concatenate(parts), rtol=1e-3, atol=1e-3 * max(1e-6, float(np.abs(batch).max())))
        for batch, parts in zip(together, zip(*single, strict=True), strict=True)
    )


def _check_finite(values: Arrays) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise BackboneError(
            "The graph gives values that are not finite; its weights are damaged, or its scaling is wrong."
        )
