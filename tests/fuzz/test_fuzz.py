"""A minute of the campaign: nothing crashes, hangs, or takes more than a gigabyte."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is watched through /proc")
def test_hostile_inputs_are_answered_quarantined_or_refused():
    command = [sys.executable, Path(__file__).parent, "--seed", "0", "--count", "240"]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr
