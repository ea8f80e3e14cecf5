"""The same picture twice: the same bytes, or re-encoded, resized, mirrored or cropped.

Whole copies are told by 16 x 16 pixels that correlate almost perfectly. A crop shows other pixels: there the nearest
neighbours by features are candidates, and one is a crop of the other if, shrunk, it is found in it by normalised
cross-correlation (Lewis 1995) at some size and place: first at 16 x 16, where nearly all candidates end without being
read again, then at 32 x 32, then at 64 x 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features.features import Features
from headstart.images.decode import decode
from headstart.machine import cores
from headstart.splits.groups import DisjointSets, duplicate_pairs, nearest_neighbours

NEAR = 0.45  # centred cosine of features from which a crop is looked for
NEIGHBOURS = 5
SIDE = 64
BATCH, PART = 1_000, 100  # pairs, and of those as many as a thread takes at a time
# Correlation of a crop with its place in the whole, seen at a quarter and a half of the side and in full.
ROUGHLY, MAYBE, FOUND = 0.78, 0.82, 0.94


def find_copies(dataset: Dataset, features: Features, *, crops: bool = True) -> tuple[list[Finding], NDArray[np.int64]]:
    """Findings, a family of copies each, and the family [n] of every picture of ``features``.

    Without ``crops`` no picture is read: crops are not looked for.
    """
    linked = DisjointSets(len(features.index))
    sure: dict[tuple[int, int], float] = {}
    same = linked.union_equal_rows(features.content_hashes)
    for first, second, alike in duplicate_pairs(features.tiny_images):
        linked.union(first, second)
        sure[first, second] = alike
    for first, second, alike in _crops(dataset, features, linked.labels()) if crops else ():
        linked.union(first, second)
        sure[first, second] = alike
    families = linked.labels()
    strength = np.ones(len(families))
    for (first, _), alike in sure.items():
        strength[families[first]] = min(strength[families[first]], alike)
    return list(_findings(dataset, features, families, same, strength)), families


def _findings(
    dataset: Dataset, features: Features, families: NDArray[np.int64], same: NDArray[np.integer],
    strength: NDArray[np.float64],
) -> Iterator[Finding]:  # fmt: skip
    sizes = np.bincount(families)
    order = np.argsort(families, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for family in np.flatnonzero(sizes > 1):
        members = np.sort(order[starts[family] : starts[family] + sizes[family]])
        items = [dataset.items[features.index[i]] for i in members]
        files = tuple(item.path for item in items)
        exact = len({int(same[i]) for i in members}) == 1
        confidence = 1.0 if exact else float(strength[family])
        kind = "the same file" if exact else "the same picture"
        splits, labels = {item.split for item in items}, {item.label for item in items}
        if len(splits) > 1:
            where = " and ".join(sorted(splits))
            yield Finding("leak", files, confidence, "drop it from one split", f"{kind} in {where}")
        if len(labels) > 1:
            names = " and ".join(sorted(map(str, labels)))
            yield Finding("conflicting_labels", files, confidence, "relabel or drop", f"{kind} as {names}")
        if len(splits) == len(labels) == 1:
            name = "exact_duplicate" if exact else "near_duplicate"
            yield Finding(name, files, confidence, "drop all but one, or give them one group", kind)


def _crops(dataset: Dataset, features: Features, families: NDArray[np.int64]) -> Iterator[tuple[int, int, float]]:
    """Pairs of different families of which one is a crop of the other, maybe mirrored, and the correlation."""
    deepest = features.values[list(features.values)[-1]]
    places, cosines = nearest_neighbours(deepest, families, NEIGHBOURS)
    pairs = sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(places) for j in row[cosines[i] >= NEAR]})
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(pairs), BATCH):
            some = np.array(pairs[start : start + BATCH])
            ways = _maybe(features.tiny_images, np.vstack([some, some[:, ::-1]]))  # a batch's pictures at a time
            needed, inner = np.unique(ways, return_inverse=True)
            seen = pool.map(lambda i: _grey(dataset.read(int(i))), features.index[needed])
            small = np.stack([*seen]) if len(needed) else np.empty((0, SIDE, SIDE), np.float32)
            parts = [inner.reshape(-1, 2)[at : at + PART] for at in range(0, len(ways), PART)]
            alike = [*pool.map(lambda part, small=small: inside(small[part[:, 0]], small[part[:, 1]]), parts)]
            best: dict[tuple[int, int], float] = {}
            for way, found in zip(ways.tolist(), np.concatenate([*alike, []]).tolist(), strict=True):
                pair = min(way), max(way)
                best[pair] = max(best.get(pair, 0.0), found)
            yield from ((*pair, found) for pair, found in best.items() if found >= FOUND)


def _maybe(pixels: NDArray[np.uint8], ways: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of pairs [n, 2] of a whole and a crop those that can be one, as far as 16 x 16 pixels [pictures, 768] tell."""
    wholes, crops = (pixels[some].reshape(-1, 16, 16, 3).mean(axis=3, dtype=np.float32) for some in ways.T)
    return ways[best_places(wholes, crops, range(8, 16))[0] >= ROUGHLY]


def _grey(source: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = Image.fromarray(decode(source, at_least=(SIDE, SIDE))).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def inside(wholes: NDArray[np.float32], crops: NDArray[np.float32]) -> NDArray[np.float64]:
    """The best correlation [n] of each of ``crops``, or its mirror image, with a part of the same of ``wholes``, both
    [n, 64, 64]; 0 if it is low.

    A crop may keep 0.5 to 0.95 of either side. Most end after a look at half the size.
    """
    half = SIDE // 2
    small, parts = (each.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)) for each in (wholes, crops))
    alike, at = best_places(small, parts, range(half // 2, half, 2))
    found = np.zeros(len(wholes))
    for i in np.flatnonzero(alike >= MAYBE):
        sides = range(2 * int(at[i]) - 2, 2 * int(at[i]) + 3, 2)
        found[i] = best_places(wholes[i : i + 1], crops[i : i + 1], sides)[0][0]
    return found


def best_places(
    wholes: NDArray[np.float32], crops: NDArray[np.float32], sides: Iterable[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The best normalised cross-correlation [n] of each of ``crops`` with a part of the same of ``wholes``, both
    [n, size, size], plain or mirrored and brought to one of these sides, and that side [n]."""
    from scipy import fft  # of its transforms in fp32 one takes half of NumPy's time or less

    count, size = wholes.shape[:2]
    images = wholes - wholes.mean(axis=(1, 2), keepdims=True)
    spectra = fft.rfft2(images)[:, None]
    squares, sums = _integral(images**2), _integral(images)
    best, at = np.zeros(count), np.full(count, size)
    for side in sides:
        shrink = _shrinking(size, side)
        templates = shrink @ crops @ shrink.T
        templates -= templates.mean(axis=(1, 2), keepdims=True)
        lengths = np.sqrt((templates**2).sum(axis=(1, 2)))
        spread = _squares(squares, side) - _squares(sums, side) ** 2 / side**2
        scale = lengths[:, None, None] * np.sqrt(np.maximum(spread, side**2))
        # No need of more room: where a template lies inside, nothing of it comes round again.
        padded = np.zeros((count, 2, size, size), np.float32)
        padded[:, 0, :side, :side], padded[:, 1, :side, :side] = templates, templates[:, :, ::-1]
        shifts = size - side + 1
        found = fft.irfft2(spectra * fft.rfft2(padded).conj(), (size, size))[:, :, :shifts, :shifts]
        alike = (found / np.maximum(scale, 1)[:, None]).max(axis=(1, 2, 3))
        alike[lengths < side] = 0  # an even template is found anywhere
        at[alike > best] = side
        best = np.maximum(best, alike)
    return best, at


@cache
def _shrinking(size: int, side: int) -> NDArray[np.float32]:
    """The matrix [side, size] that brings ``size`` numbers to fewer by averaging what each covers."""
    edges = np.linspace(0, size, side + 1)
    pixel = np.arange(size)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(covered, 0, None) * side / size, np.float32)


def _integral(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of all above and left [n, size + 1, size + 1] of values [n, size, size] (Crow 1984)."""
    return np.pad(values.astype(np.float64).cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))


def _squares(table: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """From integral images the sum of every square of ``side``."""
    return table[:, side:, side:] - table[:, :-side, side:] - table[:, side:, :-side] + table[:, :-side, :-side]
