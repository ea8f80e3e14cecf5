"""The commands and programs of docs/how-to/serve.md, run against a server."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from helpers.photos import ROOT

TEXT = (ROOT / "docs" / "how-to" / "serve.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    (folder / "new.jpg").write_bytes(files[0])
    return folder


def test_curl_gets_an_answer(server, folder):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
    assert commands
    for command in commands:
        words = shlex.split(command.replace(":8000", f":{server}"))
        completed = subprocess.run([*words, "--silent", "--noproxy", "*"], cwd=folder, capture_output=True, check=True)
        assert {entry["label"] for entry in json.loads(completed.stdout)} == {"disc", "stripes"}


@pytest.mark.parametrize("number", range(len(blocks("py"))))
def test_programs_run(server, folder, number):
    program = blocks("py")[number].replace(":8000", f":{server}")
    environment = {**os.environ, "no_proxy": "*"}
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert completed.returncode == 0, completed.stderr
    assert "disc" in completed.stdout or "stripes" in completed.stdout
