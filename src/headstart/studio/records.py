"""What a project knows of each image, and the names that classes may have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headstart.data.label_cells import LabelCell, check_numbers, is_missing_text, unreadable_classes
from headstart.data.layout import split_name, to_nfc
from headstart.errors import DataError, OptionError
from headstart.machine import SYSTEM_FILES

MAX_IMAGES = 50_000
MAX_CLASSES = 1000
MAX_CLASS_NAME = 100  # characters
ACCEPTED = "accepted"  # in the column "action": a label that a person has looked at and found right
# What cannot stand in a class name: separators of paths, and those that a table reader takes for several labels.
UNSAFE = frozenset('/\\|;,<>:"*?')


class ClassExistsError(OptionError):
    """There is a class of a name already, up to the case of its letters: some systems have one folder for both."""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a project.

    ``id`` is the start of the SHA-256 of its bytes, with a number behind it for further files of the same bytes; by it
    alone a client names the image. ``path`` is relative to the project's folder, with "/". ``label`` is None for an
    image without one, ``folder_label`` that of the folder in which the file lies. ``group`` is the name of what the
    image shares with others, such as one hold of the camera's button. ``finding`` and ``why`` are cells of the table
    that are kept as they were found.

    In a project of several labels an image ``label`` and ``folder_label`` are None, and ``labels`` says which hold and
    which are not known: None where nobody has labelled the image, so that none is known. ``accepted`` are the labels
    whose cells a person has found right, one by one; ``is_accepted`` says so of all.
    """

    id: str
    path: str
    label: str | None
    folder_label: str | None
    group: str | None = None
    split: str = "train"
    is_accepted: bool = False
    finding: str = ""
    why: str = ""
    labels: LabelCell | None = None
    accepted: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to learn from the image."""
        return self.label is not None or self.labels is not None

    @property
    def is_moved(self) -> bool:
        """Whether the label is not that of the folder, so that the file would be moved."""
        return self.label is not None and self.label != self.folder_label


def is_folder_name(name: str) -> bool:
    """Whether a label that was found somewhere could be the name of a class folder, and of nothing else."""
    return bool(name) and not name.startswith(".") and not {"/", "\\", "\0"} & set(name)


def check_class_name(name: str, what: str = "class") -> str:
    """Return the name of a new class, or label (``what``), in composed Unicode. Raises OptionError.

    That of a class becomes the name of a folder, and either stands in a cell of a table.
    """
    text = to_nfc(name).strip()
    if not text or len(text) > MAX_CLASS_NAME or not text.isprintable():
        raise OptionError(f"A {what} needs a name of 1 to {MAX_CLASS_NAME} printable characters.")
    is_label = what != "class"
    if text.startswith((".", "'", "=", "+", "-", "@")) or text.endswith(".") or UNSAFE & set(text):
        place = "stands in a cell of a table" if is_label else "is that of a folder and a cell of a table"
        raise OptionError(f"A {what} cannot be called {text!r}, since its name {place}.")
    if is_missing_text(text) or text.casefold() in SYSTEM_FILES or split_name(text) is not None:
        reader = "tables and folders" if is_label else "folders"
        raise OptionError(f"A {what} cannot be called {text!r}, which means something else to a reader of {reader}.")
    return text


def check_new_name(name: str, others: Iterable[str], what: str = "class") -> str:
    """Return the name of a class, or label, that is to be beside ``others``. Raises OptionError, ClassExistsError."""
    name = check_class_name(name, what)
    for other in others:
        if other.casefold() == name.casefold():
            mend = "give another name" if what != "class" else "give another name, or relabel the images"
            raise ClassExistsError(f"There is a {what} {other!r} already; {mend}.")
        try:
            check_numbers("", (other, name))
        except DataError:  # as a fit would say of the table
            raise ClassExistsError(
                f"There is a {what} {other!r}, which may mean the same as {name!r} to a reader of tables; give another."
            ) from None
        if what == "class" and unreadable_classes((other, name)):
            raise ClassExistsError(
                f"There is a class {other!r}, which a reader of tables takes for several labels beside {name!r}; give "
                "another."
            )
    return name
