"""Several labels an image from the command line, and the commands that refuse them."""

import csv
import io
import json
import shutil
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
    assert out.splitlines()[-1] == f"Report      {model / 'report.html'}"
    assert "Which labels go together" in (model / "report.html").read_text("utf-8")
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
        ("embed", "-o", "features", "--statistics", "--quiet"),
    ],
)
def test_commands_for_one_class_an_image_refuse_the_data(run, labelled, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    refused(run(command[0], labelled, *command[1:]), SEVERAL, "needs one class an image")
    assert not [*tmp_path.iterdir()]


def test_check_names_labels_that_are_missing_or_wrong(run, labelled, tmp_path):
    lines = labelled.read_text("utf-8").splitlines()
    path, labels, split = lines[9].split(",")
    held = {name for name in labels.split(";") if name}
    lines[9] = f"{path},{';'.join(sorted(held ^ {'disc'}))},{split}"
    for image in labelled.parent.glob("*.png"):
        (tmp_path / image.name).write_bytes(image.read_bytes())
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8")
    fixed, page = tmp_path / "fixed.csv", tmp_path / "check.html"
    written = ("--fix-list", fixed, "--report", page)
    status, out, err = run("check", tmp_path / "labels.csv", *FAST[:-1], *written)
    assert status == 0, err
    state = "missing" if "disc" in held else "wrong"
    assert f"{path}: disc is probably {state} here: predicted with probability" in out
    assert f"edit it, then: headstart fit {fixed} --multi-label" in err
    assert "isMultiLabel" in page.read_text("utf-8")
    rows = [*csv.DictReader(io.StringIO(fixed.read_text("utf-8")))]
    assert len(rows) == len(lines) - 1
    assert rows[0].keys() >= {"path", "labels", "finding"}
    status, out, err = run("check", fixed, "--multi-label", *FAST[:-1])
    assert status == 0, err
    assert f"{path}: disc is probably {state} here" in out


def test_a_name_that_no_fix_list_can_hold_is_refused_before_the_work(run, tmp_path):
    for name in ("null", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "a.png")
    status, out, err = run("check", tmp_path / "photos", "--fix-list", tmp_path / "fix.csv", *FAST[:-1])
    assert status == 2
    assert "could not name the class 'null'" in err
    assert out == ""  # no finding


def contents(model):
    return {name: (model / name).read_bytes() for name in ("model.onnx", "head.safetensors", "config.json")}


def test_features_are_kept_embedded_merged_updated_and_forgotten(run, labelled, photos, tmp_path):
    header, *rows = labelled.read_text("utf-8").splitlines()
    tables = {"whole": rows, "first": rows[:70], "second": rows[70:]}
    for name, part in tables.items():
        for image in labelled.parent.glob("*.png"):
            (tmp_path / image.name).write_bytes(image.read_bytes())
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *part]), "utf-8")
    keep = (*FAST, "--keep-features", "--multi-label", "--target-recall", 0.9)
    for name in ("whole", "first"):
        status, out, err = run("fit", tmp_path / f"{name}.csv", "-o", tmp_path / f"m-{name}", *keep)
        assert status == 0, err
        assert f"in {tmp_path / f'm-{name}' / 'features'}" in out
    embed = FAST[:-1]
    for name in ("first", "second"):
        features = tmp_path / f"f-{name}"
        status, out, err = run("embed", tmp_path / f"{name}.csv", "-o", features, "--multi-label", *embed)
        assert status == 0, err
        assert f"headstart merge {features} -o MODEL" in out
    parts = (tmp_path / "f-second", tmp_path / "m-first")
    status, out, err = run("merge", *parts, "-o", tmp_path / "merged", "--target-recall", 0.9, "--json")
    assert status == 0, err
    assert json.loads(out)["labels"] == ["disc", "square", "stripes"]
    assert contents(tmp_path / "merged") == contents(tmp_path / "m-whole")

    status, out, err = run("update", tmp_path / "m-first", tmp_path / "second.csv", "-o", tmp_path / "updated")
    assert status == 0, err
    assert out.startswith("Added       40 images\nLabels      multi-label: 3 labels")
    assert "40 computed, 0 from the cache" in out
    assert contents(tmp_path / "updated") == contents(tmp_path / "m-whole")

    second = [row.split(",")[0] for row in tables["second"]]
    status, out, err = run("forget", tmp_path / "m-whole", *second, "-o", tmp_path / "never")
    assert status == 0, err
    assert "Forgotten   " in out
    assert "mAP         " in out
    assert "entries deleted" in out
    assert contents(tmp_path / "never") == contents(tmp_path / "m-first")
    status, out, _ = run("forget", tmp_path / "updated", second[0], "--json")
    assert status == 0
    found = json.loads(out)
    assert found["labels"] == ["disc", "square", "stripes"]
    assert found["metrics"]["leave_group_out"]["mean_average_precision"]["value"] > 0.5

    refused(run("update", tmp_path / "m-first", photos), "several labels need a table")
    refused(run("update", tmp_path / "m-first", tmp_path / "second.csv", "--label-column", "nothing"), "nothing")
    one = run("fit", photos, "-o", tmp_path / "classes", *FAST, "--keep-features", "--no-report")
    assert one[0] == 0
    mixed = run("merge", tmp_path / "classes", tmp_path / "f-first", "-o", tmp_path / "mixed")
    refused(mixed, "has one class an image", "which are not fitted together")
    refused(run("update", tmp_path / "classes", tmp_path / "second.csv"), SEVERAL)


def test_models_without_features_cannot_be_made_anew(run, label_model_folder, labelled, tmp_path):
    why = "keeps no features, so it cannot be made anew without its images"
    refused(run("merge", label_model_folder, "-o", tmp_path / "merged"), why)
    refused(run("update", label_model_folder, labelled), why)
    refused(run("forget", label_model_folder, "a.jpg"), why)


def test_options_for_one_class_an_image_refuse_the_model(run, label_model_folder, labelled):
    image = next(labelled.parent.glob("*.png"))
    refused(run("predict", label_model_folder, image, "--top", 2), "leave --top out")
    for models in ([label_model_folder], [label_model_folder] * 2):
        refused(run("evaluate", *models, labelled, "--min-accuracy", 0.5, "--quiet"), "is for models of one class")


def test_the_report_is_written_shown_and_written_again(run, labelled, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    model, page = tmp_path / "model", tmp_path / "model" / "report.html"
    status, out, err = run("fit", labelled, "-o", model, *FAST, "--group-by", "none", "--open", "--json")
    assert status == 0, err
    assert json.loads(out)["report"] == str(page)
    status, out, err = run("report", model, "-o", tmp_path / "again.html")
    assert (status, out) == (0, f"{tmp_path / 'again.html'}\n"), err
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert run("open", model)[0] == 0
    assert shown == [page.as_uri()] * 2
    status, out, err = run("fit", labelled, "-o", tmp_path / "none", *FAST, "--group-by", "none", "--no-report")
    assert status == 0, err
    assert "Report" not in out
    assert not list((tmp_path / "none").glob("report.*"))
    refused(run("report", tmp_path / "none"), "headstart fit without --no-report")


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


def test_a_label_that_no_image_has_has_no_f1_and_is_named(run, label_model_folder, labelled, tmp_path):
    rows = [line.split(",") for line in labelled.read_text("utf-8").splitlines() if line.endswith(",validation")]
    lines = ["path,labels"]
    for path, cell, _ in rows:
        shutil.copy(labelled.parent / path, tmp_path)
        lines.append(f"{path},{';'.join(name for name in cell.split(';') if name != 'disc')}")
    (tmp_path / "no-disc.csv").write_text("\n".join(lines), "utf-8")
    status, out, err = run("evaluate", label_model_folder, tmp_path / "no-disc.csv", "--quiet")
    assert status == 0, err
    row = next(line.split() for line in out.splitlines() if line.startswith("disc "))
    assert (row[1:3], row[3:5]) == (["-", "0.0%"], ["-", "-"])  # AP, precision; recall, F1
    assert "No images of disc: left out of mAP and macro F1." in out


def test_verify_speaks_of_labels(run, label_model_folder, monkeypatch):
    verify = Predictor.verify
    monkeypatch.setattr(Predictor, "verify", lambda predictor: replace(verify(predictor), changed=2))
    out = run("verify", label_model_folder, "--runtime", "onnxruntime")[1]
    assert ", 2 at a decision boundary with other labels, " in out


def test_each_label_that_holds_has_a_map_that_adds_up(run, label_model_folder, labelled, tmp_path):
    images = sorted(labelled.parent.glob("validation_*.png"))[:6]
    found = [json.loads(row) for row in predictions(run, label_model_folder, images, "--json").splitlines()]
    status, _, err = run("predict", label_model_folder, *images, "--explain", tmp_path / "maps", "--quiet")
    assert status == 0
    expected, without = set(), 0
    for image, value in zip(images, found, strict=True):
        holding = [label["label"] for label in value["labels"] if label["holds"]]
        expected |= {f"{name}/{image.stem}.jpg" for name in holding}
        if not holding:
            most_probable = max(value["labels"], key=lambda label: label["probability"])["label"]
            expected.add(f"_no_label/{most_probable}/{image.stem}.jpg")
            without += 1
    written = [path for path in (tmp_path / "maps").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "maps").as_posix() for path in written} == expected
    assert len(written) == len(expected) > without > 0
    have = "1 image has" if without == 1 else f"{without} images have"
    assert f"{have} no label: the map is that of the most probable one, in {tmp_path / 'maps'}/_no_label." in err
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


def test_the_studio_refuses_what_is_no_folder_of_images_first(run, label_model_folder, labelled):
    before = sorted(path.name for path in (*labelled.parent.iterdir(), *label_model_folder.iterdir()))
    early = ("--no-open", "--port", 0, "--backbone", "nonsense")  # which is not looked at
    refused(run("studio", labelled, *early), "is not a folder; give the folder of the images")
    refused(
        run("studio", labelled.parent, *early, "--single-label"), "has several labels an image; leave --single-label"
    )
    refused(run("studio", label_model_folder, *early), "holds a model, and the studio labels a folder of images")
    assert sorted(path.name for path in (*labelled.parent.iterdir(), *label_model_folder.iterdir())) == before


def test_models_and_data_of_two_kinds_are_refused(run, label_model_folder, model_folder, labelled, photos):
    refused(run("evaluate", model_folder, labelled, "--quiet"), SEVERAL)
    refused(run("evaluate", model_folder, model_folder, labelled, "--quiet"), SEVERAL)
    refused(run("evaluate", label_model_folder, label_model_folder, photos, "--quiet"), "several labels need a table")
    pair = (label_model_folder, label_model_folder)  # refused before an image is read
    refused(run("evaluate", *pair, labelled / "missing", "--min-accuracy", 0.5), "--min-accuracy is for models of one")
    for pair in ((model_folder, label_model_folder), (label_model_folder, model_folder)):
        one = f"{model_folder} gives an image one class, and {label_model_folder} several labels"
        refused(run("evaluate", *pair, labelled, "--quiet"), one, "compare models of one kind")
        refused(run("diff", *pair), "one class, the other several labels")
    refused(run("evaluate", label_model_folder, photos, "--quiet"), "several labels need a table")
    refused(run("export", model_folder, "--to", "onnx", "--data", labelled, "--quiet"), SEVERAL)


def test_options_of_one_class_an_image_are_refused(run, labelled, photos, tmp_path):
    output = ("-o", tmp_path / "model")
    for option in (("--head", "lda"), ("--dropout", 0.2), ("--class-weight", "balanced"), ("--threshold", "disc=0.2")):
        refused(run("fit", labelled, *output, *FAST, *option), f"leave {option[0]} out")
    refused(run("compare", labelled, "--head", "ridge,mlp"), "the head is ridge, without dropout; leave head mlp out")
    refused(run("fit", labelled, *output, *FAST, "--single-label"), "is multi-label, row 3 has several")
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


def test_a_dry_run_counts_the_images_with_each_label(run, labelled, tmp_path):
    rows = [row.split(",") for row in labelled.read_text("utf-8").splitlines()[1:]]
    options = ("--dry-run", "--backbone", "headstart-s", "--runtime", "onnxruntime", "-o", tmp_path / "model")
    status, out, err = run("fit", labelled, *options)
    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("Labels multi-label: 3 labels, 1.3 an image, ") for line in lines)
    assert "Images 80 train, 30 validation" in lines
    assert "label train validation" in lines
    status, out, _ = run("fit", labelled, *options, "--json")
    value = json.loads(out)
    assert value["images"] == {"train": 80, "validation": 30}
    for found in value["labels"]:
        for split in ("train", "validation"):
            assert found[split] == sum(found["label"] in labels.split(";") for _, labels, s in rows if s == split)
        assert f"{found['label']} {found['train']} {found['validation']}" in lines
    assert "classes" not in value
    assert value["cost"]["images"] == 110
    assert not [*tmp_path.iterdir()]


def test_a_dry_run_refuses_and_names_what_the_fit_would(run, labelled, photos, tmp_path):
    options = ("--dry-run", "--backbone", "headstart-s", "-o", tmp_path / "model")
    refused(run("fit", labelled, *options, "--head", "lda"), "leave --head out")
    refused(run("fit", photos, *options, "--target-recall", 0.9), "these images have one class")
    header, *rows = labelled.read_text("utf-8").splitlines()
    lists = [row.split(",") for row in rows]
    with_both = [f"{path},{';'.join(filter(None, [labels, 'photo']))},{split}" for path, labels, split in lists]
    star = with_both[-1].replace(",validation", ";star,validation")
    assert star.endswith(",validation")
    table = labelled.with_name("left_out.csv")
    table.write_text("\n".join([header, *with_both[:-1], star]), "utf-8")
    status, _, err = run("fit", table, *options)
    assert status == 0, err
    assert "left out, since no readable training image has them: star" in err
    assert "left out, since every one has them: photo" in err
    unknown = [f"{path},{'?disc' if i % 3 else labels},{split}" for i, (path, labels, split) in enumerate(lists)]
    table = labelled.with_name("mostly_unknown.csv")
    table.write_text("\n".join([header, *unknown]), "utf-8")
    refused(run("fit", table, *options), "it is not known whether 'disc' holds")


def test_images_of_one_group_count_together_in_the_intervals_of_a_model(run, labelled, label_model_folder, tmp_path):
    """Each image stands five times: only the groups say that there are 30 and not 150."""
    rows = [row for row in labelled.read_text().splitlines() if row.endswith("validation")]
    copied = [f"{row},{row.split(',')[0]}" for row in rows for _ in range(5)]
    for row in rows:
        shutil.copy(labelled.parent / row.split(",")[0], tmp_path)
    (tmp_path / "once.csv").write_text("\n".join(["path,labels,split", *rows]))
    (tmp_path / "copied.csv").write_text("\n".join(["path,labels,split,specimen", *copied]))

    def intervals(table, *options):
        arguments = (label_model_folder, tmp_path / table, "--json", "--quiet", *options)
        value = json.loads(run("evaluate", *arguments)[1])
        pair = json.loads(run("evaluate", label_model_folder, *arguments)[1])
        assert [model["exact_match"]["interval"] for model in pair["models"]] == [value["exact_match"]["interval"]] * 2
        rejected = value["none_of_these"]["known"]["interval"]
        return np.array([value["exact_match"]["interval"], value["coverage"]["found"]["interval"], rejected])

    once, copies = intervals("once.csv"), intervals("copied.csv")
    grouped = intervals("copied.csv", "--group-by", "specimen")
    width = once[:, 1] - once[:, 0]
    assert (copies[:, 1] - copies[:, 0] < 0.7 * width).all()
    by_group = grouped[:, 1] - grouped[:, 0]
    np.testing.assert_allclose(by_group[[0, 2]], width[[0, 2]], rtol=0.15)
    assert by_group[1] >= width[1]  # where each label of an image counted by itself
