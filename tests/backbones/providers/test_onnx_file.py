"""onnx:FILE: the store behind it, and a real network."""

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.graphs import normalised, saved, tap_values
from onnx import numpy_helper

from headstart import backbones
from headstart.errors import BackboneError


def test_a_damaged_copy_in_the_store_is_prepared_again(tmp_path):
    first = backbones.load(f"onnx:{saved(tmp_path)}")
    first.graph.write_bytes(first.graph.read_bytes()[:-50])
    again = backbones.load(f"onnx:{saved(tmp_path)}")
    assert again == first
    (first.graph.parent / "backbone.json").write_text("{")
    assert backbones.load(f"onnx:{saved(tmp_path)}") == first


def test_a_store_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackboneError, match="HEADSTART_CACHE"):
        backbones.load(f"onnx:{saved(tmp_path)}")


def test_a_real_network(shared):
    path = shared / "weights" / "mobilenetv2-imagenet.onnx"
    backbone = backbones.load(f"onnx:{path}")
    assert (backbone.preprocess.height, backbone.preprocess.width) == (224, 224)
    assert backbone.taps[-1].channels == 1280
    assert [tap.size[0] for tap in backbone.taps if tap.size] == [112, 56, 28, 14, 7]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = tap_values(backbone, pixels)["features"]
    logits = onnxruntime.InferenceSession(path).run(None, {"pixels": normalised(pixels)})[0]
    graph = onnx.load(path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    classifier = next(node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul", "Conv"))
    matrix = weights[classifier.input[1]].astype(np.float64).reshape(weights[classifier.input[1]].shape[:2])
    matrix = matrix.T if matrix.shape[0] != 1280 else matrix
    bias = weights[classifier.input[2]] if len(classifier.input) > 2 else logits.mean(axis=1, keepdims=True) * 0
    np.testing.assert_allclose(features @ matrix + bias, logits, rtol=1e-3, atol=2e-3 * np.abs(logits).max())
