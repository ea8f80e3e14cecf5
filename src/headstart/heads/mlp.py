"""The lesson's head: one hidden layer with ReLU and dropout, trained by gradient descent on cached features.

Everything else here is solved; this is trained, with PyTorch. In the end it is again a ``Head``: the hidden layer is
its expansion, so it is stored and served without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import MissingExtraError, OptionError
from headstart.heads.logistic import group_folds
from headstart.heads.optimizers import OPTIMISERS, class_weights, optimiser

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """How the head is trained. The defaults are the lesson's.

    ``hidden`` units; ``dropout`` in [0, 1) on them; ``optimiser`` one of ``OPTIMISERS`` with learning rate ``rate``;
    at most ``epochs`` of batches of ``batch``. It stops when the training accuracy reaches ``stop_at_accuracy``, or
    when the loss on a tenth of the groups, kept back, has not fallen for ``patience`` epochs (the best epoch is then
    taken). ``class_weights`` makes every class count alike, however few its pictures. Raises OptionError.
    """

    hidden: int = 1024
    dropout: float = 0.2
    optimiser: str = "rmsprop"
    rate: float = 1e-4
    epochs: int = 20
    batch: int = 20
    patience: int | None = None
    stop_at_accuracy: float | None = None
    class_weights: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("hidden", 1, 65_536), ("epochs", 1, 100_000), ("batch", 1, 65_536)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise OptionError(f"{name} {value!r} cannot be used; expected a number from {low} to {high}.")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"Dropout rate {self.dropout} cannot be used; give one from 0 up to, not including, 1.")
        if self.optimiser not in OPTIMISERS:
            raise OptionError(f"Unknown optimiser {self.optimiser!r}; choose one of {', '.join(OPTIMISERS)}.")
        if not 0 < self.rate < 1e3:
            raise OptionError(f"Learning rate {self.rate} cannot be used; expected a small number above 0.")
        if self.patience is not None and not 1 <= self.patience <= 100_000:
            raise OptionError(f"Patience {self.patience} cannot be used; expected a number of epochs from 1.")
        if self.stop_at_accuracy is not None and not 0 < self.stop_at_accuracy <= 1:
            raise OptionError(f"Accuracy {self.stop_at_accuracy} to stop at cannot be reached; give a share up to 1.")


@dataclass(frozen=True)
class Epoch:
    """One epoch's record: mean training loss in nats and accuracy, and those of the groups kept back (or None)."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Layers:
    """``relu(x @ hidden + offset) @ weights + bias``: [d, h], [h], [h, k], [k], all float32."""

    hidden: NDArray[np.float32]
    offset: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, x: NDArray[np.floating]) -> Array:
        """Class scores [n, k] of vectors x [n, d]."""
        inner = np.maximum(np.asarray(x, np.float32) @ self.hidden + self.offset, 0)
        return np.asarray(inner @ self.weights + self.bias, np.float64)


def train(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: int,
    how: Training,
    seed: int,
    kept_back: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[Epoch, Callable[[], Layers]]]:
    """After every epoch its record, and a function that gives the layers as they are then.

    ``x`` [n, d] and ``labels`` [n] in 0..classes-1; ``kept_back`` [n] are not trained on. Two classes have one sigmoid,
    more a softmax. Weights start as in Keras (Glorot & Bengio 2010, section 4.2.1; offsets zero). The same seed gives
    the same layers on the same machine. Raises MissingExtraError.
    """
    torch = _torch()
    generator = torch.Generator().manual_seed(seed)
    out = 1 if classes == 2 else classes
    vectors, truth = torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(labels.astype(np.int64))
    back = np.zeros(len(labels), bool) if kept_back is None else kept_back
    learned, kept = torch.from_numpy(np.flatnonzero(~back)), torch.from_numpy(np.flatnonzero(back))
    weights_of = class_weights(labels[~back], classes) if how.class_weights else np.ones(classes)
    weight_of = torch.from_numpy(weights_of.astype(np.float32))

    hidden, offset = _glorot(torch, vectors.shape[1], how.hidden, generator), torch.zeros(how.hidden)
    weights, bias = _glorot(torch, how.hidden, out, generator), torch.zeros(out)
    parameters = [hidden, offset, weights, bias]
    for parameter in parameters:
        parameter.requires_grad_(True)
    descent = optimiser(torch, how.optimiser, parameters, how.rate, 0.01)

    def scores(rows: Any, mask: Any = None) -> Any:
        inner = torch.relu(vectors[rows] @ hidden + offset)
        result = (inner if mask is None else inner * mask) @ weights + bias
        return (
            torch.cat([torch.zeros_like(result), result], dim=1) if out == 1 else result
        )  # softmax [0, z] is sigmoid z

    def judged(rows: Any) -> tuple[float, float]:
        with torch.no_grad():
            told = scores(rows)
            loss = float(torch.nn.functional.cross_entropy(told, truth[rows]))
            return loss, float((told.argmax(dim=1) == truth[rows]).double().mean())

    def layers() -> Layers:
        some = [parameter.detach().numpy().copy() for parameter in parameters]
        if out == 1:
            some[2:] = [np.c_[np.zeros_like(some[2]), some[2]], np.r_[np.zeros_like(some[3]), some[3]]]
        return Layers(*some)

    for number in range(1, how.epochs + 1):
        total, right = 0.0, 0
        for rows in learned[torch.randperm(len(learned), generator=generator)].split(how.batch):
            drawn = torch.rand(len(rows), how.hidden, generator=generator) >= how.dropout
            told = scores(rows, drawn / (1 - how.dropout))
            each = torch.nn.functional.cross_entropy(told, truth[rows], reduction="none")
            loss = (each * weight_of[truth[rows]]).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
            total += float(each.detach().sum())
            right += int((told.argmax(dim=1) == truth[rows]).sum())
        found = judged(kept) if len(kept) else (None, None)
        yield Epoch(number, total / len(learned), right / len(learned), *found), layers


def fit_mlp(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: int,
    groups: NDArray[np.integer],
    how: Training,
    seed: int,
) -> tuple[Layers, list[Epoch]]:
    """The trained layers, stopped as ``how`` says, and every epoch's record."""
    kept_back = None if how.patience is None else a_tenth(groups, labels, seed)
    history: list[Epoch] = []
    best: tuple[float, Layers] | None = None
    since = 0
    for epoch, layers in train(x, labels, classes, how, seed, kept_back):
        history.append(epoch)
        if epoch.validation_loss is not None and how.patience is not None:
            if best is None or epoch.validation_loss < best[0]:
                best, since = (epoch.validation_loss, layers()), 0
            else:
                since += 1
        reached = how.stop_at_accuracy is not None and epoch.accuracy >= how.stop_at_accuracy
        if reached or epoch.number == how.epochs or (how.patience is not None and since >= how.patience):
            return (best[1] if best else layers()), history
    raise AssertionError("a training has at least one epoch")


def held_out_mlp(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: int,
    groups: NDArray[np.integer],
    how: Training,
    seed: int,
) -> Array:
    """Scores [n, classes] of every picture from layers trained without its fold; folds keep groups whole."""
    scores = np.zeros((len(x), classes))
    for train_rows, test in group_folds(x, labels, groups):
        layers, _ = fit_mlp(x[train_rows], labels[train_rows], classes, groups[train_rows], how, seed)
        scores[test] = layers.scores(x[test])
    return scores


def a_tenth(groups: NDArray[np.integer], labels: NDArray[np.integer], seed: int) -> NDArray[np.bool_]:
    """Which pictures to keep back: whole groups, about a tenth, as long as every class stays."""
    out = np.zeros(len(groups), bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups)):
        more = out | (groups == group)
        if more.sum() > max(1, len(groups) // 10):
            continue
        if len(np.unique(labels[~more])) == len(np.unique(labels)):
            out = more
    return out


def _glorot(torch: ModuleType, rows: int, columns: int, generator: Any) -> Any:
    limit = (6 / (rows + columns)) ** 0.5
    return (torch.rand(rows, columns, generator=generator) * 2 - 1) * limit


def _torch() -> ModuleType:
    try:
        return import_module("torch")
    except ImportError:
        raise MissingExtraError(
            "The mlp head is trained with PyTorch, which is not installed; run: pip install 'headstart[zoo]'"
        ) from None
