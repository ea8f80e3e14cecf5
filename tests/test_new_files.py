"""Names that are safe for a file, and files that are added without overwriting any."""

import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headstart.files import add_file, escape_file_name, open_atomic

NAMES = st.text(st.one_of(st.sampled_from(string.printable + "%_./\\é\udce9\u202e馬"), st.characters()), max_size=300)


@given(NAMES, NAMES)
@example("caf\udce9", "caf\\xe9")
@example("a/b", "a%2Fb")
@example("x" * 300, "x" * 299 + "y")
def test_a_safe_name_is_one_part_of_a_path_and_stands_for_one_text(first, second):
    name = escape_file_name(first)
    assert "/" not in name
    assert 0 < len(os.fsencode(name)) <= 220
    assert name.isprintable()
    assert name[0] not in "._ "
    assert not set(name) & set('/\\:*?"<>|\0')
    assert (name == escape_file_name(second)) == (first == second)


def test_a_file_is_added_beside_another_of_its_name_and_written_once(tmp_path):
    folder = tmp_path / "a" / "b"
    assert add_file(folder, "x.jpg", b"1") == folder / "x.jpg"
    assert add_file(folder, "x.jpg", b"2") == folder / "x-2.jpg"
    assert add_file(folder, "x.jpg", b"1") == folder / "x.jpg"
    assert add_file(folder, "x.jpg", b"2") == folder / "x-2.jpg"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"x.jpg": b"1", "x-2.jpg": b"2"}


def test_on_a_file_system_without_links_files_are_added_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert [add_file(tmp_path, "x", data).name for data in (b"1", b"2", b"1")] == ["x", "x-2", "x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x-2"]


def test_a_file_that_another_process_has_just_written_is_not_written_twice(tmp_path, monkeypatch):
    link = os.link

    def late(source, target):
        if target.name == "x.jpg":
            target.write_bytes(b"1")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert add_file(tmp_path, "x.jpg", b"1") == tmp_path / "x.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


def test_a_link_in_the_place_of_a_file_or_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="link"):
        add_file(tmp_path / "link", "x.jpg", b"1")
    (tmp_path / "victim.jpg").write_bytes(b"old")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpg").symlink_to(tmp_path / "victim.jpg")
    assert add_file(tmp_path / "in", "x.jpg", b"new").name == "x-2.jpg"
    assert (tmp_path / "victim.jpg").read_bytes() == b"old"
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_error_while_a_file_is_written_leaves_the_old_one(tmp_path):
    (tmp_path / "x").write_bytes(b"old")

    def fail():
        with open_atomic(tmp_path / "x") as stream:
            stream.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]
