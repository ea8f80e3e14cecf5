"""Bring a foreign graph into standard form: uint8 images in, one vector per tap out, the normalisation inside."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.backbone import FLAT, Tap
from headstart.backbones.onnx.channels_first import channels_first
from headstart.backbones.onnx.folding import fold_constants, fold_into_convolutions
from headstart.backbones.onnx.graph import DEFAULT_DOMAIN, prune, rename_tensors, set_messages
from headstart.backbones.onnx.limits import check_operators, check_size
from headstart.backbones.onnx.shapes import Shapes, infer_shapes
from headstart.backbones.onnx.taps import choose_taps, relative_depths
from headstart.errors import BackboneError

INPUT = "headstart.input"  # the normalised images, which the foreign graph read as its input
OPSETS = range(11, 26)
AXES_ARE_INPUT = 18  # from this opset on, the axes of ReduceMean are an input instead of an attribute


@dataclass(frozen=True)
class Normalisation:
    """``(rgb / 255 - mean) / std`` per channel; ``bgr`` reverses the channels afterwards."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool


@dataclass(frozen=True)
class ImageInput:
    """The image input of a foreign graph: name, ONNX element type, layout, and the sizes that are fixed."""

    name: str
    dtype: int
    channels_last: bool
    batch: int | None
    height: int | None
    width: int | None


@dataclass(frozen=True)
class _TapOutput:
    """The nodes and constants that reduce a tap's tensor to its output, [batch, channels] float32."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]
    channels: int


def image_input(model: onnx.ModelProto) -> ImageInput:
    """Describe the one input of a graph. Raises BackboneError if there is not exactly one, or it cannot take images."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise BackboneError(f"The graph has {len(inputs)} inputs; expected one that takes images.")
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    if len(dims) != 4:
        raise BackboneError(f"The input {name!r} has {len(dims)} dimensions; expected 4: batch, channels and size.")
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
        raise BackboneError(f"The input {name!r} is neither float nor uint8; export the network with float input.")
    if dims[1] == 3 or (dims[1] is None and dims[3] != 3):
        return ImageInput(name, tensor.elem_type, False, batch=dims[0], height=dims[2], width=dims[3])
    if dims[3] == 3:
        return ImageInput(name, tensor.elem_type, True, batch=dims[0], height=dims[1], width=dims[2])
    raise BackboneError(f"The input {name!r} has shape {dims}; expected 3 colour channels, first or last.")


def standardise(
    model: onnx.ModelProto,
    normalisation: Normalisation,
    size: tuple[int, int],
    extra_taps: Sequence[str],
    known_taps: Mapping[str, str] | None = None,
) -> tuple[Tap, ...]:
    """Bring the graph, in place, into standard form (see ``Backbone``), and return its taps from shallow to deep.

    ``size`` is (height, width); ``extra_taps`` are further tensors, by tensor or node name; ``known_taps`` are tensors
    by tap name where they need not be searched for, "features" among them. Raises BackboneError, and anything where
    attributes and constants are not what their operators take.
    """
    check_operators(model)
    source = image_input(model)
    opset = next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAIN), 0)
    if opset not in OPSETS:
        raise BackboneError(f"The graph is of opset {opset}; expected {OPSETS[0]} to {OPSETS[-1]}: export it again.")
    graph = model.graph
    _lift_constants(graph)
    _free_batch(graph, source)
    shapes = infer_shapes(model, source.name, source.channels_last, size)
    check_size(graph, shapes, source.batch)
    tensors = choose_taps(graph, shapes, known_taps, extra_taps)
    depths = relative_depths(graph, shapes)
    outputs = {}
    for name, tensor in tensors.items():
        if name.endswith(FLAT):
            outputs[name] = _flattened(tensor, name, shapes, tensors)
        else:
            outputs[name] = _averaged(tensor, name, shapes, opset, tensors)
    taps = [
        Tap(name, outputs[name].channels, depths[tensor], shapes.map_size(tensor)) for name, tensor in tensors.items()
    ]
    taps.sort(key=lambda tap: (tap.depth, not tap.name.endswith(FLAT)))

    # The outputs have the names of the taps, so tensors of these names get others.
    rename_tensors(graph, {source.name: INPUT} | {tap.name: _renamed(tap.name) for tap in taps})
    first_nodes, first_constants = _normalising(normalisation, source)
    graph.initializer.extend(first_constants)
    graph.initializer.extend(tensor for output in outputs.values() for tensor in output.constants)
    set_messages(
        graph.node, [*first_nodes, *graph.node, *(node for output in outputs.values() for node in output.nodes)]
    )
    set_messages(graph.input, [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *size, 3])])
    values = [helper.make_tensor_value_info(tap.name, TensorProto.FLOAT, ["batch", tap.channels]) for tap in taps]
    set_messages(graph.output, values)
    graph.name = "headstart-backbone"
    model.ir_version = max(min(model.ir_version, 10), 7)
    prune(model, [tap.name for tap in taps])
    simplify(model)
    return tuple(taps)


def simplify(model: onnx.ModelProto) -> None:
    """Let the graph, in place, compute the same values with less work.

    Constants are folded, channels come first, and padding, scales and shifts go into convolutions.
    """
    fold_constants(model)
    channels_first(model)
    fold_into_convolutions(model)
    prune(model, [output.name for output in model.graph.output])


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes that hold a tensor into initializers, so that weights are found in one place."""
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)


def _free_batch(graph: onnx.GraphProto, source: ImageInput) -> None:
    """Let a graph of fixed batch take any, where it can: no Reshape names its first size, a multiple of the batch.

    At the fixed batch nothing changes. Whether others give the same values is for ``allowed_batch`` to find out.
    """
    if source.batch is None:
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.ndim != 1 or not len(shape) or shape[0] < 1:
            continue
        if -1 not in shape:
            shape[0] = -1
        elif shape[0] == source.batch:
            shape[0] = 0  # copied from the tensor that is reshaped
            set_messages(node.attribute, [a for a in node.attribute if a.name != "allowzero"])  # by which it is a size
        else:
            continue
        name = f"headstart.shape.{node.output[0]}"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def _renamed(tensor: str) -> str:
    """The new name of a tensor that had the name of a tap."""
    return f"{tensor}.map"


def _as_float(tensor: str, name: str, tap_names: Container[str]) -> onnx.NodeProto:
    """A node that casts the tensor of a tap to float32, under ``name``."""
    source = _renamed(tensor) if tensor in tap_names else tensor
    return helper.make_node("Cast", [source], [name], to=TensorProto.FLOAT)


def _averaged(tensor: str, name: str, shapes: Shapes, opset: int, tap_names: Container[str]) -> _TapOutput:
    """The mean of a tensor over space or tokens. Raises BackboneError for a tensor without channels."""
    rank = len(shapes.by_name[tensor])
    spatial = (1, 2) if shapes.is_channels_last(tensor) else (2, 3)
    axes = {4: spatial, 3: (1,), 2: ()}.get(rank)
    if axes is None:
        raise BackboneError(f"The tensor {tensor!r} has {rank} dimensions; a cut needs 2, 3 or 4.")
    channels = shapes.channels(tensor)
    if not axes:
        return _TapOutput([_as_float(tensor, name, tap_names)], [], channels)
    inner = f"headstart.float.{name}"
    cast = _as_float(tensor, inner, tap_names)
    if opset < AXES_ARE_INPUT:
        mean = helper.make_node("ReduceMean", [inner], [name], axes=list(axes), keepdims=0)
        return _TapOutput([cast, mean], [], channels)
    axes_name = f"headstart.axes.{name}"
    mean = helper.make_node("ReduceMean", [inner, axes_name], [name], keepdims=0)
    return _TapOutput([cast, mean], [numpy_helper.from_array(np.array(axes, np.int64), axes_name)], channels)


def _flattened(tensor: str, name: str, shapes: Shapes, tap_names: Container[str]) -> _TapOutput:
    """A map as one vector: row by row, the channels of a place together (as Keras' Flatten). Raises BackboneError."""
    size = shapes.map_size(tensor)
    if size is None:
        raise BackboneError(f"The tensor {tensor!r} is not a map; leave {FLAT} off the cut.")
    inner = f"headstart.float.{name}"
    nodes = [_as_float(tensor, inner, tap_names)]
    if not shapes.is_channels_last(tensor):
        nodes.append(helper.make_node("Transpose", [inner], [f"{inner}.last"], perm=[0, 2, 3, 1]))
        inner = f"{inner}.last"
    nodes.append(helper.make_node("Flatten", [inner], [name], axis=1))
    return _TapOutput(nodes, [], size[0] * size[1] * shapes.channels(tensor))


def _normalising(
    normalisation: Normalisation, source: ImageInput
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants from uint8 pixels [batch, height, width, 3] to what the network takes."""
    std = np.array(normalisation.std, np.float64)
    scale = 1 / (255 * std)
    shift = -np.array(normalisation.mean) / std
    constants = [
        numpy_helper.from_array(scale.astype(np.float32), "headstart.scale"),
        numpy_helper.from_array(shift.astype(np.float32), "headstart.shift"),
    ]
    steps: list[tuple[str, list[str], dict[str, object]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if source.dtype != TensorProto.UINT8:  # else the network scales by itself
        steps += [("Mul", ["headstart.scale"], {}), ("Add", ["headstart.shift"], {})]
    if normalisation.bgr:
        constants.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "headstart.bgr"))
        steps.append(("Gather", ["headstart.bgr"], {"axis": 3}))
    if not source.channels_last:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if source.dtype != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": source.dtype}))
    nodes = []
    tensor = "pixels"
    for i, (op_type, constant_inputs, attributes) in enumerate(steps):
        output = INPUT if i == len(steps) - 1 else f"headstart.front.{i}"
        nodes.append(helper.make_node(op_type, [tensor, *constant_inputs], [output], **attributes))
        tensor = output
    return nodes, constants
