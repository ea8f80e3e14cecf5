"""The training loop: everything that happens in an epoch is in ``train``.

With several processes (``accelerate launch``) each takes its share of every batch, and the gradients are added up, so
that together they make the steps of one process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from headstart.errors import BackboneError
from headstart.finetune.freeze import TrainingPlan, changing_tensors, check_frozen, enable_gradients, set_mode
from headstart.finetune.image_loader import ImageLoader
from headstart.finetune.mixing import draw_mix
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import MixedPrecision
from headstart.finetune.schedule import learning_rate_factor
from headstart.heads import optimizers
from headstart.stats.accuracy import wilson

Rows = NDArray[np.int64]
NO_ROWS: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Task:
    """What all trainings of a fine-tuning share.

    ``labels`` [n], 0 to ``classes`` - 1, are those of the n images that ``images`` loads. ``config.precision`` is
    resolved: not "auto".
    """

    network: Network
    images: ImageLoader
    labels: Rows
    classes: int
    config: FineTuneConfig
    seed: int
    accelerator: Accelerator


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch.

    ``loss`` (mean, in nats) and ``accuracy`` (with its 95% ``interval``) are those of the training images as they were
    augmented and mixed. The validation ones are of the images that ``patience`` holds out, the held-out ones of the
    fold that the training left out, each with the weights that would be used; None where there are no such images.
    ``learning_rate`` is that of the last step. ``note`` is a line that the user must see.
    """

    number: int
    loss: float
    accuracy: float
    interval: tuple[float, float]
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    note: str = ""
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None


@dataclass
class State:
    """State of a training between two epochs, all that a checkpoint needs besides the plan.

    ``average`` is the exponential moving average of the weights, ``best`` the weights of the epoch with the least
    validation loss; both are empty where there is none. ``micro_batch_size`` is how many images go through the network
    at a time (None: the batch). ``scaler`` is the state of the scaling of the loss.
    """

    history: list[Epoch] = field(default_factory=list)
    optimizer: Any = None
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    micro_batch_size: int | None = None
    scaler: dict[str, Any] = field(default_factory=dict)

    def state_dict(self, network: Network, plan: TrainingPlan) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors by name, those of the network among them, and all other values in their JSON form."""
        tensors = {f"network.{name}": value for name, value in changing_tensors(network, plan).items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            for key, value in moments.items():
                if value is not None:
                    tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        values = {
            "history": [asdict(epoch) for epoch in self.history],
            "micro_batch_size": self.micro_batch_size,
            "scaler": self.scaler,
        }
        return {name: value.clone() for name, value in tensors.items()}, values

    def load_state_dict(self, network: Network, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore the state, and the network's tensors, from what ``state_dict`` returned."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        network.load_state_dict(parts["network"], strict=False)
        device = next(network.parameters()).device
        self.average = {name: value.to(device) for name, value in parts["average"].items()}
        self.best = {name: value.to(device) for name, value in parts["best"].items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = [Epoch(**{**epoch, "interval": tuple(epoch["interval"])}) for epoch in values["history"]]
        self.micro_batch_size = values["micro_batch_size"]
        self.scaler = values["scaler"]


def train(
    task: Task, plan: TrainingPlan, train_rows: Rows, validation_rows: Rows, state: State, held_out_rows: Rows = NO_ROWS
) -> Iterator[Epoch]:
    """Train the tensors of ``plan`` on the images ``train_rows`` and yield a record after every epoch.

    ``held_out_rows`` are evaluated for the record alone. ``state`` is new, or restored: then training continues there.
    At the end the network holds the weights to use, and every frozen tensor was compared with its start. Raises
    BackboneError.
    """
    network, config = task.network, task.config
    device = task.accelerator.device
    initial = {name: plan.initial[name].to(device) for name in plan.lr_scales}
    if state.optimizer is None:
        state.optimizer = make_optimizer(network, plan, config)
    precision = MixedPrecision.of(config.precision, device.type)
    if state.scaler:
        precision.scaler.load_state_dict(state.scaler)
    weights, count = _class_weights(task, train_rows), len(train_rows)
    steps_per_epoch = -(-count // config.batch_size)
    for number in range(len(state.history) + 1, config.epochs + 1):
        if should_stop(state.history, config):
            break
        start = time.perf_counter()
        total_loss, correct, size_before = 0.0, 0, state.micro_batch_size
        parameters = enable_gradients(network, plan, plan.at_epoch(number) if config.gradual else plan)
        order = np.random.default_rng([task.seed, number]).permutation(train_rows)
        batches = local_batches(task, _chunks(order, config.batch_size), number)
        for step, batch in enumerate(batches, start=(number - 1) * steps_per_epoch):
            loss, batch_correct = _compute_gradients(task, batch, weights, precision, state)
            loss, batch_correct = _sum_over_processes(parameters, loss, batch_correct, task.accelerator)
            total_loss, correct = total_loss + loss, correct + batch_correct
            precision.unscale(state.optimizer)
            if config.clip:
                torch.nn.utils.clip_grad_norm_(parameters.values(), config.clip)
            factor = learning_rate_factor(step, config.epochs * steps_per_epoch, config.warm_up)
            learning_rate = config.learning_rate * factor
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate * group["lr_scale"]
            precision.step(state.optimizer)
            with torch.no_grad():
                for name, parameter in parameters.items():  # L2-SP: back towards the initial values
                    parameter.lerp_(initial[name], config.l2_sp * factor * plan.lr_scales[name])
                if config.ema:
                    _update_average(state.average, changing_tensors(network, plan), config.ema, step)
        _check_finite(total_loss, number, config.learning_rate)
        validation_loss, validation_accuracy = _validate(task, plan, validation_rows, state.average)
        if validation_loss is not None and validation_loss < min(_validation_losses(state.history), default=np.inf):
            best = state.average or changing_tensors(network, plan)
            state.best = {name: value.clone() for name, value in best.items()}
        state.scaler = precision.scaler.state_dict()
        training = (total_loss / count, correct / count, wilson(correct, count))
        note = _memory_note(size_before, state.micro_batch_size)
        held_out = _validate(task, plan, held_out_rows, state.average)
        seconds = time.perf_counter() - start
        epoch = Epoch(number, *training, validation_loss, validation_accuracy, learning_rate, seconds, note, *held_out)
        state.history.append(epoch)
        yield epoch
    network.load_state_dict(state.best or state.average, strict=False)
    set_mode(network, plan, training=False)
    check_frozen(network, plan.at_epoch(len(state.history)) if config.gradual else plan)


def should_stop(history: Sequence[Epoch], config: FineTuneConfig) -> bool:
    """Return whether the accuracy to stop at is reached, or the patience for a lower validation loss is over."""
    if config.stop_at_accuracy is not None and history and history[-1].accuracy >= config.stop_at_accuracy:
        return True
    losses = _validation_losses(history)
    return config.patience is not None and bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= config.patience


def make_optimizer(network: Network, plan: TrainingPlan, config: FineTuneConfig) -> Any:
    """Make the optimizer of the trained tensors, with a parameter group for each factor of the learning rate."""
    parameters = dict(network.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name, lr_scale in plan.lr_scales.items() if lr_scale == group_scale],
            "lr_scale": group_scale,
            "lr": config.learning_rate,
        }
        for group_scale in sorted(set(plan.lr_scales.values()))
    ]
    # Without weight decay: L2-SP takes its place.
    return optimizers.make_optimizer(torch, config.optimizer, groups, config.learning_rate, 0.0)


def predict(task: Task, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute class scores [m, k] and vectors [m, d] of the images ``rows`` [m], in fp32 as the frozen path does."""
    scores, vectors = [], []
    task.network.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for _, pixels in task.images.batches(_chunks(rows, task.config.batch_size)):
            batch_vectors = task.network.vectors(torch.from_numpy(pixels).to(task.accelerator.device)).float()
            vectors.append(batch_vectors)
            scores.append(task.network.scores(batch_vectors).double().cpu())
    return torch.cat(scores).numpy(), torch.cat(vectors).cpu().numpy()


@dataclass(frozen=True)
class LocalBatch:
    """The part of a batch that this process computes: pixels [b, height, width, 3] and labels [b].

    ``lam`` is the weight of ``labels``; ``partner_labels`` [b], those of the images that were mixed in, have the rest.
    ``size`` is the number of images in the batch of all processes.
    """

    pixels: NDArray[np.uint8]
    labels: Rows
    partner_labels: Rows
    lam: float
    size: int


def local_batches(task: Task, batches: Sequence[Rows], epoch: int) -> Iterator[LocalBatch]:
    """Yield this process's part of every batch, augmented and mixed.

    How an image is augmented and mixed does not depend on the number of processes.
    """
    preprocess, config = task.images.preprocess, task.config
    size = (preprocess.height, preprocess.width)
    part = slice(task.accelerator.process_index, None, task.accelerator.num_processes)
    mixes = [draw_mix(config, len(batch), size, [task.seed, epoch, i]) for i, batch in enumerate(batches)]
    partners = [batch[mix.partner] if mix else batch for batch, mix in zip(batches, mixes, strict=True)]
    needed = [np.union1d(batch[part], partner[part]) for batch, partner in zip(batches, partners, strict=True)]
    loaded = task.images.batches(needed, config.augmentation, task.seed, epoch)
    for batch, partner, mix, (rows, loaded_pixels) in zip(batches, partners, mixes, loaded, strict=True):
        pixels = loaded_pixels[np.searchsorted(rows, batch[part])]
        if mix is not None:
            pixels = mix(pixels, loaded_pixels[np.searchsorted(rows, partner[part])])
        labels, partner_labels = task.labels[batch[part]], task.labels[partner[part]]
        yield LocalBatch(pixels, labels, partner_labels, mix.lam if mix else 1.0, len(batch))


def _compute_gradients(
    task: Task, batch: LocalBatch, class_weights: Tensor, precision: MixedPrecision, state: State
) -> tuple[float, int]:
    """Compute the gradients of a batch; return the sum of its losses and the number of correct predictions.

    Where memory is too small, fewer images at a time go through the network from then on. Raises BackboneError where
    it is too small for one.
    """
    while True:
        try:
            return _accumulate_gradients(task, batch, class_weights, precision, state.micro_batch_size)
        except torch.OutOfMemoryError:
            size = state.micro_batch_size or len(batch.labels)
            if size < 2:
                raise out_of_memory() from None
            state.micro_batch_size = size // 2
            torch.cuda.empty_cache()


def out_of_memory() -> BackboneError:
    """Build the error for a device whose memory is too small for a single image."""
    return BackboneError("The memory here is too small to train on one image at a time; unfreeze fewer layers.")


def _accumulate_gradients(
    task: Task, batch: LocalBatch, class_weights: Tensor, precision: MixedPrecision, micro_batch_size: int | None
) -> tuple[float, int]:
    """Add up the gradients of the parts of a batch. A mixed image is correct if predicted as what it is most."""
    total_loss, correct = 0.0, 0
    network, device = task.network, task.accelerator.device
    smoothing = task.config.label_smoothing
    network.zero_grad()

    def summed_loss(scores: Tensor, labels: Tensor) -> Tensor:
        losses = cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing)
        return (losses * class_weights[labels]).sum()

    size = micro_batch_size or max(1, len(batch.labels))
    for start in range(0, len(batch.labels), size):
        part = slice(start, start + size)
        pixels = torch.from_numpy(batch.pixels[part]).to(device)
        labels = torch.from_numpy(batch.labels[part]).to(device)
        partner_labels = torch.from_numpy(batch.partner_labels[part]).to(device)
        with precision.autocast():
            vectors = network.vectors(pixels)
        scores = network.scores(vectors)
        loss = batch.lam * summed_loss(scores, labels)
        if batch.lam < 1:
            loss = loss + (1 - batch.lam) * summed_loss(scores, partner_labels)
        precision.backward(loss / batch.size)
        main_labels = labels if batch.lam >= 0.5 else partner_labels
        total_loss += float(loss.detach())
        correct += int((scores.argmax(1) == main_labels).sum())
    return total_loss, correct


def _sum_over_processes(
    parameters: Mapping[str, Tensor], loss: float, correct: int, accelerator: Accelerator
) -> tuple[float, int]:
    """Sum the gradients, the loss and the number of correct predictions of all processes."""
    if accelerator.num_processes == 1:
        return loss, correct
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    # One tensor, so that there is one exchange between the processes.
    totals = torch.tensor([loss, float(correct)], device=accelerator.device)
    flat = torch.cat([totals, *(parameter.grad.reshape(-1) for parameter in parameters.values())])
    flat = accelerator.reduce(flat, "sum")
    start = 2
    for parameter in parameters.values():
        end = start + parameter.numel()
        parameter.grad.copy_(flat[start:end].view_as(parameter))
        start = end
    return float(flat[0]), round(float(flat[1]))


def _update_average(average: dict[str, Tensor], tensors: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move the exponential moving average towards ``tensors``; its decay is smaller in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in tensors.items():
        mean = average.setdefault(name, value.clone())
        mean.copy_(mean.lerp(value, 1 - decay) if mean.is_floating_point() else value)


def _validate(
    task: Task, plan: TrainingPlan, rows: Rows, average: Mapping[str, Tensor]
) -> tuple[float | None, float | None]:
    """Compute loss and accuracy on the images ``rows``, with the averaged weights where there are any."""
    if not len(rows):
        return None, None
    weights = {name: value.clone() for name, value in changing_tensors(task.network, plan).items()}
    task.network.load_state_dict(average, strict=False)
    scores = torch.from_numpy(predict(task, rows)[0])
    task.network.load_state_dict(weights, strict=False)
    labels = torch.from_numpy(task.labels[rows])
    return float(cross_entropy(scores, labels)), float((scores.argmax(1) == labels).double().mean())


def _class_weights(task: Task, rows: Rows) -> Tensor:
    """Return the weights [k] of the classes in the loss on the images ``rows``."""
    weights = np.ones(task.classes)
    if task.config.class_weights:
        weights = optimizers.class_weights(task.labels[rows], task.classes)
    return torch.from_numpy(weights.astype(np.float32)).to(task.accelerator.device)


def _check_finite(loss: float, epoch: int, learning_rate: float) -> None:
    if not np.isfinite(loss):
        raise BackboneError(f"The loss is not finite in epoch {epoch}; give a smaller --lr than {learning_rate:g}.")


def _validation_losses(history: Sequence[Epoch]) -> list[float]:
    return [epoch.validation_loss for epoch in history if epoch.validation_loss is not None]


def _memory_note(size_before: int | None, size: int | None) -> str:
    """Tell that memory was too small for as many images at a time as before."""
    return "" if size == size_before else f"out of memory: {size} images at a time, gradients accumulated"


def _chunks(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
