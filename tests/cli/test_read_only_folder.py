"""A folder in which nothing may be written is refused before the work, not after it."""

import os
from pathlib import Path

import pytest

from headstart.errors import OptionError
from headstart.machine import why_not_writable

COMMANDS = {  # the data are not there: whoever complains about the folder has looked at it first
    "fit": ["fit", "{none}", "-o", "{out}/model"],
    "fit into a new folder": ["fit", "{none}", "-o", "{out}/new/model"],
    "page of check": ["check", "{none}", "--report", "{out}/page.html"],
    "table of check": ["check", "{none}", "--fix-list", "{out}/table.csv"],
    "sample": ["sample", "horses-or-humans", "{out}/sample", "--train", "4", "--validation", "0"],
}


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder that this user may only read, also where the tests run as root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not (Path(path) == folder and mode & os.W_OK)
    )
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_refused_before_the_work(name, run, read_only, tmp_path):
    arguments = [a.format(none=tmp_path / "none", out=read_only) for a in COMMANDS[name]]
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f": nothing can be written in {read_only}" in err
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("name", ["fit", "fit by workers", "embed", "statistics", "sample"])
def test_a_folder_that_may_not_be_changed_itself_is_refused_before_the_work(name, run, read_only, tmp_path):
    commands = {
        "fit": ["fit", tmp_path / "none", "-o", read_only],
        "fit by workers": ["fit", tmp_path / "none", "-o", read_only, "--on", "processes"],
        "embed": ["embed", tmp_path / "none", "-o", read_only],
        "statistics": ["embed", tmp_path / "none", "-o", read_only, "--statistics"],
        "sample": ["sample", "horses-or-humans", read_only],
    }
    status, out, err = run(*commands[name])
    assert (status, out) == (2, "")
    assert f": nothing can be written in {read_only}; give another " in err


def test_an_export_is_refused_before_it_is_made(read_only):
    from headstart.export.about import check_output_folder

    with pytest.raises(OptionError, match=f"^Cannot write the export to .*: nothing can be written in {read_only};"):
        check_output_folder(read_only / "model-onnx")


def test_the_first_folder_that_is_there_decides(read_only, tmp_path):
    assert why_not_writable(tmp_path / "a" / "b" / "c") is None
    for path in (read_only / "a", read_only / "a" / "b"):
        assert why_not_writable(path) == f"nothing can be written in {read_only}"
