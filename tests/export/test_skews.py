"""Ten ways in which an export goes wrong are planted: ``verify`` names each with its size, and fails where it must."""

import io
import re

import numpy as np
import onnx
import pytest
import simplejpeg
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from headstart.export import verify_export
from headstart.images.standalone import preprocess, to_rgb


def change_graph(folder, nodes, constants=(), result="planted"):
    """Put ``nodes``, from "pixels" to ``result``, in front of the exported graph."""
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = result if name == "pixels" else name
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in dict(constants).items())
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


TO_FLOAT = node("Cast", ["pixels"], "as_float", to=TensorProto.FLOAT)


def bgr(folder):
    change_graph(folder, [node("Gather", ["pixels", "order"], "planted", axis=3)], {"order": np.array([2, 1, 0])})


def wrong_mean(folder):
    nodes = [TO_FLOAT, node("Add", ["as_float", "shift"], "planted")]
    change_graph(folder, nodes, {"shift": np.array([30.0], np.float32)})


def half_range(folder):
    nodes = [TO_FLOAT, node("Mul", ["as_float", "half"], "h"), node("Add", ["h", "middle"], "planted")]
    change_graph(folder, nodes, {"half": np.array([0.5], np.float32), "middle": np.array([127.5], np.float32)})


def nchw(folder):
    shape = [0, *np.array(onnx.load(folder / "model.onnx").graph.input[0].type.tensor_type.shape.dim)[1:].tolist()]
    sizes = np.array([0, *(d.dim_value for d in shape[1:])], np.int64)
    nodes = [node("Transpose", ["pixels"], "t", perm=[0, 3, 1, 2]), node("Reshape", ["t", "sizes"], "planted")]
    change_graph(folder, nodes, {"sizes": sizes})


def overflow(folder):
    nodes = [
        *(TO_FLOAT, node("Mul", ["as_float", "much"], "m"), node("Cast", ["m"], "f16", to=TensorProto.FLOAT16)),
        *(node("Cast", ["f16"], "back", to=TensorProto.FLOAT), node("Mul", ["back", "little"], "planted")),
    ]
    change_graph(folder, nodes, {"much": np.array([1e6], np.float32), "little": np.array([1e-6], np.float32)})


def swapped_labels(folder):
    model = onnx.load(folder / "model.onnx")
    for entry in model.graph.node:
        for i, name in enumerate(entry.output):
            entry.output[i] = "right" if name == "probabilities" else name
    model.graph.node.append(node("Gather", ["right", "order"], "probabilities", axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "order"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())


GRAPH_SKEWS = {
    "BGR": (bgr, "it looks as if the channels are read as BGR"),
    "wrong mean": (wrong_mean, "it looks as if the mean of the input is wrong (images too bright, by about 32 of 255)"),
    "[0,1] for [-1,1]": (half_range, "it looks as if pixels are scaled to 0..1 where -1..1 is right"),
    "NCHW as NHWC": (nchw, "it looks as if the axes are mixed up (NCHW read as NHWC)"),
    "swapped labels": (swapped_labels, "it looks as if the labels are in another order"),
    "fp16 overflow": (overflow, "answers are not numbers (an overflow)"),
}


def bicubic(file, **settings):
    return preprocess(file, **{**settings, "interpolation": "bicubic"})


def squash(file, height, width, **_):
    return np.asarray(to_rgb(file).resize((width, height), Image.Resampling.BILINEAR))


def no_exif(file, height, width, crop, **_):
    image = Image.open(file)
    if image.format != "JPEG" or 0x0112 not in image.getexif():
        return preprocess(file, height=height, width=width, crop=crop)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return preprocess(stream, height=height, width=width, crop=crop)


def other_decoder(file, **settings):
    data = file.getvalue()
    image = Image.open(file)
    if image.format != "JPEG" or image.mode != "RGB" or max(image.size) > 600:
        return preprocess(file, **settings)
    stream = io.BytesIO()
    pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)
    Image.fromarray(pixels).save(stream, "PNG", exif=image.getexif())
    return preprocess(stream, **settings)


FILE_SKEWS = {
    "bicubic for bilinear": (bicubic, "it looks as if the resize is bicubic where bilinear is right"),
    "squash for crop": (squash, "it looks as if the image is squashed where a crop is right"),
    "no EXIF": (no_exif, "it looks as if the EXIF orientation is not applied"),
    "another decoder": (other_decoder, "it looks as if the JPEG decoder is another one"),
}


@pytest.mark.parametrize("name", GRAPH_SKEWS)
def test_a_skew_of_the_graph_is_named_and_fails(copied, name):
    plant, text = GRAPH_SKEWS[name]
    folder = copied("onnx")
    plant(folder)
    result = verify_export(folder)
    low_margin = next(problem for problem in result.problems if problem.startswith("low-margin images"))
    assert text in low_margin
    assert "model.onnx is not the file that was proven" in result.problems
    if name != "fp16 overflow":
        assert re.search(r"a score before the softmax differs by \d", low_margin)


@pytest.mark.parametrize("name", FILE_SKEWS)
def test_a_skew_of_the_preparation_is_named_and_fails_beyond_the_tolerance(copied, monkeypatch, name):
    skewed, text = FILE_SKEWS[name]
    folder = copied("onnx")
    monkeypatch.setattr("headstart.export.formats.preprocess", skewed)
    result = verify_export(folder)
    comparison = result.proof.comparisons[-1]
    assert comparison.of == "image files"
    assert comparison.score > 0.001
    is_beyond = (
        comparison.changed or comparison.score > 0.01 or max(comparison.probability, comparison.distance) > 0.002
    )
    assert bool(result.problems) == bool(is_beyond)
    assert any(text in line for line in (*result.problems, *result.proof.remarks))
    assert all("low-margin" not in problem for problem in result.problems)


def test_a_right_export_has_no_problem_and_no_name(copied):
    result = verify_export(copied("onnx"))
    assert (result.problems, result.proof.remarks) == ((), ())
