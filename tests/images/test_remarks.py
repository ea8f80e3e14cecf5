"""What is told of images with more bands than colours, or more bits than 8."""

import io
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from helpers.tiff import tiff
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

import headstart as hs
from headstart.errors import ImageError
from headstart.images.decoding import decode
from headstart.images.remarks import remarks, tiff_form

GREY, RGB = 1, 2
UNKNOWN, OPACITY = 0, 2


def bands(count, dtype=np.uint8, height=8):
    values = np.arange(height * 10 * count) % 251
    return values.reshape(height, 10, count).astype(dtype)


def encoded(array, kind="TIFF"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("count", [4, 5, 6])
def test_the_first_three_bands_are_used_and_it_is_said(count):
    data = tiff(bands(count), RGB, (UNKNOWN,) * (count - 3))
    np.testing.assert_array_equal(decode(data), bands(count)[:, :, :3])
    (remark,) = remarks(data, None)
    assert remark == (
        f"Images of {count} bands: {{count}}; the first three were used as red, green and blue, the others were not."
    )


@pytest.mark.parametrize("planar", [False, True])
def test_a_fourth_band_that_is_not_said_to_be_opacity_is_none(planar):
    """Of drones and satellites it is often infrared."""
    data = tiff(bands(4), RGB, planar=planar)
    np.testing.assert_array_equal(decode(data), bands(4)[:, :, :3])
    assert "Images of 4 bands" in remarks(data, None)[0]
    with_opacity = tiff(bands(4), RGB, (OPACITY,), planar=planar)
    white = Image.new("RGBA", (10, 8), (255, 255, 255, 255))
    expected = Image.alpha_composite(white, Image.fromarray(bands(4))).convert("RGB")
    np.testing.assert_array_equal(decode(with_opacity), np.asarray(expected))
    assert remarks(with_opacity, None) == []


def test_a_second_band_beside_grey_is_said_to_be_unused():
    data = tiff(bands(2), GREY, (UNKNOWN,))
    np.testing.assert_array_equal(decode(data), bands(2)[:, :, :1].repeat(3, axis=2))
    assert "the first was used as grey" in remarks(data, None)[0]


@pytest.mark.parametrize(
    ("pixels", "photometric", "planar", "words"),
    [
        (bands(8), GREY, False, "A TIFF of 8 bands of 8 bits, which cannot be read"),
        (bands(13, np.uint16), GREY, False, "A TIFF of 13 bands of 16 bits, which cannot be read"),
        (bands(4, np.uint16), RGB, True, "A TIFF of 4 bands of 16 bits"),
        (bands(5, np.float32), GREY, True, "A TIFF of 5 bands of floating point"),
        (bands(3, np.float32), RGB, False, "A TIFF of 3 bands of floating point"),
    ],
)
def test_a_tiff_of_bands_that_cannot_be_read_says_how_many_and_how_to_mend_it(pixels, photometric, planar, words):
    extra = (UNKNOWN,) * (pixels.shape[2] - (3 if photometric == RGB else 1))
    with pytest.raises(ImageError, match=rf"{words}.*write one or three of them as an image of 8 bits \(gdal"):
        decode(tiff(pixels, photometric, extra, planar=planar))


def test_deep_colour_and_deep_grey_are_said():
    assert remarks(tiff(bands(3, np.uint16), RGB), None)[0].startswith("Colour images of more than 8 bits a channel")
    png = bytearray(encoded(bands(1)[:, :, 0].astype(np.uint16), "PNG"))
    assert "65,535 was taken as white" in remarks(bytes(png), None)[0]
    assert remarks(bytes(png), (0, 4095)) == []  # scaled like the training images
    png[25] = 2  # the same header, of colour
    assert remarks(bytes(png), (0, 4095))[0].startswith("Colour images of more than 8 bits a channel")
    for plain in (encoded(bands(3)), encoded(bands(3), "PNG"), encoded(bands(3), "JPEG"), encoded(bands(4)), bands(3)):
        assert remarks(plain, None) == []


def pages(*kinds):
    """A TIFF of a page for each NewSubfileType: 0 a page, 1 a smaller copy, 4 a mask."""
    stream = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream, new=True) as writer:
        for kind in kinds:
            Image.fromarray(bands(1)[:, :, 0]).save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kinds", "is_said"), [((0, 0, 0), True), ((0,), False), ((0, 1, 1), False), ((0, 4), False), ((0, 1, 0), True)]
)
def test_pages_that_are_not_used_are_said(kinds, is_said):
    """Channels and slices of a microscope; a smaller copy of the image or a mask is no page."""
    found = remarks(pages(*kinds), None)
    said = ["TIFFs of several pages: {count}; the first page of each was used, the others were not."]
    assert found == (said if is_said else [])


def test_pages_in_a_circle_come_to_an_end():
    data = bytearray(pages(0, 1))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * count)
    (count,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * count, second)
    assert remarks(bytes(data), None) == []


def test_grey_of_many_bits_whose_0_is_white_is_said():
    """X-ray images; of 8 bits they are inverted, as they should be."""
    assert remarks(tiff(bands(1, np.uint16), 0), (0, 255))[0].startswith(
        "Grey images of more than 8 bits in which 0 is white"
    )
    assert remarks(tiff(bands(1), 0), None) == []
    np.testing.assert_array_equal(decode(tiff(bands(1), 0)), 255 - bands(1).repeat(3, axis=2))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.float64, "64 bits of floating point"),
        (np.float16, "16 bits of floating point"),
        (np.uint64, "64 bits a sample"),
    ],
)
def test_grey_of_bits_that_cannot_be_read_says_so(dtype, words):
    """NumPy's own type, in which scripts write TIFFs."""
    with pytest.raises(ImageError, match=f"A TIFF of {words}, which cannot be read; write it in 8 or 16 bits"):
        decode(tiff(bands(1, dtype), GREY))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_damaged_header_is_no_error(data, place):
    whole = tiff(bands(5), RGB, (UNKNOWN, UNKNOWN))
    remarks(b"II*\0" + data, None)
    damaged = whole[:place] + data + whole[place + len(data) :]
    form = tiff_form(damaged)
    assert form is None or isinstance(form.samples, int)


def test_a_header_of_many_long_tags_costs_nothing():
    entries = b"".join(struct.pack("<HHII", 1000 + i, 1, 100_000, 8) for i in range(60_000))
    hostile = b"II*\0" + struct.pack("<IH", 8, 60_000) + entries
    tracemalloc.start()
    assert tiff_form(hostile) is not None
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_headers_of_both_byte_orders_and_of_large_files():
    little = tiff(bands(5), RGB, (UNKNOWN, UNKNOWN))
    stream = io.BytesIO()
    Image.fromarray(bands(4)).save(stream, "TIFF", big_tiff=True)
    assert stream.getvalue()[:4] == b"II+\0"
    big = tiff_form(stream.getvalue())
    assert (big.samples, big.unused, big.bits) == (4, 0, 8)
    values = [(258, 3, 5, 62), (262, 3, 1, RGB << 16), (277, 3, 1, 5 << 16), (338, 3, 2, 0)]
    swapped = b"MM\0*" + struct.pack(">IH", 8, 4) + b"".join(struct.pack(">HHII", *value) for value in values)
    swapped += struct.pack(">I5H", 0, 8, 8, 8, 8, 8)
    assert tiff_form(swapped) == tiff_form(little)


def test_fit_and_predict_say_it_once_with_the_count(tmp_path):
    rng = np.random.default_rng(0)
    for name, high in (("dark", 90), ("bright", 250)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(high - 80, high, (40, 40, 5)).astype(np.uint8)
            (tmp_path / "d" / name / f"{i}.tif").write_bytes(tiff(pixels, RGB, (UNKNOWN, UNKNOWN)))
    bad = tmp_path / "d" / "dark" / "bad.tif"
    bad.write_bytes(tiff(bands(8), GREY, (UNKNOWN,) * 7))
    note = "Images of 5 bands: 12; the first three were used as red, green and blue, the others were not."
    result = hs.fit_dataset(hs.open_dataset(tmp_path / "d"), hs.FitOptions(group_by="none"))
    assert [text for text in result.notes if "bands" in text] == [note]
    assert result.left_out[0][1].startswith("A TIFF of 8 bands of 8 bits")
    again = hs.fit_dataset(hs.open_dataset(tmp_path / "d"), hs.FitOptions(group_by="none"))  # from the cache
    assert [text for text in again.notes if "bands" in text] == [note]
    model = result.save(tmp_path / "m")
    assert hs.load(model).predict_dataset(tmp_path / "d").notes == (note,)
    deep = tmp_path / "deep.tif"
    deep.write_bytes(encoded(np.full((20, 20), 60_000, np.uint16)))
    (asked,) = hs.load(model).predict_dataset([deep]).notes
    assert asked.startswith("Grey images of more than 8 bits: 1, for which no range was measured on the training")
    command = [sys.executable, "-m", "headstart", "predict", model, str(tmp_path / "d"), str(deep)]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 1
    assert completed.stderr.count("Images of 5 bands: 12") == 1
    assert completed.stderr.count("Grey images of more than 8 bits: 1") == 1
    assert "More samples per pixel" not in completed.stderr  # Pillow's own words
