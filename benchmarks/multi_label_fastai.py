"""fastai's multi-label learner, ``vision_learner(...).fine_tune(EPOCHS)``, with MobileNetV2 on a table of images.

    python multi_label_fastai.py TABLE WEIGHTS EPOCHS SEED       prints one JSON line

TABLE has the columns path, labels (with semicolons) and split; WEIGHTS is a state dict of timm's mobilenetv2_100
(num_classes=1001, pad_type=same). fastai's own head, loss (binary cross-entropy), optimizer, learning rates and
schedule: one epoch with the body frozen, then EPOCHS with all layers. Batches of 16, images squashed to 224 x 224 and
not augmented. Probabilities are those of the validation images, in the order of the table; processor seconds are those
of loading, training and validation. Runs in an environment of its own: ``pip install fastai timm safetensors``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import timm
import torch
from fastai.vision.all import (
    DataBlock,
    ImageBlock,
    MultiCategoryBlock,
    Normalize,
    Resize,
    ResizeMethod,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file

HALF = (0.5, 0.5, 0.5)


def main(path: Path, weights: Path, epochs: int, seed: int) -> None:
    def network(pretrained: bool) -> torch.nn.Module:  # noqa: ARG001  # fastai's signature
        model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        return model

    table = pd.read_csv(path, keep_default_na=False)
    labels = sorted({label for cell in table["labels"] for label in cell.split(";") if label})
    is_training = (table["split"] == "train").to_numpy()
    set_seed(seed, reproducible=True)
    start = time.process_time()
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock(vocab=labels)),
        get_x=lambda row: path.parent / row["path"],
        get_y=lambda row: [label for label in row["labels"].split(";") if label],
        splitter=lambda _: (is_training.nonzero()[0].tolist(), (~is_training).nonzero()[0].tolist()),
        item_tfms=Resize(224, ResizeMethod.Squish),
        batch_tfms=[Normalize.from_stats(HALF, HALF, cuda=False)],
    )
    loaders = block.dataloaders(table, bs=16, device=torch.device("cpu"), num_workers=0)
    learner = vision_learner(loaders, network, normalize=False, n_out=len(labels))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
        seconds = time.process_time() - start
        probabilities, _ = learner.get_preds()
    print(json.dumps({"labels": labels, "probabilities": probabilities.tolist(), "cpu_seconds": seconds}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
