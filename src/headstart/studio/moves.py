"""Moving files so that a kill at any moment loses nothing: the moves are written down before the first is made.

The table is the truth: a file belongs where the table says. Moves are made before the table that names the new places
is written, so after a kill those whose old place is still named in the table are taken back, the others completed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from headstart.errors import DataError
from headstart.files import read_json, to_json, write_atomic
from headstart.studio.records import ImageRecord

HIDDEN = ".studio"  # the folder in a project for all but its images
TRASH = f"{HIDDEN}/trash"
JOURNAL = "moves.json"
LIMIT = 64 * 2**20  # bytes of the journal

Move = tuple[str, str]  # from and to, relative to the project's folder


def make_moves(folder: Path, moves: Sequence[Move]) -> None:
    """Write the moves down and make them; all are taken back where one fails. Raises OSError."""
    journal = folder / HIDDEN / JOURNAL
    write_atomic(journal, to_json({"moves": moves}))
    done: list[Move] = []
    try:
        for source, target in moves:
            _move(folder, source, target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            _move(folder, target, source)
        journal.unlink()
        raise


def forget_moves(folder: Path) -> None:
    """Remove the journal: the table now names the new places."""
    (folder / HIDDEN / JOURNAL).unlink(missing_ok=True)


def recover_moves(folder: Path, named: Collection[str]) -> int:
    """Finish or take back the moves that a kill has interrupted; ``named`` are the paths in the table.

    Returns how many files were moved. Raises DataError for a journal that cannot be used.
    """
    journal = folder / HIDDEN / JOURNAL
    if not os.path.lexists(journal):
        return 0
    try:
        moves = [(_checked(source), _checked(target)) for source, target in read_json(journal, LIMIT)["moves"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{journal} cannot be used ({error}); look where the files are, and remove it.") from None
    count = 0
    for source, target in moves:
        is_old = source in named or (source.startswith(f"{TRASH}/") and target not in named)
        wrong, right = (target, source) if is_old else (source, target)
        if (folder / wrong).is_file() and not os.path.lexists(folder / right):
            _move(folder, wrong, right)
            count += 1
    journal.unlink()
    return count


def moves_between(
    folder: Path, before: Mapping[str, ImageRecord], after: Mapping[str, ImageRecord], ids: Iterable[str]
) -> list[Move]:
    """Return the moves by which the files of some images get from where they are to where they belong.

    Raises OSError for a file that is not in the trash any more.
    """
    moves = []
    for id in ids:
        old, new = before.get(id), after.get(id)
        if old is not None and new is None:
            moves.append((old.path, free_path(folder, f"{TRASH}/{old.id}/{old.path}")))
        elif new is not None and old is None and not os.path.lexists(folder / new.path):
            moves.append((_in_trash(folder, new), new.path))
        elif old is not None and new is not None and old.path != new.path:
            moves.append((old.path, new.path))
    return moves


def _in_trash(folder: Path, record: ImageRecord) -> str:
    """Return where a deleted file lies: the last of those with its name. Raises OSError."""
    name = f"{TRASH}/{record.id}/{record.path}"
    found = [path for path in (folder / name).parent.glob("*") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"{record.path} is not in the trash any more")
    return max(found, key=lambda path: path.stat().st_ctime_ns).relative_to(folder).as_posix()


def free_path(folder: Path, path: str, taken: Collection[str] = ()) -> str:
    """Return ``path``, or the same with a number before its ending, where neither a file is nor ``taken`` has it."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122  # a text with "/", not a path of this system
    number = 1
    while path in taken or os.path.lexists(folder / path):
        number += 1
        path = f"{stem}-{number}{suffix}"
    return path


def is_inside(folder: Path, path: str) -> bool:
    """Return whether a relative path stays in the folder, also by its links."""
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(folder / path)]) == root


def _move(folder: Path, source: str, target: str) -> None:
    """Give a file another place. Raises OSError, also where that is taken or a link leads out of the folder."""
    if not is_inside(folder, os.path.dirname(target)) or os.path.lexists(folder / target):  # noqa: PTH120
        raise FileExistsError(f"{target} is taken, or behind a link out of the folder")
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    (folder / source).rename(folder / target)


def _checked(path: object) -> str:
    if not isinstance(path, str) or path.startswith("/") or {"", ".", ".."} & set(path.split("/")) or "\0" in path:
        raise ValueError(f"{path!r} is no path in the folder")
    return path
