"""What a project is at one moment, the steps by which it changes, and what a change may be refused for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.studio.records import ImageRecord

Records = dict[str, ImageRecord]


class StaleVersionError(Exception):
    """A change was asked for by someone who has not seen the last one."""


class NothingToUndoError(Exception):
    """No change is left that could be undone."""


class NotFoundError(KeyError):
    """There is nothing of the name in the address or in the body of a request: "image 3f", "class ants"."""


@dataclass(frozen=True)
class State:
    """What is known at one moment; never changed, only replaced. ``records`` are by id, the newest last.

    ``missing`` are rows of the table whose files are not there: their labels change with the classes, and no image of
    the project has an id of theirs.
    """

    version: int
    records: Records
    classes: tuple[str, ...]
    missing: Records = field(default_factory=dict)

    def after(self, changed: Mapping[str, ImageRecord | None], classes: tuple[str, ...]) -> State:
        """Return what is known after a change of some records, None for those that are no more."""
        records, missing = dict(self.records), dict(self.missing)
        for id, record in changed.items():
            place = missing if id in missing else records
            if record is None:
                place.pop(id, None)
            else:
                place[id] = record
        return State(self.version + 1, records, classes, missing)


@dataclass(frozen=True)
class Step:
    """What a change was, and what takes it back: the records before it (None: there was none) and the classes."""

    what: str
    before: dict[str, ImageRecord | None]
    classes: tuple[str, ...]
