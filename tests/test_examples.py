"""The notebooks in examples/: each runs from top to bottom, and what is stored in it is what it says when run again."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.photos import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NEEDS = {"lesson3-inception": ("torch", "keras"), "exercise-horses-humans": ("torch",)}
ANYWHERE = [path for path in NOTEBOOKS if path.stem not in NEEDS]
TOLERANCE = 0.03  # of an accuracy: a runtime in bf16 moves a few of 153 pictures
# In a process of its own: what Jupyter warns of is not ours.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=900, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def read(path):
    return json.loads(path.read_text("utf-8"))


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def figures(notebook):
    """What the last cell of code prints: a JSON object of figures, and ``on`` what they were measured."""
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-1]
    return json.loads("".join(text for output in last["outputs"] for text in output["text"]))


def fresh(path, folder, shared):
    """The notebook, run anew in an empty folder."""
    environment = {**os.environ, "HEADSTART_SHARED": str(shared), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    environment["EPOCHS"] = "1"  # of fine-tuning, which a short run keeps the frozen model after, as the long one does
    # `headstart` in a cell is the one of this environment.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-c", RUN, path, folder, folder / "out.ipynb"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return read(folder / "out.ipynb")


def compare(path, found):
    stored, fresh_ones = figures(read(path)), figures(found)
    assert stored.keys() == fresh_ones.keys()
    if stored["on"] == fresh_ones["on"]:
        for name in stored.keys() - {"on"}:
            tolerance = TOLERANCE if isinstance(stored[name], float) else 1 if name == "epochs" else 0
            assert fresh_ones[name] == pytest.approx(stored[name], abs=tolerance), name
    return fresh_ones


def test_there_is_a_notebook_for_each_lesson():
    assert {path.stem for path in NOTEBOOKS} == {*NEEDS, "dropout", "tutorial-mobilenetv2"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_and_of_no_machine(path):
    notebook = read(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for output in outputs(notebook) if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    told = json.dumps(outputs(notebook))
    # A path from the root of a file system, but not a closing tag or an address in a picture.
    assert not re.findall(r"(?<![\w<:/.])/(?:[\w.-]+/)+[\w.-]*|\b[A-Za-z]:\\\\", told)
    assert not re.findall(r"\b(?:home|root|tmp|Users)/", told)
    assert path.stat().st_size < 300_000
    assert figures(notebook)["on"][0].endswith("real")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_lead_somewhere(path):
    text = "".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_lesson_stored_has_the_lessons_parameters():
    assert figures(read(ROOT / "examples" / "lesson3-inception.ipynb"))["parameters"] == 38_537_217


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("path", ANYWHERE, ids=lambda path: path.stem)
def test_it_runs_on_the_sample(path, tmp_path):
    found = compare(path, fresh(path, tmp_path, tmp_path / "none"))
    assert found["on"][0] == "the built-in sample"
    assert min(value for value in found.values() if isinstance(value, float)) > 0.7


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("path", ANYWHERE, ids=lambda path: path.stem)
def test_it_says_again_what_is_stored(path, tmp_path, shared):
    assert compare(path, fresh(path, tmp_path, shared.resolve()))["on"][0].endswith("real")


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("real", [False, True], ids=["sample", "real"])
@pytest.mark.parametrize("name", NEEDS)
def test_the_trained_ones(name, real, tmp_path, request):
    for module in NEEDS[name]:
        if find_spec(module) is None:  # importing keras would ask for a TensorFlow that nobody needs
            pytest.skip(f"{module} is not installed (make zoo)")
    folder = request.getfixturevalue("shared").resolve() if real else tmp_path / "none"
    path = ROOT / "examples" / f"{name}.ipynb"
    found = compare(path, fresh(path, tmp_path, folder))
    assert found["on"][0].endswith("real" if real else "sample")
