"""Write the student as a backbone: ``backbone.onnx`` (uint8 images in, pooled taps out, fp16 weights) and its JSON.

python export.py RUN/checkpoint.pt FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from graph_builder import GraphBuilder, write_backbone
from student import TAPS, Block, ConvUnit, Student

SOURCE = (
    "Headstart's own MobileNetV2-shaped student, pruned and distilled from Google's MobileNetV2 1.0 "
    "(ImageNet, Apache-2.0) on unlabelled Tiny-ImageNet and ImageNet sample images; see CARD.md"
)
PREPROCESS = {"resize": "shortest", "crop": 0.875, "interpolation": "bilinear"}


def add_unit(graph: GraphBuilder, name: str, unit: ConvUnit, x: str, side: int) -> tuple[str, int]:
    """Add a convolution with its activation; return its output and the side of the map."""
    weight, bias = (tensor.numpy().astype(np.float32) for tensor in unit.folded())
    pads = [0, 0, 1, 1] if unit.pads_asymmetrically else [weight.shape[-1] // 2] * 4
    output, side = graph.convolution(name, x, weight, bias, stride=unit.conv.stride[0], pads=pads, side=side)
    if unit.activation is not None:
        output = graph.add("Relu", [output], f"{name}.relu")
    return output, side


def add_block(graph: GraphBuilder, name: str, block: Block, x: str, side: int) -> tuple[str, int]:
    """Add a residual block; return its output and the side of the map."""
    output = x
    for part in ("expand", "filter", "project"):
        output, side = add_unit(graph, f"{name}.{part}", getattr(block, part), output, side)
    if block.is_residual:
        output = graph.add("Add", [x, output], f"{name}.sum")
    return output, side


def build(student: Student, size: int, fp16: bool = True) -> tuple[onnx.ModelProto, list[dict]]:
    """Build the model and the descriptions of its taps, in order of depth."""
    graph = GraphBuilder(fp16)
    x, side, taps = graph.images(), size, []
    for tap, stage in zip(TAPS, student.stages, strict=True):
        for i, module in enumerate(stage):
            name = f"{tap}.{i}" if len(stage) > 1 else f"{tap}.conv"
            if isinstance(module, ConvUnit):
                x, side = add_unit(graph, name, module, x, side)
                channels = module.conv.out_channels
            else:
                x, side = add_block(graph, name, module, x, side)
                channels = module.project.conv.out_channels
        taps.append(graph.tap(tap, x, channels, side))
    return graph.model("headstart-s", size, taps), taps


def load(checkpoint: Path, start: Path | None = None, share: float = 1.0) -> Student:
    """Load the averaged weights of a checkpoint, or those at ``share`` of the way to them from ``start``.

    Half way is often better than either end: training learns the training images, the start still knows others
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3).
    """
    tensors = torch.load(checkpoint, map_location="cpu")["average"]
    if start is not None:
        initial = torch.load(start, map_location="cpu")["average"]
        tensors = {name: torch.lerp(initial[name], value, share) for name, value in tensors.items()}
    student = Student(norm=any("norm" in name for name in tensors))
    student.load_state_dict(tensors)
    return student.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="another checkpoint: export weights between its own and these")
    parser.add_argument("--share", type=float, default=0.5, help="with --start: how far from it, 0 to 1")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--fp32", action="store_true", help="store the weights in fp32, to see what fp16 costs")
    options = parser.parse_args()
    model, taps = build(load(options.checkpoint, options.start, options.share), options.size, fp16=not options.fp32)
    preprocess = {"height": options.size, "width": options.size, **PREPROCESS}
    description = {
        "id": "headstart-s",
        "network": "pruned MobileNetV2",
        "licence": "Apache-2.0",
        "source": SOURCE,
        "preprocess": preprocess,
    }
    write_backbone(options.folder, model, {**description, "taps": taps})


if __name__ == "__main__":
    main()
