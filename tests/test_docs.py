"""What the documents promise: every example runs, every link leads somewhere, the code keeps its own measures."""

import ast
import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.graphs import saved

import headstart
from headstart.data.rendered import render

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SMALLER = {"sample": ["--train", "24", "--validation", "8"]}  # half a minute less; what it says stays true


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a reader of the documents has it: ``photos/CLASS/``, ``new.jpg``, ``network.onnx``."""
    folder = tmp_path_factory.mktemp("reader")
    render("horses-or-humans", folder / "rendered", train=24, validation=2)
    (folder / "rendered" / "train").rename(folder / "photos")
    next((folder / "rendered").rglob("*.jpg")).rename(folder / "new.jpg")
    saved(folder).rename(folder / "network.onnx")
    return folder


def blocks(document, *languages):
    return [code for language, code in FENCE.findall(document.read_text("utf-8")) if language in languages]


def commands(document):
    lines = "\n".join(blocks(document, "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


def run(command, place):
    words = [word for part in command for word in (sorted(map(str, place.glob(part))) if "*" in part else [part])]
    assert len(words) >= len(command), f"{command} names files that are not there"
    words += SMALLER.get(command[1], [])
    script = Path(sys.executable).with_name("headstart")
    done = subprocess.run([script, *words[1:]], cwd=place, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document, place, monkeypatch):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for command in commands(document):
        if command[0] == "headstart":
            run(command, place)
        elif command[0] == "make":
            assert command[1] in targets, command
        else:
            assert command[:2] == ["pip", "install"], f"{document.name} shows {command}, which no test runs"
            assert set(re.findall(r"\[(.*)\]", command[2])) <= set(extras), command
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    for code in blocks(document, "python"):
        exec(compile(code, document.name, "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        assert "://" in target or (document.parent / target.split("#")[0]).exists(), target


def modules():
    return [name for _, name, _ in pkgutil.walk_packages(headstart.__path__, "headstart.") if "__main__" not in name]


@pytest.mark.parametrize("name", ["headstart", *modules()])
def test_docstring_examples(name):
    if name.startswith("headstart.finetune.") and importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch (make zoo installs it)")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_in_docstrings_are_found():
    assert doctest.testmod(headstart).attempted >= 3


def test_files_and_functions_are_short():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text("utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno <= 80, (path.name, node.name)


def test_public_names_have_docstrings():
    for name in headstart.__all__:
        assert getattr(headstart, name).__doc__, name
