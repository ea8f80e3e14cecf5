"""A project that is killed at any moment loses no acknowledged label and no file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.studio.project import Project

SCRIPT = Path(__file__).with_name("changes_then_kill.py")


def run(folder: Path, seed: int, call: int) -> tuple[int, list]:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(seed), str(call)], capture_output=True, text=True, check=False
    )
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("start") / "photos", 5)


def kill_and_compare(start: Path, tmp_path: Path, seed: int, calls: list[int]) -> int:
    """Kill runs at each of ``calls``, and compare with a run that was not; return how many were killed in time."""
    shutil.copytree(start, tmp_path / "whole" / "photos")
    code, whole = run(tmp_path / "whole" / "photos", seed, 0)
    assert code == 0
    project = Project(start.parent / "photos")
    before = {id: record.label for id, record in project.state.records.items()}
    project.close()
    killed = 0
    for call in calls:
        folder = tmp_path / f"{call}" / "photos"
        shutil.copytree(start, folder)
        code, acknowledged = run(folder, seed, call)
        if code == 0:
            continue
        killed += 1
        assert code == -9
        assert acknowledged == whole[: len(acknowledged)]
        project = Project(folder)
        labels = {id: record.label for id, record in project.state.records.items()}
        last = acknowledged[-1][1] if acknowledged else before
        assert labels in (last, whole[len(acknowledged)][1]), f"killed at call {call}"
        assert contents(start) <= contents(folder)  # in its folder or in the trash
        assert all((folder / record.path).is_file() for record in project.state.records.values())
        assert not project.missing
        project.close()
        again = Project(folder)  # what was put right stays so
        assert {id: record.label for id, record in again.state.records.items()} == labels
        again.close()
    return killed


def test_kills_in_the_middle_of_changes_lose_nothing(start, tmp_path):
    assert kill_and_compare(start, tmp_path, 1, [1, 4, 5, 6, 7, 9, 12]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_a_hundred_kills_lose_nothing(start, tmp_path, seed):
    assert kill_and_compare(start, tmp_path, seed, list(range(1, 61))) >= 50
