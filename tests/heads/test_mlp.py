"""The mlp head: against gradient descent written out in NumPy, when training stops, and its model folder."""

import json
import subprocess
import sys

import numpy as np
import pytest

import headstart as hs
from headstart.errors import MissingExtraError, OptionError
from headstart.heads import mlp
from headstart.heads.folds import group_folds, holdout_groups
from headstart.heads.head import softmax
from headstart.heads.kinds import Targets
from headstart.heads.mlp import MlpConfig
from headstart.heads.selection import HeadOptions, select_head
from headstart.heads.training_set import TrainingSet


@pytest.fixture
def blobs():
    """Vectors [120, 10] of three classes, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 40)
    x = rng.normal(size=(120, 10)) + 2.5 * np.eye(10)[labels]
    return x.astype(np.float32), labels


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": 0},
        {"dropout": 1.0},
        {"optimizer": "adagrad"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"epochs": 2.5},
        {"patience": 0},
        {"stop_at_accuracy": 1.5},
        {"batch_size": -1},
    ],
)
def test_options_that_cannot_be_used_are_errors(options):
    with pytest.raises(OptionError):
        MlpConfig(**options)


def test_without_pytorch_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr("headstart.heads.selection.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mlp head needs PyTorch.*headstart\[torch\]"):
        HeadOptions(kind="mlp")


@pytest.mark.zoo
@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_of_gradient_descent_is_the_one_written_out(blobs, classes):
    """Without dropout and with one batch in each epoch: a sigmoid for two classes, a softmax for three."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    x, labels = x[labels < classes], labels[labels < classes]
    config = MlpConfig(hidden=7, dropout=0.0, optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=1000)
    first, second, third = (layers() for _, layers in mlp.train(x, Targets(labels, classes, labels), config, seed=3))
    hidden = np.maximum(x @ second.hidden_weights + second.hidden_bias, 0)
    scores = hidden @ second.weights + second.bias
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    score_gradient = (p / p.sum(axis=1, keepdims=True) - np.eye(classes)[labels]) / len(x)
    if classes == 2:
        score_gradient[:, 0] = 0  # the score of the first class stays 0
    hidden_gradient = (score_gradient @ second.weights.T) * (hidden > 0)
    gradients = {
        "hidden_weights": x.T @ hidden_gradient,
        "hidden_bias": hidden_gradient.sum(axis=0),
        "weights": hidden.T @ score_gradient,
        "bias": score_gradient.sum(axis=0),
    }
    for name, gradient in gradients.items():
        before, current, after = (getattr(layers, name) for layers in (first, second, third))
        expected = current + 0.9 * (current - before) - 0.1 * gradient  # momentum 0.9
        np.testing.assert_allclose(after, expected, atol=2e-6)


@pytest.mark.zoo
def test_the_head_of_the_lesson_has_as_many_parameters_as_in_the_lesson():
    """(7, 7, 768) flattened, 1,024 hidden units, one sigmoid: 38,537,217 parameters to train."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x = np.zeros((2, 7 * 7 * 768), np.float32)
    _, copy_layers = next(iter(mlp.train(x, Targets(np.array([0, 1]), 2, np.arange(2)), MlpConfig(epochs=1), seed=0)))
    layers = copy_layers()
    sigmoid_parameters = layers.weights[:, 1].size + 1
    assert not layers.weights[:, 0].any()
    assert layers.hidden_weights.size + layers.hidden_bias.size + sigmoid_parameters == 38_537_217


@pytest.mark.zoo
def test_training_stops_at_an_accuracy_and_is_repeatable(blobs):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    targets = Targets(labels, 3, np.arange(len(x)))
    config = MlpConfig(hidden=32, learning_rate=1e-3, epochs=200, stop_at_accuracy=0.9)
    layers, history = mlp.fit_mlp(x, targets, config, seed=0)
    assert history[-1].accuracy >= 0.9 > history[-2].accuracy
    assert len(history) < 200
    again, _ = mlp.fit_mlp(x, targets, config, seed=0)
    np.testing.assert_array_equal(layers.hidden_weights, again.hidden_weights)
    assert (layers.scores(x).argmax(axis=1) == labels).mean() > 0.85


@pytest.mark.zoo
def test_training_stops_when_patience_runs_out_and_the_best_epoch_is_used(blobs):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    groups = np.arange(len(x))
    config = MlpConfig(hidden=32, learning_rate=1e-2, epochs=500, patience=3, dropout=0.0)
    layers, history = mlp.fit_mlp(x, Targets(labels, 3, groups), config, seed=0)
    losses = [epoch.validation_loss for epoch in history]
    assert len(history) < 500
    assert int(np.argmin(losses)) == len(history) - 4  # the best epoch, then three that were no better
    is_held_out = holdout_groups(groups, labels, 0)
    scores = layers.scores(x[is_held_out])
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    validation_loss = -log_p[np.arange(is_held_out.sum()), labels[is_held_out]].mean()
    assert validation_loss == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.zoo
def test_the_held_out_curve_is_that_of_trainings_without_each_fold(blobs):
    """Fold by fold and epoch by epoch, by ``train`` and the folds alone."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    groups = np.arange(len(x)) // 3
    config = MlpConfig(hidden=8, learning_rate=1e-2, epochs=4)
    lines = []
    held_out = mlp.held_out_mlp(x, Targets(labels, 3, groups), config, 5, lines.append)
    losses, right = np.zeros(4), np.zeros(4)
    for train_rows, test_rows in group_folds(labels, groups):
        targets = Targets(labels[train_rows], 3, groups[train_rows])
        for i, (_, copy_layers) in enumerate(mlp.train(x[train_rows], targets, config, 5)):
            p = softmax(copy_layers().scores(x[test_rows]))
            losses[i] -= np.log(p[np.arange(len(test_rows)), labels[test_rows]]).sum()
            right[i] += (p.argmax(axis=1) == labels[test_rows]).sum()
    np.testing.assert_allclose(held_out.by_epoch, np.c_[losses, right] / len(x), rtol=1e-6)
    assert held_out.by_epoch[-1][1] == (held_out.scores.argmax(axis=1) == labels).mean()
    assert [line.split(":")[0] for line in lines] == [f"mlp head, check {i} of 5" for i in range(1, 6)]


def test_a_shorter_training_counts_on_with_its_last_epoch():
    assert mlp._mean_by_epoch([[(4.0, 1)], [(6.0, 3), (2.0, 5)]], 10) == ((1.0, 0.4), (0.6, 0.6))
    epochs = [mlp.Epoch(i, 0.1, 0.9, None, None) for i in (1, 2, 3)]
    history = mlp.HeldOut(np.zeros((1, 2)), ((1.0, 0.4), (0.6, 0.7))).add_to(epochs)
    assert [(epoch.held_out_loss, epoch.held_out_accuracy) for epoch in history] == [(1.0, 0.4), (0.6, 0.7), (0.6, 0.7)]


@pytest.mark.zoo
def test_a_training_says_beforehand_what_its_checks_cost(blobs):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    training_set = TrainingSet.of({"features": x}, labels, np.arange(len(x)))
    lines = []
    options = HeadOptions(kind="mlp", mlp=MlpConfig(hidden=8, epochs=3))
    selected = select_head(training_set, options, log=lines.append)
    assert lines[0].startswith("The mlp head is trained 6 times: 5 times without a part of the groups, to check it")
    assert lines[0].endswith("at most 3 epochs each.")
    assert len(lines) == 7
    assert lines[-1].startswith("mlp head, on all images: 3 epochs, training accuracy")
    assert selected.history[-1].held_out_accuracy == selected.candidates[0].accuracy


@pytest.mark.zoo
def test_class_weights_raise_the_recall_of_a_rare_class():
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    rng = np.random.default_rng(1)
    labels = np.r_[np.zeros(190, int), np.ones(10, int)]
    x = (rng.normal(size=(200, 4)) + 1.5 * labels[:, None]).astype(np.float32)
    recall = {}
    for is_weighted in (False, True):
        config = MlpConfig(hidden=16, learning_rate=3e-3, epochs=30, class_weights=is_weighted)
        layers, _ = mlp.fit_mlp(x, Targets(labels, 2, np.arange(200)), config, seed=0)
        recall[is_weighted] = (layers.scores(x).argmax(axis=1) == 1)[labels == 1].mean()
    assert recall[True] > recall[False]


@pytest.mark.zoo
def test_a_model_with_an_mlp_head_predicts_without_pytorch(photos, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    config = MlpConfig(hidden=64, learning_rate=1e-3, epochs=15)
    classifier = hs.ImageClassifier(head="mlp", mlp=config, dropout=0.3).fit(photos)
    assert classifier.run_["head"]["kind"] == "mlp"
    assert classifier.run_["head"]["dropout"] == 0.3
    assert len(classifier.run_["training"]) == 15
    assert classifier.accuracy_["leave_group_out"].value > 0.7
    classifier.save(tmp_path / "m")
    code = """
import sys, headstart as hs
classifier = hs.load(sys.argv[1])
classifier.verify()
print(classifier.predict_proba(sys.argv[2]).tolist())
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, tmp_path / "m", photos]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(completed.stdout), classifier.predict_proba(photos), atol=1e-6)
