"""An asymmetric loss (Ben-Baruch et al. 2021) beside binary cross-entropy, when several labels are fine-tuned.

    python benchmarks/asymmetric_loss.py [--data collages|drawings] [--seed 0] [--epochs 3]

Each loss trains MobileNetV2 (``timm:``, the shared weights) on collages of the reference data, or headstart-s on
drawings of twelve shapes, which 3% to 30% of the images have. The trainings are those of ``fine_tune``: the same folds,
order and augmentation. What is compared is what decides there: predictions of images whose groups were held out,
calibrated and interpolated by the other folds. A difference below 0 says that the asymmetric loss is better. Its
constants are those of the paper (section 4), and of timm. Needs the extras ``torch`` and ``timm``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fine_tune import BACKBONE
from measure import Scratch, print_table, shared
from multi_label import write_collages
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

import headstart as hs
from headstart.backbones import InputOptions
from headstart.classifier import MultiLabelFitResult, fit_multi_label
from headstart.finetune import FineTuneConfig, gradients
from headstart.finetune.label_verdict import LabelVerdict, calibrate_held_out, compare_labels_to_frozen
from headstart.finetune.losses import image_losses
from headstart.finetune.run import run
from headstart.stats.label_metrics import average_precisions
from headstart.stats.paired_losses import loss_difference
from headstart.stats.platt import log_losses

SIDE = 96  # pixels of a drawing
COLOURS = ("crimson", "royalblue", "darkorange", "seagreen")
SHAPES = tuple(f"{colour} {shape}" for shape in ("disc", "square", "triangle") for colour in COLOURS)
SHARES = np.geomspace(0.03, 0.3, len(SHAPES))  # of the images that have each shape

Loss = Callable[..., Tensor]


def asymmetric(gamma_yes: float, gamma_no: float, margin: float) -> Loss:
    """Return the loss of equation 7: focusing for each answer, and probabilities of a no shifted by ``margin``."""

    def losses(scores: Tensor, labels: Tensor, *_: Any) -> Tensor:
        known, is_yes = ~labels.isnan(), labels == 1
        p = torch.sigmoid(scores)
        shifted = (p - margin).clamp(min=0)
        yes = (1 - p) ** gamma_yes * torch.nn.functional.logsigmoid(scores)
        no = shifted**gamma_no * torch.log((1 - shifted).clamp(min=1e-8))
        return -(torch.where(is_yes, yes, no) * known).mean(1)

    return losses


LOSSES: dict[str, Loss] = {
    "binary cross-entropy": image_losses,
    "asymmetric, 0 and 4": asymmetric(0, 4, 0.05),
    "asymmetric, 1 and 4": asymmetric(1, 4, 0.05),
}


def draw(shape: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Draw a shape on a transparent square."""
    colour, kind = shape.split()
    image = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(image)
    corners = [(0, side - 1), (side - 1, side - 1), (int(rng.integers(side)), 0)]
    if kind == "triangle":
        pen.polygon(corners, fill=colour)
    else:
        (pen.ellipse if kind == "disc" else pen.rectangle)((0, 0, side - 1, side - 1), fill=colour)
    return image


def write_drawings(folder: Path, count: int, rng: np.random.Generator) -> list[str]:
    """Write drawings, three of a scene with one background, and return rows of a table."""
    rows = []
    for i in range(count):
        if i % 3 == 0:
            background = rng.integers(60, 200, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(background).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        has = [shape for shape, share in zip(SHAPES, SHARES, strict=True) if rng.random() < share]
        for shape in has:
            part = draw(shape, int(rng.integers(14, 30)), rng)
            image.paste(part, tuple(rng.integers(0, SIDE - 16, 2).tolist()), part)
        noise = rng.normal(0, 12, (SIDE, SIDE, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
        image.save(folder / f"{i:04}.png")
        rows.append(f"{i:04}.png,{';'.join(has)},train,{i // 3}")
    return rows


def fit(data: str, folder: Path, seed: int) -> MultiLabelFitResult:
    """Write the images and fit the frozen model."""
    rng = np.random.default_rng(seed)
    options = hs.FitOptions("headstart-s", group_by="group", seed=seed)
    if data == "drawings":
        rows = write_drawings(folder, 300, rng)
    else:
        rows = write_collages(folder, "train", 40, 4, rng)
        weights = InputOptions(weights=str(shared() / "weights" / "mobilenetv2-imagenet.safetensors"))
        options = replace(options, backbone=BACKBONE, input_options=weights)
    (folder / "labels.csv").write_text("\n".join(["path,labels,split,group", *rows]), "utf-8")
    return fit_multi_label(hs.open_dataset(folder / "labels.csv", hs.ReadOptions(group_column="group")), options)


@dataclass(frozen=True)
class Trained:
    """What ``fine_tune`` compares with the frozen model: its verdict, and log-odds [n, k] of images held out."""

    verdict: LabelVerdict
    logits: NDArray[np.float64]
    labels: NDArray[np.float32]
    groups: NDArray[np.int64]
    cpu_seconds: float


def train(frozen: MultiLabelFitResult, config: FineTuneConfig, loss: Loss) -> Trained:
    """Make the trainings of the folds with a loss."""
    seen: list[tuple[Any, ...]] = []

    def compare(*scores: Any) -> LabelVerdict:
        verdict = compare_labels_to_frozen(*scores)
        seen.append((verdict, *scores))
        never = replace(verdict.difference, p_value=1.0)  # without the training on all images
        return replace(verdict, difference=never)

    start, before = time.process_time(), gradients.image_losses
    gradients.image_losses = loss
    try:
        run(frozen, config, print, compare=compare)
    finally:
        gradients.image_losses = before
    verdict, _, tuned, labels, groups, folds = seen[0]
    logits = calibrate_held_out(tuned, labels, groups, folds)[0]
    return Trained(verdict, logits, labels, groups, time.process_time() - start)


def row(name: str, trained: Trained, first: Trained) -> dict[str, object]:
    """Return what a loss achieved, and its difference to the first."""
    known, values = ~np.isnan(trained.labels), trained.labels == 1
    losses = [log_losses(case.logits, values.astype(np.float64)) for case in (first, trained)]
    difference = loss_difference(*losses, known, trained.groups)
    low, high = difference.interval
    return {
        "loss": name,
        "log-loss held out": f"{losses[1][known].mean():.4f}",
        "minus that of the first": ""
        if trained is first
        else f"{difference.difference:+.4f} ({low:+.4f} to {high:+.4f}), p {difference.p_value:.2g}",
        "mAP": f"{np.nanmean(average_precisions(trained.logits, values, known)):.1%}",
        "frozen": f"{trained.verdict.frozen_loss:.4f}, {trained.verdict.frozen_precision:.1%}",
        "better than frozen": "yes" if trained.verdict.is_better else "no",
        "alphas": ", ".join(map(str, trained.verdict.alphas)),
        "processor seconds": f"{trained.cpu_seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("collages", "drawings"), default="collages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    config = FineTuneConfig(epochs=arguments.epochs)
    with Scratch() as scratch:
        frozen = fit(arguments.data, scratch.path, arguments.seed)
        print(frozen.images.dataset.label_summary)
        trained = {name: train(frozen, config, loss) for name, loss in LOSSES.items()}
    first = next(iter(trained.values()))
    print_table([row(name, case, first) for name, case in trained.items()])


if __name__ == "__main__":
    main()
