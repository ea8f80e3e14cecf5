"""Images in memory: PIL images and arrays of several kinds."""

import io

import numpy as np
import pytest
from PIL import Image

from headstart.data import as_dataset, from_images
from headstart.errors import DataError, ImageError
from headstart.images.arrays import float_scale, to_pixels
from headstart.images.decoding import decode

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
GREY = RGB[:, :, 0]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (GREY, np.stack([GREY] * 3, axis=2)),
        (GREY[:, :, None], np.stack([GREY] * 3, axis=2)),
        (np.dstack([RGB, np.full((5, 7), 255, np.uint8)]), RGB),
        (np.dstack([RGB, np.zeros((5, 7), np.uint8)]), np.full_like(RGB, 255)),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=2)),
        (RGB.astype(np.float32), RGB),
        (RGB / 255.0, RGB),
        ((GREY / 255).astype(np.float16), np.stack([GREY] * 3, axis=2)),
    ],
)
def test_every_form_gives_the_same_pixels(image, expected):
    pixels = from_images([image]).read(0)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "I;16", "1"])
def test_a_pil_image_is_decoded_like_its_file(mode):
    image = Image.fromarray(GREY.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF")
    np.testing.assert_array_equal(to_pixels(Image.open(io.BytesIO(stream.getvalue()))), decode(stream.getvalue()))


def test_the_orientation_of_a_pil_image_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG", exif=exif)
    assert to_pixels(Image.open(stream)).shape == (7, 5, 3)


def test_floats_are_scaled_by_all_arrays_of_a_call_together():
    dark, bright = np.full((2, 2), 0.5), np.full((2, 2), 200.0)
    assert float_scale([dark]) == 255
    assert float_scale([dark, bright, RGB, "a.jpg"]) == 1
    dataset = from_images([dark, bright])
    assert dataset.read(0).max() == 0  # 0.5 of 255
    assert from_images([dark]).read(0).max() == 128
    for array in (np.full((2, 2), 1.5), np.full((2, 2), -0.1), np.full((2, 2), 300.0), np.full((2, 2), np.nan)):
        with pytest.raises(DataError, match="expected 0 to 1, or 0 to 255"):
            from_images([array])


@pytest.mark.parametrize(
    "image", [RGB.astype(np.int32), RGB[None], RGB.transpose(2, 0, 1), RGB[:0], np.zeros((4, 4, 2), np.uint8), 7, None]
)
def test_what_is_not_an_image_is_refused_when_read(image):
    with pytest.raises(ImageError, match="is not an image"):
        from_images([image]).read(0)
    if isinstance(image, np.ndarray) and image.shape[0] == 3:
        with pytest.raises(ImageError, match="channels come last"):
            from_images([image]).read(0)


@pytest.mark.parametrize("image", [RGB, GREY, Image.fromarray(RGB), b"bytes", np.float32(1)])
def test_a_single_image_is_refused_with_the_way_to_mend_it(image):
    with pytest.raises(DataError, match="Expected a list of images"):
        as_dataset(image)


def test_an_array_of_several_images_is_a_list_of_them():
    batch = np.stack([RGB, RGB[::-1]])
    np.testing.assert_array_equal(as_dataset(batch).read(1), RGB[::-1])
    assert len(as_dataset(np.stack([GREY, GREY, GREY]))) == 3
