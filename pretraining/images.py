"""Unlabelled images from folders or tar shards to augmented batches, each determined by the seed and the step."""

from __future__ import annotations

import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PREFETCH = 4  # batches
MOSAIC_SHARE = 1 / 3  # of the crops
MIXUP_SHARE = 0.25  # of the images


class ImageSource:
    """The images of a folder (read when needed) or of a tar file (kept in memory)."""

    def __init__(self, path: Path):
        if path.is_dir():
            self.items: list[Path | bytes] = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            self.names = [str(item) for item in self.items]
        else:
            with tarfile.open(path) as tar:
                members = [m for m in tar if m.isfile() and m.name.lower().endswith(SUFFIXES)]
                self.items = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
                self.names = [member.name for member in members]
        if not self.items:
            raise SystemExit(f"There are no images in {path}; expected {', '.join(SUFFIXES)}.")

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes:
        """Read the file of an image."""
        item = self.items[index]
        return item if isinstance(item, bytes) else item.read_bytes()

    def remove(self, names: set[str]) -> None:
        """Remove the images with these names."""
        remaining = [i for i, name in enumerate(self.names) if name not in names]
        self.items = [self.items[i] for i in remaining]
        self.names = [self.names[i] for i in remaining]


def class_folder(name: str) -> str:
    """Return the folder (the class) of an image; a folder ``images`` that publishers put in between is skipped."""
    parent = Path(name).parent
    return str(parent.parent if parent.name == "images" else parent)


def decode(data: bytes, min_size: int = 0) -> Image.Image:
    """Decode to RGB; a JPEG may be decoded at 1/2, 1/4, 1/8 if both sides stay ``min_size`` long (0: never)."""
    if simplejpeg.is_jpeg(data):
        try:
            reduction = {"min_height": min_size, "min_width": min_size, "min_factor": 1} if min_size else {}
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **reduction))
        except ValueError:
            pass  # CMYK: Pillow converts it
    return Image.open(io.BytesIO(data)).convert("RGB")


def random_crop(data: bytes, sides: Sequence[int], generator: np.random.Generator) -> list[Pixels]:
    """Make one random resized crop (Szegedy et al. 2015), 15% to 100% of the area, at each of ``sides``.

    It is flipped half of the time. Each size is resized from the image itself, as in serving: the teacher may see the
    crop in more pixels.
    """
    area, aspect = generator.uniform(0.15, 1.0), np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
    image = decode(data, int(max(sides) / np.sqrt(area)))
    if image.width < 2 * min(sides):  # a small image blurs when enlarged: take more of it
        area = max(area, 0.35)
    width = min(np.sqrt(area * image.width * image.height * aspect), image.width)
    height = min(np.sqrt(area * image.width * image.height / aspect), image.height)
    left, top = generator.uniform(0, image.width - width), generator.uniform(0, image.height - height)
    resample = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[generator.integers(2)]
    box = (left, top, left + width, top + height)
    crops = [np.asarray(image.resize((side, side), resample, box=box)) for side in sides]
    return [crop[:, ::-1] for crop in crops] if generator.random() < 0.5 else crops


def mosaic(crops: Sequence[Sequence[Pixels]]) -> list[Pixels]:
    """Put four crops of half the side together, two by two, at each side: small images stay as sharp as large ones."""
    mosaics = []
    for top_left, top_right, bottom_left, bottom_right in zip(*crops, strict=True):
        top = np.concatenate([top_left, top_right], axis=1)
        bottom = np.concatenate([bottom_left, bottom_right], axis=1)
        mosaics.append(np.concatenate([top, bottom]))
    return mosaics


def centre_crop(data: bytes, size: int, resize: str = "shortest", crop: float = 0.875) -> Pixels:
    """Preprocess as the shipped backbone does: the centre, ``crop`` of the short side (or of both sides)."""
    image = decode(data)
    if resize == "shortest":
        width = height = min(image.size) * crop
    else:
        width, height = image.width * crop, image.height * crop
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def normalise(pixels: Pixels) -> NDArray[np.float32]:
    """Turn [n, h, w, 3] uint8 into [n, 3, h, w] float32 in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


def jitter_and_mix(x: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Change brightness, contrast and saturation of all images; mixup (Zhang et al. 2018) on a quarter of them."""
    n, _, h, w = x.shape
    grey = np.full((3, 3), 1 / 3, np.float32)
    saturation = generator.uniform(0.6, 1.4, (n, 1, 1)).astype(np.float32)
    matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey
    gain = generator.uniform(0.7, 1.3, (n, 1, 1)) * generator.uniform(0.95, 1.05, (n, 3, 1))
    shift = generator.uniform(-0.2, 0.2, (n, 1, 1)).astype(np.float32)
    x = np.clip((matrix * gain.astype(np.float32)) @ x.reshape(n, 3, h * w) + shift, -1, 1).reshape(n, 3, h, w)
    for i in np.flatnonzero(generator.random(n) < MIXUP_SHARE):
        share = np.float32(generator.uniform(0.1, 0.5))
        x[i] += share * (x[(i + n // 2) % n] - x[i])
    return x


def make_batch(
    sources: Sequence[ImageSource], shares: Sequence[float], size: int, sides: Sequence[int], seed: int, step: int
) -> list[NDArray[np.float32]]:
    """Make the batch of one step at each of ``sides``: [size, 3, side, side] in [-1, 1], float32, the same crops.

    A third of the crops are mosaics of four images of one source.
    """
    generator = np.random.default_rng([seed, step])
    chosen = generator.choice(len(sources), size, p=np.asarray(shares) / np.sum(shares))

    def crop(source: ImageSource, sides: Sequence[int]) -> list[Pixels]:
        return random_crop(source.read(int(generator.integers(len(source)))), sides, generator)

    crops = []
    for i in chosen:
        if generator.random() < MOSAIC_SHARE:
            crops.append(mosaic([crop(sources[i], [side // 2 for side in sides]) for _ in range(4)]))
        else:
            crops.append(crop(sources[i], sides))
    # Colour and mixing are drawn anew from the same state for each side, so that all sides get the same.
    return [
        jitter_and_mix(normalise(np.stack(same_side)), np.random.default_rng([seed, step, 1]))
        for same_side in zip(*crops, strict=True)
    ]


def prefetch(make: Callable[[int], T], steps: range, workers: int) -> Iterator[T]:
    """Yield ``make(step)`` for every step in order, a few made in advance in threads (decoding releases the GIL)."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[T]] = deque()
        for step in steps:
            pending.append(pool.submit(make, step))
            if len(pending) == PREFETCH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
