"""Archives in the form of WebDataset: files whose names are alike up to the first dot belong to one image.

``000017.jpg`` has its label in ``000017.cls`` (a number or a name), or in ``000017.json`` under one of the names that
columns of tables have, where its split and group may stand as well. Images without a label are skipped, by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from headstart.data.dataset import Dataset
from headstart.data.layout import class_folders
from headstart.data.reading import ReadOptions, Source
from headstart.data.table_columns import COLUMNS
from headstart.data.table_files import Table
from headstart.data.table_paths import MemberFiles
from headstart.data.tables import from_rows
from headstart.errors import ImageError
from headstart.images.decoding import is_image_name

LABEL_SUFFIXES = ("cls", "json")
MAX_LABEL = 2**16  # bytes of a file with a label


def is_webdataset(names: Sequence[str]) -> bool:
    """Return whether the files of an archive are in this form: an image has its label in a file beside it.

    JSON beside the images of class folders says other things about them, as programs that download images write it;
    folders that are numbered are shards.
    """
    images = [name for name in names if is_image_name(name)]
    beside = {suffix: {_key(name) for name in names if _suffix(name) == suffix} for suffix in LABEL_SUFFIXES}
    if any(_key(name) in beside["cls"] for name in images):
        return True
    if not any(_key(name) in beside["json"] for name in images):
        return False
    classes = class_folders(images)
    return len(classes) < 2 or all(name.isdigit() for name in classes)


def from_webdataset(uri: str, source: Source, options: ReadOptions) -> Dataset:
    """Build the dataset that an archive in the form of WebDataset holds. Raises DataError."""
    beside: dict[str, dict[str, int]] = {}
    for key, name in enumerate(source.names):
        if _suffix(name) in LABEL_SUFFIXES:
            beside.setdefault(_key(name), {})[_suffix(name)] = key
    rows = [
        {**_values(source, beside.get(_key(name), {}), options), "path": name}
        for name in source.names
        if is_image_name(name)
    ]
    read_by = replace(options, path_column="path", label_column="label", split_column="split", group_column="group")
    dataset = from_rows(uri, Table(tuple(rows[0]), rows), MemberFiles(uri, source, ""), read_by)
    root = source.root.rstrip("/")
    return replace(
        dataset,
        items=tuple(replace(item, path=f"{root}/{item.path}") for item in dataset.items),
        skipped=(*source.skipped, *(replace(one, path=f"{root}/{one.path}") for one in dataset.skipped)),
        quarantined=tuple(source.quarantined),
        layout="WebDataset",
    )


def _values(source: Source, files: dict[str, int], options: ReadOptions) -> dict[str, object]:
    """Return the label, split and group that the files beside an image say; None of what cannot be read."""
    found: dict[str, object] = {}
    if "json" in files:
        with suppress(ValueError, RecursionError):  # the image is then skipped as one without a label
            value = json.loads(_read(source, files["json"]))
            found = {str(name): value[name] for name in value} if isinstance(value, dict) else {}
    values: dict[str, object] = {}
    for role in ("label", "split", "group"):
        given = getattr(options, f"{role}_column")
        values[role] = next((found[name] for name in ([given] if given else COLUMNS[role]) if name in found), None)
    if "cls" in files:
        values["label"] = _read(source, files["cls"]).decode("utf-8", "replace").strip()
    return values


def _read(source: Source, key: int) -> bytes:
    try:
        data = source.read(key)
    except ImageError:
        return b""
    return data if len(data) <= MAX_LABEL else b""


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()
