"""The images that every export is proven on: drawn here, so that an export carries nobody's images.

Encoded files of every form that people bring, and pixels whose two best classes are nearly tied, which show a
difference that other images hide.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
MARGIN = (0.05, 0.5)  # of the scores of the two best classes: above the tolerance of fp32, near enough to change
LOW_MARGIN = 8  # images
STEPS = 30  # of a bisection


def encoded_files() -> dict[str, bytes]:
    """Return image files by name: EXIF 1 to 8, CMYK, grey, 16 bits, transparency, a palette, odd and large sizes."""
    files = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif_{orientation}.jpg"] = _encode(draw(300, 217, orientation), "JPEG", exif=exif, quality=90)
    grey = draw(251, 190, 11).convert("L")
    deep = Image.fromarray((np.asarray(grey, np.uint16) << 8) + 255)
    rgba = draw(222, 222, 12).convert("RGBA")
    rgba.putalpha(draw(222, 222, 13).convert("L"))
    return files | {
        "large.jpg": _encode(draw(1601, 1203, 14), "JPEG", quality=75),
        "progressive.jpg": _encode(draw(333, 500, 15), "JPEG", progressive=True, quality=85),
        "cmyk.jpg": _encode(draw(320, 240, 16).convert("CMYK"), "JPEG", quality=90),
        "grey.jpg": _encode(grey, "JPEG", quality=90),
        "colour.png": _encode(draw(260, 173, 17), "PNG"),
        "16_bits.png": _encode(deep, "PNG"),
        "transparent.png": _encode(rgba, "PNG"),
        "palette.png": _encode(draw(180, 240, 18).quantize(64), "PNG"),
        "narrow.png": _encode(draw(61, 401, 19), "PNG"),
        "tiny.png": _encode(draw(7, 5, 20), "PNG"),
        "grey_16_bits.tif": _encode(deep, "TIFF", compression="tiff_deflate"),
        "colour.webp": _encode(draw(240, 320, 21), "WEBP", quality=85),
    }


def draw(width: int, height: int, seed: int) -> Image.Image:
    """Draw an image with soft light, edges, stripes and grain, all of random colours; none of its turns looks alike."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    y, x = np.mgrid[:height, :width] / min(height, width)
    pixels = np.asarray(ground, np.float64)
    for _ in range(5):
        centre, axes, angle = rng.uniform(0, 1.3, 2), rng.uniform(0.08, 0.4, 2), rng.uniform(0, np.pi)
        u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
        is_inside = (u / axes[0]) ** 2 + (v / axes[1]) ** 2 < 1
        stripes = 0.75 + 0.25 * np.sign(np.sin(u * rng.uniform(20, 90)))
        pixels = np.where(is_inside[..., None], rng.integers(0, 256, 3) * stripes[..., None], pixels)
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def low_margin_images(pixels: Pixels, scores_of: Callable[[Pixels], NDArray[np.float64]]) -> Pixels:
    """Return up to ``LOW_MARGIN`` images [m, h, w, 3] whose two best classes have nearly the same score.

    Each lies between two of ``pixels`` [n, h, w, 3] of different classes, where a bisection finds it. ``scores_of``
    gives the scores [n, k] of images. Where all get the same class there are none.
    """
    inverted = np.concatenate([pixels, 255 - pixels])
    best = scores_of(inverted).argmax(axis=1)
    found: list[Pixels] = []
    for first, second in _pairs(best):
        image = _bisect(inverted[first], inverted[second], scores_of)
        if image is not None:
            found.append(image)
        if len(found) == LOW_MARGIN:
            break
    return np.stack(found) if found else np.empty((0, *pixels.shape[1:]), np.uint8)


def _pairs(best: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images of different classes, spread over all images, at most three times ``LOW_MARGIN``."""
    different = [(i, j) for i in range(len(best)) for j in range(i) if best[i] != best[j]]
    order = np.random.default_rng(0).permutation(len(different))[: 3 * LOW_MARGIN]
    yield from (different[i] for i in order)


def _bisect(first: Pixels, second: Pixels, scores_of: Callable[[Pixels], NDArray[np.float64]]) -> Pixels | None:
    low, high = 0.0, 1.0
    best = int(scores_of(first[None]).argmax())
    for _ in range(STEPS):
        share = (low + high) / 2
        blend = np.rint((1 - share) * first + share * second).astype(np.uint8)
        scores = np.sort(scores_of(blend[None])[0])
        if MARGIN[0] <= scores[-1] - scores[-2] <= MARGIN[1]:
            return blend
        if int(scores_of(blend[None]).argmax()) == best:
            low = share
        else:
            high = share
    return None
