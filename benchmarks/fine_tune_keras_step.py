"""A training step of Keras' MobileNetV2 on its PyTorch backend beside timm's: processor seconds of one thread.

    python benchmarks/fine_tune_keras_step.py [--runs 9]

The same shared weights, 224 x 224, batches of 16 images of ants-bees; forward and backward of the last two stages and
of all layers, in fp32 and bf16; medians of steps that take turns. Needs the extras ``torch``, ``timm`` and ``keras``.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch
from fine_tune import BACKBONE, HALF
from measure import alternating_medians, parse_runs, print_table, shared
from torch import Tensor
from torch.nn.functional import cross_entropy

import headstart as hs
from headstart.finetune import FineTuneConfig
from headstart.finetune.freeze import make_plan
from headstart.finetune.image_loader import ImageLoader
from headstart.finetune.network import Network
from headstart.finetune.precision import MixedPrecision
from headstart.machine import cores

BATCH_SIZE = 16
LAYERS = {"last two stages": None, "all": "all"}  # unfreeze_from
PRECISIONS = ("fp32", "bf16")


def load(backbone: str, options: hs.InputOptions) -> tuple[Network, Tensor]:
    """Return the network with the head of a fit to ants-bees, and the first batch of its images."""
    fit_options = hs.FitOptions(backbone, options, cut="features", head="ridge")
    result = hs.fit_dataset(hs.open_dataset(shared() / "data" / "ants-bees"), fit_options)
    network = Network(result.data.backbone, options, result.selected.head).to(memory_format=torch.channels_last)
    images = ImageLoader(result.data.dataset, range(BATCH_SIZE), result.data.backbone.preprocess, cores())
    _, pixels = next(images.batches([np.arange(BATCH_SIZE)]))
    return network, torch.from_numpy(pixels)


def time_step(network: Network, pixels: Tensor, unfreeze_from: str | None, precision: str) -> float:
    """Return the processor seconds of one forward and backward pass."""
    make_plan(network, FineTuneConfig(unfreeze_from=unfreeze_from))
    mixed_precision = MixedPrecision.of(precision, "cpu")
    start = time.process_time()
    with mixed_precision.autocast():
        vectors = network.vectors(pixels)
    cross_entropy(network.scores(vectors), torch.arange(BATCH_SIZE) % 2).backward()
    seconds = time.process_time() - start
    network.zero_grad()
    return seconds


def main() -> None:
    runs = parse_runs(__doc__, default=9)
    torch.set_num_threads(1)
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    networks = {
        "timm": load(BACKBONE, hs.InputOptions(weights=str(weights), mean=HALF, std=HALF)),
        "keras": load("keras:MobileNetV2", hs.InputOptions(weights=str(weights.with_suffix(".weights.h5")))),
    }
    cases = {
        f"{name} {layers} {precision}": partial(time_step, network, pixels, unfreeze_from, precision)
        for layers, unfreeze_from in LAYERS.items()
        for precision in PRECISIONS
        for name, (network, pixels) in networks.items()
    }
    seconds = alternating_medians(runs, cases)
    print_table(
        [
            {
                "layers": layers,
                "precision": precision,
                **{name: seconds[f"{name} {layers} {precision}"] for name in networks},
            }
            for layers in LAYERS
            for precision in PRECISIONS
        ]
    )


if __name__ == "__main__":
    main()
