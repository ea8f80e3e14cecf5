"""Statistics and thumbnails of one image."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from headstart.images.thumbnail import image_stats, sharpness, shrink, square_thumbnail, tiny_image


def test_sharpness_falls_with_blur_and_ignores_contrast():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(40, 216, (300, 400, 3), np.uint8))
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[-1]
    faint = np.asarray(image).astype(np.float32) * 0.5 + 60
    assert sharpness(faint.astype(np.uint8)) == pytest.approx(values[0], rel=0.05)


def test_sharpness_equals_the_definition():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (96, 144, 3), np.uint8)
    height, width, sharp = image_stats((96, 144), image[::2, ::2])
    assert (height, width) == (96, 144)
    green = image[::2, ::2, 1].astype(np.float64)
    laplacian = sum(np.roll(green, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * green
    rows = np.arange(1, 47, 3)
    assert sharp == pytest.approx(laplacian[rows, 1:-1].std() / (green[rows].std() + 1), rel=1e-5)
    finer = np.kron(green, np.ones((12, 12)))  # 576 x 864, sampled down to 256 x 384: each value 5 or 6 times
    samples = (np.arange(256) + 0.5) * 576 / 256 // 12, (np.arange(384) + 0.5) * 864 / 384 // 12
    sampled = green[samples[0].astype(int)][:, samples[1].astype(int)]
    laplacian = sum(np.roll(sampled, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * sampled
    rows = np.arange(1, 255, 3)
    expected = laplacian[rows, 1:-1].std() / (sampled[rows].std() + 1)
    assert sharpness(np.repeat(finer[:, :, None], 3, 2).astype(np.uint8)) == pytest.approx(expected, rel=1e-5)
    assert sharpness(image[:2]) == 1.0  # too small to measure


def test_thumbnails_are_averages_of_areas():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (96, 144, 3), np.uint8)
    blocks = image.reshape(16, 6, 16, 9, 3).mean(axis=(1, 3)).reshape(-1)
    assert np.abs(tiny_image(shrink(Image.fromarray(image))) - blocks).max() <= 1
    middle = np.kron(rng.integers(0, 256, (48, 48, 3)), np.ones((2, 2, 1))).astype(np.uint8)
    padded = np.pad(middle, ((0, 0), (24, 24), (0, 0)))
    square = square_thumbnail(shrink(Image.fromarray(padded))).reshape(48, 48, 3)
    assert np.abs(square[2:-2, 2:-2] - middle[::2, ::2][2:-2, 2:-2].astype(int)).mean() < 40
    large = np.kron(image, np.ones((5, 5, 1), np.uint8))  # 480 x 720: shrunk by five, exactly
    np.testing.assert_array_equal(np.asarray(shrink(Image.fromarray(large))), image)
    np.testing.assert_array_equal(
        tiny_image(shrink(Image.fromarray(large))), tiny_image(shrink(Image.fromarray(image)))
    )
