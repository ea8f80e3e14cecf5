"""The maps that taps are means of."""

import onnx
from helpers.graphs import network

from headstart import backbones
from headstart.backbones import Tap
from headstart.backbones.onnx.unpool import map_before_pooling


def test_a_mean_of_tokens_has_no_map():
    model = network()
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert map_before_pooling(model.graph, "y") is None
    assert map_before_pooling(model.graph, "nothing") is None


def test_taps_of_the_built_in_network_have_maps():
    backbone = backbones.load("headstart-s")
    assert all(isinstance(tap, Tap) and tap.size for tap in backbone.taps)
    graph = backbones.cut(backbone, [tap.name for tap in backbone.taps]).graph
    assert all(map_before_pooling(graph, tap.name) is not None for tap in backbone.taps)
