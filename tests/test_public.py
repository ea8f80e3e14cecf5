"""The public interface, and the modules that importing its parts loads."""

import ast
import copy
import importlib
import inspect
import os
import re
import subprocess
import sys
import typing

import pytest
from helpers.photos import ROOT

import headstart

PACKAGES = ("backbones", "check", "classifier", "compare", "data", "features", "finetune", "model", "report", "stats")


def imported_by(statement):
    """Return the modules that a statement imports, in a new process, as ``python -X importtime`` lists them."""
    completed = subprocess.run([sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return {line.rsplit("|", 1)[1].strip() for line in completed.stderr.splitlines() if line.startswith("import time:")}


def test_all_names_exist_and_have_docstrings_and_no_others_are_public():
    assert headstart.__all__ == sorted(headstart.__all__)
    for name in headstart.__all__:
        assert getattr(headstart, name).__doc__, name
    assert set(headstart._MODULES) == set(headstart.__all__)
    assert set(headstart.__all__) <= set(dir(headstart))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        headstart.nothing  # noqa: B018
    # The imports that only type checkers see are the same names.
    tree = ast.parse((ROOT / "src" / "headstart" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed_names = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed_names == set(headstart.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_packages_export_exist(package):
    module = importlib.import_module(f"headstart.{package}")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name).__doc__ or not callable(getattr(module, name)), name


def public_functions():
    """Yield the public functions, and the public methods of public classes, by their names."""
    for package in ("", *PACKAGES):
        module = importlib.import_module(f"headstart.{package}".rstrip("."))
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, type):
                of_class = {attribute: getattr(value, attribute) for attribute in vars(value) if attribute[0] != "_"}
                yield f"{package}.{name}", value
                yield f"{package}.{name}()", value.__init__
                yield from ((f"{package}.{name}.{key}", one) for key, one in of_class.items() if callable(one))
                yield from (
                    (f"{package}.{name}.{key}", one.fget) for key, one in of_class.items() if hasattr(one, "fget")
                )
            elif inspect.isfunction(value):
                yield f"{package}.{name}", value


def test_hints_of_public_functions_can_be_read():
    """As by pydantic, typer and dask: a name that only type checkers import is none at run time."""
    failed = {}
    for name, function in public_functions():
        try:
            typing.get_type_hints(function)
        except NameError as error:
            failed[name] = str(error)
    assert failed == {}


def test_public_objects_are_equal_to_themselves_alone_and_can_be_keys(fitted, model_folder, photos):
    predictor = headstart.Predictor.load(model_folder)
    predictions = predictor.predict([photos / "train" / "disc" / "000.jpg"])
    for value in (fitted, fitted.model, predictor, predictions, predictor.evaluate(photos)):
        other = copy.deepcopy(value)
        assert (value == value, value == other, value in [other, value]) == (True, False, True)
        assert len({value, other}) == 2


def test_the_predictor_imports_no_fitting_code():
    modules = imported_by("from headstart.model import Predictor")
    unwanted = re.compile(
        r"headstart\.(heads\.(selection|candidates|learning_curve)|classifier|finetune|report|compare|check|cli)"
        r"|sklearn|scipy|torch|typer|rich|jinja2|matplotlib"
    )
    assert "headstart.model.predictor" in modules
    assert not {name for name in modules if unwanted.match(name)}


def test_heads_import_numpy_errors_and_statistics_alone():
    """Third-party solvers are imported where they are called."""
    for path in (ROOT / "src" / "headstart" / "heads").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                allowed = ("headstart.heads", "headstart.stats", "headstart.errors")
                is_ours = name.startswith(allowed) or (name == "headstart" and path.name == "__init__.py")
                assert top in (*sys.stdlib_module_names, "numpy") or is_ours, (path.name, name)


def test_importing_the_package_imports_nothing_else_of_ours():
    assert {name for name in imported_by("import headstart") if name.startswith("headstart")} == {"headstart"}


def test_the_top_of_the_package_can_be_read_at_a_glance():
    not_read = {"__pycache__", "py.typed"}  # py.typed is an empty mark for type checkers
    entries = [path.name for path in (ROOT / "src" / "headstart").iterdir() if path.name not in not_read]
    assert len(entries) <= 24, sorted(entries)


USER = """
from pathlib import Path

import numpy as np

import headstart as hs

paths = [Path("a.jpg"), Path("b.jpg")]
classifier = hs.ImageClassifier(validation=Path("validation"), cut=["stage5", "features"]).fit(paths, np.array([0, 1]))
share: float = classifier.score(paths, np.array([0, 1]))
result = hs.fit_dataset(hs.open_dataset("photos"), hs.FitOptions(cut=["features"], compute=hs.Compute(workers=2)))
predictions: hs.Predictions = hs.Predictor(result.model).predict(paths)
print(predictions.classes[predictions.predicted[0]], predictions.confidence[0])
evaluation = hs.Predictor.load(result.save("model")).evaluate("photos")
if isinstance(evaluation, hs.Evaluation):
    print(evaluation.accuracy.value, evaluation.confusion[0, 0])
else:
    print(evaluation.metrics.mean_average_precision)
print(evaluation.nothing)
"""


@pytest.mark.slow
def test_a_strictly_typed_program_can_use_the_library(tmp_path):
    """mypy reads the hints of the package, which says that it has some, and finds the one mistake."""
    (tmp_path / "user.py").write_text(USER)
    options = ("--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path / 'cache'}")
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    completed = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "user.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    errors = [line for line in completed.stdout.splitlines() if line.startswith("user.py")]
    assert len(errors) == 2, completed.stdout  # one for each kind of evaluation
    assert all('has no attribute "nothing"' in line for line in errors), errors
    assert (ROOT / "src" / "headstart" / "py.typed").exists()
