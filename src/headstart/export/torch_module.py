"""An ONNX graph of a model as a PyTorch module, to be exported: each kind of node is one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from headstart.backbones.onnx.graph import attribute
from headstart.errors import OptionError

Value = Any  # a Tensor, or None for an input that is left out
Translation = Callable[[onnx.NodeProto, Sequence[Value], Sequence[list[int] | None]], Value]
DTYPES = {1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}


class OnnxModule(nn.Module):  # type: ignore[misc]
    """Computes the outputs of a graph, by name, of uint8 pixels [batch, height, width, 3].

    Weights are buffers. Raises OptionError for a kind of node, or a form of one, that is not translated.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            folded = _fold(node, constants)
            if folded is not None:
                constants[node.output[0]] = folded
            elif node.op_type in TRANSLATIONS or node.op_type == "Shape":
                self.nodes.append(node)
            else:
                raise OptionError(f"--to torch has no translation of the operator {node.op_type}; export --to onnx.")
        used = {name for node in self.nodes for name in node.input} & set(constants)
        self.buffer_of = {name: f"weight_{i}" for i, name in enumerate(sorted(used))}
        for name, buffer in self.buffer_of.items():
            self.register_buffer(buffer, torch.from_numpy(constants[name].copy()))
        # What shapes, axes and limits are: numbers that are known now.
        self.numbers = {
            name: array.reshape(-1).tolist()
            for name, array in constants.items()
            if array.size <= 16 and (array.dtype == np.int64 or array.ndim == 0)
        }
        self.outputs = [output.name for output in graph.output]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute the outputs."""
        values: dict[str, Value] = {name: getattr(self, buffer) for name, buffer in self.buffer_of.items()}
        values |= {"pixels": pixels, "": None}
        known, computed = dict(self.numbers), set[str]()  # numbers, and which of them come from shapes
        for node in self.nodes:
            numbers = [known.get(name) for name in node.input]
            if node.op_type == "Shape":
                shape = list(values[node.input[0]].shape)
                known[node.output[0]] = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
            elif computed.intersection(node.input) and None not in numbers and node.op_type in OF_SHAPES:
                known[node.output[0]] = OF_SHAPES[node.op_type](numbers)
            else:
                result = TRANSLATIONS[node.op_type](node, [values.get(name) for name in node.input], numbers)
                values |= dict(zip(node.output, result if isinstance(result, tuple) else [result], strict=False))
                continue
            computed.add(node.output[0])
        return {name: values[name] for name in self.outputs}


def _fold(node: onnx.NodeProto, constants: dict[str, Any]) -> Any:
    """Return the value of a node that has one already: weights that are stored as fp16, and constants."""
    if node.op_type == "Constant":
        return numpy_helper.to_array(attribute(node, "value", None))
    if node.op_type == "Cast" and node.input[0] in constants:
        return constants[node.input[0]].astype(onnx.helper.tensor_dtype_to_np_dtype(attribute(node, "to", 1)))
    return None


def _conv(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    x, weight = values[:2]
    bias = values[2] if len(values) > 2 else None
    if weight.ndim != 4:
        raise OptionError("--to torch has no translation of a convolution that is not of images; export --to onnx.")
    top, left, bottom, right = _pads(node)
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    ones = [1, 1]
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    return functional.conv2d(x, weight, bias, list(strides), padding, list(dilations), attribute(node, "group", 1))


def _pads(node: onnx.NodeProto) -> tuple[int, int, int, int]:
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise OptionError(f"--to torch has no translation of a {node.op_type} with auto_pad; export --to onnx.")
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    return top, left, bottom, right


def _max_pool(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    top, left, bottom, right = _pads(node)
    if attribute(node, "ceil_mode", 0) or len(node.output) > 1:
        raise OptionError("--to torch has no translation of such a MaxPool; export --to onnx.")
    x = functional.pad(values[0], (left, right, top, bottom), value=float("-inf"))
    kernel = list(attribute(node, "kernel_shape", []))
    ones = [1] * len(kernel)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    return functional.max_pool2d(x, kernel, list(strides), 0, list(dilations))


def _average_pool(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    top, left, bottom, right = _pads(node)
    kernel = list(attribute(node, "kernel_shape", []))
    ones = [1] * len(kernel)
    if (top, left) != (bottom, right) or list(attribute(node, "dilations", ones)) != ones:
        raise OptionError("--to torch has no translation of such an AveragePool; export --to onnx.")
    strides, rounds_up = list(attribute(node, "strides", ones)), bool(attribute(node, "ceil_mode", 0))
    counts_pads = bool(attribute(node, "count_include_pad", 0))
    return functional.avg_pool2d(values[0], kernel, strides, (top, left), rounds_up, counts_pads)


def _batch_norm(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    if attribute(node, "training_mode", 0) or len(node.output) > 1:
        raise OptionError("--to torch has no translation of a BatchNormalization in training; export --to onnx.")
    x, scale, bias, mean, variance = values
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attribute(node, "epsilon", 1e-5))


def _flatten(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    axis = attribute(node, "axis", 1)
    if axis not in (1, 1 - values[0].ndim):  # PyTorch's keeps the axes before, ONNX joins them to one
        raise OptionError(f"--to torch has no translation of a Flatten at axis {axis}; export --to onnx.")
    return values[0].flatten(1)


def _gemm(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    first, second = values[:2]
    first = first.t() if attribute(node, "transA", 0) else first
    second = second.t() if attribute(node, "transB", 0) else second
    product = (first @ second) * attribute(node, "alpha", 1.0)
    return product + values[2] * attribute(node, "beta", 1.0) if len(values) > 2 and values[2] is not None else product


def _clip(_: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    limits: list[Any] = [None, None]
    for i in range(1, len(values)):
        number = numbers[i]
        if number:
            limits[i - 1] = number[0]
        elif values[i] is not None:
            raise OptionError("--to torch has no translation of a Clip whose limits are computed; export --to onnx.")
    return torch.clamp(values[0], *limits)


def _axes(node: onnx.NodeProto, numbers: Sequence[list[int] | None]) -> list[int]:
    """Return the axes of a node: its second input, or, in older graphs, an attribute."""
    given = numbers[1] if len(numbers) > 1 else attribute(node, "axes", None)
    if given is None:
        raise OptionError(f"--to torch has no translation of a {node.op_type} of all axes; export --to onnx.")
    return list(given)


def _reduce_mean(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    return values[0].mean(_axes(node, numbers), keepdim=bool(attribute(node, "keepdims", 1)))


def _squeeze(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    return values[0].squeeze(tuple(_axes(node, numbers)))


def _unsqueeze(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    x = values[0]
    axes = _axes(node, numbers)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reshape(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    sizes = numbers[1]
    if sizes is None:
        raise OptionError("--to torch has no translation of a Reshape to a computed shape; export --to onnx.")
    if not attribute(node, "allowzero", 0):
        sizes = [values[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return values[0].reshape(sizes)


def _slice(_: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    x = values[0]
    starts, ends = numbers[1:3]
    axes = numbers[3] if len(numbers) > 3 else list(range(len(starts or [])))
    steps = numbers[4] if len(numbers) > 4 else None
    if starts is None or ends is None or axes is None or (steps and any(step < 1 for step in steps)):
        raise OptionError("--to torch has no translation of such a Slice; export --to onnx.")
    for i, axis in enumerate(axes):
        index: list[Any] = [slice(None)] * x.ndim
        index[axis] = slice(starts[i], ends[i], steps[i] if steps else 1)
        x = x[tuple(index)]
    return x


def _split(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Sequence[Tensor]:
    axis = attribute(node, "axis", 0)
    parts = len(node.output)
    sizes = numbers[1] if len(numbers) > 1 and numbers[1] else -(-values[0].shape[axis] // parts)
    return tuple(torch.split(values[0], sizes, axis))


def _gather(node: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    axis = attribute(node, "axis", 0)
    if not numbers[1] or values[1].ndim > 1:
        raise OptionError("--to torch has no translation of a Gather by computed places; export --to onnx.")
    if values[1].ndim == 0:
        return values[0].select(axis, numbers[1][0])
    return values[0].index_select(axis, values[1] % values[0].shape[axis])


def _arg_max(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    if attribute(node, "select_last_index", 0):
        raise OptionError("--to torch has no translation of an ArgMax that takes the last place; export --to onnx.")
    return values[0].argmax(attribute(node, "axis", 0), bool(attribute(node, "keepdims", 1)))


def _layer_norm(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    x = values[0]
    shape = list(x.shape[attribute(node, "axis", -1) :])
    bias = values[2] if len(values) > 2 else None
    return functional.layer_norm(x, shape, values[1], bias, attribute(node, "epsilon", 1e-5))


def _gelu(node: onnx.NodeProto, values: Sequence[Value], _: Sequence[list[int] | None]) -> Tensor:
    return functional.gelu(values[0], approximate=attribute(node, "approximate", b"none").decode())


def _expand(_: onnx.NodeProto, values: Sequence[Value], numbers: Sequence[list[int] | None]) -> Tensor:
    sizes = numbers[1]
    if sizes is None:
        raise OptionError("--to torch has no translation of an Expand to a computed shape; export --to onnx.")
    sizes = [1] * (values[0].ndim - len(sizes)) + sizes
    # A size of 1 keeps that of the tensor. The size of the batch is a symbol, of which that must not be asked.
    return values[0].expand([-1 if isinstance(size, int) and size == 1 else size for size in sizes])


# Nodes between the shape of a tensor and the shape of another: lists of numbers to one.
OF_SHAPES: dict[str, Callable[[Sequence[Any]], list[int]]] = {
    "Concat": lambda parts: [size for part in parts for size in part],
    "Gather": lambda parts: [parts[0][i] for i in parts[1]],
    "Slice": lambda parts: parts[0][parts[1][0] : parts[2][0] : parts[4][0] if len(parts) > 4 else 1],
    "Squeeze": lambda parts: parts[0],
    "Unsqueeze": lambda parts: parts[0],
}


def _of_values(function: Callable[..., Any]) -> Translation:
    return lambda _, values, __: function(*values)


TRANSLATIONS: dict[str, Translation] = {
    **{
        name: _of_values(function)
        for name, function in {
            "Add": torch.add,
            "Div": torch.div,
            "Erf": torch.erf,
            "Exp": torch.exp,
            "HardSwish": functional.hardswish,
            "Identity": torch.clone,
            "Log": torch.log,
            "MatMul": torch.matmul,
            "Mul": torch.mul,
            "Neg": torch.neg,
            "Pow": torch.pow,
            "Relu": torch.relu,
            "Sigmoid": torch.sigmoid,
            "Sqrt": torch.sqrt,
            "Sub": torch.sub,
            "Tanh": torch.tanh,
        }.items()
    },
    "ArgMax": _arg_max,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda node, values, _: values[0].to(DTYPES[attribute(node, "to", 1)]),
    "Clip": _clip,
    "Concat": lambda node, values, _: torch.cat(list(values), attribute(node, "axis", 0)),
    "Conv": _conv,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, values, __: values[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda node, values, _: torch.clamp(
        values[0] * attribute(node, "alpha", 0.2) + attribute(node, "beta", 0.5), 0, 1
    ),
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": lambda node, values, _: torch.softmax(values[0], attribute(node, "axis", -1)),
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": lambda node, values, _: values[0].permute(list(attribute(node, "perm", range(values[0].ndim)[::-1]))),
    "Unsqueeze": _unsqueeze,
}
