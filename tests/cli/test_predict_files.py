"""``headstart predict``: rows that come while the rest is computed, files that are continued, and sorted images."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.photos import write_photos
from PIL import Image

from headstart.model.prediction_file import PredictionFile

PATCHED = """
import os, signal, sys, time
from dataclasses import replace
from importlib import import_module

module = import_module("headstart.data.inputs")

what, at, go = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
real = module.open_inputs

def patched(*arguments):
    dataset = real(*arguments)
    def read(key):
        if key >= at and what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        waited = 0
        while key >= at and what == "wait" and not os.path.exists(go):
            waited += 1
            if waited > 6000:
                os._exit(3)  # the rows do not come before the rest is read
            time.sleep(0.01)
        return dataset.reader(key)
    return replace(dataset, reader=read)

module.open_inputs = patched
from headstart.__main__ import main
main()
"""
FORMS = [".csv", ".jsonl", ".parquet"]


def patched(what, at, go, *arguments):
    """A command whose process is killed, or waits for the file ``go``, when it reads image ``at``."""
    return [sys.executable, "-c", PATCHED, what, str(at), str(go), *map(str, arguments)]


def content(path):
    if path.suffix != ".parquet":
        return path.read_bytes()
    return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()


@pytest.fixture
def inputs(photos, tmp_path):
    """40 images and a broken one, in a folder."""
    folder = tmp_path / "new"
    shutil.copytree(photos, folder)
    (folder / "train" / "disc" / "broken.jpg").write_text("no image")
    return folder


@pytest.mark.parametrize("form", ["--json", "--csv", None])
def test_rows_are_printed_while_the_rest_waits(model_folder, photos, tmp_path, form):
    options = [] if form is None else [form]
    command = patched("wait", 16, tmp_path / "go", "predict", model_folder, photos, "--workers", 2, *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        first = [process.stdout.readline() for _ in range(16)]
        assert process.poll() is None
        (tmp_path / "go").touch()
        rest = process.stdout.readlines()
    assert process.returncode == 0
    assert all(first)
    assert len(first) + len(rest) == 40 + (form == "--csv")


def test_a_file_has_every_probability_set_score_and_error(run, model_folder, inputs, tmp_path):
    status, out, err = run("predict", model_folder, inputs, "-o", tmp_path / "out.csv")
    assert status == 1
    assert out == f"{tmp_path / 'out.csv'} has 41 rows, 1 of which could not be read\n"
    assert "broken.jpg: Not an image" in err
    rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8", newline="")))
    printed = [json.loads(text) for text in run("predict", model_folder, inputs, "--json", "--top", 2)[1].splitlines()]
    assert [row["path"] for row in rows] == [value["path"] for value in printed]
    for row, value in zip(rows, printed, strict=True):
        if "error" in value:
            assert row["error"] == value["error"]
            assert {row[name] for name in row if name not in ("path", "error")} == {""}
            continue
        probabilities = {entry["class"]: entry["probability"] for entry in value["classes"]}
        assert row["class"] == value["classes"][0]["class"]
        assert float(row["probability"]) == pytest.approx(value["classes"][0]["probability"], abs=1e-3)
        for name in ("disc", "stripes"):
            assert float(row[f"p_{name}"]) == pytest.approx(probabilities[name], abs=1e-3)
        assert row["none_of_these"] == str(value["none_of_these"]).lower()
        assert row["set"].split("|") == value["set"]
        assert float(row["distance"]) == pytest.approx(value["distance"], abs=1e-3)
    run("predict", model_folder, inputs, "-o", tmp_path / "out.jsonl")
    lines = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [set(value) for value in lines] == [set(value) for value in printed]
    assert [value.get("set") for value in lines] == [value.get("set") for value in printed]


def test_parquet_has_the_same_columns_with_types(run, model_folder, inputs, tmp_path):
    pytest.importorskip("pyarrow", reason="needs PyArrow (extra tables)")
    run("predict", model_folder, inputs, "-o", tmp_path / "out.parquet")
    run("predict", model_folder, inputs, "-o", tmp_path / "out.jsonl")
    rows = content(tmp_path / "out.parquet")
    lines = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [*rows[0]] == [
        "path",
        "class",
        "probability",
        "none_of_these",
        "set",
        "distance",
        "error",
        "p_disc",
        "p_stripes",
    ]
    for row, value in zip(rows, lines, strict=True):
        assert (row["path"], row["error"], row["set"]) == (value["path"], value.get("error"), value.get("set"))
        if row["error"] is None:
            assert (row["class"], row["probability"]) == tuple(value["classes"][0].values())
            assert row["p_disc"] + row["p_stripes"] == pytest.approx(1)


@pytest.mark.parametrize("suffix", FORMS)
def test_a_run_that_was_killed_is_continued_to_the_same_file(run, model_folder, inputs, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs PyArrow (extra tables)")
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    options = ("--workers", 2, "--runtime", "onnxruntime")
    assert run("predict", model_folder, inputs, "-o", whole, *options)[0] == 1
    command = patched("kill", 20, "-", "predict", model_folder, inputs, "-o", path, *options)
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -9
    assert not path.exists()
    assert (tmp_path / f"{path.name}.part").is_dir()
    status, _, err = run("predict", model_folder, inputs, "-o", path, *options)
    assert status == 1
    assert "has the first 16 of 41 inputs already" in err
    assert content(path) == content(whole)
    assert not (tmp_path / f"{path.name}.part").exists()


def test_a_folder_of_pieces_keeps_what_others_have_put_there(run, model_folder, inputs, tmp_path):
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    command = patched("kill", 20, "-", "predict", model_folder, inputs, "-o", path, "--workers", 2)
    assert subprocess.run(command, capture_output=True).returncode == -9
    (part / "thesis.txt").write_text("x")
    assert run("predict", model_folder, inputs, "-o", path, "--workers", 2)[0] == 1
    assert len(path.read_text("utf-8").splitlines()) == 42
    assert [file.name for file in part.iterdir()] == ["thesis.txt"]


def test_a_file_of_which_pieces_are_gone_is_not_made(run, model_folder, inputs, tmp_path, monkeypatch):
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    add = PredictionFile.add

    def add_and_lose(self, *values):
        add(self, *values)
        for piece in part.glob("0000000000-*"):
            piece.unlink()

    monkeypatch.setattr(PredictionFile, "add", add_and_lose)
    status, _, err = run("predict", model_folder, inputs, "-o", path)
    assert status == 2
    assert "has the predictions of 0 of 41 inputs: another process has written or deleted there" in err
    assert not path.exists()
    monkeypatch.setattr(PredictionFile, "add", lambda self, *values: (shutil.rmtree(self.part), add(self, *values)))
    status, _, err = run("predict", model_folder, inputs, "-o", path)
    assert status == 2
    assert "is not there any more: another process has written or deleted there. Predict again" in err


@pytest.mark.parametrize("share", [0.5, 0.9])  # in a piece, and where the pieces are joined
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_full_disk_keeps_what_there_is_and_the_next_run_continues(model_folder, photos, tmp_path, share, suffix):
    import resource

    path, options = tmp_path / f"out{suffix}", ["--workers", "2"]
    command = [sys.executable, "-m", "headstart", "predict", model_folder, photos, "-o", path, *options]
    subprocess.run(command, check=True, capture_output=True)
    whole = path.read_bytes()
    yesterday = whole.splitlines(keepends=True)[0] + b"of yesterday\n"
    path.write_bytes(yesterday)
    limit = int(share * len(whole))
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.returncode == 2
    assert "File too large" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
    assert path.read_bytes() == yesterday
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert "inputs already" in again.stderr
    assert path.read_bytes().count(b"\n") == whole.count(b"\n")
    assert not [*tmp_path.glob(".headstart-*"), *tmp_path.glob("*.part")]


def test_what_was_begun_with_another_model_or_other_inputs_is_not_continued(run, model_folder, inputs, tmp_path):
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    command = patched("kill", 20, "-", "predict", model_folder, inputs, "-o", path, "--workers", 2)
    subprocess.run(command, capture_output=True)
    before = sorted(entry.name for entry in part.iterdir())
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"reject_threshold": 0.9}), "utf-8")
    assert "begun with another model" in run("predict", other, inputs, "-o", path)[2]
    image = inputs / "train" / "disc" / "000.jpg"
    data = image.read_bytes()
    image.write_bytes(data + b" ")
    status, out, err = run("predict", model_folder, inputs, "-o", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "begun with another set of inputs; delete it" in err
    assert sorted(entry.name for entry in part.iterdir()) == before
    (part / "about.json").write_text("{")
    assert "was not begun by predict, or is damaged" in run("predict", model_folder, inputs, "-o", path)[2]


def test_a_folder_that_was_only_just_made_is_begun(run, model_folder, inputs, tmp_path):
    path = tmp_path / "out.csv"
    part = tmp_path / "out.csv.part"
    part.mkdir()
    (part / ".headstart-0").write_bytes(b"")  # where the disk was full, or the process was killed, at the first file
    status, _, err = run("predict", model_folder, inputs / "train" / "disc", "-o", path)
    assert status == 1, err  # one of them cannot be read
    assert len(path.read_text("utf-8").splitlines()) == 1 + len([*(inputs / "train" / "disc").iterdir()])
    assert not part.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.txt"], "give a name that ends in .csv, .jsonl, .parquet"),
        (["-o", "new/out.csv"], "lies in new, whose images are predicted"),
        (["--copy-to", "new/sorted"], "lies in new, whose images are predicted"),
        (["--copy-to", "new"], "is new, whose images are predicted"),
        (["--explain", "new/../new"], "is new, whose images are predicted"),
        (["-o", "table.csv"], "is one of the inputs"),
        (["-o", "folder.csv"], "is a folder"),
        (["-o", "out.csv", "--json"], "The form of a file is that of its name"),
    ],
)
def test_places_that_cannot_be_written_to(run, model_folder, inputs, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("path\nnew/train/disc/000.jpg\n")
    (tmp_path / "folder.csv").mkdir()
    status, out, err = run("predict", model_folder, "new", "table.csv", *arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("suffix", FORMS)
def test_a_file_that_is_none_of_predictions_is_not_replaced(run, model_folder, inputs, tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    for own in (b"name,age\nann,3\n", b'{"name": "ann"}\n', b"[1]\n", b"\xff\xfe", b""):
        path.write_bytes(own)
        status, _, err = run("predict", model_folder, inputs, "-o", path)
        assert (status, err) == (
            2,
            f"headstart: {path} exists and does not hold predictions of Headstart; give another name.\n",
        )
        assert path.read_bytes() == own
        assert not path.with_name(f"{path.name}.part").exists()
    path.unlink()
    assert run("predict", model_folder, inputs, "-o", path)[0] == 1
    before = content(path)
    assert run("predict", model_folder, inputs, "-o", path)[0] == 1
    assert content(path) == before


def test_images_are_sorted_into_folders_of_their_classes_and_nothing_is_overwritten(run, model_folder, tmp_path):
    folder = write_photos(tmp_path / "new", 3)
    (folder / "stripes" / "000.jpg").write_bytes((folder / "stripes" / "002.jpg").read_bytes())
    (folder / "disc" / "000.jpg").rename(folder / "disc" / " odd?\n.jpg")
    target = tmp_path / "sorted"
    before = {path: path.read_bytes() for path in folder.rglob("*.jpg")}
    printed = run("predict", model_folder, folder, "--json", "--copy-to", target)[1]
    assert run("predict", model_folder, folder, "--copy-to", target)[0] == 0  # a second time: the same files
    assert {path: path.read_bytes() for path in folder.rglob("*.jpg")} == before
    expected = {}
    for value in map(json.loads, printed.splitlines()):
        kind = "_none_of_these" if value["none_of_these"] else value["classes"][0]["class"]
        expected.setdefault(kind, set()).add(Path(value["path"]).read_bytes())
    copies = [path for path in target.rglob("*") if path.is_file()]
    found = {}
    for path in copies:
        assert path.relative_to(target).parts[1:] == (path.name,)
        found.setdefault(path.parent.name, set()).add(path.read_bytes())
    assert found == expected
    assert "%20odd%3F%0A.jpg" in {path.name for path in copies}


def test_classes_with_hostile_names_have_folders_inside(model_folder, photos, tmp_path):
    from dataclasses import replace

    from headstart.data import open_dataset
    from headstart.model import Predictor
    from headstart.model.sorted_copies import copy_sorted

    predictor = Predictor.load(model_folder)
    model = replace(predictor.model, classes=("../../up", "_none_of_these"))
    dataset = open_dataset(photos).split("validation")
    predictions = replace(Predictor(model).predict(dataset), ood_scores=None)
    assert copy_sorted(dataset, predictions, tmp_path / "in" / "sorted") == 12
    assert {path.name for path in (tmp_path / "in" / "sorted").iterdir()} == {"%2E.%2F..%2Fup", "%5Fnone_of_these"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_class_activation_maps_of_new_images_are_written(run, model_folder, photos, tmp_path):
    image = photos / "validation" / "disc" / "000.jpg"
    status, out, _ = run("predict", model_folder, image, "--explain", tmp_path / "maps")
    assert (status, out.count("\n")) == (0, 1)
    (path,) = (tmp_path / "maps").iterdir()
    with Image.open(path) as picture:
        assert (path.name, picture.size) == ("000.jpg", (320, 160))
