"""The notebooks in examples/: each runs from top to bottom, and gives again the figures that are stored in it.

They are executed in three ways, each in an empty folder outside the repository with a home of its own: on real images
and weights in a folder (where there are any), with a local web server in place of the hosts, and without a connection.
``make zoo`` executes them in the environment of the tests; ``make notebooks`` in two into which Headstart was installed
as its users do it, of which one has no PyTorch: HEADSTART_NOTEBOOKS names their folder, and gets what was executed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from functools import cache, partial
from hashlib import md5, sha256
from pathlib import Path

import pytest
from helpers.photos import ROOT
from helpers.servers import serving_folder

from headstart.data.public_datasets import PUBLIC_DATASETS
from headstart.data.rendered import render

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NAMES = {"lesson3-inception", "exercise-horses-humans", "tutorial-mobilenetv2", "dropout"}
INSTALLED = os.environ.get("HEADSTART_NOTEBOOKS")
TESTS = ROOT / "tests"
TOLERANCE = 0.03  # of an accuracy: a runtime in bf16 changes a few predictions for 153 images
WEIGHTS = {  # the files that Keras publishes for the networks of the notebooks, and their sizes in pixels
    "lesson3-inception": {"InceptionV3": {150: "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"}},
    "exercise-horses-humans": {"InceptionV3": {150: "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"}},
    "tutorial-mobilenetv2": {
        "MobileNetV2": {
            size: f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{size}_no_top.h5" for size in (160, 224)
        }
    },
}
WRITE_WEIGHTS = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers.frameworks import keras_network, legacy_file
legacy_file(keras_network(sys.argv[2], int(sys.argv[3])), sys.argv[4])
"""
# In a process of its own: warnings of Jupyter are not ours. A cell in front of the others redirects the hosts.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
if sys.argv[4]:
    notebook.cells.insert(0, nbformat.v4.new_code_cell(sys.argv[4]))
NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""
REDIRECT = """
from dataclasses import replace
from headstart.data.public_datasets import PUBLIC_DATASETS
for name, dataset in PUBLIC_DATASETS.items():
    archives = []
    for archive in dataset.archives:
        file = archive.url.rsplit("/", 1)[-1]
        archives.append(replace(archive, url=f"{web}/{file}", size=None, sha256=hashes.get(file)))
    PUBLIC_DATASETS[name] = replace(dataset, archives=tuple(archives))
if has_weights:
    import os
    os.environ["KERAS_BACKEND"] = "torch"
    from keras.src.utils import file_utils
    get_file = file_utils.get_file
    def redirected(fname, origin, **options):
        if options.get("file_hash"):
            options["file_hash"] = hashes[fname]
        return get_file(fname, f"{web}/{fname}", **options)
    file_utils.get_file = redirected
"""
by_name = partial(pytest.mark.parametrize, "path", ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text("utf-8"))


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join("".join(output.get("text", "")) for output in outputs(notebook))


def source(notebook, kind):
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind)


def figures(notebook):
    """What the last code cell prints: a JSON object of figures, and under ``data`` what they were measured on."""
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-1]
    return json.loads("".join(text for output in last["outputs"] for text in output["text"]))


def images_of(notebook):
    """The images of a notebook in their order: the number of the cell, and the kind."""
    kinds = ("image/svg+xml", "image/jpeg", "image/png")
    return [
        (number, kind)
        for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        for output in cell["outputs"]
        for kind in kinds
        if kind in output.get("data", {})
    ]


def interpreter(environment="full"):
    """The Python that executes: of an environment that ``make notebooks`` made, or that of the tests."""
    return Path(INSTALLED, environment, "bin", "python").absolute() if INSTALLED else Path(sys.executable)


@cache
def has(module, environment="full"):
    code = f"from importlib.util import find_spec; print(find_spec({module!r}) is not None)"
    command = [interpreter(environment), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


def variables(folder):
    """Environment variables of a stranger: a home of one's own, and nothing that points into this repository."""
    ours = ("HEADSTART_", "KERAS_", "XDG_", "JUPYTER_", "VIRTUAL_ENV", *(["PYTHONPATH"] if INSTALLED else []))
    names = [name for name in os.environ if not name.startswith(ours) and not name.lower().endswith("_proxy")]
    return {name: os.environ[name] for name in names} | {"HOME": str(folder / "home")}


def execute(path, folder, how, *, environment="full", lessons=None, redirect=""):
    """Run the notebook in an empty folder, of which nothing is cached, and return it."""
    values = variables(folder) | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "EPOCHS": "1"}  # EPOCHS: of fine-tuning
    if lessons is not None:
        values["HEADSTART_LESSONS"] = str(lessons)
    elif not redirect:  # offline, also where the machine is not: nothing listens there
        values |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    python = interpreter(environment)
    values["PATH"] = f"{python.parent}{os.pathsep}{values['PATH']}"  # `headstart` in a cell is that of this environment
    for name in ("run", "home"):
        (folder / name).mkdir()
    command = [python, "-c", EXECUTE, path, folder / "run", folder / "out.ipynb", redirect]
    completed = subprocess.run(command, env=values, cwd=folder, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    if INSTALLED:
        (Path(INSTALLED) / "executed").mkdir(exist_ok=True)
        shutil.copy(folder / "out.ipynb", Path(INSTALLED, "executed", f"{path.stem}-{how}.ipynb"))
    notebook = read(folder / "out.ipynb")
    for output in outputs(notebook):
        if drawing := output.get("data", {}).get("image/svg+xml"):
            assert ElementTree.fromstring("".join(drawing)).tag.endswith("svg")
    return notebook


def compare_with_stored(path, notebook):
    """Compare the figures of a run with the stored ones where they are of the same data; return those of the run."""
    stored, new = figures(read(path)), figures(notebook)
    assert stored.keys() == new.keys()
    if stored["data"] == new["data"]:
        for name in stored.keys() - {"data"}:
            tolerance = TOLERANCE if isinstance(stored[name], float) else 1 if name == "epochs" else 0
            assert new[name] == pytest.approx(stored[name], abs=tolerance), name
    return new


def needs_torch(path):
    """Whether nothing of a notebook runs without PyTorch."""
    if path.stem in ("lesson3-inception", "exercise-horses-humans") and not has("torch"):
        pytest.skip("torch is not installed (make zoo)")  # importing keras would ask for a TensorFlow that nobody needs


def test_there_is_a_notebook_for_each_lesson():
    assert {path.stem for path in NOTEBOOKS} == NAMES


@by_name(NOTEBOOKS)
def test_stored_outputs_are_complete_and_name_no_path_of_a_machine(path):
    notebook = read(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for output in outputs(notebook) if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    for output in outputs(notebook):
        output.get("data", {}).pop("image/jpeg", None)
    text = json.dumps(outputs(notebook))
    # A path from the root of a file system, but not a closing tag or an address in an image.
    assert not re.findall(r"(?<![\w<:/.])/(?:[\w.-]+/)+[\w.-]*|\b[A-Za-z]:\\\\", text)
    assert not re.findall(r"\b(?:home|root|tmp|Users)/", text)
    assert path.stat().st_size < 300_000
    assert figures(notebook)["data"][0] in PUBLIC_DATASETS


@by_name(NOTEBOOKS)
def test_a_stranger_can_open_it_in_colab_and_sees_no_private_path(path):
    notebook = read(path)
    colab = f"https://colab.research.google.com/github/headstart-ml/headstart/blob/main/examples/{path.name}"
    assert f"(https://colab.research.google.com/assets/colab-badge.svg)]({colab})" in notebook["cells"][0]["source"][0]
    install = "".join(notebook["cells"][1]["source"])
    assert 'if find_spec("headstart") is None:' in install
    assert "https://github.com/headstart-ml/headstart/archive/refs/heads/main.zip" in install
    assert "https://download.pytorch.org/whl/cpu" in install
    code = source(notebook, "code")
    assert "lessons.images(" in code
    assert "shared" not in code.lower()
    assert "HEADSTART_" not in code
    assert colab in (ROOT / "docs" / "tutorials" / "course-lessons.md").read_text("utf-8")


def test_every_notebook_has_a_folder_of_its_own_for_images():
    folders = [re.findall(r'lessons\.images\("[\w-]+", "([\w-]+)"\)', source(read(path), "code")) for path in NOTEBOOKS]
    assert all(len(names) == 1 for names in folders)
    assert len({names[0] for names in folders}) == len(NOTEBOOKS)


@by_name(NOTEBOOKS)
def test_links_of_notebooks_have_targets(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", source(read(path), "markdown")):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_stored_exercise_shows_its_trap():
    """Single images held back promise what they do in training; whole groups less; other scenes are the truth."""
    values = figures(read(ROOT / "examples" / "exercise-horses-humans.ipynb"))
    assert values["single"] > 0.99
    assert values["groups"] < values["single"] - 0.02
    assert values["trained"] < values["groups"]
    assert values["solved"] > values["trained"] + 0.05


@pytest.mark.slow
@pytest.mark.notebooks
@pytest.mark.parametrize("environment", ["full", "bare"])
def test_headstart_is_an_installed_copy(environment, tmp_path):
    if not INSTALLED:
        pytest.skip("needs the environments of make notebooks")
    code = "import headstart; print(headstart.__file__)"
    command = [interpreter(environment), "-c", code]
    printed = subprocess.run(command, env=variables(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True)
    folder = Path(INSTALLED, environment).resolve()
    assert Path(printed.stdout.strip()).resolve().is_relative_to(folder)
    assert "site-packages" in printed.stdout
    assert has("torch", environment) == has("keras", environment) == (environment == "full")


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.notebooks
@by_name(NOTEBOOKS)
def test_without_a_connection_it_says_so_and_runs_on_what_is_built_in(path, tmp_path):
    needs_torch(path)
    notebook = execute(path, tmp_path, "offline")
    new = compare_with_stored(path, notebook)
    assert new["data"][0] == "the built-in sample"
    assert new["data"][1:] in ([], ["headstart-s"], ["headstart-m"])
    assert "!! Its figures are NOT those of the course." in printed(notebook)
    assert ("it is NOT the network of the course" in printed(notebook)) == (path.stem in WEIGHTS)
    assert min(value for value in new.values() if isinstance(value, float)) > 0.7
    if has("torch"):
        assert images_of(notebook) == images_of(read(path))


@pytest.mark.slow
@pytest.mark.notebooks
def test_without_pytorch_the_tutorial_says_so_and_runs_on(tmp_path):
    if not INSTALLED:
        pytest.skip("needs the environments of make notebooks")
    (path,) = (path for path in NOTEBOOKS if path.stem == "tutorial-mobilenetv2")
    notebook = execute(path, tmp_path, "bare", environment="bare")
    text = printed(notebook)
    assert "!! MobileNetV2 cannot be used: " in text
    assert "LEFT OUT: the second stage needs PyTorch" in text
    assert "download.pytorch.org/whl/cpu" in text
    assert figures(notebook)["second"] == figures(notebook)["frozen"] > 0.7


@pytest.mark.slow
@pytest.mark.zoo
@by_name(NOTEBOOKS)
def test_it_gives_the_stored_figures_again(path, tmp_path, shared):
    needs_torch(path)
    lessons = tmp_path / "lessons"
    lessons.mkdir()
    (lessons / "horses-or-humans").symlink_to((shared / "data" / "horse-or-human").resolve())
    (lessons / "ants-bees").symlink_to((shared / "data" / "ants-bees").resolve())
    if has("keras"):
        weights = (shared / "weights" / "mobilenetv2-imagenet.weights.h5").resolve()
        (lessons / "MobileNetV2.weights.h5").symlink_to(weights)
    assert compare_with_stored(path, execute(path, tmp_path, "real", lessons=lessons))["data"][0] in PUBLIC_DATASETS


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A folder of small archives of rendered images under the names of the published ones."""
    folder = tmp_path_factory.mktemp("web")
    render("horses-or-humans", folder / "rendered", train=160, validation=40)
    for name, split, roots in (
        ("horse-or-human.zip", "train", [""]),
        ("validation-horse-or-human.zip", "validation", [""]),
        ("hymenoptera_data.zip", None, ["hymenoptera_data/train/", "hymenoptera_data/val/"]),
    ):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for part, root in zip([split] if split else ["train", "validation"], roots, strict=True):
                for image in sorted((folder / "rendered" / part).glob("*/*.jpg")):
                    label = image.parent.name if split else {"horses": "ants", "humans": "bees"}[image.parent.name]
                    archive.write(image, f"{root}{label}/{image.name}")
    return folder


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.notebooks
@by_name(NOTEBOOKS)
def test_it_downloads_images_and_published_weights(path, tmp_path, archives):
    """From a server in place of the hosts: small archives, and weights of the right shapes and random values."""
    needs_torch(path)
    for network, files in WEIGHTS.get(path.stem, {}).items():
        if not (has("keras") and has("torch")):
            pytest.skip("keras or torch is not installed (make zoo)")
        for size, name in files.items():
            if not (archives / name).exists():
                command = [interpreter(), "-c", WRITE_WEIGHTS, TESTS, network, str(size), archives / name]
                subprocess.run(command, check=True)
    files = {file.name: file.read_bytes() for file in archives.iterdir() if file.is_file()}
    hashes = {name: (md5 if name.endswith(".h5") else sha256)(content).hexdigest() for name, content in files.items()}
    with serving_folder(archives) as web:
        settings = f"web, hashes, has_weights = {web!r}, {hashes!r}, {path.stem in WEIGHTS}\n"
        notebook = execute(path, tmp_path, "server", redirect=settings + REDIRECT)
    values, text = figures(notebook), printed(notebook)
    assert "!!" not in text
    assert values["data"][0] in PUBLIC_DATASETS
    for network, files in WEIGHTS.get(path.stem, {}).items():
        assert values["data"][1] == f"keras:{network}"
        for name in files.values():
            assert f"{name} (sha256 {sha256((archives / name).read_bytes()).hexdigest()})" in text
    if path.stem == "lesson3-inception":
        assert values["parameters"] == 38_537_217
    assert ("Keras publishes no hash of" in text) == (path.stem == "tutorial-mobilenetv2")
    if has("torch"):
        assert [kind for _, kind in images_of(notebook)] == [kind for _, kind in images_of(read(path))]
