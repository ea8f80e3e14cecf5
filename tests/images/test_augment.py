"""Augmented views against plain interpolation, and their reproducibility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from headstart.errors import OptionError
from headstart.images.augment import AUGMENTATIONS, Augmentation, View, random_affine, views, warp


def random_image(height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 60), st.integers(5, 60))
def test_a_warp_is_bilinear_interpolation_with_the_edge_repeated(seed, height, width):
    pixels = random_image(height, width, seed)
    matrix = random_affine(AUGMENTATIONS["lesson"], height, width, np.random.default_rng(seed))
    rows, columns = np.mgrid[:height, :width]
    points = matrix @ np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)])
    expected = np.stack(
        [map_coordinates(pixels[..., c].astype(float), points[:2], order=1, mode="nearest") for c in range(3)], axis=1
    ).reshape(pixels.shape)
    assert np.abs(warp(pixels, matrix) - expected).max() <= 1.01  # Pillow rounds


def test_each_range_has_its_documented_meaning():
    class HighestDraw:  # draws the upper end of every range
        def uniform(self, low, high, size):
            return np.full(size, high, float)

    def largest(**ranges):
        return random_affine(Augmentation(**ranges), 101, 201, HighestDraw())  # the centre is row 50, column 100

    np.testing.assert_allclose(largest(), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(largest(shift=0.2) @ [0, 0, 1], [20.2, 40.2, 1])
    np.testing.assert_allclose(largest(zoom=0.2) @ [50, 110, 1], [50, 112, 1])
    np.testing.assert_allclose(largest(rotation=90) @ [50, 110, 1], [40, 100, 1], atol=1e-9)
    np.testing.assert_allclose(largest(shear=30) @ [50, 110, 1], [45, 100 + 10 * np.cos(np.pi / 6), 1])


def test_views_depend_on_the_image_and_the_number_alone():
    pixels = random_image()
    lesson = views("lesson", 5)
    assert [view.number for view in lesson] == [1, 2, 3, 4]
    images = [view(pixels, b"a") for view in lesson]
    assert all(np.array_equal(image, view(pixels, b"a")) for image, view in zip(images, lesson, strict=True))
    assert len({image.tobytes() for image in images}) == 4
    assert not np.array_equal(lesson[0](pixels, b"a"), lesson[0](pixels, b"b"))
    assert len({view.key for name in AUGMENTATIONS for view in views(name, 2)}) == 3
    assert all(image.shape == pixels.shape and image.dtype == np.uint8 for image in images)


def test_flip_is_the_mirror_image_and_nothing_else():
    pixels = random_image()
    (mirrored,) = views("flip", 2)
    np.testing.assert_array_equal(mirrored(pixels, b"any"), pixels[:, ::-1])
    np.testing.assert_array_equal(View(Augmentation(), 3)(pixels, b"any"), pixels)


@pytest.mark.parametrize(("name", "count"), [("lesso", 2), ("flip", 3), ("light", 0), ("light", 1.5), ("light", 10**6)])
def test_invalid_views_are_refused(name, count):
    with pytest.raises(OptionError):
        views(name, count)
