"""Which tensors of a graph are tapped."""

import numpy as np
import pytest
from helpers.graphs import SIZE, network, normalised, saved, tap_values, tensor_value

from headstart import backbones
from headstart.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def test_any_tensor_or_node_can_be_tapped(tmp_path):
    path = saved(tmp_path)
    backbone = backbones.load(f"onnx:{path}", taps=("c2", "node_early", "logits"))
    values = tap_values(backbone, PIXELS)
    image = normalised(PIXELS)
    c2, logits = tensor_value(network(), "c2", image), tensor_value(network(), "logits", image)
    np.testing.assert_allclose(values["c2"], c2.mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["node_early"], values["early"], rtol=1e-6)
    np.testing.assert_allclose(values["logits"], logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed7'; the taps found are .*features"):
        backbones.load(f"onnx:{path}", taps=("mixed7",))
