"""Augmented copies: images of which one is the other turned, shifted, zoomed, sheared or mirrored.

Copies made by offline augmentation correlate as whole images no more than any two images do. Here one of two images is
laid on the other by the affine transformation under which they correlate best. All is done at 16 x 16 pixels, which are
stored with the features, so no image is read again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from headstart.machine import cores, single_threaded_blas

SIZE = 16  # pixels a side of the images
TEMPLATE = 9  # of the first search: the middle of an image, which shifts by a fifth leave in the frame
SHIFTS = SIZE - TEMPLATE + 1
REGION = 10  # of the refinement: the pixels of the middle
ANGLES = tuple(range(-45, 46, 15))  # degrees, from which refinement starts
MIN_START = 0.7  # correlation of the first search from which on a pair is refined
STEPS = 6
MIN_OVERLAP = 0.4  # share of the image
SCALES = (0.6, 1.7)  # of a copy, along any direction
CHUNK = 64  # pairs at a time: what is held of them stays in the processor's cache
MIN_NORM = 20.0  # of the centred values of a region; below it the region is plain

Floats = NDArray[np.float32]


def copy_correlations(tiny_images: NDArray[np.uint8], pairs: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return how well the images of each pair [m, 2] correlate where one lies on the other, [m] in -1..1.

    ``tiny_images`` [n, 768] are 16 x 16 RGB pixels. One image of a pair is mirrored or not, turned by up to about 50
    degrees, shifted, zoomed and sheared so that it correlates best with the middle of the other; the result is the
    correlation of all pixels of the other that lie on the one. It is 0 where these are less than two fifths of the
    image, and where the two are found not to match at the start. The places come from template matching, of either
    image in the other, then from Gauss-Newton steps on the normalised correlation (Evangelidis & Psarakis 2008,
    "Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization").
    """
    images = tiny_images.reshape(-1, SIZE * SIZE, 3)

    def correlate(start: int) -> NDArray[np.float64]:
        chunk = pairs[start : start + CHUNK]
        pixels, index = np.unique(chunk, return_inverse=True)
        some = images[pixels].astype(np.float32)
        first, second = index.reshape(chunk.shape).T
        templates, parts = _cut_templates(some), _cut_parts(some)
        forth = _first_search(templates[second], parts[first])
        back = _first_search(templates[first], parts[second])
        is_back = back[0] > forth[0]
        first, second = np.where(is_back, second, first), np.where(is_back, first, second)
        correlations = np.where(is_back, back[0], forth[0])
        matrices = np.where(is_back[:, None, None], back[1], forth[1])
        offsets = np.where(is_back[:, None], back[2], forth[2])
        results = np.zeros(len(chunk))
        rows = np.flatnonzero(correlations >= MIN_START)
        if len(rows):
            laid, fixed = some[first[rows]], some[second[rows]]
            matrices, offsets = _refine(laid, fixed, matrices[rows], offsets[rows])
            results[rows] = _overlap_correlations(laid, fixed, matrices, offsets)
        return results

    with single_threaded_blas(), ThreadPoolExecutor(cores()) as pool:
        return np.concatenate([np.empty(0), *pool.map(correlate, range(0, len(pairs), CHUNK))])


def _cut_templates(images: Floats) -> Floats:
    """Return the middle of each image [m, 256, 3], turned and mirrored in all ways, normalised: [m, t, 243]."""
    sampling = _turns()[0]
    sampled = sampling.reshape(-1, SIZE * SIZE) @ images.transpose(1, 0, 2).reshape(SIZE * SIZE, -1)
    by_turn = sampled.reshape(len(sampling), TEMPLATE**2, len(images), 3)
    return _normalised(by_turn.transpose(2, 0, 1, 3).reshape(len(images), len(sampling), -1))[0]


def _cut_parts(images: Floats) -> Floats:
    """Return all parts of each image [m, 256, 3] that are as large as its middle, normalised: [m, 64, 243]."""
    squares = images.reshape(len(images), SIZE, SIZE, 3)
    windows = np.lib.stride_tricks.sliding_window_view(squares, (TEMPLATE, TEMPLATE), axis=(1, 2))
    return _normalised(windows.transpose(0, 1, 2, 4, 5, 3).reshape(len(images), SHIFTS**2, -1))[0]


def _first_search(templates: Floats, parts: Floats) -> tuple[Floats, Floats, Floats]:
    """Find the templates [m, t, 243] of images among the parts [m, 64, 243] of others.

    Return the correlations [m], and the matrices [m, 2, 2] and offsets [m, 2] of the transformations from places in the
    first images to places in the others, (row, column) about the centre.
    """
    correlations = (templates @ parts.transpose(0, 2, 1)).reshape(len(templates), -1)
    best = correlations.argmax(axis=1)
    turn, place = np.divmod(best, SHIFTS**2)
    offsets = np.stack(np.divmod(place, SHIFTS), axis=1) - (SHIFTS - 1) / 2
    return correlations[np.arange(len(best)), best], _turns()[1][turn], offsets.astype(np.float32)


@cache
def _turns() -> tuple[Floats, Floats]:
    """Return matrices [t, 81, 256] that sample the middle of an image turned and mirrored, and their inverses."""
    places = _square(TEMPLATE)
    matrices = []
    for mirror in (1, -1):
        for angle in np.deg2rad(ANGLES):
            matrices.append([[np.cos(angle), -np.sin(angle)], [mirror * np.sin(angle), mirror * np.cos(angle)]])
    turns = np.array(matrices, np.float32)
    units = np.eye(SIZE * SIZE, dtype=np.float32)[None]  # each pixel as an image: sampling is linear
    sampled = [_sample(units, (places @ turn.T)[None])[0][0] for turn in turns]
    return np.stack(sampled), np.linalg.inv(turns)


def _square(side: int) -> Floats:
    """Return the places (row, column) [side^2, 2] of the pixels of a square, about its centre."""
    axis = np.arange(side, dtype=np.float32) - (side - 1) / 2
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def _normalised(values: Floats) -> tuple[Floats, Floats]:
    """Centre vectors [..., d] and bring them to length 1, in place; return them and the lengths [..., 1].

    Plain regions become short.
    """
    values -= values.mean(axis=-1, keepdims=True)
    norms = np.maximum(np.sqrt(np.einsum("...d,...d->...", values, values))[..., None], MIN_NORM)
    values /= norms
    return values, norms


def _sample(images: Floats, places: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the bilinear values [m, k, c] of images [m, 256, c] at places [m, k, 2], and the slopes by row and column.

    Places are about the centre; outside the image its edge is repeated.
    """
    places = np.clip(places + np.float32((SIZE - 1) / 2), 0, np.float32(SIZE - 1.0001))
    corner = places.astype(np.int32)
    down, across = (places - corner).astype(np.float32)[..., None].transpose(2, 0, 1, 3)
    start = np.arange(len(images), dtype=np.int32)[:, None] * SIZE * SIZE + corner[..., 0] * SIZE + corner[..., 1]
    pixels = images.reshape(-1, images.shape[2])
    left, lower_left = pixels[start], pixels[start + SIZE]
    upper, lower = pixels[start + 1] - left, pixels[start + SIZE + 1] - lower_left
    left_slope, slope_change = lower_left - left, lower - upper
    values = left + across * upper + down * (left_slope + across * slope_change)
    return values, left_slope + across * slope_change, upper + down * slope_change


def _refine(first: Floats, second: Floats, matrices: Floats, offsets: Floats) -> tuple[Floats, Floats]:
    """Return the transformations, matrices [m, 2, 2] and offsets [m, 2], after steps towards the best correlation.

    Each step is a damped Gauss-Newton step for the normalised values of the middle of the second image.
    """
    places = _square(REGION)
    margin = (SIZE - REGION) // 2
    middle = second.reshape(-1, SIZE, SIZE, 3)[:, margin:-margin, margin:-margin].reshape(len(second), REGION**2 * 3)
    target = _normalised(middle)[0]
    best = np.full(len(first), -1.0, np.float32)
    best_matrices, best_offsets = matrices.copy(), offsets.copy()
    limits = np.array([0.15, 0.15, 0.15, 0.15, 0.5, 0.5], np.float32)  # of one step
    for step in range(STEPS + 1):
        values, by_row, by_column = _sample(first, places @ matrices.transpose(0, 2, 1) + offsets[:, None])
        values, norms = _normalised(values.reshape(len(first), -1))
        correlation = np.einsum("md,md->m", values, target)
        is_better = correlation > best
        best[is_better] = correlation[is_better]
        best_matrices[is_better], best_offsets[is_better] = matrices[is_better], offsets[is_better]
        if step == STEPS:
            break
        rows, columns = places[None, :, :1], places[None, :, 1:]
        slopes = (by_row * rows, by_row * columns, by_column * rows, by_column * columns, by_row, by_column)
        jacobian = np.stack([slope.reshape(len(first), -1) for slope in slopes], axis=1) / norms[:, None]
        jacobian -= jacobian.mean(axis=2, keepdims=True)
        jacobian -= (jacobian @ values[:, :, None]) * values[:, None]
        hessian = jacobian @ jacobian.transpose(0, 2, 1)
        damping = 0.01 * np.trace(hessian, axis1=1, axis2=2) / 6 + 1e-9
        hessian += damping[:, None, None] * np.eye(6, dtype=np.float32)
        change = np.linalg.solve(hessian, jacobian @ (target - values)[:, :, None])[..., 0]
        change = np.clip(change, -limits, limits)
        matrices, offsets = matrices + change[:, :4].reshape(-1, 2, 2), offsets + change[:, 4:]
    return best_matrices, best_offsets


def _overlap_correlations(first: Floats, second: Floats, matrices: Floats, offsets: Floats) -> NDArray[np.float64]:
    """Return the correlation [m] of the second images with the transformed first, where both have pixels.

    It is 0 where the overlap is small, or where the transformation is none that an augmentation makes.
    """
    places = _square(SIZE) @ matrices.transpose(0, 2, 1) + offsets[:, None]
    inside = (np.abs(places) <= SIZE / 2).all(axis=2)[..., None]
    share = inside.mean(axis=(1, 2))
    weights = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1) / 3
    values = [_sample(first, places)[0], second]
    values = [value - (weights * value).sum(axis=(1, 2), keepdims=True) for value in values]
    variances = [np.maximum((weights * value**2).sum(axis=(1, 2)), MIN_NORM**2 / SIZE**2) for value in values]
    correlations = (weights * values[0] * values[1]).sum(axis=(1, 2)) / np.sqrt(variances[0] * variances[1])
    scales = np.linalg.svd(matrices, compute_uv=False)
    is_likely = (share >= MIN_OVERLAP) & (scales[:, 0] <= SCALES[1]) & (scales[:, 1] >= SCALES[0])
    return np.where(is_likely, correlations, 0.0)
