"""The graph of a built-in backbone as a torch module, with a layer for every convolution, and back to a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from headstart.errors import BackboneError

ELEMENTWISE = {"Clip": torch.clamp, "Relu": torch.relu, "Add": torch.add, "Mul": torch.mul, "Sub": torch.sub}
OPERATORS = {*ELEMENTWISE, "Cast", "Conv", "GlobalAveragePool", "Squeeze", "Transpose"}


class GraphModule(nn.Module):  # type: ignore[misc]
    """Runs the nodes of an ONNX graph on uint8 pixels [batch, height, width, 3]; returns the values of its outputs.

    Convolutions are layers named like their nodes. Only the operators of the built-in backbone are supported. Raises
    BackboneError for another.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.model = model
        values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        self.constants = {name: value for name, value in values.items() if value.ndim <= 1}
        self.steps: list[tuple[str, list[str], str, dict[str, Any]]] = []  # operator, inputs, output, attributes
        layers: list[str] = []
        self.last_layers: dict[str, str] = {}  # by tensor, the last layer that it depends on
        for node in model.graph.node:
            if node.op_type not in OPERATORS:
                raise BackboneError(f"The built-in graph has an operator {node.op_type} that cannot be trained.")
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.steps.append((node.op_type, list(node.input), node.output[0], attributes))
            if node.op_type == "Cast" and node.input[0] in values:  # weights stored as fp16
                values[node.output[0]] = values[node.input[0]].float()
            elif node.op_type == "Conv":
                layers.append(node.name)
                self._add_layer(node.name, _convolution(attributes, values[node.input[1]], values[node.input[2]]))
            before = [self.last_layers[name] for name in node.input if name in self.last_layers]
            if last := [node.name] if node.op_type == "Conv" else before:
                self.last_layers[node.output[0]] = max(last, key=layers.index)

    def _add_layer(self, path: str, layer: nn.Module) -> None:
        parent: Any = self
        *parents, name = path.split(".")
        for part in parents:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part]
        parent.add_module(name, layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the graph."""
        values: dict[str, Tensor] = {"pixels": pixels}
        for operator, inputs, output, attributes in self.steps:
            if operator == "Conv":
                values[output] = self.get_submodule(output)(values[inputs[0]])
            elif operator == "Cast":
                if inputs[0] in values:  # otherwise it casts weights, which the layers hold
                    values[output] = values[inputs[0]].float()
            elif operator == "Transpose":
                values[output] = values[inputs[0]].permute(attributes["perm"])
            elif operator == "GlobalAveragePool":
                values[output] = values[inputs[0]].mean((2, 3))
            elif operator == "Squeeze":
                values[output] = values[inputs[0]]  # the mean above has removed the axes already
            else:
                arguments = [values[i] if i in values else self._constant(i, pixels.device) for i in inputs]
                values[output] = ELEMENTWISE[operator](*arguments)
        return tuple(values[output.name] for output in self.model.graph.output)

    def _constant(self, name: str, device: torch.device) -> Tensor:
        """Return a constant on a device, to which it is moved once."""
        if self.constants[name].device != device:
            self.constants[name] = self.constants[name].to(device)
        return self.constants[name]

    def export(self) -> bytes:
        """Serialise the graph with the present weights, in fp32."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        for node in self.model.graph.node:
            if node.op_type != "Conv":
                continue
            layer = self.get_submodule(node.name)
            for name, value in zip(node.input[1:3], (layer.weight, layer.bias), strict=True):
                # In place of the stored tensor, or of one stored as fp16 and the cast behind it.
                for stored in [t for t in graph.initializer if t.name in (name, f"{name}.half")]:
                    graph.initializer.remove(stored)
                for cast in [n for n in graph.node if n.output[0] == name]:
                    graph.node.remove(cast)
                array = np.asarray(value.detach().cpu().numpy(), np.float32)
                graph.initializer.append(numpy_helper.from_array(array, name))
        content: bytes = model.SerializeToString(deterministic=True)
        return content


class _PaddedConv2d(nn.Conv2d):  # type: ignore[misc]
    """A convolution whose padding may differ from side to side."""

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.pads) if any(self.pads) else x)


def _convolution(attributes: dict[str, Any], weight: Tensor, bias: Tensor) -> nn.Module:
    layer = _PaddedConv2d(
        weight.shape[1] * attributes["group"],
        weight.shape[0],
        tuple(attributes["kernel_shape"]),
        tuple(attributes["strides"]),
        groups=attributes["group"],
    )
    top, left, bottom, right = attributes["pads"]
    layer.pads = (left, right, top, bottom)
    with torch.no_grad():
        layer.weight.copy_(weight.float())
        layer.bias.copy_(bias.float())
    return layer
