"""Statistics and thumbnails of one image."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from headstart.images.thumbnail import edge_stats, image_stats, shrink, square_thumbnail, tiny_image


def scene(seed, size=(400, 300)):
    """A smooth ground with a few plain shapes on it: sharp edges, and hardly any texture."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.fromarray(rng.integers(120, 200, (2, 2, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        left, top = rng.uniform(0, 0.7, 2) * size
        colour = tuple(int(value) for value in rng.integers(0, 80, 3))
        draw.ellipse((left, top, left + width * rng.uniform(0.1, 0.3), top + height * rng.uniform(0.1, 0.3)), colour)
    return image


@pytest.mark.parametrize("scale", [0.4, 1, 5])
def test_sharpness_tells_blurred_from_sharp_at_any_size(scale):
    for seed in range(8):
        image = scene(seed)
        sharp = image.resize((round(400 * scale), round(300 * scale)), Image.Resampling.BICUBIC)
        assert edge_stats(shrink(sharp))[1] > 0.5
        for strength in (15, 25, 40):  # standard deviations in the shorter side
            blurred = sharp.filter(ImageFilter.GaussianBlur(min(sharp.size) / strength))
            assert edge_stats(shrink(blurred))[1] < 0.35


def test_edge_stats_equal_the_definition():
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, (96, 144), np.uint8)
    height, width, contrast, sharpness = image_stats((480, 720), Image.fromarray(np.repeat(grey[:, :, None], 3, 2)))
    assert (height, width) == (480, 720)
    values = grey.astype(int)
    distant = np.sort(np.abs([*(values[4:] - values[:-4]).flat, *(values[:, 4:] - values[:, :-4]).flat]))[::-1]
    bends = [*np.diff(values, 2, axis=0).flat, *np.diff(values, 2, axis=1).flat]
    expected = distant[int(np.ceil(0.001 * len(distant))) - 1]
    assert contrast == expected
    bend = np.sort(np.abs(bends))[::-1][int(np.ceil(0.001 * len(bends))) - 1]
    assert sharpness == pytest.approx(min(1, bend / expected))


@pytest.mark.parametrize("size", [(1, 1), (4, 300), (97, 3)])
def test_edges_of_an_image_that_is_too_small_are_not_measured(size):
    assert edge_stats(Image.new("RGB", size)) == (255, 1)


def test_a_plain_frame_has_no_contrast():
    noise = np.random.default_rng(0).normal(120, 4, (300, 400, 3)).astype(np.uint8)
    assert edge_stats(shrink(Image.fromarray(noise)))[0] < 12
    assert edge_stats(shrink(Image.new("RGB", (300, 400), "grey"))) == (0, 1)


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
