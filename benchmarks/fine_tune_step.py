"""One step of fine-tuning MobileNetV2 at 224, 16 images: precision, memory format, ``torch.compile``.

    python benchmarks/fine_tune_step.py [--runs 15] [--compile]

Steps of all settings take turns. Seconds are processor time of one thread, since wall time says little on a busy
machine. "first s" is the first step, which compiles where that is asked for (compilers in processes of their own are
not counted).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from fine_tune import BACKBONE, HALF
from measure import print_table, shared
from torch.nn.functional import cross_entropy

from headstart import InputOptions, backbones
from headstart.backbones import Backbone
from headstart.finetune import FineTuneConfig
from headstart.finetune.freeze import make_plan, set_mode
from headstart.finetune.loop import make_optimizer
from headstart.finetune.network import Network
from headstart.finetune.precision import MixedPrecision
from headstart.heads.head import Head

IMAGES = 16
CLASSES = 2


@dataclass(frozen=True)
class Setting:
    """What is varied: arithmetic, layout of the weights, and whether the network is compiled."""

    precision: str
    memory_format: torch.memory_format
    is_compiled: bool


def all_settings(compile_too: bool) -> Iterator[Setting]:
    """Yield the settings; only channels-last networks are compiled."""
    for precision in ("fp32", "bf16"):
        yield Setting(precision, torch.contiguous_format, False)
        yield Setting(precision, torch.channels_last, False)
        if compile_too:
            yield Setting(precision, torch.channels_last, True)


def load_network(backbone: Backbone, options: InputOptions, setting: Setting) -> Network:
    """Return the network with a head of equal weights."""
    weights = np.full((backbone.taps[-1].channels, CLASSES), 0.01, np.float32)
    head = Head("ridge", ("features",), weights, np.zeros(CLASSES, np.float32), 1.0)
    return Network(backbone, options, head).to(memory_format=setting.memory_format)


def make_step(network: Network, setting: Setting, unfreeze_from: str | None) -> Callable[[], float]:
    """Return a function that makes a step and returns its seconds."""
    config = FineTuneConfig(unfreeze_from=unfreeze_from, precision=setting.precision)
    plan = make_plan(network, config)
    set_mode(network, plan, training=True)
    optimizer = make_optimizer(network, plan, config)
    precision = MixedPrecision.of(setting.precision, "cpu")
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    height, width = network.backbone.preprocess.height, network.backbone.preprocess.width
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, height, width, 3)).astype(np.uint8)
    labels = torch.arange(IMAGES) % CLASSES
    compute_vectors = torch.compile(network.vectors) if setting.is_compiled else network.vectors

    def step() -> float:
        start = time.process_time()
        network.zero_grad()
        with precision.autocast():
            vectors = compute_vectors(torch.from_numpy(pixels))
        precision.backward(cross_entropy(network.scores(vectors), labels))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return time.process_time() - start

    return step


def measure(
    backbone: Backbone, options: InputOptions, unfreeze_from: str | None, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Return a row for each setting."""
    steps, first_seconds = {}, {}
    for setting in all_settings(arguments.compile):
        step = make_step(load_network(backbone, options, setting), setting, unfreeze_from)
        first_seconds[setting] = step()
        step()
        steps[setting] = step
    seconds: dict[Setting, list[float]] = {setting: [] for setting in steps}
    for _ in range(arguments.runs):
        for setting, step in steps.items():
            seconds[setting].append(step())
    return [
        {
            "trained": unfreeze_from or "last two stages",
            "precision": setting.precision,
            "weights": str(setting.memory_format).removeprefix("torch."),
            "compiled": "yes" if setting.is_compiled else "",
            "median ms": 1e3 * median(times),
            "least ms": 1e3 * min(times),
            "first s": first_seconds[setting],
        }
        for setting, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    options = InputOptions(weights=str(weights), mean=HALF, std=HALF)
    backbone = backbones.load(BACKBONE, options=options)
    for unfreeze_from in (None, "all"):
        print_table(measure(backbone, options, unfreeze_from, arguments))


if __name__ == "__main__":
    main()
