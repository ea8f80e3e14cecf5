"""Backbones written node by node, so that nothing is in a graph by accident."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


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

    def images(self) -> str:
        """Add the input, scaled to -1 to 1; return it as planes.

        Planes first: one byte for each value is moved, not four; OpenVINO's bf16 is a quarter faster on the whole
        graph.
        """
        x = self.add("Transpose", ["pixels"], "pixels.planes", perm=[0, 3, 1, 2])
        x = self.add("Cast", [x], "pixels.float", to=TensorProto.FLOAT)
        x = self.add("Mul", [x, self.constant("scale", np.float32(1 / 127.5))], "pixels.scaled")
        return self.add("Sub", [x, self.constant("one", np.float32(1))], "pixels.centred")

    def convolution(
        self, name: str, x: str, weight: np.ndarray, bias: np.ndarray, *, stride: int, pads: list[int], side: int
    ) -> tuple[str, int]:
        """Add a convolution of a square map of ``side`` pixels; return its output and the side of that.

        A weight [channels, 1, k, k] of as many channels as the map has is applied to each of them.
        """
        inputs = [x, self.weight(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        attributes = {
            "kernel_shape": [weight.shape[-1]] * 2,
            "strides": [stride] * 2,
            "pads": pads,
            "group": len(weight) if weight.shape[1] == 1 else 1,
        }
        output, side = self.add("Conv", inputs, name, **attributes), -(-side // stride)
        self.multiply_adds += weight.size * side * side
        return output, side

    def tap(self, name: str, x: str, channels: int, side: int) -> dict:
        """Add the mean of a map as an output; return its description, with the multiply-adds up to here as depth."""
        if not any(tensor.name == "space" for tensor in self.initializers):
            self.constant("space", np.array([2, 3], np.int64))
        pooled = self.add("GlobalAveragePool", [x], f"{name}.pooled")
        self.add("Squeeze", [pooled, "space"], name)
        return {"name": name, "channels": channels, "depth": self.multiply_adds, "size": [side, side]}

    def model(self, name: str, size: int, taps: list[dict]) -> onnx.ModelProto:
        """Return the model for images of ``size`` pixels; the depths of the taps become shares of the whole."""
        for tap in taps:
            tap["depth"] = round(tap["depth"] / self.multiply_adds, 4)
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])
        outputs = [
            helper.make_tensor_value_info(tap["name"], TensorProto.FLOAT, ["batch", tap["channels"]]) for tap in taps
        ]
        proto = helper.make_graph(self.nodes, name, [pixels], outputs, self.initializers)
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], producer_name="headstart")
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model


def write_backbone(folder: Path, model: onnx.ModelProto, description: dict) -> None:
    """Write ``backbone.onnx`` and ``backbone.json``, which gets the hash of the graph."""
    data = model.SerializeToString()
    sha256 = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backbone.onnx").write_bytes(data)
    order = ("format", "id", "licence", "source", "sha256", "preprocess", "taps")
    values = {"format": 1, **description, "sha256": sha256}
    (folder / "backbone.json").write_text(json.dumps({key: values[key] for key in order}, indent=2) + "\n")
    print(sha256, len(data))
