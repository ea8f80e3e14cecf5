"""A project that is killed at any moment loses no acknowledged label and no file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.studio.project import Project

from .changes_then_kill import labels_of

SCRIPT = Path(__file__).with_name("changes_then_kill.py")


def run(folder: Path, seed: int, call: int, *more: str) -> tuple[int, list]:
    command = [sys.executable, str(SCRIPT), str(folder), str(seed), str(call), *more]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("start") / "photos", 5)


def kill_and_compare(start: Path, tmp_path: Path, seed: int, calls: list[int], *more: str) -> int:
    """Kill runs at each of ``calls``, and compare with a run that was not; return how many were killed in time."""
    shutil.copytree(start, tmp_path / "whole" / "photos")
    code, whole = run(tmp_path / "whole" / "photos", seed, 0, *more)
    assert code == 0
    shutil.copytree(start, tmp_path / "before" / "photos")
    project = Project(tmp_path / "before" / "photos", multi_label=True if more else None)
    before = labels_of(project)
    project.close()
    killed = 0
    for call in calls:
        folder = tmp_path / f"{call}" / "photos"
        shutil.copytree(start, folder)
        code, acknowledged = run(folder, seed, call, *more)
        if code == 0:
            continue
        killed += 1
        assert code == -9
        assert acknowledged == whole[: len(acknowledged)]
        project = Project(folder)
        labels = labels_of(project)
        last = acknowledged[-1][1] if acknowledged else before
        assert labels in (last, whole[len(acknowledged)][1]), f"killed at call {call}"
        assert contents(start) <= contents(folder)  # in its folder or in the trash
        assert all((folder / record.path).is_file() for record in project.state.records.values())
        assert not project.state.missing
        project.close()
        again = Project(folder)  # what was put right stays so
        assert labels_of(again) == labels
        again.close()
    return killed


def test_kills_in_the_middle_of_changes_lose_nothing(start, tmp_path):
    assert kill_and_compare(start, tmp_path, 1, [1, 4, 5, 6, 7, 9, 12]) == 7


def test_kills_in_the_middle_of_changes_of_several_labels_lose_nothing(start, tmp_path):
    assert kill_and_compare(start, tmp_path, 4, [3, 5, 8, 11, 15, 16, 17, 22, 23], "several") == 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_a_hundred_kills_lose_nothing(start, tmp_path, seed):
    assert kill_and_compare(start, tmp_path, seed, list(range(1, 61))) >= 50
