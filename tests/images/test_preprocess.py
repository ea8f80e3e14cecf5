"""One resize and crop, the same everywhere, against Pillow step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import OptionError
from headstart.images.preprocess import Preprocess

RNG = np.random.default_rng(0)


def smooth(height, width):
    small = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def test_a_picture_of_the_right_size_stays_as_it_is():
    image = smooth(64, 64)
    assert np.array_equal(Preprocess(64, 64, crop=1.0)(image), image)
    assert np.array_equal(Preprocess(64, 64, resize="squash", crop=1.0)(image), image)


@pytest.mark.parametrize("size", [(300, 300), (200, 500), (500, 200)])
def test_the_middle_is_cropped(size):
    image = smooth(*size)
    side = min(size) * 0.875
    box = ((size[1] - side) / 2, (size[0] - side) / 2, (size[1] + side) / 2, (size[0] + side) / 2)
    expected = Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(Preprocess(224, 224)(image), np.asarray(expected))


def test_squash_keeps_everything():
    image = smooth(100, 300)
    expected = Image.fromarray(image).resize((50, 50), Image.Resampling.BICUBIC)
    got = Preprocess(50, 50, resize="squash", crop=1.0, interpolation="bicubic")(image)
    assert np.array_equal(got, np.asarray(expected))


def test_it_is_near_the_usual_resize_then_crop():
    """Shorter side to 256, then the middle 224: what most networks were trained with."""
    image = smooth(480, 640)
    resized = Image.fromarray(image).resize((341, 256), Image.Resampling.BILINEAR)
    usual = np.asarray(resized)[16:240, 58:282]
    assert np.abs(Preprocess(224, 224)(image).astype(int) - usual).mean() < 1.5


def test_at_least_asks_for_twice_what_is_shown():
    assert Preprocess(160, 320, crop=0.8).at_least == (400, 800)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 200), st.integers(1, 200), st.integers(1, 64), st.integers(1, 64),
    st.sampled_from(["shortest", "squash"]), st.floats(0.05, 1),
)  # fmt: skip
def test_any_picture_gives_the_size_asked_for(h, w, height, width, resize, crop):
    even = np.full((h, w, 3), 77, np.uint8)
    got = Preprocess(height, width, resize, crop)(even)
    assert got.shape == (height, width, 3)
    assert (got == 77).all()


BAD = [
    {"height": 0, "width": 5}, {"height": 5, "width": -1}, {"height": 10_000, "width": 5}, {"height": 5.5, "width": 5},
    {"height": True, "width": 5}, {"height": "5", "width": 5}, {"crop": 0}, {"crop": 1.01}, {"crop": float("nan")},
    {"crop": True}, {"crop": "half"}, {"resize": "stretch"}, {"interpolation": "magic"}, {"unknown": 1},
]  # fmt: skip


@pytest.mark.parametrize("values", BAD)
def test_values_that_mean_nothing_are_refused(values):
    with pytest.raises(OptionError):
        Preprocess.from_dict({"height": 5, "width": 5} | values)


def test_height_and_width_are_needed():
    with pytest.raises(OptionError):
        Preprocess.from_dict({"height": 5})


def test_dictionary_and_fingerprint():
    first = Preprocess(160, 192, "squash", 0.9, "bicubic")
    assert Preprocess.from_dict(first.to_dict()) == first
    others = [
        Preprocess(161, 192, "squash", 0.9, "bicubic"), Preprocess(160, 193, "squash", 0.9, "bicubic"),
        Preprocess(160, 192, "shortest", 0.9, "bicubic"), Preprocess(160, 192, "squash", 0.91, "bicubic"),
        Preprocess(160, 192, "squash", 0.9, "bilinear"),
    ]  # fmt: skip
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert first.fingerprint == Preprocess(160, 192, "squash", 0.9, "bicubic").fingerprint
