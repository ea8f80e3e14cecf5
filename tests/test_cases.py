"""Situations of users that once went wrong: a script builds each and ends with status 0 if the right thing happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.photos import ROOT

FOLDER = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "cases"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS, reason=f"needs the reference data; there are no cases in {FOLDER}")
@pytest.mark.parametrize("script", SCRIPTS or [FOLDER], ids=lambda path: path.stem)
def test_the_right_thing_happens(script, tmp_path):
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    completed = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
