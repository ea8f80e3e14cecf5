"""What every source of pictures becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Item:
    """One picture: the path to show, its class (None: unlabelled), its split and its group (None: unknown)."""

    path: str
    label: str | None
    split: str
    group: str | None = None


@dataclass(frozen=True)
class Quarantined:
    """A picture that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Reader:
    """Reads the bytes (or the array) of the picture with a given number; safe to call from several threads."""

    read: Callable[[int], bytes | NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True)
class Dataset:
    """Pictures with their classes.

    ``items`` are in a fixed order; ``classes`` are the names over all splits in their order (texts and numbers sort
    as such), so that a class is the same class in every split; ``skipped`` counts what was no picture, by reason;
    ``quarantined`` names what was refused while listing. ``reader`` and ``numbers`` say how to read each item.
    """

    uri: str
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    skipped: Mapping[str, int]
    quarantined: tuple[Quarantined, ...]
    reader: Reader
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The file's bytes, or the array [height, width, 3] it was given as. Raises ImageError; thread-safe."""
        return self.reader.read(self.numbers[index])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are there, in the order train, validation, test."""
        present = {item.split for item in self.items}
        return tuple(name for name in SPLITS if name in present)

    def split(self, name: str) -> Dataset:
        """Only the pictures of one split; the classes stay the same."""
        return self.select([i for i, item in enumerate(self.items) if item.split == name])

    def with_split(self, name: str) -> Dataset:
        """Return the same images, all of one split."""
        return replace(self, items=tuple(replace(item, split=name) for item in self.items))

    def select(self, indices: Iterable[int]) -> Dataset:
        """Only the pictures at ``indices``, in that order; the classes stay the same."""
        chosen = list(indices)
        return replace(
            self,
            items=tuple(self.items[i] for i in chosen),
            numbers=tuple(self.numbers[i] for i in chosen),
        )


def concatenate(first: Dataset, second: Dataset) -> Dataset:
    """The pictures of both, one after the other, so that one pass reads them all; classes are those of both."""
    count = len(first)

    def read(index: int) -> bytes | NDArray[np.uint8]:
        return first.read(index) if index < count else second.read(index - count)

    skipped = Counter(first.skipped)
    if second.uri != first.uri:
        skipped.update(second.skipped)
    return Dataset(
        first.uri,
        first.items + second.items,
        tuple(dict.fromkeys([*first.classes, *second.classes])),
        dict(skipped),
        tuple(dict.fromkeys(first.quarantined + second.quarantined)),
        Reader(read),
        tuple(range(count + len(second))),
    )
