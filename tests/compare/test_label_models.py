"""Models of several labels on the same images: the paired test of mAP, and labels that not every model knows."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from headstart import Compute, FitOptions, fit_multi_label, open_dataset
from headstart.compare import compare_models
from headstart.compare.models import compare_label_pairs
from headstart.data import ReadOptions
from headstart.errors import OptionError
from headstart.model.label_predictions import evaluate_labels
from headstart.splits.groups import to_groups
from headstart.splits.split import group_images
from headstart.stats.accuracy import wilson
from headstart.stats.label_metrics import mean_average_precision_difference
from headstart.stats.paired import paired_difference


def problem(seed, groups=60, size=1, noise=(1.0, 1.0), labels=4):
    """Truth [n, k], groups [n], and the scores of two models, whose errors have these deviations."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.random((groups, labels)) < 0.4, size, axis=0)
    index = np.repeat(np.arange(groups), size)
    scores = [truth + np.repeat(rng.normal(0, deviation, (groups, labels)), size, axis=0) for deviation in noise]
    return truth, index, [1 / (1 + np.exp(-s)) for s in scores]


def difference(truth, index, scores, known=None):
    known = np.ones(truth.shape, bool) if known is None else known
    return mean_average_precision_difference(*scores, truth, known, index)


def test_the_difference_is_that_of_scikit_learn_and_turns_with_the_models():
    truth, index, scores = problem(0, noise=(0.6, 1.2))
    found = difference(truth, index, scores)
    expected = [average_precision_score(truth, s, average="macro") for s in scores]
    assert found.difference == pytest.approx(expected[1] - expected[0])
    assert found.interval[0] < found.difference < found.interval[1] < 0
    assert found.significant
    turned = difference(truth, index, scores[::-1])
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert turned.p_value == found.p_value


def test_unknown_cells_count_neither_way():
    truth, index, scores = problem(1)
    known = np.random.default_rng(1).random(truth.shape) < 0.7
    found = difference(truth, index, scores, known)
    other = [np.where(known, s, 1 - s) for s in scores]
    assert difference(truth ^ ~known, index, other, known) == found
    per_label = [
        [average_precision_score(truth[known[:, c], c], s[known[:, c], c]) for c in range(truth.shape[1])]
        for s in scores
    ]
    assert found.difference == pytest.approx(np.mean(per_label[1]) - np.mean(per_label[0]))


def test_models_that_do_not_differ_and_a_single_group_show_nothing():
    truth, index, scores = problem(2)
    same = difference(truth, index, [scores[0]] * 2)
    unseen = wilson(0, len(np.unique(index)))[1]  # groups in which they differ may not have been seen
    assert (same.difference, same.interval, same.p_value, same.significant) == (0, (-unseen, unseen), 1, False)
    alone = difference(truth, np.zeros(len(truth), int), problem(2, noise=(0.1, 3))[2])
    assert (alone.interval, alone.p_value, alone.significant) == ((-1, 1), 1, False)


def test_copies_of_images_in_a_group_change_nothing():
    one, five = (difference(*problem(3, size=size, noise=(0.8, 1.0))) for size in (1, 5))
    assert five.difference == pytest.approx(one.difference)
    assert five.interval == pytest.approx(one.interval)


@pytest.mark.slow
def test_equal_models_are_rarely_said_to_differ():
    """The level is 5%; of 100 draws eleven are let through, three deviations above it."""
    assert sum(difference(*problem(seed, groups=50, labels=2)).significant for seed in range(100)) <= 11


def evaluations(label_fit, count=2):
    """The evaluation of the fit on validation images, and those of models whose probabilities are blurred."""
    first = label_fit.evaluations["validation"].predictions
    rng = np.random.default_rng(0)
    blurred = [np.clip(first.probabilities + rng.normal(0, 0.4, first.probabilities.shape), 0, 1) for _ in range(count)]
    return [evaluate_labels(first), *(evaluate_labels(replace(first, probabilities=p)) for p in blurred)]


def test_pairs_are_compared_by_both_metrics_and_allow_for_their_number(label_fit):
    found = evaluations(label_fit)
    groups = to_groups(np.arange(30), "none")
    pairs = compare_label_pairs(found, groups)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    for pair in pairs:
        a, b = found[pair.first].metrics, found[pair.second].metrics
        mean = b.mean_average_precision.value - a.mean_average_precision.value
        assert pair.mean_average_precision.difference == pytest.approx(mean)
        assert pair.paired.difference == pytest.approx(b.exact_match.value - a.exact_match.value)
    alone = compare_label_pairs(found[:2], groups)[0]
    assert alone.mean_average_precision.interval == pairs[0].mean_average_precision.interval
    assert alone.mean_average_precision.p_value <= pairs[0].mean_average_precision.p_value
    assert alone.mean_average_precision.significant
    known = np.zeros((30, 3), bool)
    known[:, :2] = True
    partly = [replace(e, predictions=replace(e.predictions, label_known=known)) for e in found[:2]]
    assert compare_label_pairs(partly, groups)[0].paired is None
    known[:12] = True  # of which only these are resampled
    (whole,) = compare_label_pairs(partly, to_groups(np.arange(30) // 3, "none"))
    assert (whole.images, whole.groups) == (12, 4)
    first, second = (e.predictions.is_right[:12] for e in partly)
    assert whole.paired == paired_difference(first, second, np.arange(12) // 3)
    assert {"images": 12, "groups": 4}.items() <= whole.to_dict()["exact_match"].items()


def test_labels_that_not_every_model_knows_are_left_out(labelled, label_model_folder, tmp_path, monkeypatch):
    dataset = open_dataset(labelled)
    items = tuple(replace(item, labels=tuple(n for n in item.labels if n != "square")) for item in dataset.items)
    dataset = replace(dataset, items=items, label_names=("stripes", "disc"))
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, group_by="none")
    other = str(fit_multi_label(dataset, options).save(tmp_path / "other"))
    models = [str(label_model_folder), other]
    grouped = []

    def group(features, dataset, rows, labels, group_by):
        grouped.append(labels)
        return group_images(features, dataset, rows, labels, group_by)

    monkeypatch.setattr("headstart.compare.models.group_images", group)
    found = compare_models(models, str(labelled), Compute("onnxruntime"), group_by="none")
    unknown = "The model does not know square; these labels are not looked at."
    assert [note for note in found.notes if unknown in note] == [f"{other}: {unknown}"]
    validation = open_dataset(labelled).split("validation")
    names = validation.label_names
    assert len(names) == 3  # images are grouped by all labels, whichever the models know
    assert grouped[0].tolist() == [[name in item.labels for name in names] for item in validation.items]
    assert "Not compared, since not every model knows them: square." in found.notes
    assert [e.predictions.classes for e in found.evaluations] == [("disc", "stripes")] * 2
    truth, probabilities = found.evaluations[0].predictions.label_truth, found.evaluations[0].predictions.probabilities
    expected = average_precision_score(truth, probabilities, average="macro")
    assert found.evaluations[0].metrics.mean_average_precision.value == pytest.approx(expected)
    value = json.loads(json.dumps(found.to_dict()))
    (pair,) = value["differences"]
    assert set(pair) == {"first", "second", "mean_average_precision", "exact_match"}
    assert set(pair["mean_average_precision"]) == {"difference", "interval", "p_value", "real"}
    assert value["models"][0]["labels"] == ["disc", "stripes"]
    shutil.rmtree(other)
    dataset = replace(dataset, items=tuple(replace(i, labels=("moon",) * ("disc" in i.labels)) for i in items))
    fit_multi_label(replace(dataset, label_names=("moon",)), options).save(other)
    with pytest.raises(OptionError, match="no label in common"):
        compare_models(models, open_dataset(labelled, ReadOptions(multi_label=True)), Compute("onnxruntime"))


def test_the_command_prints_both_models_and_their_difference(label_model_folder, labelled, capsys, monkeypatch):
    from headstart.cli import main

    folders = [str(label_model_folder)] * 2
    arguments = ["evaluate", *folders, str(labelled), "--runtime", "onnxruntime", "--group-by", "none", "--quiet"]
    monkeypatch.setattr("sys.argv", ["headstart", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    out, _ = capsys.readouterr()
    assert exit_info.value.code in (0, None)
    lines = out.splitlines()
    assert lines[0].startswith(f"{label_model_folder}  mAP ")
    assert lines[1].strip().startswith("every label right: ")
    assert lines[4].startswith(f"30 images do not show whether {folders[0]} or {folders[1]} is better by mAP: ")
    assert "+0.0 points" in lines[4]
    assert "30 groups resampled, p 1)" in lines[4]
    assert lines[5].startswith("every label right: ")
    assert "30 groups of 30 images resampled); only" in lines[5]
    assert "McNemar p 1" in lines[5]
