"""Weights beside a graph are read, count as part of it, and must lie in its folder."""

import numpy as np
import onnx
import pytest
from helpers.graphs import SIZE, network, normalised, tap_values, tensor_value
from onnx import TensorProto

from headstart import backbones
from headstart.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def move_outside(tensor, location):
    """Let a tensor say that its values are in the file ``location``."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def test_weights_beside_the_graph_are_read(tmp_path):
    path, weights_path = tmp_path / "net.onnx", tmp_path / "weights.bin"
    onnx.save_model(network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    backbone = backbones.load(f"onnx:{path}")
    expected = tensor_value(network(), "late", normalised(PIXELS)).mean(axis=(2, 3))
    np.testing.assert_allclose(tap_values(backbone, PIXELS)["features"], expected, rtol=1e-4, atol=1e-6)
    weights = bytearray(weights_path.read_bytes())
    weights[: len(weights) // 2] = bytes(len(weights) // 2)
    weights_path.write_bytes(weights)
    changed = backbones.load(f"onnx:{path}")
    assert changed.sha256 != backbone.sha256  # not the stale one
    weights_path.unlink()
    with pytest.raises(BackboneError, match=r"needs the file 'weights\.bin'"):
        backbones.load(f"onnx:{path}")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "", "a/../../secret.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (tmp_path / "in").mkdir()
    model = network()
    move_outside(model.graph.initializer[0], location)
    (tmp_path / "in" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match="outside its folder"):
        backbones.load(f"onnx:{tmp_path / 'in' / 'net.onnx'}")
