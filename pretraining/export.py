"""Write the backbone: `backbone.onnx` (uint8 pictures in, pooled taps out, fp16 weights) and `backbone.json`.

    python export.py RUN/checkpoint.pt FOLDER

The graph is made node by node: nothing is in it that is not meant to be.
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
from student import TAPS, Student, Unit

SOURCE = (
    "Headstart's own MobileNetV2-shaped student, pruned and distilled from Google's MobileNetV2 1.0 "
    "(ImageNet, Apache-2.0) on unlabelled Tiny-ImageNet and ImageNet sample pictures; see CARD.md"
)
PREPROCESS = {"resize": "shortest", "crop": 0.875, "interpolation": "bilinear"}


class Graph:
    """Nodes and initializers as they are added; ``work`` counts multiply-adds up to here."""

    def __init__(self, half: bool):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.half = half
        self.work = 0

    def add(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray, *, weight: bool = False) -> str:
        """A weight is stored in fp16 and cast to fp32 in the graph: runtimes fold the cast at load."""
        if weight and self.half:
            self.initializers.append(numpy_helper.from_array(value.astype(np.float16), name + ".half"))
            return self.add("Cast", [name + ".half"], name, to=TensorProto.FLOAT)
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def unit(self, name: str, unit: Unit, x: str, side: int) -> tuple[str, int]:
        weight, bias = (t.numpy().astype(np.float32) for t in unit.folded())
        kernel, stride, groups = weight.shape[-1], unit.conv.stride[0], unit.conv.groups
        edge = kernel // 2
        pads = [0, 0, 1, 1] if unit.shifted else [edge] * 4
        inputs = [
            x,
            self.constant(f"{name}.weight", weight, weight=True),
            self.constant(f"{name}.bias", bias),
        ]
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads, "group": groups}
        y = self.add("Conv", inputs, name, **shape)
        side //= stride
        self.work += weight.size * side * side
        return (self.add("Relu", [y], f"{name}.relu") if unit.act else y), side


def build(student: Student, size: int, half: bool = True) -> tuple[onnx.ModelProto, list[dict]]:
    """The model and its taps, in order of depth."""
    graph = Graph(half)
    # Planes first: one byte a value is moved, not four, and OpenVINO's bf16 is a quarter faster on the whole graph.
    x = graph.add("Transpose", ["pixels"], "pixels.planes", perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], "pixels.float", to=TensorProto.FLOAT)
    x = graph.add("Mul", [x, graph.constant("scale", np.float32(1 / 127.5))], "pixels.scaled")
    x = graph.add("Sub", [x, graph.constant("one", np.float32(1))], "pixels.centred")
    side, taps = size, []
    axes = graph.constant("space", np.array([2, 3], np.int64))
    for tap, stage in zip(TAPS, student.stages, strict=True):
        for index, module in enumerate(stage):
            name = f"{tap}.{index}" if len(stage) > 1 else f"{tap}.conv"
            if isinstance(module, Unit):
                x, side = graph.unit(name, module, x, side)
                continue
            given = x
            for part in ("expand", "filter", "project"):
                x, side = graph.unit(f"{name}.{part}", getattr(module, part), x, side)
            if module.residual:
                x = graph.add("Add", [given, x], f"{name}.sum")
        pooled = graph.add("GlobalAveragePool", [x], f"{tap}.pooled")
        graph.add("Squeeze", [pooled, axes], tap)
        channels = int(module.conv.out_channels if isinstance(module, Unit) else module.project.conv.out_channels)
        taps.append({"name": tap, "channels": channels, "depth": graph.work, "size": [side, side]})
    for tap in taps:
        tap["depth"] = round(tap["depth"] / graph.work, 4)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    outputs = [helper.make_tensor_value_info(t["name"], TensorProto.FLOAT, ["batch", t["channels"]]) for t in taps]
    proto = helper.make_graph(graph.nodes, "headstart-s", [pixels], outputs, graph.initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], producer_name="headstart")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model, taps


def load(checkpoint: Path) -> Student:
    """The averaged weights of a checkpoint."""
    state = torch.load(checkpoint, map_location="cpu")["average"]
    student = Student(norm=any("norm" in name for name in state))
    student.load_state_dict(state)
    return student.eval()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("checkpoint", type=Path)
    p.add_argument("folder", type=Path)
    p.add_argument("--size", type=int, default=160)
    p.add_argument("--fp32", action="store_true", help="store the weights whole, to see what fp16 costs")
    opt = p.parse_args()
    model, taps = build(load(opt.checkpoint), opt.size, half=not opt.fp32)
    data = model.SerializeToString()
    opt.folder.mkdir(parents=True, exist_ok=True)
    (opt.folder / "backbone.onnx").write_bytes(data)
    card = {
        "format": 1,
        "id": "headstart-s",
        "licence": "Apache-2.0",
        "source": SOURCE,
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocess": {"height": opt.size, "width": opt.size, **PREPROCESS},
        "taps": taps,
    }
    (opt.folder / "backbone.json").write_text(json.dumps(card, indent=2) + "\n")
    print(card["sha256"], len(data))


if __name__ == "__main__":
    main()
