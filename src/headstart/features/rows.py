"""Rows: the features of images with what a fit needs beside them, kept without the images, to be put together later."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import InputOptions
from headstart.backbones.steps import EXPONENTS
from headstart.data.dataset import SPLITS, Skipped
from headstart.errors import OptionError
from headstart.features.runtime import RuntimeInfo
from headstart.images.preprocess import Preprocess

TEXTS = ("paths", "labels", "splits", "groups", "folders")
ARRAYS = ("content_hashes", "tiny_images", "image_stats")
ORDERED = 64  # columns of an array at a time that are put into another order
MAX_TEXT = 8192  # bytes of a path, a label, a group or a folder
MAX_LABELS_TEXT = 2**20  # bytes of several labels of an image
MAX_MIXED = 1000  # machines
NO_CHARACTER = re.compile("[\ud800-\udc7f\udd00-\udfff]")
GOLDEN_IMAGES = 8  # rendered ones, that a model made of rows proves itself with


@dataclass(frozen=True)
class Rows:
    """The rows of n images, each with what is known of its image.

    ``content_hashes`` [n, 32] uint8 are the SHA-256 of the images' bytes; ``paths``, ``labels`` (None: unlabelled;
    where images may have several, texts of ``data.label_sets.label_text``), ``splits``, ``groups`` (named ones; None:
    no name) and ``folders`` are those of ``data.dataset.Item``.
    ``tiny_images`` [n, 768] uint8 and ``image_stats`` [n, 4] float32 are those of ``features.Features``; ``values``, by
    tap [n, channels] int16, are whole numbers of the steps of its channels (``heads.integers``).
    """

    content_hashes: NDArray[np.uint8]
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str, ...]
    groups: tuple[str | None, ...]
    folders: tuple[str, ...]
    tiny_images: NDArray[np.uint8]
    image_stats: NDArray[np.float32]
    values: Mapping[str, NDArray[np.int16]]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def hashes(self) -> list[bytes]:
        """The SHA-256 of each image."""
        return [row.tobytes() for row in self.content_hashes]

    def select(self, index: Sequence[int] | NDArray[np.integer]) -> Rows:
        """Return the rows at ``index``, in that order; these where those are all of them."""
        rows = np.asarray(index, np.int64)
        if np.array_equal(rows, np.arange(len(self))):
            return self
        texts = {name: tuple(getattr(self, name)[i] for i in rows.tolist()) for name in TEXTS}
        return Rows(
            self.content_hashes[rows],
            tiny_images=self.tiny_images[rows],
            image_stats=self.image_stats[rows],
            values={tap: value[rows] for tap, value in self.values.items()},
            **texts,
        )

    def in_order(self) -> Rows:
        """Return the rows in the order of content hashes, then of paths; of rows that are equal in all texts one."""
        return self.select(self.order())

    def order(self) -> list[int]:
        """Return the indices of the rows that ``in_order`` returns."""
        kept: dict[tuple[object, ...], int] = {}
        for i, content_hash in enumerate(self.hashes):
            kept.setdefault((content_hash, *(getattr(self, name)[i] for name in TEXTS)), i)
        order = sorted(kept, key=lambda key: tuple((part is not None, part) for part in key))
        return [kept[key] for key in order]


def joined(parts: Iterable[Rows], count: int) -> Rows:
    """Return the ``count`` rows of all parts, which have the same taps, one after the other; new arrays.

    Parts are taken one at a time: of a generator's, the memory is that of all rows and of one part. There is one at
    least.
    """
    texts: dict[str, list[str | None]] = {name: [] for name in TEXTS}
    arrays: dict[str, NDArray[Any]] = {}
    start = 0
    for part in parts:
        for name, value in _arrays(part).items():
            if name not in arrays:
                arrays[name] = np.empty((count, *value.shape[1:]), value.dtype)
            arrays[name][start : start + len(part)] = value
        for name, of_all in texts.items():
            of_all += getattr(part, name)
        start += len(part)
    assert start == count
    return _rows(arrays, {name: tuple(of_all) for name, of_all in texts.items()})


def put_in_order(rows: Rows) -> Rows:
    """Return what ``Rows.in_order`` does, in the arrays of ``rows``, which only the caller may have: a second copy of
    millions of rows would take gigabytes.
    """
    order = np.array(rows.order(), np.int64)
    if np.array_equal(order, np.arange(len(rows))):
        return rows
    arrays = _arrays(rows)
    for name, value in arrays.items():
        for start in range(0, value.shape[1], ORDERED):
            columns = slice(start, start + ORDERED)
            value[: len(order), columns] = value[:, columns][order]
        arrays[name] = value[: len(order)]
    return _rows(arrays, {name: tuple(getattr(rows, name)[i] for i in order.tolist()) for name in TEXTS})


def _arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    """Return the arrays of rows [n, ...] by name; those of taps by ``tap:`` and its name."""
    of_taps = {f"tap:{tap}": value for tap, value in rows.values.items()}
    return {**{name: getattr(rows, name) for name in ARRAYS}, **of_taps}


def _rows(arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, tuple[Any, ...]]) -> Rows:
    """Return the rows of arrays by the names of ``_arrays``, and of texts."""
    values = {name.removeprefix("tap:"): value for name, value in arrays.items() if name.startswith("tap:")}
    fields: dict[str, Any] = {**{name: arrays[name] for name in ARRAYS}, **texts}
    return Rows(values=values, **fields)


@dataclass(frozen=True)
class Machine:
    """What a feature depends on beside the image and the backbone, and features of images that are the same everywhere.

    ``instruction_set`` is that of ``machine.instruction_set``; ``golden`` has by tap the features [8, channels] float32
    of the rendered images that a model made of rows proves itself with.
    """

    runtime: RuntimeInfo
    instruction_set: str
    golden: Mapping[str, NDArray[np.float32]]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.runtime.name} {self.runtime.version} {self.runtime.precision} on {self.instruction_set}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: numbers as little-endian float32 in base64."""
        golden = {tap: base64.b64encode(value.astype("<f4").tobytes()).decode() for tap, value in self.golden.items()}
        return {"runtime": self.runtime.to_dict(), "instruction_set": self.instruction_set, "golden": golden}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], taps: Mapping[str, int]) -> Machine:
        """Build from the form of ``to_dict``. Raises ValueError, KeyError, TypeError."""
        golden = {}
        for tap, channels in taps.items():
            data = base64.b64decode(value["golden"][tap], validate=True)
            numbers = np.frombuffer(data, "<f4").astype(np.float32)
            if len(numbers) != GOLDEN_IMAGES * channels or not np.isfinite(numbers).all():
                raise ValueError(f"golden features of {tap} are not {GOLDEN_IMAGES} vectors of {channels} numbers")
            golden[tap] = numbers.reshape(GOLDEN_IMAGES, channels)
        runtime = RuntimeInfo(*(_text(value["runtime"][name]) for name in ("name", "version", "precision")))
        return cls(runtime, _text(value["instruction_set"]), golden)


@dataclass(frozen=True)
class Unread:
    """An image that could not be read: why, and what is known of it.

    ``content_hash`` is the SHA-256 of its bytes in hexadecimal, empty where there are none; ``label`` and ``split`` are
    empty for one that was refused while its folder was listed.
    """

    path: str
    reason: str
    label: str = ""
    split: str = ""
    content_hash: str = ""


@dataclass(frozen=True)
class Source:
    """What rows were computed from and by.

    ``backbone`` has id, sha256, licence, source and precision; ``taps`` the exponents of the steps of the channels of
    each tap (``backbones.steps``), shallow to deep;
    ``machines`` are several only where a mix was allowed. ``uri``, ``layout``, ``class_names``, ``notes`` and
    ``skipped`` are those of the dataset, ``unread`` the images that could not be read. ``is_multi_label`` says that
    images may have several labels.
    """

    backbone: Mapping[str, str]
    taps: Mapping[str, tuple[int, ...]]
    input_options: InputOptions | None
    preprocess: Preprocess
    machines: tuple[Machine, ...]
    uri: str = ""
    layout: str = ""
    class_names: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unread: tuple[Unread, ...] = ()
    is_multi_label: bool = False

    @property
    def channels(self) -> dict[str, int]:
        """The number of channels of each tap, shallow to deep."""
        return {tap: len(exponents) for tap, exponents in self.taps.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "backbone": dict(self.backbone),
            "taps": {tap: " ".join(map(str, exponents)) for tap, exponents in self.taps.items()},
            "input_options": None if self.input_options is None else asdict(self.input_options),
            "preprocess": self.preprocess.to_dict(),
            "machines": [machine.to_dict() for machine in self.machines],
            "uri": self.uri,
            "layout": self.layout,
            "class_names": [list(pair) for pair in self.class_names],
            "notes": list(self.notes),
            "skipped": [asdict(item) for item in self.skipped],
            "unread": [asdict(image) for image in self.unread],
            **({"multi_label": True} if self.is_multi_label else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Source:
        """Build from the form of ``to_dict``, which may come from anyone.

        Raises OptionError, ValueError, KeyError, TypeError, AttributeError.
        """
        taps = {_text(name): tuple(map(int, str(steps).split())) for name, steps in value["taps"].items()}
        low, high = EXPONENTS
        if not taps or not all(steps and all(low <= step <= high for step in steps) for steps in taps.values()):
            raise ValueError(f"taps are {str(value['taps'])[:100]}; expected the exponents of the steps of each")
        channels = {tap: len(steps) for tap, steps in taps.items()}
        machines = tuple(Machine.from_dict(machine, channels) for machine in value["machines"])
        if not 0 < len(machines) <= MAX_MIXED:
            raise ValueError(f"{len(machines)} machines")
        return cls(
            {_text(name): _text(text) for name, text in value["backbone"].items()},
            taps,
            _input_options(value["input_options"]),
            Preprocess.from_dict(value["preprocess"]),
            machines,
            _text(value["uri"]),
            _text(value["layout"]),
            tuple((_text(old), _text(new)) for old, new in value["class_names"]),
            tuple(_text(note) for note in value["notes"]),
            tuple(Skipped(_text(item["path"]), _text(item["reason"])) for item in value["skipped"]),
            tuple(unread_from_dict(image) for image in value["unread"]),
            value.get("multi_label") is True,
        )


def unread_from_dict(value: Mapping[str, Any]) -> Unread:
    """Build from the JSON form. Raises ValueError, KeyError, TypeError."""
    limits = {"label": MAX_LABELS_TEXT}
    image = Unread(**{f.name: _text(value[f.name], limits.get(f.name, MAX_TEXT)) for f in fields(Unread)})
    if image.split and image.split not in SPLITS:
        raise ValueError(f"{image.split[:40]!r} is no split")
    if image.content_hash and not re.fullmatch("[0-9a-f]{64}", image.content_hash):
        raise ValueError(f"{image.content_hash[:80]!r} is no SHA-256")
    return image


def is_text(value: object, limit: int = MAX_TEXT) -> bool:
    """Return whether a value is a text of at most ``limit`` characters.

    Halves of characters (surrogates) are none, except those that stand for a byte of a name that is not UTF-8.
    """
    return isinstance(value, str) and len(value) <= limit and not NO_CHARACTER.search(value)


def _text(value: object, limit: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or not is_text(value, limit):
        raise ValueError(f"{str(value)[:40]!r} is not a text of at most {limit:,} characters")
    return value


def _input_options(value: Mapping[str, Any] | None) -> InputOptions | None:
    if value is None:
        return None
    known = {field.name for field in fields(InputOptions)}
    if unknown := set(value) - known:
        raise ValueError(f"unknown options {sorted(unknown)[:3]}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return InputOptions(**values)


@dataclass(frozen=True)
class FeatureRows:
    """Rows with what they were computed from and by."""

    source: Source
    rows: Rows


def merge(parts: Sequence[FeatureRows], names: Sequence[str], *, mixed: bool = False) -> FeatureRows:
    """Put parts together: the same result for any cut of the images into parts, and any order of those.

    ``names`` are those of the parts, for messages. Rows that are in several parts count once. With ``mixed`` parts may
    be computed by different runtimes, versions, precisions and instruction sets. Raises OptionError for parts that were
    not computed alike.
    """
    source, order = merge_sources([part.source for part in parts], names, mixed=mixed)
    rows = joined((parts[i].rows for i in order), sum(len(part.rows) for part in parts))
    return FeatureRows(source, put_in_order(rows))


def merge_sources(sources: Sequence[Source], names: Sequence[str], *, mixed: bool = False) -> tuple[Source, list[int]]:
    """Return the source of all parts, and the order in which their rows are joined.

    An image that several parts have is so taken from the same one, whatever their order. All else is as in ``merge``.
    """
    first = sources[0]
    for other, name in zip(sources[1:], names[1:], strict=True):
        _check_alike(first, other, names[0], name)
    machines = {_key(machine): machine for source in sources for machine in source.machines}
    if len(machines) > 1 and not mixed:
        told = ", ".join(sorted({machine.name for machine in machines.values()}))
        what = f"computed by {told}" if ", " in told else f"of different values for the same images, all by {told}"
        raise OptionError(
            f"The features are {what}: an image's features differ a little between them, and the model would depend on "
            "which image came from where; compute them alike, or give --mixed."
        )
    order = sorted(range(len(sources)), key=lambda i: [_key(machine) for machine in sources[i].machines])
    source = replace(
        first,
        backbone=min((source.backbone for source in sources), key=lambda backbone: sorted(backbone.items())),
        machines=tuple(machine for _, machine in sorted(machines.items())),
        uri=", ".join(sorted({source.uri for source in sources}))[:MAX_TEXT],
        layout=", ".join(sorted({source.layout for source in sources if source.layout}))[:MAX_TEXT],
        class_names=tuple(sorted({pair for source in sources for pair in source.class_names})),
        notes=tuple(sorted({note for source in sources for note in source.notes})),
        skipped=tuple(sorted({item for s in sources for item in s.skipped}, key=lambda i: (i.path, i.reason))),
        unread=tuple(sorted({image for s in sources for image in s.unread}, key=lambda i: (i.path, i.reason))),
    )
    return source, order


def _check_alike(first: Source, other: Source, first_name: str, name: str) -> None:
    """Raise OptionError where two parts have another kind of labels or backbone, or other images for it."""
    if first.is_multi_label != other.is_multi_label:
        kinds = [
            f"{name} has {'several labels' if s.is_multi_label else 'one class'} an image"
            for name, s in ((first_name, first), (name, other))
        ]
        raise OptionError(
            f"{' and '.join(kinds)}, which are not fitted together; read the tables of both with --multi-label."
        )
    one, two = ((s.backbone["id"], s.backbone["sha256"][:12], s.backbone["precision"]) for s in (first, other))
    if one[1:] != two[1:]:
        told = [f"{id} in {precision} ({sha256})" for id, sha256, precision in (one, two)]
        raise OptionError(
            f"{first_name} has features of {told[0]}, {name} of {told[1]}; compute them with one backbone."
        )
    if first.channels != other.channels or [*first.taps] != [*other.taps]:
        raise OptionError(
            f"{first_name} has features of {', '.join(first.taps)}, {name} of {', '.join(other.taps)}; compute both at "
            "the same taps."
        )
    if dict(first.taps) != dict(other.taps):
        raise OptionError(
            f"The features of {first_name} and {name} were rounded to other steps; compute both with one version of "
            "Headstart."
        )
    ours, theirs = first.preprocess.to_dict(), other.preprocess.to_dict()
    names = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if names:
        differing = ", ".join(f"{key} {ours.get(key)} and {theirs.get(key)}" for key in names)
        raise OptionError(
            f"The images of {first_name} and {name} were not prepared alike ({differing}); compute them with the same "
            "options (sample_range comes from training images of more than 8 bits: turn those into 8 bits first)."
        )


def _key(machine: Machine) -> str:
    return f"{machine.name} {machine.to_dict()['golden']}"
