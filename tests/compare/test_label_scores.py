"""Backbones ranked for several labels: by the log-loss of all known cells, leaving one group out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.graphs import saved

from headstart import Compute, open_dataset
from headstart.compare import CompareOptions, compare_backbones, make_variants, parse_entries
from headstart.compare.scores import label_losses
from headstart.errors import OptionError
from headstart.heads.label_ridge import LabelTargets
from headstart.stats.platt import platt_targets

COMPUTE = Compute("onnxruntime")


def options(**fields):
    return CompareOptions(group_by="none", compute=COMPUTE, **fields)


def test_the_loss_is_that_of_what_fit_chooses(label_fit, labelled):
    """The fit of the fixture has the same images, groups and backbone."""
    found = compare_backbones(open_dataset(labelled), parse_entries(["headstart-s"]), options())
    (row,) = found.rows
    assert row.log_loss == pytest.approx(float(label_fit.selected.log_loss.mean()))
    assert row.cut == label_fit.selected.head.taps
    metrics = label_fit.evaluations["leave_group_out"].metrics
    assert row.accuracy.value == pytest.approx(metrics.mean_average_precision.value)
    assert row.recommended
    assert found.is_multi_label
    assert found.classes == ("disc", "square", "stripes")
    value = json.loads(json.dumps(found.to_dict()))
    assert value["labels"] == ["disc", "square", "stripes"]
    assert value["rows"][0]["mean_average_precision"] == row.accuracy.to_dict()
    assert "accuracy" not in value["rows"][0]


def test_losses_by_image_are_those_of_the_known_cells(label_fit):
    rng = np.random.default_rng(0)
    probabilities = rng.random((20, 3))
    values, known, groups = rng.random((20, 3)) < 0.5, rng.random((20, 3)) < 0.7, np.arange(20) // 2
    known[5] = False
    split = replace(label_fit.split, targets=LabelTargets(values, known, groups))
    losses = label_losses(np.where(known, probabilities, np.nan), split)
    truth = platt_targets(values, known, groups)
    total = 0.0
    for i, c in np.argwhere(known):
        total -= truth[i, c] * np.log(probabilities[i, c]) + (1 - truth[i, c]) * np.log(1 - probabilities[i, c])
    assert losses.mean() == pytest.approx(total / known.sum())
    assert losses[5] == 0
    assert np.isfinite(label_losses(np.round(probabilities), split)).all()


def test_every_cut_and_several_backbones_are_ranked_on_the_same_images(labelled, tmp_path):
    entries = parse_entries(["headstart-s", f"onnx:{saved(tmp_path, 'net.onnx', seed=1)}"])
    found = compare_backbones(open_dataset(labelled), entries, options(cuts="all"))
    losses = [row.log_loss for row in found.rows]
    assert losses == sorted(losses)
    assert {row.backbone for row in found.rows} == {entry.backbone for entry in entries}
    cuts = [row.cut for row in found.rows if row.backbone == "headstart-s"]
    assert ("features",) in cuts
    assert len(cuts) == len(set(cuts)) > 4
    assert sum(row.recommended for row in found.rows) == 1
    assert found.rows[0].behind[0] == 0
    assert found.rows[-1].behind[0] > 0


def test_heads_that_several_labels_cannot_have_are_refused(labelled):
    dataset, entries = open_dataset(labelled), parse_entries(["headstart-s"])
    for values in ({"head": ["ridge", "lda"]}, {"dropout": [0.1]}, {"head": ["centroid"]}):
        with pytest.raises(OptionError, match=r"the head is ridge, without dropout; leave .* out"):
            compare_backbones(dataset, entries, options(variants=make_variants(values)))


def test_the_command_prints_map(labelled, capsys, monkeypatch):
    from headstart.cli import main

    arguments = ["compare", str(labelled), "--backbones", "headstart-s", "--runtime", "onnxruntime", "--quiet"]
    monkeypatch.setattr("sys.argv", ["headstart", *arguments, "--group-by", "none", "--multi-label"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    out, err = capsys.readouterr()
    assert exit_info.value.code in (0, None), err
    lines = out.splitlines()
    assert lines[0] == "Images    80 of 3 labels, in 80 groups (none)"
    assert "mAP" in lines[1]
    assert all(len(line) <= 80 for line in lines[:3])
    assert "mAP: mean average precision" in out
