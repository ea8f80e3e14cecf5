"""Near duplicates of which one image is a crop of the other, maybe mirrored.

A crop and the whole image do not correlate as a whole. Candidates are the nearest neighbours by features. An image is a
crop of another if, shrunk, it is found in it by template matching at some scale and position. The search goes from
coarse to fine: at 16 x 16 pixels, which are stored with the features, nearly all candidates are rejected without being
read again; then at 32 x 32; then at 64 x 64. What is left is aligned to a fraction of a pixel: a crop then agrees with
its part of the image almost perfectly, and another figure at the same place does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data import Dataset
from headstart.features.features import Features
from headstart.images.decoding import decode
from headstart.machine import cores, single_threaded_blas
from headstart.splits.groups import nearest_neighbours

NEIGHBOURS = 5
MIN_COSINE = 0.45  # centred cosine similarity of the features of candidates
SIZE = 64  # pixels a side of the finest search
# Of a crop with its place in the whole image, by the size of the search. Coarse pixels correlate less.
MIN_CORRELATION = {16: 0.78, 32: 0.82, 64: 0.93}
MIN_ALIGNED_CORRELATION = 0.988  # of crops at least 0.993, of other images of a rendered set at most 0.955
ALIGNED_SIZE = 48  # pixels a side at which the two are compared
ALIGNMENT_STEPS = 6  # at most, while each raises the correlation
MIN_GAIN = 0.001
BATCH = 1_000  # pairs whose images are held in memory
CHUNK = 100  # pairs that a thread takes at a time


@dataclass(frozen=True)
class Matches:
    """Where in n images their templates fit best: the correlation, the side in pixels, row, column, and mirrored."""

    correlations: NDArray[np.float64]
    sides: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    is_mirrored: NDArray[np.bool_]

    @classmethod
    def none(cls, count: int, side: int) -> Matches:
        """Return the matches of images in which nothing was found yet."""
        zeros = np.zeros(count, np.int64)
        return cls(np.zeros(count), np.full(count, side), zeros, zeros.copy(), np.zeros(count, bool))

    def update(self, selected: NDArray[np.integer], other: Matches) -> None:
        """Put ``other`` at the places ``selected``, where it correlates better."""
        better = other.correlations > self.correlations[selected]
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[selected[better]] = theirs[better]


def find_crops(dataset: Dataset, features: Features, duplicate_sets: NDArray[np.int64]) -> list[tuple[int, int, float]]:
    """Find pairs of images (first, second, correlation) of which one is a crop of the other.

    Images of one duplicate set [n] are not compared.
    """
    neighbours, cosines = nearest_neighbours(features.deepest, duplicate_sets, NEIGHBOURS, near=MIN_COSINE)
    rows, ranks = np.nonzero(cosines >= MIN_COSINE)
    candidates = np.unique(np.sort(np.stack([rows, neighbours[rows, ranks]], axis=1), axis=1), axis=0)
    pairs: list[tuple[int, int, float]] = []
    with single_threaded_blas(), ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(candidates), BATCH):
            pairs += _search(dataset, features, candidates[start : start + BATCH], pool)
    return pairs


def _search(
    dataset: Dataset, features: Features, pairs: NDArray[np.int64], pool: Executor
) -> list[tuple[int, int, float]]:
    """Return those of the pairs [n, 2] of which one is a crop of the other, with the correlation."""
    tiny = features.tiny_images.reshape(-1, 16, 16, 3)
    ordered = np.concatenate([pairs, pairs[:, ::-1]])  # (image, crop): either of the two may be the crop

    def coarse_correlation(chunk: NDArray[np.int64]) -> NDArray[np.float64]:
        originals, crops = (tiny[rows].mean(axis=3, dtype=np.float32) for rows in chunk.T)
        return match_templates(originals, crops, range(8, 16)).correlations

    ordered = ordered[_map_chunks(pool, coarse_correlation, ordered) >= MIN_CORRELATION[16]]
    rows, positions = np.unique(ordered, return_inverse=True)
    images = list(pool.map(lambda row: _read_grey(dataset, int(features.index[row])), rows))
    grey = np.array(images, np.float32).reshape(-1, SIZE, SIZE)

    def fine_correlation(chunk: NDArray[np.int64]) -> NDArray[np.float64]:
        return crop_correlation(grey[chunk[:, 0]], grey[chunk[:, 1]])

    correlations = _map_chunks(pool, fine_correlation, positions.reshape(-1, 2))
    best: dict[tuple[int, int], float] = {}
    for (image, crop), correlation in zip(ordered.tolist(), correlations.tolist(), strict=True):
        if correlation >= MIN_ALIGNED_CORRELATION:
            pair = min(image, crop), max(image, crop)
            best[pair] = max(best.get(pair, 0.0), correlation)
    return [(first, second, correlation) for (first, second), correlation in best.items()]


def _map_chunks(
    pool: Executor, function: Callable[[NDArray[np.int64]], NDArray[np.float64]], pairs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the results [n] of a function of pairs [n, 2], computed in chunks by several threads."""
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    return np.concatenate([np.empty(0), *pool.map(function, chunks)])


def _read_grey(dataset: Dataset, index: int) -> NDArray[np.float32]:
    # Twice the size, and a triangle filter: averages of one or two pixels would move the edges by part of a pixel.
    image = Image.fromarray(decode(dataset.read(index), min_size=(2 * SIZE, 2 * SIZE))).convert("L")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)


def crop_correlation(images: NDArray[np.float32], crops: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the highest correlation [n] of each of ``crops`` with a part of its image, both [n, 64, 64].

    A crop may keep 0.5 to 0.95 of either side, and may be mirrored. All scales are searched at 32 x 32 pixels; where
    the correlation is high enough there, the scales next to the best one at 64 x 64; where it is high enough there
    too, the two are aligned. Elsewhere the result is 0.
    """
    half = SIZE // 2
    coarse = match_templates(_shrink(images, half), _shrink(crops, half), range(half // 2, half, 2))
    is_candidate = coarse.correlations >= MIN_CORRELATION[half]
    fine = Matches.none(len(images), SIZE)
    for side in np.unique(coarse.sides[is_candidate]).tolist():
        rows = np.flatnonzero(is_candidate & (coarse.sides == side))
        fine.update(rows, match_templates(images[rows], crops[rows], range(2 * side - 2, 2 * side + 3, 2)))
    aligned = np.zeros(len(images))
    for i in np.flatnonzero(fine.correlations >= MIN_CORRELATION[SIZE]).tolist():
        crop = crops[i, :, ::-1] if fine.is_mirrored[i] else crops[i]
        box = (fine.columns[i], fine.rows[i], fine.sides[i], fine.sides[i])
        aligned[i] = aligned_correlation(images[i], np.ascontiguousarray(crop), box)
    return aligned


def aligned_correlation(
    image: NDArray[np.float32], crop: NDArray[np.float32], box: tuple[float, float, float, float]
) -> float:
    """Return the highest correlation of ``crop`` with a part of ``image``, both [size, size], near ``box``.

    ``box`` is left, top, width and height in pixels. It is moved and stretched in steps, each the least-squares
    solution for a linearised image, of which brightness and contrast may differ too (Lucas & Kanade 1981).
    """
    size = ALIGNED_SIZE
    source = Image.fromarray(image)
    target = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR)).reshape(-1)
    across = np.tile((np.arange(size) + 0.5) / size, size)
    down = np.repeat((np.arange(size) + 0.5) / size, size)
    left, top, width, height = box
    best = 0.0
    for _ in range(ALIGNMENT_STEPS):
        width, height = (float(np.clip(side, 16, len(image))) for side in (width, height))
        left = float(np.clip(left, 0, len(image) - width))
        top = float(np.clip(top, 0, len(image) - height))
        edges = (left, top, min(left + width, len(image)), min(top + height, len(image)))
        part = np.asarray(source.resize((size, size), Image.Resampling.BILINEAR, box=edges))
        correlation = _correlation(part.reshape(-1), target)
        if correlation < best + MIN_GAIN:
            return max(best, correlation)
        best = correlation
        slope_down, slope_across = (slope.reshape(-1) for slope in np.gradient(part))
        slopes = [slope_across, slope_across * across, slope_down, slope_down * down]
        columns = np.stack([*slopes, part.reshape(-1), np.ones(size * size, np.float32)], axis=1, dtype=np.float64)
        products = columns.T @ columns + 1e-6 * np.eye(6)
        solution = np.linalg.solve(products, columns.T @ target)
        if solution[4] <= 0.1:  # the contrast: the two have nothing in common
            break
        move = np.clip(solution[:4] / solution[4] / size, -0.1, 0.1)
        left, top = left + move[0] * width, top + move[2] * height
        width, height = width * (1 + move[1]), height * (1 + move[3])
    return best


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the correlation of two vectors; 0 where the standard deviation of either is below one grey level."""
    first, second = first - first.mean(), second - second.mean()
    norms = np.sqrt(float(first @ first)), np.sqrt(float(second @ second))
    return float(first @ second) / (norms[0] * norms[1]) if min(norms) ** 2 >= len(first) else 0.0


def match_templates(images: NDArray[np.float32], templates: NDArray[np.float32], sides: Iterable[int]) -> Matches:
    """Return the highest normalised cross-correlation of each of n templates with a part of its image, and where it is.

    Both are [n, size, size]. Templates are shrunk to each of ``sides`` and compared, plain and mirrored, with every
    part of that size (Lewis 1995, "Fast Normalized Cross-Correlation").

    A cross-correlation is a product of Fourier transforms. As products with the transform's matrix these take a third
    to a half of the time of NumPy's FFT at 64 x 64 pixels and less, and of the inverse only those shifts are computed
    at which the template lies inside the image.
    """
    count, size = images.shape[:2]
    forward, inverse, inverse_half = _fourier_matrices(size)
    half = inverse_half.shape[0]
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    # A template is found mirrored where it is found plain in the mirrored image.
    spectra = forward @ (np.stack([centred, centred[:, :, ::-1]], axis=1) @ forward[:, :half])
    values = centred.astype(np.float64)  # for squared deviations, which are small differences of large sums
    squares = values**2
    best, everything = Matches.none(count, size), np.arange(count)
    for side in sides:
        shrunk = _shrink(templates, side)
        shrunk -= shrunk.mean(axis=(1, 2), keepdims=True)
        norms = np.sqrt((shrunk**2).sum(axis=(1, 2)))
        spectrum = forward[:, :side] @ (shrunk @ forward[:side, :half])
        shifts = size - side + 1
        products = spectra * spectrum.conj()[:, None]
        plain_and_mirrored = (inverse[:shifts] @ products @ inverse_half[:, :shifts]).real
        covariance = np.maximum(plain_and_mirrored[:, 0], plain_and_mirrored[:, 1, :, ::-1])
        # Parts and templates whose standard deviation is below one grey level are plain areas, which match anything.
        squared_deviations = _window_sums(squares, side) - _window_sums(values, side) ** 2 / side**2
        scales = norms[:, None, None] * np.sqrt(np.maximum(squared_deviations, side**2))
        correlations = (covariance / np.maximum(scales, 1)).reshape(count, -1)
        places = correlations.argmax(axis=1)
        correlations = correlations[everything, places]
        correlations[norms < side] = 0
        rows, columns = np.divmod(places, shifts)
        is_mirrored = plain_and_mirrored[everything, 0, rows, columns] < covariance[everything, rows, columns]
        best.update(everything, Matches(correlations, np.full(count, side), rows, columns, is_mirrored))
    return best


@cache
def _fourier_matrices(size: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64], NDArray[np.complex64]]:
    """Return the discrete Fourier transform [size, size], its inverse, and that from half of the spectrum.

    Half of a real signal's spectrum, size // 2 + 1 values, determines the rest: the real part of the inverse from that
    half is the signal, if all values but the first and the last count twice. ``size`` is even.
    """
    numbers = np.arange(size)
    forward = np.exp(-2j * np.pi / size * np.outer(numbers, numbers))
    inverse = forward.conj() / size
    weights = np.full(size // 2 + 1, 2.0)
    weights[[0, -1]] = 1
    inverse_half = weights[:, None] * inverse[: len(weights)]
    return forward.astype(np.complex64), inverse.astype(np.complex64), inverse_half.astype(np.complex64)


def _shrink(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return images [n, size, size] shrunk to [n, side, side]: each pixel is the mean of the area that it covers."""
    averaging = _averaging_matrix(images.shape[1], side)
    return np.asarray(averaging @ images @ averaging.T, np.float32)


@cache
def _averaging_matrix(size: int, side: int) -> NDArray[np.float32]:
    """Return the matrix [side, size] that shrinks a signal by area averaging."""
    edges = np.linspace(0, size, side + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * side / size, np.float32)


def _window_sums(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the sum of each window of ``side`` x ``side`` in values [n, size, size]."""
    windows = _window_matrix(values.shape[1], side)
    return windows @ values @ windows.T


@cache
def _window_matrix(size: int, side: int) -> NDArray[np.float64]:
    """Return the matrix [size - side + 1, size] whose rows are 1 within one window of a signal, else 0."""
    offset = np.arange(size) - np.arange(size - side + 1)[:, None]
    return ((offset >= 0) & (offset < side)).astype(np.float64)
