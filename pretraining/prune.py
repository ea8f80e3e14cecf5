"""The student's first weights: the teacher's, with the hidden channels that matter least taken out.

Block by block, on real pictures. A block's output is linear in its filtered hidden channels, so the error of
leaving channels out, the projection solved anew by least squares, is known exactly: with G the Gram matrix of
the hidden channels and W the projection, taking out channel j costs |W_j|^2 / (G^-1)_jj (Hassibi, Stork 1993,
"Optimal brain surgeon", for a linear layer). Channels go one by one, the cheapest first. The block reads what
the pruned student gives it and aims at the teacher's map, so a block also mends what those before it broke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from student import TEACHER_BLOCKS, Block, Part, Student
from torch import Tensor

CHUNK = 64
RIDGE = 3e-3  # of the mean diagonal of the Gram matrix: pulls the projection to the teacher's own
ROWS = 400_000  # places in the maps that a block's statistics are taken from, at the least 512 pictures

Weights = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def choose(gram: NDArray[np.float64], cross: NDArray[np.float64], keep: int, near=None):
    """Indices of the channels kept, their projection and its bias.

    ``gram`` [c+1, c+1] of the hidden channels and a constant 1; ``cross`` [c+1, outputs] with the aim;
    ``near`` [outputs, c] is the projection that the solution is pulled to (zero if not given). Without it
    deep blocks, which have few places a picture, fit the pictures they are solved on and no other.
    """
    c = len(gram) - 1
    alive = np.ones(c + 1, bool)
    ridge = RIDGE * np.trace(gram[:c, :c]) / c
    inverse = np.linalg.inv(gram + np.diag(np.r_[np.full(c, ridge), 0]))
    weights = inverse @ (cross if near is None else cross + ridge * np.r_[near.T, np.zeros((1, len(near)))])
    for _ in range(c - keep):
        diagonal = np.where(alive, inverse.diagonal(), 1)
        cost = np.where(alive, (weights**2).sum(axis=1) / diagonal, np.inf)
        cost[c] = np.inf  # the constant stays
        j = int(cost.argmin())
        column = inverse[:, j] / inverse[j, j]
        weights -= np.outer(column, weights[j])
        inverse -= np.outer(column, inverse[j])
        alive[j] = False
        weights[j] = 0
        inverse[j] = inverse[:, j] = 0
    kept = np.flatnonzero(alive[:c])
    return kept, weights[kept].T, weights[c]


def layers(block: str) -> tuple[str, str, str]:
    """The teacher's names for a block's three convolutions."""
    if block == "0.0":
        return "conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw"
    return tuple(f"blocks.{block}.conv_{kind}" for kind in ("pw", "dw", "pwl"))  # type: ignore[return-value]


@torch.no_grad()
def fill(block: Block, part: Part, weights: Weights, keep: NDArray[np.int64], project, bias) -> None:
    """The teacher's channels ``keep`` and the projection given, into an unnormalised block."""
    expand, filter_, _ = layers(part.source)
    for unit, name in ((block.expand, expand), (block.filter, filter_)):
        unit.conv.weight.copy_(torch.from_numpy(weights[name][0][keep]))
        unit.conv.bias.copy_(torch.from_numpy(weights[name][1][keep]))
    block.project.conv.weight.copy_(torch.as_tensor(project)[:, :, None, None])
    block.project.conv.bias.copy_(torch.as_tensor(bias))


@torch.no_grad()
def prune(student: Student, weights: Weights, pixels: Tensor, targets: Mapping[str, Tensor], say=print) -> None:
    """Fill ``student`` (no batch norm); the last tenth of the pictures only measures.

    ``targets``: teacher block -> its map on ``pixels`` [n, 3, h, w].
    """
    x, fit = pixels, len(pixels) - len(pixels) // 10
    for part, block in zip(student.parts, student.blocks(), strict=True):
        full_width = TEACHER_BLOCKS[part.source][1]
        relu6 = block.expand.relu6
        full = Block(Part(part.source, part.target, full_width), norm=False, relu6=relu6)
        weight, bias = weights[layers(part.source)[2]]
        everything = np.arange(full_width)
        fill(full, part, weights, everything, weight[:, :, 0, 0], bias)
        target = targets[part.target]
        if part.hidden < full_width or part.source != part.target:
            count = max(512, ROWS // (target.shape[2] * target.shape[3]))
            gram, cross = _statistics(full, x[:fit][:count], target[:fit][:count])
            kept, weight, bias = choose(gram, cross, part.hidden, weight[:, :, 0, 0])
            fill(block, part, weights, kept, weight, bias)
        else:
            block.load_state_dict(full.state_dict())
        x = torch.cat([block(piece) for piece in x.split(CHUNK)])
        new, aim = (x[fit:], target[fit:]) if fit < len(x) else (x, target)
        error = float(((new - aim) ** 2).mean() / aim.var(dim=(0, 2, 3)).mean())
        say(f"block {part.source}: {part.hidden} of {full_width} channels, error {error:.3f}")
    head = student.stages[4][0].conv
    head.weight.copy_(torch.from_numpy(weights["conv_head"][0]))
    head.bias.copy_(torch.from_numpy(weights["conv_head"][1]))


def _statistics(full: Block, x: Tensor, target: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gram = cross = 0.0
    for inputs, wanted in zip(x.split(CHUNK), target.split(CHUNK), strict=True):
        hidden = full.filter(full.expand(inputs))
        aim = wanted - inputs if full.residual else wanted
        rows = hidden.permute(0, 2, 3, 1).reshape(-1, hidden.shape[1])
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
        gram = gram + (rows.T @ rows).double().numpy()
        cross = cross + (rows.T @ aim.permute(0, 2, 3, 1).reshape(len(rows), -1)).double().numpy()
    return gram, cross  # type: ignore[return-value]


def parts_with_targets(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(part.target for part in parts))
