"""Nearest neighbours among many images, where comparing all pairs of vectors in full would take too long.

Vectors are turned into their principal components, in directions that spread what they hold evenly, and rounded to 7
bits. Products of those are whole numbers, which processors multiply several times as fast as real ones, and the same on
all of them. Every pair is compared so; the best candidates of each vector are compared again in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.machine import cores, single_threaded_blas
from headstart.splits.pairs import DisjointSets, blocks, maximum_spanning_forest

LIMIT = 20_000  # images; up to here all pairs are compared in full
WIDTH = 256  # principal components; how this was chosen: docs/benchmarks.md
SAMPLE = 20_000  # vectors, whose principal components are those of all
SPARE = 8  # candidates of each vector beyond those that are wanted: in full their order is another one
COMPARED = 64  # vectors at a time that are compared in full, each with all its candidates
QUERIES, COLUMNS = 512, 4096  # vectors at a time that are compared as whole numbers, with so many others
LARGEST = 63  # whole number: sums of two products of such numbers stay below 2^15, as some processors need
DEVIATIONS = 4  # of the numbers of a vector; what is beyond is cut off
MARGIN = 0.2  # by which the cosine of principal components may be below that of the vectors: a rule of thumb
LAST = 2**31 - 1
NO_PRODUCT = -LAST  # below that of any two vectors

Rows = NDArray[np.int64]
METHOD = ", among nearest neighbours"  # in the name of a method


class Vectors(Protocol):
    """Vectors [n, d] of length 1, or 0, that are computed when they are read by rows."""

    def __getitem__(self, rows: slice | Rows, /) -> NDArray[np.float32]:
        """Return the vectors at ``rows``."""


def is_searched(count: int) -> bool:
    """Return whether of so many images only the nearest neighbours are compared in full."""
    return count > LIMIT


class NearestIndex:
    """An index of those of ``vectors`` at ``rows`` [m], in this order."""

    def __init__(self, vectors: Vectors, rows: Rows) -> None:
        self.vectors, self.rows = vectors, rows
        if not len(rows):
            return
        with single_threaded_blas():
            self._axes = _axes(vectors, rows)
            self._columns = [
                np.ascontiguousarray(_whole(vectors[rows[block]] @ self._axes).T)
                for block in blocks(len(rows), COLUMNS)
            ]

    def search(
        self, queries: Vectors, rows: Rows, count: int, least: float = -1, *, sets: Rows | None = None
    ) -> tuple[Rows, NDArray[np.float32]]:
        """Return the indices [m, count] and cosines [m, count] of the vectors most like ``queries`` at ``rows`` [m].

        Nearest first; the indices are those of ``vectors``. What is not found is -1, its cosine -2; so may be those of
        a cosine below ``least``, which saves time. Where vectors are in ``sets`` [n], those of the query's own are left
        out.
        """
        indices, cosines = np.full((len(rows), count), -1), np.full((len(rows), count), -2, np.float32)
        if not len(self.rows):
            return indices, cosines
        with single_threaded_blas():
            for part in blocks(len(rows), QUERIES):
                vectors = queries[rows[part]]
                wanted = min(count + SPARE, len(self.rows))
                own = None if sets is None else (sets[rows[part]], sets[self.rows])
                places = self._candidates(vectors, wanted, least, own)
                found = np.where(places < 0, -1, self.rows[places])
                for inside in blocks(len(found), COMPARED):
                    candidates, block = found[inside], slice(part.start + inside.start, part.start + inside.stop)
                    cosine = self._cosines(vectors[inside], candidates)
                    order = np.lexsort((candidates, -cosine))[:, :count]
                    width = order.shape[1]
                    indices[block, :width] = np.take_along_axis(candidates, order, axis=1)
                    cosines[block, :width] = np.take_along_axis(cosine, order, axis=1)
        return indices, cosines

    def _cosines(self, vectors: NDArray[np.float32], candidates: Rows) -> NDArray[np.float32]:
        """Return the cosines [m, c] of vectors [m, d], each with its ``candidates`` [m, c]; -2 where there is none."""
        cosines = np.full(candidates.shape, -2, np.float32)
        images, ranks = np.nonzero(candidates >= 0)
        if not len(images):
            return cosines
        used, place = np.unique(candidates[images, ranks], return_inverse=True)
        others = self.vectors[used]
        if len(images) == candidates.size:  # faster than one by one
            return np.einsum("md,mcd->mc", vectors, others[place.reshape(candidates.shape)], out=cosines)
        cosines[images, ranks] = np.einsum("md,md->m", vectors[images], others[place.reshape(-1)])
        return cosines

    def _candidates(
        self, vectors: NDArray[np.float32], count: int, least: float = -1, sets: tuple[Rows, Rows] | None = None
    ) -> Rows:
        """Return the places [m, count] in the index of those most like ``vectors`` [m, d] by whole numbers.

        Of equal ones the first count; -1 stands for those that are far below ``least``, or of the same of the ``sets``
        of the vectors [m] and of the index. So that most products are looked at only once, those are kept that are
        above the least of the best so far, and the best are chosen anew when twice as many columns have been seen.
        """
        queries = (_whole(vectors @ self._axes) + np.int8(LARGEST + 1)).astype(np.uint8)
        bound = NO_PRODUCT if least <= -1 else int((least - MARGIN) * _factor(self._axes.shape[1]) ** 2)
        best = np.full((len(queries), count), bound * 2**32)  # products that no vector has, of the place LAST
        lowest = np.full(len(queries), bound, np.int32)
        pending: list[NDArray[np.int64]] = []
        start = chosen_at = waiting = 0
        for columns in self._columns:
            products, first = _multiply(queries, columns), start
            start += columns.shape[1]
            if sets is not None:
                products[sets[0][:, None] == sets[1][first:start]] = NO_PRODUCT
            hits = np.flatnonzero((products > lowest[:, None]).ravel())  # faster than two-dimensional nonzero
            if len(hits) > best.size:  # as at the start: to sort out all at once is faster
                best = _largest(np.hstack([best, _keys(products, np.arange(first, start))]), count)
            elif len(hits):
                rows, places = np.divmod(hits, columns.shape[1])
                pending.append(np.stack([rows, _keys(products[rows, places], places + first)]))
                waiting += len(hits)
                if waiting <= 4 * best.size and start < 2 * chosen_at:
                    continue
            else:
                continue
            best, pending, waiting, chosen_at = _merge(best, pending), [], 0, start
            lowest = (best[:, -1] >> 32).astype(np.int32)
        best = _merge(best, pending)
        is_none = (best & LAST == 0) | (best >> 32 <= NO_PRODUCT)
        return np.where(is_none, -1, LAST - (best & LAST))


def linked_beyond(
    index: NearestIndex,
    queries: Vectors,
    rows: Rows,
    sets: DisjointSets,
    *,
    count: int,
    least: float,
    may_link: Callable[[Rows, Rows], NDArray[np.bool_]] | None = None,
    nearest: tuple[Rows, NDArray[np.float32]] | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Yield edges (first, second, cosine) [m, 3] to the ``count`` nearest of other ``sets``, and merge these.

    Images of which all neighbours are linked may have further ones, as those of a burst of more than ``count`` frames
    have beyond it. They are searched again without those of their set, until nothing is left to link: these are the
    rounds of Borůvka's algorithm, so that a spanning forest of the edges is one of all pairs. Cosines of edges are at
    least ``least``; ``may_link`` says which of the neighbours [m, count] of images [m] may be linked to them.
    ``nearest`` are the neighbours and cosines of the first round, where they are known.
    """
    while len(rows):
        found, cosines = nearest or index.search(queries, rows, count, least, sets=sets.labels())
        nearest, is_linked = None, cosines >= least
        if may_link is not None:
            is_linked &= may_link(rows, found)
        images, ranks = np.nonzero(is_linked)
        edges = np.stack([rows[images], found[images, ranks], cosines[images, ranks]], axis=1)
        if not len(edges):
            return
        yield edges
        for first, second in maximum_spanning_forest(edges, len(sets.parent))[:, :2].astype(int).tolist():
            sets.union(first, second)
        rows = rows[cosines[:, -1] >= least]


def _keys(products: NDArray[np.int32], places: Rows) -> NDArray[np.int64]:
    """Return numbers [...] that are in the order of the products, and of equal products that of the first place."""
    return (products.astype(np.int64) << 32) | (LAST - places)


def _largest(keys: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the largest keys of each row, the largest first, at most ``count``."""
    if keys.shape[1] > count:
        keys = np.partition(keys, keys.shape[1] - count, axis=1)[:, -count:]
    return np.sort(keys, axis=1)[:, ::-1]


def _merge(best: NDArray[np.int64], pending: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the largest of the keys [m, count] and of those in ``pending``, each row and key, for each row."""
    count = best.shape[1]
    if not pending:
        return best
    rows, keys = np.concatenate(pending, axis=1)
    rows, keys = np.concatenate([np.repeat(np.arange(len(best)), count), rows]), np.concatenate([best.ravel(), keys])
    order = np.lexsort((-keys, rows))
    starts = np.searchsorted(rows[order], np.arange(len(best)))
    merged: NDArray[np.int64] = keys[order][starts[:, None] + np.arange(count)]
    return merged


def _axes(vectors: Vectors, rows: Rows) -> NDArray[np.float32]:
    """Return the axes [d, at most WIDTH] along which vectors of length 1 are longest, of a sample spread evenly.

    They are turned at random, always alike: all numbers of a vector are then about as large, and can be rounded to the
    same step.
    """
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))]
    gram = np.zeros(())
    for block in blocks(len(sample), 1024):
        part = vectors[sample[block]]
        gram = gram + (part.T @ part).astype(np.float64)
    axes = np.linalg.eigh(gram)[1][:, ::-1][:, :WIDTH]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(axes.shape[1], axes.shape[1])))[0]
    turned: NDArray[np.float32] = (axes @ turn).astype(np.float32)
    return turned


def _whole(projected: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return vectors [m, width], at length 1, as whole numbers up to LARGEST."""
    lengths = np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), np.float32(1e-12))
    scaled = np.rint(projected / lengths * np.float32(_factor(projected.shape[1])))
    whole: NDArray[np.int8] = np.clip(scaled, -LARGEST, LARGEST).astype(np.int8)
    return whole


def _factor(width: int) -> float:
    """Return by what the numbers of vectors of length 1 are multiplied before they are rounded."""
    return float(LARGEST / min(DEVIATIONS / np.sqrt(width), 1))


def _multiply(queries: NDArray[np.uint8], columns: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return the products [m, n] of queries [m, d], from which LARGEST + 1 is taken, and columns [d, n]."""
    products: NDArray[np.int32] = _session().run(None, {"a": queries, "b": columns})[0]
    return products


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
