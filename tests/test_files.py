"""Files and folders are written completely or not at all, also on errors, kills and full disks."""

import csv
import errno
import io
import json
import os
import posixpath
import shutil
import stat
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart import files
from headstart.data.layout import to_nfc
from headstart.files import (
    add_file,
    encode,
    escape_name,
    from_table_text,
    read_json,
    recover_folder,
    replace_folder,
    table_path,
    table_row,
    table_text,
    to_json,
    unescape_name,
    write_atomic,
)

# Bytes of file names, among them many that are not UTF-8 and many that look like escapes.
NAME_BYTES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=4), st.sampled_from([b"\\", b"x", b"e9", b"\\xe9", b"'", b"=", b'"', b"\r\n"])
    ),
    max_size=12,
).map(lambda parts: b"".join(parts).replace(b"\0", b"").replace(b"/", b""))
NAMES = NAME_BYTES.map(os.fsdecode)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_and_gets_the_usual_permissions(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "usual").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.json", "usual"}


def test_a_file_that_cannot_be_written_raises_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "folder", "text")
    with pytest.raises(OSError):
        write_atomic(tmp_path / "missing" / "file", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def fill_with(text, names=("a", "b")):
    def fill(new):
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)

    return fill


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = tmp_path / "deep" / "target"
    replace_folder(target, fill_with("old", ("a", "c", "sub/d")))
    replace_folder(target, fill_with("new"))
    assert content(target) == {"a": b"new", "b": b"new"}
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_an_error_while_a_folder_is_filled_leaves_the_old_one(tmp_path):
    target = tmp_path / "target"
    replace_folder(target, fill_with("old"))

    def fail(new):
        (new / "a").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        replace_folder(target, fail)
    assert content(target) == {"a": b"old", "b": b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_two_folders_are_exchanged_in_one_step(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    exchanged = files._exchange(tmp_path / "first", tmp_path / "second")
    assert exchanged == sys.platform.startswith("linux")
    assert (tmp_path / "first" / "name").read_text() == ("second" if exchanged else "first")
    assert not files._exchange(tmp_path / "first", tmp_path / "missing")


def test_several_threads_replace_the_same_folder(tmp_path):
    target = tmp_path / "target"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: replace_folder(target, fill_with(str(i))), range(64)))
    assert len(set(content(target).values())) == 1
    assert set(content(target)) == {"a", "b"}


KILLED = """
import os, sys
from pathlib import Path
from headstart.files import replace_folder, write_atomic
count = int(sys.argv[2])
def counted(function):
    def call(*arguments, **options):
        global count
        if count == 0:
            os.kill(os.getpid(), 9)
        count -= 1
        return function(*arguments, **options)
    return call
for name in ("fsync", "replace", "rename", "unlink", "rmdir", "open"):
    setattr(os, name, counted(getattr(os, name)))
import headstart.files as files
files._exchange = counted(files._exchange if sys.argv[3] == "True" else lambda first, second: False)
def fill(new):
    for name in ("a", "b"):
        (new / name).write_text("new")
replace_folder(Path(sys.argv[1]) / "target", fill)
write_atomic(Path(sys.argv[1]) / "file", "new")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges folders in one step")
@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("calls", range(18))
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, calls, can_exchange):
    target, file = tmp_path / "target", tmp_path / "file"
    replace_folder(target, fill_with("old"))
    write_atomic(file, "old")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(calls), str(can_exchange)])
    if not can_exchange:
        recover_folder(target)
    assert set(content(target)) == {"a", "b"}
    assert set(content(target).values()) in ({b"old"}, {b"new"})
    assert file.read_text() in ("old", "new")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from headstart.files import replace_folder, write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
for write in (
    lambda: write_atomic(folder / "file", "x" * 2000),
    lambda: replace_folder(folder / "target", lambda new: (new / "a").write_text("x" * 2000)),
):
    try:
        write()
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_full_disk_leaves_the_old(tmp_path):
    replace_folder(tmp_path / "target", fill_with("old"))
    write_atomic(tmp_path / "file", "old")
    completed = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True)
    assert completed.stdout.split() == ["OSError", "OSError"], completed.stderr
    assert content(tmp_path) == {"file": b"old", "target/a": b"old", "target/b": b"old"}


@pytest.mark.parametrize(
    "write",
    [
        lambda target: write_atomic(target, b"x"),
        lambda target: add_file(target.parent, target.name, b"x"),
        lambda target: replace_folder(target, lambda folder: (folder / "x").write_bytes(b"x")),
    ],
    ids=["file", "new file", "folder"],
)
def test_a_full_disk_is_an_error_that_names_what_was_to_be_written(tmp_path, monkeypatch, write):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "target")
    assert caught.value.filename == str(tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"gu\xeape \xff")
    (tmp_path / "a.json").write_bytes(to_json({"name": name, "é": [1]}, indent=1))
    assert read_json(tmp_path / "a.json", 1000) == {"name": name, "é": [1]}
    assert encode(name) == b"gu\\xeape \\xff"
    assert to_json("a\x7f") == b'"a\\u007f"\n'  # DEL steers a terminal, and is the only such character of ASCII left
    assert to_json("\u202e\xe9") == '"\\u202e\xe9"\n'.encode()
    assert (tmp_path / "a.json").read_bytes().decode("utf-8").splitlines()[1] == r' "name": "gu\\xeape \\xff",'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            to_json({"value": value})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b"{", "Expecting"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "more than 1,000 bytes"),
        (b"[" * 900, "Expecting|too deeply"),
        (b'{"a": "\xff"}', "codec"),
    ],
)
def test_json_that_cannot_be_used_is_an_error(tmp_path, data, reason):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_json(tmp_path / "a.json", 1000)
    with pytest.raises(OSError):
        read_json(tmp_path / "missing.json", 1000)


def test_json_of_many_small_values_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "a.json"
    for value, count in ((b'{"a":0}', 2_600_000), (b"[]", 2_600_000), (b"0", 5_100_000)):
        path.write_bytes(b'{"a":[' + b",".join([value] * count) + b"]}")
        tracemalloc.start()
        with pytest.raises(ValueError, match="more than 5,000,000 values"):
            read_json(path, 2**26)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**27


@pytest.mark.parametrize(
    "write",
    [
        lambda path: replace_folder(path, lambda new: (new / "a").write_text("a")),
        lambda path: write_atomic(path, "text"),
    ],
)
def test_what_killed_runs_have_left_is_deleted_after_a_day(tmp_path, write):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("x")
    folder = tmp_path / "models"
    folder.mkdir()
    for name in (".headstart-old", ".headstart-young", ".other-old"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / ".headstart-file").write_text("x")
    (folder / ".headstart-link").symlink_to(outside)
    long_ago = time.time() - 2 * 86_400
    for name in (".headstart-old", ".other-old", ".headstart-file"):
        os.utime(folder / name, (long_ago, long_ago))
    os.utime(folder / ".headstart-link", (long_ago, long_ago), follow_symlinks=False)
    write(folder / "model")
    assert sorted(path.name for path in folder.iterdir()) == [".headstart-young", ".other-old", "model"]
    assert (outside / "thesis.txt").exists()


def decode_by_hand(text):
    """What an escaped name means, character by character."""
    name, i = b"", 0
    while i < len(text):
        if text[i : i + 2] == "\\\\":
            name, i = name + b"\\", i + 2
        elif (
            text[i : i + 2] == "\\x"
            and text[i + 2 : i + 3] in tuple("89abcdef")
            and text[i + 3 : i + 4] in tuple("0123456789abcdef")
        ):
            name, i = name + bytes([int(text[i + 2 : i + 4], 16)]), i + 4
        else:
            name, i = name + text[i].encode(), i + 1
    return name


@given(NAME_BYTES)
@example(b"caf\xe9")
@example(b"caf\\xe9")
@example(b"\\\\")
@example(b"\\\xe9\\xe9")
def test_a_name_of_any_bytes_is_text_from_which_the_bytes_come_back(name):
    text = escape_name(os.fsdecode(name))
    assert text.encode("utf-8").decode("utf-8") == text
    assert os.fsencode(unescape_name(text)) == name
    assert decode_by_hand(text) == name
    is_text = os.fsdecode(name).isprintable() and b"\\" not in name
    assert text == os.fsdecode(name) if is_text else True


@settings(deadline=None)
@given(st.recursive(NAMES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)))
def test_names_of_any_bytes_come_back_from_json(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("json") / "a.json"
    file.write_bytes(to_json({"value": value}, indent=1))
    text = file.read_bytes().decode("utf-8")
    assert not any(0xD800 <= ord(c) <= 0xDFFF for c in json.dumps(json.loads(text), ensure_ascii=False))
    assert read_json(file, 10**6) == {"value": value}


@given(st.lists(st.tuples(NAMES.filter(bool), NAMES), min_size=1), st.sampled_from(",\t"))
def test_names_of_any_bytes_come_back_from_tables_without_formulas(rows, delimiter):
    text = "".join(table_row([table_path(path), table_text(label)], delimiter) for path, label in rows)
    cells = list(csv.reader(io.StringIO(encode(text).decode("utf-8"), newline=""), delimiter=delimiter, strict=True))
    assert [(posixpath.normpath(unescape_name(path)), from_table_text(label)) for path, label in cells] == [
        (posixpath.normpath(path), label) for path, label in rows
    ]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in cells for cell in row)


@settings(deadline=None, max_examples=40)
@given(st.lists(NAME_BYTES, min_size=1, max_size=5, unique=True), NAME_BYTES, NAME_BYTES)
@example([b"\xe9", b"\\xe9", b"\\\\xe9", b"\xc3\xa9"], b"\xff", b"\\xff")
@example([b"\xff" * 245, b"x" * 245], b"\xff" * 100, b"\\" * 100)
def test_the_table_of_a_check_names_the_same_files_and_labels(tmp_path_factory, names, first, second):
    from headstart import open_dataset
    from headstart.check import write_table

    folder = tmp_path_factory.mktemp("names")
    root = os.fsencode(folder) + b"/train/"
    for label in (b"a" + first + b"z", b"b" + second + b"z"):
        os.makedirs(root + label)  # noqa: PTH103
        for name in names:
            with open(root + label + b"/n" + name + b".jpg", "wb"):  # noqa: PTH123
                pass
    dataset = open_dataset(folder)
    write_table(dataset, [], {item.path: 0 for item in dataset.items}, str(folder / "fix.csv"))
    again = open_dataset(folder / "fix.csv")

    def content(items, start):
        return sorted((os.fsencode(os.path.join(start, item.path)), to_nfc(item.label), item.split) for item in items)  # noqa: PTH118

    assert len(again.items) == 2 * len(names)
    assert content(again.items, str(folder)) == content(dataset.items, "")


def test_what_a_folder_holds_that_is_not_ours(tmp_path):
    from headstart.files import foreign_files

    folder = tmp_path / "folder"
    (folder / ".headstart-x" / "a").mkdir(parents=True)
    (folder / "d").mkdir()
    for name in ("a", "b", "c", ".headstart-y", ".DS_Store", "Thumbs.db", "desktop.ini", "._a"):
        (folder / name).write_text("x")
    assert foreign_files(folder, ["a", "d"].__contains__) == [folder / "b", folder / "c", folder / "d"]
    assert foreign_files(folder, ["a", "b", "c"].__contains__) == [folder / "d"]
    (folder / ".Directory").mkdir()  # a folder is not of the system, whatever its name
    assert foreign_files(folder, ["a", "b", "c"].__contains__) == [folder / ".Directory", folder / "d"]
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", folder / "a", tmp_path / "missing"):
        assert foreign_files(path, lambda _: True) == [path]


def moved_aside(target, text):
    """The state that a kill between the two steps leaves: nothing at ``target``, the old and the new beside it."""
    for name in (f"old0/{target.name}", "new"):
        folder = target.parent / ".headstart-killed" / name
        folder.mkdir(parents=True)
        (folder / "a").write_text(text if name != "new" else "new")


def test_a_folder_that_a_killed_run_had_moved_aside_is_put_back(tmp_path):
    target, other = tmp_path / "target", tmp_path / "other"
    moved_aside(target, "old")
    recover_folder(other)
    assert not other.exists()
    recover_folder(target)
    assert content(target) == {"a": b"old"}
    shutil.rmtree(tmp_path / ".headstart-killed")
    moved_aside(tmp_path / "second", "of another")
    recover_folder(target)
    assert content(target) == {"a": b"old"}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_it_is_put_back_before_it_is_replaced(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    moved_aside(tmp_path / "target", "old")

    def fail(new):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_folder(tmp_path / "target", fail)
    assert content(tmp_path / "target") == {"a": b"old"}
    replace_folder(tmp_path / "target", fill_with("newer"))
    shutil.rmtree(tmp_path / "target")
    recover_folder(tmp_path / "target")
    assert not (tmp_path / "target").exists()  # what the user has deleted does not come back


def test_what_was_moved_aside_is_put_back_before_it_is_swept(tmp_path):
    moved_aside(tmp_path / "target", "old")
    long_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / ".headstart-killed", (long_ago, long_ago))
    replace_folder(tmp_path / "other", fill_with("other"))
    assert content(tmp_path / "target") == {"a": b"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]


@pytest.mark.parametrize("link", [".headstart-x", ".headstart-x/old0", ".headstart-x/old0/target"])
def test_links_are_not_taken_for_what_was_moved_aside(tmp_path, link):
    foreign = tmp_path / "foreign" / "old0" / "target"
    foreign.mkdir(parents=True)
    path = tmp_path / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path.joinpath("foreign", *(["old0", "target"][: link.count("/")])))
    recover_folder(tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert foreign.is_dir()


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_an_interrupt_between_the_two_steps_leaves_the_old(tmp_path, monkeypatch, error):
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = tmp_path / "target"
    replace_folder(target, fill_with("old"))
    replace = type(target).replace

    def interrupted(path, to):
        if path.name == "new" and not target.exists():
            raise error
        return replace(path, to)

    monkeypatch.setattr(type(target), "replace", interrupted)
    with pytest.raises(error):
        replace_folder(target, fill_with("new"))
    assert content(target) == {"a": b"old", "b": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_several_threads_replace_the_same_folder_in_two_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = tmp_path / "target"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: replace_folder(target, fill_with(str(i))), range(32)))
    assert len(set(content(target).values())) == 1
    assert set(content(target)) == {"a", "b"}
