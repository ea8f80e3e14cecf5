"""Small operations on ONNX graphs that several modules need.

All work in place: a copy of the weights takes longer than all that is done to a graph. No node has a graph inside
(``limits.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

DEFAULT_DOMAIN = ("", "ai.onnx")  # of the operators of ONNX itself
MODEL_FIELDS = {"ir_version", "opset_import", "graph"}  # what is kept of a foreign file
GRAPH_FIELDS = {"name", "node", "initializer", "input", "output"}


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, or ``default`` where the node has none of this name."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """For each tensor that a node computes, that node."""
    return {name: node for node in graph.node for name in node.output}


def set_messages(field: Any, messages: Iterable[Any]) -> None:
    """Let a repeated field (nodes, outputs, attributes) hold these messages alone, which may be some of its own."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors new names wherever a node or an initializer of the graph has them."""
    for node in graph.node:
        for tensors in (node.input, node.output):
            for i, name in enumerate(tensors):
                tensors[i] = names.get(name, name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def prune(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Keep only these outputs, in this order, the nodes and weights that they need, and no metadata.

    PyTorch's exporter writes the stack trace of each operation into its node, with the paths of the machine.
    """
    graph = model.graph
    needed = set(outputs)
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    set_messages(graph.node, nodes[::-1])
    values = {value.name: value for value in graph.output}
    set_messages(graph.output, [values[name] for name in outputs])
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    for message, fields in ((model, MODEL_FIELDS), (graph, GRAPH_FIELDS)):
        for field, _ in message.ListFields():
            if field.name not in fields:
                message.ClearField(field.name)
    model.producer_name = "headstart"
