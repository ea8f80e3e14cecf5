"""Shapes and layouts of every tensor of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from headstart.errors import BackboneError

KEEPS_CHANNELS_FIRST = (
    "Conv",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "BatchNormalization",
    "ConvTranspose",
)
SHAPE_LIKE = 1024  # numbers: constants that shapes depend on are smaller, weights that cost time are larger


@dataclass(frozen=True)
class Shapes:
    """``of``: tensor name -> shape for a batch of one; ``channels_last``: names of 4-D tensors laid out NHWC;
    ``weights``: initializer name -> shape."""

    of: dict[str, tuple[int, ...]]
    channels_last: frozenset[str]
    weights: dict[str, tuple[int, ...]]

    def last(self, tensor: str) -> bool:
        """Whether channels are the last axis of a 4-D tensor."""
        return tensor in self.channels_last

    def channels(self, tensor: str) -> int:
        """How many channels: axis 1 of NCHW, else the last axis."""
        shape = self.of[tensor]
        return shape[1] if len(shape) == 4 and not self.last(tensor) else shape[-1]

    def area(self, tensor: str) -> tuple[int, int] | None:
        """(height, width) of a 4-D tensor, None for others."""
        shape = self.of.get(tensor, ())
        if len(shape) != 4:
            return None
        return (shape[1], shape[2]) if self.last(tensor) else (shape[2], shape[3])

    def kernel_of_one(self, node: onnx.NodeProto) -> bool:
        """Whether a Conv has a 1 x 1 kernel and reads a 1 x 1 map, as a classifier written as a convolution does."""
        weight = self.weights.get(node.input[1], ())
        return len(weight) == 4 and weight[2:] == (1, 1) and self.area(node.input[0]) == (1, 1)

    def cost(self, node: onnx.NodeProto) -> float:
        """Multiply-adds of a Conv, Gemm or MatMul for one picture; 0 for others."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.output[0] not in self.of:
            return 0.0
        out = self.of[node.output[0]]
        weight = self.weights.get(node.input[1]) or self.of.get(node.input[1], ())
        if node.op_type == "Conv":
            return float(np.prod(weight[1:], dtype=float) * np.prod(out, dtype=float))
        inner = self.of.get(node.input[0], (1,))[-1]
        return float(inner * np.prod(out, dtype=float))


def infer(model: onnx.ModelProto, name: str, channels_last: bool, size: tuple[int, int]) -> Shapes:
    """Shapes of all tensors when the input ``name`` gets one picture of (height, width) ``size``.

    ONNX's shape inference first; where it leaves a tensor open, the graph is run once. Raises BackboneError.
    """
    shape = [1, *size, 3] if channels_last else [1, 3, *size]
    probe = without_weights(model)
    _fix_input(probe, name, shape)
    try:
        inferred = shape_inference.infer_shapes(probe, data_prop=True)
    except Exception as error:  # onnx raises several kinds for damaged graphs
        raise BackboneError(f"The graph is inconsistent: {' '.join(str(error).split())[:200]}") from None
    found = {name: tuple(shape)}
    for info in [*inferred.graph.value_info, *inferred.graph.output]:
        tensor = info.type.tensor_type
        dims = [d.dim_value for d in tensor.shape.dim]
        if tensor.HasField("shape") and all(dim > 0 for dim in dims):
            found[info.name] = tuple(dims)
    open_ = [n for node in probe.graph.node for n in node.output if n and n not in found and node.op_type != "Constant"]
    if open_:
        found |= _by_running(model, name, shape, open_)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return Shapes(found, _channels_last(model.graph, name, channels_last, found), weights)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph for shape inference, which copies all it is given: large weights become inputs of their shape."""
    declared = {value.name for value in model.graph.input}
    large = [t for t in model.graph.initializer if np.prod(t.dims, dtype=float) > SHAPE_LIKE]
    inputs = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large if t.name not in declared]
    names = {tensor.name for tensor in large}
    graph = helper.make_graph(
        model.graph.node, model.graph.name, [*model.graph.input, *inputs], model.graph.output,
        [tensor for tensor in model.graph.initializer if tensor.name not in names],
    )  # fmt: skip
    probe = helper.make_model(graph, opset_imports=model.opset_import)
    probe.ir_version = model.ir_version
    probe.functions.extend(model.functions)
    return probe


def _fix_input(probe: onnx.ModelProto, name: str, shape: list[int]) -> None:
    """The input takes ``shape`` and no other, and nothing is said of what comes out."""
    value = next(v for v in probe.graph.input if v.name == name)
    value.CopyFrom(helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape))
    del probe.graph.value_info[:]
    for output in probe.graph.output:
        output.type.tensor_type.ClearField("shape")


def _by_running(model: onnx.ModelProto, name: str, shape: list[int], tensors: list[str]) -> dict[str, tuple[int, ...]]:
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    _fix_input(probe, name, shape)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in tensors)
    kind = next(v for v in probe.graph.input if v.name == name).type.tensor_type.elem_type
    dtype = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}.get(kind, np.uint8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(None, {name: np.zeros(shape, dtype)})
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise BackboneError(f"The graph cannot be run: {' '.join(str(error).split())[:200]}") from None
    return {t: v.shape for t, v in zip(tensors, values, strict=True) if isinstance(v, np.ndarray)}


def _channels_last(
    graph: onnx.GraphProto, name: str, input_last: bool, shapes: dict[str, tuple[int, ...]]
) -> frozenset[str]:
    """Follow the layout through the graph: convolutions are always NCHW, transposes change it, others keep it."""
    last = {name} if input_last else set()
    for node in graph.node:
        moved = False
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            moved = (perm == [0, 2, 3, 1] and node.input[0] not in last) or (
                perm == [0, 1, 2, 3] and node.input[0] in last
            )
        elif node.op_type not in KEEPS_CHANNELS_FIRST:
            moved = any(i in last and len(shapes.get(i, ())) == 4 for i in node.input)
        if moved:
            last.update(node.output)
    return frozenset(last)
