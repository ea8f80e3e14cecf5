"""One step of fine-tuning MobileNetV2 at 224, 16 pictures: precision, memory format, ``torch.compile``.

    python benchmarks/fine_tune_step.py [--runs 15] [--compile]

Steps of all ways take turns. Seconds are processor time of one thread, since wall time says little on a busy machine.
``first`` is the first step, which compiles where that is wanted (compilers in processes of their own are not counted).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from fine_tune import BACKBONE, HALF
from measure import shared, table

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.finetune import FineTuneConfig
from headstart.finetune.freeze import make_plan, set_mode
from headstart.finetune.loop import make_optimizer
from headstart.finetune.network import Network
from headstart.finetune.precision import MixedPrecision
from headstart.heads.head import Head

PICTURES = 16


def stepping(network: Network, config: FineTuneConfig, compiled: bool) -> Callable[[], float]:
    """A function that makes a step and gives its seconds."""
    plan = make_plan(network, config)
    set_mode(network, plan, training=True)
    optimizer, precision = make_optimizer(network, plan, config), MixedPrecision.of(config.precision, "cpu")
    parameters = [each for each in network.parameters() if each.requires_grad]
    pre = network.backbone.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURES, pre.height, pre.width, 3)).astype(np.uint8)
    truth = torch.arange(PICTURES) % 2
    vectors = torch.compile(network.vectors) if compiled else network.vectors

    def step() -> float:
        began = time.process_time()
        network.zero_grad()
        with precision.autocast():
            found = vectors(torch.from_numpy(pixels))
        precision.backward(torch.nn.functional.cross_entropy(network.scores(found), truth))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return time.process_time() - began

    return step


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    options = InputOptions(weights=str(weights), mean=HALF, std=HALF)
    backbone = backbones.load(BACKBONE, options=options)
    head = Head("ridge", ("features",), np.full((backbone.taps[-1].channels, 2), 0.01, np.float32),
                np.zeros(2, np.float32), 1.0)  # fmt: skip
    for where in (None, "all"):
        ways, first = {}, {}
        for precision in ("fp32", "bf16"):
            for layout in (torch.contiguous_format, torch.channels_last):
                for compiled in (False, True) if given.compile and layout is torch.channels_last else (False,):
                    network = Network(backbone, options, head).to(memory_format=layout)
                    name = (precision, str(layout).removeprefix("torch."), compiled)
                    ways[name] = stepping(network, FineTuneConfig(unfreeze_from=where, precision=precision), compiled)
                    first[name] = ways[name]()
                    ways[name]()
        spent: dict = {name: [] for name in ways}
        for _ in range(given.runs):
            for name, step in ways.items():
                spent[name].append(step())
        table([{"trained": where or "last two stages", "precision": name[0], "weights": name[1],
                "compiled": "yes" if name[2] else "", "median ms": 1e3 * median(times), "least ms": 1e3 * min(times),
                "first s": first[name]} for name, times in spent.items()])  # fmt: skip
