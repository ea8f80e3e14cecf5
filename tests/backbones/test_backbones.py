"""Loading by id, cutting, and the options of the input."""

import numpy as np
import onnxruntime
import pytest
from helpers.graphs import SIZE, saved, tap_values

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError, OptionError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("name", ["", "vgg", "onnx", "onnx:", "onnx:nothing.onnx", "headstart-s:x", "torch:resnet"])
def test_ids_that_no_provider_knows_are_refused(name):
    with pytest.raises((BackboneError, OptionError)):
        backbones.load(name)


@pytest.mark.parametrize(
    "values",
    [{"mean": (1, 2)}, {"std": (0, 1, 1)}, {"std": (1, 1)}, {"channels": "GBR"}, {"mean": (float("nan"),) * 3}],
)
def test_input_options_that_cannot_be_used_are_refused(values):
    with pytest.raises(OptionError):
        InputOptions(**values)


def test_cutting_keeps_only_what_is_needed(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    graph = backbones.cut(backbone, ["early"])
    assert [output.name for output in graph.graph.output] == ["early"]
    assert "w2" not in {tensor.name for tensor in graph.graph.initializer}
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    early = session.run(None, {"pixels": PIXELS})[0]
    np.testing.assert_allclose(early, tap_values(backbone, PIXELS)["early"], rtol=1e-6)
    with pytest.raises(BackboneError, match="Unknown cut"):
        backbones.cut(backbone, ["w2"])
