"""What people bring that is not read, with what to do instead, and data of which only one class was found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from posixpath import basename, splitext

from headstart.data.dataset import Dataset, Skipped
from headstart.data.table_files import is_table
from headstart.images.decoding import is_image_name

ARRAYS = "load it in Python, and give its images and labels to ImageClassifier().fit(images, labels)"
LABELS = "write the labels as a CSV or JSON Lines table with a path and a label in each row, or as class folders"
MENDS = {  # by endings: what to do with such a file
    (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"): "save the sheet as CSV",
    (".json", ".xml", ".yaml", ".yml"): LABELS,
    (".txt", ".dat"): "if it is a table, call it .csv or .tsv",
    (".7z", ".rar", ".zst", ".tzst", ".lz4", ".gz", ".bz2", ".xz", ".001"): "unpack it, or pack it as zip or tar",
    (".npy", ".npz", ".mat", ".h5", ".hdf5", ".arrow", ".feather"): ARRAYS,
    (".tfrecord", ".tfrec", ".lmdb", ".rec", "-ubyte", "-ubyte.gz"): ARRAYS,
    (".pkl", ".pickle", ".pt", ".pth"): f"nothing is unpickled here; if you trust it, {ARRAYS}",
    (".dcm", ".dicom", ".nii", ".nii.gz"): "export it as PNG or TIFF, in a window that shows the finding",
    (".mp4", ".mov", ".avi", ".mkv", ".webm"): "write frames of it, such as with ffmpeg -i FILM -r 1 %05d.jpg",
    (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"): "export it as JPEG or TIFF",
    (".svg", ".ico", ".psd", ".pdf", ".eps", ".tga"): "export it as PNG",
}
ANNOTATIONS = (".json", ".xml", ".txt")  # files that may hold labels


def mend_of(name: str) -> str:
    """Return what to do with a file that is not read, empty where nobody can say.

    >>> mend_of("labels.xlsx"), mend_of("notes.doc")
    ('save the sheet as CSV', '')
    """
    if is_image_name(name):
        return "it is an image: give the folder that it is in, or in Python a list of images"
    found = [
        (len(ending), mend) for endings, mend in MENDS.items() for ending in endings if name.lower().endswith(ending)
    ]
    return max(found)[1] if found else ""


def mend_of_most(names: Iterable[str]) -> str:
    """Return what to do with most of the files of which that is known, after the ending of their names."""
    found = Counter((splitext(name)[1].lower() or name, mend) for name in names if (mend := mend_of(name)))
    return next((f"of {ending}: {mend}" for (ending, mend), _ in found.most_common(1)), "")


def labels_elsewhere(skipped: Sequence[Skipped]) -> str:
    """Return which of the skipped files may hold the labels, as the end of a sentence; empty where none does."""
    names = [item.path for item in skipped if item.reason == "not an image" and not is_submission(item.path)]
    if tables := [name for name in names if is_table(name)]:
        return f"; if {tables[0]} says the labels, give that table itself"
    if not (files := [name for name in names if name.lower().endswith(ANNOTATIONS)]):
        return ""
    more = f" and {len(files) - 1} more like it" if len(files) > 1 else ""
    return f"; {files[0]}{more} may hold labels, which are not read: {LABELS}"


def is_submission(name: str) -> bool:
    """Return whether a file is the example of an answer to a competition, whose labels are made up.

    >>> is_submission("data/sample_submission.csv"), is_submission("submissions/train.csv")
    (True, False)
    """
    return re.match("(sample|gender|example).?sub", basename(name).lower()) is not None


def why_one_class(dataset: Dataset) -> str:
    """Return where the classes of class folders may be if only one was found, as the end of a sentence."""
    if "class/" not in dataset.layout:
        return ""
    inner = sorted({item.folder.split("/")[0] for item in dataset.items})
    if len(dataset.classes) == 1 and len(inner) > 1 and inner[0]:
        more = f" and {len(inner) - 3} more" if len(inner) > 3 else ""
        return (
            f"; it holds the folders {', '.join(inner[:3])}{more}: if these are the classes, give the folder above them"
        )
    return labels_elsewhere(dataset.skipped)
