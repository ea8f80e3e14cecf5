"""Crop and resize in one step against Pillow's, step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import OptionError
from headstart.images.preprocess import Preprocess

RNG = np.random.default_rng(0)


def smooth_image(height, width):
    small = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def test_an_image_of_the_right_size_is_unchanged():
    image = smooth_image(64, 64)
    assert np.array_equal(Preprocess(64, 64, crop=1.0)(image), image)
    assert np.array_equal(Preprocess(64, 64, resize="squash", crop=1.0)(image), image)


@pytest.mark.parametrize("size", [(300, 300), (200, 500), (500, 200)])
def test_the_centre_is_cropped(size):
    image = smooth_image(*size)
    side = min(size) * 0.875
    box = ((size[1] - side) / 2, (size[0] - side) / 2, (size[1] + side) / 2, (size[0] + side) / 2)
    expected = Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(Preprocess(224, 224)(image), np.asarray(expected))


def test_squash_crops_nothing():
    image = smooth_image(100, 300)
    expected = Image.fromarray(image).resize((50, 50), Image.Resampling.BICUBIC)
    resized = Preprocess(50, 50, resize="squash", crop=1.0, interpolation="bicubic")(image)
    assert np.array_equal(resized, np.asarray(expected))


def test_the_result_is_close_to_a_resize_followed_by_a_crop():
    """Shorter side to 256, then the central 224: the evaluation transform of most networks."""
    image = smooth_image(480, 640)
    resized = Image.fromarray(image).resize((341, 256), Image.Resampling.BILINEAR)
    two_steps = np.asarray(resized)[16:240, 58:282]
    assert np.abs(Preprocess(224, 224)(image).astype(int) - two_steps).mean() < 1.5


def test_at_least_is_twice_the_cropped_size():
    assert Preprocess(160, 320, crop=0.8).min_size == (400, 800)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from(["shortest", "squash"]),
    st.floats(0.05, 1),
)
def test_any_image_gives_the_requested_size(h, w, height, width, resize, crop):
    uniform = np.full((h, w, 3), 77, np.uint8)
    pixels = Preprocess(height, width, resize, crop)(uniform)
    assert pixels.shape == (height, width, 3)
    assert (pixels == 77).all()


INVALID = [
    {"height": 0, "width": 5},
    {"height": 5, "width": -1},
    {"height": 10_000, "width": 5},
    {"height": 5.5, "width": 5},
    {"height": True, "width": 5},
    {"height": "5", "width": 5},
    {"crop": 0},
    {"crop": 1.01},
    {"crop": float("nan")},
    {"crop": True},
    {"crop": "half"},
    {"resize": "stretch"},
    {"interpolation": "magic"},
    {"unknown": 1},
]


@pytest.mark.parametrize("values", INVALID)
def test_invalid_values_are_refused(values):
    with pytest.raises(OptionError):
        Preprocess.from_dict({"height": 5, "width": 5} | values)


def test_height_and_width_are_required():
    with pytest.raises(OptionError):
        Preprocess.from_dict({"height": 5})


def test_the_dictionary_restores_the_preprocessing_and_any_change_gives_another_fingerprint():
    first = Preprocess(160, 192, "squash", 0.9, "bicubic")
    assert Preprocess.from_dict(first.to_dict()) == first
    others = [
        Preprocess(161, 192, "squash", 0.9, "bicubic"),
        Preprocess(160, 193, "squash", 0.9, "bicubic"),
        Preprocess(160, 192, "shortest", 0.9, "bicubic"),
        Preprocess(160, 192, "squash", 0.91, "bicubic"),
        Preprocess(160, 192, "squash", 0.9, "bilinear"),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert first.fingerprint == Preprocess(160, 192, "squash", 0.9, "bicubic").fingerprint


def test_a_crop_of_everything_stays_within_the_image():
    """For these sizes rounding puts the box of the crop 1e-14 outside."""
    sizes = [(h, w) for w in range(224, 400) for h in (w * 3 // 4, w * 4 // 3)]
    outside = [(h, w) for h, w in sizes if min(h, w) < 224 * (min(h, w) / 224)]
    assert outside
    for h, w in outside[:5]:
        assert Preprocess(224, 224, crop=1.0)(np.zeros((h, w, 3), np.uint8)).shape == (224, 224, 3)
