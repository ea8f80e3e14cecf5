"""What differs between two models, by what their folders say."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.labels import write_labelled

from headstart import Compute, FitOptions, Predictor
from headstart.classifier import fit_multi_label
from headstart.cli import main
from headstart.compare.model_diff import diff_models
from headstart.data import open_dataset
from headstart.errors import DataError, ModelError, OptionError
from headstart.model.folder import read_model
from headstart.stats.accuracy import wilson


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Run ``headstart ARGS`` in this process; return standard output."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert exit_info.value.code in (0, None)
        return capsys.readouterr().out

    return call


@pytest.fixture
def model(model_folder):
    return read_model(model_folder)


def measured(model, correct, count):
    value = {"correct": correct, "count": count, "interval": list(wilson(correct, count)), "method": "Wilson"}
    return {**model.run, "accuracy": {"validation": value}}


def test_a_model_does_not_differ_from_itself(model):
    result = diff_models(model, model)
    assert result.settings == {}
    assert (result.only_first, result.only_second) == ((), ())
    assert result.training_images == (28, 0, 0)
    assert result.same_data
    assert result.verdict("validation") == "the intervals overlap"
    assert result.accuracy["leave_group_out"][0] == model.accuracy["leave_group_out"]


def test_every_kind_of_difference_is_named(model):
    hashes = np.concatenate([model.training_hashes[:20], model.training_hashes[:5] ^ 255])
    other = replace(
        model,
        classes=("disc", "dots"),
        backbone={**model.backbone, "id": "other"},
        training_hashes=hashes,
        run={**measured(model, 50, 100), "version": "2", "seed": 7, "data": {"uri": "elsewhere", "fingerprint": "f"}},
    )
    result = diff_models(replace(model, run=measured(model, 99, 100)), other)
    assert result.settings["backbone.id"] == ("headstart-s", "other")
    assert result.settings["version"] == (None, "2")
    assert result.settings["seed"] == (0, 7)
    assert result.settings["data.uri"][1] == "elsewhere"
    assert "cut" not in result.settings
    assert (result.only_first, result.only_second) == (("stripes",), ("dots",))
    assert result.training_images == (20, 8, 5)
    assert not result.same_data
    assert result.same_images == {"training": False, "validation": None}
    assert result.verdict("validation") == "perhaps of different images"
    same = replace(result, same_images={"training": False, "validation": True})
    assert same.verdict("validation") == "the intervals do not overlap"
    assert json.loads(json.dumps(result.to_dict()))["training_images"] == {
        "both": 20,
        "only_first": 8,
        "only_second": 5,
    }
    assert diff_models(model, replace(other, training_hashes=None)).training_images is None


def test_training_and_validation_images_are_compared_by_themselves(tmp_path):
    rows = write_labelled(tmp_path, 40) + write_labelled(tmp_path, 12, 1, "validation")
    training, validation = rows[:40], rows[40:]
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), group_by="none")

    def fitted(name, *chosen):
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join(["path,labels,split", *chosen]), "utf-8")
        return fit_multi_label(open_dataset(table), options).model

    model = fitted("a", *training[:30], *validation)
    other_training = diff_models(model, fitted("b", *training[10:], *validation))
    assert other_training.same_images == {"training": False, "validation": True}
    assert other_training.verdict("validation") == "the intervals overlap"
    assert other_training.verdict("leave_group_out") == "of different images"
    assert (other_training.same_data, diff_models(model, model).same_data) == (False, True)
    other_validation = diff_models(model, fitted("c", *training[:30], *validation[:9]))
    assert other_validation.same_images == {"training": True, "validation": False}
    assert other_validation.verdict("validation") == "of different images"
    without = fitted("none", *training[:30])
    assert diff_models(without, without).same_images == {"training": True}
    assert diff_models(without, without).same_data
    assert diff_models(model, without).same_images == {"training": True, "validation": False}
    exchanged = [row.replace(",train", ",validation") for row in training[:3]]
    other_split = diff_models(model, fitted("d", *training[3:30], *exchanged, *validation))
    assert "data.fingerprint" not in other_split.settings  # all images together are the same
    assert other_split.same_images == {"training": False, "validation": False}


def test_of_older_models_the_validation_images_are_told_from_all(model):
    def older(fingerprint, hashes=model.training_hashes):
        return replace(model, run={**model.run, "data": {"fingerprint": fingerprint}}, training_hashes=hashes)

    def same(*models):
        return diff_models(*models).same_images["validation"]

    first, others = older("f"), model.training_hashes[:-1]
    assert same(first, older("f")) is True
    assert same(first, older("g")) is False  # other images, but not for training
    assert same(first, older("f", others)) is False  # what one has for training the other has for validation
    assert same(first, older("g", others)) is None
    assert same(first, older("f", None)) is None


@pytest.mark.parametrize(
    "run",
    [
        {"accuracy": {"validation": {}}},
        {"accuracy": {"validation": {"correct": 5, "count": 0, "interval": [0, 1], "method": "x"}}},
        {"accuracy": {"validation": {"correct": 5, "count": 4, "interval": [0, 1], "method": "x"}}},
        {"accuracy": {"validation": {"correct": 1, "count": 4, "interval": "no", "method": "x"}}},
        {"accuracy": 3},
        {"groups": []},
        {"data": "x"},
    ],
)
def test_a_damaged_record_is_said(model, run):
    with pytest.raises(ModelError, match=r"run\.json"):
        diff_models(model, replace(model, run=run))


def test_the_command_prints_what_differs(model_folder, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    run = json.loads((other / "run.json").read_text("utf-8"))
    run |= {"seed": 5, "author": "x\x1b[31m", "data": {}}
    (other / "run.json").write_text(json.dumps(run), "utf-8")
    monkeypatch.setattr("sys.argv", ["headstart", "diff", str(model_folder), str(other)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    out, err = capsys.readouterr()
    assert exit_info.value.code in (0, None)
    assert "\x1b" not in out
    assert f"28 training images of both, 0 only of {model_folder}, 0 only of {other}" in out
    assert "; validation images not known\n" in out
    lines = out.splitlines()
    assert any(text.startswith("seed ") and text.endswith("0 -> 5") for text in lines)
    verdicts = [text.rpartition("; ")[2] for text in lines if text.startswith("Accuracy")]
    assert verdicts == ["perhaps of different images", "the intervals overlap"]
    assert f"headstart evaluate {model_folder} {other} DATA" in err


def test_no_accuracies_are_compared_where_one_was_not_measured(model_folder, tmp_path, capsys, monkeypatch):
    other = shutil.copytree(model_folder, tmp_path / "other")
    run = json.loads((other / "run.json").read_text("utf-8"))
    (other / "run.json").write_text(json.dumps({**run, "accuracy": {}, "data": {}}), "utf-8")
    monkeypatch.setattr("sys.argv", ["headstart", "diff", str(model_folder), str(other)])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert "-> not measured; measured for one model only" in out
    assert "of different images" not in out + err


@pytest.fixture
def label_model(label_model_folder):
    return read_model(label_model_folder)


def test_models_of_several_labels_differ_in_map_target_and_thresholds(label_model, label_fit):
    same = diff_models(label_model, label_model)
    assert (same.settings, same.same_data, same.decisions) == ({}, True, None)
    found = same.accuracy["validation"][0]
    assert found == label_fit.evaluations["validation"].metrics.mean_average_precision
    assert same.verdict("validation") == "the intervals overlap"
    thresholds = replace(label_model.label_thresholds, thresholds=(0.5, 0.25, 0.125), target="", share=0.0)
    other = replace(label_model, classes=("disc", "square", "moon"), label_thresholds=thresholds)
    result = diff_models(label_model, other)
    assert result.settings["target"] == ("recall 90%", None)
    assert result.settings["threshold.square"][1] == 0.25
    assert not {"threshold.moon", "threshold.stripes"} & {*result.settings}  # only of one model, as is said above
    assert (result.only_first, result.only_second) == (("stripes",), ("moon",))
    near = replace(label_model.label_thresholds, share=0.904)
    assert diff_models(label_model, replace(label_model, label_thresholds=near)).settings == {
        "target": ("recall 90%", "recall 90.4%")
    }
    value = json.loads(json.dumps(result.to_dict()))
    assert value["labels"] == {"only_first": ["stripes"], "only_second": ["moon"]}
    assert set(value["mean_average_precision"]) == {"validation", "leave_group_out"}
    assert "accuracy" not in value


@pytest.mark.parametrize(
    "estimate",
    [
        None,
        {},
        {"value": 0.5, "interval": None},
        {"value": 0.5, "interval": [0.6, 0.7]},
        {"value": 1.5, "interval": [0, 2]},
        {"value": "x", "interval": [0, 1]},
        {"value": 0.5, "interval": [0, "1"]},
        {"value": float("nan"), "interval": [0, 1]},
    ],
)
def test_a_damaged_record_of_several_labels_is_said(label_model, estimate):
    run = {**label_model.run, "metrics": {"validation": {"mean_average_precision": estimate}}}
    with pytest.raises(ModelError, match=r"run\.json: metrics"):
        diff_models(label_model, replace(label_model, run=run))


def test_an_estimate_that_is_not_defined_is_read(label_model):
    run = {**label_model.run, "metrics": {"validation": {"mean_average_precision": {"value": None, "interval": None}}}}
    result = diff_models(label_model, replace(label_model, run=run))
    assert str(result.accuracy["validation"][1]) == "-"
    assert result.verdict("validation") == "measured for one model only"


def test_models_of_two_kinds_are_refused(label_model, model):
    for pair in ((model, label_model), (label_model, model)):
        with pytest.raises(OptionError, match="one class, the other several labels"):
            diff_models(*pair)


def test_the_labels_that_one_model_alone_predicts_are_named_by_image(label_model, labelled):
    compute = Compute("onnxruntime")
    shifted = replace(label_model.label_thresholds, thresholds=(0.99, 0.01, 0.5))
    other = replace(label_model, label_thresholds=shifted)
    found = diff_models(label_model, other, str(labelled), compute).decisions
    predictions = Predictor(label_model, compute).predict(str(labelled))
    first, second = predictions.decisions, shifted.decide(predictions.probabilities)
    assert found.images == 110
    names = np.array(label_model.classes)
    expected = [
        (path, tuple(names[a & ~b].tolist()), tuple(names[b & ~a].tolist()))
        for path, a, b in zip(predictions.paths, first, second, strict=True)
        if (a != b).any()
    ]
    assert [(one.path, one.only_first, one.only_second) for one in found.changed] == expected
    assert len(expected) > 5
    counts = {n: (int((first & ~second)[:, c].sum()), int((second & ~first)[:, c].sum())) for c, n in enumerate(names)}
    assert found.by_label == {name: pair for name, pair in counts.items() if any(pair)}
    renamed = replace(other, classes=("disc", "moon", "stripes"))
    only_common = diff_models(label_model, renamed, str(labelled), compute).decisions
    assert {name for one in only_common.changed for name in one.only_first + one.only_second} <= {"disc", "stripes"}


def test_the_classes_that_two_models_predict_are_compared(model, photos):
    other = replace(model, classes=model.classes[::-1])
    found = diff_models(model, other, str(photos), Compute("onnxruntime")).decisions
    assert found.images == len(found.changed) == 40
    assert all({*one.only_first, *one.only_second} == {"disc", "stripes"} for one in found.changed)
    assert sum(map(sum, found.by_label.values())) == 80


def test_the_command_names_what_two_models_predict_differently(label_model_folder, labelled, tmp_path, run_main):
    other = tmp_path / "other"
    shutil.copytree(label_model_folder, other)
    config = json.loads((other / "config.json").read_text("utf-8"))
    config["label_thresholds"]["thresholds"] = [1.0, 0.0, 0.5]
    (other / "config.json").write_text(json.dumps(config), "utf-8")
    options = ("--runtime", "onnxruntime", "--quiet")
    out = run_main("diff", label_model_folder, other, labelled, *options)
    lines = out.splitlines()
    assert lines[0].startswith("mAP         validation: ")
    place = next(i for i, text in enumerate(lines) if text.startswith("Predicted   differently: "))
    value = json.loads(run_main("diff", label_model_folder, other, labelled, *options, "--json"))["decisions"]
    assert lines[place] == f"Predicted   differently: {len(value['changed'])} of 110 images"
    only_second = sum("square" in one["only_second"] for one in value["changed"])
    row = next(text.split() for text in lines[place:] if text.split()[:1] == ["square"])
    assert row == ["square", "0", str(only_second)]
    first = value["changed"][0]
    expected = f"{first['path']}: {', '.join(first['only_first']) or '-'} -> {', '.join(first['only_second']) or '-'}"
    assert expected in [text.strip() for text in lines]
    assert f"and {len(value['changed']) - 10} more images: see --json" in out
    out = run_main("diff", label_model_folder, label_model_folder, labelled, *options)
    assert "Predicted   differently: 0 of 110 images" in out
    assert "No difference in settings and labels." in out


def test_every_image_that_predict_would_read_is_compared(model_folder, photos, tmp_path, run_main):
    disc, stripes = (sorted((photos / "train" / name).iterdir()) for name in ("disc", "stripes"))
    (tmp_path / "mix" / "sub").mkdir(parents=True)
    for place, source in (("a", disc[0]), ("b", disc[1]), ("sub/c", stripes[0]), ("sub/d", stripes[1])):
        shutil.copy(source, tmp_path / "mix" / f"{place}{source.suffix}")
    (tmp_path / "mix" / "notes.txt").write_text("x")
    names = [path.name for path in sorted((tmp_path / "mix" / "sub").iterdir())]
    (tmp_path / "new.csv").write_text(f"path,label\nmix/sub/{names[0]},disc\nmix/sub/{names[1]},\n")
    for data, count in ((tmp_path / "mix", 4), (tmp_path / "new.csv", 2), (disc[0], 1)):
        out = run_main("diff", model_folder, model_folder, data, "--runtime", "onnxruntime", "--quiet")
        assert f"Predicted   differently: 0 of {count} image" in out
    assert diff_models(*[read_model(model_folder)] * 2, str(tmp_path / "mix")).decisions.images == 4


def test_data_without_a_readable_image_are_refused(model, tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for name in ("broken.png", "empty", "missing.png", "missing.csv"):
        with pytest.raises(DataError, match=rf"^No image can be read\. .*{name}: "):
            diff_models(model, model, str(tmp_path / name))
