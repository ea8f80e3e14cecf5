"""Shape and layout of every tensor of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from headstart.backbones.onnx.graph import attribute
from headstart.backbones.onnx.limited_run import shapes_by_running
from headstart.errors import BackboneError, one_line

ALWAYS_NCHW = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "ConvTranspose")
LARGE_CONSTANT = 1024  # numbers: constants that shapes depend on have fewer, weights that cost time have more


@dataclass(frozen=True)
class Shapes:
    """Shapes for a batch of one.

    ``by_name`` has the shape of each tensor, ``weights`` that of each initializer; ``channels_last`` are the names of
    4-D tensors in NHWC layout, all others are NCHW; ``image`` is the (height, width) of the image.
    """

    by_name: dict[str, tuple[int, ...]]
    channels_last: frozenset[str]
    weights: dict[str, tuple[int, ...]]
    image: tuple[int, int]

    def is_channels_last(self, tensor: str) -> bool:
        """Whether channels are the last axis of a 4-D tensor."""
        return tensor in self.channels_last

    def channels(self, tensor: str) -> int:
        """Number of channels: axis 1 of an NCHW map, else the last axis."""
        shape = self.by_name[tensor]
        return shape[1] if len(shape) == 4 and not self.is_channels_last(tensor) else shape[-1]

    def map_size(self, tensor: str) -> tuple[int, int] | None:
        """(height, width) of a 4-D tensor, None for others."""
        shape = self.by_name.get(tensor, ())
        if len(shape) != 4:
            return None
        return (shape[1], shape[2]) if self.is_channels_last(tensor) else (shape[2], shape[3])

    def shows_the_image(self, tensor: str) -> bool:
        """Whether a tensor is a map of more than one place with the proportions of the image."""
        return _has_proportions(self.map_size(tensor) or (1, 1), self.image)

    def is_fully_connected(self, conv: onnx.NodeProto) -> bool:
        """Whether a Conv has a 1 x 1 kernel and reads a 1 x 1 map: a dense layer written as a convolution."""
        weight = self.weights.get(conv.input[1], ())
        return len(weight) == 4 and weight[2:] == (1, 1) and self.map_size(conv.input[0]) == (1, 1)

    def multiply_adds(self, node: onnx.NodeProto) -> float:
        """Multiply-adds of a Conv, Gemm or MatMul for one image; 0 for others."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.output[0] not in self.by_name:
            return 0.0
        output = self.by_name[node.output[0]]
        if node.op_type == "Conv":
            weight = self.weights.get(node.input[1]) or self.by_name.get(node.input[1], ())
            return float(np.prod(weight[1:], dtype=float) * np.prod(output, dtype=float))
        inner = self.by_name.get(node.input[0], (1,))[-1]
        return float(inner * np.prod(output, dtype=float))


def infer_shapes(model: onnx.ModelProto, name: str, channels_last: bool, size: tuple[int, int]) -> Shapes:
    """Shapes of all tensors when the input ``name`` gets one image of (height, width) ``size``.

    ONNX's shape inference comes first; where it leaves a tensor open, the graph is run once. Raises BackboneError.
    """
    shape = [1, *size, 3] if channels_last else [1, 3, *size]
    probe = weights_as_inputs(model)
    _fix_input(probe, name, shape)
    try:
        inferred = shape_inference.infer_shapes(probe, data_prop=True)
    except Exception as error:  # onnx raises several kinds for damaged graphs
        raise BackboneError(f"The graph is inconsistent: {one_line(error, 200)}") from None
    shapes = {name: tuple(shape)}
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if tensor.HasField("shape") and all(dim > 0 for dim in dims):
            shapes[value.name] = tuple(dims)
    computed = [output for node in probe.graph.node if node.op_type != "Constant" for output in node.output if output]
    unknown = [output for output in computed if output not in shapes]
    if unknown:
        shapes |= _shapes_by_running(model, name, shape, unknown)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return Shapes(shapes, _channels_last(model.graph, name, channels_last, shapes, size), weights, size)


def weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for shape inference, which copies all that it is given: large weights become inputs of their shape."""
    declared = {value.name for value in model.graph.input}
    large = [t for t in model.graph.initializer if np.prod(t.dims, dtype=float) > LARGE_CONSTANT]
    names = {tensor.name for tensor in large}
    graph = helper.make_graph(
        nodes=model.graph.node,
        name=model.graph.name,
        inputs=[
            *model.graph.input,
            *(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large if t.name not in declared),
        ],
        outputs=model.graph.output,
        initializer=[tensor for tensor in model.graph.initializer if tensor.name not in names],
    )
    probe = helper.make_model(graph, opset_imports=model.opset_import)
    probe.ir_version = model.ir_version
    return probe


def _fix_input(probe: onnx.ModelProto, name: str, shape: list[int]) -> None:
    """Let the input take ``shape`` alone, and forget declared shapes of all that is computed from it."""
    value = next(v for v in probe.graph.input if v.name == name)
    value.CopyFrom(helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape))
    del probe.graph.value_info[:]
    for output in probe.graph.output:
        output.type.tensor_type.ClearField("shape")


def _shapes_by_running(
    model: onnx.ModelProto, name: str, shape: list[int], tensors: list[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of ``tensors`` in a run of the graph on one black image. Raises BackboneError."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    _fix_input(probe, name, shape)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in tensors)
    element = next(v for v in probe.graph.input if v.name == name).type.tensor_type.elem_type
    dtype = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}.get(element, "uint8")
    return shapes_by_running(probe.SerializeToString(), name, shape, dtype, tensors)


def _channels_last(
    graph: onnx.GraphProto,
    name: str,
    input_last: bool,
    shapes: dict[str, tuple[int, ...]],
    image: tuple[int, int],
) -> frozenset[str]:
    """Follow the layout through the graph: convolutions are always NCHW, transposes change it, others keep it.

    Where a Reshape makes four axes of tokens, the two that have the proportions of the image are height and width.
    """
    last = {name} if input_last else set()
    for node in graph.node:
        is_last = False
        if node.op_type == "Transpose":
            perm = attribute(node, "perm", [])
            source = node.input[0]
            is_last = (perm == [0, 2, 3, 1] and source not in last) or (perm == [0, 1, 2, 3] and source in last)
        elif node.op_type == "Reshape" and len(shapes.get(node.input[0], ())) != 4:
            axes = shapes.get(node.output[0], ())[1:]
            is_last = len(axes) == 3 and _has_proportions(axes[:2], image) and not _has_proportions(axes[1:], image)
        elif node.op_type not in ALWAYS_NCHW:
            is_last = any(i in last and len(shapes.get(i, ())) == 4 for i in node.input)
        if is_last:
            last.update(node.output)
    return frozenset(last)


def _has_proportions(size: Sequence[int], image: tuple[int, int]) -> bool:
    """Whether (height, width) ``size`` is more than one place, and has the proportions of the image.

    One place more or less is left to rounding, a tenth to convolutions that do not pad.
    """
    height, width = size
    difference = abs(height * image[1] - width * image[0])
    return min(size) > 1 and (difference <= max(image) or difference <= 0.1 * height * image[1])
