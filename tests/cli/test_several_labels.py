"""Several labels an image from the command line, and the commands that refuse them."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy.special import logit

from headstart import Compute, Predictor
from headstart.data import as_dataset
from headstart.model.explain import Explainer
from headstart.model.folder import read_model
from headstart.model.sorted_copies import copy_sorted

FAST = ("--backbone", "headstart-s", "--runtime", "onnxruntime", "--no-cache", "--quiet")


def test_fit_predict_evaluate_and_verify(run, labelled, tmp_path):
    model = tmp_path / "model"
    status, out, err = run("fit", labelled, "-o", model, *FAST, "--group-by", "none", "--target-precision", 0.8)
    assert status == 0, err
    assert out.startswith("Labels      multi-label: 3 labels, 1.3 an image, ")
    assert "a precision of 80% is promised for 3 of 3 labels, with a confidence of 90%" in out
    assert "leaving one group out at a time" in out
    assert "on validation images" in out
    assert "no report of several labels" in err
    assert not (model / "report.html").exists()
    config = json.loads((model / "config.json").read_text("utf-8"))
    assert (config["format"], config["problem_type"]) == (4, "multi_label_classification")
    assert list(config["id2label"].values()) == ["disc", "square", "stripes"]
    assert "Sigmoid" in [node.op_type for node in onnx.load(model / "model.onnx").graph.node]
    assert "It says which of 3 labels an image has" in (model / "README.md").read_text("utf-8")

    status, out, err = run("evaluate", model, labelled, "--runtime", "onnxruntime", "--json", "--quiet")
    assert status == 0, err
    found = json.loads(out)
    assert found["images"] == {"count": 30, "quarantined": 0, "training": 0}
    assert found["mean_average_precision"]["value"] > 0.8
    status, out, _ = run("evaluate", model, labelled, "--runtime", "onnxruntime", "--quiet")
    assert "mAP" in out
    assert "stripes" in out
    assert "hold" in out
    status, out, _ = run("evaluate", model, labelled, "--runtime", "onnxruntime", "--csv", "--quiet")
    rows = [*csv.DictReader(io.StringIO(out))]
    assert [row["label"] for row in rows] == ["disc", "square", "stripes"]
    assert float(rows[0]["recall"]) == pytest.approx(found["per_label"][0]["recall"]["value"])

    status, out, err = run("verify", model, "--runtime", "onnxruntime")
    assert status == 0, err
    assert "predicts as it should" in out


def predictions(run, model, inputs, *options):
    status, out, err = run("predict", model, *inputs, "--runtime", "onnxruntime", "--quiet", *options)
    assert status == 0, err
    return out


def test_each_label_has_a_probability_and_a_decision_in_every_form(run, label_model_folder, labelled, tmp_path):
    images = sorted(labelled.parent.glob("validation_*.png"))[:4]
    found = [json.loads(row) for row in predictions(run, label_model_folder, images, "--json").splitlines()]
    config = json.loads((label_model_folder / "config.json").read_text("utf-8"))
    thresholds = dict(zip(config["id2label"].values(), config["label_thresholds"]["thresholds"], strict=True))
    for value in found:
        assert sorted(label["label"] for label in value["labels"]) == ["disc", "square", "stripes"]
        for label in value["labels"]:
            assert label["holds"] == (label["probability"] >= thresholds[label["label"]])
    assert any(abs(sum(label["probability"] for label in value["labels"]) - 1) > 0.2 for value in found)
    held = [[label["label"] for label in value["labels"] if label["holds"]] for value in found]

    rows = [*csv.DictReader(io.StringIO(predictions(run, label_model_folder, images, "--csv")))]
    assert [[name for name in row["labels"].split("|") if name] for row in rows] == held
    for row, value in zip(rows, found, strict=True):
        for label in value["labels"]:
            assert row[f"has_{label['label']}"] == str(int(label["holds"]))
            assert float(row[f"p_{label['label']}"]) == pytest.approx(label["probability"], abs=1e-5)

    lines = predictions(run, label_model_folder, images).splitlines()
    for line, names in zip(lines, held, strict=True):
        assert all(name in line.split("\t") for name in names)
        assert names or "no label" in line

    for suffix in ("csv", "jsonl"):
        file = tmp_path / f"out.{suffix}"
        predictions(run, label_model_folder, images, "-o", file)
        predictions(run, label_model_folder, images, "-o", file)  # a file of ours is replaced
        text = file.read_text("utf-8")
        if suffix == "csv":
            assert [*csv.DictReader(io.StringIO(text))] == rows
        else:
            assert [json.loads(row) for row in text.splitlines()] == found


def test_predictions_in_parquet(run, label_model_folder, labelled, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    images = sorted(labelled.parent.glob("validation_*.png"))[:3]
    predictions(run, label_model_folder, images, "-o", tmp_path / "out.parquet")
    predictions(run, label_model_folder, images, "-o", tmp_path / "out.parquet")
    columns = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    decided = np.array([columns[f"has_{name}"] for name in ("disc", "square", "stripes")]).T
    assert decided.dtype == bool
    for names, row in zip(columns["labels"], decided, strict=True):
        assert set(names) == {name for name, holds in zip(("disc", "square", "stripes"), row, strict=True) if holds}


def test_an_image_that_cannot_be_read_is_a_row_with_the_error(run, label_model_folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    status, out, _ = run("predict", label_model_folder, tmp_path / "bad.png", "--csv", "--runtime", "onnxruntime")
    assert status == 2
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["labels"] == ""
    assert row["error"]


def refused(result, *parts):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert all(part in err for part in parts), err


SEVERAL = "has several labels an image (multi-label: 3 labels"


@pytest.mark.parametrize(
    "command",
    [
        ("fine-tune", "--quiet"),
        ("check", "--quiet"),
        ("compare", "--quiet"),
        ("embed", "-o", "features", "--quiet"),
        ("embed", "-o", "features", "--on", "processes", "--quiet"),
        ("fit", "--keep-features", *FAST),
        ("fit", "--dry-run", "--backbone", "headstart-s"),
    ],
)
def test_commands_for_one_class_an_image_refuse_the_data(run, labelled, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name in ("check_fine_tuning", "start_device"):  # which need PyTorch
        monkeypatch.setattr(f"headstart.finetune.{name}", lambda *_: None)
    refused(run(command[0], labelled, *command[1:]), SEVERAL, "needs one class an image")
    assert not [*tmp_path.iterdir()]


def test_commands_for_one_class_an_image_refuse_the_model(run, label_model_folder, labelled, photos, tmp_path):
    needs = "needs a model of one class an image"
    refused(run("merge", label_model_folder, label_model_folder, "-o", tmp_path / "merged"), needs)
    refused(run("update", label_model_folder, photos), needs)
    refused(run("forget", label_model_folder, "a.jpg"), needs)
    refused(run("diff", label_model_folder, label_model_folder), needs)
    refused(run("evaluate", label_model_folder, label_model_folder, photos, "--quiet"), needs)
    image = next(labelled.parent.glob("*.png"))
    refused(run("predict", label_model_folder, image, "--top", 2), "leave --top out")
    refused(run("evaluate", label_model_folder, labelled, "--min-accuracy", 0.5), "--min-accuracy is for models of one")


def test_images_are_copied_to_the_folder_of_each_label(run, label_model_folder, labelled, tmp_path):
    images = sorted(labelled.parent.glob("validation_*.png"))[:12]
    target = tmp_path / "sorted"
    found = [json.loads(row) for row in predictions(run, label_model_folder, images, "--json").splitlines()]
    for _ in range(2):  # a second time: the same files
        predictions(run, label_model_folder, images, "--copy-to", target)
    expected = set()
    for image, value in zip(images, found, strict=True):
        folders = [label["label"] for label in value["labels"] if label["holds"]] or ["_no_label"]
        folders = ["_none_of_these"] if value["none_of_these"] else folders
        expected |= {(folder, image.name, image.read_bytes()) for folder in folders}
    copies = [path for path in target.rglob("*") if path.is_file()]
    assert {(path.parent.name, path.name, path.read_bytes()) for path in copies} == expected
    assert len(copies) == len(expected) > len(images)
    assert "_no_label" in {path.name for path in target.iterdir()}


def test_a_rejected_image_of_several_labels_and_labels_with_hostile_names_stay_inside(
    label_model_folder, labelled, tmp_path
):
    model = read_model(label_model_folder)
    model = replace(model, classes=("../../up", "_no_label", "_none_of_these"))
    images = sorted(labelled.parent.glob("validation_*.png"))[:12]
    found = Predictor(model).predict(images)
    far = replace(found, ood_scores=np.where(np.arange(len(images)) == 0, 1.0, 0.0))
    copy_sorted(as_dataset(images), far, tmp_path / "in" / "sorted")
    folders = {path.name: {copy.name for copy in path.iterdir()} for path in (tmp_path / "in" / "sorted").iterdir()}
    assert set(folders) == {"%2E.%2F..%2Fup", "%5Fno_label", "%5Fnone_of_these", "_no_label", "_none_of_these"}
    assert folders["_none_of_these"] == {images[0].name}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_each_label_that_holds_has_a_map_that_adds_up(run, label_model_folder, labelled, tmp_path):
    images = sorted(labelled.parent.glob("validation_*.png"))[:6]
    found = [json.loads(row) for row in predictions(run, label_model_folder, images, "--json").splitlines()]
    predictions(run, label_model_folder, images, "--explain", tmp_path / "maps")
    expected = {
        (label["label"], f"{image.stem}.jpg")
        for image, value in zip(images, found, strict=True)
        for label in value["labels"]
        if label["holds"]
    }
    written = [path for path in (tmp_path / "maps").rglob("*") if path.is_file()]
    assert {(path.parent.name, path.name) for path in written} == expected
    assert len(written) == len(expected) > 0
    with Image.open(written[0]) as picture:
        assert picture.size == (320, 160)

    predictor = Predictor.load(label_model_folder, Compute("onnxruntime"))
    model, probabilities = predictor.model, predictor.predict(images).probabilities
    pixels = np.stack([model.preprocess(Image.open(path).convert("RGB")) for path in images])
    maps = Explainer.of(model).label_activations(pixels, [range(3)] * len(images))
    for i, activations in enumerate(maps):
        for label, activation in enumerate(activations):
            score = activation.sum() + float(model.head.bias[label]) / model.head.temperature
            assert score == pytest.approx(logit(probabilities[i, label]), abs=0.02)


def test_an_export_is_written_and_verified(run, label_model_folder, tmp_path):
    output = tmp_path / "out"
    status, out, err = run("export", label_model_folder, "--to", "onnx", "-o", output, "--quiet")
    assert status == 0, err
    assert "Recount     30 images: " in out
    assert run("verify", output, "--strict")[0] == 0
    hub = run("export", label_model_folder, "--to", "hub", "-o", tmp_path / "hub", "--quiet")
    refused(hub, "--to hub is for models of one class an image: transformers.js takes a softmax")
    assert not (tmp_path / "hub").exists()


def test_the_studio_refuses_them_first_and_says_what_to_do(run, label_model_folder, labelled):
    before = sorted(path.name for path in (*labelled.parent.iterdir(), *label_model_folder.iterdir()))
    early = ("--no-open", "--port", 0, "--backbone", "nonsense")  # which is not looked at
    refused(run("studio", labelled, *early), "has several labels an image, and the studio gives each image one class")
    refused(run("studio", labelled.parent, *early), "by the table in it, has several labels", "headstart fit TABLE")
    refused(run("studio", label_model_folder, *early), "holds a model, and the studio labels a folder of images")
    assert sorted(path.name for path in (*labelled.parent.iterdir(), *label_model_folder.iterdir())) == before


def test_a_report_is_refused(run, label_model_folder):
    refused(run("report", label_model_folder), "the report needs a model of one class an image")


def test_models_and_data_of_two_kinds_are_refused(run, label_model_folder, model_folder, labelled, photos):
    refused(run("evaluate", model_folder, labelled, "--quiet"), SEVERAL)
    refused(run("evaluate", model_folder, model_folder, labelled, "--quiet"), SEVERAL)
    refused(run("evaluate", label_model_folder, photos, "--quiet"), "several labels need a table")
    refused(run("export", model_folder, "--to", "onnx", "--data", labelled, "--quiet"), SEVERAL)


def test_options_of_one_class_an_image_are_refused(run, labelled, photos, tmp_path):
    output = ("-o", tmp_path / "model")
    for option in (("--head", "lda"), ("--dropout", 0.2), ("--class-weight", "balanced"), ("--threshold", "disc=0.2")):
        refused(run("fit", labelled, *output, *FAST, *option), f"leave {option[0]} out")
    refused(run("fit", labelled, *output, *FAST, "--single-label"), "is multi-label, row 3 has several")
    refused(run("fit", labelled, *output, *FAST, "--open"), "no report of several labels")
    refused(run("fit", labelled, *output, *FAST, "--target-recall", 0.9, "--target-precision", 0.9), "give one target")
    refused(run("fit", photos, *output, *FAST, "--target-recall", 0.9), "these images have one class")
    refused(run("fit", photos, *output, *FAST, "--multi-label"), "several labels need a table")
    refused(run("fit", labelled, *output, *FAST, "--validation", photos), "several labels need a table")
    assert not Path(output[1]).exists()


def test_a_model_of_one_class_an_image_is_not_replaced_by_one_of_several(run, labelled, model_folder):
    refused(run("fit", labelled, "-o", model_folder, *FAST), "holds a model of other classes")
