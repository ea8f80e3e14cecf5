"""Vectors as whole numbers of 7 bits, which processors multiply several times as fast as real ones, and all alike.

Vectors are turned into their principal components, in directions that spread what they hold evenly, and rounded. The
products of two say how alike they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.machine import cores
from headstart.splits.pairs import blocks, spread

WIDTH = 256  # principal components; how this was chosen: docs/benchmarks.md
SAMPLE = 20_000  # vectors, whose principal components are those of all
LARGEST = 63  # whole number: sums of two products of such numbers stay below 2^15, as some processors need
DEVIATIONS = 4  # of the numbers of a vector; what is beyond is cut off
LAST = 2**31 - 1  # stands for no place in keys

Rows = NDArray[np.int64]


class Vectors(Protocol):
    """Vectors [n, d] of length 1, or 0, that are computed when they are read by rows."""

    def __getitem__(self, rows: slice | Rows, /) -> NDArray[np.float32]:
        """Return the vectors at ``rows``."""


def principal_axes(vectors: Vectors, rows: Rows) -> NDArray[np.float32]:
    """Return the axes [d, at most WIDTH] along which vectors of length 1 are longest, of a sample spread evenly.

    They are turned at random, always alike: all numbers of a vector are then about as large, and can be rounded to the
    same step.
    """
    gram = np.zeros(())
    sample = rows[spread(len(rows), SAMPLE)]
    for block in blocks(len(sample), 1024):
        part = vectors[sample[block]]
        gram = gram + (part.T @ part).astype(np.float64)
    axes = np.linalg.eigh(gram)[1][:, ::-1][:, :WIDTH]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(axes.shape[1], axes.shape[1])))[0]
    turned: NDArray[np.float32] = (axes @ turn).astype(np.float32)
    return turned


def to_whole(projected: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return vectors [m, width], at length 1, as whole numbers up to LARGEST."""
    lengths = np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), np.float32(1e-12))
    scaled = np.rint(projected / lengths * np.float32(factor(projected.shape[1])))
    whole: NDArray[np.int8] = np.clip(scaled, -LARGEST, LARGEST).astype(np.int8)
    return whole


def factor(width: int) -> float:
    """Return by what the numbers of vectors of length 1 are multiplied before they are rounded."""
    return float(LARGEST / min(DEVIATIONS / np.sqrt(width), 1))


def multiply(vectors: NDArray[np.int8], columns: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return the products [m, n] of vectors [m, d] and columns [d, n] of whole numbers up to LARGEST."""
    shifted = (vectors + np.int8(LARGEST + 1)).astype(np.uint8)  # as the processors' instructions want them
    products: NDArray[np.int32] = _session().run(None, {"a": shifted, "b": columns})[0]
    return products


def keys(products: NDArray[np.int32], places: Rows) -> NDArray[np.int64]:
    """Return numbers [...] that are in the order of the products, and of equal products that of the first place."""
    numbers: NDArray[np.int64] = products.astype(np.int64)
    numbers <<= 32
    numbers |= LAST - places
    return numbers


def largest(keys: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the largest keys of each row, the largest first, at most ``count``."""
    if keys.shape[1] > count:
        keys = np.partition(keys, keys.shape[1] - count, axis=1)[:, -count:]
    return np.sort(keys, axis=1)[:, ::-1]


@cache
def _session() -> Any:
    """Return a session of ONNX Runtime that multiplies whole numbers, which NumPy does without the processor's help."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["m", "d"])
    b = helper.make_tensor_value_info("b", TensorProto.INT8, ["d", "n"])
    c = helper.make_tensor_value_info("c", TensorProto.INT32, ["m", "n"])
    zero = numpy_helper.from_array(np.array(LARGEST + 1, np.uint8), "zero")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "zero"], ["c"])], "products", [a, b], [c], [zero]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
