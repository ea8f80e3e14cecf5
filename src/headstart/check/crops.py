"""Near duplicates of which one image is a crop of the other, maybe mirrored.

A crop and the whole image do not correlate as a whole. Candidates are the nearest neighbours by features. An image is a
crop of another if, shrunk, it is found in it by template matching at some scale and position. The search goes from
coarse to fine: at 16 x 16 pixels, which are stored with the features, nearly all candidates are rejected without being
read again; then at 32 x 32; then at 64 x 64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
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
MIN_CORRELATION = {16: 0.78, 32: 0.82, 64: 0.94}
BATCH = 1_000  # pairs whose images are held in memory
CHUNK = 100  # pairs that a thread takes at a time


def find_crops(dataset: Dataset, features: Features, duplicate_sets: NDArray[np.int64]) -> list[tuple[int, int, float]]:
    """Find pairs of images (first, second, correlation) of which one is a crop of the other.

    Images of one duplicate set [n] are not compared.
    """
    neighbours, cosines = nearest_neighbours(features.deepest, duplicate_sets, NEIGHBOURS)
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
        return match_templates(originals, crops, range(8, 16))[0]

    ordered = ordered[_map_chunks(pool, coarse_correlation, ordered) >= MIN_CORRELATION[16]]
    rows, positions = np.unique(ordered, return_inverse=True)
    images = list(pool.map(lambda row: _read_grey(dataset, int(features.index[row])), rows))
    grey = np.array(images, np.float32).reshape(-1, SIZE, SIZE)

    def fine_correlation(chunk: NDArray[np.int64]) -> NDArray[np.float64]:
        return crop_correlation(grey[chunk[:, 0]], grey[chunk[:, 1]])

    correlations = _map_chunks(pool, fine_correlation, positions.reshape(-1, 2))
    best: dict[tuple[int, int], float] = {}
    for (image, crop), correlation in zip(ordered.tolist(), correlations.tolist(), strict=True):
        if correlation >= MIN_CORRELATION[64]:
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
    image = Image.fromarray(decode(dataset.read(index), min_size=(SIZE, SIZE))).convert("L")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)


def crop_correlation(images: NDArray[np.float32], crops: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the highest correlation [n] of each of ``crops`` with a part of its image, both [n, 64, 64].

    A crop may keep 0.5 to 0.95 of either side, and may be mirrored. All scales are searched at 32 x 32 pixels; where
    the correlation is high enough there, the scales next to the best one at 64 x 64. Elsewhere the result is 0.
    """
    half = SIZE // 2
    correlations, sides = match_templates(_shrink(images, half), _shrink(crops, half), range(half // 2, half, 2))
    is_candidate = correlations >= MIN_CORRELATION[half]
    best = np.zeros(len(images))
    for side in np.unique(sides[is_candidate]).tolist():
        rows = np.flatnonzero(is_candidate & (sides == side))
        best[rows] = match_templates(images[rows], crops[rows], range(2 * side - 2, 2 * side + 3, 2))[0]
    return best


def match_templates(
    images: NDArray[np.float32], templates: NDArray[np.float32], sides: Iterable[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the highest normalised cross-correlation [n] of each template with a part of its image, and its side [n].

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
    best = np.zeros(count)
    best_sides = np.full(count, size)
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
        correlations = (covariance / np.maximum(scales, 1)).max(axis=(1, 2))
        correlations[norms < side] = 0
        best_sides[correlations > best] = side
        best = np.maximum(best, correlations)
    return best, best_sides


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
