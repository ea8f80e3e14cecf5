"""On a full disk a command ends with one line and status 2, keeps what was there, and leaves nothing half written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEADSTART = [sys.executable, "-m", "headstart"]
BACKBONE = Path(__file__).parents[2] / "src" / "headstart" / "backbones" / "headstart-s" / "backbone.onnx"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="/dev/full and limits of files are POSIX")

PRINTING = {
    "fit": ["fit", "{photos}", "-o", "{out}"],
    "fit as JSON": ["fit", "{photos}", "-o", "{out}", "--json", "--no-report"],
    "predict": ["predict", "{model}", "{photos}"],
    "predict as CSV": ["predict", "{model}", "{photos}", "--csv"],
    "predict as JSON": ["predict", "{model}", "{photos}", "--json"],
    "evaluate": ["evaluate", "{model}", "{photos}"],
    "evaluate as CSV": ["evaluate", "{model}", "{photos}", "--csv"],
    "evaluate too low": ["evaluate", "{model}", "{photos}", "--min-accuracy", "1"],
    "check": ["check", "{photos}"],
    "check as JSON": ["check", "{photos}", "--json"],
    "compare": ["compare", "{photos}", "--backbones", "headstart-s"],
    "verify": ["verify", "{model}"],
    "report": ["report", "{model}", "-o", "{out}.html"],
    "show": ["backbones", "show", "headstart-s"],
    "pull": ["backbones", "pull", "headstart-s"],
    "sample": ["sample", "horses-or-humans", "{out}", "--train", "4", "--validation", "0"],
}


@pytest.fixture(scope="module")
def with_report(photos, tmp_path_factory):
    """A model folder with the data of its report."""
    folder = tmp_path_factory.mktemp("reported") / "model"
    command = [*HEADSTART, "fit", photos, "-o", folder, "--no-cache"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", PRINTING)
def test_standard_output_that_cannot_be_written(name, photos, with_report, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    arguments = [a.format(photos=photos, model=with_report, out=tmp_path / "out") for a in PRINTING[name]]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ran = subprocess.run([*HEADSTART, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1] == "headstart: No space left on device."
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


WRITING = {  # the command, and the bytes that a file may have
    "fit": (["fit", "{photos}", "-o", "{out}/model"], 1_000_000),
    "fit, of which the report is too large": (["fit", "{photos}", "-o", "{out}/model"], 5_000),
    "report": (["report", "{out}/model"], 20_000),
    "report elsewhere": (["report", "{out}/model", "-o", "{out}/page.html"], 20_000),
    "check": (["check", "{out}/photos", "--fix-list", "{out}/photos/fix.csv"], 500),
    "check with a page": (["check", "{out}/photos", "--report", "{out}/photos/page.html"], 500),
    "sample": (["sample", "horses-or-humans", "{out}/sample", "--train", "4"], 1_000),
    "import": (["backbones", "import", f"onnx:{BACKBONE}", "--name", "mine"], 1_000),
}


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITING)
def test_a_file_that_cannot_be_written_leaves_the_old(name, photos, with_report, tmp_path, monkeypatch):
    import resource

    arguments, limit = WRITING[name]
    out = tmp_path / "out"
    shutil.copytree(with_report, out / "model")
    shutil.copytree(photos, out / "photos")
    shutil.copy(out / "model" / "report.html", out / "page.html")
    monkeypatch.setenv("HEADSTART_CACHE", str(out / "cache"))
    before = content(out)
    ran = subprocess.run(
        [*HEADSTART, *(a.format(photos=photos, out=out) for a in arguments)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.returncode == 2, (ran.stdout, ran.stderr)
    assert "File too large" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
    after = {
        name: data
        for name, data in content(out).items()
        if not name.startswith(("cache/features", "cache/checked_graphs"))
    }
    assert after == before
    assert not [path for path in out.rglob(".headstart-*") if os.path.lexists(path)]
