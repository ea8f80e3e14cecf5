"""``headstart.preprocess``, and the file of it in a model folder, give exactly the pixels of Headstart."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.images.decoding import decode
from headstart.images.preprocess import Preprocess
from headstart.images.snippet import SNIPPET_FILE, preprocess_source

SETTINGS = [
    Preprocess(224, 224),
    Preprocess(160, 120, "squash", 1.0, "bicubic"),
    Preprocess(96, 160, crop=0.9, decode="full"),
]


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def with_exif(image, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, quality=90, **options)


def photograph(width, height, seed=0):
    """Smooth colours, edges and noise, like a photograph of this size."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(small, np.int16) + rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def variants(image):
    """One photograph as files of every form that people bring."""
    grey, rgba = image.convert("L"), image.convert("RGBA")
    rgba.putalpha(grey)
    deep = Image.fromarray((np.asarray(grey, np.uint16) << 8) | 7)
    floats = Image.fromarray(np.asarray(grey, np.float32) / 255)
    files = {f"EXIF {orientation}": with_exif(image, orientation) for orientation in range(1, 9)}
    return files | {
        "progressive": encoded(image, "JPEG", progressive=True, quality=80),
        "4:4:4": encoded(image, "JPEG", subsampling=0),
        "grey JPEG": encoded(grey, "JPEG"),
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "PNG": encoded(image, "PNG"),
        "grey and alpha": encoded(rgba.convert("LA"), "PNG"),
        "alpha": encoded(rgba, "PNG"),
        "palette": encoded(image.quantize(64), "PNG"),
        "transparent palette": encoded(image.quantize(64), "PNG", transparency=3),
        "transparent grey": encoded(grey, "PNG", transparency=100),
        "transparent 16 bits": encoded(deep, "PNG", transparency=int(np.asarray(deep)[0, 0])),
        "1 bit": encoded(grey.convert("1"), "PNG"),
        "16 bits": encoded(deep, "PNG"),
        "16-bit TIFF": encoded(deep, "TIFF"),
        "float TIFF": encoded(floats, "TIFF"),
        "float TIFF, below 0": encoded(Image.fromarray(np.asarray(floats) - 0.5), "TIFF"),
        "RGBA TIFF": encoded(rgba, "TIFF"),
        "turned TIFF": encoded(image, "TIFF", tiffinfo={0x0112: 6}),
        "CMYK TIFF": encoded(image.convert("CMYK"), "TIFF"),
        "WebP": encoded(rgba, "WEBP"),
        "GIF": encoded(image.quantize(32), "GIF"),
        "MPO": encoded(image, "MPO", save_all=True, append_images=[image]),
        "BMP": encoded(image, "BMP"),
    }


def ours(data, preprocess):
    size, samples = preprocess.min_size, preprocess.sample_range
    return preprocess(decode(data, min_size=size, sample_range=samples, scaled=preprocess.is_scaled))


def check(data, name, settings=SETTINGS):
    for preprocess in settings:
        expected = ours(data, preprocess)
        np.testing.assert_array_equal(
            hs.preprocess(io.BytesIO(data), **preprocess.to_dict()), expected, err_msg=f"{name}, {preprocess}"
        )


@pytest.mark.parametrize("size", [(640, 480), (97, 331), (5, 3), (1, 1), (2000, 1301)])
def test_files_of_every_form_give_the_same_pixels(size):
    for name, data in variants(photograph(*size)).items():
        check(data, name)


def test_the_range_of_deep_images_counts():
    deep = Image.fromarray(np.arange(300 * 200, dtype=np.uint16).reshape(200, 300))
    check(encoded(deep, "PNG"), "range", [Preprocess(64, 64, sample_range=(100.0, 4095.0))])


def test_images_of_many_pixels_are_reduced_alike():
    image = photograph(5001, 3333)
    for name, data in {"JPEG": with_exif(image, 6), "PNG": encoded(image, "PNG", compress_level=1)}.items():
        check(data, name)


def test_full_decoding_reads_every_pixel_of_a_jpeg():
    data = with_exif(photograph(2000, 1500), 1)
    full = Preprocess(224, 224, decode="full")
    np.testing.assert_array_equal(ours(data, full), full(decode(data)))
    assert (ours(data, Preprocess(224, 224)) != full(decode(data))).any()
    assert full.fingerprint != Preprocess(224, 224).fingerprint
    assert Preprocess.from_dict(full.to_dict()) == full
    assert "decode" not in Preprocess(224, 224).to_dict()
    with pytest.raises(hs.HeadstartError, match="Decoding 'half' is unknown"):
        Preprocess(224, 224, decode="half")


def test_the_file_of_a_model_has_the_numbers_of_the_model(tmp_path):
    data = with_exif(photograph(700, 400), 6)
    for preprocess in (*SETTINGS, Preprocess(33, 44, sample_range=(0.0, 4095.0))):
        source = preprocess_source(preprocess)
        names: dict[str, object] = {}
        exec(compile(source, SNIPPET_FILE, "exec"), names)
        np.testing.assert_array_equal(names["preprocess"](io.BytesIO(data)), ours(data, preprocess))
        assert {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))} == {
            *("__future__", "os", "typing", "numpy", "PIL")
        }


@pytest.mark.slow
def test_real_photographs_give_the_same_pixels(shared):
    paths = sorted((shared / "data").rglob("*.jpg")) + sorted((shared / "data").rglob("*.png"))
    assert len(paths) > 1000
    for path in paths[:: len(paths) // 25]:
        data = Path(path).read_bytes()
        check(data, path)
        for name, variant in variants(Image.open(path).convert("RGB")).items():
            check(variant, f"{path}, {name}", [Preprocess(64, 64)])
