"""The files of a model folder: which there are, how they are read within limits, and what a model may replace."""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data import IMAGE_LIST
from headstart.errors import ModelError, OptionError, one_line
from headstart.features.rows_folder import is_rows_folder
from headstart.files import TEMPORARY, read_json, recover_folder
from headstart.images.snippet import SNIPPET_FILE
from headstart.machine import is_left_by_system, why_not_replaceable
from headstart.model.model import HASH_BYTES, Model

LIMITS = {
    "config.json": 16 * 2**20,  # parsed, JSON takes up to 50 times the memory
    "run.json": 16 * 2**20,
    "head.safetensors": 2 * 2**30,
    "golden.npz": 256 * 2**20,
    "model.onnx": 2 * 2**30,
    "training_images.bin": 256 * 2**20,
}
LIBRARY = "headstart"  # library_name of config.json: it says that a folder was written by this library
# All files that are ever written into a model folder.
OUR_FILES = frozenset({*LIMITS, "README.md", SNIPPET_FILE, "report.html", "report.json", "skipped.csv", "training.svg"})
FEATURES = "features"  # the folder within that holds the rows of a model that keeps them
MIN_COMMON_IMAGES = 0.5  # share of a model's training images that make another one its successor


def check_output_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder if a model may be written there: it is new, empty, or holds a model of ours and nothing else.

    Raises OptionError where it holds anything that Headstart did not write, and where nothing can be written; nothing
    in it is touched.
    """
    target = Path(folder)
    recover_folder(target)
    if reason := why_not_replaceable(target):
        raise OptionError(f"Cannot write the model to {target}: {reason}; give another name for the model.")
    entries = target.iterdir() if target.exists() else ()
    names = sorted(entry.name for entry in entries if not is_left_by_system(entry))
    if names and not _is_ours(target / "config.json"):
        raise OptionError(f"{target} holds files that are not a Headstart model; give another name for the model.")
    # A run that was killed while it wrote a report has left an unfinished file.
    ours = {name for name in names if name in OUR_FILES or name.startswith(TEMPORARY)}
    ours |= {FEATURES} if is_rows_folder(target / FEATURES) else set()
    foreign = [name for name in names if name not in ours or ((target / name).is_dir() and name != FEATURES)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OptionError(
            f"{target} is a model, but also holds {', '.join(foreign[:3])}{more}, which Headstart did not write; "
            "move that elsewhere, or give another name for the model."
        )
    return target


def _is_ours(config: Path) -> bool:
    """Return whether a config.json says that Headstart wrote it: many other programs keep a file of that name."""
    try:
        return read_json(config, LIMITS["config.json"]).get("library_name") == LIBRARY
    except (OSError, ValueError):
        return False


def check_same_classes(target: Path, classes: Set[str], *, are_final: bool = True) -> None:
    """Raise OptionError if a folder holds a model of other classes.

    Before the images are read, classes are not final: those of which no image can be read will be missing.
    """
    if (target / "config.json").exists():
        known = _stored_classes(target)
        if not (known == classes if are_final else known and known <= classes):
            names = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "")
            raise OptionError(
                f"{target} holds a model of other classes ({names or 'unknown'}); give --overwrite to replace it, or "
                "another name for the model."
            )


def check_same_data(target: Path, model: Model) -> None:
    """Raise OptionError if a folder holds a model of other data, as ``write_model`` says."""
    check_same_classes(target, set(model.classes))
    if not (target / "config.json").exists():
        return
    try:
        uri = read_json_file(target, "run.json")["data"]["uri"]
        hashes = read_training_hashes(target)
    except (ModelError, KeyError, TypeError):
        uri, hashes = None, None
    if uri not in (None, IMAGE_LIST) and uri == model.run.get("data", {}).get("uri"):
        return
    share = 0.0
    if hashes is not None and model.training_hashes is not None and len(hashes):
        own = {row.tobytes() for row in model.training_hashes}
        share = sum(row.tobytes() in own for row in hashes) / len(hashes)
    if share < MIN_COMMON_IMAGES:
        raise OptionError(
            f"{target} holds a model of other images, from {uri or 'an unknown source'}; give --overwrite to replace "
            "it, or another name for the model."
        )


def check_keeps_none(target: Path) -> None:
    """Raise OptionError if a folder holds a model that keeps features, which one that keeps none would delete."""
    if is_rows_folder(target / FEATURES):
        raise OptionError(
            f"{target} keeps the features of its images, and a model that keeps none would delete them; fit it with "
            "--keep-features, give --overwrite to replace it, or another name for the model."
        )


def _stored_classes(folder: Path) -> set[str]:
    """Return the classes of the model in a folder; none if it cannot be read."""
    try:
        return set(map(str, read_json(folder / "config.json", LIMITS["config.json"])["id2label"].values()))
    except (OSError, ValueError, KeyError, AttributeError):
        return set()


def read_training_hashes(folder: Path) -> NDArray[np.uint8] | None:
    """Read the hashes of the training images, where the folder has them."""
    if not (folder / "training_images.bin").exists():
        return None
    data = read_bytes(folder, "training_images.bin")
    if len(data) % HASH_BYTES:
        raise ModelError(f"{folder}: training_images.bin is cut off; copy it again, or delete it.")
    return np.frombuffer(data, np.uint8).reshape(-1, HASH_BYTES)


def read_bytes(folder: Path, name: str) -> bytes:
    """Read a file of a model folder. Raises ModelError if it is missing, a link out of it or too large."""
    return checked_file(folder, name).read_bytes()


def read_json_file(folder: Path, name: str) -> dict[str, Any]:
    """Read the JSON object in a file of a model folder. Raises ModelError, also if it is damaged."""
    try:
        return read_json(checked_file(folder, name), LIMITS[name])
    except OSError as error:
        raise ModelError(f"{folder}: {name} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise ModelError(f"{folder}: {name} is damaged: {one_line(error)}.") from None


def within_limit(name: str, data: bytes) -> bytes:
    """Return the bytes to write to a file. Raises ModelError where they are more than a reader takes."""
    if len(data) > LIMITS[name]:
        raise ModelError(f"{name} would have {len(data):,} bytes, more than {LIMITS[name]:,}; use shorter class names.")
    return data


def checked_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the folder that is there, no link out of it, and not too large."""
    file = folder / name
    if not file.is_file():
        raise ModelError(f"{folder} has no {name}; the folder is incomplete: copy or fit it again.")
    if file.resolve().parent != folder.resolve():
        raise ModelError(f"{folder}: {name} is a link out of the folder; refused.")
    if file.stat().st_size > LIMITS[name]:
        raise ModelError(f"{folder}: {name} has more than {LIMITS[name]:,} bytes; refused.")
    return file
