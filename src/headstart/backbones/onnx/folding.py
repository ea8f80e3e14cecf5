"""Computations done once, in the weights: constants, explicit padding, and scales and shifts after convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from headstart.backbones.onnx.graph import DEFAULT_DOMAIN, attribute, producers, set_messages

Array = NDArray[Any]
Constants = dict[str, onnx.TensorProto]  # initializers by name
Producers = Mapping[str, onnx.NodeProto]
ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
FOLDED_TYPES = (np.float16, np.float32, np.float64, np.int32, np.int64)
NEVER_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid"}
LOWEST = -3e38  # a padding value from here down, near the lowest float32, is never the maximum of a window


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace, in place, nodes whose inputs are all constants by their values, where those are no larger."""
    graph = model.graph
    constants = _constants(graph)
    remaining = []
    for node in list(graph.node):
        value = _constant_value(node, constants)
        if value is None:
            remaining.append(node)
        else:
            _add_constant(graph, constants, node.output[0], value)
    set_messages(graph.node, remaining)


def fold_into_convolutions(model: onnx.ModelProto) -> None:
    """Fold, in place, padding and arithmetic into convolutions and poolings.

    Values change by rounding alone. Nodes that nothing reads any more are left for ``prune``.
    """
    constants = _constants(model.graph)
    _fold_pads(model.graph, constants)
    _fold_arithmetic(model.graph, constants)


def _constants(graph: onnx.GraphProto) -> Constants:
    return {tensor.name: tensor for tensor in graph.initializer}


def _add_constant(graph: onnx.GraphProto, constants: Constants, name: str, value: Array) -> None:
    constants[name] = graph.initializer.add()
    constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _constant_value(node: onnx.NodeProto, constants: Constants) -> Array | None:
    """The value of a node whose inputs are constants; None for all that is not folded, such as what would grow."""
    if not node.input or node.domain not in DEFAULT_DOMAIN or not all(name in constants for name in node.input):
        return None
    inputs = [numpy_helper.to_array(constants[name]) for name in node.input]
    if not all(value.dtype in FOLDED_TYPES for value in inputs):
        return None
    return _evaluate(node, inputs)


def _evaluate(node: onnx.NodeProto, inputs: Sequence[Array]) -> Array | None:
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


def _fold_pads(graph: onnx.GraphProto, constants: Constants) -> None:
    """Turn a Pad of height and width before a Conv or a MaxPool into the padding of that node."""
    producer = producers(graph)
    for node in graph.node:
        pad = producer.get(node.input[0]) if node.op_type in ("Conv", "MaxPool") else None
        if pad is None or pad.op_type != "Pad" or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        amounts = _spatial_pads(pad, constants)
        if amounts is None or not _pads_alike(node, pad, _pad_value(pad, constants), producer):
            continue
        declared = np.array(attribute(node, "pads", [0, 0, 0, 0])).reshape(2, 2)
        total = [int(n) for n in (declared + amounts).reshape(4)]
        if node.op_type == "MaxPool" and max(total) >= min(attribute(node, "kernel_shape")):
            continue
        others = [a for a in node.attribute if a.name != "pads"]
        set_messages(node.attribute, [*others, helper.make_attribute("pads", total)])
        node.input[0] = pad.input[0]


def _spatial_pads(pad: onnx.NodeProto, constants: Constants) -> Array | None:
    """[[top, left], [bottom, right]] of a Pad of NCHW maps; None if it is not known, negative, or pads other axes."""
    if not 2 <= len(pad.input) <= 3 or any(name not in constants for name in pad.input[1:] if name):
        return None
    if not pad.input[1]:
        return None
    pads = numpy_helper.to_array(constants[pad.input[1]])
    if pads.size != 8:
        return None
    pads = pads.reshape(2, 4)
    return None if (pads < 0).any() or pads[:, :2].any() else pads[:, 2:]


def _pad_value(pad: onnx.NodeProto, constants: Constants) -> float:
    """The constant that a Pad fills in, 0 unless it has one."""
    if len(pad.input) < 3 or not pad.input[2]:
        return 0.0
    return float(numpy_helper.to_array(constants[pad.input[2]]).item())


def _pads_alike(node: onnx.NodeProto, pad: onnx.NodeProto, value: float, producer: Producers) -> bool:
    """Whether padding with ``value`` gives what padding by the node itself does.

    A Conv pads with zeros, a MaxPool with minus infinity. Before a MaxPool zeros do as well where no value is below
    them, and so does the nearest value ("edge", as Keras on PyTorch pads): a window wider than the padding holds that
    value itself.
    """
    mode = attribute(pad, "mode", b"constant")
    if node.op_type == "Conv":
        return mode == b"constant" and value == 0
    has_pads = any(attribute(node, "pads", [0]))
    has_dilations = max(attribute(node, "dilations", [1])) > 1
    if has_pads or has_dilations or attribute(node, "ceil_mode", 0) or len(node.output) > 1:
        return False
    if mode != b"constant":
        return bool(mode == b"edge")
    source = producer.get(pad.input[0])
    return value <= LOWEST or (value == 0 and source is not None and source.op_type in NEVER_NEGATIVE)


def _fold_arithmetic(graph: onnx.GraphProto, constants: Constants) -> None:
    """Fold sums, differences, products and quotients with one number per channel into the Conv before them."""
    producer = producers(graph)
    readers = _reader_counts(graph)
    nodes = list(graph.node)
    folded = set()
    for index, node in enumerate(nodes):
        operand = _constant_operand(node, constants)
        if operand is None:
            continue
        source = node.input[1 - operand]
        conv = producer.get(source)
        if conv is None or conv.op_type != "Conv" or conv.output[0] != source or readers[source] != 1:
            continue
        parameters = _scaled_and_shifted(conv, node.op_type, constants[node.input[operand]], constants)
        if parameters is None:
            continue
        name = node.output[0]
        for kind, value in zip(("weight", "bias"), parameters, strict=True):
            _add_constant(graph, constants, f"{name}.{kind}", value.astype(np.float32))
        pixels = conv.input[0]
        del conv.input[:]
        conv.input.extend([pixels, f"{name}.weight", f"{name}.bias"])
        conv.output[0] = name
        producer[name] = conv
        folded.add(index)
    set_messages(graph.node, [node for index, node in enumerate(nodes) if index not in folded])


def _reader_counts(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read, by nodes, by the graphs inside them, or as an output."""
    counts = Counter(name for node in graph.node for name in node.input)
    counts.update(output.name for output in graph.output)
    return counts


def _constant_operand(node: onnx.NodeProto, constants: Constants) -> int | None:
    """Which input of a node of arithmetic is the constant; None where that cannot be folded."""
    if node.op_type not in ARITHMETIC:
        return None
    if node.input[1] in constants:
        return 1
    is_commutative = node.op_type in ("Add", "Mul")
    return 0 if is_commutative and node.input[0] in constants else None


def _scaled_and_shifted(
    conv: onnx.NodeProto, op_type: str, operand: onnx.TensorProto, constants: Constants
) -> tuple[Array, Array] | None:
    """Weight and bias (float64) of a Conv with the operation that follows it; None where they cannot be folded."""
    if any(name not in constants for name in conv.input[1:3]):
        return None
    weight = numpy_helper.to_array(constants[conv.input[1]])
    number = _per_channel(numpy_helper.to_array(operand), len(weight))
    if number is None or weight.dtype != np.float32 or weight.ndim != 4:
        return None
    bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 else np.zeros(len(weight))
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    if op_type in ("Mul", "Div"):
        scale = number if op_type == "Mul" else 1 / number
        weight, bias = weight * scale[:, None, None, None], bias * scale
    else:
        bias = bias + (number if op_type == "Add" else -number)
    return (weight, bias) if np.isfinite(weight).all() and np.isfinite(bias).all() else None


def _per_channel(value: Array, channels: int) -> NDArray[np.float64] | None:
    """One number per channel, of a constant that broadcasts over [batch, channels, height, width]; else None."""
    if value.size == 1 and value.ndim <= 4:
        return np.full(channels, value.item(), np.float64)
    if value.ndim in (3, 4) and value.size == channels and value.shape[-3] == channels:
        return value.reshape(channels).astype(np.float64)
    return None
