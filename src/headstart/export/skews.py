"""Names for differences: what a model would answer if its images were prepared in one of the usual wrong ways.

Computed once, with the reference, when an export is made. A target whose answers are nearer to one of these than to the
right ones is told by that name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from headstart.export.about import About
from headstart.export.answers import LEAST, Answers, scores_of
from headstart.images.decoding import decode
from headstart.images.preprocess import FILTERS, Preprocess
from headstart.images.standalone import TURNS, to_rgb

Pixels = NDArray[np.uint8]
NEARER = 0.5  # a name is given where the answers are less than this share as far from it as from the right ones
MOST = 3.0  # a difference of scores that counts: beyond, one image would decide
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def _levels(values: NDArray[np.floating]) -> Pixels:
    levels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


# What the right graph must be given, to see what a graph with this mistake sees: [n, h, w, 3] to the same.
PIXEL_SKEWS: dict[str, Callable[[Pixels], Pixels]] = {
    "the channels are read as BGR": lambda p: np.ascontiguousarray(p[..., ::-1]),
    "pixels are scaled to 0..1 where -1..1 is right": lambda p: _levels(127.5 + p / 2.0),
    "pixels are scaled to 0..255 where less is right (not divided)": lambda p: _levels(p * 255.0),
    "pixels are scaled to 0..1 where mean and deviation of ImageNet are right": lambda p: _levels(
        255 * IMAGENET_MEAN + IMAGENET_STD * p
    ),
    "pixels are scaled to -1..1 where mean and deviation of ImageNet are right": lambda p: _levels(
        255 * IMAGENET_MEAN + IMAGENET_STD * (2.0 * p - 255)
    ),
    "the mean of the input is wrong (images too bright, by about 8 of 255)": lambda p: _levels(p + 8.0),
    "the mean of the input is wrong (images too bright, by about 32 of 255)": lambda p: _levels(p + 32.0),
    "the mean of the input is wrong (images too dark, by about 8 of 255)": lambda p: _levels(p - 8.0),
    "the mean of the input is wrong (images too dark, by about 32 of 255)": lambda p: _levels(p - 32.0),
    "the axes are mixed up (NCHW read as NHWC)": lambda p: np.ascontiguousarray(p.transpose(0, 3, 1, 2)).reshape(
        p.shape
    ),
    "height and width are exchanged": lambda p: _transposed(p),
}
# An image file to pixels [h, w, 3], in a wrong way.
FILE_SKEWS: dict[str, Callable[[bytes, Preprocess], Pixels]] = {
    "the EXIF orientation is not applied": lambda data, p: p(_without_exif(data, p)),
    "the image is squashed where a crop is right": lambda data, p: replace(p, resize="squash", crop=1.0)(
        _full(data, p)
    ),
    "the image is cropped where squashing is right": lambda data, p: replace(p, resize="shortest")(_full(data, p)),
    "the whole image is taken, not its central part": lambda data, p: replace(p, crop=1.0)(_full(data, p)),
    "the resize is bicubic where bilinear is right": lambda data, p: replace(p, interpolation="bicubic")(
        _full(data, p)
    ),
    "the resize is bilinear where bicubic is right": lambda data, p: replace(p, interpolation="bilinear")(
        _full(data, p)
    ),
    "the resize does not smooth (no antialiasing)": lambda data, p: _not_smoothed(data, p),
    "large JPEG files are decoded in full, not at a fraction": lambda data, p: p(
        decode(data, sample_range=p.sample_range)
    ),
    "the JPEG decoder is another one (fast transform, no smooth colours)": lambda data, p: _fast(data, p),
}


def _transposed(pixels: Pixels) -> Pixels:
    size = pixels.shape[2], pixels.shape[1]
    turned = [Image.fromarray(image.transpose(1, 0, 2).copy()).resize(size) for image in pixels]
    return np.stack([np.asarray(image) for image in turned])


def prepared(data: bytes, preprocess: Preprocess) -> Pixels:
    """Return the pixels [h, w, 3] of an image file, as the model takes them."""
    return preprocess(_full(data, preprocess))


def _full(data: bytes, preprocess: Preprocess) -> Pixels:
    size, samples = preprocess.min_size, preprocess.sample_range
    return decode(data, min_size=size, sample_range=samples, scaled=preprocess.is_scaled)


def _without_exif(data: bytes, preprocess: Preprocess) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        if image.format != "JPEG" or not image.getexif().get(0x0112):
            return _full(data, preprocess)
        return np.asarray(image.convert("RGB"))


def _not_smoothed(data: bytes, preprocess: Preprocess) -> Pixels:
    """Sample the box at the centres of the output pixels, as OpenCV does."""
    image = Image.fromarray(_full(data, preprocess))
    w, h = image.size
    height, width = preprocess.height, preprocess.width
    scale = min(h / height, w / width) * preprocess.crop
    is_squashed = preprocess.resize == "squash"
    step_x, step_y = (w * preprocess.crop / width, h * preprocess.crop / height) if is_squashed else (scale, scale)
    left, top = (w - width * step_x) / 2, (h - height * step_y) / 2
    matrix = (step_x, 0, left, 0, step_y, top)
    return np.asarray(
        image.transform((width, height), Image.Transform.AFFINE, matrix, FILTERS[preprocess.interpolation])
    )


def _fast(data: bytes, preprocess: Preprocess) -> Pixels:
    """Decode a JPEG as fast as libjpeg can, at the size and with the orientation that is right."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format != "JPEG" or image.mode != "RGB":
            return prepared(data, preprocess)
        turn = image.getexif().get(0x0112, 1)
    width, height = to_rgb(io.BytesIO(data), preprocess.min_size, decode=preprocess.decode).size
    if turn in (5, 6, 7, 8):
        width, height = height, width
    options: dict[str, Any] = {"fastdct": True, "fastupsample": True, "min_height": height, "min_width": width}
    pixels = Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **options))
    return preprocess(pixels.transpose(TURNS[turn]) if turn in TURNS else pixels)


def name_skew(expected: Answers, found: Answers, skewed: Mapping[str, Answers], about: About) -> str | None:
    """Return the name of what explains the answers ``found`` best, with how much of the difference; None if nothing.

    All are for the same images, and finite.
    """
    right = _away(expected, found, about)
    if not len(expected.ood_scores) or right < 1e-3:  # nothing to explain
        return None
    swapped = _order(expected, found)
    candidates = {name: _away(answers, found, about) for name, answers in skewed.items()}
    if swapped is not None:
        candidates["the labels are in another order"] = _away(swapped, found, about)
    if about.is_multi_label:
        candidates["a softmax is taken where a sigmoid is right"] = _away(_softmax(expected), found, about)
    if not candidates:
        return None
    name = min(candidates, key=candidates.__getitem__)
    if candidates[name] >= NEARER * right:
        return None
    return f"it looks as if {name}: that explains {1 - candidates[name] / right:.0%} of the difference"


def _softmax(answers: Answers) -> Answers:
    """Return the answers of a model of several labels as they are where their scores pass through a softmax."""
    odds = answers.probabilities / np.maximum(1 - answers.probabilities, LEAST)
    return Answers(odds / odds.sum(axis=1, keepdims=True), answers.ood_scores)


def _away(first: Answers, second: Answers, about: About) -> float:
    """Return the mean difference of the scores, each image counting at most ``MOST``."""
    scores = (scores_of(answers.probabilities, about) for answers in (first, second))
    difference = np.abs(np.subtract(*scores)).max(axis=1, initial=0)
    return float(np.minimum(difference, MOST).mean()) if len(difference) else 0.0


def _order(expected: Answers, found: Answers) -> Answers | None:
    """Return the expected answers with their classes in the order that fits ``found``; None if that is their own."""
    first, second = expected.probabilities, found.probabilities
    if first.shape[1] > 1000:
        return None
    away = np.abs(first[:, :, None] - second[:, None, :]).sum(axis=0)  # [expected class, found class]
    order = away.argmin(axis=0)
    if len(set(order.tolist())) < len(order) or (order == np.arange(len(order))).all():
        return None
    return Answers(first[:, order], expected.ood_scores)


def skewed_answers(
    files: Sequence[bytes], preprocess: Preprocess, answers_of: Callable[[Pixels], Answers]
) -> dict[str, Answers]:
    """Return by name what the reference answers for files in each wrong way, but those that change no pixel."""
    right = np.stack([prepared(data, preprocess) for data in files])
    found = {}
    for name, change in FILE_SKEWS.items():
        pixels = np.stack([change(data, preprocess) for data in files])
        if not np.array_equal(pixels, right):
            found[name] = answers_of(pixels)
    return found | pixel_skewed_answers(right, answers_of)


def pixel_skewed_answers(pixels: Pixels, answers_of: Callable[[Pixels], Answers]) -> dict[str, Answers]:
    """Return by name what the reference answers for pixels [n, h, w, 3] that are changed in each wrong way."""
    return {name: answers_of(change(pixels)) for name, change in PIXEL_SKEWS.items()}
