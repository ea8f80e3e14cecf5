"""Batches of images on the device that trains: transferred, and on an accelerator augmented and mixed there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from headstart.finetune.image_loader import Views
from headstart.finetune.mixing import Mix


def pinned(pixels: NDArray[np.uint8]) -> Tensor:
    """Return pixels as a tensor in memory from which CUDA copies while it computes."""
    return torch.from_numpy(pixels).pin_memory()


def to_device(values: Any, device: torch.device) -> Tensor:
    """Return an array or a tensor on a device; from pinned memory it arrives while this thread goes on."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    return tensor.to(device, non_blocking=True)


def warp_batch(pixels: Tensor, views: Views, rows: NDArray[np.int64]) -> Tensor:
    """Return the views of the images ``rows`` [b], whose uint8 pixels [b, height, width, 3] are given, on their device.

    The same as ``Views.apply`` for each, but for rounding: bilinear, with the edge repeated outside.
    """
    count, height, width, _ = pixels.shape
    # From the column, row and 1 of the view to the column and row of the image, both from -1 to 1.
    matrices = views.matrices[rows][:, (1, 0), :][:, :, (1, 0, 2)]
    mirror = np.where(views.is_mirrored[rows], -1.0, 1.0)
    half = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = matrices[:, :, :2] * half / half[:, None]
    offset = (matrices[:, :, 2] + matrices[:, :, :2] @ half) / half - 1
    linear[:, :, 0] *= mirror[:, None]
    theta = torch.from_numpy(np.concatenate([linear, offset[:, :, None]], 2).astype(np.float32)).to(pixels.device)
    grid = torch.nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=True)
    images = pixels.permute(0, 3, 1, 2).float()
    sampled = grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)
    # Pillow rounds down; the small number is for values that are whole but for rounding.
    return (sampled + 1e-3).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def mix_batch(mix: Mix, images: Tensor, partners: Tensor) -> Tensor:
    """Return images [b, height, width, 3] uint8 with their partners, in the same order, mixed into them.

    Mixup rounds the weighted mean to the nearest level; cutmix copies the box. On any device.
    """
    if mix.box is None:
        return (mix.lam * images.float() + (1 - mix.lam) * partners.float()).round().to(torch.uint8)
    top, left, bottom, right = mix.box
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = partners[:, top:bottom, left:right]
    return mixed
