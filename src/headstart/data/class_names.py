"""Names of classes: renamed, merged and left out by a file, and names that look alike."""

from __future__ import annotations

import csv
import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from headstart.data.dataset import Dataset, Skipped
from headstart.data.layout import ALL_FILES, is_called, to_nfc
from headstart.data.reading import error_reason
from headstart.data.table_files import csv_rows, read_text
from headstart.errors import DataError, listed
from headstart.files import from_table_text

MAX_CLASS_FILE = 2**22  # bytes
HEADER = ["class", "name"]
LEFT_OUT = "class left out by --classes"
# What exports and datasets call folders that are no classes: of images without a label, of all images, of masks.
NO_CLASSES = {
    *("unlabeled", "unlabelled", "nolabel", "none", "unannotated", "notannotated", "unsorted", "untagged"),
    *ALL_FILES,
}
UNSEEN = ("Cc", "Cf")  # controls, and marks such as a space of no width
# Small letters of Cyrillic and Greek that, small or as capitals, look like Latin ones.
LATIN = str.maketrans("авекмнорстухіјѕһαβεικνορτυχ", "abekmhopctyxijshabeikvoptux")


def read_class_names(path: str) -> dict[str, str]:
    """Read a file with a class and its new name in each row; an empty name leaves the class out.

    A first row ``class,name`` is a header. Raises DataError, which names the row, for one that is not of this form.
    """
    text, _ = read_text(path, MAX_CLASS_FILE, "rows of class,name")
    names: dict[str, str] = {}
    try:
        for number, row in csv_rows(text):
            cells = [to_nfc(from_table_text(cell.strip())) for cell in row]
            if not any(cells) or (not names and [cell.casefold() for cell in cells] == HEADER):
                continue
            if len(cells) != 2 or not cells[0]:
                raise DataError(
                    f"{path}, row {number}: expected a class and its new name, such as cat,animal (or cat, with "
                    f"nothing behind the comma, to leave it out); got {', '.join(map(repr, cells))[:200]}."
                )
            if cells[0] in names:
                raise DataError(f"{path}, row {number}: the class {cells[0]!r} has a name already; give it one row.")
            names[cells[0]] = cells[1]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read: {error_reason(error)}; expected rows of class,name.") from None
    if not names:
        raise DataError(f"{path} names no class; expected rows of class,name.")
    return names


def rename_classes(dataset: Dataset, path: str) -> Dataset:
    """Rename, merge and leave out the classes of a dataset by the file at ``path``: see ``read_class_names``.

    Classes that are not in the file keep their names. Raises DataError for a class that the dataset does not have, and
    where no class is left.
    """
    names = read_class_names(path)
    classes = dataset.classes or dataset.label_names
    if not classes:
        raise DataError(f"{dataset.uri} has no classes; leave --classes out.")
    for name in names:
        if name not in classes:
            similar = difflib.get_close_matches(name, classes, n=3, cutoff=0.5)
            known = " or ".join(map(repr, similar)) or listed(classes)
            mend = "did you mean" if similar else "it has"
            raise DataError(f"{path}: {dataset.uri} has no class {name!r}; {mend} {known}{'?' if similar else '.'}")
    renamed = with_class_names(dataset, names)
    if not (renamed.classes or renamed.label_names):
        raise DataError(f"{path} leaves out every class of {dataset.uri}; keep at least two.")
    return replace(renamed, notes=(*dataset.notes, *_notes(dataset, names, path)))


def with_class_names(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """Rename the classes of a dataset; images of one with an empty name are skipped. Others keep their names."""
    if dataset.is_multi_label:
        return _with_label_names(dataset, names)
    items, skipped = [], list(dataset.skipped)
    for item in dataset.items:
        label = item.label if item.label is None else names.get(item.label, item.label)
        if label == "":
            skipped.append(Skipped(item.path, LEFT_OUT))
        else:
            items.append(replace(item, label=label))
    classes = sorted({names.get(name, name) for name in dataset.classes} - {""})
    return replace(
        dataset, items=tuple(items), classes=tuple(classes), skipped=tuple(skipped), class_names=tuple(names.items())
    )


def _with_label_names(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """Rename the labels of a multi-label dataset; those with an empty name are left out, and no image with them.

    Of labels that are merged one holds where any of them does, and is unknown where none does and one is unknown.
    """

    def renamed(labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({names.get(label, label) for label in labels} - {""}))

    items = []
    for item in dataset.items:
        labels = None if item.labels is None else renamed(item.labels)
        unknown = tuple(name for name in renamed(item.unknown) if name not in (labels or ()))
        items.append(replace(item, labels=labels, unknown=unknown))
    return replace(
        dataset, items=tuple(items), label_names=renamed(dataset.label_names), class_names=tuple(names.items())
    )


def _notes(dataset: Dataset, names: Mapping[str, str], path: str) -> list[str]:
    """Say which classes were left out and merged, and which are not in the file."""
    classes = dataset.classes or dataset.label_names
    counts = Counter(label for item in dataset.items for label in (item.labels or (item.label,)))
    sources: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        sources[names.get(name, name)].append(name)
    notes = []
    left_out = sources.pop("", [])
    if left_out:
        parts = [f"{name} ({counts[name]})" for name in left_out]
        what = "labels" if dataset.is_multi_label else "images"
        notes.append(f"{path} leaves out {listed(parts)}: {sum(counts[name] for name in left_out)} {what}.")
    merged = [f"{listed(old)} as {new}" for new, old in sources.items() if len(old) > 1]
    if merged:
        notes.append(f"{path} merges classes: {listed(merged, separator='; ')}.")
    kept = [name for name in classes if name not in names]
    if kept:
        notes.append(f"Not in {path}, and so named as before: {listed(kept)}.")
    return notes


def similar_names_notes(names: Sequence[str], mend: str = "give --classes") -> list[str]:
    """Name classes whose names differ in case, width, spaces, what is not seen, or the script of like letters alone.

    It is often one class with two spellings; ``mend`` says how they are merged where the note is read.
    """
    by_form: dict[str, set[str]] = defaultdict(set)
    for name in names:
        seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) not in UNSEEN)
        by_form["".join(seen.casefold().translate(LATIN).split())].add(name)
    return [
        f"The class names {' and '.join(map(repr, sorted(alike)))} look alike, and are read as different classes; to "
        f"merge them, {mend}.{_scripts(alike)}"
        for alike in by_form.values()
        if len(alike) > 1
    ]


def doubtful_names_notes(names: Sequence[str]) -> list[str]:
    """Name classes that are called like folders that are none."""
    found = [name for name in names if is_called(name, NO_CLASSES)]
    if not found or len(names) < 2:
        return []
    mend = "if that is not one, leave it out by --classes, or give the folder of the classes alone"
    return [f"Read as a class: {listed(found)}; {mend}."]


def _scripts(names: set[str]) -> str:
    """Name letters of another script, by which names differ that look the same on a screen."""
    letters: list[set[str]] = [set(name.casefold()) for name in names]
    common = set.intersection(*letters)
    foreign = sorted(letter for letter in set.union(*letters) if letter not in common and ord(letter) in LATIN)
    return f" {', '.join(f'{letter} is {unicodedata.name(letter)}' for letter in foreign[:3])}." if foreign else ""
