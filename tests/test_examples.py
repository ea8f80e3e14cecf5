"""The notebooks in examples/: each runs from top to bottom, and gives again the figures that are stored in it."""

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
NEEDED_MODULES = {"lesson3-inception": ("torch", "keras"), "exercise-horses-humans": ("torch",)}
RUN_ANYWHERE = [path for path in NOTEBOOKS if path.stem not in NEEDED_MODULES]
TOLERANCE = 0.03  # of an accuracy: a runtime in bf16 changes a few predictions for 153 images
# In a process of its own: warnings of Jupyter are not ours.
EXECUTE = """
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
    """What the last code cell prints: a JSON object of figures, and under ``data`` what they were measured on."""
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-1]
    return json.loads("".join(text for output in last["outputs"] for text in output["text"]))


def execute(path, folder, shared):
    """Run the notebook in an empty folder and return it."""
    environment = {**os.environ, "HEADSTART_SHARED": str(shared), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    environment["EPOCHS"] = "1"  # of fine-tuning: the frozen model is kept after a short training, as after a long one
    # `headstart` in a cell is that of this environment.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-c", EXECUTE, path, folder, folder / "out.ipynb"]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return read(folder / "out.ipynb")


def compare_with_stored(path, notebook):
    """Compare the figures of a run with the stored ones where they are of the same data; return those of the run."""
    stored, new = figures(read(path)), figures(notebook)
    assert stored.keys() == new.keys()
    if stored["data"] == new["data"]:
        for name in stored.keys() - {"data"}:
            tolerance = TOLERANCE if isinstance(stored[name], float) else 1 if name == "epochs" else 0
            assert new[name] == pytest.approx(stored[name], abs=tolerance), name
    return new


def test_there_is_a_notebook_for_each_lesson():
    assert {path.stem for path in NOTEBOOKS} == {*NEEDED_MODULES, "dropout", "tutorial-mobilenetv2"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_name_no_path_of_a_machine(path):
    notebook = read(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for output in outputs(notebook) if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    text = json.dumps(outputs(notebook))
    # A path from the root of a file system, but not a closing tag or an address in an image.
    assert not re.findall(r"(?<![\w<:/.])/(?:[\w.-]+/)+[\w.-]*|\b[A-Za-z]:\\\\", text)
    assert not re.findall(r"\b(?:home|root|tmp|Users)/", text)
    assert path.stat().st_size < 300_000
    assert figures(notebook)["data"][0].endswith("real")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_notebooks_have_targets(path):
    text = "".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_stored_lesson_trains_as_many_parameters_as_the_course():
    assert figures(read(ROOT / "examples" / "lesson3-inception.ipynb"))["parameters"] == 38_537_217


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("path", RUN_ANYWHERE, ids=lambda path: path.stem)
def test_it_runs_on_the_sample(path, tmp_path):
    new = compare_with_stored(path, execute(path, tmp_path, tmp_path / "none"))
    assert new["data"][0] == "the built-in sample"
    assert min(value for value in new.values() if isinstance(value, float)) > 0.7


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("path", RUN_ANYWHERE, ids=lambda path: path.stem)
def test_it_gives_the_stored_figures_again(path, tmp_path, shared):
    assert compare_with_stored(path, execute(path, tmp_path, shared.resolve()))["data"][0].endswith("real")


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("real", [False, True], ids=["sample", "real"])
@pytest.mark.parametrize("name", NEEDED_MODULES)
def test_those_that_train_run_on_the_sample_and_on_real_images(name, real, tmp_path, request):
    for module in NEEDED_MODULES[name]:
        if find_spec(module) is None:  # importing keras would ask for a TensorFlow that nobody needs
            pytest.skip(f"{module} is not installed (make zoo)")
    folder = request.getfixturevalue("shared").resolve() if real else tmp_path / "none"
    path = ROOT / "examples" / f"{name}.ipynb"
    new = compare_with_stored(path, execute(path, tmp_path, folder))
    assert new["data"][0].endswith("real" if real else "sample")
