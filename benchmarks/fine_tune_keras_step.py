"""A training step of Keras' MobileNetV2 on its PyTorch backend beside timm's: processor seconds of one thread.

    python benchmarks/fine_tune_keras_step.py [--runs 9]

The same shared weights, 224 x 224, batches of 16 pictures of ants-bees; forward and backward of the last two stages and
of all layers, in fp32 and bf16; medians of steps that take turns. Needs the extras ``torch``, ``timm`` and ``keras``.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from fine_tune import BACKBONE, HALF
from measure import arguments, shared, side_by_side, table

import headstart as hs
from headstart.backbones import InputOptions
from headstart.finetune import FineTuneConfig
from headstart.finetune.freeze import make_plan
from headstart.finetune.image_loader import ImageLoader
from headstart.finetune.network import Network
from headstart.finetune.precision import MixedPrecision
from headstart.machine import cores


def main() -> None:
    runs = arguments(__doc__, runs=9).runs
    torch.set_num_threads(1)
    weights = shared() / "weights" / "mobilenetv2-imagenet.safetensors"
    backbones = {
        "timm": (BACKBONE, InputOptions(weights=str(weights), mean=HALF, std=HALF)),
        "keras": ("keras:MobileNetV2", InputOptions(weights=str(weights.with_suffix(".weights.h5")))),
    }
    networks, pixels, cases = {}, {}, {}
    for name, (backbone, options) in backbones.items():
        classifier = hs.ImageClassifier(backbone, cut="features", head="ridge", input_options=options)
        result = classifier.fit(shared() / "data" / "ants-bees").result_
        network = Network(result.data.backbone, options, result.selected.head)
        networks[name] = network.to(memory_format=torch.channels_last)
        images = ImageLoader(result.data.dataset, range(16), result.data.backbone.preprocess, cores())
        pixels[name] = torch.from_numpy(next(images.batches([np.arange(16)]))[1])

    def case(name: str, where: str | None, precision: str):
        mixed_precision = MixedPrecision.of(precision, "cpu")

        def step() -> float:
            network = networks[name]
            make_plan(network, FineTuneConfig(unfreeze_from=where))
            began = time.process_time()
            with mixed_precision.autocast():
                vectors = network.vectors(pixels[name])
            torch.nn.functional.cross_entropy(network.scores(vectors), torch.arange(16) % 2).backward()
            spent = time.process_time() - began
            network.zero_grad()
            return spent

        return step

    for where in (None, "all"):
        for precision in ("fp32", "bf16"):
            for name in networks:
                cases[f"{name} {where} {precision}"] = case(name, where, precision)
    found = side_by_side(runs, **cases)
    table([
        {"layers": "last two stages" if where is None else "all", "precision": precision,
         **{name: found[f"{name} {where} {precision}"] for name in networks}}
        for where in (None, "all") for precision in ("fp32", "bf16")
    ])  # fmt: skip


if __name__ == "__main__":
    main()
