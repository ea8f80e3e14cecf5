"""What an export is, as ``parity.json`` says it, and the files that it consists of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.errors import ModelError, OptionError, untrusted
from headstart.files import TEMPORARY, read_json, recover_folder
from headstart.images.preprocess import Preprocess
from headstart.machine import is_left_by_system, why_not_replaceable
from headstart.model.model import Model
from headstart.stats.decision import DecisionRule
from headstart.stats.label_thresholds import LabelThresholds

PARITY = "parity.json"
PROOF = "proof"  # the folder of the images that an export is proven on
LIBRARY = "headstart export"
FORMAT, LABEL_FORMAT = 1, 2  # of one class an image, and of several labels
MAX_JSON_BYTES = 64 * 2**20
MAX_FILE_BYTES = 2 * 2**30
MAX_FILES = 1000


@dataclass(frozen=True)
class About:
    """What an export is: its format ``to``, its precision, and what its outputs mean.

    ``any_size``: it takes one decoded image of any size. ``preprocess`` is how its images are prepared, where it takes
    prepared ones, else what it does itself. ``batch`` is the only batch size it takes (None: any). Where an image may
    have several labels, ``label_thresholds`` decide which hold, and ``classes`` are the labels.
    """

    to: str
    precision: str
    any_size: bool
    classes: tuple[str, ...]
    preprocess: Preprocess
    batch: int | None
    rule: DecisionRule | None = None
    label_thresholds: LabelThresholds | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.label_thresholds is not None

    @classmethod
    def of(cls, model: Model, to: str, precision: str, *, any_size: bool, scales: bool) -> About:
        """Describe the export of a model to a format that ``scales`` JPEG files as it decodes them, or cannot."""
        preprocess = model.preprocess if scales else replace(model.preprocess, decode="full")
        decides = (model.rule, model.label_thresholds)
        return cls(to, precision, any_size, model.classes, preprocess, model.batch, *decides)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        values = {
            "to": self.to,
            "precision": self.precision,
            "any_size": self.any_size,
            "classes": list(self.classes),
            "preprocess": self.preprocess.to_dict(),
            "batch": self.batch,
        }
        if self.rule is not None:
            values["decision"] = self.rule.to_dict()
        if self.label_thresholds is not None:
            values["label_thresholds"] = self.label_thresholds.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> About:
        """Build from the form of ``to_dict``. Raises OptionError, KeyError, TypeError, ValueError."""
        classes, batch = values["classes"], values["batch"]
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes are not texts")
        labels = None
        if "label_thresholds" in values:
            labels = LabelThresholds.from_dict(values["label_thresholds"], len(classes))
        elif len(classes) < 2:
            raise ValueError("there are not two classes or more")
        if batch is not None and not (type(batch) is int and 1 <= batch <= 4096):
            raise ValueError(f"batch {batch!r} cannot be used")
        rule = DecisionRule.from_dict(values["decision"], len(classes)) if "decision" in values else None
        return cls(
            str(values["to"]),
            str(values["precision"]),
            values["any_size"] is True,
            tuple(classes),
            Preprocess.from_dict(values["preprocess"]),
            batch,
            rule,
            labels,
        )


def is_export(folder: Path) -> bool:
    """Return whether a folder holds an export, or something that has its ``parity.json``."""
    return (folder / PARITY).is_file()


def read_parity(folder: Path) -> tuple[About, dict[str, Any]]:
    """Read ``parity.json``. Raises ModelError."""
    recover_folder(folder)
    with untrusted(f"{folder}: {PARITY}", ModelError):
        try:
            values = read_json(folder / PARITY, MAX_JSON_BYTES)
            if values.get("library_name") != LIBRARY:
                raise ModelError(f"{folder}: {PARITY} is not Headstart's; export the model again.")
            if values.get("format") not in (FORMAT, LABEL_FORMAT):
                raise ModelError(f"{folder} is an export of format {values.get('format')}; upgrade headstart.")
            if not all(isinstance(name, str) for name in values["files"].values()):
                raise ValueError("files have no hashes")
            about = About.from_dict(values["about"])
            if values["format"] != (LABEL_FORMAT if about.is_multi_label else FORMAT):
                raise ValueError("its format is not that of its labels")
            return about, values
        except (OSError, OptionError) as error:
            raise ModelError(f"{folder}: {PARITY} cannot be used: {error}") from None


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder but ``parity.json``, by its path in the folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != PARITY]
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def changed_files(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Return which files of an export are missing, or not those that were proven.

    Raises ModelError for odd paths, and for what is no file, or a link out of the folder: a runtime would read that.
    """
    root = f"{os.path.realpath(folder)}{os.sep}"
    for path in folder.rglob("*"):
        is_inside = os.path.realpath(path).startswith(root)  # ``resolve`` raises for a link to itself
        if not (is_inside and (path.is_file() or path.is_dir())):
            raise ModelError(
                f"{path} is no file, or a link out of the folder; refused: remove it, or export the model again."
            )
    changed = []
    for name, expected in list(hashes.items())[:MAX_FILES]:
        path = folder / name
        if not os.path.realpath(path).startswith(root):
            raise ModelError(f"{folder}: {PARITY} names {name}, which lies outside of the folder; refused.")
        if not path.is_file():
            changed.append(f"{name} (missing)")
        elif path.stat().st_size > MAX_FILE_BYTES or hash_file(path) != expected:
            changed.append(name)
    return changed


def check_output_folder(folder: Path) -> Path:
    """Return the folder if an export may be written there: it is new, empty, or an export and nothing else.

    Raises OptionError.
    """
    recover_folder(folder)
    if reason := why_not_replaceable(folder):
        raise OptionError(f"Cannot write the export to {folder}: {reason}; give another name with -o.")
    if not folder.exists() or all(map(is_left_by_system, folder.iterdir())):
        return folder
    if not is_export(folder):
        raise OptionError(f"{folder} holds files that are not an export; give another name with -o.")
    try:
        known = {PARITY, *read_parity(folder)[1]["files"]}
    except ModelError as error:
        raise OptionError(f"{folder} may not be replaced: {error}") from None
    paths = (path for path in folder.rglob("*") if not (path.is_dir() or is_left_by_system(path)))
    names = (path.relative_to(folder).as_posix() for path in paths)
    foreign = [name for name in names if name not in known and not name.startswith(TEMPORARY)]
    if foreign:
        raise OptionError(
            f"{folder} is an export, but also holds {', '.join(sorted(foreign)[:3])}, which Headstart did not write; "
            "move that elsewhere, or give another name with -o."
        )
    return folder
