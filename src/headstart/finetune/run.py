"""Fine-tune a fit: a cross-validation shows whether it helps; if it does, a training on all images makes the model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from headstart.classifier.fit import FineTuningRecord
from headstart.errors import DataError, OptionError
from headstart.features import embed
from headstart.finetune.checkpoint import read_checkpoint, write_checkpoint
from headstart.finetune.freeze import TrainingPlan, changing_tensors, make_plan
from headstart.finetune.frozen_fit import AnyFitResult, AnyVerdict, FrozenFit, Tuned, frozen_fit
from headstart.finetune.gradients import Recorder
from headstart.finetune.image_loader import ImageLoader
from headstart.finetune.loop import (
    NO_ROWS,
    Epoch,
    State,
    Task,
    in_parts_that_fit,
    make_optimizer,
    predict,
    should_stop,
    train,
)
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import bf16_pays, resolve_precision
from headstart.finetune.tensorboard import epoch_writer
from headstart.finetune.time_limit import estimate_duration
from headstart.finetune.verdict import ALPHAS, make_folds
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.folds import holdout_groups
from headstart.heads.head import Head
from headstart.heads.ood import OodDetector, fit_ood
from headstart.heads.training_set import TrainingSet
from headstart.model.model import GoldenSample

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Fold = tuple[Rows, Rows]  # rows to train on, rows held out
Log = Callable[[str], None]
ALL_IMAGES = "all images"  # the name in run.json of the training on all images


@dataclass(frozen=True)
class _Setup:
    """What all trainings share: the task, the plan, a hash of all that determines the result, and ``log``."""

    fit: FrozenFit[Any]
    task: Task
    plan: TrainingPlan
    settings: str
    log: Log


@dataclass(frozen=True)
class _Training:
    """One training: the tensors that it may change, before and after, and the record of its epochs."""

    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    history: tuple[Epoch, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the epochs in their JSON form."""
        return [asdict(epoch) for epoch in self.history]


@dataclass(frozen=True)
class _HeldOutScores:
    """Scores of every image by models made without its fold: frozen [n, k], fine-tuned [alphas, n, k]; the fold [n]."""

    frozen: Array
    tuned: Array
    folds: Rows


def run(
    result: AnyFitResult,
    config: FineTuneConfig,
    log: Log,
    *,
    compare: Callable[[Array, Array, NDArray[Any], Rows, Rows], Any] | None = None,
) -> AnyFitResult:
    """Fine-tune as ``finetune.fine_tune`` does; ``compare`` has the parameters of ``compare_to_frozen``."""
    start = time.perf_counter()
    fit: FrozenFit[AnyFitResult] = frozen_fit(result)
    folds = make_folds(fit.labels, fit.groups, fit.options.seed)
    if folds is None:
        raise DataError(f"Fine-tuning cannot be evaluated: {fit.needs}, or use: headstart fit")
    setup = _prepare(fit, config, log, len(folds))
    scores, trainings = _cross_validate(setup, folds)
    verdict = (compare or fit.compare)(scores.frozen, scores.tuned, fit.labels, fit.groups, scores.folds)
    setup.log(str(verdict))
    if not verdict.is_better:  # the fit's own model, with the record in run.json
        info = _describe(setup, verdict, trainings, time.perf_counter() - start)
        return fit.with_model(replace(fit.model, run={**fit.model.run, "fine_tuning": info}))
    ood_scores = _held_out_ood_scores(setup, folds, list(trainings.values()), verdict.alpha)
    final = _train(setup, ALL_IMAGES, fit.start_head, np.arange(len(fit.labels)))
    trainings[ALL_IMAGES] = final
    setup.task.network.load_interpolated(final.start, final.end, verdict.alpha)
    info = _describe(setup, verdict, trainings, time.perf_counter() - start)
    record = FineTuningRecord(info, tuple(final.to_dict()))
    held_out_scores = scores.tuned[ALPHAS.index(verdict.alpha)]
    return fit.tuned_result(_export(setup, held_out_scores, ood_scores, record), verdict)


def _prepare(fit: FrozenFit[Any], config: FineTuneConfig, log: Log, folds: int) -> _Setup:
    """Build the network, check that it starts as the frozen model, and decide on the number of epochs."""
    backbone, options = fit.backbone, fit.options
    if backbone.precision == "int8":
        raise OptionError("An int8 backbone cannot be trained; fit again with --precision fp32, then fine-tune.")
    network = Network(backbone, options.input_options, fit.head)
    plan = make_plan(network, config)
    accelerator = Accelerator()
    device_type, count = accelerator.device.type, len(fit.labels)
    config = replace(
        config,
        precision=resolve_precision(config.precision, accelerator, bf16_pays=bf16_pays(network, plan.lr_scales.keys())),
        batch_size=config.batch_size_for(device_type, count),
    )
    evaluation_seconds = _move_and_check(network, accelerator, fit, count * config.epochs * folds)
    indices = fit.features.index[fit.train].tolist()
    processes = accelerator.num_processes
    images = ImageLoader(fit.dataset, indices, backbone.preprocess, options.compute.threads, processes)
    recorder = Recorder.of(config, network, accelerator.device)
    task = Task(network, images, fit.labels, fit.outputs, config, options.seed, accelerator, recorder)
    log = log if accelerator.is_main_process else _log_nothing
    setup = _Setup(fit, task, plan, _hash_settings(fit, config), log)
    duration = estimate_duration(task, folds, evaluation_seconds)
    epochs = duration.limit_epochs(config)
    resumed_epochs = _resumed_epochs(setup, folds)
    if resumed_epochs is not None:
        epochs = resumed_epochs
    where = device_name(accelerator.device) + (f" on {processes} processes" if processes > 1 else "")
    log(
        f"Fine-tuning from {plan.first_layer} in {config.precision} on {where}: "
        f"{count} images in {folds} folds, up to {folds + 1} trainings of {epochs} epochs in batches of "
        f"{config.batch_size}, about {duration.total(epochs):.0f} s"
    )
    return replace(setup, task=replace(task, config=replace(config, epochs=epochs)))


def _move_and_check(network: Network, accelerator: Accelerator, fit: FrozenFit[Any], images: int) -> float:
    """Move the network to its device, and check that it gives the frozen model's probabilities there.

    ``images`` are those of the trainings, each counted as often as it is trained on. Returns the seconds that the
    prediction of an image took. Raises BackboneError where it differs.
    """
    golden = fit.model.golden
    assert golden is not None
    network.fold(golden.pixels[:2])
    network.move(accelerator.device, images)
    return in_parts_that_fit(accelerator.device, partial(_check, network, accelerator.device, golden))


def _check(network: Network, device: torch.device, golden: GoldenSample, size: int) -> float:
    """Check that the network gives the golden sample's probabilities, ``size`` images at a time; time an image.

    On an accelerator all batches are full, as those of the evaluation are.
    """
    count = len(golden.pixels)
    rows = np.arange(count if device.type == "cpu" else -(-count // size) * size) % count
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]

    def check() -> None:
        for batch in batches:
            network.check_start(golden.pixels[batch], golden.probabilities[batch])

    if device.type != "cpu":
        check()  # loads all that the evaluation needs
    start = time.perf_counter()
    check()
    return (time.perf_counter() - start) / len(rows)


def device_name(device: torch.device) -> str:
    """Return what a person calls a device: "the processor", or the name of the accelerator."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (cuda)"
    return "the processor" if device.type == "cpu" else str(device.type)


def _hash_settings(fit: FrozenFit[Any], config: FineTuneConfig) -> str:
    """Return a hash of all that determines the result of a training."""
    settings = [
        config.to_dict(),
        fit.options.seed,
        fit.backbone.sha256,
        fit.labels.tolist(),
        fit.groups.tolist(),
    ]
    content_hashes = fit.features.content_hashes[fit.train].tobytes()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + content_hashes).hexdigest()


def _resumed_epochs(setup: _Setup, folds: int) -> int | None:
    """Return the number of epochs of the run to resume, None where there is none.

    A time limit may have lowered it then; all trainings of a run have the same.
    """
    config = setup.task.config
    if not config.resume or config.checkpoints is None:
        return None
    if not any(config.checkpoints.glob("*.json")):
        setup.log(f"There is no checkpoint in {config.checkpoints}: starting from the beginning")
        return None
    checkpoint = read_checkpoint(config.checkpoints, _file_name(_fold_name(0, folds)), setup.settings)
    return None if checkpoint is None else int(checkpoint[1]["epochs"])


def _cross_validate(setup: _Setup, folds: Sequence[Fold]) -> tuple[_HeldOutScores, dict[str, _Training]]:
    """Fit a head and train layers without each fold, and predict the fold with every alpha."""
    task, fit = setup.task, setup.fit
    shape = (len(task.labels), task.classes)
    scores = _HeldOutScores(np.zeros(shape), np.zeros((len(ALPHAS), *shape)), np.zeros(len(task.labels), np.int64))
    trainings = {}
    for number, (rows, held_out) in enumerate(folds):
        name = _fold_name(number, len(folds))
        head = fit.fit_head(rows)
        training = _train(setup, name, head, rows, held_out)
        trainings[name] = training
        frozen = head.scores(fit.features.matrix(head.taps, fit.train[held_out])).astype(np.float64)
        scores.frozen[held_out] = frozen / head.temperature
        scores.folds[held_out] = number
        for i, alpha in enumerate(ALPHAS):
            task.network.load_interpolated(training.start, training.end, alpha)
            scores.tuned[i, held_out] = predict(task, held_out)[0]
    return scores, trainings


def _train(setup: _Setup, name: str, head: Head, rows: Rows, held_out_rows: Rows = NO_ROWS) -> _Training:
    """Train from the pretrained weights and ``head`` on the images ``rows``, or continue from a checkpoint.

    ``held_out_rows`` are evaluated after every epoch, for the curves alone.
    """
    task = setup.task
    config, network = task.config, task.network
    network.set_head(head)
    plan = setup.plan.with_head_of(network)
    network.load_state_dict(plan.initial)
    start = _copy(changing_tensors(network, plan))
    validation_rows = rows[:0]
    if config.patience is not None:
        validation_rows = rows[holdout_groups(setup.fit.groups[rows], task.labels[rows], task.seed)]
    train_rows = np.setdiff1d(rows, validation_rows)
    state = State(optimizer=make_optimizer(network, plan, config))
    file_name = _file_name(name)
    if config.resume and config.checkpoints is not None:
        checkpoint = read_checkpoint(config.checkpoints, file_name, setup.settings)
        if checkpoint is not None:
            state.load_state_dict(network, *checkpoint)
            setup.log(f"{name}: continuing after epoch {len(state.history)}")
    is_main = task.accelerator.is_main_process
    with epoch_writer(config.tensorboard if is_main else None, file_name, len(state.history)) as write_events:
        for epoch in train(task, plan, train_rows, validation_rows, state, held_out_rows):
            if config.checkpoints is not None and is_main:
                tensors, values = state.state_dict(network, plan)
                values = {**values, "settings": setup.settings, "epochs": config.epochs}
                write_checkpoint(config.checkpoints, file_name, tensors, values)
            write_events(epoch)
            epochs_left = 0 if should_stop(state.history, config) else config.epochs - epoch.number
            setup.log(describe_epoch(name, epoch, config.epochs, epochs_left * epoch.seconds))
    return _Training(start, _copy(changing_tensors(network, plan)), tuple(state.history))


def describe_epoch(name: str, epoch: Epoch, epochs: int, seconds_left: float) -> str:
    """Describe an epoch of a training in one line."""
    low, high = epoch.interval
    validation = "" if epoch.validation_loss is None else f", validation loss {epoch.validation_loss:.3f}"
    held_out = "" if epoch.held_out_accuracy is None else f", on the fold left out {epoch.held_out_accuracy:.1%}"
    note = f"; {epoch.note}" if epoch.note else ""
    return (
        f"{name}, epoch {epoch.number} of {epochs}: loss {epoch.loss:.3f}{validation}, accuracy {epoch.accuracy:.1%} "
        f"[{low:.1%}, {high:.1%}]{held_out}, learning rate {epoch.learning_rate:.1e}, {epoch.seconds:.1f} s, "
        f"{seconds_left:.0f} s left{note}"
    )


def _held_out_ood_scores(setup: _Setup, folds: Sequence[Fold], trainings: Iterable[_Training], alpha: float) -> Array:
    """Compute the OOD score [n] of every image by the network and the images of the other folds."""
    task = setup.task
    scores = np.zeros(len(task.labels))
    for (rows, held_out), training in zip(folds, trainings, strict=True):
        task.network.load_interpolated(training.start, training.end, alpha)
        detector = _fit_ood(setup, predict(task, rows)[1], rows)
        scores[held_out] = detector.scores(predict(task, held_out)[1])
    return scores


def _fit_ood(setup: _Setup, vectors: NDArray[np.floating], rows: Rows) -> OodDetector:
    """Fit an OOD detector to the vectors [m, d], the head's taps side by side, of the training images ``rows`` [m].

    As in a fit, it looks at the deepest tap alone.
    """
    network = setup.task.network
    channels = {tap.name: tap.channels for tap in network.backbone.taps}
    deepest = network.head_taps[-1]
    width = sum(channels[tap] for tap in network.head_taps[:-1])
    # The detector looks at no label.
    training_set = TrainingSet.of({deepest: vectors[:, width:]}, np.zeros_like(rows), setup.fit.groups[rows])
    return fit_ood(Eigenbasis.of(training_set.vectors((deepest,)))).behind(width)


def _export(setup: _Setup, scores: Array, ood_scores: Array, record: FineTuningRecord) -> Tuned:
    """Export the network as it is now; ``scores`` [n, k] and ``ood_scores`` [n] are held-out predictions."""
    fit, network = setup.fit, setup.task.network
    head = network.to(memory_format=torch.contiguous_format).get_head(fit.head, 1.0)
    golden = fit.model.golden
    assert golden is not None
    backbone = network.export(setup.plan.initial, golden.pixels)
    features = embed(fit.dataset, backbone, fit.options.compute, by_content=True)
    if not np.array_equal(features.index, fit.features.index):
        raise DataError(f"The images of {fit.dataset.uri} changed while they were read; fit again.")
    ood = _fit_ood(setup, features.matrix(head.taps, fit.train), np.arange(len(fit.labels)))
    # In run.json times and cache hits stay those of the fit; the record has the seconds of the fine-tuning.
    frozen = fit.features
    features = replace(features, hits=frozen.hits, misses=frozen.misses, seconds=frozen.seconds)
    return Tuned(head, backbone, features, ood, scores, ood_scores, record)


def _describe(setup: _Setup, verdict: AnyVerdict, trainings: Mapping[str, _Training], seconds: float) -> dict[str, Any]:
    """Return what ``run.json`` tells of a fine-tuning."""
    return {
        "kept": "fine-tuned" if verdict.is_better else "frozen",
        "why": str(verdict),
        "unfrozen_from": setup.plan.first_layer,
        **verdict.to_dict(),
        "options": setup.task.config.to_dict(),
        "seconds": seconds,
        "trainings": {name: training.to_dict() for name, training in trainings.items()},
    }


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def _fold_name(number: int, folds: int) -> str:
    return f"fold {number + 1} of {folds}"


def _file_name(training: str) -> str:
    """Return the name of a training in the names of its checkpoint and of its folder of event files."""
    return training.replace(" ", "-")


def _log_nothing(_: str) -> None:
    """Take the place of ``log`` in all processes but the main one."""
