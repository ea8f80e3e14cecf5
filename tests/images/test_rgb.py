"""Large images take the same path as small ones, in bounded memory."""

import io
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from headstart.errors import ImageError
from headstart.images import decoding, rgb
from headstart.images.decoding import decode

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (70, 53), np.uint8)
COLOUR = RNG.integers(0, 256, (70, 53, 4), np.uint8)
IMAGES = {
    "1": Image.fromarray(GREY).convert("1"),
    "L": Image.fromarray(GREY),
    "LA": Image.fromarray(COLOUR).convert("LA"),
    "P": Image.fromarray(COLOUR[..., :3]).convert("P"),
    "RGB": Image.fromarray(COLOUR[..., :3]),
    "RGBA": Image.fromarray(COLOUR),
    "CMYK": Image.fromarray(COLOUR[..., :3]).convert("CMYK"),
    "I;16": Image.fromarray(GREY.astype(np.uint16) * 250),
    "F": Image.fromarray(GREY.astype(np.float32) / 255),
}


def transparent_palette():
    image = IMAGES["P"].copy()
    image.info["transparency"] = int(np.asarray(image)[3, 4])
    return image


@pytest.mark.parametrize("factor", [1, 2, 8])
@pytest.mark.parametrize("mode", [*IMAGES, "transparent P"])
def test_strips_give_what_the_whole_image_gives(mode, factor, monkeypatch):
    image = transparent_palette() if mode == "transparent P" else IMAGES[mode]
    monkeypatch.setattr(rgb, "STRIP_PIXELS", 10**9)
    whole = rgb.rgb_pixels(image)
    monkeypatch.setattr(rgb, "STRIP_PIXELS", 53 * 9)  # strips of 9 or 8 rows, and a shorter one at the end
    expected = Image.fromarray(whole).reduce(factor) if factor > 1 else whole
    np.testing.assert_array_equal(rgb.rgb_pixels(image, factor=factor), np.asarray(expected))


def test_an_infinite_sample_of_a_later_strip_is_refused(monkeypatch):
    values = np.zeros((70, 53), np.float32)
    values[69, 52] = np.inf
    monkeypatch.setattr(rgb, "STRIP_PIXELS", 53 * 9)
    with pytest.raises(ImageError, match="NaN or infinite"):
        rgb.rgb_pixels(Image.fromarray(values))


def test_the_range_of_an_image_is_that_of_all_its_strips(monkeypatch):
    values = np.zeros((70, 53), np.float32)
    values[0, 0], values[69, 52] = -1, 3
    monkeypatch.setattr(rgb, "STRIP_PIXELS", 53 * 9)
    pixels = rgb.rgb_pixels(Image.fromarray(values))
    assert [int(pixels[0, 0, 0]), int(pixels[1, 1, 0]), int(pixels[69, 52, 0])] == [0, 64, 255]


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def test_only_a_large_image_is_reduced_where_that_is_allowed(monkeypatch):
    data = png(IMAGES["RGB"])
    assert decode(data, min_size=(8, 8)).shape == (70, 53, 3)
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 70 * 53 - 1)
    assert decode(data).shape == (70, 53, 3)
    np.testing.assert_array_equal(decode(data, min_size=(16, 13)), np.asarray(IMAGES["RGB"].reduce(4)))


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 1000)
    inside, most = [], []

    def slow(image, *arguments):
        inside.append(image)
        most.append(len(inside))
        threading.Event().wait(0.05)
        inside.pop()
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(decoding, "rgb_pixels", slow)
    threads = [threading.Thread(target=decode, args=(png(IMAGES["RGB"]),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_jpeg_of_thousands_of_scans_is_refused():
    stream = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(GREY, 20, 0), 20, 1)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    assert decode(data).shape == (1400, 1060, 3)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"A JPEG of 2,0\d\d scans, where about ten are usual"):
        decode(data[:-2] + scan * 2000 + data[-2:])


MEMORY = """
import resource, sys
from headstart.images.decoding import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(decode(data, min_size=(160, 160)).shape)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["P", "I;16", "RGBA"])
def test_memory_for_nearly_a_hundred_million_pixels(mode):
    grey = np.zeros((9000, 9900), np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(grey)
    if mode != "I;16":
        image = image.convert(mode)
    result = subprocess.run([sys.executable, "-c", MEMORY], input=png(image), stdout=subprocess.PIPE, check=True)
    shape, megabytes = result.stdout.decode().splitlines()
    assert shape == "(1125, 1238, 3)"
    assert int(megabytes) < 600


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n2 2\n4095\n" + bytes(8),
        b"P2\n2 2\n255\n0 0 0 0",
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 58)
        + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 8, 1, 4, 0, 0, 1, 0)
        + b"\0\0\0\0"
        + b"\2\0\0\0\2\0\0\1",
    ],
)
def test_a_large_image_of_a_form_that_is_decoded_slowly_is_refused(data, monkeypatch):
    assert decode(data).shape == (2, 2, 3)
    monkeypatch.setattr(decoding, "MAX_PIXELS_SLOW", 3)
    with pytest.raises(ImageError, match=r"decoded slowly .* more than the limit of 3; save it as PNG"):
        decode(data)
