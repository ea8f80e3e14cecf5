"""Backbone and head as one ONNX graph."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones import Backbone, cut
from headstart.heads import Head


def compose(backbone: Backbone, head: Head) -> bytes:
    """``model.onnx``: uint8 RGB ``pixels`` [batch, height, width, 3] in, ``probabilities`` [batch, k] float32 out.

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
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.weights.shape[1]])
    )
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString(deterministic=True)
    return result
