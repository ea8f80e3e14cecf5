"""fastai's ``vision_learner(...).fine_tune(EPOCHS)`` with MobileNetV2 on folders of classes.

    python fine_tune_fastai.py DATA WEIGHTS EPOCHS SEED       prints one JSON line

DATA holds train/ and validation/; WEIGHTS is a state dict of timm's mobilenetv2_100 (num_classes=1001, pad_type=same).
fastai's own head, optimiser, rates and schedule: one epoch with the body frozen, then EPOCHS with all layers. Batches
of 16, pictures laid to 224 x 224 and not varied. Seconds of an epoch leave its validation out, those of the whole do
not. Runs in an environment of its own: ``pip install fastai timm safetensors``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import timm
import torch
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Normalize,
    Resize,
    ResizeMethod,
    accuracy,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file

HALF = (0.5, 0.5, 0.5)


class Clock(Callback):
    """Seconds of training in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []

    def before_train(self) -> None:
        self.began = time.perf_counter()

    def after_train(self) -> None:
        self.spent.append(time.perf_counter() - self.began)


def main(data: Path, weights: Path, epochs: int, seed: int) -> None:
    def network(pretrained: bool) -> torch.nn.Module:  # noqa: ARG001  # fastai's signature
        model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
        model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
        return model

    set_seed(seed, reproducible=True)
    began, clock = time.perf_counter(), Clock()
    loaders = ImageDataLoaders.from_folder(
        data, train="train", valid="validation", bs=16, device=torch.device("cpu"),
        item_tfms=Resize(224, ResizeMethod.Squish), batch_tfms=[Normalize.from_stats(HALF, HALF, cuda=False)],
    )  # fmt: skip
    learner = vision_learner(loaders, network, normalize=False, metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs, cbs=clock)
        seconds = time.perf_counter() - began
        answers, truth = learner.get_preds()
    right = int((answers.argmax(1) == truth).sum())
    print(json.dumps({"right": right, "count": len(truth), "seconds": seconds, "frozen_epochs": clock.spent[:1],
                      "epochs": clock.spent[1:]}))  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
