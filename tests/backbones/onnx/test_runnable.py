"""Which batch sizes a graph in standard form allows, and that its values are finite."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.runnable import allowed_batch
from headstart.errors import BackboneError

SIZE = (4, 4)


def flattened_as(rows, factor=1.0):
    """A graph that multiplies the pixels by ``factor`` and lays them out in so many rows (-1: one per image)."""
    constants = [
        numpy_helper.from_array(np.array([rows, 48], np.int64), "shape"),
        numpy_helper.from_array(np.array(factor, np.float32), "factor"),
    ]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "factor"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["features"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *SIZE, 3])]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 48])]
    graph = helper.make_graph(nodes, "flatten", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(("rows", "declared", "allowed"), [(-1, None, None), (-1, 3, None), (1, None, 1), (3, 3, 3)])
def test_a_batch_size_is_fixed_only_where_the_graph_needs_it(rows, declared, allowed):
    assert allowed_batch(flattened_as(rows), SIZE, declared) == allowed


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(BackboneError, match="not finite"):
        allowed_batch(flattened_as(-1, factor=np.inf), SIZE, None)


def test_a_batch_that_the_graph_does_not_take_is_one_line():
    with pytest.raises(BackboneError, match="cannot be run") as caught:
        allowed_batch(flattened_as(3), SIZE, 2)
    assert "\n" not in str(caught.value)
