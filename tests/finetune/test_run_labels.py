"""Whole fine-tunings of several labels an image. Needs PyTorch."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.finetuning import always_better, checkpoint_tensors
from helpers.frameworks import marked, predict_in_new_process

import headstart as hs
from headstart.classifier import FitOptions, fit_multi_label
from headstart.data import ReadOptions, open_dataset
from headstart.errors import DataError, OptionError
from headstart.features import Compute
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.model.folder import write_model
from headstart.stats.label_thresholds import fit_label_thresholds

torch_test = marked("torch", "timm", "accelerate", "onnxscript")
QUICK = FineTuneConfig(epochs=1, learning_rate=1e-4, batch_size=16, unfreeze_from="features")


@pytest.fixture(scope="module")
def table(labelled, tmp_path_factory):
    """The images of ``labelled``, in groups of two, of some of which a label is not known."""
    lines = labelled.read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows[::9]:
        row[1] = ";".join(["?disc", *(label for label in row[1].split(";") if label not in ("", "disc"))])
    text = [f"{path},{cell},{split},{split}{i // 2}" for i, (path, cell, split) in enumerate(rows)]
    path = tmp_path_factory.mktemp("table") / "copy" / "labels.csv"
    shutil.copytree(labelled.parent, path.parent)
    path.write_text("\n".join(["path,labels,split,group", *text]), "utf-8")
    return path


@pytest.fixture(scope="module")
def frozen(table, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        options = FitOptions("headstart-s", compute=Compute("onnxruntime"), group_by="group", target_recall=0.9)
        return fit_multi_label(open_dataset(table, ReadOptions(group_column="group")), options)


@pytest.fixture(scope="module")
def tuned(frozen):
    """A fine-tuning that is kept, with its held-out scores and its lines."""
    from headstart.finetune.run import run

    seen, lines = [], []

    def compare(*arguments):
        seen.extend(arguments)
        return always_better(*arguments)

    return run(frozen, replace(QUICK, unfreeze_from=None), lines.append, compare=compare), seen, lines


@torch_test
def test_the_fine_tuned_model_has_a_sigmoid_and_predicts_without_pytorch(tuned, frozen, table, labelled, tmp_path):
    result, _, lines = tuned
    info = result.model.run["fine_tuning"]
    assert type(result) is type(frozen)
    assert (info["kept"], info["why"] in lines) == ("fine-tuned", True)
    assert result.model.run["training"] == info["trainings"]["all images"]
    assert result.model.backbone["sha256"] != frozen.model.backbone["sha256"]
    assert "fine_tuning" not in frozen.model.run
    folder = write_model(result.model, tmp_path / "m")
    assert "Sigmoid" in [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    (tmp_path / "new").mkdir()
    for image in sorted(labelled.parent.glob("validation_*.png"))[:5]:
        shutil.copy(image, tmp_path / "new")
    alone = predict_in_new_process(folder, tmp_path / "new", without=("torch",))
    here = hs.Predictor(result.model).predict(tmp_path / "new").probabilities
    np.testing.assert_allclose(alone, here, atol=1e-6)
    head, features = result.selected.head, result.images.features
    rows = result.split.validation
    np.testing.assert_allclose(
        head.probabilities(features.matrix(head.taps, rows)),
        result.evaluations["validation"].predictions.probabilities,
    )
    paths = [table.parent / result.images.dataset.items[i].path for i in features.index[rows]]
    predicted = hs.Predictor(result.model).predict(paths).probabilities
    np.testing.assert_allclose(predicted, head.probabilities(features.matrix(head.taps, rows)), atol=1e-3)


@torch_test
def test_calibration_and_thresholds_are_those_of_the_scores_held_out(tuned):
    from headstart.finetune.label_verdict import compare_labels_to_frozen
    from headstart.finetune.verdict import ALPHAS

    result, (frozen_scores, scores, labels, groups, folds), _ = tuned
    targets = result.split.targets
    np.testing.assert_array_equal(labels == 1, targets.values & targets.known)
    np.testing.assert_array_equal(np.isnan(labels), ~targets.known)
    assert (~targets.known).sum() == 9
    verdict = compare_labels_to_frozen(frozen_scores, scores, labels, groups, folds)
    logits = verdict.platt.logits(scores[ALPHAS.index(verdict.alpha)])
    held_out = result.selected.probabilities
    np.testing.assert_allclose(held_out[targets.known], 1 / (1 + np.exp(-logits[targets.known])))
    assert np.isnan(held_out[~targets.known]).all()
    expected = fit_label_thresholds(held_out, targets.values, targets.known, groups, "recall", 0.9)
    assert result.model.label_thresholds == expected
    assert expected.target == "recall"
    evaluation = result.evaluations["leave_group_out"]
    for label in evaluation.metrics.per_label:
        assert label.recall.value >= 0.9
    assert result.model.run["metrics"]["leave_group_out"] == evaluation.metrics.to_dict()


@torch_test
def test_a_frozen_model_that_is_kept_is_the_same_and_says_so(frozen):
    result = fine_tune(frozen, replace(QUICK, learning_rate=1e-9))
    info = result.model.run["fine_tuning"]
    assert info["kept"] == "frozen"
    assert "the frozen model is kept" in info["why"]
    assert info["frozen"] == pytest.approx(info["tuned"], abs=1e-3)
    assert set(info["mean_average_precision"]) == {"frozen", "tuned"}
    assert [*info["trainings"]] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert result.model.graph == frozen.model.graph
    assert vars(replace(result, model=frozen.model)) == vars(frozen)


@torch_test
def test_interrupted_and_resumed_the_weights_are_equal(frozen, tmp_path):
    import torch

    config = replace(QUICK, epochs=2, augmentation="flip")

    def interrupt(line):
        if line.startswith("fold 2 of 3, epoch 1"):
            raise KeyboardInterrupt

    whole = fine_tune(frozen, replace(config, checkpoints=tmp_path / "whole"))
    interrupted = replace(config, checkpoints=tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(frozen, interrupted, log=interrupt)
    resumed = fine_tune(frozen, replace(interrupted, resume=True))
    assert resumed.model.run["fine_tuning"]["difference"] == whole.model.run["fine_tuning"]["difference"]
    expected, actual = (checkpoint_tensors(tmp_path / name) for name in ("whole", "resumed"))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert expected[name].keys() == actual[name].keys()
        assert all(torch.equal(expected[name][key], actual[name][key]) for key in expected[name])


@torch_test
def test_patience_holds_out_groups_of_known_labels(frozen):
    result = fine_tune(frozen, replace(QUICK, patience=1))
    epochs = result.model.run["fine_tuning"]["trainings"]["fold 1 of 3"]
    assert 0 < epochs[0]["validation_loss"] < 5


@torch_test
def test_what_cannot_be_is_refused(frozen):
    with pytest.raises(OptionError, match="these may have several labels"):
        fine_tune(frozen, FineTuneConfig(class_weights=True))
    targets = frozen.split.targets
    values = targets.values.copy()
    values[:, 0] = targets.groups == targets.groups[0]
    split = replace(frozen.split, targets=replace(targets, values=values, known=np.ones_like(values)))
    with pytest.raises(DataError, match=r"every label needs images that have it.* each, unlike disc"):
        fine_tune(replace(frozen, split=split), QUICK)
