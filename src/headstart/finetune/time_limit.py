"""How long a fine-tuning will take, and how many epochs fit into a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.nn.functional import cross_entropy

from headstart.errors import OptionError
from headstart.finetune.loop import Rows, Task, out_of_memory, predict
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import MixedPrecision
from headstart.finetune.verdict import ALPHAS


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
    device = task.accelerator.device
    precision = MixedPrecision.of(task.config.precision, device.type)
    for batch_rows, pixels in task.images.batches([rows]):
        with precision.autocast():
            vectors = task.network.vectors(torch.from_numpy(pixels).to(device))
        labels = torch.from_numpy(task.labels[batch_rows]).to(device)
        cross_entropy(task.network.scores(vectors), labels).backward()
    task.network.zero_grad()
    return time.perf_counter() - start


def estimate_duration(task: Task, folds: int, time_training: Callable[[Task, Rows], float] = time_training) -> Duration:
    """Estimate the duration of a cross-validation and a training on all images from one batch.

    Where memory is too small for the batch, a part of it is timed. Raises BackboneError where it is too small for one
    image.
    """
    count, processes = len(task.labels), task.accelerator.num_processes
    rows = np.arange(min(task.config.batch_size, count))
    while True:
        try:
            time_training(task, rows)  # to warm up
            seconds = time_training(task, rows)
            break
        except torch.OutOfMemoryError:
            if len(rows) < 2:
                raise out_of_memory() from None
            rows = rows[: len(rows) // 2]
    start = time.perf_counter()
    predict(task, rows)
    evaluation_seconds = time.perf_counter() - start
    evaluations = len(ALPHAS) + folds  # of every image: with each alpha, and for the OOD scores
    # Each image is trained on in all folds but one, and in the training on all images: ``folds`` times in each epoch.
    # In its own fold it is predicted in each epoch.
    per_image = [
        seconds / len(rows) / processes * folds + evaluation_seconds / len(rows),
        evaluation_seconds / len(rows) * evaluations,
    ]
    if processes > 1:
        broadcast_object_list(per_image)  # so that all processes make the same number of epochs
    return Duration(per_image[0] * count, per_image[1] * count)
