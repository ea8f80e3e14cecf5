"""Files and folders that are written whole or not at all, and JSON that is read within limits."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from headstart.machine import is_left_by_system

TEMPORARY = ".headstart-"  # how the names of files and folders begin that are not finished
ASIDE = "old"  # how the names of folders begin, in one of these, that hold what is being replaced
MAX_VALUES = 5_000_000  # in a file of JSON: each takes up to 240 bytes, however short its text is
ATTEMPTS = 10  # to replace a folder that other processes replace as well
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # why a folder cannot take the name of another one
ABANDONED_SECONDS = 86_400
MAX_NAME_BYTES = 180  # of the 255 of most file systems: a number and an ending are added
UNSAFE = frozenset('%/\\:*?"<>|')  # in names of files, on one system or another
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
UNDECODED = re.compile("[\udc80-\udcff]")
HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half of a pair of UTF-16, as JSON may escape it: no character
ESCAPED = re.compile(r"\\(?:\\|x([89a-f][0-9a-f]))")
# Controls of terminals, and of the direction of text, that JSON does not escape by itself.
STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def escape_name(name: str) -> str:
    """Return a name as text of Unicode: a byte that is not UTF-8, which Python keeps as a lone surrogate, as ``\\xNN``.

    The backslashes of such a name are doubled, and those of one that looks as if it were escaped, so that
    ``unescape_name`` returns the same name in any case. All other names stay as they are.

    >>> escape_name("caf\\udce9\\\\1"), escape_name("caf\\\\xe9"), escape_name("a\\\\b")
    ('caf\\\\xe9\\\\\\\\1', 'caf\\\\\\\\xe9', 'a\\\\b')
    """
    if not UNDECODED.search(name) and unescape_name(name) == name:
        return name
    return UNDECODED.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name.replace("\\", "\\\\"))


def unescape_name(text: str) -> str:
    """Return the name that ``escape_name`` wrote as a text."""
    return ESCAPED.sub(lambda match: "\\" if match[1] is None else chr(0xDC00 + int(match[1], 16)), text)


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of JSON with another text for each of its texts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_text(key, change): _map_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_text(item, change) for item in value]
    return value


def encode(text: str) -> bytes:
    """Encode text as UTF-8; a byte of a file name that is not UTF-8 becomes ``\\xNN``."""
    try:
        return text.encode()  # nearly every text: searching megabytes for what is not in them takes ten times as long
    except UnicodeEncodeError:
        text = UNDECODED.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
        return text.encode("utf-8", "backslashreplace")  # within JSON, \udNNN reads back as the same text


def table_text(text: str) -> str:
    """Return a cell of text that a spreadsheet does not take for a formula, with an apostrophe before it; escaped.

    >>> table_text("=1+1"), table_text("-x"), table_text("a=b")
    ("'=1+1", "'-x", 'a=b')
    """
    text = escape_name(text)
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def table_path(path: str) -> str:
    """Return a path that a spreadsheet does not take for a formula, escaped; ``unescape_name`` gives the path of it.

    >>> table_path("=x.jpg"), table_path("a/=x.jpg")
    ('./=x.jpg', 'a/=x.jpg')
    """
    path = escape_name(path)
    return f"./{path}" if path.startswith(FORMULA_STARTS) or path[:1].isspace() else path


def from_table_text(text: str) -> str:
    """Return the text of a cell that ``table_text`` wrote."""
    is_marked = text.startswith("'") and text.lstrip("'").startswith(FORMULA_STARTS)
    return unescape_name(text[1:] if is_marked else text)


def table_row(values: Sequence[object], delimiter: str = ",") -> str:
    """Return a line of a table of text, with quotes around cells that need them, also where they hold a ``\\r``."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerow(values)
    return stream.getvalue()[:-2] + "\n"


def json_text(value: object, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """Return a value as JSON: names by ``escape_name``, characters that steer a terminal as escapes of JSON.

    Raises ValueError for NaN and infinity.

    >>> json_text({"name": "caf\u00e9 \u202e"})
    '{"name": "caf\u00e9 \\\\u202e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    if "\\\\" in text or (not text.isascii() and UNDECODED.search(text)):  # few texts have names to escape
        value = _map_text(value, escape_name)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    if text.isascii() and "\x7f" not in text:  # the only one of STEERING that is ASCII
        return text
    return STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_json(value: object, indent: int | None = None) -> bytes:
    """Encode a value as JSON in UTF-8, with a newline at its end. Raises ValueError for NaN and infinity."""
    return encode(json_text(value, indent, (",", ":") if indent is None else None) + "\n")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file whose content is either the old one or all of ``data``, also if the process is killed.

    The data are on the disk before the file gets its name. What killed runs have left beside it more than a day ago is
    deleted. Raises OSError.
    """
    with open_atomic(path) as stream:
        stream.write(encode(data) if isinstance(data, str) else data)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as that of a full disk does not, name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write to that gets its name at the end, as ``write_atomic`` says. Raises OSError."""
    sweep_unfinished(path.parent)
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with naming(path), temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def escape_file_name(text: str) -> str:
    """Return a name for a file or folder that stands for ``text``, and for no other text.

    Characters that mean something in a path, to a shell or to a terminal become ``%`` and the bytes in hexadecimal, and
    so do a dot, an underscore or a space at the start. A name of more than 180 bytes is cut, and ends in its hash.

    >>> escape_file_name("bees"), escape_file_name("../a/b"), escape_file_name(".hidden"), escape_file_name("")
    ('bees', '%2E.%2Fa%2Fb', '%2Ehidden', '%')
    """
    parts = []
    for i, c in enumerate(text):
        is_plain = c.isprintable() and c not in UNSAFE and not (i == 0 and c in "._ ")
        data = bytes([ord(c) - 0xDC00]) if UNDECODED.match(c) else c.encode("utf-8", "surrogatepass")
        parts.append(c if is_plain else "".join(f"%{byte:02X}" for byte in data))
    name = "".join(parts) or "%"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return f"{name.encode()[:MAX_NAME_BYTES].decode('utf-8', 'ignore')}%{sha256[:16]}"


def add_file(folder: Path, name: str, data: bytes) -> Path:
    """Write a new file into a folder, which is made where it is missing; no file is ever overwritten.

    Where the name is taken by another file, ``-2`` or a higher number is put before its ending; where that file has the
    same bytes, nothing is written. Returns the path. Raises OSError, also where the folder is a link.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "A link in the place of a folder", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = Path(name).stem, Path(name).suffix
    temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        for number in count(1):
            path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
            if not os.path.lexists(path):
                with naming(path), suppress(FileExistsError):  # another process was faster
                    if not temporary.exists():
                        temporary.write_bytes(data)
                    _name(temporary, path, data)
                    return path
            if _has_content(path, data):
                return path
    finally:
        temporary.unlink(missing_ok=True)
    raise AssertionError("count ends nowhere")


def _name(temporary: Path, path: Path, data: bytes) -> None:
    """Give a file a name that is not taken. Raises FileExistsError where it is."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("xb") as stream:
            stream.write(data)


def _has_content(path: Path, data: bytes) -> bool:
    is_file = path.is_file() and not path.is_symlink()
    return is_file and path.stat().st_size == len(data) and path.read_bytes() == data


def foreign_files(folder: Path, is_name: Callable[[str], bool]) -> list[Path]:
    """Return what Headstart has not put into a folder of files whose names ``is_name`` holds of, sorted.

    What a run that was killed had begun to write is ours, a folder or a pipe of such a name is not, and what the system
    leaves in a folder is nobody's. A link, and what is no folder, is foreign itself: ``[folder]``. Raises OSError.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder]
    others = (path for path in folder.iterdir() if not (path.name.startswith(TEMPORARY) or is_left_by_system(path)))
    return sorted(path for path in others if not (is_name(path.name) and path.is_file()))


def sweep_unfinished(folder: Path) -> None:
    """Delete what runs that were killed have left in a folder: unfinished files and folders of more than a day ago.

    A folder that such a run had moved aside is put back first, where nothing has taken its place.
    """
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):  # another process may sweep as well
            if time.time() - path.lstat().st_mtime > ABANDONED_SECONDS:
                if path.is_dir() and not path.is_symlink():
                    for aside in path.glob(f"{ASIDE}*/*"):
                        recover_folder(folder / aside.name)
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def recover_folder(target: Path) -> None:
    """Put back a folder that a run had moved aside when it was killed, on a system that cannot exchange folders.

    Where there is something at ``target``, or nothing was moved aside, nothing happens.
    """
    if os.path.lexists(target):
        return
    for unfinished in target.parent.glob(f"{TEMPORARY}*"):
        with suppress(OSError):  # another process may have finished, or put it back, in the meantime
            for path in unfinished.glob(f"{ASIDE}*"):
                aside = path / target.name
                is_link = any(part.is_symlink() for part in (unfinished, path, aside))
                if aside.is_dir() and not is_link:
                    aside.replace(target)
                    return


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write the files of a new folder, which then takes the place of ``target``.

    ``target`` is either as it was or holds all files of the new folder and nothing else, also if the process is killed
    or another one replaces it at the same time; on a system that cannot exchange folders, after ``recover_folder``.
    Raises OSError, and what ``fill`` raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(target.parent)
    recover_folder(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=TEMPORARY) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        with naming(target):
            fill(new)
        for path in new.rglob("*"):  # on the disk before the rename makes it visible
            if path.is_file():
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
        try:
            new.replace(target)  # where there is nothing yet, or an empty folder
        except OSError as error:
            if error.errno not in TAKEN and not target.exists():  # another process may have just moved it aside
                raise
            if not _exchange(new, target):
                _move_aside_and_replace(new, target)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; return False where the system cannot, and they are as they were."""
    import ctypes  # few commands write folders

    with suppress(OSError, AttributeError):
        paths = (os.fsencode(first), os.fsencode(second))
        status: int = ctypes.CDLL(None).renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE)
        return status == 0
    return False


def _move_aside_and_replace(new: Path, target: Path) -> None:
    """Replace a folder in two steps: killed between them, the process leaves the old one for ``recover_folder``."""
    for attempt in range(ATTEMPTS):
        aside = new.with_name(f"{ASIDE}{attempt}") / target.name
        aside.parent.mkdir()
        try:
            with suppress(FileNotFoundError):
                target.replace(aside)
            new.replace(target)
            return
        except BaseException as error:
            is_taken = isinstance(error, OSError) and (error.errno in TAKEN or os.path.lexists(target))
            if is_taken and attempt + 1 < ATTEMPTS:  # by another process
                continue
            if aside.exists() and not os.path.lexists(target):
                aside.replace(target)
            raise


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read it. Raises OSError, also for a pipe or a device, which would never come to an end."""
    stream = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # a Path each is slow for thousands
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return stream


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe would wait for a process that writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_limited(path: Path, limit: int) -> bytes:
    """Return the content of a regular file, of one with more than ``limit`` bytes so many and one. Raises OSError."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size  # to read more, Python would set all that memory aside first
        return stream.read(min(size, limit) + 1)


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """Read the JSON object in a file of at most ``limit`` bytes; its texts are unescaped as names.

    Raises OSError when the file cannot be read, ValueError when it is larger or holds anything else.
    """
    data = read_limited(path, limit)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return parse_json(data)


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse the JSON object that ``to_json`` wrote; its texts are unescaped as names. Raises ValueError."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")
    try:
        value = json.loads(data)
        if b"\\\\" in data:
            value = _map_text(value, unescape_name)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value
