"""Unlabelled pictures from folders or tar shards to augmented batches, settled by seed and step."""

from __future__ import annotations

import io
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
AHEAD = 4
MOSAICS = 1 / 3


class Source:
    """A folder (read when needed) or a tar (kept in memory): ``len`` and ``read``."""

    def __init__(self, place: Path):
        if place.is_dir():
            self.items: list[Path | bytes] = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
            self.names = [str(p) for p in self.items]
        else:
            with tarfile.open(place) as tar:
                members = [m for m in tar if m.isfile() and m.name.lower().endswith(SUFFIXES)]
                self.items = [tar.extractfile(m).read() for m in members]  # type: ignore[union-attr]
                self.names = [m.name for m in members]
        if not self.items:
            raise SystemExit(f"no pictures in {place}: expected {', '.join(SUFFIXES)}")

    def read(self, index: int) -> bytes:
        item = self.items[index]
        return item if isinstance(item, bytes) else item.read_bytes()

    def without(self, names: set[str]) -> Source:
        kept = [i for i, name in enumerate(self.names) if name not in names]
        self.items, self.names = [self.items[i] for i in kept], [self.names[i] for i in kept]
        return self


def decode(data: bytes, at_least: int = 0) -> Image.Image:
    """RGB; a JPEG may come back at 1/2, 1/4, 1/8 if both sides stay ``at_least`` long (0: never)."""
    if simplejpeg.is_jpeg(data):
        try:
            shrink = {"min_height": at_least, "min_width": at_least, "min_factor": 1} if at_least else {}
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", **shrink))
        except ValueError:
            pass  # CMYK: Pillow converts it
    return Image.open(io.BytesIO(data)).convert("RGB")


def random_crop(data: bytes, sides: Sequence[int], rng: np.random.Generator) -> list[Pixels]:
    """One random-resized crop (Szegedy et al. 2015), 15% to 100% of the area, maybe flipped, at each of ``sides``.

    Each is resized from the picture itself, as serving does: the teacher may look at the crop in more pixels.
    """
    area, aspect = rng.uniform(0.15, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    image = decode(data, int(max(sides) / np.sqrt(area)))
    if image.width < 2 * min(sides):  # a small picture blurs when enlarged: take more of it
        area = max(area, 0.35)
    across = min(np.sqrt(area * image.width * image.height * aspect), image.width)
    down = min(np.sqrt(area * image.width * image.height / aspect), image.height)
    left, top = rng.uniform(0, image.width - across), rng.uniform(0, image.height - down)
    resample = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[rng.integers(2)]
    box = (left, top, left + across, top + down)
    crops = [np.asarray(image.resize((side, side), resample, box=box)) for side in sides]
    return [crop[:, ::-1] for crop in crops] if rng.random() < 0.5 else crops


def mosaic(four: Sequence[Sequence[Pixels]]) -> list[Pixels]:
    """Four crops of half the side, two by two, at each side: small pictures keep the sharpness of large ones."""
    rows = ([np.concatenate(some[:2], axis=1), np.concatenate(some[2:], axis=1)] for some in zip(*four, strict=True))
    return [np.concatenate(both) for both in rows]


def centre_crop(data: bytes, size: int, resize: str = "shortest", crop: float = 0.875) -> Pixels:
    """What the shipped preprocessing does: the centre, ``crop`` of the short side (or of both sides)."""
    image = decode(data)
    short = min(image.size) * crop
    across, down = (short, short) if resize == "shortest" else (image.width * crop, image.height * crop)
    left, top = (image.width - across) / 2, (image.height - down) / 2
    box = (left, top, left + across, top + down)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def normalised(pixels: Pixels) -> NDArray[np.float32]:
    """[n, h, w, 3] uint8 to [n, 3, h, w] float32 in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


def colour_and_mix(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness, contrast and saturation on all; mixup (Zhang et al. 2018) on a quarter of the pictures."""
    n, _, h, w = x.shape
    grey = np.full((3, 3), 1 / 3, np.float32)
    saturation = rng.uniform(0.6, 1.4, (n, 1, 1)).astype(np.float32)
    matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey
    gain = rng.uniform(0.7, 1.3, (n, 1, 1)) * rng.uniform(0.95, 1.05, (n, 3, 1))
    shift = rng.uniform(-0.2, 0.2, (n, 1, 1)).astype(np.float32)
    x = np.clip((matrix * gain.astype(np.float32)) @ x.reshape(n, 3, h * w) + shift, -1, 1).reshape(n, 3, h, w)
    for i in np.flatnonzero(rng.random(n) < 0.25):
        share = np.float32(rng.uniform(0.1, 0.5))
        x[i] += share * (x[(i + n // 2) % n] - x[i])
    return x


def batch_at(
    sources: Sequence[Source], shares: Sequence[float], batch: int, sides: Sequence[int], seed: int, step: int
) -> list[NDArray[np.float32]]:
    """The batch of one step at each of ``sides``: [batch, 3, side, side] in [-1, 1], float32, the same crops.

    A third of the crops are mosaics of four pictures of one source.
    """
    rng = np.random.default_rng([seed, step])
    which = rng.choice(len(sources), batch, p=np.asarray(shares) / np.sum(shares))

    def crop(source: Source, sides: Sequence[int]) -> list[Pixels]:
        return random_crop(source.read(int(rng.integers(len(source.items)))), sides, rng)

    crops = []
    for s in which:
        if rng.random() < MOSAICS:
            crops.append(mosaic([crop(sources[s], [side // 2 for side in sides]) for _ in range(4)]))
        else:
            crops.append(crop(sources[s], sides))
    # Colour and mixing are drawn anew from the same state for each side, so that all sides get the same.
    return [
        colour_and_mix(normalised(np.stack(one)), np.random.default_rng([seed, step, 1]))
        for one in zip(*crops, strict=True)
    ]


def ahead(make, steps: range, workers: int) -> Iterator:
    """``make(step)`` for every step in order, a few made ahead in threads (decoding lets go of the GIL)."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        coming = iter(steps)
        for step in coming:
            waiting.append(pool.submit(make, step))
            if len(waiting) >= AHEAD:
                break
        while waiting:
            yield waiting.popleft().result()
            for step in coming:
                waiting.append(pool.submit(make, step))
                break
