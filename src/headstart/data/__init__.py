"""Labelled images from folders, archives, tables, URLs, or Python lists.

dataset.py        Dataset, Item, Quarantined, Skipped: the form that every source takes
sources.py        local folders, archives, and fsspec URLs of either
archives.py       zip and tar archives, read in place
reading.py        ReadOptions, and files read within limits
labels.py         labels in Python lists, arrays and columns
layout.py         class and split names from a listing of paths
other_formats.py  what people bring that is not read, and what to do instead
inputs.py         images to predict, with labels or without
table_files.py    rows of CSV and JSON-lines files
parquet.py        rows of Parquet files, and the images in them
table_paths.py    the files that a table names
fetch.py          files behind https addresses
table_columns.py  which columns of a table hold path, label, split and group
tables.py         datasets that a table lists
webdataset.py     archives in which a file beside each image holds its label
label_cells.py    one label or several in the cells of a table
label_sets.py     several labels as Python programs hold them
class_names.py    classes renamed, merged and left out
class_values.py   weights and costs of classes in a file
download.py       public datasets by name
paced.py          connections that must not be too slow
rendered/         a sample dataset, rendered on this machine
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from posixpath import dirname
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import SPLITS, Dataset, Item, Quarantined, Skipped, concatenate, group_numbers
from headstart.data.label_sets import label_list, label_sets
from headstart.data.labels import as_list, check_labels, class_name, is_missing, labels_by_class
from headstart.data.layout import LAYOUTS, find_tables, from_listing, passed_over
from headstart.data.reading import ReadOptions, Source, read_file
from headstart.errors import DataError
from headstart.images.arrays import float_scale, is_pil_image, is_single_array, to_pixels
from headstart.images.decoding import is_image_name

logger = logging.getLogger(__name__)
IMAGE_LIST = "the list of images"  # the URI of all of them: unlike that of a source, it does not tell two apart

__all__ = [
    "IMAGE_LIST",
    "LAYOUTS",
    "SPLITS",
    "Dataset",
    "Item",
    "Quarantined",
    "ReadOptions",
    "Skipped",
    "as_dataset",
    "concatenate",
    "from_images",
    "group_numbers",
    "open_dataset",
]


def open_dataset(uri: str | os.PathLike[str], options: ReadOptions | None = None) -> Dataset:
    """Open the dataset at a path or an fsspec URL.

    Folders and archives (zip, tar) hold ``class/image``, ``split/class/image`` or ``class/split/image``; a folder of
    archives has one for each class or split; tables (CSV, Parquet, JSON lines) have a path and a label column and
    optionally a split and a group column; a folder with images right in it and a table beside them is read by the
    table, and one with nothing else is an unlabelled set. ``options.classes`` renames classes at last. Raises DataError
    if nothing usable is there, OptionError.
    """
    from headstart.data.class_names import doubtful_names_notes, rename_classes, similar_names_notes

    options = options or ReadOptions()
    dataset = _open(os.fspath(uri), options)
    if options.classes is not None:
        dataset = rename_classes(dataset, options.classes)
    if dataset.is_multi_label is False and (options.multi_label or options.label_separator):
        raise DataError(f"{dataset.uri} is read by its folders, one label an image; several labels need a table.")
    images, skipped = len(dataset) + len(dataset.quarantined), len(dataset.skipped)
    logger.info(
        "%s read as %s: %d images of %d classes, %d %s skipped",
        *(dataset.uri, dataset.layout or "images", images, len(dataset.classes or dataset.label_names)),
        *(skipped, "file" if skipped == 1 else "files"),
    )
    if dataset.is_multi_label:
        logger.info("%s: %s", dataset.uri, dataset.label_summary)
    for file in dataset.skipped:
        logger.debug("skipped %r: %s", file.path, file.reason)
    names = dataset.classes or dataset.label_names
    return replace(dataset, notes=(*dataset.notes, *similar_names_notes(names), *doubtful_names_notes(dataset.classes)))


def _open(text: str, options: ReadOptions) -> Dataset:
    """Open the dataset at a path or URL, with the classes that it has."""
    from headstart.data.sources import open_source
    from headstart.data.table_files import is_table
    from headstart.data.tables import from_table
    from headstart.data.webdataset import from_webdataset, is_webdataset

    if is_table(text):
        return from_table(text, options)
    source = open_source(text, follow_links=options.follow_links)
    tables = find_tables(text, source.names) if options.layout == "auto" else {}
    if tables:
        return _from_tables(text, source, tables, options)
    if options.layout == "auto" and not source.is_folder and is_webdataset(source.names):
        return from_webdataset(text, source, options)
    for column in (options.path_column, options.label_column, options.split_column, options.group_column):
        if column is not None:
            mend = (
                "group by auto, none, folder, name:PATTERN or exif"
                if column == options.group_column
                else "leave it out"
            )
            raise DataError(f"{text} is not a table, so it has no column {column!r}; {mend}.")
    return from_listing(text, source, options.layout)


def _from_tables(uri: str, source: Source, tables: Mapping[str, str | None], options: ReadOptions) -> Dataset:
    """Open a folder or an archive by the tables in it, each of which may be of one split."""
    from headstart.data.table_paths import file_key

    has_images = any(is_image_name(name) for name in source.names)
    left_out: list[str] = []
    known: dict[str, Dataset] = {}
    if has_images and next(iter(tables.values())) is None:  # tables of the other splits lie beside that of training
        tables, left_out, known = _with_labels(uri, source, tables, options)
    joined = concatenate(*_read_tables(uri, source, tables, options, known))
    first, *more = tables
    names = f"{first} and {len(more)} more tables" if len(more) > 1 else " and ".join(tables)
    root = "" if source.is_folder else f"{source.root.rstrip('/')}/"
    named = {file_key(path) for path in (*(item.path for item in joined.items), *(r.path for r in joined.skipped))}
    unnamed = [
        path
        for name in source.names
        if is_image_name(name) and not passed_over(name) and file_key(path := root + name) not in named
    ]
    notes = [f"{uri} was read by {names}; to read its folders instead, give --layout."] if has_images else []
    return replace(
        joined,
        classes=tuple(sorted(joined.classes)),
        label_names=tuple(sorted(joined.label_names)),
        skipped=(*joined.skipped, *(Skipped(path, f"not in {names}") for path in unnamed)),
        notes=(*notes, *left_out, *joined.notes),
    )


def _with_labels(
    uri: str, source: Source, tables: Mapping[str, str | None], options: ReadOptions
) -> tuple[dict[str, str | None], list[str], dict[str, Dataset]]:
    """Return the first table and those of the others that have labels of it, notes on the rest, and what was read.

    A competition has a table of its test images, without labels, or with one that stands for all.
    """
    first, *more = tables
    kept, notes, read = {first: tables[first]}, list[str](), dict[str, Dataset]()
    if not more:
        return kept, notes, read
    read[first] = _read_table_of(uri, source, first, tables[first], options)
    known = _label_names(read[first])
    for name in more:
        try:
            dataset = _read_table_of(uri, source, name, tables[name], options)
            found = _label_names(dataset)
            reason = "" if found & known else f"it has none of the labels of {first}"
            if len(found) == 1 < len(known) and len(dataset) > 1:
                reason = f"all its rows have one label, {next(iter(found))!r}"
        except DataError as error:
            reason = str(error).rstrip(".")
        if reason:
            notes.append(f"{name} was not read: {reason}.")
        else:
            kept[name], read[name] = tables[name], dataset
    return kept, notes, read


def _label_names(dataset: Dataset) -> set[str]:
    return {*dataset.classes, *dataset.label_names}


def _read_tables(
    uri: str, source: Source, tables: Mapping[str, str | None], options: ReadOptions, read: Mapping[str, Dataset]
) -> list[Dataset]:
    """Return each table of a folder or an archive, with paths from its root. One that is multi-label makes all so.

    Those that were ``read`` are not read again.
    """
    datasets: list[Dataset] = []
    failure: DataError | None = None
    for table, split in tables.items():
        try:
            datasets.append(read[table] if table in read else _read_table_of(uri, source, table, split, options))
        except DataError as error:  # which may be that no image has a label, or one of several tables
            failure = failure or error
    if any(dataset.is_multi_label for dataset in datasets) and options.multi_label is None:
        if failure is not None or not all(dataset.is_multi_label for dataset in datasets):
            return _read_tables(uri, source, tables, replace(options, multi_label=True), {})
    elif failure is not None:
        raise failure
    return datasets


def _read_table_of(uri: str, source: Source, table: str, split: str | None, options: ReadOptions) -> Dataset:
    from headstart.data.tables import NO_PATH, from_member, from_table

    if source.is_folder:
        dataset, root = from_table(f"{uri}/{table}", options), ""
    else:
        dataset, root = from_member(source, table, options), f"{source.root.rstrip('/')}/"
    folder = root + table[: table.rfind("/") + 1]
    items = tuple(replace(item, path=_below(folder, item.path), split=split or item.split) for item in dataset.items)
    skipped = tuple(
        row if row.reason == NO_PATH else replace(row, path=_below(folder, row.path)) for row in dataset.skipped
    )
    return replace(dataset, uri=uri, items=items, skipped=skipped, folder=uri if source.is_folder else "")


def _below(folder: str, path: str) -> str:
    """Return a path in ``folder``; an address stays as it is."""
    return path if "://" in path else f"{folder}{path}"


def as_dataset(
    images: Any,
    labels: Iterable[object] | None = None,
    groups: Iterable[object] | None = None,
    options: ReadOptions | None = None,
) -> Dataset:
    """Turn what a user has into a dataset: a dataset, the path or URL of one, or a list for ``from_images``.

    Labels and groups are those of a list. Raises DataError, OptionError.
    """
    is_path = isinstance(images, str | os.PathLike)
    is_image = is_path and is_image_name(os.fspath(images)) and os.path.isfile(images)  # noqa: PTH113
    if isinstance(images, Dataset) or (is_path and not is_image):
        if labels is not None or groups is not None:
            what = "groups" if labels is None else "y"
            raise DataError(f"A dataset has its own labels and groups; leave {what} out, or give a list of images.")
        return images if isinstance(images, Dataset) else open_dataset(images, options)
    if is_image or is_pil_image(images) or isinstance(images, bytes) or is_single_array(images):
        shape = getattr(images, "shape", ())
        rows = "; where its rows are images, reshape it to [n, height, width]" if len(shape) == 2 else ""
        raise DataError(f"Expected a list of images, got a single one; put it in a list{rows}.")
    if not isinstance(images, Iterable):
        raise DataError(f"Expected a list of images, got {images!r}.")
    return from_images(
        as_list(images, "images"),
        None if labels is None else label_list(labels),
        None if groups is None else as_list(groups, "groups"),
    )


def from_images(
    images: Sequence[Any], labels: Sequence[object] | None = None, groups: Sequence[object] | None = None
) -> Dataset:
    """Build a dataset from paths, file bytes, PIL images or arrays, with one label and group for each.

    With several labels an image, ``labels`` are lists of them, or a matrix [n, k] of zeros and ones (``label_sets``).
    Arrays are [height, width], [height, width, 1], [height, width, 3] or, with opacity, [height, width, 4]: uint8, or
    floating point in 0..1 or 0..255, which is decided by the largest value of all arrays together. An image that cannot
    be read raises ImageError only when it is read. Raises DataError if the lengths differ, a label is missing, labels
    are of several types, or the range of floating-point arrays is not clear.
    """
    if isinstance(images, str | bytes):
        raise DataError("Expected a list of images, got a single one; put it in a list.")
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and len(values) != len(images):
            raise DataError(f"{len(images)} images but {len(values)} {name}; give one for each image.")
    sets = None if labels is None else label_sets(labels)
    if sets is not None:
        labels = None
    if labels is not None:
        check_labels(labels)
    scale = float_scale(images)
    items = []
    for i, image in enumerate(images):
        path = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {i}"
        label = None if labels is None else class_name(labels[i])
        group = None if groups is None or is_missing(groups[i]) else str(groups[i])
        item = Item(path, label, "train", group, key=i, folder=dirname(path))
        items.append(item if sets is None else replace(item, labels=sets.present[i], unknown=sets.unknown[i]))

    def read(key: int) -> bytes | NDArray[np.uint8]:
        image = images[key]
        if isinstance(image, str | os.PathLike):
            return read_file(items[key].path)
        return image if isinstance(image, bytes) else to_pixels(image, scale)

    names = () if sets is None else sets.names
    return Dataset(IMAGE_LIST, tuple(items), tuple(labels_by_class(labels or ())), (), (), read, label_names=names)
