"""Nearest neighbours among many images, by an approximate index where comparing all pairs would take too long.

The index is a navigable small-world graph (Malkov & Yashunin 2020, "Efficient and robust approximate nearest neighbor
search using hierarchical navigable small world graphs") of faiss, built and searched by one thread, from seeds that are
always the same: the same vectors in the same order give the same neighbours. It holds the vectors' principal
components; what it finds is compared again in full.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.machine import single_threaded_blas
from headstart.splits.pairs import blocks

LIMIT = 20_000  # images; up to here all pairs are compared
WIDTH = 256  # principal components in the index; how this and the next three were chosen: docs/benchmarks.md
CONNECTIONS = 16
BUILD_WIDTH, SEARCH_WIDTH = 100, 64  # candidates that are followed at a time
SAMPLE = 20_000  # vectors, whose principal components are those of all
ADDED = 16_384  # vectors at a time
COMPARED = 64  # vectors at a time, each with all its candidates

Rows = NDArray[np.int64]
METHOD = ", nearest neighbours by an index"  # in the name of a method
MISSING = (
    "All pairs of {count:,} images were compared, which takes long. pip install 'headstart[index]' for an index, which "
    "finds the same links in a fraction of the time."
)


class Vectors(Protocol):
    """Vectors [n, d] of length 1, or 0, that are computed when they are read by rows."""

    def __getitem__(self, rows: slice | Rows, /) -> NDArray[np.float32]:
        """Return the vectors at ``rows``."""


def is_searched(count: int) -> bool:
    """Return whether so many images are searched by an index: they are many, and there is faiss."""
    return count > LIMIT and _faiss() is not None


def missing_index_notes(count: int) -> tuple[str, ...]:
    """Return a line for the user where so many images are compared in pairs for want of faiss."""
    return (MISSING.format(count=count),) if count > LIMIT and _faiss() is None else ()


class NearestIndex:
    """An index of those of ``vectors`` at ``rows`` [m], in this order."""

    def __init__(self, vectors: Vectors, rows: Rows) -> None:
        faiss = _faiss()
        assert faiss is not None
        self.vectors, self.rows = vectors, rows
        if not len(rows):
            return
        with single_threaded_blas(), _one_thread(faiss):
            self._axes = _principal_axes(vectors, rows)
            self._index = faiss.IndexHNSWFlat(self._axes.shape[1], CONNECTIONS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = BUILD_WIDTH
            for block in blocks(len(rows), ADDED):
                self._index.add(self._project(vectors[rows[block]]))

    def neighbours(self, count: int) -> tuple[Rows, NDArray[np.float32]]:
        """Return the indices [m, count] of the vectors most like each in the index, without itself, and the cosines."""
        indices, cosines = self.search(self.vectors, self.rows, count + 1)
        return without(indices, cosines, indices == self.rows[:, None])

    def search(self, queries: Vectors, rows: Rows, count: int) -> tuple[Rows, NDArray[np.float32]]:
        """Return the indices [m, count] and cosines [m, count] of the vectors most like ``queries`` at ``rows`` [m].

        Nearest first; the indices are those of ``vectors``. What is not found is -1, its cosine -2. A vector is its own
        nearest one.
        """
        faiss = _faiss()
        assert faiss is not None
        indices, cosines = np.full((len(rows), count), -1), np.full((len(rows), count), -2, np.float32)
        if not len(self.rows):
            return indices, cosines
        wanted = min(2 * count, len(self.rows))  # the order by all components is another one
        self._index.hnsw.efSearch = max(SEARCH_WIDTH, wanted)
        with single_threaded_blas(), _one_thread(faiss):
            for block in blocks(len(rows), COMPARED):
                query = queries[rows[block]]
                found = self._index.search(self._project(query), wanted)[1]
                candidates = np.where(found < 0, -1, self.rows[found])
                used, place = np.unique(candidates, return_inverse=True)
                others = self.vectors[used]
                cosine = np.einsum("md,mcd->mc", query, others[place.reshape(candidates.shape)])
                cosine[candidates < 0] = -2
                order = np.lexsort((candidates, -cosine))[:, :count]
                width = order.shape[1]
                indices[block, :width] = np.take_along_axis(candidates, order, axis=1)
                cosines[block, :width] = np.take_along_axis(cosine, order, axis=1)
        return indices, cosines

    def _project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors [m, d] in the axes of the index, of length 1."""
        projected = np.ascontiguousarray(vectors @ self._axes)
        projected /= np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), np.float32(1e-12))
        return projected


def without(
    indices: Rows, cosines: NDArray[np.float32], is_left_out: NDArray[np.bool_]
) -> tuple[Rows, NDArray[np.float32]]:
    """Return neighbours [m, count + 1] and cosines without what is left out, nearest first, [m, count]."""
    cosines = np.where(is_left_out, np.float32(-2), cosines)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
    cosines = np.take_along_axis(cosines, order, axis=1)
    return np.where(cosines < -1, -1, np.take_along_axis(indices, order, axis=1)), cosines


def _principal_axes(vectors: Vectors, rows: Rows) -> NDArray[np.float32]:
    """Return the axes [d, WIDTH] along which vectors of length 1 are longest, of a sample spread evenly over all."""
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))]
    gram = np.zeros(())
    for block in blocks(len(sample), 1024):
        part = vectors[sample[block]]
        gram = gram + (part.T @ part).astype(np.float64)
    axes: NDArray[np.float32] = np.linalg.eigh(gram)[1][:, ::-1][:, :WIDTH].astype(np.float32)
    return axes


def _faiss() -> ModuleType | None:
    """Return faiss, None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SWIG, about what faiss was made with
        try:
            import faiss
        except ImportError:
            return None
    module: ModuleType = faiss
    return module


@contextmanager
def _one_thread(faiss: ModuleType) -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
