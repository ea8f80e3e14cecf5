"""Backbone and head as one ONNX graph, and the part of it before the head."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper

from headstart.backbones import Backbone, Tap, cut
from headstart.backbones.onnx.external_data import parse_graph
from headstart.backbones.onnx.graph import producers, prune, rename_tensors
from headstart.errors import BackboneError, ModelError
from headstart.heads.head import SIGMOID, Head
from headstart.heads.ood import EPSILON, OodDetector
from headstart.model.model import Model
from headstart.stats.decision import DecisionRule

OUTPUTS = ("probabilities", "distance", "decision")
OUR_PREFIXES = ("head.", "distance.", "decision.")
FEATURES = "head.features"  # what the head and the OOD score get, where that is put together of several taps
AWAY = "distance.away"  # the features less their centre


def compose(
    backbone: Backbone,
    head: Head,
    ood: OodDetector,
    rule: DecisionRule | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Build ``model.onnx``: uint8 RGB ``pixels`` [batch, height, width, 3] in, two outputs, with a rule three.

    ``probabilities`` [batch, k] float32, by a softmax or, of several labels, a sigmoid, as the head says, and
    ``distance`` [batch] float32, the OOD score, 0 to 1; with a
    ``rule`` also ``decision`` [batch] int64, the number of the class that it decides for. The images are already
    resized; everything else, from normalisation to temperature, is inside. ``metadata`` are the texts of
    ``model.metadata``, by key, that the file carries for other programs.
    """
    model = cut(backbone, head.taps)
    graph = model.graph
    constants = {
        "head.weights": head.weights / np.float32(head.temperature),
        "head.bias": np.maximum(head.bias / np.float32(head.temperature), np.float32(-1e30)),
    }
    names = _make_room(graph)
    taps = [names.get(tap, tap) for tap in head.taps]
    # Converters of other formats do not know a Concat of one tensor (onnx2tf makes a custom operator of it).
    nodes = [helper.make_node("Concat", taps, [FEATURES], axis=1)] if len(taps) > 1 else []
    features = FEATURES if len(taps) > 1 else taps[0]
    inputs = features
    if head.hidden_layer is not None:
        constants["head.expansion"], constants["head.offset"] = head.hidden_layer
        nodes.append(helper.make_node("Gemm", [inputs, "head.expansion", "head.offset"], ["head.expanded"]))
        nodes.append(helper.make_node("Relu", ["head.expanded"], ["head.bent"]))
        inputs = "head.bent"
    nodes.append(helper.make_node("Gemm", [inputs, "head.weights", "head.bias"], ["head.scores"]))
    if head.activation == SIGMOID:
        nodes.append(helper.make_node("Sigmoid", ["head.scores"], ["probabilities"]))
    else:
        nodes.append(helper.make_node("Softmax", ["head.scores"], ["probabilities"], axis=1))
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    ood_nodes, ood_tensors = _ood_score(ood, features)
    graph.node.extend([*nodes, *ood_nodes])
    graph.initializer.extend([*tensors, *ood_tensors])
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.weights.shape[1]]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]),
        ]
    )
    if rule is not None:
        add_decision(graph, rule)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def add_decision(graph: onnx.GraphProto, rule: DecisionRule) -> None:
    """Add ``DecisionRule.decide`` of the probabilities to a graph, in place."""
    matrix = rule.matrix / np.abs(rule.matrix).max()  # of any scale: only the largest score counts
    graph.initializer.append(numpy_helper.from_array(matrix.astype(np.float32), "decision.matrix"))
    graph.node.append(helper.make_node("MatMul", ["probabilities", "decision.matrix"], ["decision.scores"]))
    graph.node.append(helper.make_node("ArgMax", ["decision.scores"], ["decision"], axis=1, keepdims=0))
    graph.output.append(helper.make_tensor_value_info("decision", TensorProto.INT64, ["batch"]))


def _make_room(graph: onnx.GraphProto) -> dict[str, str]:
    """Rename, in place, tensors of the backbone that are called like those of the head; return their new names.

    Many networks call the weights of a layer "head.bias".
    """
    used = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    names = {name: f"headstart.backbone.{name}" for name in used if name.startswith(OUR_PREFIXES) or name in OUTPUTS}
    rename_tensors(graph, names)
    return names


def head_taps(graph: GraphProto) -> list[str]:
    """Return the tensors of the taps that the head of a composed graph gets. Raises ModelError for another graph."""
    made_by = producers(graph)
    if AWAY not in made_by:
        raise ModelError("model.onnx does not say where the features of the head are; fit the model again.")
    name = made_by[AWAY].input[0]
    return list(made_by[name].input) if name == FEATURES else [name]


def features_graph(model: Model) -> Backbone:
    """Return the part of a model before its head, as a backbone with one tap: the tensor that the head gets.

    Raises ModelError for a graph that ``compose`` did not build.
    """
    try:
        graph = parse_graph(model.graph, Path("model.onnx"))
    except BackboneError as error:
        raise ModelError(str(error)) from None
    taps, width = head_taps(graph.graph), len(model.ood.centre)
    # Earlier models have a Concat of one tensor, which OpenVINO drops with its name.
    name = taps[0] if len(taps) == 1 else FEATURES
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    prune(graph, [name])
    content = graph.SerializeToString(deterministic=True)
    sha256 = hashlib.sha256(content).hexdigest()
    tap = Tap(name, width, 1.0, None)
    return Backbone(
        "model features",
        content,
        sha256,
        model.preprocess,
        (tap,),
        "",
        "",
        batch=model.batch,
        precision=model.precision,
    )


def _ood_score(ood: OodDetector, features: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Build ``OodDetector.scores`` of the tensor ``features`` as a graph.

    Sums of squares are products with a column of ones, since the reductions of ONNX changed their form between opsets.
    """
    arrays = {
        "centre": ood.centre,
        "scales": ood.scales,
        "factor": ood.factor,
        "whole.ones": np.ones((len(ood.centre), 1), np.float32),
        "explained.ones": np.ones((ood.factor.shape[1], 1), np.float32),
        "tiny": np.full(1, EPSILON, np.float32),
        "one": np.ones(1, np.float32),
        "flat": np.array([-1], np.int64),
    }
    steps = (
        ("Sub", [features, "distance.centre"], AWAY),
        ("Mul", [AWAY, "distance.scales"], "distance.scaled"),
        ("Cast", ["distance.factor"], "distance.factor32"),
        ("MatMul", ["distance.scaled", "distance.factor32"], "distance.along"),
        ("Mul", ["distance.along", "distance.along"], "distance.along.squared"),
        ("MatMul", ["distance.along.squared", "distance.explained.ones"], "distance.explained"),
        ("Mul", ["distance.scaled", "distance.scaled"], "distance.scaled.squared"),
        ("MatMul", ["distance.scaled.squared", "distance.whole.ones"], "distance.whole"),
        ("Add", ["distance.whole", "distance.tiny"], "distance.some"),
        ("Div", ["distance.explained", "distance.some"], "distance.share"),
        ("Sub", ["distance.one", "distance.share"], "distance.left"),
        ("Relu", ["distance.left"], "distance.above"),
        ("Reshape", ["distance.above", "distance.flat"], "distance"),
    )
    nodes = [
        helper.make_node(kind, inputs, [output], **({"to": TensorProto.FLOAT} if kind == "Cast" else {}))
        for kind, inputs, output in steps
    ]
    return nodes, [numpy_helper.from_array(value, f"distance.{name}") for name, value in arrays.items()]
