"""Remove transposes: compute a graph in NCHW layout (channels first) wherever its operators allow it.

Graphs from TensorFlow and Keras hold their maps as NHWC [batch, height, width, channels], with a pair of transposes
around each convolution. Here, an NHWC tensor may have an NCHW *counterpart* that is computed in its place. A Transpose
to NHWC is dropped: its input is noted as the counterpart of its output. Operators that work in either layout are
applied to counterparts. A Transpose to NCHW of a tensor with a counterpart is that counterpart. Only an operator that
needs the NHWC layout has the NHWC tensor computed. The input images have a counterpart too: the first node transposes
the uint8 pixels, a quarter of the bytes that a transpose of floats would move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from headstart.backbones.onnx.graph import DEFAULT_DOMAIN, attribute, set_messages
from headstart.backbones.onnx.shapes import weights_as_inputs

TO_NHWC = [0, 2, 3, 1]
TO_NCHW = [0, 3, 1, 2]
NCHW_AXIS = {0: 0, 1: 2, 2: 3, 3: 1, -4: 0, -3: 2, -2: 3, -1: 1}  # by the axis of the NHWC tensor
# Operators on each value by itself: the layout is that of the first input, further inputs are scalars.
ELEMENTWISE = {
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Erf",
    "Exp",
    "Sqrt",
    "Neg",
    "Abs",
    "Softplus",
    "Elu",
    "Selu",
    "Celu",
    "Gelu",
    "Mish",
    "Swish",
    "Softsign",
    "Clip",
    "Cast",
    "Identity",
    "Reciprocal",
    "Dropout",
    "Log",
}
BROADCASTING = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Sum", "PRelu"}
REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"}
RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}

Rule = Callable[[onnx.NodeProto], bool]  # compute a node on counterparts; False where that cannot be done


def channels_first(model: onnx.ModelProto) -> None:
    """Leave, in place, as few transposes of images and maps as can be. Values do not change."""
    layout = _LayoutPass(model)
    for node in model.graph.node:
        layout.add(node)
    set_messages(model.graph.node, layout.nodes)
    model.graph.initializer.extend(layout.constants)


def layout_transposes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that change the layout of images or maps."""
    for node in model.graph.node:
        if node.op_type == "Transpose" and attribute(node, "perm") in (TO_NHWC, TO_NCHW):
            yield node


class _LayoutPass:
    """A pass over the nodes of a graph in their order, which collects the nodes of the new graph.

    ``counterpart`` gives the NCHW tensor for an NHWC tensor, ``replacement`` the tensor to read in place of one whose
    node was dropped, ``transposed_from`` the NHWC tensor of a Transpose to NCHW that stayed; ``computed`` are the NHWC
    tensors with a counterpart that the new graph computes too.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.counterpart: dict[str, str] = {}
        self.replacement: dict[str, str] = {}
        self.transposed_from: dict[str, str] = {}
        self.computed: set[str] = set()
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        inferred = shape_inference.infer_shapes(weights_as_inputs(model)).graph
        self.shapes = {
            value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
            for value in [*model.graph.input, *inferred.value_info, *inferred.output]
            if value.type.tensor_type.HasField("shape")
        }
        for value in model.graph.input:
            if len(self.shapes.get(value.name, ())) == 4 and self.shapes[value.name][3] == 3:
                self.computed.add(value.name)
                self._append("Transpose", [value.name], [self._new_counterpart(value.name)], perm=TO_NCHW)

    def add(self, original: onnx.NodeProto) -> None:
        """Take the next node: drop it, compute it on counterparts, or keep it with the NHWC tensors that it needs."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for i, name in enumerate(node.input):
            node.input[i] = self.replacement.get(name, name)
        perm = attribute(node, "perm") if node.op_type == "Transpose" else None
        if perm == TO_NCHW and node.input[0] in self.counterpart:
            self.replacement[node.output[0]] = self.counterpart[node.input[0]]
            return
        if perm == TO_NHWC and node.input[0] in self.transposed_from:
            self.replacement[node.output[0]] = self.transposed_from[node.input[0]]
            return
        if perm == TO_NHWC and node.input[0] not in self.counterpart:
            self.counterpart[node.output[0]] = node.input[0]
            return
        rule = self._rule(node) if node.domain in DEFAULT_DOMAIN else None
        if rule is not None and rule(node):
            return
        self._keep(node)
        if perm == TO_NCHW:
            self.transposed_from[node.output[0]] = node.input[0]

    def _keep(self, node: onnx.NodeProto) -> None:
        """Keep a node, after transposes that compute the NHWC tensors that it reads."""
        for name in dict.fromkeys(node.input):
            if name in self.counterpart and name not in self.computed:
                self.computed.add(name)
                self._append("Transpose", [self.counterpart[name]], [name], perm=TO_NHWC)
        self.nodes.append(node)

    def _rule(self, node: onnx.NodeProto) -> Rule | None:
        """How to compute a node on counterparts; None where it reads none, or its operator needs its layout."""
        if node.op_type in RESHAPES:
            return self._reshape
        if node.op_type in BROADCASTING:
            return self._broadcast if any(name in self.counterpart for name in node.input) else None
        if not node.input or node.input[0] not in self.counterpart:
            return None
        if node.op_type in ELEMENTWISE:
            return self._elementwise
        if node.op_type in REDUCTIONS:
            return self._reduce
        rules: dict[str, Rule] = {
            "Concat": self._concat,
            "Split": self._split,
            "Gather": self._gather,
            "Pad": self._pad,
            "Slice": self._slice,
        }
        return rules.get(node.op_type)

    def _new_counterpart(self, name: str) -> str:
        self.counterpart[name] = f"{name}.first"
        return self.counterpart[name]

    def _append(self, op_type: str, inputs: list[str], outputs: list[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))

    def _append_like(self, node: onnx.NodeProto, inputs: list[str], outputs: list[str], **attributes: object) -> None:
        """Append a copy of a node with other inputs, outputs and attributes."""
        copied = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._append(node.op_type, inputs, outputs, **{**copied, **attributes})

    def _constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer, None for other tensors."""
        return numpy_helper.to_array(self.initializers[name]) if name in self.initializers else None

    def _add_constant(self, value: NDArray[Any], like: str) -> str:
        name = f"{like}.first.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        if len(node.output) != 1:
            return False
        inputs = [self.counterpart[node.input[0]], *node.input[1:]]
        self._append_like(node, inputs, [self._new_counterpart(node.output[0])])
        return True

    def _broadcast(self, node: onnx.NodeProto) -> bool:
        inputs = []
        for name in node.input:
            value = self._constant(name)
            if name in self.counterpart:
                inputs.append(self.counterpart[name])
            elif value is not None and value.size == 1:
                inputs.append(name)
            elif value is not None and value.ndim <= 4:
                nhwc = value.reshape((1,) * (4 - value.ndim) + value.shape)
                inputs.append(self._add_constant(nhwc.transpose(TO_NCHW), name))
            else:
                return False
        self._append_like(node, inputs, [self._new_counterpart(node.output[0])])
        return True

    def _concat(self, node: onnx.NodeProto) -> bool:
        if not all(name in self.counterpart for name in node.input):
            return False
        self._along_axis(node, [self.counterpart[name] for name in node.input])
        return True

    def _split(self, node: onnx.NodeProto) -> bool:
        self._along_axis(node, [self.counterpart[node.input[0]], *node.input[1:]])
        return True

    def _gather(self, node: onnx.NodeProto) -> bool:
        indices = self._constant(node.input[1])
        if indices is None or indices.ndim != 1:
            return False
        self._along_axis(node, [self.counterpart[node.input[0]], *node.input[1:]])
        return True

    def _along_axis(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        axis = NCHW_AXIS[attribute(node, "axis", 0)]
        self._append_like(node, inputs, [self._new_counterpart(name) for name in node.output], axis=axis)

    def _reduce(self, node: onnx.NodeProto) -> bool:
        """A reduction whose axes are known; without ``keepdims`` only if the remaining axes keep their order."""
        axes_input = self._constant(node.input[1]) if len(node.input) > 1 else None
        if len(node.input) < 2:
            nhwc_axes = attribute(node, "axes")
        else:
            nhwc_axes = None if axes_input is None else axes_input.tolist()
        if not nhwc_axes or attribute(node, "noop_with_empty_axes", 0):
            return False
        axes = sorted(NCHW_AXIS[axis] for axis in nhwc_axes)
        remaining = [NCHW_AXIS[axis] for axis in range(4) if NCHW_AXIS[axis] not in axes]
        keeps_dims = bool(attribute(node, "keepdims", 1))
        if not keeps_dims and remaining != sorted(remaining):
            return False
        source = self.counterpart[node.input[0]]
        output = self._new_counterpart(node.output[0]) if keeps_dims else node.output[0]
        if axes_input is None:
            self._append_like(node, [source], [output], axes=axes)
        else:
            self._append_like(node, [source, self._add_constant(np.array(axes, np.int64), node.input[1])], [output])
        return True

    def _pad(self, node: onnx.NodeProto) -> bool:
        pads = self._constant(node.input[1]) if len(node.input) > 1 else None
        if pads is None or pads.size != 8 or (len(node.input) > 3 and node.input[3]):
            return False
        nchw_pads = self._add_constant(pads.reshape(2, 4)[:, TO_NCHW].reshape(8), node.input[1])
        inputs = [self.counterpart[node.input[0]], nchw_pads, *node.input[2:]]
        self._append_like(node, inputs, [self._new_counterpart(node.output[0])])
        return True

    def _slice(self, node: onnx.NodeProto) -> bool:
        axes = self._constant(node.input[3]) if len(node.input) > 3 else None
        if axes is None:
            return False
        nchw_axes = self._add_constant(np.array([NCHW_AXIS[int(axis)] for axis in axes], np.int64), node.input[3])
        inputs = [self.counterpart[node.input[0]], *node.input[1:3], nchw_axes, *node.input[4:]]
        self._append_like(node, inputs, [self._new_counterpart(node.output[0])])
        return True

    def _reshape(self, node: onnx.NodeProto) -> bool:
        """A reshape to or from maps of 1 x 1 pixel, where both layouts hold the same numbers in the same order."""
        source, result = node.input[0], node.output[0]
        before, after = self.shapes.get(source, []), self.shapes.get(result, [])
        from_pixel = source in self.counterpart and before[1:3] == [1, 1]
        to_pixel = len(after) == 4 and after[1:3] == [1, 1] and after[3] is not None
        if source in self.counterpart and not from_pixel:
            return False
        if to_pixel and (len(before) == 2 or from_pixel):
            shape = [-1, after[3], 1, 1]
        elif from_pixel and len(after) == 2 and after[1] == before[3]:
            shape = [-1, before[3]]
        else:
            return False
        inputs = [
            self.counterpart[source] if from_pixel else source,
            self._add_constant(np.array(shape, np.int64), result),
        ]
        self._append("Reshape", inputs, [self._new_counterpart(result) if to_pixel else result])
        return True
