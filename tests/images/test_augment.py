"""Views of a picture: values against interpolation written out, and what they must leave alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from headstart.errors import OptionError
from headstart.images.augment import AUGMENTATIONS, Augmentation, View, random_affine, views, warp


def picture(height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 60), st.integers(5, 60))
def test_a_warp_is_bilinear_interpolation_with_the_edge_repeated(seed, height, width):
    pixels, rng = picture(height, width, seed), np.random.default_rng(seed)
    way = random_affine(AUGMENTATIONS["lesson"], height, width, rng)
    rows, columns = np.mgrid[:height, :width]
    places = way @ np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)])
    expected = np.stack(
        [map_coordinates(pixels[..., c].astype(float), places[:2], order=1, mode="nearest") for c in range(3)], axis=1
    ).reshape(pixels.shape)
    assert np.abs(warp(pixels, way) - expected).max() <= 1.01  # Pillow rounds


def test_each_number_means_what_it_says():
    class Most:  # draws the far end of every range
        def uniform(self, low, high, size):
            return np.full(size, high, float)

    def of(**how):
        return random_affine(Augmentation(**how), 101, 201, Most())  # its centre is row 50, column 100

    np.testing.assert_allclose(of(), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(of(shift=0.2) @ [0, 0, 1], [20.2, 40.2, 1])
    np.testing.assert_allclose(of(zoom=0.2) @ [50, 110, 1], [50, 112, 1])
    np.testing.assert_allclose(of(rotation=90) @ [50, 110, 1], [40, 100, 1], atol=1e-9)
    np.testing.assert_allclose(of(shear=30) @ [50, 110, 1], [45, 100 + 10 * np.cos(np.pi / 6), 1])


def test_views_are_settled_by_picture_and_number_and_differ():
    pixels = picture()
    some = views("lesson", 5)
    assert [v.number for v in some] == [1, 2, 3, 4]
    first = [v(pixels, b"a") for v in some]
    assert all(np.array_equal(x, v(pixels, b"a")) for x, v in zip(first, some, strict=True))
    assert len({x.tobytes() for x in first}) == 4
    assert not np.array_equal(some[0](pixels, b"a"), some[0](pixels, b"b"))
    assert len({v.key for name in AUGMENTATIONS for v in views(name, 2)}) == 3
    assert all(x.shape == pixels.shape and x.dtype == np.uint8 for x in first)


def test_flip_is_the_mirror_image_and_nothing_else():
    pixels = picture()
    (mirrored,) = views("flip", 2)
    np.testing.assert_array_equal(mirrored(pixels, b"any"), pixels[:, ::-1])
    np.testing.assert_array_equal(View(Augmentation(), 3)(pixels, b"any"), pixels)


@pytest.mark.parametrize(("name", "count"), [("lesso", 2), ("flip", 3), ("light", 0), ("light", 1.5), ("light", 10**6)])
def test_views_that_mean_nothing_are_refused(name, count):
    with pytest.raises(OptionError):
        views(name, count)
