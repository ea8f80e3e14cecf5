"""Channels first: push the transposes of an NHWC graph through it, until they meet and vanish.

Every tensor laid out [batch, height, width, channels] may have a *twin* [batch, channels, height, width] that is
computed in its place. A Transpose to NHWC only notes its input as the twin of its output; operators that do not care
are computed on twins; a Transpose to NCHW of a tensor with a twin is that twin. Only an operator that needs the NHWC
layout has it made. The pictures themselves have a twin: the first node turns the uint8 pixels, a quarter of the bytes
that a transpose of floats would move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from headstart.backbones.onnx.shapes import without_weights

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
AXIS = {0: 0, 1: 2, 2: 3, 3: 1, -4: 0, -3: 2, -2: 3, -1: 1}  # of the NHWC tensor -> of its twin
# The first input decides the layout; the others are scalars.
UNARY = {
    "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Exp", "Sqrt", "Neg", "Abs", "Softplus",
    "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "Softsign", "Clip", "Cast", "Identity", "Reciprocal", "Dropout",
    "Log",
}  # fmt: skip
BROADCASTING = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Sum", "PRelu"}
REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"}


def channels_first(model: onnx.ModelProto) -> None:
    """Leave, in place, as few transposes of pictures and maps as can be. Values do not change."""
    nested = any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute)
    if nested:  # branches read names of the graph around them
        return
    turned = _Turning(model)
    for node in model.graph.node:
        turned.add(node)
    refill(model.graph.node, turned.nodes)
    model.graph.initializer.extend(turned.constants)


def refill(field: Any, messages: Iterable[Any]) -> None:
    """Let a repeated field (nodes, outputs, attributes) hold these messages, which may be some of its own, alone."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


class _Turning:
    """A walk over the nodes in order. ``twin`` names NHWC tensors' twins, ``same`` tensors that another replaces,
    ``made`` the NHWC tensors that exist after all."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.twin: dict[str, str] = {}
        self.same: dict[str, str] = {}
        self.made: set[str] = set()
        self.first_of: dict[str, str] = {}  # a Transpose to NCHW that stayed: its output -> its input
        self.values = {tensor.name: tensor for tensor in model.graph.initializer}
        inferred = shape_inference.infer_shapes(without_weights(model)).graph
        self.shapes = {
            value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
            for value in [*model.graph.input, *inferred.value_info, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }
        for value in model.graph.input:
            if len(self.shapes.get(value.name, ())) == 4 and self.shapes[value.name][3] == 3:
                self.made.add(value.name)
                self._emit("Transpose", [value.name], [self._turn(value.name)], perm=TO_FIRST)

    def add(self, original: onnx.NodeProto) -> None:
        """Take the next node: drop it, compute it on twins, or keep it with the NHWC tensors it needs."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for i, name in enumerate(node.input):
            node.input[i] = self.same.get(name, name)
        perm = attribute(node, "perm") if node.op_type == "Transpose" else None
        if perm == TO_FIRST and node.input[0] in self.twin:
            self.same[node.output[0]] = self.twin[node.input[0]]
        elif perm == TO_LAST and node.input[0] in self.first_of:
            self.same[node.output[0]] = self.first_of[node.input[0]]
        elif perm == TO_LAST and node.input[0] not in self.twin:
            self.twin[node.output[0]] = node.input[0]
        elif node.domain in ("", "ai.onnx") and (turn := self._rule(node)) is not None and turn(node):
            pass
        else:
            self._keep(node)
            if perm == TO_FIRST:
                self.first_of[node.output[0]] = node.input[0]

    def _keep(self, node: onnx.NodeProto) -> None:
        for name in dict.fromkeys(node.input):
            if name in self.twin and name not in self.made:
                self.made.add(name)
                self._emit("Transpose", [self.twin[name]], [name], perm=TO_LAST)
        self.nodes.append(node)

    def _rule(self, node: onnx.NodeProto) -> Callable[[onnx.NodeProto], bool] | None:
        kind = node.op_type
        if kind in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            return self._reshape
        if kind in BROADCASTING:
            return self._broadcast if any(name in self.twin for name in node.input) else None
        if not node.input or node.input[0] not in self.twin:
            return None
        if kind in UNARY:
            return self._unary
        if kind in REDUCTIONS:
            return self._reduce
        return {"Concat": self._along, "Split": self._along, "Gather": self._along, "Pad": self._pad,
                "Slice": self._slice}.get(kind)  # fmt: skip

    def _turn(self, name: str) -> str:
        self.twin[name] = f"{name}.first"
        return self.twin[name]

    def _emit(self, kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def _again(self, node: onnx.NodeProto, inputs: list[str], outputs: list[str], **changed: object) -> bool:
        """The node with other inputs, outputs and attributes."""
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._emit(node.op_type, inputs, outputs, **{**kept, **changed})
        return True

    def _constant(self, name: str) -> NDArray[np.generic] | None:
        return numpy_helper.to_array(self.values[name]) if name in self.values else None

    def _new(self, value: NDArray[np.generic], like: str) -> str:
        name = f"{like}.first.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _unary(self, node: onnx.NodeProto) -> bool:
        if len(node.output) != 1:
            return False
        return self._again(node, [self.twin[node.input[0]], *node.input[1:]], [self._turn(node.output[0])])

    def _broadcast(self, node: onnx.NodeProto) -> bool:
        inputs = []
        for name in node.input:
            value = self._constant(name)
            if name in self.twin:
                inputs.append(self.twin[name])
            elif value is not None and value.size == 1:
                inputs.append(name)
            elif value is not None and value.ndim <= 4:
                whole = value.reshape((1,) * (4 - value.ndim) + value.shape)
                inputs.append(self._new(whole.transpose(TO_FIRST), name))
            else:
                return False
        return self._again(node, inputs, [self._turn(node.output[0])])

    def _along(self, node: onnx.NodeProto) -> bool:
        """Concat, Split and Gather work along an axis."""
        axis, inputs = attribute(node, "axis", 0), list(node.input)
        if node.op_type == "Concat":
            if not all(name in self.twin for name in inputs):
                return False
            inputs = [self.twin[name] for name in inputs]
        else:
            indices = self._constant(inputs[1]) if node.op_type == "Gather" else None
            if node.op_type == "Gather" and (indices is None or indices.ndim != 1):
                return False
            inputs[0] = self.twin[inputs[0]]
        return self._again(node, inputs, [self._turn(name) for name in node.output], axis=AXIS[axis])

    def _reduce(self, node: onnx.NodeProto) -> bool:
        given = self._constant(node.input[1]) if len(node.input) > 1 else None
        listed = attribute(node, "axes") if len(node.input) < 2 else (None if given is None else given.tolist())
        if not listed or attribute(node, "noop_with_empty_axes", 0):
            return False
        axes = sorted(AXIS[axis] for axis in listed)
        left = [AXIS[axis] for axis in range(4) if AXIS[axis] not in axes]
        keeps = bool(attribute(node, "keepdims", 1))
        if not keeps and left != sorted(left):
            return False
        output = self._turn(node.output[0]) if keeps else node.output[0]
        if given is None:
            return self._again(node, [self.twin[node.input[0]]], [output], axes=axes)
        changed = self._new(np.array(axes, np.int64), node.input[1])
        return self._again(node, [self.twin[node.input[0]], changed], [output])

    def _pad(self, node: onnx.NodeProto) -> bool:
        pads = self._constant(node.input[1]) if len(node.input) > 1 else None
        if pads is None or pads.size != 8 or (len(node.input) > 3 and node.input[3]):
            return False
        changed = self._new(pads.reshape(2, 4)[:, TO_FIRST].reshape(8), node.input[1])
        return self._again(node, [self.twin[node.input[0]], changed, *node.input[2:]], [self._turn(node.output[0])])

    def _slice(self, node: onnx.NodeProto) -> bool:
        axes = self._constant(node.input[3]) if len(node.input) > 3 else None
        if axes is None:
            return False
        changed = self._new(np.array([AXIS[int(axis)] for axis in axes], np.int64), node.input[3])
        inputs = [self.twin[node.input[0]], *node.input[1:3], changed, *node.input[4:]]
        return self._again(node, inputs, [self._turn(node.output[0])])

    def _reshape(self, node: onnx.NodeProto) -> bool:
        """To and from maps of one pixel, where both layouts hold the same numbers in the same order."""
        before, after = self.shapes.get(node.input[0], []), self.shapes.get(node.output[0], [])
        from_pixel = node.input[0] in self.twin and before[1:3] == [1, 1]
        to_pixel = len(after) == 4 and after[1:3] == [1, 1] and after[3] is not None
        if node.input[0] in self.twin and not from_pixel:
            return False
        channels = after[3] if to_pixel else (before[3] if from_pixel else None)
        if to_pixel and (len(before) == 2 or from_pixel):
            shape = [-1, channels, 1, 1]
        elif from_pixel and len(after) == 2 and after[1] == channels:
            shape = [-1, channels]
        else:
            return False
        source = self.twin[node.input[0]] if from_pixel else node.input[0]
        output = self._turn(node.output[0]) if to_pixel else node.output[0]
        self._emit("Reshape", [source, self._new(np.array(shape, np.int64), node.output[0])], [output])
        return True


def transposes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes that move pictures or maps between the layouts."""
    for node in model.graph.node:
        if node.op_type == "Transpose" and attribute(node, "perm") in (TO_LAST, TO_FIRST):
            yield node
