"""The trained head: against a training written out in NumPy, its stops, and the model folder that it makes."""

import json
import subprocess
import sys

import numpy as np
import pytest

import headstart as hs
from headstart.errors import MissingExtraError, OptionError
from headstart.heads import mlp
from headstart.heads.kinds import Targets
from headstart.heads.mlp import MlpConfig
from headstart.heads.selection import HeadOptions, select_head
from headstart.heads.training_set import TrainingSet


@pytest.fixture
def blobs():
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
def test_values_that_cannot_be_used_are_refused(options):
    with pytest.raises(OptionError):
        MlpConfig(**options)


def test_without_pytorch_it_says_what_to_install(blobs, monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(mlp, "import_module", gone)
    x, labels = blobs
    with pytest.raises(MissingExtraError, match="pip install"):
        select_head(TrainingSet.of({"t": x}, labels, np.arange(len(x))), HeadOptions(kind="mlp"))


@pytest.mark.zoo
@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_of_gradient_descent_is_the_one_written_out(blobs, classes):
    """Without dropout and with one batch an epoch: the sigmoid of two classes, the softmax of three."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    x, labels = x[labels < classes], labels[labels < classes]
    how = MlpConfig(hidden=7, dropout=0.0, optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=1000)
    first, second, third = (layers() for _, layers in mlp.train(x, Targets(labels, classes, labels), how, seed=3))
    inner = np.maximum(x @ second.hidden_weights + second.hidden_bias, 0)
    scores = inner @ second.weights + second.bias
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    back = (p / p.sum(axis=1, keepdims=True) - np.eye(classes)[labels]) / len(x)
    if classes == 2:
        back[:, 0] = 0  # the score of the first class stays 0
    through = (back @ second.weights.T) * (inner > 0)
    slopes = {
        "hidden_weights": x.T @ through,
        "hidden_bias": through.sum(axis=0),
        "weights": inner.T @ back,
        "bias": back.sum(axis=0),
    }
    for name, slope in slopes.items():
        one, two, three = (getattr(layers, name) for layers in (first, second, third))
        np.testing.assert_allclose(three, two + 0.9 * (two - one) - 0.1 * slope, atol=2e-6)  # momentum 0.9


@pytest.mark.zoo
def test_the_lessons_head_has_the_lessons_parameters():
    """(7, 7, 768) flattened, 1,024 hidden units, one sigmoid: 38,537,217 parameters to train."""
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x = np.zeros((2, 7 * 7 * 768), np.float32)
    _, layers = next(iter(mlp.train(x, Targets(np.array([0, 1]), 2, np.arange(2)), MlpConfig(epochs=1), seed=0)))
    found = layers()
    one_sigmoid = found.weights[:, 1].size + 1
    assert not found.weights[:, 0].any()
    assert found.hidden_weights.size + found.hidden_bias.size + one_sigmoid == 38_537_217


@pytest.mark.zoo
def test_it_learns_is_repeatable_and_stops_when_told(blobs):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    x, labels = blobs
    groups = np.arange(len(x))
    how = MlpConfig(hidden=32, learning_rate=1e-3, epochs=200, stop_at_accuracy=0.9)
    layers, history = mlp.fit_mlp(x, Targets(labels, 3, groups), how, seed=0)
    assert history[-1].accuracy >= 0.9 > history[-2].accuracy
    assert len(history) < 200
    again, _ = mlp.fit_mlp(x, Targets(labels, 3, groups), how, seed=0)
    np.testing.assert_array_equal(layers.hidden_weights, again.hidden_weights)
    assert (layers.scores(x).argmax(axis=1) == labels).mean() > 0.85
    patient = MlpConfig(hidden=32, learning_rate=1e-2, epochs=500, patience=3, dropout=0.0)
    best, told = mlp.fit_mlp(x, Targets(labels, 3, groups), patient, seed=0)
    losses = [epoch.validation_loss for epoch in told]
    assert len(told) < 500
    assert int(np.argmin(losses)) == len(told) - 4  # the best epoch, then three that were no better
    kept = mlp.holdout_groups(groups, labels, 0)
    scores = best.scores(x[kept])
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert -log_p[np.arange(kept.sum()), labels[kept]].mean() == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.zoo
def test_class_weights_make_a_rare_class_count_alike():
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    rng = np.random.default_rng(1)
    labels = np.r_[np.zeros(190, int), np.ones(10, int)]
    x = (rng.normal(size=(200, 4)) + 1.5 * labels[:, None]).astype(np.float32)
    found = {}
    for weighted in (False, True):
        how = MlpConfig(hidden=16, learning_rate=3e-3, epochs=30, class_weights=weighted)
        layers, _ = mlp.fit_mlp(x, Targets(labels, 2, np.arange(200)), how, seed=0)
        found[weighted] = (layers.scores(x).argmax(axis=1) == 1)[labels == 1].mean()
    assert found[True] > found[False]


@pytest.mark.zoo
def test_a_model_with_a_trained_head_answers_without_pytorch(photos, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    fitted = hs.ImageClassifier(head="mlp", mlp=MlpConfig(hidden=64, learning_rate=1e-3, epochs=15), dropout=0.3).fit(
        photos
    )
    assert fitted.run_["head"]["kind"] == "mlp"
    assert fitted.run_["head"]["dropout"] == 0.3
    assert len(fitted.run_["training"]) == 15
    assert fitted.accuracy_["leave_group_out"].value > 0.7
    fitted.save(tmp_path / "m")
    code = """
import sys, headstart as hs
fitted = hs.load(sys.argv[1])
fitted.verify()
print(fitted.predict_proba(sys.argv[2]).tolist())
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, tmp_path / "m", photos]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), fitted.predict_proba(photos), atol=1e-6)
