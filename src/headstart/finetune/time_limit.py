"""How long a fine-tuning will take, and how many epochs fit into a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from headstart.errors import OptionError
from headstart.finetune.gradients import Loss
from headstart.finetune.loop import Rows, State, Task, compute_step_gradients, local_batches
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import MixedPrecision
from headstart.finetune.verdict import ALPHAS

TIMED_IMAGES = 4  # of a training on a processor


@dataclass(frozen=True)
class Duration:
    """Expected seconds of a fine-tuning: for one epoch of every training, and for all evaluations."""

    epoch: float
    evaluation: float

    def total(self, epochs: int) -> float:
        """The seconds of so many epochs."""
        return self.epoch * epochs + self.evaluation

    def limit_epochs(self, config: FineTuneConfig) -> int:
        """Return how many of ``config.epochs`` fit into ``config.time_limit``. Raises OptionError for less than one."""
        if config.time_limit is None:
            return config.epochs
        epochs = min(config.epochs, max(0, int((config.time_limit - self.evaluation) / self.epoch)))
        if epochs < 1:
            raise OptionError(
                f"One epoch takes about {self.total(1):.0f} s in all, more than the limit of {config.time_limit:g} s; "
                "allow more, or unfreeze less."
            )
        return epochs


def time_training(task: Task, rows: Rows) -> float:
    """Measure the seconds in which the gradients of the images ``rows`` are computed; they are discarded."""
    start = time.perf_counter()
    precision = MixedPrecision.of(task.config.precision, task.device.type)
    loss = Loss(precision, torch.ones(task.classes, device=task.device), task.config.label_smoothing)
    parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    [batch] = local_batches(task, [rows], 0)
    total, _ = compute_step_gradients(task, batch, loss, parameters, State())
    float(total)  # waits for the device
    task.network.zero_grad()
    return time.perf_counter() - start


def time_decoding(task: Task, rows: Rows) -> float:
    """Measure the seconds in which the images ``rows`` are decoded, by as many threads as a training has."""
    start = time.perf_counter()
    for _ in task.images.batches([rows]):
        pass
    return time.perf_counter() - start


def estimate_duration(
    task: Task,
    folds: int,
    evaluation_seconds: float,
    time_training: Callable[[Task, Rows], float] = time_training,
    time_decoding: Callable[[Task, Rows], float] = time_decoding,
) -> Duration:
    """Estimate the duration of a cross-validation and a training on all images.

    ``evaluation_seconds`` is how long the prediction of an image takes. Training is timed on few images on a processor,
    where a batch takes a noticeable part of an epoch, and on a batch on an accelerator, which records it then. Images
    are decoded once, but for those that memory does not hold, which are decoded whenever they are used: while others
    are trained on, but a processor does either. Each of several processes decodes its part of a batch, and in time
    nearly all images once. Raises BackboneError where memory is too small for one image.
    """
    count, processes = len(task.labels), task.accelerator.num_processes
    timed = min(task.batch_size, count)
    if task.device.type == "cpu":
        timed = min(timed, TIMED_IMAGES * processes)
    rows = np.arange(timed)
    is_own = rows % processes == task.accelerator.process_index
    own, others = (time_decoding(task, part) / timed for part in (rows[is_own], rows[~is_own]))
    time_training(task, rows)  # to warm up
    seconds = time_training(task, rows) / timed
    kept = task.images.kept_share

    def with_decoding(seconds: float, decoding: float) -> float:
        again = decoding * (1 - kept)
        return seconds + again if task.device.type == "cpu" else max(seconds, again)

    evaluation = with_decoding(evaluation_seconds, own + others)  # each process predicts all images
    evaluations = len(ALPHAS) + folds  # of every image: with each alpha, and for the OOD scores
    # Each image is trained on in all folds but one, and in the training on all images: ``folds`` times in each epoch.
    # In its own fold it is predicted in each epoch.
    per_image = [
        with_decoding(seconds, own) * folds + evaluation,
        evaluation * evaluations + (own + others) * kept,
    ]
    if processes > 1:
        broadcast_object_list(per_image)  # so that all processes make the same number of epochs
    return Duration(per_image[0] * count, per_image[1] * count)
