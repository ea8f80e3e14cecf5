"""``headstart studio`` as a process: its address, its token, its end."""

import os
import signal
import subprocess
import sys

import httpx
from helpers.photos import write_photos

from headstart import open_dataset

from .conftest import write_label_project


def test_the_command_prints_its_address_and_ends_when_it_is_terminated(tmp_path):
    folder = write_photos(tmp_path / "photos", 3)
    command = [sys.executable, "-m", "headstart", "studio", str(folder), "--no-open", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--backbone", "headstart-s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address, _, token = process.stdout.readline().strip().partition("/#token=")
        headers = {"Authorization": f"Bearer {token}"}
        state = httpx.get(f"{address}/api/state", headers=headers, timeout=60).json()
        assert (state["images"], state["project"]) == (6, "photos")
        assert httpx.get(f"{address}/api/state", timeout=60).status_code == 401
        query = {"key": state["key"]}
        with httpx.stream("GET", f"{address}/api/events", params=query, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": hello"
            os.kill(process.pid, signal.SIGTERM)
            list(lines)  # to its end: a stream that is cut off is an error
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_the_command_says_how_a_table_of_several_labels_is_read(tmp_path):
    folder = write_label_project(tmp_path, 12)
    command = [sys.executable, "-m", "headstart", "studio", str(folder), "--no-open", "--port", "0"]
    command += ["--backbone", "headstart-s"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address, _, token = process.stdout.readline().strip().partition("/#token=")
        state = httpx.get(f"{address}/api/state", headers={"Authorization": f"Bearer {token}"}, timeout=60).json()
        assert (state["multi_label"], [entry["name"] for entry in state["classes"]]) == (
            True,
            ["disc", "square", "stripes"],
        )
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        summary = open_dataset(tmp_path / "photos-labels.csv").label_summary
        assert f"photos is {summary}." in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    result = subprocess.run([*command, "--single-label"], capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is a project of several labels an image; leave --single-label out" in result.stderr


def test_a_second_studio_of_the_same_folder_is_refused(tmp_path):
    from headstart.studio.project import Project

    folder = write_photos(tmp_path / "photos", 2)
    project = Project(folder)
    command = [sys.executable, "-m", "headstart", "studio", str(folder), "--no-open", "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    project.close()
    assert result.returncode == 2
    assert "open in another studio" in result.stderr


def test_a_backbone_that_there_is_not_ends_the_command(tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    command = [sys.executable, "-m", "headstart", "studio", str(folder), "--no-open", "--port", "0"]
    command += ["--backbone", "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert "nonsense" in result.stderr
    assert result.stderr.count("\n") == 1
