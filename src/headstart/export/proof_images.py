"""The images that every export is proven on: drawn here, so that an export carries nobody's images.

Encoded files of every form that people bring, and pixels near to another answer, which show a difference that other
images hide: their two best classes are nearly tied, or a label is near to its threshold.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]
MARGIN = (0.05, 0.5)  # in scores, from another answer: above the tolerance of fp32, near enough to change
LOW_MARGIN = 8  # images
MAX_FIELDS = 41
MAX_LABELS = 24  # of each of which there is an image near to its threshold
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


def grids(height: int, width: int) -> Pixels:
    """Return images [n, height, width, 3] of fields of random colours: 2 x 2 of them, 3 x 3, up to ``MAX_FIELDS``."""
    rng = np.random.default_rng(0)
    fields = (rng.integers(0, 256, (n, n, 3), np.uint8) for n in range(2, MAX_FIELDS + 1))
    images = (Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST) for image in fields)
    return np.stack([np.asarray(image) for image in images])


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@dataclass(frozen=True)
class Boundary:
    """What parts images of two answers: the two best of all classes, or the threshold of one ``label``.

    Scores [n, k] are those of classes, or of labels less those of their thresholds.
    """

    label: int | None = None

    def sides(self, scores: Scores) -> NDArray[np.integer]:
        """Return the answer [n] of images."""
        return scores.argmax(axis=1) if self.label is None else (scores[:, self.label] >= 0).astype(np.int64)

    def is_near(self, scores: Scores) -> bool:
        """Return whether an image [1, k] is within ``MARGIN`` of the boundary, and of no other nearer."""
        if self.label is None:
            least, second = np.sort(scores[0])[:-3:-1]
            margin = nearest = least - second
        else:
            margin, nearest = abs(scores[0, self.label]), np.abs(scores[0]).min()
        return bool(nearest >= MARGIN[0] and margin <= MARGIN[1])


def low_margin_images(pixels: Pixels, scores_of: Callable[[Pixels], Scores], labels: int = 0) -> Pixels:
    """Return images [m, h, w, 3] that nearly get another answer: ``LOW_MARGIN`` of them, or fewer.

    Each lies between two of ``pixels`` [n, h, w, 3] with different answers, where a bisection finds it. ``scores_of``
    gives the scores [n, k] of images. Where all get the same answer there are none. Of so many ``labels`` there is an
    image for each, at most ``MAX_LABELS`` of them; 0 for one class an image.
    """
    inverted = np.concatenate([pixels, 255 - pixels])
    scores = scores_of(inverted)
    boundaries: Sequence[Boundary] = [Boundary(label) for label in range(min(labels, MAX_LABELS))] or [Boundary()]
    wanted = max(1, LOW_MARGIN // len(boundaries))
    found: list[Pixels] = []
    for boundary in boundaries:
        near = _near(inverted, boundary, boundary.sides(scores), scores_of)
        found += [image for _, image in zip(range(wanted), near, strict=False)]
    return np.stack(found) if found else np.empty((0, *pixels.shape[1:]), np.uint8)


def _near(
    images: Pixels, boundary: Boundary, sides: NDArray[np.integer], scores_of: Callable[[Pixels], Scores]
) -> Iterator[Pixels]:
    """Yield images near to a boundary."""
    for first, second in _pairs(sides):
        image = _bisect(images[first], images[second], boundary, scores_of)
        if image is not None:
            yield image


def _pairs(sides: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images with different answers, spread over all images, at most three times ``LOW_MARGIN``."""
    different = [(i, j) for i in range(len(sides)) for j in range(i) if sides[i] != sides[j]]
    order = np.random.default_rng(0).permutation(len(different))[: 3 * LOW_MARGIN]
    yield from (different[i] for i in order)


def _bisect(first: Pixels, second: Pixels, boundary: Boundary, scores_of: Callable[[Pixels], Scores]) -> Pixels | None:
    low, high = 0.0, 1.0
    side = int(boundary.sides(scores_of(first[None]))[0])
    for _ in range(STEPS):
        share = (low + high) / 2
        blend = np.rint((1 - share) * first + share * second).astype(np.uint8)
        scores = scores_of(blend[None])
        if boundary.is_near(scores):
            return blend
        if int(boundary.sides(scores)[0]) == side:
            low = share
        else:
            high = share
    return None
