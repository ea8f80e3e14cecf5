"""Class and split names from the paths of a folder or an archive: one rule for all the ways people lay out images.

    class/image                    all images are for training
    split/class/image              split: train, validation or test, in any of their usual names
    class/split/image
    image                          unlabelled images, to predict on

Folders that only wrap the data are ignored. Below a class folder there may be more folders; they belong to the class.
Beside folders of splits, other folders are skipped; beside class folders, a folder of images named like a validation or
test split is skipped, too: its images have no labels. Where another reading is possible, a note says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from itertools import takewhile
from posixpath import basename, commonpath, dirname, splitext

from headstart.data.archives import ARCHIVE_SUFFIXES
from headstart.data.dataset import Dataset, Item, Skipped, paths_by_reason, sorted_dataset
from headstart.data.other_formats import is_submission, labels_elsewhere, mend_of_most
from headstart.data.reading import Source
from headstart.data.table_files import is_table
from headstart.errors import DataError, OptionError, listed
from headstart.images.decoding import SUFFIXES, is_image_name
from headstart.machine import SYSTEM_FILES

LAYOUTS = ("auto", "class/image", "split/class/image", "class/split/image", "image")
EXPECTED = "expected class/image.jpg, or train/class/image.jpg with validation and test beside train"
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
}
FILLER = re.compile(r"[\W_\d]+|(?:data)?set|data|im(?:a)?ge?s?|pictures?|photos?|samples?|splits?|folder|dir")

SHARD = re.compile(r"-\d+-of-\d+$")  # how names of the Hub's Parquet files end
TABLE_NAMES = {"metadata", "labels", "classes", "annotations"}  # of the table of a folder

ALL_FILES = {"images", "image", "imgs", "jpegimages", "masks", "annotations", "thumbnails"}  # folders of no class
ABOUT_THE_DATA = "about the data"  # why a README or a licence is skipped, as one expects
ABOUT = {"readme", "license", "licence", "notice", "citation", "changelog"}  # names of such files
ABOUT_SUFFIXES = {"", "md", "txt", "rst", "cff"}
MAX_LISTED = 3  # names in a note

PathParts = tuple[str, ...]
Paths = Mapping[int, PathParts]  # the parts of the path of each image, by its key


def to_nfc(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS stores 'é' as two characters, Linux as one."""
    return unicodedata.normalize("NFC", name)


def split_name(name: str) -> str | None:
    """Return train, validation or test for a name that means one of them, otherwise None.

    >>> split_name("Train"), split_name("val_images"), split_name("test-set"), split_name("train2017")
    ('train', 'validation', 'test', 'train')
    >>> split_name("trainer"), split_name("testudo")
    (None, None)
    """
    lower = name.casefold()
    return SPLIT_WORDS.get(lower) or SPLIT_WORDS.get(FILLER.sub("", lower))


def from_listing(uri: str, source: Source, layout: str = "auto") -> Dataset:
    """Build the dataset that the names of a source describe, read by one of ``LAYOUTS``.

    Raises DataError if it has no images, or none in a class folder; OptionError for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"Unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    skipped = list(source.skipped)
    paths: dict[int, PathParts] = {}
    others: list[PathParts] = []  # files of which a folder without images may be full
    for key, name in enumerate(source.names):
        parts = tuple(name.split("/"))
        reason = passed_over(name)
        if reason:
            skipped.append(Skipped(source.display_path(key), reason))
        elif not is_image_name(name):
            others.append(parts)
            skipped.append(Skipped(source.display_path(key), ABOUT_THE_DATA if _is_about(name) else "not an image"))
        else:
            paths[key] = parts
    if not paths:
        expected = "expected images in it" if layout == "image" else EXPECTED
        raise DataError(f"No images in {uri} ({_what_is_there(skipped)}); {_mend(source, skipped) or expected}.")
    depth = _wrapping_depth(list(paths.values()))
    wrapper = next(iter(paths.values()))[:depth]
    paths = {key: parts[depth:] for key, parts in paths.items()}
    notes: list[str] = []
    is_detected = layout == "auto"
    if is_detected:
        doubled = _doubled(paths)
        paths = {key: _without(doubled, parts) for key, parts in paths.items()}
        others = [parts[:depth] + _without(doubled, parts[depth:]) for parts in others]
        layout, notes = _detect(paths)
    items, left_out = _items(source, paths, layout, is_detected)
    skipped += left_out
    if not items:
        elsewhere = labels_elsewhere(skipped)
        raise DataError(f"No image in {uri} is in a class folder; {EXPECTED}{elsewhere}.")
    notes += _skipped_notes(left_out)
    if layout != "image":
        notes += _without_images_notes(paths, [parts[depth:] for parts in others if parts[:depth] == wrapper], layout)
    return sorted_dataset(
        uri, items, skipped, source.quarantined, source.read, layout=layout, notes=(*source.notes, *notes)
    )


def _is_about(name: str) -> bool:
    """Return whether a file is a text about the data: README.md, README.dataset.txt, LICENSE."""
    stem, _, suffix = name.rsplit("/", 1)[-1].lower().partition(".")
    return stem in ABOUT and suffix.rsplit(".", 1)[-1] in ABOUT_SUFFIXES


def find_tables(uri: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return the tables to read a folder or an archive by, and the split of each where its name or folder tells it.

    ``names`` are its files. There are none where class folders say what the images are. Raises DataError for Parquet
    files of several datasets.
    """
    visible = [name for name in names if not passed_over(name)]
    tables = [name for name in visible if is_table(name) and not is_submission(name)]
    images = [name for name in visible if is_image_name(name)]
    if not tables or not images:
        return _find_shards(uri, tables)
    prefix = "".join(f"{part}/" for part in _common_folders(tables + images))
    if len([name for name in class_folders(images, prefix) if not is_called(name, ALL_FILES)]) > 1:
        return {}
    folders = {name: name.removeprefix(prefix).split("/")[:-1] for name in tables}
    in_splits: dict[str, str | None] = {
        name: split for name, parts in folders.items() if len(parts) == 1 and (split := split_name(parts[0]))
    }
    if in_splits:
        return in_splits
    at_root = [name for name, parts in folders.items() if not parts]
    stems = {name: splitext(basename(name))[0].casefold() for name in at_root}
    preferred = [name for name in at_root if split_name(stems[name]) == "train"]
    preferred += [name for name in at_root if stems[name].strip("_") in TABLE_NAMES]
    if not preferred and len(at_root) == 1:
        preferred = at_root
    found: dict[str, str | None] = dict.fromkeys(preferred[:1])
    if found and split_name(stems[preferred[0]]) == "train":  # with val.csv and test.csv beside it
        found |= {name: split for name in at_root if (split := split_name(stems[name])) in ("validation", "test")}
    return found


def class_folders(images: Sequence[str], prefix: str | None = None) -> set[str]:
    """Return the classes in whose folders images with these names lie, below the folders ``prefix`` around all."""
    if prefix is None:
        prefix = "".join(f"{part}/" for part in _common_folders(images))
    paths = {key: tuple(name.removeprefix(prefix).split("/")) for key, name in enumerate(images)}
    items, _ = _items(Source(images, _unread, ""), paths, _detect(paths)[0], True)
    return {item.label for item in items if item.label is not None}


def is_called(name: str, names: Container[str]) -> bool:
    """Return whether a folder has one of these names, but for case and what is between words."""
    return re.sub(r"[\W_]", "", name).casefold() in names


def _find_shards(uri: str, tables: Sequence[str]) -> dict[str, str | None]:
    """Return the Parquet files of a dataset of the Hub (train-00000-of-00002.parquet), and the split of each."""
    shards: dict[str, str | None] = {}
    datasets = set()
    for name in tables:
        if name.lower().endswith(".parquet"):
            *folders, file = name.split("/")
            split = split_name(SHARD.sub("", splitext(file)[0]))
            if split is None and folders and (split := split_name(folders[-1])):
                folders.pop()
            shards[name] = split
            datasets.add("/".join(folders))
    if len(datasets) > 1:
        names = ", ".join(name or "right in it" for name in sorted(datasets)[:5])
        raise DataError(f"{uri} holds Parquet files of several datasets ({names}); give one of these folders.")
    return shards


def _common_folders(names: Sequence[str]) -> list[str]:
    """Return the leading folders that all files share, up to one that is a split."""
    common = commonpath([dirname(name) for name in names])
    return list(takewhile(lambda folder: split_name(folder) is None, common.split("/") if common else ()))


def passed_over(name: str) -> str:
    """Return why a file is passed over whatever it is, empty where it is not."""
    parts = name.split("/")
    if any(part.startswith(".") for part in parts):
        return "hidden"
    return "left by the system" if any(part.casefold() in SYSTEM_FILES for part in parts) else ""


def _unread(_: int) -> bytes:
    raise AssertionError("only names are looked at")


def _detect(paths: Paths) -> tuple[str, list[str]]:
    """Return the layout of images with these paths, and notes where they could be read in another way."""
    subfolders: dict[str, set[str]] = defaultdict(set)  # of each first folder, "" for images that lie right in it
    for parts in paths.values():
        if len(parts) > 1:
            subfolders[parts[0]].add(parts[1] if len(parts) > 2 else "")
    if not subfolders:
        return "image", []
    splits = [name for name in subfolders if split_name(name)]
    with_classes = [name for name in splits if subfolders[name] - {""}]
    others = [name for name in subfolders if name not in splits]
    kinds = {split_name(name) for name in with_classes}
    if with_classes and (len(kinds) > 1 or len(others) < 2):
        return "split/class/image", []
    if not others and not with_classes:
        return "split/class/image", []  # of images without class folders: an error, never a class named "train"
    inner = [name for names in subfolders.values() for name in names]
    if len(subfolders) > 1 and all(name and split_name(name) for name in inner):
        return "class/split/image", []
    as_classes = [name for name in splits if not _is_unlabelled(name, subfolders[name])]
    if not as_classes:
        return "class/image", _alike_notes(subfolders)
    return "class/image", [
        f"{', '.join(sorted(as_classes))} {'was' if len(as_classes) == 1 else 'were'} read as a class, since other "
        "class folders lie beside; if it is a split, give --layout split/class/image."
    ]


def _alike_notes(subfolders: Mapping[str, set[str]]) -> list[str]:
    """Say where folders that are read as classes hold the same folders, which may be the classes themselves."""
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for name, inner in subfolders.items():
        if "" not in inner and len(inner) > 1:
            alike[frozenset(inner)].append(name)
    return [
        f"{listed(sorted(names), MAX_LISTED)} were read as classes, and hold the same folders "
        f"({listed(sorted(inner), MAX_LISTED)}); if those are the classes, give one folder alone, or call the folders "
        "train, validation and test."
        for inner, names in alike.items()
        if len(names) > 1
    ]


def _doubled(paths: Paths) -> set[str]:
    """Return the first folders that hold nothing but a folder of their own name: train/train/cats/1.jpg.

    Programs that unpack archives make a folder of the archive's name around what it holds.
    """
    inner: dict[str, set[str]] = defaultdict(set)
    for parts in paths.values():
        inner[parts[0]].add(parts[1] if len(parts) > 2 else "")
    return {name for name, names in inner.items() if names == {name}}


def _without(doubled: set[str], parts: PathParts) -> PathParts:
    return parts[1:] if len(parts) > 1 and parts[0] == parts[1] and parts[0] in doubled else parts


def _without_images_notes(paths: Paths, others: Sequence[PathParts], layout: str) -> list[str]:
    """Name folders where those of classes are in which files lie, and none of an image: each may be a whole class."""
    depth = layout.split("/").index("class") + 1
    with_images = {parts[:depth] for parts in paths.values()}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for parts in others:
        is_in_class = len(parts) > depth and (depth == 1 or split_name(parts[0]) is not None)
        if is_in_class and parts[:depth] not in with_images and not _is_about(parts[-1]):
            found["/".join(parts[:depth])][splitext(parts[-1])[1].lower() or "no ending"] += 1
    if not found:
        return []
    endings = sum(found.values(), Counter[str]()).most_common()
    files = listed([f"{ending} ({count})" for ending, count in endings], MAX_LISTED)
    return [f"No image is in {listed(sorted(found), MAX_LISTED)}, only files that are not read: {files}."]


def _is_unlabelled(name: str, subfolders: set[str]) -> bool:
    """Return whether a folder beside class folders holds images to predict on, like Kaggle's test/."""
    return split_name(name) in ("validation", "test") and subfolders == {""}


def _items(source: Source, paths: Paths, layout: str, is_detected: bool) -> tuple[list[Item], list[Skipped]]:
    """Return the items of images read by a layout, and the images that have no place in it.

    Where it ``is_detected``, a folder beside class folders may hold unlabelled images.
    """
    if layout == "image":
        return [Item(source.display_path(key), None, "train", key=key) for key in paths], []
    subfolders: dict[str, set[str]] = defaultdict(set)
    for parts in paths.values():
        if len(parts) > 1:
            subfolders[parts[0]].add(parts[1] if len(parts) > 2 else "")
    unlabelled = {name for name, inner in subfolders.items() if is_detected and _is_unlabelled(name, inner)}
    items, left_out = [], []
    for key, parts in paths.items():
        path = source.display_path(key)
        split, label, reason = "train", "", ""
        match layout:
            case "split/class/image":
                name = split_name(parts[0]) if len(parts) > 1 else None
                if len(parts) > 1 and name is None:
                    reason = f"in {parts[0]}, beside the splits"
                elif name is None or len(parts) < 3:
                    reason = "no class folder"
                else:
                    split, label = name, parts[1]
            case "class/split/image":
                name = split_name(parts[1]) if len(parts) > 2 else None
                if name is None:
                    reason = "no split folder"
                else:
                    split, label = name, parts[0]
            case _:
                if len(parts) < 2:
                    reason = "no class folder"
                elif parts[0] in unlabelled and len(unlabelled) < len(subfolders):
                    reason = f"in {parts[0]}, without labels"
                else:
                    label = parts[0]
        if reason:
            left_out.append(Skipped(path, reason))
        else:
            folder = "/".join(parts[layout.split("/").index("image") : -1])
            items.append(Item(path, to_nfc(label), split, key=key, folder=to_nfc(folder)))
    return items, left_out


def _skipped_notes(left_out: Sequence[Skipped]) -> list[str]:
    """Name the images that have no place in the layout: a whole class may be among them."""
    return [
        f"{len(paths)} {'image was' if len(paths) == 1 else 'images were'} skipped, {reason} ({paths[0]}"
        f"{', ...' if len(paths) > 1 else ''}); another reading is chosen by --layout."
        for reason, paths in paths_by_reason(left_out).items()
    ]


def _what_is_there(skipped: Sequence[Skipped]) -> str:
    """Describe files of which none is an image: how many of each reason, and the endings found and read."""
    if not skipped:
        return "it is empty"
    text = ", ".join(f"{len(paths)} {reason}" for reason, paths in sorted(paths_by_reason(skipped).items()))
    endings = Counter(splitext(item.path)[1].lower() or "none" for item in skipped if item.reason == "not an image")
    if endings:
        found = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(5))
        text += f"; endings found: {found}; endings read: {', '.join(sorted(SUFFIXES))}"
    return text


def _mend(source: Source, skipped: Sequence[Skipped]) -> str:
    """Return what to do where no file is an image: another archive may hold them, or another format."""
    paths = [item.path for item in skipped if item.reason == "not an image"]
    archives = [path for path in paths if path.lower().endswith(ARCHIVE_SUFFIXES)]
    if archives:
        return f"give {archives[0]} itself" if source.is_folder and len(archives) == 1 else "unpack the archives in it"
    return mend_of_most(paths)


def _wrapping_depth(paths: Sequence[PathParts]) -> int:
    """Return how many leading folders all images share that only wrap the data (flower_photos/daisy/1.jpg)."""
    depth = 0
    while True:
        # Without one more folder below it, the next folder is a class, not a wrapper.
        if any(len(parts) <= depth + 2 for parts in paths):
            return depth
        folders = {parts[depth] for parts in paths}
        if len(folders) > 1 or split_name(next(iter(folders))) is not None:
            return depth
        depth += 1
