"""The student's initial weights: those of the teacher, without the hidden channels that matter least.

Block by block, on real images. A block's output is linear in its filtered hidden channels, so the error of removing
channels, with the projection solved anew by least squares, is known exactly: with G the Gram matrix of the hidden
channels and W the projection, removing channel j costs |W_j|^2 / (G^-1)_jj (Hassibi & Stork 1993, "Optimal brain
surgeon", for a linear layer). Channels are removed one at a time, the cheapest first. A block takes the output of the
pruned student as its input and is fitted to the teacher's map, so it also corrects the errors of the blocks before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from student import TEACHER_BLOCKS, Block, BlockSpec, Student
from torch import Tensor

CHUNK_SIZE = 64  # images
RIDGE = 3e-3  # times the mean diagonal of the Gram matrix: pulls the projection to the teacher's
POSITIONS = 400_000  # of the maps, from which a block's statistics are taken
MIN_IMAGES = 512  # from which they are taken at least

Array = NDArray[np.float64]
Weights = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def choose_channels(
    gram: Array, cross: Array, count: int, prior: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.int64], Array, Array]:
    """Choose ``count`` channels; return their indices, their projection [outputs, count] and its bias [outputs].

    ``gram`` [c+1, c+1] is that of the hidden channels and a constant 1, ``cross`` [c+1, outputs] their products with
    the target. ``prior`` [outputs, c] is the projection to which the solution is pulled (zero by default). Without it
    deep blocks, whose maps have few positions, overfit the images that they are solved on.
    """
    channels = len(gram) - 1
    is_kept = np.ones(channels + 1, bool)
    ridge = RIDGE * np.trace(gram[:channels, :channels]) / channels
    inverse = np.linalg.inv(gram + np.diag(np.r_[np.full(channels, ridge), 0]))
    if prior is not None:
        cross = cross + ridge * np.r_[prior.T, np.zeros((1, len(prior)))]
    weights = inverse @ cross
    for _ in range(channels - count):
        diagonal = np.where(is_kept, inverse.diagonal(), 1)
        cost = np.where(is_kept, (weights**2).sum(axis=1) / diagonal, np.inf)
        cost[channels] = np.inf  # the constant stays
        j = int(cost.argmin())
        column = inverse[:, j] / inverse[j, j]
        weights -= np.outer(column, weights[j])
        inverse -= np.outer(column, inverse[j])
        is_kept[j] = False
        weights[j] = 0
        inverse[j] = inverse[:, j] = 0
    kept = np.flatnonzero(is_kept[:channels])
    return kept, weights[kept].T, weights[channels]


def teacher_layers(block: str) -> tuple[str, str, str]:
    """Return the teacher's names of a block's three convolutions."""
    if block == "0.0":
        return "conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw"
    return f"blocks.{block}.conv_pw", f"blocks.{block}.conv_dw", f"blocks.{block}.conv_pwl"


@torch.no_grad()
def load_channels(
    block: Block, source: str, weights: Weights, channels: NDArray[np.int64], projection: Array, bias: Array
) -> None:
    """Load ``channels`` of the teacher's block ``source``, and a projection, into a block without batch norm."""
    expand, filter_, _ = teacher_layers(source)
    for unit, name in ((block.expand, expand), (block.filter, filter_)):
        unit.conv.weight.copy_(torch.from_numpy(weights[name][0][channels]))
        unit.conv.bias.copy_(torch.from_numpy(weights[name][1][channels]))
    block.project.conv.weight.copy_(torch.as_tensor(projection)[:, :, None, None])
    block.project.conv.bias.copy_(torch.as_tensor(bias))


def teacher_block(spec: BlockSpec, weights: Weights, activation: str) -> Block:
    """Return the teacher's block with all its channels."""
    hidden = TEACHER_BLOCKS[spec.source][1]
    block = Block(BlockSpec(spec.source, spec.target, hidden), norm=False, activation=activation)
    projection, bias = weights[teacher_layers(spec.source)[2]]
    load_channels(block, spec.source, weights, np.arange(hidden), projection[:, :, 0, 0], bias)
    return block


@torch.no_grad()
def prune(
    student: Student,
    weights: Weights,
    pixels: Tensor,
    targets: Mapping[str, Tensor],
    say: Callable[[str], None] = print,
) -> None:
    """Load pruned weights into ``student`` (without batch norm); the last tenth of the images only measures the error.

    ``pixels`` is [n, 3, h, w]; ``targets`` maps the teacher's blocks to their maps.
    """
    x, fitted = pixels, len(pixels) - len(pixels) // 10
    for spec, block in zip(student.specs, student.blocks(), strict=True):
        full = teacher_block(spec, weights, block.activation)
        full_hidden = TEACHER_BLOCKS[spec.source][1]
        target = targets[spec.target]
        if spec.hidden < full_hidden or spec.source != spec.target:
            count = max(MIN_IMAGES, POSITIONS // (target.shape[2] * target.shape[3]))
            gram, cross = _statistics(full, x[:fitted][:count], target[:fitted][:count])
            prior = weights[teacher_layers(spec.source)[2]][0][:, :, 0, 0]
            channels, projection, bias = choose_channels(gram, cross, spec.hidden, prior)
            load_channels(block, spec.source, weights, channels, projection, bias)
        else:
            block.load_state_dict(full.state_dict())
        x = torch.cat([block(chunk) for chunk in x.split(CHUNK_SIZE)])
        output, expected = (x[fitted:], target[fitted:]) if fitted < len(x) else (x, target)
        error = float(((output - expected) ** 2).mean() / expected.var(dim=(0, 2, 3)).mean())
        say(f"block {spec.source}: {spec.hidden} of {full_hidden} channels, error {error:.3f}")
    head = student.stages[4][0].conv
    head.weight.copy_(torch.from_numpy(weights["conv_head"][0]))
    head.bias.copy_(torch.from_numpy(weights["conv_head"][1]))


def _statistics(full: Block, x: Tensor, target: Tensor) -> tuple[Array, Array]:
    """Return the Gram matrix of the hidden channels and a constant, and their products with the target."""
    gram = cross = 0.0
    for inputs, outputs in zip(x.split(CHUNK_SIZE), target.split(CHUNK_SIZE), strict=True):
        hidden = full.filter(full.expand(inputs))
        residual = outputs - inputs if full.is_residual else outputs
        rows = hidden.permute(0, 2, 3, 1).reshape(-1, hidden.shape[1])
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
        gram = gram + (rows.T @ rows).double().numpy()
        cross = cross + (rows.T @ residual.permute(0, 2, 3, 1).reshape(len(rows), -1)).double().numpy()
    return gram, cross  # type: ignore[return-value]


def target_blocks(blocks: Sequence[BlockSpec]) -> list[str]:
    """Return the teacher's blocks whose maps are needed, in order."""
    return list(dict.fromkeys(spec.target for spec in blocks))
