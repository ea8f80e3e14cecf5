"""The training loop: everything that happens in an epoch is in ``train``.

With several processes (``accelerate launch``) each takes its share of every batch, and the gradients are added up, so
that together they make the steps of one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from headstart.errors import BackboneError
from headstart.finetune.device_images import mix_batch, pinned, to_device, warp_batch
from headstart.finetune.freeze import TrainingPlan, changing_tensors, check_frozen, enable_gradients, set_mode
from headstart.finetune.gradients import LocalBatch, Loss, Recorder, compute_gradients, out_of_memory
from headstart.finetune.image_loader import ImageLoader, Views
from headstart.finetune.losses import correct_predictions, image_losses
from headstart.finetune.mixing import draw_mix
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import MixedPrecision
from headstart.finetune.pull import Pull, initial_values
from headstart.finetune.schedule import learning_rate_factor
from headstart.heads import optimizers
from headstart.stats.accuracy import wilson

Rows = NDArray[np.int64]
Result = TypeVar("Result")
NO_ROWS: Rows = np.zeros(0, np.int64)
EVALUATION_BATCH, ACCELERATOR_EVALUATION_BATCH = 32, 128  # images at a time without gradients


@dataclass(frozen=True)
class Task:
    """What all trainings of a fine-tuning share.

    ``labels`` are those of the n images that ``images`` loads: classes [n], 0 to ``classes`` - 1, or several labels
    [n, ``classes``], float32: 1, 0, NaN where not known. Precision and batch size of ``config`` are resolved: not
    "auto", not None. ``recorder`` holds what they share on CUDA.
    """

    network: Network
    images: ImageLoader
    labels: NDArray[Any]
    classes: int
    config: FineTuneConfig
    seed: int
    accelerator: Accelerator
    recorder: Recorder = field(default_factory=Recorder)

    @property
    def device(self) -> torch.device:
        """The device that trains."""
        return self.accelerator.device

    @property
    def batch_size(self) -> int:
        """The number of images in a step of all processes."""
        assert self.config.batch_size is not None
        return self.config.batch_size

    def known(self, rows: Rows) -> float:
        """Return how many of the images ``rows`` are labelled, one of which some labels are known as their share."""
        labels = self.labels[rows]
        return float(len(rows)) if labels.ndim == 1 else float((~np.isnan(labels)).sum() / self.classes)


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch.

    ``loss`` (mean, in nats) and ``accuracy`` (with its 95% ``interval``) are those of the training images as they were
    augmented and mixed, of several labels an image those of known labels. The validation ones are of the images that
    ``patience`` holds out, the held-out ones of the fold that the training left out, each with the weights that would
    be used; None where there are none. ``learning_rate`` is that of the last step. ``note`` is for the user to see.
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
    initial = initial_values(network, plan)
    if state.optimizer is None:
        state.optimizer = make_optimizer(network, plan, config)
    precision = MixedPrecision.of(config.precision, task.device.type)
    if state.scaler:
        precision.scaler.load_state_dict(state.scaler)
    loss, count = Loss(precision, _class_weights(task, train_rows), config.label_smoothing), task.known(train_rows)
    steps_per_epoch = -(-len(train_rows) // task.batch_size)
    for number in range(len(state.history) + 1, config.epochs + 1):
        if should_stop(state.history, config):
            break
        start, size_before = time.perf_counter(), state.micro_batch_size
        sums: list[Tensor] = []  # of the losses and of the correct predictions of each step, on the device
        parameters = enable_gradients(network, plan, plan.at_epoch(number) if config.gradual else plan)
        pull = Pull.of(parameters, initial, plan)
        order = np.random.default_rng([task.seed, number]).permutation(train_rows)
        batches = local_batches(task, _chunks(order, task.batch_size), number)
        for step, batch in enumerate(batches, start=(number - 1) * steps_per_epoch):
            totals = compute_step_gradients(task, batch, loss, list(parameters.values()), state)
            sums.append(_sum_over_processes(parameters, totals, task.accelerator))
            precision.unscale(state.optimizer)
            if config.clip:
                torch.nn.utils.clip_grad_norm_(parameters.values(), config.clip)
            factor = learning_rate_factor(step, config.epochs * steps_per_epoch, config.warm_up)
            learning_rate = config.learning_rate * factor
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate * group["lr_scale"]
            precision.step(state.optimizer)
            with torch.no_grad():
                pull(config.l2_sp * factor)
                if config.ema:
                    _update_average(state.average, changing_tensors(network, plan), config.ema, step)
        total_loss, correct = (float(value) for value in torch.stack(sums).double().sum(0))
        _check_finite(total_loss, number, config.learning_rate)
        validation_loss, validation_accuracy = _validate(task, plan, validation_rows, state.average)
        if validation_loss is not None and validation_loss < min(_validation_losses(state.history), default=np.inf):
            best = state.average or changing_tensors(network, plan)
            state.best = {name: value.clone() for name, value in best.items()}
        state.scaler = precision.scaler.state_dict()
        training = (total_loss / count, correct / count, wilson(round(correct), round(count)))
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


def in_parts_that_fit(device: torch.device, compute: Callable[[int], Result]) -> Result:
    """Return ``compute(size)`` for the number of images that are evaluated at a time, halved while memory is too small.

    On an accelerator all batches must have that many: libraries take seconds to prepare for batches of another size.
    Raises BackboneError where memory is too small for one image.
    """
    size = EVALUATION_BATCH if device.type == "cpu" else ACCELERATOR_EVALUATION_BATCH
    while True:
        try:
            return compute(size)
        except torch.OutOfMemoryError:
            if size < 2:
                raise out_of_memory() from None
            size //= 2
            torch.cuda.empty_cache()


def predict(task: Task, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute class scores [m, k] and vectors [m, d] of the images ``rows`` [m], in fp32 as the frozen path does.

    Raises BackboneError where memory is too small for one image.
    """
    return in_parts_that_fit(task.device, partial(_predict, task, rows))


def _predict(task: Task, rows: Rows, size: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Predict ``size`` images at a time."""
    scores, vectors = [], []
    task.network.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for batch, loaded in task.images.batches(_chunks(rows, size), finish=_finish(task.device)):
            pixels = to_device(loaded, task.device)
            if task.device.type != "cpu" and len(batch) < size:
                pixels = torch.cat([pixels, pixels.new_zeros((size - len(batch), *pixels.shape[1:]))])
            batch_vectors = task.network.vectors(pixels)[: len(batch)].float()
            vectors.append(batch_vectors)
            scores.append(task.network.scores(batch_vectors).double())
    return torch.cat(scores).cpu().numpy(), torch.cat(vectors).cpu().numpy()


def _finish(device: torch.device) -> Callable[[NDArray[np.uint8]], Any]:
    """Return what makes a tensor of the pixels of a batch while others are trained on."""
    return pinned if device.type == "cuda" else torch.from_numpy


def local_batches(task: Task, batches: Sequence[Rows], epoch: int) -> Iterator[LocalBatch]:
    """Yield this process's part of every batch, augmented and mixed, on the device.

    How an image is augmented and mixed does not depend on the number of processes. An accelerator augments itself.
    """
    config, size, device = task.config, task.images.size, task.device
    views = Views.draw(config.augmentation, len(task.labels), size, task.seed, epoch)
    is_on_device = device.type != "cpu"
    part = slice(task.accelerator.process_index, None, task.accelerator.num_processes)
    mixes = [draw_mix(config, len(batch), size, [task.seed, epoch, i]) for i, batch in enumerate(batches)]
    partners = [batch[mix.partner] if mix else batch for batch, mix in zip(batches, mixes, strict=True)]
    needed = [np.union1d(batch[part], partner[part]) for batch, partner in zip(batches, partners, strict=True)]
    loaded = task.images.batches(needed, None if is_on_device else views, _finish(device))
    for batch, partner, mix, (rows, loaded_pixels) in zip(batches, partners, mixes, loaded, strict=True):
        all_pixels = to_device(loaded_pixels, device)
        if is_on_device and views is not None and len(rows):
            all_pixels = warp_batch(all_pixels, views, rows)
        pixels = all_pixels[to_device(np.searchsorted(rows, batch[part]), device)]
        if mix is not None:
            pixels = mix_batch(mix, pixels, all_pixels[to_device(np.searchsorted(rows, partner[part]), device)])
        partner_labels = None
        if config.mixup > 0 or config.cutmix > 0:
            partner_labels = to_device(task.labels[partner[part]], device)
        lam = torch.tensor(mix.lam if mix else 1.0, device=device)
        yield LocalBatch(pixels, to_device(task.labels[batch[part]], device), partner_labels, lam, len(batch))


def compute_step_gradients(
    task: Task, batch: LocalBatch, loss: Loss, parameters: Sequence[Tensor], state: State
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of a batch; return the sum of its losses and the number of correct predictions.

    Where memory is too small, fewer images at a time go through the network from then on. Raises BackboneError where
    it is too small for one.
    """
    while True:
        try:
            if state.micro_batch_size is None:
                size = (-(-task.batch_size // task.accelerator.num_processes), task.batch_size)
                recording = task.recorder.recording_for(task.network, batch, loss, parameters, size)
                if recording is not None:
                    return recording.replay(batch, loss.class_weights)
            return compute_gradients(task.network, batch, loss, state.micro_batch_size)
        except torch.OutOfMemoryError:
            size_at_a_time = state.micro_batch_size or len(batch.labels)
            if size_at_a_time < 2:
                raise out_of_memory() from None
            state.micro_batch_size = size_at_a_time // 2
            task.recorder.recording = None
            torch.cuda.empty_cache()


def _sum_over_processes(
    parameters: Mapping[str, Tensor], totals: tuple[Tensor, Tensor], accelerator: Accelerator
) -> Tensor:
    """Sum the gradients of all processes in place; return the sums of the loss and of the correct predictions [2]."""
    sums = torch.stack([total.float() for total in totals])
    if accelerator.num_processes == 1:
        return sums
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    # One tensor, so that there is one exchange between the processes.
    flat = torch.cat([sums, *(parameter.grad.reshape(-1) for parameter in parameters.values())])
    flat = accelerator.reduce(flat, "sum")
    start = 2
    for parameter in parameters.values():
        end = start + parameter.numel()
        parameter.grad.copy_(flat[start:end].view_as(parameter))
        start = end
    return flat[:2].clone()


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
    count = task.known(rows)
    if not count:
        return None, None
    weights = {name: value.clone() for name, value in changing_tensors(task.network, plan).items()}
    task.network.load_state_dict(average, strict=False)
    scores, labels = torch.from_numpy(predict(task, rows)[0]), torch.from_numpy(task.labels[rows])
    task.network.load_state_dict(weights, strict=False)
    return float(image_losses(scores, labels).sum()) / count, float(correct_predictions(scores, labels).sum()) / count


def _class_weights(task: Task, rows: Rows) -> Tensor:
    """Return the weights [k] of the classes in the loss on the images ``rows``."""
    weights = np.ones(task.classes)
    if task.config.class_weights:
        weights = optimizers.class_weights(task.labels[rows], task.classes)
    return torch.from_numpy(weights.astype(np.float32)).to(task.device)


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
