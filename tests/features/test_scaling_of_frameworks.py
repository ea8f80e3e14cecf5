"""The scaling of weights of timm and Keras by their batch norms, with the frameworks (``make zoo``)."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.frameworks import blobs, keras_network, marked, timm_network

from headstart import backbones, open_dataset
from headstart.backbones import InputOptions
from headstart.backbones.onnx.norms import FIRST, measure_norms
from headstart.backbones.providers.framework import parse_request
from headstart.backbones.scaling import USUAL, Scaling, candidates, divergence
from headstart.features.input_scaling import find_scaling, open_backbone

MINUS_ONE = Scaling(*USUAL["-1 to 1"])
SIZE = 96
PIXELS = blobs(SIZE, 8)  # on which the helpers set the batch norms


def assert_stored(measured, stored):
    """Measured are the stored statistics, up to the variance of a sample."""
    for one, other in zip(measured, stored, strict=True):
        spread = np.sqrt(np.mean(other.variance))
        np.testing.assert_allclose(one.mean, other.mean, atol=2e-2 * spread)
        np.testing.assert_allclose(one.variance, other.variance, rtol=2e-2, atol=2e-2 * spread**2)


@marked("torch", "timm", "onnxscript")
def test_scaling_and_padding_of_timm(tmp_path):
    _, path = timm_network("mobilenetv2_050?pad_type=same", SIZE, tmp_path)
    backbone = backbones.load("timm:mobilenetv2_050", options=InputOptions(weights=str(path), size=(SIZE, SIZE)))
    assumption = backbone.assumption
    norms = assumption.norms
    assert backbone.notes == (assumption.note,)
    assert "assumed ImageNet's mean and deviation, as timm's mobilenetv2_050 has it" in assumption.note
    assert norms.padding_is_open
    first, last = (
        measure_norms(norms, PIXELS, assumption.scaling, first=first, same_padding=True) for first in (True, False)
    )
    assert_stored(first, norms.statistics[:FIRST])
    # Their variances are those of a sample, of maps of 3 x 3 at last, and that adds up with the depth.
    assert divergence(norms.statistics[FIRST:], last) < 0.02
    # Whatever was assumed, what the network was given is found.
    found = find_scaling(replace(assumption, scaling=MINUS_ONE), PIXELS)
    assert found.measured
    assert found.scaling == assumption.scaling == Scaling(*USUAL["ImageNet's mean and deviation"])
    assert found.same_padding


@marked("torch", "timm", "onnxscript")
def test_where_the_padding_is_open(tmp_path):
    from headstart.backbones.providers.timm import open_timm

    def is_open(name, **options):
        _, path = timm_network(name, SIZE, tmp_path)
        return open_timm(parse_request("timm", name, InputOptions(weights=str(path), **options), ())).padding_is_open

    assert is_open("mobilenetv3_small_050")
    assert not is_open("mobilenetv3_small_050?pad_type=same")
    assert not is_open("mobilenetv3_small_050", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert not is_open("tf_mobilenetv3_small_minimal_100")
    assert not is_open("resnet18")


@marked("torch", "keras", "h5py", "onnxscript")
def test_scaling_of_keras(tmp_path):
    keras_network("MobileNetV2", SIZE).save_weights(tmp_path / "net.weights.h5")
    options = InputOptions(weights=str(tmp_path / "net.weights.h5"), size=(SIZE, SIZE))
    assumption = backbones.load("keras:MobileNetV2", options=options).assumption
    assert "assumed -1 to 1, as keras.applications.MobileNetV2 has it" in assumption.note
    norms = assumption.norms
    assert norms.axes == (3, 3)
    assert_stored(measure_norms(norms, PIXELS, assumption.scaling, first=True), norms.statistics)
    other = candidates(MINUS_ONE)[2]
    found = find_scaling(replace(assumption, scaling=other), PIXELS)
    assert (found.measured, found.scaling, found.padding_ratio) == (True, assumption.scaling, None)


@pytest.mark.slow
@marked("torch", "timm", "onnxscript")
def test_real_weights(shared):
    weights = str(shared / "weights" / "mobilenetv2-imagenet.safetensors")
    images = open_dataset(shared / "data" / "ants-bees" / "train")
    opened = open_backbone("timm:mobilenetv2_100", InputOptions(weights=weights), (), images)
    assert opened.id == opened.backbone.id == "timm:mobilenetv2_100?pad_type=same"
    assert opened.options == InputOptions(MINUS_ONE.mean, MINUS_ONE.std, "RGB", weights=weights)
    assert opened.scaling.measured
    given = backbones.load("timm:mobilenetv2_100?pad_type=same", options=opened.options)
    assert replace(opened.backbone, assumption=None) == given
