"""Every image format gives the right pixels; everything else gives one clear error."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from headstart.errors import ImageError
from headstart.images import decoding as module
from headstart.images.decoding import JXL_SIGNATURES, ORIENTATION, decode, decode_with_size, is_image_name

COLOURS = np.array([[[200, 30, 40], [20, 180, 60]], [[30, 60, 210], [240, 240, 90]]], np.uint8)


def blocks(height=64, width=96):
    """Four uniform quarters, which lossy formats change by a few levels only."""
    return COLOURS.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def assert_close(pixels, expected, levels):
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    difference = np.abs(pixels.astype(int) - expected)[8:24, 8:40]  # away from the edges between colours
    assert difference.max() <= levels


@pytest.mark.parametrize(
    ("kind", "options", "levels"),
    [
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 8),
        ("GIF", {}, 4),
        ("AVIF", {"quality": 95}, 6),
        ("PPM", {}, 0),
        ("JPEG2000", {"irreversible": False}, 0),
    ],
)
def test_formats(kind, options, levels):
    needed = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    if needed is not None and not features.check(needed):
        pytest.skip(f"this Pillow has no {kind}")
    assert_close(decode(encode(Image.fromarray(blocks()), kind, **options)), blocks(), levels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_modes(mode):
    grey = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(64, axis=0)
    if mode == "I;16":
        image, expected = Image.fromarray(grey.astype(np.uint16) * 257), grey[..., None].repeat(3, axis=2)
    elif mode == "1":
        image = Image.fromarray(grey > 127)
        expected = np.where(grey > 127, 255, 0)[..., None].repeat(3, axis=2)
    else:
        image = Image.fromarray(blocks(64, 64)).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encode(image, "PNG")), expected)


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encode(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_tiff_of_floating_point_and_of_nan():
    grey = encode(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF")
    assert decode(grey)[0, :, 1].tolist() == [0, 128, 255]
    with pytest.raises(ImageError, match="NaN or infinite"):
        decode(encode(Image.fromarray(np.array([[np.nan, 1.0]], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_is_decoded(kind):
    first, second = Image.fromarray(blocks()), Image.fromarray(255 - blocks())
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert_close(decode(data), blocks(), 4)


def test_transparent_pixels_are_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (255, 0, 0, 0)
    rgba[1, 2] = (0, 0, 0, 51)
    for kind in ("PNG", "TIFF", "WEBP"):
        pixels = decode(encode(Image.fromarray(rgba), kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert pixels[0, 0].tolist() == [255, 0, 0]
        assert pixels[0, 1].tolist() == [255, 255, 255]
        assert pixels[1, 2].tolist() == [204, 204, 204]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    pixels = decode(encode(palette, "PNG", transparency=1))
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_and_adobe_inverted_jpeg():
    cmyk = Image.fromarray(blocks()).convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data  # Pillow writes inverted inks, as Photoshop does
    assert_close(decode(data), np.asarray(cmyk.convert("RGB")), 6)
    plain = data.replace(b"Adobe", b"adobe")  # without the marker the inks are not inverted
    inverted = np.asarray(Image.fromarray(255 - np.asarray(cmyk), "CMYK").convert("RGB"))
    assert_close(decode(plain), inverted, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_as_pillow_does(orientation, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(Image.fromarray(blocks()), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    pixels = decode(data)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 3


def test_icc_profiles_are_ignored():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile = encode(Image.fromarray(blocks()), "PNG", icc_profile=profile)
    assert np.array_equal(decode(with_profile), blocks())


@pytest.mark.parametrize("size", [(1600, 1200), (1601, 1203), (333, 777)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_decode_is_large_enough_and_like_a_full_one_reduced(size, orientation):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(smooth, "JPEG", quality=95, exif=exif)
    full = decode(data)
    for min_size in ((100, 100), (320, 280), (700, 90), (5000, 5000)):
        small, stored_size = decode_with_size(data, min_size=min_size)
        assert stored_size == size[::-1]  # neither reduced nor rotated
        height, width = full.shape[:2]
        factor = round(height / small.shape[0])
        assert factor in (1, 2, 4, 8)
        assert small.shape[:2] == (-(-height // factor), -(-width // factor))
        if factor > 1:
            assert small.shape[0] >= min_size[0]
            assert small.shape[1] >= min_size[1]
        if factor < 8:  # one more halving would have been too small
            halved = (-(-height // (2 * factor)), -(-width // (2 * factor)))
            assert halved[0] < min_size[0] or halved[1] < min_size[1]
        reduced = np.asarray(Image.fromarray(full).resize(small.shape[1::-1], Image.Resampling.BOX))
        assert np.abs(small.astype(int) - reduced).mean() < 4  # the last eighth may be partial


def test_a_reduced_decode_of_cmyk():
    cmyk = Image.fromarray(blocks(800, 1200)).convert("CMYK")
    pixels, stored_size = decode_with_size(encode(cmyk, "JPEG"), min_size=(150, 150))
    assert pixels.shape == (200, 300, 3)
    assert stored_size == (800, 1200)


def test_arrays_are_returned_unchanged():
    pixels, stored_size = decode_with_size(blocks(), min_size=(1, 1))
    assert pixels is not None
    assert np.array_equal(pixels, blocks())
    assert stored_size == blocks().shape[:2]


def test_stray_bytes_between_segments_damage_nothing():
    data = encode(Image.fromarray(blocks()), "JPEG", quality=95)
    stray = data[:2] + b"\x00\x11\x22" + data[2:]
    try:
        assert_close(decode(stray), blocks(), 4)
    except ImageError:
        assert_close(decode(data + b"\x00" * 9), blocks(), 4)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


JPEG = encode(Image.fromarray(blocks()), "JPEG")
PNG = encode(Image.fromarray(blocks()), "PNG")
UNREADABLE = {
    "empty": b"",
    "one byte": b"\xff",
    "text": b"hello",
    "html": b"<!doctype html><h1>404</h1>",
    "zeros": b"\0" * 999,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "pdf": b"%PDF-1.4 ...",
    "jpeg marker": b"\xff\xd8",
    "jpeg cut in half": JPEG[: len(JPEG) // 2],
    "jpeg cut at its end": JPEG[:-40],
    "jpeg header": JPEG[:100],
    "png cut in half": PNG[: len(PNG) // 2],
    "png header": PNG[:33],
    "png bomb": png_header(60_000, 60_000),
    "png of no width": png_header(0, 10),
    "png without data": png_header(50, 50),
    "gif header": b"GIF89a\1\0\1\0",
    "bmp header": b"BM" + b"\0" * 30,
    "tiff header": b"II*\0\x08\0\0\0",
    "webp header": b"RIFF\x10\0\0\0WEBPVP8 ",
    "eps is not supported": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "psd is not supported": b"8BPS\0\1" + b"\0" * 40,
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_give_an_error_of_one_line(name):
    with pytest.raises(ImageError) as error_info:
        decode(UNREADABLE[name])
    assert "\n" not in str(error_info.value)
    assert str(error_info.value).endswith((".", "expected an image."))


def test_limits(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(ImageError, match="more than the limit"):
        decode(PNG)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="bytes, more than the limit"):
        decode(JPEG)


SEEDS = [JPEG, PNG] + [encode(Image.fromarray(blocks(16, 16)), kind) for kind in ("GIF", "BMP", "TIFF", "WEBP")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
)
def test_damaged_files_give_pixels_or_an_image_error(data, changes, share):
    damaged = bytearray(data[: max(1, int(len(data) * min(1, 2 * share)))])
    for offset, value in changes:
        damaged[offset % len(damaged)] = value
    try:
        pixels = decode(bytes(damaged), min_size=(8, 8))
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data):
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "DICOM"),
        (b"\n <!DOCTYPE html><title>404</title>", "HTML"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
    ],
)
def test_formats_that_people_bring_are_refused_by_their_names(data, name):
    with pytest.raises(ImageError, match=name):
        decode(data)


def test_samples_of_a_pgm_are_scaled_by_the_white_that_it_declares():
    header, samples = b"P5\n4 1\n4095\n", np.array([0, 1024, 2048, 4095], ">u2").tobytes()
    assert decode(header + samples)[0, :, 0].tolist() == [0, 64, 128, 255]


def test_image_names():
    assert is_image_name("a/b.JPG")
    assert is_image_name("x.jpeg")
    assert not is_image_name("x.txt")
    assert not is_image_name("jpg")


def heic(pixels, **options):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif (extra heic)")
    stream = io.BytesIO()
    image = pillow_heif.from_pillow(Image.fromarray(pixels))
    image.save(stream, quality=90, **options)
    return stream.getvalue()


def test_a_heic_image_is_decoded():
    pixels = blocks()
    data = heic(pixels)
    decoded, size = decode_with_size(data)
    assert size == decoded.shape[:2] == pixels.shape[:2]
    assert np.abs(decoded.astype(int) - pixels).mean() < 4
    with pytest.raises(ImageError, match="Damaged or cut off"):
        decode(data[: len(data) // 2])


def test_a_heic_image_without_the_extra_names_it(monkeypatch):
    data = heic(blocks())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"A HEIC image, which needs pillow-heif; run: .*headstart\[heic\]"):
        decode(data)


def test_a_heic_image_of_too_many_pixels_is_refused(monkeypatch):
    data = heic(blocks())
    monkeypatch.setattr("headstart.images.decoding.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="more than the limit of 100"):
        decode(data)


def jxl(pixels, **options):
    pylibjxl = pytest.importorskip("pylibjxl", reason="needs pylibjxl (extra jxl)")
    return pylibjxl.encode(pixels, **{"lossless": True, **options})


def test_a_jpeg_xl_image_is_decoded():
    decoded, size = decode_with_size(jxl(blocks()))
    assert np.array_equal(decoded, blocks())
    assert size == blocks().shape[:2]
    grey = blocks()[:, :, 0].copy()
    assert np.array_equal(decode(jxl(grey)), grey[..., None].repeat(3, axis=2))
    transparent = np.zeros((2, 3, 4), np.uint8)
    transparent[0] = (255, 0, 0, 255)
    assert decode(jxl(transparent))[:, 0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_a_jpeg_that_was_recompressed_as_jpeg_xl_is_turned_upright():
    pylibjxl = pytest.importorskip("pylibjxl", reason="needs pylibjxl (extra jxl)")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(Image.fromarray(blocks()), "JPEG", quality=95, exif=exif)
    decoded, size = decode_with_size(pylibjxl.jpeg_to_jxl(data))
    assert size == decoded.shape[:2]
    assert_close(decoded, decode(data), 6)


def test_a_jpeg_xl_image_that_is_damaged_or_too_large_is_refused(monkeypatch):
    data = jxl(blocks())
    with pytest.raises(ImageError, match="Damaged or cut off"):
        decode(data[: len(data) // 2])
    with pytest.raises(ImageError, match="Damaged or cut off"):
        decode(data[:5])
    monkeypatch.setattr("headstart.images.decoding.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="more than the limit of 100"):
        decode(data)


@pytest.mark.parametrize("signature", JXL_SIGNATURES)
def test_a_jpeg_xl_image_without_the_extra_names_it(monkeypatch, signature):
    monkeypatch.setitem(sys.modules, "pylibjxl", None)
    with pytest.raises(ImageError, match=r"A JPEG XL image, which needs pylibjxl; run: .*headstart\[jxl\]"):
        decode(signature + bytes(40))


def test_a_caller_may_allow_fewer_pixels_than_the_limit_of_decoded_ones():
    large = encode(Image.new("RGB", (600, 400)), "PNG")
    assert decode_with_size(large, max_pixels=240_000)[1] == (400, 600)
    with pytest.raises(ImageError, match=r"600 x 400 is 240,000 pixels, more than the limit of 239,999"):
        decode_with_size(large, max_pixels=239_999)
    jpeg = encode(Image.new("RGB", (600, 400)), "JPEG")
    pixels, size = decode_with_size(jpeg, min_size=(100, 100), max_pixels=240_000 // 16)  # after it was reduced
    assert (pixels.shape, size) == ((100, 150, 3), (400, 600))
    with pytest.raises(ImageError):
        decode_with_size(jpeg, min_size=(101, 101), max_pixels=240_000 // 16)
