"""Where a command may write is told before its work; of two processes that write to one place one is refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.classifier.embed_statistics import unfinished_sums
from headstart.classifier.fit_sharded import unfinished_folder
from headstart.machine import one_at_a_time

WRITERS = {  # the data are not there: whoever complains about the place has looked at it first
    "fit": ["fit", "{none}", "-o", "{out}"],
    "fit by workers": ["fit", "{none}", "-o", "{out}", "--on", "processes"],
    "embed": ["embed", "{none}", "-o", "{out}"],
    "statistics": ["embed", "{none}", "-o", "{out}", "--statistics"],
    "merge": ["merge", "{none}", "-o", "{out}"],
    "sample": ["sample", "horses-or-humans", "{out}", "--train", "4", "--validation", "0"],
}
REPLACING = [name for name in WRITERS if name != "embed"]  # which writes into a folder as it is


@pytest.fixture
def refused(run, tmp_path):
    def call(command, out):
        status, printed, err = run(*[word.format(none=tmp_path / "none", out=out) for word in command])
        assert (status, printed, err.count("\n")) == (2, "", 1), err
        return err

    return call


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_below_a_file_is_refused_before_the_work(name, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path / 'file'} is no folder; give another " in refused(WRITERS[name], tmp_path / "file" / "new")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("to", ["there", "nowhere"])
def test_a_link_is_refused_before_the_work(name, to, refused, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(to)
    assert "is a link, or no folder; give another name" in refused(WRITERS[name], tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


@pytest.mark.parametrize("name", REPLACING)
def test_a_mounted_disk_is_refused_before_the_work(name, refused, tmp_path, monkeypatch):
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    told = refused(WRITERS[name], tmp_path / "volume")
    assert "another disk is mounted there, which cannot be replaced, but a folder in it can" in told


@pytest.mark.parametrize("name", REPLACING)
@pytest.mark.parametrize("spelt", [".", "../here"])
def test_the_folder_that_a_command_runs_in_is_refused_before_the_work(name, spelt, refused, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "the command runs in this folder" in refused(WRITERS[name], spelt)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("name", ["fit by workers", "embed", "statistics"])
def test_of_two_processes_that_write_to_one_place_one_is_refused(name, refused, tmp_path):
    out = tmp_path / "out"
    places = {"fit by workers": unfinished_folder(out), "embed": out, "statistics": unfinished_sums(out)}
    places[name].mkdir()
    with one_at_a_time(places[name]):
        told = refused(WRITERS[name], out)
    assert f"Another process is writing to {places[name]}; wait until it has ended" in told
    assert [*tmp_path.iterdir()] == [places[name]]
    assert "There is no " in refused(WRITERS[name], out)  # it is free again: the data are looked for


def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom headstart.machine import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="Another process is writing to"), one_at_a_time(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with one_at_a_time(tmp_path):
        pass
    assert [*tmp_path.iterdir()] == []


def test_work_that_fails_leaves_no_empty_folders(refused, tmp_path):
    for name in ("embed", "statistics", "fit by workers"):
        refused(WRITERS[name], tmp_path / "a" / "b" / "out")
        assert [*tmp_path.iterdir()] == [], name


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "", "-o", "model"], "(behind the command)"),
        (["fit", "photos", "-o", ""], "(behind -o)"),
        (["fit", "photos", "--output="], "(--output=)"),
        (["predict", "model", ""], "(behind model)"),
        (["forget", "model", ""], "(behind model)"),
    ],
)
def test_an_empty_argument_is_not_the_folder_that_the_command_runs_in(arguments, told, run, tmp_path, monkeypatch):
    write_photos(tmp_path, 4)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert f"An argument is empty {told}" in err
    assert sorted(tmp_path.rglob("*")) == before
