"""Write the backbone: ``backbone.onnx`` (uint8 images in, pooled taps out, fp16 weights) and ``backbone.json``.

    python export.py RUN/checkpoint.pt FOLDER

The graph is built node by node, so that nothing is in it by accident.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from student import TAPS, Block, ConvUnit, Student

SOURCE = (
    "Headstart's own MobileNetV2-shaped student, pruned and distilled from Google's MobileNetV2 1.0 "
    "(ImageNet, Apache-2.0) on unlabelled Tiny-ImageNet and ImageNet sample images; see CARD.md"
)
PREPROCESS = {"resize": "shortest", "crop": 0.875, "interpolation": "bilinear"}


class GraphBuilder:
    """Nodes and initializers as they are added; ``multiply_adds`` counts those of one image up to here."""

    def __init__(self, fp16: bool):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.fp16 = fp16
        self.multiply_adds = 0

    def add(self, op_type: str, inputs: list[str], output: str, **attributes) -> str:
        """Add a node; return its output."""
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant; return its name."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add a weight, stored in fp16 and cast to fp32 in the graph: runtimes fold the cast when they load it."""
        if not self.fp16:
            return self.constant(name, value)
        return self.add("Cast", [self.constant(f"{name}.half", value.astype(np.float16))], name, to=TensorProto.FLOAT)

    def unit(self, name: str, unit: ConvUnit, x: str, side: int) -> tuple[str, int]:
        """Add a convolution with its activation; return its output and the side of the map."""
        weight, bias = (tensor.numpy().astype(np.float32) for tensor in unit.folded())
        kernel, stride = weight.shape[-1], unit.conv.stride[0]
        inputs = [x, self.weight(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        attributes = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [0, 0, 1, 1] if unit.pads_asymmetrically else [kernel // 2] * 4,
            "group": unit.conv.groups,
        }
        output = self.add("Conv", inputs, name, **attributes)
        side //= stride
        self.multiply_adds += weight.size * side * side
        if unit.activation is not None:
            output = self.add("Relu", [output], f"{name}.relu")
        return output, side

    def block(self, name: str, block: Block, x: str, side: int) -> tuple[str, int]:
        """Add a residual block; return its output and the side of the map."""
        output = x
        for part in ("expand", "filter", "project"):
            output, side = self.unit(f"{name}.{part}", getattr(block, part), output, side)
        if block.is_residual:
            output = self.add("Add", [x, output], f"{name}.sum")
        return output, side


def build(student: Student, size: int, fp16: bool = True) -> tuple[onnx.ModelProto, list[dict]]:
    """Build the model and the descriptions of its taps, in order of depth."""
    graph = GraphBuilder(fp16)
    # Planes first: one byte for each value is moved, not four; OpenVINO's bf16 is a quarter faster on the whole graph.
    x = graph.add("Transpose", ["pixels"], "pixels.planes", perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], "pixels.float", to=TensorProto.FLOAT)
    x = graph.add("Mul", [x, graph.constant("scale", np.float32(1 / 127.5))], "pixels.scaled")
    x = graph.add("Sub", [x, graph.constant("one", np.float32(1))], "pixels.centred")
    side, taps = size, []
    axes = graph.constant("space", np.array([2, 3], np.int64))
    for tap, stage in zip(TAPS, student.stages, strict=True):
        for i, module in enumerate(stage):
            name = f"{tap}.{i}" if len(stage) > 1 else f"{tap}.conv"
            if isinstance(module, ConvUnit):
                x, side = graph.unit(name, module, x, side)
                channels = module.conv.out_channels
            else:
                x, side = graph.block(name, module, x, side)
                channels = module.project.conv.out_channels
        pooled = graph.add("GlobalAveragePool", [x], f"{tap}.pooled")
        graph.add("Squeeze", [pooled, axes], tap)
        taps.append({"name": tap, "channels": channels, "depth": graph.multiply_adds, "size": [side, side]})
    for tap in taps:
        tap["depth"] = round(tap["depth"] / graph.multiply_adds, 4)
    return _model(graph, size, taps), taps


def _model(graph: GraphBuilder, size: int, taps: list[dict]) -> onnx.ModelProto:
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    outputs = [
        helper.make_tensor_value_info(tap["name"], TensorProto.FLOAT, ["batch", tap["channels"]]) for tap in taps
    ]
    proto = helper.make_graph(graph.nodes, "headstart-s", [pixels], outputs, graph.initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], producer_name="headstart")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


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
    data = model.SerializeToString()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "backbone.onnx").write_bytes(data)
    description = {
        "format": 1,
        "id": "headstart-s",
        "licence": "Apache-2.0",
        "source": SOURCE,
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocess": {"height": options.size, "width": options.size, **PREPROCESS},
        "taps": taps,
    }
    (options.folder / "backbone.json").write_text(json.dumps(description, indent=2) + "\n")
    print(description["sha256"], len(data))


if __name__ == "__main__":
    main()
