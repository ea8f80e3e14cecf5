"""The gradients of one batch. On CUDA the passes through the network are recorded once and replayed.

A network of small layers is a thousand kernels, whose launches one by one take longer than the kernels: a CUDA graph
launches them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headstart.errors import BackboneError
from headstart.finetune.losses import correct_predictions, image_losses
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuneConfig
from headstart.finetune.precision import MixedPrecision

WARM_UP_PASSES = 2  # before a recording, in which libraries choose and load their kernels


@dataclass(frozen=True)
class LocalBatch:
    """The part of a batch that this process computes: pixels [b, height, width, 3] and labels, on the device.

    ``labels`` are those of ``losses.image_losses``. ``lam`` [] is their weight; ``partner_labels``, those of the images
    that were mixed in, have the rest (None: nothing is mixed). ``size`` is the number of images in the batch of all
    processes.
    """

    pixels: Tensor
    labels: Tensor
    partner_labels: Tensor | None
    lam: Tensor
    size: int

    def part(self, start: int, end: int) -> LocalBatch:
        """Return the images from ``start`` to ``end``."""
        partner_labels = None if self.partner_labels is None else self.partner_labels[start:end]
        return LocalBatch(self.pixels[start:end], self.labels[start:end], partner_labels, self.lam, self.size)


@dataclass(frozen=True)
class Loss:
    """The loss: its precision, its weight of each class [k], and its label smoothing."""

    precision: MixedPrecision
    class_weights: Tensor
    label_smoothing: float


@dataclass
class Recording:
    """Forward and backward pass of the trained ``parameters`` for batches up to a size, as a CUDA graph.

    ``inputs``, ``is_image`` [b] (which images of the batch count) and ``class_weights`` [k] are the tensors that it
    reads; it writes ``gradients``, ``loss`` and ``correct``.
    """

    graph: Any
    parameters: tuple[Tensor, ...]
    inputs: LocalBatch
    is_image: Tensor
    class_weights: Tensor
    gradients: tuple[Tensor, ...]
    loss: Tensor
    correct: Tensor

    def replay(self, batch: LocalBatch, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; return the sum of its losses and how many predictions are correct."""
        count = len(batch.labels)
        self.inputs.pixels[:count].copy_(batch.pixels)
        self.inputs.labels[:count].copy_(batch.labels)
        if self.inputs.partner_labels is not None and batch.partner_labels is not None:
            self.inputs.partner_labels[:count].copy_(batch.partner_labels)
        self.inputs.lam.copy_(batch.lam)
        self.class_weights.copy_(class_weights)
        self.is_image.zero_()
        self.is_image[:count] = 1
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            # The recording divides by the size of a full batch.
            parameter.grad = gradient if batch.size == self.inputs.size else gradient * (self.inputs.size / batch.size)
        return self.loss.clone(), self.correct.clone()


@dataclass
class Recorder:
    """The last recording, which the folds share. Without ``is_possible`` there is none."""

    is_possible: bool = False
    recording: Recording | None = None

    @classmethod
    def of(cls, config: FineTuneConfig, network: Network, device: torch.device) -> Recorder:
        """Return one that records on CUDA where batch norms keep their statistics, in fp32 and bf16, layers of PyTorch.

        The precision of ``config`` is resolved.
        """
        keeps_statistics = config.batch_norm == "frozen"
        is_recorded = keeps_statistics and config.precision != "fp16" and network.provider != "keras"
        return cls(is_possible=device.type == "cuda" and is_recorded)

    def recording_for(
        self, network: Network, batch: LocalBatch, loss: Loss, parameters: Sequence[Tensor], size: tuple[int, int]
    ) -> Recording | None:
        """Return a recording for batches of up to so many images in this process and in all, if it is possible."""
        if not self.is_possible:
            return None
        if self.recording is not None and _is_same(self.recording, batch, parameters, size):
            return self.recording
        self.recording = None
        try:
            self.recording = _record(network, batch, loss, parameters, size)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # an operation that cannot be recorded, one that waits for the device, say
            self.is_possible = False
            torch.cuda.synchronize()
        return self.recording


def compute_gradients(
    network: Network, batch: LocalBatch, loss: Loss, micro_batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of the parts of a batch; return the sum of its losses and how many are correct.

    Both are on the device. ``micro_batch_size`` images at a time go through the network (None: all).
    """
    network.zero_grad()
    count = len(batch.labels)
    size = micro_batch_size or max(1, count)
    total, correct = torch.zeros((), device=batch.pixels.device), torch.zeros((), device=batch.pixels.device)
    for start in range(0, count, size):
        part = batch.part(start, start + size)
        is_image = torch.ones(len(part.labels), device=batch.pixels.device)
        part_loss, part_correct = _pass(network, part, is_image, loss, loss.precision.autocast())
        total, correct = total + part_loss, correct + part_correct
    return total, correct


def out_of_memory() -> BackboneError:
    """Build the error for a device whose memory is too small for a single image."""
    return BackboneError("The memory here is too small to train on one image at a time; unfreeze fewer layers.")


def _pass(
    network: Network, batch: LocalBatch, is_image: Tensor, loss: Loss, autocast: AbstractContextManager[Any]
) -> tuple[Tensor, Tensor]:
    """Add the gradients of images to those of the parameters; return the sum of losses and of correct predictions.

    A mixed image is correct if predicted as what it is most.
    """
    with autocast:
        vectors = network.vectors(batch.pixels)
    scores = network.scores(vectors)

    def summed(labels: Tensor) -> Tensor:
        return (image_losses(scores, labels, loss.class_weights, loss.label_smoothing) * is_image).sum()

    total, main_labels = summed(batch.labels), batch.labels
    if batch.partner_labels is not None:
        total = batch.lam * total + (1 - batch.lam) * summed(batch.partner_labels)
        main_labels = torch.where(batch.lam >= 0.5, batch.labels, batch.partner_labels)
    loss.precision.backward(total / batch.size)
    return total.detach(), (correct_predictions(scores.detach(), main_labels) * is_image).sum()


def _is_same(recording: Recording, batch: LocalBatch, parameters: Sequence[Tensor], size: tuple[int, int]) -> bool:
    return (
        len(recording.parameters) == len(parameters)
        and all(a is b for a, b in zip(recording.parameters, parameters, strict=True))
        and (len(recording.is_image), recording.inputs.size) == size
        and (recording.inputs.partner_labels is None) == (batch.partner_labels is None)
    )


def _record(
    network: Network, batch: LocalBatch, loss: Loss, parameters: Sequence[Tensor], size: tuple[int, int]
) -> Recording:
    """Record both passes on tensors for so many images in this process and in all."""
    capacity, all_images = size

    def grown(values: Tensor) -> Tensor:
        return values.new_zeros((capacity, *values.shape[1:]))

    partner_labels = None if batch.partner_labels is None else grown(batch.partner_labels)
    inputs = LocalBatch(grown(batch.pixels), grown(batch.labels), partner_labels, batch.lam.clone(), all_images)
    loss = replace(loss, class_weights=loss.class_weights.clone())
    is_image = torch.ones(capacity, device=batch.pixels.device)

    def run() -> tuple[Tensor, Tensor]:
        network.zero_grad(set_to_none=True)
        # Casts of weights must be part of the recording, so none is taken from a cache.
        return _pass(network, inputs, is_image, loss, loss.precision.autocast(cache=False))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_PASSES):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    network.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        total, correct = run()
    gradients = tuple(parameter.grad for parameter in parameters)
    return Recording(graph, tuple(parameters), inputs, is_image, loss.class_weights, gradients, total, correct)
