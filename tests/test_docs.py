"""Documentation: every example runs, every link has a target, and everything public is documented."""

import ast
import doctest
import html
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
from helpers.photos import ROOT

import headstart
from headstart.data.rendered import render
from headstart.errors import INSTALL_PYTORCH, WITH_PYTORCH

DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)
SMALLER = {"sample": ["--train", "24", "--validation", "8"]}  # saves half a minute
MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 60, 8


def name_of(document):
    return str(document.relative_to(ROOT))


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory):
    """A folder as a reader of the documents has it: ``photos/CLASS/``, ``new.jpg``, ``network.onnx``."""
    folder = tmp_path_factory.mktemp("reader")
    render("horses-or-humans", folder / "rendered", train=24, validation=2)
    (folder / "rendered" / "train").rename(folder / "photos")
    next((folder / "rendered").rglob("*.jpg")).rename(folder / "new.jpg")
    saved(folder).rename(folder / "network.onnx")
    return folder


def blocks(document, *languages):
    return [code for language, code in FENCE.findall(document.read_text("utf-8")) if language in languages]


def shell_commands(document):
    lines = "\n".join(blocks(document, "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


def run(command, reader_folder):
    words: list[str] = []
    for part in command:
        words += sorted(map(str, reader_folder.glob(part))) if "*" in part else [part]
    assert len(words) >= len(command), f"{command} names files that do not exist"
    words += SMALLER.get(command[1], [])
    script = Path(sys.executable).with_name("headstart")
    completed = subprocess.run(
        [script, *words[1:]], cwd=reader_folder, capture_output=True, text=True, env={**os.environ}
    )
    assert completed.returncode == 0, f"{shlex.join(command)}: {completed.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_examples_run(document, reader_folder, monkeypatch):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for command in shell_commands(document):
        if command[0] == "headstart":
            run(command, reader_folder)
        elif command[0] == "make":
            assert command[1] in targets, command
        else:
            assert command[:2] == ["pip", "install"], f"{document.name} shows {command}, which no test runs"
            named = [name for names in re.findall(r"\[(.*)\]", command[2]) for name in names.split(",")]
            assert set(named) <= set(extras), command
    monkeypatch.chdir(reader_folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict[str, object] = {}
    for code in blocks(document, "python"):
        exec(compile(code, document.name, "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_pages_that_install_pytorch_name_the_build_for_processors_first(document):
    if document.name in ("log.md", "benchmarks.md", "course-lessons.md"):
        return
    pip = [" ".join(command) for command in shell_commands(document) if command[:2] == ["pip", "install"]]
    needing = [i for i, text in enumerate(pip) if WITH_PYTORCH & set(re.findall(r"\w+", text.partition("[")[2]))]
    assert not needing or INSTALL_PYTORCH in pip[: needing[0]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_have_targets(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        assert "://" in target or (document.parent / target.split("#")[0]).exists(), target


def test_the_readme_is_short():
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 120


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as ``make docs`` does: any warning, a missing page or a dead link is an error."""
    pytest.importorskip("mkdocs", reason="needs MkDocs (extra docs)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true"}
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert completed.returncode == 0, completed.stderr
    return folder


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def cli_commands(group, prefix="headstart "):
    """Yield the full name of every command, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from cli_commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_command_and_option_is_in_the_reference(site):
    from typer.main import get_command

    from headstart.cli import app

    text = text_of(site / "reference" / "commands" / "index.html")
    commands = dict(cli_commands(get_command(app)))
    assert len(commands) >= 15
    for name, command in commands.items():
        section = text.split(f"{name}¶", 1)
        assert len(section) == 2, name
        section = section[1].split("¶", 1)[0]
        assert command.help in section, name
        for parameter in command.params:
            if parameter.name == "help" or getattr(parameter, "hidden", False):
                continue
            for option in parameter.opts if parameter.param_type_name == "option" else [parameter.make_metavar(None)]:
                assert option.strip("{}") in section, (name, option)
            assert " ".join(parameter.help.split()) in " ".join(section.split()), (name, parameter.name)


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference" / "python" / "index.html").read_text("utf-8")
    for name in headstart.__all__:
        module = type(headstart).__name__ and getattr(headstart, name).__module__
        identifiers = {f"headstart.{name}", f"{module}.{name}"}
        assert any(f'id="{identifier}"' in page for identifier in identifiers), name


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe|link[^>]*rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]+)"',
            page.read_text("utf-8"),
        )
        assert loaded == [], page


def modules():
    return [name for _, name, _ in pkgutil.walk_packages(headstart.__path__, "headstart.") if "__main__" not in name]


@pytest.mark.parametrize("name", ["headstart", *modules()])
def test_docstring_examples(name):
    needs_torch = name.startswith("headstart.finetune.") or name == "headstart.export.torch_module"
    if needs_torch and importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch (make zoo installs it)")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_in_docstrings_are_found():
    assert doctest.testmod(headstart).attempted >= 3


def test_files_and_functions_are_short():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text("utf-8")
        assert text.count("\n") <= MAX_LINES, path
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES or is_command(path), (path.name, node.name)
            count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
            is_interface = is_command(path) or (path.name, node.name) == ("estimator.py", "__init__")
            assert (
                count - (node.args.args[:1] != [] and node.args.args[0].arg in ("self", "cls")) <= MAX_PARAMETERS
                or is_interface
            ), (
                path.name,
                node.name,
            )


def is_command(path):
    """Return whether a file holds commands: each of their parameters is an option, and a line."""
    return path.parent.name == "cli"


def test_code_is_laid_out_by_the_formatter():
    """No marker keeps lines from being formatted."""
    for folder in ("src", "tests", "benchmarks", "pretraining", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "fmt: " + "skip" not in path.read_text("utf-8"), path
