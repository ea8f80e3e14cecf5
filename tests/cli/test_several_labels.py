"""Several labels an image from the command line, and the commands that refuse them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

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
    refused(run(command[0], labelled, *command[1:]), SEVERAL, "needs one class an image")
    assert not [*tmp_path.iterdir()]


def test_commands_for_one_class_an_image_refuse_the_model(run, label_model_folder, labelled, photos, tmp_path):
    needs = "needs a model of one class an image"
    for to in ("onnx", "openvino", "web", "hub", "torch", "coreml", "litert", "savedmodel"):
        output = tmp_path / to
        refused(run("export", label_model_folder, "--to", to, "-o", output, "--no-install", "--quiet"), needs)
        assert not output.exists()
    refused(run("serve", label_model_folder, "--port", 0), needs)
    refused(run("merge", label_model_folder, label_model_folder, "-o", tmp_path / "merged"), needs)
    refused(run("update", label_model_folder, photos), needs)
    refused(run("forget", label_model_folder, "a.jpg"), needs)
    refused(run("diff", label_model_folder, label_model_folder), needs)
    refused(run("evaluate", label_model_folder, label_model_folder, photos, "--quiet"), needs)
    image = next(labelled.parent.glob("*.png"))
    for option in (("--explain", tmp_path / "maps"), ("--copy-to", tmp_path / "sorted"), ("--top", 2)):
        refused(run("predict", label_model_folder, image, *option), f"leave {option[0]} out")
    refused(run("evaluate", label_model_folder, labelled, "--min-accuracy", 0.5), "--min-accuracy is for models of one")


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


def test_options_of_one_class_an_image_are_refused_before_a_fine_tuning(run, labelled, tmp_path, monkeypatch):
    for name in ("check_fine_tuning", "start_device"):  # which need PyTorch
        monkeypatch.setattr(f"headstart.finetune.{name}", lambda *_: None)
    common = ("-o", tmp_path / "model", "--backbone", "headstart-s", "--quiet")
    for option in (("--dropout", 0.2), ("--threshold", "disc=0.2"), ("--head", "lda")):
        refused(run("fine-tune", labelled, *common, *option), f"leave {option[0]} out")
    refused(run("fine-tune", labelled, *common, "--single-label"), "is multi-label, row 3 has several")
    refused(run("fine-tune", labelled, *common, "--class-weights"), "these may have several labels")
    assert not [*tmp_path.iterdir()]


def test_a_model_of_one_class_an_image_is_not_replaced_by_one_of_several(run, labelled, model_folder):
    refused(run("fit", labelled, "-o", model_folder, *FAST), "holds a model of other classes")
