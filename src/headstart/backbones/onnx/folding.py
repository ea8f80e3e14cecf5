"""Work done once, in the weights: constants, explicit padding, and scales and shifts after convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from headstart.backbones.onnx.channels_first import attribute, refill

Array = NDArray[Any]
ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
FOLDED = (np.float16, np.float32, np.float64, np.int32, np.int64)
NEVER_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid"}


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, nodes whose inputs are all constants by their values, where those are no larger."""
    graph, constants = model.graph, {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in list(graph.node):
        value = None
        if node.input and node.domain in ("", "ai.onnx") and all(name in constants for name in node.input):
            inputs = [numpy_helper.to_array(constants[name]) for name in node.input]
            if all(v.dtype in FOLDED for v in inputs):
                value = _evaluated(node, inputs)
        if value is None:
            kept.append(node)
        else:
            _set(graph, constants, node.output[0], value)
    refill(graph.node, kept)


def fold(model: onnx.ModelProto) -> None:
    """Fold, in place, padding and arithmetic into convolutions. Values change by rounding only; nodes left without a
    reader stay for pruning."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    _fold_pads(model.graph, constants)
    _fold_arithmetic(model.graph, constants)


def _set(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto], name: str, value: Array) -> str:
    constants[name] = graph.initializer.add()
    constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def _evaluated(node: onnx.NodeProto, inputs: Sequence[Array]) -> Array | None:
    """The value of a node whose inputs are known; None for what is not folded here, such as what grows."""
    first = inputs[0]
    if node.op_type == "Identity":
        return first
    if node.op_type == "Transpose":
        return first.transpose(attribute(node, "perm"))
    if node.op_type == "Reshape" and (inputs[1] > 0).all() and np.prod(inputs[1], dtype=float) == first.size:
        return first.reshape([int(n) for n in inputs[1]])
    if node.op_type in ARITHMETIC and first.dtype in (np.float32, np.float64):
        shape = np.broadcast_shapes(first.shape, inputs[1].shape)
        if np.prod(shape, dtype=float) <= max(first.size, inputs[1].size):
            value: Array = ARITHMETIC[node.op_type](first, inputs[1])
            return value.astype(first.dtype)
    return None


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read; names that branches of other nodes read count as outputs do."""
    counts = Counter(name for node in graph.node for name in node.input)
    counts.update(output.name for output in graph.output)
    for node in graph.node:
        for inner in (g for a in node.attribute for g in [a.g, *a.graphs]):
            counts.update(name for n in inner.node for name in n.input)
    return counts


def _fold_pads(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """A Pad of height and width before a Conv or a MaxPool becomes that node's own padding."""
    producer = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        before = producer.get(node.input[0]) if node.op_type in ("Conv", "MaxPool") else None
        if before is None or before.op_type != "Pad":
            continue
        if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" or len(before.input) < 2 or "" in before.input[3:]:
            continue
        read = [numpy_helper.to_array(constants[n]) if n in constants else None for n in before.input[1:] if n]
        if any(value is None for value in read) or len(before.input) > 3 or read[0] is None or read[0].size != 8:
            continue
        filled = float(read[1].item()) if len(read) > 1 and read[1] is not None else 0.0
        pads = read[0].reshape(2, 4)
        if (pads < 0).any() or pads[:, :2].any() or not _pads_alike(node, before, filled, producer):
            continue
        own = np.array(attribute(node, "pads", [0, 0, 0, 0])).reshape(2, 2)
        total = [int(n) for n in (own + pads[:, 2:]).reshape(4)]
        if node.op_type == "MaxPool" and max(total) >= min(attribute(node, "kernel_shape")):
            continue
        kept = [a for a in node.attribute if a.name != "pads"]
        refill(node.attribute, [*kept, helper.make_attribute("pads", total)])
        node.input[0] = before.input[0]


def _pads_alike(
    node: onnx.NodeProto, pad: onnx.NodeProto, filled: float, producer: Mapping[str, onnx.NodeProto]
) -> bool:
    """Whether padding with ``filled`` is what the node's own padding does: zeros for Conv, minus infinity for MaxPool.
    Zeros do as well where no value is below them, and so does the nearest value (Keras on PyTorch pads so): a window
    wider than the padding holds that value itself."""
    mode = attribute(pad, "mode", b"constant")
    if node.op_type == "Conv":
        return mode == b"constant" and filled == 0
    own_pads, rounding = attribute(node, "pads", [0]), attribute(node, "ceil_mode", 0)
    if any(own_pads) or rounding or len(node.output) > 1 or max(attribute(node, "dilations", [1])) > 1:
        return False
    if mode != b"constant":
        return bool(mode == b"edge")
    above = producer.get(pad.input[0])
    return filled <= -3e38 or (filled == 0 and above is not None and above.op_type in NEVER_NEGATIVE)


def _fold_arithmetic(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> None:
    """Put sums, differences, products and quotients with one number a channel into the Conv before them."""
    producer = {name: node for node in graph.node for name in node.output}
    readers, nodes, gone = _readers(graph), list(graph.node), set()
    for at, node in enumerate(nodes):
        if node.op_type not in ARITHMETIC:
            continue
        i = 0 if node.input[1] in constants else 1
        if i == 1 and (node.input[0] not in constants or node.op_type in ("Sub", "Div")):
            continue
        conv = producer.get(node.input[i])
        if conv is None or conv.op_type != "Conv" or readers[conv.output[0]] != 1 or conv.output[0] != node.input[i]:
            continue
        if conv.input[1] not in constants or (len(conv.input) > 2 and conv.input[2] not in constants):
            continue
        weight = numpy_helper.to_array(constants[conv.input[1]])
        number = _a_channel(numpy_helper.to_array(constants[node.input[1 - i]]), len(weight))
        if number is None or weight.dtype != np.float32 or weight.ndim != 4:
            continue
        bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(weight))
        wide, bias = weight.astype(np.float64), bias.astype(np.float64)
        scale = {"Mul": number, "Div": 1 / number}.get(node.op_type) if node.op_type in ("Mul", "Div") else None
        if scale is not None:
            wide, bias = wide * scale[:, None, None, None], bias * scale
        else:
            bias = bias + (number if node.op_type == "Add" else -number)
        name = node.output[0]
        if not (np.isfinite(wide).all() and np.isfinite(bias).all()):
            continue
        names = [_set(graph, constants, f"{name}.{kind}", value.astype(np.float32))
                 for kind, value in (("weight", wide), ("bias", bias))]  # fmt: skip
        read = conv.input[0]
        del conv.input[:]
        conv.input.extend([read, *names])
        conv.output[0] = name
        producer[name] = conv
        gone.add(at)
    refill(graph.node, [node for at, node in enumerate(nodes) if at not in gone])


def _a_channel(value: Array, channels: int) -> NDArray[np.float64] | None:
    """One number a channel, from a constant that broadcasts over a [batch, channels, height, width] map."""
    if value.size == 1 and value.ndim <= 4:
        return np.full(channels, value.item(), np.float64)
    if value.ndim in (3, 4) and value.size == channels and value.shape[-3] == channels:
        return value.reshape(channels).astype(np.float64)
    return None
