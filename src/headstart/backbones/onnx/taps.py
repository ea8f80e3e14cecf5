"""The search for taps: the features before the classifier, and the last map of each resolution."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

from headstart.backbones.backbone import FLAT
from headstart.backbones.onnx.graph import producers
from headstart.backbones.onnx.shapes import Shapes
from headstart.errors import BackboneError

# Operators between the classifier's weights and the graph's output.
AFTER_CLASSIFIER = {
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "GlobalAveragePool",
    "ReduceMean",
    "Clip",
    "Transpose",
    "Unsqueeze",
}
# Operators between the features and the classifier, which leave the values as they are.
RESHAPING = {"Identity", "Reshape", "Flatten", "Squeeze", "Cast", "Dropout", "Unsqueeze"}
POOLINGS = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "AveragePool"}
NOT_TAPPED = {"Pad", "Slice", "Transpose", "Identity", "Cast", "Shape", "Reshape", "Split"}
READABLE = re.compile(r"[A-Za-z_][\w./:-]{0,47}")  # a tensor's name that is fit to be a tap's
MIN_CHANNELS = 4  # of a map that is tapped
MIN_BLOCKS = 8  # residual sums of tokens in a graph that is taken to be a transformer
MAX_OUTPUTS = 32  # that are compared; of a hostile graph there may be a hundred thousand
MAIN_WORK = 0.9  # of the multiply-adds that any output needs: those of an output from which the features are found
QUARTERS = (0.25, 0.5, 0.75)

Producers = Mapping[str, onnx.NodeProto]


def choose_taps(
    graph: onnx.GraphProto, shapes: Shapes, known: Mapping[str, str] | None, extra: Sequence[str]
) -> dict[str, str]:
    """Tensor name by tap name: of the ``known`` taps, or else of those found, and of the ``extra`` ones.

    ``known`` are tensors by tap name, "features" among them. ``extra`` are names of taps, tensors or nodes, with
    ``FLAT`` behind them or not. Raises BackboneError for an extra name that the graph does not have.
    """
    producer = producers(graph)
    taps = _find_taps(graph, producer, shapes) if known is None else _known_taps(known, producer, shapes)
    nodes = {node.name: node.output[0] for node in graph.node if node.name and node.output}
    for name in extra:
        base = name.removesuffix(FLAT)
        tensor = taps.get(base) or (base if base in producer else nodes.get(base, ""))
        if tensor not in shapes.by_name:
            raise BackboneError(
                f"Unknown cut {name!r}; the taps found are {', '.join(taps)}; "
                "any other tensor of the graph can be named too."
            )
        taps[name] = tensor
    return taps


def relative_depths(graph: onnx.GraphProto, shapes: Shapes) -> dict[str, float]:
    """For each tensor, the share of the graph's multiply-adds that is spent up to it, in (0, 1]."""
    spent: dict[str, float] = {}
    total = 0.0
    for node in graph.node:
        total += shapes.multiply_adds(node)
        spent.update(dict.fromkeys(node.output, total))
    return {name: max(1e-6, cost / total) if total else 1.0 for name, cost in spent.items()}


def _known_taps(known: Mapping[str, str], producer: Producers, shapes: Shapes) -> dict[str, str]:
    features = _before_average(_before_reshaping(known["features"], producer), producer, shapes)
    taps = {name: _before_identity(tensor, producer) for name, tensor in known.items()} | {"features": features}
    return {name: tensor for name, tensor in taps.items() if name == "features" or tensor != features}


def _find_taps(graph: onnx.GraphProto, producer: Producers, shapes: Shapes) -> dict[str, str]:
    """The features, and on the way to them the last map of each resolution, or the ends of a transformer's quarters.

    A map that all ways pass comes before one of a branch.
    """
    features = _before_average(_before_classifier(graph, producer, shapes), producer, shapes)
    ancestors = _ancestors(features, producer)
    attention = _attention_sizes(graph, producer, shapes)
    passed = _passed_by_all(graph, ancestors, features)
    last_of_size: dict[tuple[int, int], str] = {}
    tokens: list[str] = []
    for node in graph.node:
        tensor = node.output[0] if node.output else ""
        if tensor not in ancestors or node.op_type in NOT_TAPPED or tensor not in shapes.by_name:
            continue
        size = shapes.map_size(tensor)
        is_map = shapes.shows_the_image(tensor) and (tensor in passed or size not in attention)
        if size is not None and is_map and shapes.channels(tensor) >= MIN_CHANNELS:
            is_better = tensor in passed or last_of_size.get(size) not in passed
            last_of_size[size] = tensor if is_better else last_of_size[size]
        elif node.op_type == "Add" and len(shapes.by_name[tensor]) == 3:
            tokens.append(tensor)
    found = {tensor: f"size{size[0]}" for size, tensor in last_of_size.items() if tensor != features}
    if len(found) <= 1 and len(tokens) >= MIN_BLOCKS:  # the last quarter ends with the features themselves
        found |= {tokens[round(len(tokens) * part) - 1]: f"quarter{i}" for i, part in enumerate(QUARTERS, 1)}
    taps: dict[str, str] = {}
    for tensor, short_name in found.items():
        name = tensor if READABLE.fullmatch(tensor) else short_name
        taps[name if name not in taps else f"{name}_{len(taps)}"] = tensor
    taps["features"] = features
    return taps


def passed_by_all(steps: Sequence[tuple[Iterable[str], Iterable[str]]], end: str) -> set[str]:
    """The values on every way to the value ``end``, unlike those of one of several branches.

    ``steps`` are the outputs and the inputs of what is computed on the way, in the order of computation.
    """
    last_use = {name: i for i, (_, inputs) in enumerate(steps) for name in inputs} | {end: len(steps)}
    waiting = set(last_use) - {name for outputs, _ in steps for name in outputs}  # until the last that takes them
    passed: set[str] = set()
    for i, (outputs, inputs) in enumerate(steps):
        waiting.difference_update([name for name in inputs if last_use[name] == i])
        waiting.update(name for name in outputs if last_use.get(name, -1) > i)
        if len(waiting) == 1:
            passed |= waiting
    return passed


def _passed_by_all(graph: onnx.GraphProto, ancestors: set[str], features: str) -> set[str]:
    """The tensors on every way from the image to the features."""
    from_image = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    steps: list[tuple[Iterable[str], Iterable[str]]] = []
    for node in graph.node:
        inputs = [name for name in node.input if name in from_image]
        if inputs and node.op_type != "Shape" and ancestors.intersection(node.output):
            from_image.update(node.output)
            steps.append((node.output, inputs))
    return passed_by_all(steps, features)


def _attention_sizes(graph: onnx.GraphProto, producer: Producers, shapes: Shapes) -> set[tuple[int, int]]:
    """The sizes of tensors that are no maps, though they have four axes: those of products of attention."""
    products = [n for n in graph.node if n.op_type == "MatMul" and all(tensor in producer for tensor in n.input)]
    sizes = (shapes.map_size(tensor) for node in products for tensor in (*node.input, *node.output))
    return {size for size in sizes if size is not None}


def _before_classifier(graph: onnx.GraphProto, producer: Producers, shapes: Shapes) -> str:
    """The tensor that the classifier's weights multiply; the graph's own output if it ends in features."""
    output = _main_output(graph, producer, shapes)
    constants = {tensor.name for tensor in graph.initializer}
    tensor = output
    while tensor in producer:
        node = producer[tensor]
        if node.op_type in ("Gemm", "MatMul") and len(shapes.by_name.get(tensor, (0, 0))) == 2:
            return _before_reshaping(node.input[0], producer)
        if node.op_type == "Conv" and shapes.is_fully_connected(node):
            return _before_reshaping(node.input[0], producer)
        if node.op_type not in AFTER_CLASSIFIER:
            break
        inputs = [name for name in node.input if name and name not in constants]
        if len(inputs) != 1:
            break
        if node.op_type in POOLINGS and (shapes.map_size(node.input[0]) or (1, 1)) == (1, 1):
            break
        tensor = inputs[0]
    return _before_reshaping(output, producer)


def _main_output(graph: onnx.GraphProto, producer: Producers, shapes: Shapes) -> str:
    """The first output that needs nearly all the work of the graph: others may be maps on the way to it."""

    def work(output: str) -> float:
        ancestors = _ancestors(output, producer)
        return sum(shapes.multiply_adds(node) for node in graph.node if ancestors.intersection(node.output))

    works = {str(output.name): work(output.name) for output in graph.output[:MAX_OUTPUTS]}
    return next(output for output in works if works[output] >= MAIN_WORK * max(works.values()))


def _before_reshaping(tensor: str, producer: Producers) -> str:
    """Go back over nodes that only change the shape."""
    while tensor in producer and producer[tensor].op_type in RESHAPING and producer[tensor].input[0] in producer:
        tensor = producer[tensor].input[0]
    return tensor


def _before_identity(tensor: str, producer: Producers) -> str:
    while tensor in producer and producer[tensor].op_type == "Identity":
        tensor = producer[tensor].input[0]
    return tensor


def _before_average(tensor: str, producer: Producers, shapes: Shapes) -> str:
    """The map whose mean over space is ``tensor``, else ``tensor``: a tap is averaged anyway, and a map has a size."""
    if tensor in producer and producer[tensor].op_type in ("GlobalAveragePool", "ReduceMean"):
        source: str = producer[tensor].input[0]
        if shapes.map_size(source) is not None and shapes.channels(source) == np.prod(shapes.by_name[tensor]):
            return source
    return tensor


def _ancestors(tensor: str, producer: Producers) -> set[str]:
    """The tensors from which a tensor is computed, and itself."""
    ancestors: set[str] = set()
    pending = [tensor]
    while pending:
        name = pending.pop()
        if name not in ancestors and name in producer:
            ancestors.add(name)
            pending.extend(producer[name].input)
    return ancestors
