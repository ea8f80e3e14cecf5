"""The graph of headstart-s as a torch module: every convolution a layer of its own name, and back into the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from headstart.errors import BackboneError

SIMPLE = {"Relu": torch.relu, "Add": torch.add, "Mul": torch.mul, "Sub": torch.sub}


class GraphModule(nn.Module):  # type: ignore[misc]
    """Runs the nodes of ``model`` on uint8 pixels [batch, height, width, 3]; gives the values of its outputs.

    Only the operators of the built-in backbone are known. Raises BackboneError for another.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.model = model
        values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        self.constants = {name: v for name, v in values.items() if v.ndim <= 1}
        self.steps: list[tuple[str, list[str], str, dict[str, Any]]] = []
        for node in model.graph.node:
            settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.steps.append((node.op_type, list(node.input), node.output[0], settings))
            if node.op_type == "Cast" and node.input[0] in values:
                values[node.output[0]] = values[node.input[0]].float()
            elif node.op_type == "Conv":
                self._add(node.name, _conv(settings, values[node.input[1]], values[node.input[2]]))
            elif node.op_type not in {*SIMPLE, "Cast", "Transpose", "GlobalAveragePool", "Squeeze"}:
                raise BackboneError(f"The built-in graph has an operator {node.op_type} that cannot be trained.")

    def _add(self, name: str, layer: nn.Module) -> None:
        inner: Any = self
        *folders, last = name.split(".")
        for folder in folders:
            if folder not in inner._modules:
                inner.add_module(folder, nn.Module())
            inner = inner._modules[folder]
        inner.add_module(last, layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        values: dict[str, Tensor] = {"pixels": pixels}
        for kind, inputs, output, settings in self.steps:
            if kind == "Conv":
                values[output] = self.get_submodule(output)(values[inputs[0]])
            elif kind == "Cast":
                if inputs[0] in values:
                    values[output] = values[inputs[0]].float()
            elif kind == "Transpose":
                values[output] = values[inputs[0]].permute(settings["perm"])
            elif kind == "GlobalAveragePool":
                values[output] = values[inputs[0]].mean((2, 3))
            elif kind == "Squeeze":
                values[output] = values[inputs[0]]  # the mean above left no space
            else:
                found = [values[i] if i in values else self.constants[i].to(pixels.device) for i in inputs]
                values[output] = SIMPLE[kind](*found)
        return tuple(values[output.name] for output in self.model.graph.output)

    def export(self) -> bytes:
        """The graph with the weights as they are now, in fp32."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        for node in self.model.graph.node:
            if node.op_type == "Conv":
                layer = self.get_submodule(node.name)
                for name, value in zip(node.input[1:3], (layer.weight, layer.bias), strict=True):
                    array = np.asarray(value.detach().cpu().numpy(), np.float32)
                    for old in [t for t in graph.initializer if t.name in (name, f"{name}.half")]:
                        graph.initializer.remove(old)
                    for cast in [n for n in graph.node if n.output[0] == name]:
                        graph.node.remove(cast)
                    graph.initializer.append(numpy_helper.from_array(array, name))
        result: bytes = model.SerializeToString(deterministic=True)
        return result


class _Padded(nn.Conv2d):  # type: ignore[misc]
    """A convolution whose padding may differ from side to side."""

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.pads) if any(self.pads) else x)


def _conv(settings: dict[str, Any], weight: Tensor, bias: Tensor) -> nn.Module:
    conv = _Padded(
        weight.shape[1] * settings["group"], weight.shape[0], tuple(settings["kernel_shape"]),
        tuple(settings["strides"]), groups=settings["group"],
    )  # fmt: skip
    top, left, bottom, right = settings["pads"]
    conv.pads = (left, right, top, bottom)
    with torch.no_grad():
        conv.weight.copy_(weight.float())
        conv.bias.copy_(bias.float())
    return conv
