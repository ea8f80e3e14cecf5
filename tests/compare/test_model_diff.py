"""What differs between two models, by what their folders say."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from headstart.compare.model_diff import diff_models
from headstart.errors import ModelError
from headstart.model.folder import read_model
from headstart.stats.accuracy import wilson


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
    assert result.verdict("validation") == "of different images"
    assert replace(result, same_data=True).verdict("validation") == "the intervals do not overlap"
    assert json.loads(json.dumps(result.to_dict()))["training_images"] == {
        "both": 20,
        "only_first": 8,
        "only_second": 5,
    }
    assert diff_models(model, replace(other, training_hashes=None)).training_images is None


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
    from headstart.cli import main

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
    lines = {text.split("  ")[0]: text for text in out.splitlines()}
    assert lines["seed"].endswith("0 -> 5")
    assert "of different images" in lines["Accuracy"]
    assert f"headstart evaluate {model_folder} {other} DATA" in err
