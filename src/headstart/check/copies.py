"""The same picture twice: the same bytes, or re-encoded, resized, mirrored or cropped.

Whole copies are told by 16 x 16 pixels that correlate almost perfectly. A crop shows other pixels: there the nearest
neighbours by features are candidates, and one is a crop of the other if, shrunk, it is found in it by normalised
cross-correlation (Lewis 1995) at some size and place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.check.model import Finding
from headstart.datasets import Dataset
from headstart.features import Features
from headstart.groups import Linked, nearest, pixel_links
from headstart.images import decode
from headstart.runtime import cores

NEAR = 0.45  # centred cosine of features from which a crop is looked for
NEIGHBOURS = 5
SIDE = 64
BATCH = 1_000  # pairs
MAYBE, FOUND = 0.75, 0.94  # correlation of a crop with its place in the whole, seen at a half of the side and in full


def find_copies(dataset: Dataset, features: Features, *, crops: bool = True) -> tuple[list[Finding], NDArray[np.int64]]:
    """Findings, a family of copies each, and the family [n] of every picture of ``features``.

    Without ``crops`` no picture is read: crops are not looked for.
    """
    linked = Linked(len(features.index))
    sure: dict[tuple[int, int], float] = {}
    same = linked.join_equal(features.content)
    for first, second, alike in pixel_links(features.pixels):
        linked.join(first, second)
        sure[first, second] = alike
    for first, second, alike in _crops(dataset, features, linked.families()) if crops else ():
        linked.join(first, second)
        sure[first, second] = alike
    families = linked.families()
    strength = np.ones(len(families))
    for (first, _), alike in sure.items():
        strength[families[first]] = min(strength[families[first]], alike)
    return list(_findings(dataset, features, families, same, strength)), families


def _findings(
    dataset: Dataset, features: Features, families: NDArray[np.int64], same: NDArray[np.integer],
    strength: NDArray[np.float64],
) -> Iterator[Finding]:  # fmt: skip
    sizes = np.bincount(families)
    order = np.argsort(families, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for family in np.flatnonzero(sizes > 1):
        members = np.sort(order[starts[family] : starts[family] + sizes[family]])
        items = [dataset.items[features.index[i]] for i in members]
        files = tuple(item.path for item in items)
        exact = len({int(same[i]) for i in members}) == 1
        confidence = 1.0 if exact else float(strength[family])
        kind = "the same file" if exact else "the same picture"
        splits, labels = {item.split for item in items}, {item.label for item in items}
        if len(splits) > 1:
            where = " and ".join(sorted(splits))
            yield Finding("leak", files, confidence, "drop it from one split", f"{kind} in {where}")
        if len(labels) > 1:
            names = " and ".join(sorted(map(str, labels)))
            yield Finding("conflicting_labels", files, confidence, "relabel or drop", f"{kind} as {names}")
        if len(splits) == len(labels) == 1:
            name = "exact_duplicate" if exact else "near_duplicate"
            yield Finding(name, files, confidence, "drop all but one, or give them one group", kind)


def _crops(dataset: Dataset, features: Features, families: NDArray[np.int64]) -> Iterator[tuple[int, int, float]]:
    """Pairs of different families of which one is a crop of the other, maybe mirrored, and the correlation."""
    deepest = features.values[list(features.values)[-1]]
    places, cosines = nearest(deepest, families, NEIGHBOURS)
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(places) for j in row[cosines[i] >= NEAR]}
    small: dict[int, NDArray[np.float32]] = {}

    def seen(i: int) -> NDArray[np.float32]:
        if i not in small:
            small[i] = _grey(dataset.read(int(features.index[i])))
        return small[i]

    def compared(pair: tuple[int, int]) -> float:
        one, other = seen(pair[0]), seen(pair[1])
        return max(inside(one, other), inside(other, one))

    waiting = sorted(pairs)
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(waiting), BATCH):
            some = waiting[start : start + BATCH]
            for (first, second), alike in zip(some, pool.map(compared, some), strict=True):
                if alike >= FOUND:
                    yield first, second, alike
            small.clear()  # a batch's pictures at a time, whatever the set


def _grey(source: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
    image = source if isinstance(source, np.ndarray) else decode(source, at_least=(SIDE, SIDE))
    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def inside(whole: NDArray[np.float32], crop: NDArray[np.float32]) -> float:
    """The best correlation of ``crop``, or its mirror image, with a part of ``whole``, both [64, 64]; 0 if it is low.

    A crop may keep 0.5 to 0.95 of either side. Most pairs end after a look at half the size.
    """
    side = SIDE // 2
    small, part = (
        np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BOX)) for each in (whole, crop)
    )
    alike, at = _best(small, part, range(side // 2, side, 2))
    return _best(whole, crop, range(2 * at - 2, 2 * at + 3, 2))[0] if alike >= MAYBE else 0.0


def _best(whole: NDArray[np.float32], crop: NDArray[np.float32], sides: Iterable[int]) -> tuple[float, int]:
    """The best normalised cross-correlation of ``crop`` at one of these sides, plain or mirrored, in ``whole``."""
    size = len(whole)  # enough: where a template lies inside, nothing of it comes round again
    image = whole - whole.mean()
    squares, sums = _integral(image**2), _integral(image)
    templates, scales = [], []
    for side in sides:
        template = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BOX))
        template = template - template.mean()
        length = float(np.linalg.norm(template))
        if length < side:  # an even template is found anywhere
            continue
        padded = np.zeros((2, size, size), np.float32)
        padded[0, :side, :side], padded[1, :side, :side] = template, template[:, ::-1]
        templates.append(padded)
        spread = _squares(squares, side) - _squares(sums, side) ** 2 / side**2
        scales.append(length * np.sqrt(np.maximum(spread, side**2)))
    if not templates:
        return 0.0, size
    spectra = np.fft.rfft2(image) * np.fft.rfft2(np.stack(templates)).conj()
    found = np.fft.irfft2(spectra, (size, size))
    best = [
        (float((each[:, : len(scale), : len(scale)] / scale).max()), size - len(scale) + 1)
        for each, scale in zip(found, scales, strict=True)
    ]
    return max((0.0, size), *best)


def _integral(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of all above and left (Crow 1984)."""
    table = np.zeros((len(values) + 1, len(values) + 1))
    table[1:, 1:] = values.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    return table


def _squares(table: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """From an integral image the sum of every square of ``side``."""
    return table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
