"""A folder of statistics: sums over the features of images, not those of any single one. Read as untrusted data.

``statistics.json`` says what was summed, ``statistics.safetensors`` has the sums. They add, exactly: the statistics of
all images are those of their parts, however the images are cut into these. Whatever the parts, an image that lies in
the data twice is summed twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError, untrusted
from headstart.features.rows import FeatureRows, Source, is_text, merge_sources
from headstart.features.rows_folder import MAX_FILE
from headstart.files import foreign_files, open_regular, read_json, replace_folder, to_json
from headstart.heads.from_statistics import TapStatistics
from headstart.heads.integers import LIMIT, IntegerVectors
from headstart.heads.statistics import Statistics
from headstart.machine import why_not_replaceable

FORMAT = 1
FILE, SUMS = "statistics.json", "statistics.safetensors"
MAX_CHANNELS = 16_384  # whose products take a gigabyte
MAX_CLASSES = 100_000  # as a model may have
MAX_SUMS = 2**31  # bytes of the class sums
MAX_IMAGES = 2**32  # up to which no sum is beyond int64
HASHES = 2**256


@dataclass(frozen=True)
class StatisticsPart:
    """Statistics of the training images with a label, and what they were computed by.

    ``classes`` [k] are sorted; ``left_out`` counts other images by what they are; ``fingerprint`` is the sum of the
    SHA-256 of the images, modulo 2^256: that of all parts is the sum of theirs.
    """

    source: Source
    classes: tuple[str, ...]
    of_taps: TapStatistics
    left_out: Mapping[str, int]
    fingerprint: int

    @property
    def images(self) -> int:
        """How many images were summed."""
        return self.of_taps.statistics.count


def taps_to_sum(source: Source, taps: Sequence[str] | None) -> tuple[str, ...]:
    """Return the taps that are summed, shallow to deep: those that are named, the deepest one where none is.

    Raises OptionError for a tap that is not there.
    """
    if taps is None:
        return (*source.taps,)[-1:]
    if unknown := {*taps} - {*source.taps}:
        raise OptionError(f"Unknown cut {min(unknown)!r}; the features are of {', '.join(source.taps)}.")
    return tuple(tap for tap in source.taps if tap in taps)


def sum_rows(features: FeatureRows, taps: Sequence[str]) -> StatisticsPart:
    """Sum rows: every one of a training image with a label."""
    source, rows = features.source, features.rows
    kinds = [
        "without a label" if label is None else split for label, split in zip(rows.labels, rows.splits, strict=True)
    ]
    used = [i for i, kind in enumerate(kinds) if kind == "train"]
    labels = [str(rows.labels[i]) for i in used]
    classes = tuple(sorted({*labels}))
    number = {name: c for c, name in enumerate(classes)}
    exponents = {tap: source.taps[tap] for tap in taps}
    values = np.concatenate([rows.values[tap][used] for tap in taps], axis=1)
    vectors = IntegerVectors(values, np.concatenate([np.array(steps) for steps in exponents.values()]))
    statistics = Statistics.of(vectors, np.array([number[label] for label in labels], np.int64), len(classes))
    left_out = Counter(kind for kind in kinds if kind != "train")
    fingerprint = sum(int.from_bytes(rows.content_hashes[i].tobytes(), "big") for i in used) % HASHES
    return StatisticsPart(source, classes, TapStatistics(exponents, statistics), dict(left_out), fingerprint)


def merge_statistics(parts: Iterable[StatisticsPart], names: Sequence[str], *, mixed: bool = False) -> StatisticsPart:
    """Add parts up: the same result for any cut of the images into parts, and any order of those.

    Parts are taken one at a time: of a generator's, the memory does not grow with their number. ``names`` and ``mixed``
    are those of ``features.rows.merge``. Raises OptionError for parts that were not computed alike, for one that is
    given twice, and for sums of more classes or images than can be kept.
    """
    sources: list[Source] = []

    def alike() -> Iterator[StatisticsPart]:
        taps: dict[str, tuple[int, ...]] = {}
        known: dict[int, str] = {}
        for part, name in zip(parts, names, strict=True):
            taps = taps or dict(part.of_taps.taps)
            if dict(part.of_taps.taps) != taps:
                raise OptionError(
                    f"{names[0]} has statistics of {', '.join(taps)}, {name} of {', '.join(part.of_taps.taps)}; sum "
                    "both at the same taps."
                )
            if part.images and part.fingerprint in known:
                first = known[part.fingerprint]
                raise OptionError(
                    f"{first} and {name} are of the same images, which would count twice; give one of them."
                )
            known[part.fingerprint] = name
            sources.append(part.source)
            yield part

    total = add_up(alike())
    return replace(total, source=merge_sources(sources, names, mixed=mixed)[0])


def add_up(parts: Iterable[StatisticsPart]) -> StatisticsPart:
    """Add up parts of the same taps; memory does not grow with their number. The source is that of the first.

    Raises OptionError for sums of more classes or images than can be kept.
    """
    iterator = iter(parts)
    part = next(iterator)
    source, taps, left_out, fingerprint = part.source, part.of_taps.taps, Counter(part.left_out), part.fingerprint
    rows = {name: row for row, name in enumerate(part.classes)}  # of the sums; sorted at the end
    statistics = part.of_taps.statistics
    counts, sums, gram = statistics.counts.copy(), statistics.sums.copy(), statistics.gram.copy()
    del part, statistics
    for part in iterator:
        new = [name for name in part.classes if name not in rows]
        if new:
            rows |= {name: len(rows) + i for i, name in enumerate(new)}
            _check_size(len(rows), sums.shape[1])
            counts = np.concatenate([counts, np.zeros(len(new), np.int64)])
            sums = np.concatenate([sums, np.zeros((len(new), sums.shape[1]), np.int64)])
        places = [rows[name] for name in part.classes]
        statistics = part.of_taps.statistics
        counts[places] += statistics.counts
        sums[places] += statistics.sums
        gram += statistics.gram
        left_out.update(part.left_out)
        fingerprint = (fingerprint + part.fingerprint) % HASHES
        del part, statistics  # before the next one is made
    classes = tuple(sorted(rows))
    order = [rows[name] for name in classes]
    total = Statistics(counts[order], sums[order], gram)
    if total.count > MAX_IMAGES:
        raise OptionError(f"{total.count:,} images are more than {MAX_IMAGES:,}, whose sums are exact; merge fewer.")
    return StatisticsPart(source, classes, TapStatistics(taps, total), dict(sorted(left_out.items())), fingerprint)


def _check_size(classes: int, width: int) -> None:
    """Raise OptionError for sums of vectors [n, width] that a reader would refuse."""
    if width > MAX_CHANNELS:
        raise OptionError(f"Statistics of {width:,} channels are more than {MAX_CHANNELS:,}; sum fewer taps: --cut.")
    most = min(MAX_CLASSES, MAX_SUMS // (8 * width))
    if classes > most:
        raise OptionError(f"Statistics of {classes:,} classes are more than {most:,} of {width:,} channels; use fewer.")


def said_of(left_out: Mapping[str, int]) -> str:
    """Return how many images were not summed, and why, as a text; empty where all were."""
    kinds = {"validation": "for validation", "test": "for tests"}
    return ", ".join(
        f"{count:,} {'image' if count == 1 else 'images'} {kinds.get(kind, kind)}" for kind, count in left_out.items()
    )


def is_statistics_folder(folder: Path) -> bool:
    """Return whether a folder holds statistics."""
    return (folder / FILE).is_file() and not (folder / "config.json").exists()


def check_replaceable(folder: Path) -> None:
    """Raise OptionError where statistics cannot be written, or would delete anything but statistics."""
    if reason := why_not_replaceable(folder):
        raise OptionError(f"Cannot write statistics to {folder}: {reason}; give another name for the folder.")
    if folder.is_dir() and (foreign := foreign_files(folder, (FILE, SUMS).__contains__)):
        raise OptionError(
            f"{folder} holds other files than statistics ({foreign[0].name}); give another name for the folder."
        )


def write_statistics(folder: Path, part: StatisticsPart) -> int:
    """Write statistics into a folder, whole or not at all, and return their bytes.

    They are read back before they take the folder's place. Raises OptionError for a folder with other files and for
    more than can be read again, DataError, OSError.
    """
    check_replaceable(folder)
    data = statistics_files(part)

    def fill(new: Path) -> None:
        for name, content in data.items():
            (new / name).write_bytes(content)
        read_statistics(new)

    replace_folder(folder, fill)
    return sum(map(len, data.values()))


def statistics_files(part: StatisticsPart) -> dict[str, bytes]:
    """Return the content of the files of statistics by name. Raises OptionError for more than can be read again."""
    from safetensors.numpy import save

    statistics = part.of_taps.statistics
    _check_size(len(part.classes), statistics.sums.shape[1])
    about = {
        "format": FORMAT,
        "images": part.images,
        "classes": dict(zip(part.classes, statistics.counts.tolist(), strict=True)),
        "summed": [*part.of_taps.taps],
        "left_out": dict(part.left_out),
        "fingerprint": f"{part.fingerprint:064x}",
        **part.source.to_dict(),
    }
    upper = np.triu_indices(len(statistics.gram))
    tensors = {"sums": np.ascontiguousarray(statistics.sums), "gram": np.ascontiguousarray(statistics.gram[upper])}
    data = {FILE: to_json(about, indent=1), SUMS: save(tensors)}
    if len(data[FILE]) > MAX_FILE:
        raise OptionError(f"{FILE} would have {len(data[FILE]):,} bytes, more than {MAX_FILE:,}; skip fewer files.")
    return data


def read_statistics(folder: Path) -> StatisticsPart:
    """Read the statistics in a folder; nothing of it is trusted. Raises DataError with what is wrong."""
    with untrusted(str(folder / FILE), DataError):
        value = read_json(folder / FILE, MAX_FILE)
        if value["format"] != FORMAT:
            raise DataError(f"{folder / FILE} is of format {str(value['format'])[:20]}; this version reads {FORMAT}.")
        source = Source.from_dict(value)
        if source.is_multi_label:
            raise ValueError("statistics are of one class an image, and these say that there are several labels")
        counts = value["classes"]
        fits = all(type(n) is int and 0 <= n <= MAX_IMAGES and name and is_text(name) for name, n in counts.items())
        if not fits or len(counts) > MAX_CLASSES or [*counts] != sorted(counts):
            raise ValueError("classes are no sorted names with numbers of images")
        if not sum(counts.values()) == value["images"] <= MAX_IMAGES:
            raise ValueError("images is not the sum of those of the classes")
        summed, left_out = value["summed"], value["left_out"]
        if not summed or summed != [tap for tap in source.taps if tap in summed]:
            raise ValueError(f"{str(summed)[:100]} are not taps of the backbone, shallow to deep")
        if not all(type(n) is int and n >= 0 and is_text(name) for name, n in left_out.items()):
            raise ValueError("left_out are no numbers of images")
        if not re.fullmatch("[0-9a-f]{64}", value["fingerprint"]):
            raise ValueError("fingerprint is no SHA-256")
        fingerprint = int(value["fingerprint"], 16)
    taps = {tap: source.taps[tap] for tap in summed}
    statistics = _read_sums(folder / SUMS, np.array([*counts.values()], np.int64), sum(map(len, taps.values())))
    return StatisticsPart(source, tuple(counts), TapStatistics(taps, statistics), left_out, fingerprint)


def _read_sums(path: Path, counts: NDArray[np.int64], width: int) -> Statistics:
    """Read the sums of vectors [n, width]. Raises DataError."""
    from safetensors.numpy import load

    products = width * (width + 1) // 2
    size = 8 * (len(counts) * width + products)
    with untrusted(str(path), DataError):
        if width > MAX_CHANNELS or 8 * len(counts) * width > MAX_SUMS:
            raise ValueError(f"sums of {width:,} channels and {len(counts):,} classes are too large")
        with open_regular(path) as stream:
            data = stream.read(size + 4097)
        if not size < len(data) <= size + 4096:
            raise ValueError(f"it has not the {size:,} bytes of its sums")
        tensors: Mapping[str, NDArray[Any]] = load(data)
        sums, upper = tensors["sums"], tensors["gram"]
        if (
            sums.shape != (len(counts), width)
            or upper.shape != (products,)
            or {sums.dtype, upper.dtype} != {np.dtype("i8")}
        ):
            raise ValueError("its arrays have other shapes or numbers")
        gram = np.zeros((width, width), np.int64)
        rows = np.triu_indices(width)
        gram[rows] = upper
        gram.T[rows] = upper
        count = int(counts.sum())
        most = np.sqrt(np.maximum(np.diag(gram), 0).astype(np.float64))
        fits = (np.abs(sums.astype(np.float64)) <= counts[:, None] * float(LIMIT)).all()
        fits = fits and (np.diag(gram) >= 0).all() and (most <= np.sqrt(count) * LIMIT + 1).all()
        if not fits or (np.abs(gram.astype(np.float64)) > np.outer(most, most) * (1 + 1e-9) + 1).any():
            raise ValueError("its sums are not those of any vectors")
    return Statistics(counts, sums, gram)
