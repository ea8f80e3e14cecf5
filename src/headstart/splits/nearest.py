"""Nearest neighbours among many images, where comparing all pairs of vectors in full would take too long.

Vectors are compared as whole numbers (``splits.whole_numbers``), and the best candidates of each again in full. Up to
``clusters.LIMIT`` images all pairs are compared so; of more, each with those in the nearest ``splits.clusters``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import floor

import numpy as np
from numpy.typing import NDArray

from headstart.machine import single_threaded_blas
from headstart.splits import clusters
from headstart.splits.pairs import DisjointSets, blocks, maximum_spanning_forest
from headstart.splits.whole_numbers import (
    LAST,
    Rows,
    Vectors,
    factor,
    keys,
    largest,
    multiply,
    principal_axes,
    to_whole,
)

LIMIT = 20_000  # images; up to here all pairs are compared in full
SPARE = 8  # candidates of each vector beyond those that are wanted: in full their order is another one
COMPARED = 64  # vectors at a time that are compared in full, each with all its candidates
QUERIES, COLUMNS = 512, 4096  # vectors at a time that are compared as whole numbers, with so many others
SEARCHED, TOGETHER = 32_000, 2_048  # vectors at a time that look into clusters, and of these into one cluster
VISITS = 2_000_000  # of vectors to clusters that are listed at a time
FIRST = 16  # clusters that are looked into first: what is found there is so near that little else needs to be kept
MARGIN = 0.2  # by which the cosine of principal components may be below that of the vectors: a rule of thumb
NO_PRODUCT = -LAST  # below that of any two vectors

Visits = NDArray[np.unsignedinteger]  # clusters [m, visited] that vectors look into


def is_searched(count: int) -> bool:
    """Return whether of so many images only the nearest neighbours are compared in full."""
    return count > LIMIT


class NearestIndex:
    """An index of those of ``vectors`` at ``rows`` [m], in this order.

    Pairs of cosine ``near`` or more are what is searched for. More than ``clusters.LIMIT`` vectors are compared within
    clusters, unless too many of these would have to be looked into; all are compared where ``near`` is None.
    """

    def __init__(self, vectors: Vectors, rows: Rows, near: float | None = None) -> None:
        self.vectors, self.rows = vectors, rows
        self._clusters: clusters.Clusters | None = None
        self._axes = np.zeros((0, 0), np.float32)
        if not len(rows):
            return
        with single_threaded_blas():
            self._axes = principal_axes(vectors, rows)
            parts = blocks(len(rows), COLUMNS)
            whole = np.concatenate([self._to_whole(vectors[rows[block]]) for block in parts])
            self._places = tuple(np.arange(block.start, block.stop) for block in parts)
            if near is not None and len(rows) > clusters.LIMIT:
                self._clusters = clusters.Clusters.of(whole, near)
            if self._clusters is not None:
                self._places = self._clusters.members
            self._columns = [np.ascontiguousarray(whole[places].T) for places in self._places]

    @property
    def method(self) -> str:
        """What the name of a method says of this index: how it compares, and the share of near pairs that it finds."""
        if self._clusters is None:
            return ", among nearest neighbours"
        found = self._clusters.found
        share = "a sample has no near pairs" if found is None else f"{floor(1000 * found) / 10:g}% of near pairs found"
        return f", among nearest neighbours in clusters ({share})"

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
        wanted = min(count + SPARE, len(self.rows))
        with single_threaded_blas():
            for images, whole, visits in self._parts(queries, rows):
                own = None if sets is None else (sets[rows[images]], sets[self.rows])
                places = self._candidates(whole, wanted, least, own, visits)
                found = np.where(places < 0, -1, self.rows[places])
                for inside in blocks(len(found), COMPARED):
                    candidates, block = found[inside], images[inside]
                    cosine = self._cosines(queries[rows[block]], candidates)
                    order = np.lexsort((candidates, -cosine))[:, :count]
                    width = order.shape[1]
                    indices[block, :width] = np.take_along_axis(candidates, order, axis=1)
                    cosines[block, :width] = np.take_along_axis(cosine, order, axis=1)
        return indices, cosines

    def _to_whole(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        return to_whole(vectors @ self._axes)

    def _read(self, queries: Vectors, rows: Rows) -> NDArray[np.int8]:
        """Return the queries at ``rows`` [m] as whole numbers [m, width]."""
        parts = [self._to_whole(queries[rows[block]]) for block in blocks(len(rows), QUERIES)]
        return np.concatenate([np.empty((0, self._axes.shape[1]), np.int8), *parts])

    def _parts(self, queries: Vectors, rows: Rows) -> Iterator[tuple[Rows, NDArray[np.int8], Visits | None]]:
        """Yield numbers of ``rows`` that are searched together, their whole numbers, the clusters that each looks into.

        Those that begin in the same cluster are together: they look into much the same others.
        """
        if self._clusters is None:
            for block in blocks(len(rows), QUERIES):
                yield np.arange(block.start, block.stop), self._read(queries, rows[block]), None
            return
        own = [self._clusters.own(self._read(queries, rows[block])) for block in blocks(len(rows), SEARCHED)]
        order = np.argsort(np.concatenate([np.empty(0, np.int64), *own]), kind="stable")
        for block in blocks(len(rows), max(TOGETHER, min(SEARCHED, VISITS // self._clusters.visited))):
            whole = self._read(queries, rows[order[block]])
            yield order[block], whole, self._clusters.visits(whole)

    def _compared(self, count: int, visits: Visits | None) -> Iterator[tuple[Rows, Rows, NDArray[np.int8]]]:
        """Yield which of ``count`` queries are compared with which places, and the columns [d, n] of these."""
        if visits is None:
            who = np.arange(count)
            yield from ((who, places, columns) for places, columns in zip(self._places, self._columns, strict=True))
            return
        for part in (visits[:, :FIRST], visits[:, FIRST:]):
            order = np.argsort(part, axis=None, kind="stable")
            numbers, starts = np.unique(part.ravel()[order], return_index=True)
            for number, who in zip(numbers, np.split(order // max(1, part.shape[1]), starts[1:]), strict=False):
                places, columns = self._places[number], self._columns[number]
                for inside in blocks(len(places), COLUMNS):
                    for some in blocks(len(who), TOGETHER):
                        yield who[some], places[inside], np.ascontiguousarray(columns[:, inside])

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
        self,
        queries: NDArray[np.int8],
        count: int,
        least: float = -1,
        sets: tuple[Rows, Rows] | None = None,
        visits: Visits | None = None,
    ) -> Rows:
        """Return the places [m, count] in the index of those most like ``queries`` [m, width], as whole numbers.

        Where all are compared, of equal ones the first count. -1 stands for those that are far below ``least``, or of
        the same of the ``sets`` of the vectors [m] and of the index. So that most products are looked at only once,
        those are kept that are above the least of the best so far, and the best are chosen anew when twice as many
        products have been seen.
        """
        bound = NO_PRODUCT if least <= -1 else int((least - MARGIN) * factor(self._axes.shape[1]) ** 2)
        best = np.full((len(queries), count), bound * 2**32)  # products that no vector has, of the place LAST
        lowest = np.full(len(queries), bound, np.int32)
        pending: list[NDArray[np.int64]] = []
        seen = chosen_at = waiting = 0
        for who, places, columns in self._compared(len(queries), visits):
            products = multiply(queries[who], columns)
            seen += products.size
            if sets is not None:
                products[sets[0][who][:, None] == sets[1][places]] = NO_PRODUCT
            hits = np.flatnonzero((products > lowest[who][:, None]).ravel())  # faster than two-dimensional nonzero
            if len(hits) > len(who) * count:  # as at the start: to sort out all at once is faster
                best[who] = largest(np.hstack([best[who], keys(products, places)]), count)
                lowest[who], chosen_at = best[who, -1] >> 32, seen
                continue
            if len(hits):
                rows, numbers = np.divmod(hits, columns.shape[1])
                pending.append(np.stack([who[rows], keys(products[rows, numbers], places[numbers])]))
                waiting += len(hits)
            if waiting > 4 * best.size or (waiting and seen >= 2 * chosen_at):
                best, pending, waiting, chosen_at = _merge(best, pending), [], 0, seen
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


def _merge(best: NDArray[np.int64], pending: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the largest of the keys [m, count] and of those in ``pending``, each row and key, for each row."""
    count = best.shape[1]
    if not pending:
        return best
    rows, keys = np.concatenate(pending, axis=1)
    rows, keys = np.concatenate([np.repeat(np.arange(len(best)), count), rows]), np.concatenate([best.ravel(), keys])
    order = np.argsort(-keys)
    # Numbers of few bits are sorted in a time that is linear.
    order = order[np.argsort(rows[order].astype(np.min_scalar_type(len(best))), kind="stable")]
    starts = np.searchsorted(rows[order], np.arange(len(best)))
    merged: NDArray[np.int64] = keys[order][starts[:, None] + np.arange(count)]
    return merged
