"""What a project is at one moment, the steps by which it changes, and what a change may be refused for."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import OptionError
from headstart.studio.records import ImageRecord

Records = dict[str, ImageRecord]


class StaleVersionError(Exception):
    """A change was asked for by someone who has not seen the last one."""


class NothingToUndoError(Exception):
    """No change is left that could be undone."""


class NotFoundError(KeyError):
    """There is nothing of the name in the address or in the body of a request: "image 3f", "class ants"."""


class ClassExistsError(OptionError):
    """There is a class of a name already, up to the case of its letters: some systems have one folder for both."""


@dataclass(frozen=True)
class State:
    """What is known at one moment; never changed, only replaced. ``records`` are by id, the newest last."""

    version: int
    records: Records
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What a change was, and what takes it back: the records before it (None: there was none) and the classes."""

    what: str
    before: dict[str, ImageRecord | None]
    classes: tuple[str, ...]
