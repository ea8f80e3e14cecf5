"""Pruning of graphs."""

import onnx
from helpers.graphs import network

from headstart.backbones.onnx.graph import prune


def test_only_what_the_outputs_need_is_kept_and_no_metadata():
    """An exporter writes the paths of the machine where it ran into nodes, graph and model."""
    model = network()
    path = "/home/somebody/project/net.py"
    model.doc_string = model.graph.doc_string = path
    for message in (model, *model.graph.node):
        message.metadata_props.add(key="stack", value=path)
    for node in model.graph.node:
        node.doc_string = path
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("early"))
    count = len(model.graph.node)
    prune(model, ["early"])
    assert [output.name for output in model.graph.output] == ["early"]
    assert len(model.graph.node) < count
    assert len(model.graph.initializer) == 2  # the weights of the first convolution
    assert path.encode() not in model.SerializeToString()
