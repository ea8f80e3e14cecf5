"""One range of sample values for all images of more than 8 bits."""

import io

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.errors import DataError, ImageError, OptionError
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.images.samples import measure_sample_range


def encoded(array, kind="TIFF"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def ramp(high, dtype):
    """An image [32, 32] of values from 0 to ``high``."""
    return np.linspace(0, high, 1024).astype(dtype).reshape(32, 32)


@pytest.mark.parametrize(
    ("highs", "dtype", "kind", "expected"),
    [
        ([4080, 1000], np.uint16, "TIFF", (0, 4095)),
        ([4080], np.uint16, "PNG", (0, 4095)),
        ([200], np.uint16, "TIFF", (0, 255)),
        ([60_000, 100], np.uint16, "TIFF", (0, 65535)),
        ([1.0, 0.2], np.float32, "TIFF", (0, 1)),
        ([250.0], np.float32, "TIFF", (0, 255)),
        ([0.2], np.float32, "TIFF", (0, 1)),
    ],
)
def test_the_range_is_that_of_all_images_together(highs, dtype, kind, expected):
    files = [encoded(ramp(high, dtype), kind) for high in highs] + [encoded(np.zeros((4, 4), np.uint8), "PNG")]
    suffix = {"TIFF": "tif", "PNG": "png"}[kind]
    paths = [*(f"{i}.{suffix}" for i in range(len(highs))), "plain.png"]
    assert measure_sample_range(paths, files.__getitem__) == (expected, len(highs))


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.3), (0.0, 10.0), (0.0, 0.02), (0.0, 300.0), (0.0, 65_535.0), (-1.0, 1.0), (280.0, 310.0)]
)
def test_floating_point_in_no_usual_range_is_scaled_by_that_of_all_images(low, high):
    """Never nearly black, nor nearly white; one image of half the brightness stays so."""
    whole = ramp(1, np.float32) * (high - low) + low
    half = ramp(1, np.float32) * (high - low) / 2 + low
    files = [encoded(whole.astype(np.float32)), encoded(half.astype(np.float32))]
    found, count = measure_sample_range(["a.tif", "b.tif"], files.__getitem__)
    assert count == 2
    assert found == pytest.approx((low, high), abs=(high - low) / 500)
    assert decode(files[0], sample_range=found).mean() == pytest.approx(127.5, abs=1)
    assert decode(files[1], sample_range=found).mean() == pytest.approx(63.75, abs=1)
    assert decode(files[0]).mean() == pytest.approx(127.5, abs=1)  # by itself, where no training image has such values


@pytest.mark.parametrize("value", [0.0, -5.0, 7.0])
def test_images_of_one_value_give_a_range_that_can_be_used(value):
    (black, white), _ = measure_sample_range(["a.tif"], lambda _: encoded(np.full((8, 8), value, np.float32)))
    assert black < white


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_with_nan_or_infinity_are_not_measured_and_refused(bad):
    image = ramp(1, np.float32)
    damaged = image.copy()
    damaged[0] = bad
    damaged[1] = 500
    files = [encoded(image), encoded(damaged), encoded(np.full((4, 4), bad, np.float32))]
    assert measure_sample_range(["a.tif", "b.tif", "c.tif"], files.__getitem__) == ((0, 1), 1)
    assert measure_sample_range(["c.tif"], lambda _: files[2]) == (None, 0)
    with pytest.raises(ImageError, match="NaN or infinite; fill them"):
        decode(files[1])


def test_whole_numbers_and_floating_point_of_other_ranges_are_an_error():
    files = [encoded(ramp(4000, np.uint16)), encoded(ramp(1, np.float32))]
    with pytest.raises(DataError, match="1 training images are floating point from 0 to 1, 1 whole numbers"):
        measure_sample_range(["a.tif", "b.tif"], files.__getitem__)


def test_a_few_hot_pixels_do_not_darken_the_rest():
    image = ramp(1000, np.uint16)
    image[3, 3] = 65_535
    (_, white), _ = measure_sample_range(["a.tif"], lambda _: encoded(image))
    assert white == 1023


def test_where_no_image_has_more_than_8_bits_there_is_no_range():
    files = [encoded(np.zeros((4, 4, 3), np.uint8), kind) for kind in ("TIFF", "PNG")] + [b"", b"II*\0broken"]
    assert measure_sample_range(["a.tif", "b.png", "c.tif", "d.tif", "e.jpg"], [*files, b""].__getitem__) == (None, 0)


def test_values_are_scaled_and_clipped_by_the_range():
    image = np.array([[0, 1024, 2048, 4095, 60_000]], np.uint16)
    expected = [0, round(1024 / 4095 * 255), round(2048 / 4095 * 255), 255, 255]
    assert decode(encoded(image), sample_range=(0, 4095))[0, :, 0].tolist() == expected
    assert decode(encoded(image), sample_range=None)[0, :, 0].tolist() == [0, 4, 8, 16, 233]
    plain = np.full((1, 2, 3), 100, np.uint8)
    np.testing.assert_array_equal(decode(encoded(plain), sample_range=(0, 4095)), plain)


@pytest.mark.parametrize("value", [(1.0, 0.0), (0.0,), (0.0, float("inf")), (False, True), "ab", [0, [1]]])
def test_a_range_that_cannot_be_used_is_an_error(value):
    with pytest.raises(OptionError, match="Sample range"):
        Preprocess.from_dict({"height": 8, "width": 8, "sample_range": value})
    assert "sample_range" not in Preprocess(8, 8).to_dict()


def test_a_model_of_12_bit_images_sees_them_bright_and_says_so(tmp_path):
    """The same in fit and in prediction: a dark image stays dark, and no image is scaled by its own range."""
    rng = np.random.default_rng(0)
    for name, low, high in (("dark", 0, 1500), ("bright", 2000, 4090)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(8):
            array = rng.integers(low, high, (48, 48)).astype(np.uint16)
            Image.fromarray(array).save(tmp_path / "d" / name / f"{i}.tif")
    result = hs.fit_dataset(hs.open_dataset(tmp_path / "d"), hs.FitOptions(cache=False, group_by="none"))
    assert result.model.preprocess.sample_range == (0, 4095)
    assert any("16 training images have more than 8 bits" in note for note in result.notes)
    assert result.accuracy["leave_group_out"].value == 1
    folder = result.save(tmp_path / "m")
    predictor = hs.Predictor.load(folder)
    assert predictor.model.preprocess.sample_range == (0, 4095)
    image = tmp_path / "d" / "dark" / "0.tif"
    assert predictor.predict([image]).predicted.tolist() == [list(predictor.model.classes).index("dark")]
