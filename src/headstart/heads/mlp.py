"""The mlp head: one hidden layer with ReLU and dropout, trained by gradient descent on cached features.

The other heads are solved; this one is trained, with PyTorch. The result is again a ``Head`` with a hidden layer, so it
is stored and served without PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError, check_types
from headstart.heads.candidates import Candidate, ScoredCandidate, score_candidate
from headstart.heads.folds import group_folds, holdout_groups
from headstart.heads.kinds import Array, Targets
from headstart.heads.optimizers import OPTIMIZERS, class_weights, make_optimizer
from headstart.heads.training_set import TrainingSet
from headstart.stats.temperature import log_losses

Log = Callable[[str], None]
TRIAL_BATCHES = 2  # by which the time of a training is estimated


def no_log(_: str) -> None:
    """Take the place of ``log`` where nobody wants to read it."""


@dataclass(frozen=True)
class MlpConfig:
    """How an mlp head is trained. The defaults are those of the course's lesson.

    ``hidden`` units; ``dropout`` in [0, 1) on them; ``optimizer`` one of ``OPTIMIZERS``, with ``learning_rate``; at
    most ``epochs``, in batches of ``batch_size``. Training stops when the training accuracy reaches
    ``stop_at_accuracy``, or when the validation loss, on a tenth of the groups, has not fallen for ``patience`` epochs
    (the best epoch is then used). ``class_weights`` makes every class count the same, however few images it has.
    Raises OptionError.
    """

    hidden: int = 1024
    dropout: float = 0.2
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-4
    epochs: int = 20
    batch_size: int = 20
    patience: int | None = None
    stop_at_accuracy: float | None = None
    class_weights: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for name, low, high in (("hidden", 1, 65_536), ("epochs", 1, 100_000), ("batch_size", 1, 65_536)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise OptionError(f"{name} {value!r} cannot be used; expected a number from {low} to {high}.")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"Dropout rate {self.dropout} cannot be used; give one from 0 up to, not including, 1.")
        if self.optimizer not in OPTIMIZERS:
            raise OptionError(f"Unknown optimizer {self.optimizer!r}; choose one of {', '.join(OPTIMIZERS)}.")
        if not 0 < self.learning_rate < 1e3:
            raise OptionError(f"Learning rate {self.learning_rate} cannot be used; expected a small number above 0.")
        if self.patience is not None and not 1 <= self.patience <= 100_000:
            raise OptionError(f"Patience {self.patience} cannot be used; expected a number of epochs from 1.")
        if self.stop_at_accuracy is not None and not 0 < self.stop_at_accuracy <= 1:
            raise OptionError(f"Accuracy {self.stop_at_accuracy} to stop at cannot be reached; give a share up to 1.")


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch: mean training loss in nats and training accuracy, with dropout on.

    The validation ones are those of the groups that ``patience`` holds out (None where there are none). The held-out
    ones are of all images, each predicted after this epoch by a training without its fold (None before that is known).
    """

    number: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None


@dataclass(frozen=True)
class Layers:
    """``relu(x @ hidden_weights + hidden_bias) @ weights + bias``: [d, h], [h], [h, k], [k], all float32."""

    hidden_weights: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, x: NDArray[np.floating]) -> Array:
        """Compute class scores [n, k] of vectors x [n, d]."""
        hidden = np.maximum(np.asarray(x, np.float32) @ self.hidden_weights + self.hidden_bias, 0)
        return np.asarray(hidden @ self.weights + self.bias, np.float64)


class _Network:
    """The layers as PyTorch tensors. Two classes have one sigmoid, more a softmax."""

    def __init__(self, torch: ModuleType, width: int, classes: int, hidden: int, generator: Any) -> None:
        self.torch = torch
        self.is_binary = classes == 2
        outputs = 1 if self.is_binary else classes
        self.hidden_weights, self.hidden_bias = _glorot(torch, width, hidden, generator), torch.zeros(hidden)
        self.weights, self.bias = _glorot(torch, hidden, outputs, generator), torch.zeros(outputs)
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    @property
    def parameters(self) -> list[Any]:
        return [self.hidden_weights, self.hidden_bias, self.weights, self.bias]

    def scores(self, vectors: Any, dropout_mask: Any = None) -> Any:
        """Compute class scores [n, k]; the softmax of [0, z] is the sigmoid of z."""
        hidden = self.torch.relu(vectors @ self.hidden_weights + self.hidden_bias)
        scores = (hidden if dropout_mask is None else hidden * dropout_mask) @ self.weights + self.bias
        return self.torch.cat([self.torch.zeros_like(scores), scores], dim=1) if self.is_binary else scores

    def layers(self) -> Layers:
        """Copy the parameters, a sigmoid as two columns of which the first is zero."""
        hidden_weights, hidden_bias, weights, bias = (p.detach().numpy().copy() for p in self.parameters)
        if self.is_binary:
            weights, bias = np.c_[np.zeros_like(weights), weights], np.r_[np.zeros_like(bias), bias]
        return Layers(hidden_weights, hidden_bias, weights, bias)


def train(
    x: NDArray[np.floating],
    targets: Targets,
    config: MlpConfig,
    seed: int,
    is_validation: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[Epoch, Callable[[], Layers]]]:
    """Train layers on ``x`` [n, d]; yield after every epoch its record and a function that copies the layers.

    Rows where ``is_validation`` [n] are evaluated, not trained on. Weights start as in Keras (Glorot & Bengio 2010,
    section 4.2.1; offsets zero). The same seed gives the same layers on the same machine. Raises MissingExtraError.
    """
    torch = _torch()
    cross_entropy = torch.nn.functional.cross_entropy
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    truth = torch.from_numpy(targets.labels.astype(np.int64))
    held_out = np.zeros(len(truth), bool) if is_validation is None else is_validation
    train_rows, validation_rows = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~held_out, held_out))
    weights = np.ones(targets.classes)
    if config.class_weights:
        weights = class_weights(targets.labels[~held_out], targets.classes)
    weight_of_class = torch.from_numpy(weights.astype(np.float32))
    network = _Network(torch, vectors.shape[1], targets.classes, config.hidden, generator)
    optimizer = make_optimizer(torch, config.optimizer, network.parameters, config.learning_rate, 0.01)

    def evaluate(rows: Any) -> tuple[float, float]:
        with torch.no_grad():
            scores = network.scores(vectors[rows])
            loss = float(cross_entropy(scores, truth[rows]))
            return loss, float((scores.argmax(dim=1) == truth[rows]).double().mean())

    for number in range(1, config.epochs + 1):
        total_loss, correct = 0.0, 0
        for rows in train_rows[torch.randperm(len(train_rows), generator=generator)].split(config.batch_size):
            mask = torch.rand(len(rows), config.hidden, generator=generator) >= config.dropout
            scores = network.scores(vectors[rows], mask / (1 - config.dropout))
            losses = cross_entropy(scores, truth[rows], reduction="none")
            optimizer.zero_grad()
            (losses * weight_of_class[truth[rows]]).mean().backward()
            optimizer.step()
            total_loss += float(losses.detach().sum())
            correct += int((scores.argmax(dim=1) == truth[rows]).sum())
        validation = evaluate(validation_rows) if len(validation_rows) else (None, None)
        epoch = Epoch(number, total_loss / len(train_rows), correct / len(train_rows), *validation)
        yield epoch, network.layers


def fit_mlp(
    x: NDArray[np.floating],
    targets: Targets,
    config: MlpConfig,
    seed: int,
    watch: Callable[[Layers], None] | None = None,
) -> tuple[Layers, list[Epoch]]:
    """Train layers until ``config`` says to stop; return them and the record of every epoch.

    ``watch`` receives the layers after every epoch.
    """
    is_validation = None if config.patience is None else holdout_groups(targets.groups, targets.labels, seed)
    history: list[Epoch] = []
    best: tuple[float, Layers] | None = None
    epochs_since_best = 0
    for epoch, copy_layers in train(x, targets, config, seed, is_validation):
        history.append(epoch)
        if watch is not None:
            watch(copy_layers())
        if epoch.validation_loss is not None and config.patience is not None:
            if best is None or epoch.validation_loss < best[0]:
                best, epochs_since_best = (epoch.validation_loss, copy_layers()), 0
            else:
                epochs_since_best += 1
        reached = config.stop_at_accuracy is not None and epoch.accuracy >= config.stop_at_accuracy
        out_of_patience = config.patience is not None and epochs_since_best >= config.patience
        if reached or out_of_patience or epoch.number == config.epochs:
            return (best[1] if best else copy_layers()), history
    raise AssertionError("a training has at least one epoch")


@dataclass(frozen=True)
class HeldOut:
    """Predictions of every image by a training without its fold.

    ``scores`` [n, k] are of the finished trainings; ``by_epoch`` has the mean loss in nats and the accuracy after each
    epoch. A training that stopped earlier than others counts on with its last epoch.
    """

    scores: Array
    by_epoch: tuple[tuple[float, float], ...]

    def add_to(self, history: Sequence[Epoch]) -> list[Epoch]:
        """Return the epochs of the training on all images with the held-out loss and accuracy after as many."""
        pairs = [self.by_epoch[min(i, len(self.by_epoch) - 1)] for i in range(len(history))]
        return [
            replace(epoch, held_out_loss=loss, held_out_accuracy=accuracy)
            for epoch, (loss, accuracy) in zip(history, pairs, strict=True)
        ]


def check_mlp(
    training_set: TrainingSet, taps: tuple[str, ...], config: MlpConfig, seed: int, log: Log = no_log
) -> tuple[ScoredCandidate, HeldOut]:
    """Evaluate an mlp head on taps side by side by trainings that each leave a fold of groups out.

    ``log`` receives a line before the first training that says what all cost, and one behind each. Raises DataError.
    """
    x = training_set.matrix(taps)
    log(describe_cost(x, training_set.targets, config))
    held_out = held_out_mlp(x, training_set.targets, config, seed, log, training_set.images)
    settings: dict[str, float | str] = {
        "hidden": config.hidden,
        "dropout": config.dropout,
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "epochs": config.epochs,
    }
    candidate = Candidate(taps, "mlp", "", settings, weight=1.0)
    return score_candidate(training_set, candidate, held_out.scores), held_out


def held_out_mlp(
    x: NDArray[np.floating],
    targets: Targets,
    config: MlpConfig,
    seed: int,
    log: Log = no_log,
    images: int | None = None,
) -> HeldOut:
    """Predict every image by layers trained without its fold; folds keep groups whole. ``log`` gets a line for each.

    The first ``images`` rows of ``x``, all unless stated, are images; the others are views, only learned from.
    """
    images = len(x) if images is None else images
    labels, groups = targets.labels, targets.groups
    scores = np.zeros((len(x), targets.classes))
    folds = group_folds(labels, groups)
    curves: list[list[tuple[float, int]]] = []  # of each fold, by epoch: the sum of the losses, and how many are right
    start = time.perf_counter()
    for number, (train_rows, held_out_rows) in enumerate(folds, 1):
        fold_targets = Targets(labels[train_rows], targets.classes, groups[train_rows])
        curves.append([])
        test_rows = held_out_rows[held_out_rows < images]
        watch = partial(_add_point, curves[-1], x[test_rows], labels[test_rows])
        layers, history = fit_mlp(x[train_rows], fold_targets, config, seed, watch)
        scores[test_rows] = layers.scores(x[test_rows])
        seconds = time.perf_counter() - start
        accuracy = float((scores[test_rows].argmax(axis=1) == labels[test_rows]).mean())
        log(
            f"mlp head, check {number} of {len(folds)}: {len(history)} epochs, training accuracy "
            f"{history[-1].accuracy:.1%}, on the groups left out {accuracy:.1%}; "
            f"about {seconds / number * (len(folds) + 1 - number):.0f} s left"
        )
    return HeldOut(scores[:images], _mean_by_epoch(curves, images))


def _add_point(
    curve: list[tuple[float, int]], x: NDArray[np.floating], labels: NDArray[np.integer], layers: Layers
) -> None:
    """Append the summed loss of the layers on vectors ``x`` [n, d], and how many of these they predict right."""
    scores = layers.scores(x)
    loss = log_losses(scores, labels, temperature=1.0, smoothing=0.0).sum()
    curve.append((float(loss), int((scores.argmax(axis=1) == labels).sum())))


def _mean_by_epoch(curves: Sequence[Sequence[tuple[float, int]]], count: int) -> tuple[tuple[float, float], ...]:
    """Return loss and accuracy of ``count`` images by epoch, from their sums over each fold by epoch."""
    means = []
    for i in range(max(map(len, curves))):
        sums = np.sum([curve[min(i, len(curve) - 1)] for curve in curves], axis=0) / count
        means.append((float(sums[0]), float(sums[1])))
    return tuple(means)


def describe_cost(x: NDArray[np.floating], targets: Targets, config: MlpConfig) -> str:
    """Say in a line how many trainings an mlp head takes and about how long, by a trial of a few steps."""
    count = len(x)
    folds = len(group_folds(targets.labels, targets.groups))
    rows = np.arange(min(count, TRIAL_BATCHES * config.batch_size))
    trial_config = replace(config, epochs=2, patience=None, class_weights=False)
    trial_targets = Targets(targets.labels[rows], targets.classes, targets.groups[rows])
    trial = train(x[rows], trial_targets, trial_config, seed=0)
    next(trial)  # the first steps take longer
    start = time.perf_counter()
    next(trial)
    seconds = (time.perf_counter() - start) / len(rows) * count * config.epochs
    checks = seconds * (folds - 1)  # each of ``folds`` trainings leaves one fold out
    return (
        f"The mlp head is trained {folds + 1} times: {folds} times without a part of the groups, to check it on that "
        f"part (about {checks:.0f} s by a trial), and once on all images (about {seconds:.0f} s); "
        f"at most {config.epochs} epochs each."
    )


def _glorot(torch: ModuleType, rows: int, columns: int, generator: Any) -> Any:
    limit = (6 / (rows + columns)) ** 0.5
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * limit


def _torch() -> ModuleType:
    return import_module("torch")
