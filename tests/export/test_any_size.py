"""Crop and resize in the graph are those of ``Preprocess``, up to the order in which Pillow rounds."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from headstart.errors import OptionError
from headstart.export.any_size import with_any_size
from headstart.images.preprocess import Preprocess


def identity(preprocess, opset=13):
    """A graph whose output is its input."""
    shape = ["batch", preprocess.height, preprocess.width, 3]
    value = {name: helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("pixels", "out")}
    node = helper.make_node("Identity", ["pixels"], ["out"])
    graph = helper.make_graph([node], "identity", [value["pixels"]], [value["out"]])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def in_two_passes(preprocess, image):
    """Pillow's resize along the rows, then along the columns, which is the order of the graph."""
    h, w = image.shape[:2]
    if preprocess.resize == "squash":
        box_h, box_w = h * preprocess.crop, w * preprocess.crop
    else:
        scale = min(h / preprocess.height, w / preprocess.width) * preprocess.crop
        box_h, box_w = preprocess.height * scale, preprocess.width * scale
    left, top = (w - box_w) / 2, (h - box_h) / 2
    method = Image.Resampling[preprocess.interpolation.upper()]
    source = Image.fromarray(image)
    narrow = source.resize((preprocess.width, h), method, (max(left, 0), 0, min(left + box_w, w), h))
    box = (0, max(top, 0), preprocess.width, min(top + box_h, h))
    return np.asarray(narrow.resize((preprocess.width, preprocess.height), method, box))


@pytest.mark.parametrize(
    "preprocess",
    [Preprocess(96, 96), Preprocess(80, 60, "squash", 0.9, "bicubic"), Preprocess(48, 96, crop=1.0)],
    ids=str,
)
def test_the_pixels_are_those_of_the_preprocessing(preprocess):
    session = onnxruntime.InferenceSession(with_any_size(identity(preprocess), preprocess))
    rng = np.random.default_rng(0)
    for width, height in ((320, 240), (97, 331), (5, 3), (1, 1), (96, 96), (801, 400)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        found = session.run(None, {"pixels": image[np.newaxis]})[0][0].astype(int)
        away = np.abs(found - in_two_passes(preprocess, image))
        assert away.max() <= 1, (width, height)
        assert (away > 0).mean() < 0.02, (width, height)  # where a half rounds the other way
        assert np.abs(found - preprocess(image)).max() <= 6, (width, height)  # noise: the worst that there is


def test_an_old_opset_is_an_error():
    with pytest.raises(OptionError, match="opset 10; a resize inside it needs 11"):
        with_any_size(identity(Preprocess(8, 8), opset=10), Preprocess(8, 8))
