"""What is known of each label of an image: it is present, absent, or not known; and how that changes.

An image that nobody has labelled is unknown in every label. With the first label that is said to be present the others
are absent, as in the row of a table; a label that is new in the project is unknown of all images there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headstart.check.table import label_text
from headstart.data import Dataset, Item
from headstart.data.label_cells import UNKNOWN as UNKNOWN_CELL
from headstart.data.label_cells import LabelCell, list_text
from headstart.studio.records import ACCEPTED, ImageRecord

PRESENT, ABSENT, UNKNOWN = "present", "absent", "unknown"
STATES = (PRESENT, ABSENT, UNKNOWN)
KEEP = "keep"  # of the labels that a change does not name
ACCEPTED_CELLS = f"{ACCEPTED}: "  # in the column "action", before a list in JSON


def state_of(cell: LabelCell | None, name: str) -> str:
    """Return what is known of a label of an image."""
    if cell is not None and name in cell.present:
        return PRESENT
    return UNKNOWN if cell is None or cell.rest or name in cell.unknown else ABSENT


def with_states(
    cell: LabelCell | None, states: Mapping[str, str], others: str, classes: Sequence[str]
) -> LabelCell | None:
    """Return the labels of an image with other ``states`` of some, and ``others`` of all that these do not name.

    Where ``others`` is KEEP, they stay; but of an image that nobody has labelled they are absent as soon as one is
    present.
    """
    if cell is None and others == KEEP and PRESENT in states.values():
        others = ABSENT
    found = {name: states.get(name, state_of(cell, name) if others == KEEP else others) for name in classes}
    return _cell(found, is_rest_unknown=cell is None or cell.rest)


def with_new_labels(cell: LabelCell | None, names: Sequence[str], classes: Sequence[str]) -> LabelCell | None:
    """Return the labels of an image in a project of ``classes`` to which labels are added: these are not known."""
    if cell is None or cell.rest:
        return cell
    found = {name: state_of(cell, name) for name in classes}
    return _cell({**found, **dict.fromkeys(names, UNKNOWN)}, is_rest_unknown=False)


def _cell(states: Mapping[str, str], *, is_rest_unknown: bool) -> LabelCell | None:
    """Return states as a cell, None where nothing is known; ``is_rest_unknown`` is kept where nothing is absent."""
    present = tuple(sorted(name for name, state in states.items() if state == PRESENT))
    unknown = tuple(sorted(name for name, state in states.items() if state == UNKNOWN))
    is_nothing_absent = len(present) + len(unknown) == len(states)
    if unknown and is_nothing_absent and not present:
        return None
    return (
        LabelCell(present, (), True)
        if unknown and is_nothing_absent and is_rest_unknown
        else LabelCell(present, unknown)
    )


def with_record_states(
    record: ImageRecord, states: Mapping[str, str], others: str, classes: Sequence[str]
) -> ImageRecord:
    """Return an image with other labels; those that change are no longer accepted, the others stay so."""
    cell = with_states(record.labels, states, others, classes)
    changed = {name for name in classes if state_of(cell, name) != state_of(record.labels, name)}
    accepted = classes if record.is_accepted else record.accepted
    is_accepted = record.is_accepted and not changed
    left = () if is_accepted else tuple(name for name in accepted if name not in changed)
    return replace(record, labels=cell, is_accepted=is_accepted, accepted=left)


def with_accepted(record: ImageRecord, name: str | None, classes: Sequence[str]) -> ImageRecord:
    """Return an image whose label ``name``, all unless stated, is accepted as it is."""
    accepted = {*record.accepted, *(classes if name is None else [name])}
    if record.is_accepted or all(state_of(record.labels, c) == UNKNOWN or c in accepted for c in classes):
        return replace(record, is_accepted=True, accepted=())
    return replace(record, accepted=tuple(sorted(accepted)))


def with_label_renamed(record: ImageRecord, name: str, to: str) -> ImageRecord:
    """Return an image in which a label has another name."""

    def renamed(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(to if known == name else known for known in names))

    cell = record.labels
    if cell is not None:
        cell = LabelCell(renamed(cell.present), renamed(cell.unknown), cell.rest)
    return replace(record, labels=cell, accepted=renamed(record.accepted))


def states_text(states: Mapping[str, str], others: str) -> str:
    """Say what labels became: "beach present, dog not known"."""
    words = {PRESENT: "present", ABSENT: "absent", UNKNOWN: "not known"}
    parts = [f"{name} {words[state]}" for name, state in states.items()]
    if others != KEEP:
        parts.append(
            ("none of the labels" if others == ABSENT else "no label known") if not parts else f"others {words[others]}"
        )
    return ", ".join(parts)


def is_cell_accepted(record: ImageRecord, name: str) -> bool:
    """Return whether a person has found a label of an image right as it is."""
    return record.is_accepted or name in record.accepted


def labelled_item(item: Item, cell: LabelCell | None, names: Iterable[str] | None = None) -> Item:
    """Return an item of a dataset with the labels of an image, of ``names`` alone where these are given."""
    if cell is None:
        return item
    kept = None if names is None else set(names)
    present, unknown = (
        tuple(name for name in some if kept is None or name in kept) for some in (cell.present, cell.unknown)
    )
    return replace(item, labels=present, unknown=unknown, is_rest_unknown=cell.rest)


def summary_of(items: Sequence[Item], names: Sequence[str]) -> str:
    """Return how many labels there are, in one line, and how many images nobody has labelled."""
    dataset = Dataset("", tuple(items), (), (), (), lambda _: b"", label_names=tuple(names))
    unlabelled = sum(item.labels is None for item in items)
    return dataset.label_summary + (f", {unlabelled} not labelled yet" if unlabelled else "")


def names_in_cells(cells: Iterable[LabelCell | None]) -> tuple[str, ...]:
    """Return the labels that cells name, sorted: those that a reader of the table knows of."""
    return tuple(sorted({name for cell in cells if cell is not None for name in (*cell.present, *cell.unknown)}))


def cell_text(cell: LabelCell | None, *, as_list: bool) -> str:
    """Return the labels of an image as the text of a cell, "?" where nothing is known.

    ``as_list``: as a list in JSON, which all cells are where one of the names could not stand in a text.
    """
    if cell is None:
        return UNKNOWN_CELL
    return label_text(labelled_item(Item("", None, "train"), cell), as_list)


def accepted_text(record: ImageRecord) -> str:
    """Return what the table keeps of what was accepted: of the whole image, or of some labels."""
    if record.is_accepted:
        return ACCEPTED
    return f"{ACCEPTED_CELLS}{list_text(record.accepted)}" if record.accepted else ""


def accepted_labels(action: str) -> tuple[str, ...]:
    """Return the labels that ``accepted_text`` wrote one by one; a text of somebody else holds none."""
    if not action.startswith(ACCEPTED_CELLS):
        return ()
    try:
        names = json.loads(action.removeprefix(ACCEPTED_CELLS))
    except (ValueError, RecursionError):
        return ()
    return tuple(sorted({n for n in names if isinstance(n, str)})) if isinstance(names, list) else ()
