"""Epochs of fastai's ``vision_learner`` with MobileNetV2 on folders of classes, in an environment of its own.

    python fine_tune_fastai_epoch.py DATA WEIGHTS DEPTH EPOCHS       prints the seconds of each epoch as JSON

DATA holds train/ and val/ or validation/; WEIGHTS is a state dict of timm's mobilenetv2_100 (num_classes=1001,
pad_type=same); DEPTH is "last two stages" or "all layers". fastai's own head, optimizer, batch norms and loaders;
batches of 16, images squashed to 224 x 224 and mirrored at random. ``pip install fastai timm safetensors``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path

import timm
import torch
from fastai.vision.all import (
    Callback,
    Flip,
    ImageDataLoaders,
    Normalize,
    Resize,
    ResizeMethod,
    params,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file

HALF = (0.5, 0.5, 0.5)


class EpochTimer(Callback):
    """Records the wall and processor seconds of training in each epoch, those of ended loaders included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[dict[str, float]] = []

    def before_train(self) -> None:
        self.start, self.before = time.perf_counter(), sum(os.times()[:4])

    def after_train(self) -> None:
        used = sum(os.times()[:4]) - self.before
        self.seconds.append({"wall": time.perf_counter() - self.start, "processor": used})


def split_stages(model: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """Split the learner's model before its last two stages, and before its head."""
    body, head = model
    layers = list(body.children()) if not hasattr(body, "model") else list(body.model.children())
    at = next(i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Sequential))  # the stages
    stages = list(layers[at])
    first = torch.nn.ModuleList([*layers[:at], *stages[:-2]])
    last = torch.nn.ModuleList([*stages[-2:], *layers[at + 1 :]])
    return [params(first), params(last), params(head)]


def main(data: Path, weights: Path, depth: str, epochs: int) -> None:
    def network(pretrained: bool) -> torch.nn.Module:  # noqa: ARG001  # fastai's signature
        model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        return model

    set_seed(0, reproducible=True)
    timer = EpochTimer()
    loaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid="val" if (data / "val").is_dir() else "validation",
        bs=16,
        device=torch.device("cpu"),
        item_tfms=Resize(224, ResizeMethod.Squish),
        batch_tfms=[Flip(), Normalize.from_stats(HALF, HALF, cuda=False)],
    )
    learner = vision_learner(loaders, network, normalize=False, splitter=split_stages)
    if depth == "all layers":
        learner.unfreeze()
    else:
        learner.freeze_to(1)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, cbs=timer)
    print(json.dumps(timer.seconds))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
