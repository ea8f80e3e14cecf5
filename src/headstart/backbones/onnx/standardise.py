"""Surgery on ONNX graphs: find the taps, bake the normalisation in, cut."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.backbone import FLAT, Tap
from headstart.backbones.onnx.channels_first import channels_first, refill
from headstart.backbones.onnx.folding import fold, fold_constants
from headstart.backbones.onnx.shapes import Shapes, infer
from headstart.errors import BackboneError

INNER = "headstart.input"
# Between the classifier's weights and the graph's output, and between the features and the classifier.
AFTER_CLASSIFIER = {
    "Softmax", "LogSoftmax", "Sigmoid", "Identity", "Reshape", "Flatten", "Squeeze", "Cast", "Add", "Sub", "Mul",
    "Div", "GlobalAveragePool", "ReduceMean", "Clip", "Transpose", "Unsqueeze",
}  # fmt: skip
ONLY_SHAPE = {"Identity", "Reshape", "Flatten", "Squeeze", "Cast", "Dropout", "Unsqueeze"}
POOLS = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "AveragePool"}
NO_TAP = {"Pad", "Slice", "Transpose", "Identity", "Cast", "Shape", "Reshape", "Split"}
MODEL_FIELDS = {"ir_version", "opset_import", "graph", "functions"}  # what is kept of a foreign file
GRAPH_FIELDS = {"name", "node", "initializer", "input", "output"}
READABLE = re.compile(r"[A-Za-z_][\w./:-]{0,47}")


@dataclass(frozen=True)
class Normalisation:
    """``(rgb / 255 - mean) / std`` a channel; ``bgr`` reverses the channels afterwards."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool


@dataclass(frozen=True)
class ImageInput:
    """The picture input of a foreign graph: name, ONNX element type, layout, and sizes where they are fixed."""

    name: str
    dtype: int
    channels_last: bool
    batch: int | None
    height: int | None
    width: int | None


def image_input(model: onnx.ModelProto) -> ImageInput:
    """The one input that takes pictures. Raises BackboneError if there is none, or more than one input."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in fixed]
    if len(inputs) != 1:
        raise BackboneError(f"The graph has {len(inputs)} inputs; expected one that takes pictures.")
    kind = inputs[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]
    if len(dims) != 4:
        raise BackboneError(
            f"The input {inputs[0].name!r} has {len(dims)} dimensions; expected 4: batch, channels and size."
        )
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8):
        raise BackboneError(
            f"The input {inputs[0].name!r} is neither float nor uint8; export the network with float input."
        )
    if dims[1] == 3 or (dims[1] is None and dims[3] != 3):
        return ImageInput(inputs[0].name, kind.elem_type, False, dims[0], dims[2], dims[3])
    if dims[3] == 3:
        return ImageInput(inputs[0].name, kind.elem_type, True, dims[0], dims[1], dims[2])
    raise BackboneError(f"The input {inputs[0].name!r} has shape {dims}; expected 3 colour channels, first or last.")


def standardise(
    model: onnx.ModelProto,
    normalisation: Normalisation,
    size: tuple[int, int],
    extra_taps: Sequence[str],
    known_taps: Mapping[str, str] | None = None,
) -> tuple[Tap, ...]:
    """Bring the graph, in place, into standard form (see ``Backbone``); its taps from shallow to deep.

    ``size`` is (height, width); ``extra_taps`` are further tensors, by tensor or node name; ``known_taps`` are taps by
    name where they need not be found, the features among them. Raises BackboneError.
    """
    source = image_input(model)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not 11 <= opset <= 25:
        raise BackboneError(f"The graph is of opset {opset}; expected 11 to 25: export it again.")
    graph = model.graph
    _lift_constants(graph)
    _free_batch(graph, source)
    shapes = infer(model, source.name, source.channels_last, size)
    tensors = _named_taps(graph, shapes, known_taps, extra_taps)
    depths = _depths(graph, shapes)
    taps, pools = [], []
    for name, tensor in tensors.items():
        reduce = _flattened if name.endswith(FLAT) else _pooled
        pool, channels, area = reduce(tensor, name, shapes, opset, tensors)
        pools += pool
        taps.append(Tap(name, channels, depths[tensor], area))
    taps.sort(key=lambda tap: (tap.depth, not tap.name.endswith(FLAT)))

    # The outputs carry the taps' names, so the tensors they are made from step aside.
    _rename(graph, {source.name: INNER} | {tap.name: f"{tap.name}.map" for tap in taps})
    front, constants = _front(normalisation, source)
    nodes = [*front, *graph.node, *[n for n in pools if isinstance(n, onnx.NodeProto)]]
    graph.initializer.extend([*constants, *[t for t in pools if isinstance(t, onnx.TensorProto)]])
    refill(graph.node, nodes)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *size, 3])
    outputs = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, ["batch", t.channels]) for t in taps]
    refill(graph.input, [pixels])
    refill(graph.output, outputs)
    graph.name, model.ir_version = "headstart-backbone", max(min(model.ir_version, 10), 7)
    prune(model, [tap.name for tap in taps])
    _tidy(model)
    return tuple(taps)


def _tidy(model: onnx.ModelProto) -> None:
    """The same values from less work: constants folded, channels first, padding and scales inside convolutions."""
    try:
        fold_constants(model)
        channels_first(model)
        fold(model)
        prune(model, [output.name for output in model.graph.output])
    except Exception as error:  # a graph whose attributes or constants are not what its operators take
        raise BackboneError(f"The graph is inconsistent: {' '.join(str(error).split())[:200]}") from None


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                _rename(inner, names)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def prune(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Leave, in place, only these outputs, in this order, only the nodes and weights they need, and no remarks.

    In place, here and in the passes after it: a copy of the weights takes longer than all that is done to the graph.
    """
    graph, wanted, kept = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_reads(node))
    refill(graph.node, kept[::-1])
    values = {value.name: value for value in graph.output}
    refill(graph.output, [values[name] for name in outputs])
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in wanted:
            del graph.initializer[place]
    for message, fields in ((model, MODEL_FIELDS), (graph, GRAPH_FIELDS)):
        for field, _ in message.ListFields():
            if field.name not in fields:
                message.ClearField(field.name)
    model.producer_name = "headstart"


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:  # branches of If and bodies of Loop read names of the graph around them
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from _reads(inner)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes that hold a tensor become initializers, so that weights are found in one place."""
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)


def _free_batch(graph: onnx.GraphProto, source: ImageInput) -> None:
    """Let a graph of fixed batch take any: a Reshape that names the batch is told to copy it (0) instead."""
    if source.batch is None:
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.ndim == 1 and len(shape) > 1 and shape[0] == source.batch:
            shape[0] = 0
            name = f"headstart.shape.{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name


def _named_taps(
    graph: onnx.GraphProto, shapes: Shapes, known: Mapping[str, str] | None, extra: Sequence[str]
) -> dict[str, str]:
    """Tap name -> tensor name: those that are known, or else those found; and the extra ones."""
    producer = {name: node for node in graph.node for name in node.output}
    if known is None:
        named = _find_taps(graph, producer, shapes)
    else:
        deepest = _before_average(_through_shape(known["features"], producer), producer, shapes)
        through = {name: _through_identity(tensor, producer) for name, tensor in known.items()} | {"features": deepest}
        named = {name: tensor for name, tensor in through.items() if name == "features" or tensor != deepest}
    nodes = {node.name: node.output[0] for node in graph.node if node.name and node.output}
    for name in extra:
        base = name.removesuffix(FLAT)
        tensor = named.get(base) or (base if base in producer else nodes.get(base, ""))
        if tensor not in shapes.of:
            raise BackboneError(
                f"Unknown cut {name!r}; the taps found are {', '.join(named)}; "
                "any other tensor of the graph can be named too."
            )
        named[name] = tensor
    return named


def _through_identity(tensor: str, producer: dict[str, onnx.NodeProto]) -> str:
    while tensor in producer and producer[tensor].op_type == "Identity":
        tensor = producer[tensor].input[0]
    return tensor


def _find_taps(graph: onnx.GraphProto, producer: dict[str, onnx.NodeProto], shapes: Shapes) -> dict[str, str]:
    """Tap name -> tensor name."""
    features = _before_average(_before_classifier(graph, producer, shapes), producer, shapes)
    ancestors = _ancestors(features, producer)
    by_size: dict[tuple[int, int], str] = {}
    tokens: list[str] = []
    for node in graph.node:
        tensor = node.output[0] if node.output else ""
        if tensor not in ancestors or node.op_type in NO_TAP or tensor not in shapes.of:
            continue
        area = shapes.area(tensor)
        if area is not None and min(area) > 1 and shapes.channels(tensor) >= 4:
            by_size[area] = tensor
        elif node.op_type == "Add" and len(shapes.of[tensor]) == 3:
            tokens.append(tensor)
    maps = [tensor for tensor in by_size.values() if tensor != features]
    if len(tokens) >= 8:  # a transformer: the ends of its quarters; the last is the features' own
        maps += [tokens[round(len(tokens) * part) - 1] for part in (0.25, 0.5, 0.75)]
    named: dict[str, str] = {}
    for tensor in dict.fromkeys(maps):
        name = tensor if READABLE.fullmatch(tensor) else f"size{(shapes.area(tensor) or (len(named),))[0]}"
        named[name if name not in named else f"{name}_{len(named)}"] = tensor
    named["features"] = features
    return named


def _before_classifier(graph: onnx.GraphProto, producer: dict[str, onnx.NodeProto], shapes: Shapes) -> str:
    """The tensor that the classifier's weights multiply; the graph's own output if it ends in features."""
    output = str(graph.output[0].name)
    fixed = {tensor.name for tensor in graph.initializer}
    tensor = output
    while tensor in producer:
        node = producer[tensor]
        if node.op_type in ("Gemm", "MatMul") and len(shapes.of.get(tensor, (0, 0))) == 2:
            return _through_shape(node.input[0], producer)
        if node.op_type == "Conv" and shapes.kernel_of_one(node):
            return _through_shape(node.input[0], producer)
        if node.op_type not in AFTER_CLASSIFIER:
            break
        moving = [name for name in node.input if name and name not in fixed]
        if len(moving) != 1 or (node.op_type in POOLS and (shapes.area(node.input[0]) or (1, 1)) == (1, 1)):
            break
        tensor = moving[0]
    return _through_shape(output, producer)


def _through_shape(tensor: str, producer: dict[str, onnx.NodeProto]) -> str:
    """Back over nodes that only change the shape, to the tensor with the values."""
    while tensor in producer and producer[tensor].op_type in ONLY_SHAPE and producer[tensor].input[0] in producer:
        tensor = producer[tensor].input[0]
    return tensor


def _before_average(tensor: str, producer: dict[str, onnx.NodeProto], shapes: Shapes) -> str:
    """The map that was averaged over space to give ``tensor``: taps average it again, and keep its size."""
    if tensor in producer and producer[tensor].op_type in ("GlobalAveragePool", "ReduceMean"):
        before: str = producer[tensor].input[0]
        if shapes.area(before) is not None and shapes.channels(before) == np.prod(shapes.of[tensor]):
            return before
    return tensor


def _ancestors(tensor: str, producer: dict[str, onnx.NodeProto]) -> set[str]:
    found, stack = set(), [tensor]
    while stack:
        name = stack.pop()
        if name in found or name not in producer:
            continue
        found.add(name)
        stack.extend(_reads(producer[name]))
    return found


def _depths(graph: onnx.GraphProto, shapes: Shapes) -> dict[str, float]:
    """For every tensor the share of the graph's multiply-adds spent up to it."""
    done, total = {}, 0.0
    for node in graph.node:
        total += shapes.cost(node)
        done.update(dict.fromkeys(node.output, total))
    return {name: max(1e-6, cost / total) if total else 1.0 for name, cost in done.items()}


def _pooled(
    tensor: str, name: str, shapes: Shapes, opset: int, taken: Container[str]
) -> tuple[list[onnx.NodeProto | onnx.TensorProto], int, tuple[int, int] | None]:
    """Nodes that average a tensor over space or tokens to [batch, channels] float32; channels; map size."""
    shape, channels, area = shapes.of[tensor], shapes.channels(tensor), shapes.area(tensor)
    axes = {4: (1, 2) if shapes.last(tensor) else (2, 3), 3: (1,), 2: ()}.get(len(shape))
    if axes is None:
        raise BackboneError(f"The tensor {tensor!r} has {len(shape)} dimensions; a cut needs 2, 3 or 4.")
    made: list[onnx.NodeProto | onnx.TensorProto] = []
    inner = f"headstart.float.{name}"
    read = f"{tensor}.map" if tensor in taken else tensor
    made.append(helper.make_node("Cast", [read], [inner if axes else name], to=TensorProto.FLOAT))
    if axes and opset < 18:
        made.append(helper.make_node("ReduceMean", [inner], [name], axes=list(axes), keepdims=0))
    elif axes:
        made.append(numpy_helper.from_array(np.array(axes, np.int64), f"headstart.axes.{name}"))
        made.append(helper.make_node("ReduceMean", [inner, f"headstart.axes.{name}"], [name], keepdims=0))
    return made, channels, area


def _flattened(
    tensor: str, name: str, shapes: Shapes, _opset: int, taken: Container[str]
) -> tuple[list[onnx.NodeProto | onnx.TensorProto], int, tuple[int, int] | None]:
    """Nodes that lay a map out as one vector: row by row, the channels of a place together (Keras's Flatten)."""
    area = shapes.area(tensor)
    if area is None:
        raise BackboneError(f"The tensor {tensor!r} is no map; leave {FLAT} off the cut.")
    read, inner = f"{tensor}.map" if tensor in taken else tensor, f"headstart.float.{name}"
    made: list[onnx.NodeProto | onnx.TensorProto] = [helper.make_node("Cast", [read], [inner], to=TensorProto.FLOAT)]
    if not shapes.last(tensor):
        made.append(helper.make_node("Transpose", [inner], [f"{inner}.last"], perm=[0, 2, 3, 1]))
        inner = f"{inner}.last"
    made.append(helper.make_node("Flatten", [inner], [name], axis=1))
    return made, area[0] * area[1] * shapes.channels(tensor), area


def _front(normalisation: Normalisation, source: ImageInput) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """uint8 [batch, height, width, 3] to what the network wants."""
    std = np.array(normalisation.std, np.float64)
    scale, shift = (1 / (255 * std)), -np.array(normalisation.mean) / std
    constants = [
        numpy_helper.from_array(scale.astype(np.float32), "headstart.scale"),
        numpy_helper.from_array(shift.astype(np.float32), "headstart.shift"),
    ]
    steps: list[tuple[str, list[str], dict[str, object]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    if source.dtype != TensorProto.UINT8:
        steps += [("Mul", ["headstart.scale"], {}), ("Add", ["headstart.shift"], {})]
    if normalisation.bgr:
        constants.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "headstart.bgr"))
        steps.append(("Gather", ["headstart.bgr"], {"axis": 3}))
    if not source.channels_last:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if source.dtype != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": source.dtype}))
    nodes, current = [], "pixels"
    for i, (kind, further, attributes) in enumerate(steps):
        after = INNER if i == len(steps) - 1 else f"headstart.front.{i}"
        nodes.append(helper.make_node(kind, [current, *further], [after], **attributes))
        current = after
    return nodes, constants
