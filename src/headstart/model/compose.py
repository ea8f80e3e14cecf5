"""Backbone and head as one ONNX graph."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones import Backbone, cut
from headstart.heads import Familiar, Head
from headstart.heads.ood import TINY


def compose(backbone: Backbone, head: Head, familiar: Familiar | None = None) -> bytes:
    """``model.onnx``: uint8 RGB ``pixels`` [batch, height, width, 3] in, ``probabilities`` [batch, k] float32 out.

    With ``familiar`` there is a second output, ``distance`` [batch] float32: how far from all that was learned, 0 to 1.
    The pictures are already resized; everything else, normalisation to temperature, is inside.
    """
    model = cut(backbone, head.taps)
    graph = model.graph
    constants = {
        "head.weights": head.weights / np.float32(head.temperature),
        "head.bias": np.maximum(head.bias / np.float32(head.temperature), np.float32(-1e30)),
    }
    nodes = [helper.make_node("Concat", list(head.taps), ["head.features"], axis=1)]
    current = "head.features"
    if head.expansion is not None:
        constants["head.expansion"], constants["head.offset"] = head.expansion
        nodes.append(helper.make_node("Gemm", [current, "head.expansion", "head.offset"], ["head.expanded"]))
        nodes.append(helper.make_node("Relu", ["head.expanded"], ["head.bent"]))
        current = "head.bent"
    nodes.append(helper.make_node("Gemm", [current, "head.weights", "head.bias"], ["head.scores"]))
    nodes.append(helper.make_node("Softmax", ["head.scores"], ["probabilities"], axis=1))
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.weights.shape[1]])]
    if familiar is not None:
        more, further = _distance(familiar)
        nodes += more
        tensors += further
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]))
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    del graph.output[:]
    graph.output.extend(outputs)
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _distance(familiar: Familiar) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """``Familiar.distances`` of ``head.features`` as a graph.

    Sums of squares are products with a column of ones, since the reductions of ONNX changed their form between opsets.
    """
    arrays = {
        "centre": familiar.centre, "scales": familiar.scales, "factor": familiar.factor,
        "whole.ones": np.ones((len(familiar.centre), 1), np.float32),
        "explained.ones": np.ones((familiar.factor.shape[1], 1), np.float32),
        "tiny": np.full(1, TINY, np.float32), "one": np.ones(1, np.float32), "flat": np.array([-1], np.int64),
    }  # fmt: skip
    steps = (
        ("Sub", ["head.features", "distance.centre"], "distance.away"),
        ("Mul", ["distance.away", "distance.scales"], "distance.scaled"),
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
