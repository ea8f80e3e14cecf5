"""Template matching: normalised cross-correlations equal their definition, and crops are found at every stage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.check.crops import (
    MIN_CORRELATION,
    _window_sums,
    crop_correlation,
    match_templates,
)
from headstart.images.thumbnail import shrink, tiny_image


@given(seed=st.integers(0, 10_000), side=st.integers(6, 14))
@settings(max_examples=20, deadline=None)
def test_correlations_equal_the_definition(seed, side):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (16, 16)).astype(np.float32)
    templates = rng.uniform(0, 255, (2, 16, 16)).astype(np.float32)
    # Averages of areas.
    template = np.kron(templates[1], np.ones((side, side))).reshape(side, 16, side, 16).mean(axis=(1, 3))
    best = 0.0
    for top in range(17 - side):
        for left in range(17 - side):
            part = image[top : top + side, left : left + side]
            for pixels in (template, template[:, ::-1]):
                best = max(best, float(np.corrcoef(part.ravel(), pixels.ravel())[0, 1]))
    matches = match_templates(np.stack([image[::-1], image]), templates, [side])
    assert matches.correlations[1] == pytest.approx(best, abs=1e-5)
    assert matches.sides.tolist() == [side, side]
    row, column = matches.rows[1], matches.columns[1]
    pixels = template[:, ::-1] if matches.is_mirrored[1] else template
    part = image[row : row + side, column : column + side]
    assert float(np.corrcoef(part.ravel(), pixels.ravel())[0, 1]) == pytest.approx(best, abs=1e-5)


def test_window_sums_equal_the_definition():
    values = np.random.default_rng(0).normal(size=(9, 9))
    sums = _window_sums(values[None], 4)[0]
    assert sums.shape == (6, 6)
    for i in range(6):
        for j in range(6):
            assert sums[i, j] == pytest.approx(values[i : i + 4, j : j + 4].sum())


@given(seed=st.integers(0, 10_000), share=st.floats(0.5, 0.95), is_mirrored=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_crop_passes_the_coarse_search(seed, share, is_mirrored):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((300, 300), Image.Resampling.BICUBIC)
    edge = round(300 * share)
    left, top = rng.integers(0, 301 - edge, 2)
    part = np.asarray(image.crop((left, top, left + edge, top + edge)))[:, :: -1 if is_mirrored else 1]
    small_image, small_crop = (
        tiny_image(shrink(Image.fromarray(np.ascontiguousarray(pixels))))
        .reshape(1, 16, 16, 3)
        .mean(axis=3, dtype=np.float32)
        for pixels in (np.asarray(image), part)
    )
    assert match_templates(small_image, small_crop, range(8, 16)).correlations >= MIN_CORRELATION[16]


def test_a_crop_is_found_in_its_image_and_another_image_is_not():
    rng = np.random.default_rng(1)
    image, other_image = (
        np.asarray(Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC))
        for _ in range(2)
    )
    image, other_image = image.astype(np.float32), other_image.astype(np.float32)
    crop = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC, box=(9, 14, 52, 57)))
    uniform = np.full((64, 64), 7, np.float32)
    correlations = crop_correlation(
        np.stack([image, image, crop, image, image]), np.stack([crop, crop[:, ::-1], image, other_image, uniform])
    )
    assert (correlations[:2] > 0.99).all()
    assert (correlations[2:4] < 0.94).all()
    assert correlations[4] == 0
