"""The maps that the taps of a graph in standard form are means of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

from headstart.backbones.onnx.graph import attribute, producers

RESHAPING = {"Squeeze", "Flatten", "Reshape", "Identity"}  # operators that leave the values as they are


@dataclass(frozen=True)
class FeatureMap:
    """A 4-D tensor of a graph: its name, and whether channels are its last axis (NHWC) or its second (NCHW)."""

    tensor: str
    channels_last: bool


def map_before_pooling(graph: onnx.GraphProto, tap: str) -> FeatureMap | None:
    """The map whose mean over height and width is ``tap``; None where that is a vector, or a mean of tokens."""
    producer = producers(graph)
    node = producer.get(tap)
    while node is not None and node.op_type in RESHAPING:
        node = producer.get(node.input[0])
    if node is None:
        return None
    if node.op_type == "GlobalAveragePool":
        return FeatureMap(node.input[0], channels_last=False)
    if node.op_type != "ReduceMean":
        return None
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        constants = {tensor.name: tensor for tensor in graph.initializer}
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist() if node.input[1] in constants else None
    if axes == [1, 2]:
        return FeatureMap(node.input[0], channels_last=True)
    if axes == [2, 3]:
        return FeatureMap(node.input[0], channels_last=False)
    return None


def graph_with_maps(model: onnx.ModelProto, taps: Sequence[str]) -> tuple[bytes, list[FeatureMap]]:
    """Replace, in place, the outputs of a graph by the maps of ``taps``; return its bytes, and the maps in their order.

    Taps that are not the mean of a map are left out.
    """
    maps = [feature_map for tap in taps if (feature_map := map_before_pooling(model.graph, tap)) is not None]
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(m.tensor for m in maps)
    )
    return model.SerializeToString(deterministic=True), maps
