"""fastai's ``vision_learner(...).fine_tune(EPOCHS)`` with MobileNetV2 on folders of classes.

    python fine_tune_fastai.py DATA WEIGHTS EPOCHS SEED       prints one JSON line

DATA holds train/ and validation/; WEIGHTS is a state dict of timm's mobilenetv2_100 (num_classes=1001, pad_type=same).
fastai's own head, optimizer, learning rates and schedule: one epoch with the body frozen, then EPOCHS with all layers.
Batches of 16, images squashed to 224 x 224 and not augmented. Seconds of an epoch leave its validation out, those of
the whole do not. Runs in an environment of its own: ``pip install fastai timm safetensors``.
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


class EpochTimer(Callback):
    """Records the seconds of training in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def before_train(self) -> None:
        self.start = time.perf_counter()

    def after_train(self) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def main(data: Path, weights: Path, epochs: int, seed: int) -> None:
    def network(pretrained: bool) -> torch.nn.Module:  # noqa: ARG001  # fastai's signature
        model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        return model

    set_seed(seed, reproducible=True)
    start, timer = time.perf_counter(), EpochTimer()
    loaders = ImageDataLoaders.from_folder(
        data,
        train="train",
        valid="validation",
        bs=16,
        device=torch.device("cpu"),
        item_tfms=Resize(224, ResizeMethod.Squish),
        batch_tfms=[Normalize.from_stats(HALF, HALF, cuda=False)],
    )
    learner = vision_learner(loaders, network, normalize=False, metrics=accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs, cbs=timer)
        seconds = time.perf_counter() - start
        predictions, labels = learner.get_preds()
    record = {
        "correct": int((predictions.argmax(1) == labels).sum()),
        "count": len(labels),
        "seconds": seconds,
        "frozen_epochs": timer.seconds[:1],
        "epochs": timer.seconds[1:],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
