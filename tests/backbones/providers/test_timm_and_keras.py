"""timm: and keras: together: the same network from either, and where its weights come from (``make zoo``)."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.frameworks import keras_network, needs, served, timm_network

from headstart import ImageClassifier, backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError, OptionError
from headstart.images.decoding import decode

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "timm", "keras", "h5py", "onnxscript")


def test_mobilenet_v2_at_160_by_either_framework(tmp_path):
    network = keras_network("MobileNetV2", 160)
    network.save(tmp_path / "net.keras")
    options = InputOptions(weights=str(tmp_path / "net.keras"), size=(160, 160))
    backbone = backbones.load("keras:MobileNetV2", options=options, taps=("block_13_expand_relu",))
    assert (*backbone.taps[-1].size, backbone.taps[-1].channels) == (5, 5, 1280)
    assert next(t.channels for t in backbone.taps if t.name == "block_13_expand_relu") == 576
    _, path = timm_network("mobilenetv2_100", 160, tmp_path)
    backbone = backbones.load("timm:mobilenetv2_100", options=InputOptions(weights=str(path), size=(160, 160)))
    assert (*backbone.taps[-1].size, backbone.taps[-1].channels) == (5, 5, 1280)


def rounded_to_half(path, target):
    """A copy of a Keras file whose matrices are rounded to fp16, as those of the shared timm file are."""
    import h5py

    target.write_bytes(path.read_bytes())

    def round_matrix(_, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            item[...] = item[...].astype(np.float16)

    with h5py.File(target, "r+") as file:
        file.visititems(round_matrix)
    return target


def test_three_ways_to_one_network(shared, tmp_path):
    """The same features of real images, and the same classifier, from timm, Keras and ONNX.

    The shared Keras file holds fp32 matrices, the others their fp16 rounding, which alone moves this network's
    features by 2%: rounded alike they agree.
    """
    weights = shared / "weights"
    geometry = {"crop": 0.875, "resize": "shortest", "interpolation": "bilinear"}
    halves = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    timm_file = weights / "mobilenetv2-imagenet.safetensors"
    keras_file = rounded_to_half(weights / "mobilenetv2-imagenet.weights.h5", tmp_path / "half.weights.h5")
    ways = {
        "timm:mobilenetv2_100?pad_type=same&num_classes=1001": InputOptions(
            weights=str(timm_file), **halves, **geometry
        ),
        "keras:MobileNetV2": InputOptions(weights=str(keras_file), **geometry),
        f"onnx:{weights / 'mobilenetv2-imagenet.onnx'}": InputOptions(**halves, **geometry),
    }
    files = sorted((shared / "data" / "horse-or-human" / "validation").rglob("*.jp*g"))[::32]
    features, accuracies = [], []
    for name, options in ways.items():
        backbone = backbones.load(name, options=options)
        pixels = np.stack([backbone.preprocess(decode(file.read_bytes())) for file in files])
        features.append(served(backbone, pixels)["features"])
        fitted = ImageClassifier(name, cut="features", input_options=options, runtime="onnxruntime")
        fitted.fit(shared / "data" / "horse-or-human")
        accuracies.append(fitted.accuracy_["validation"].to_dict())
    for others in features[1:]:
        assert np.linalg.norm(others - features[0]) < 1e-3 * np.linalg.norm(features[0])
        np.testing.assert_allclose(others, features[0], atol=1e-3 * np.abs(features[0]).max())
    assert accuracies[0] == accuracies[1] == accuracies[2]


@pytest.mark.parametrize("name", ["timm:mobilenetv2_100", "keras:MobileNetV2"])
def test_without_a_network_the_error_says_what_to_do(name, tmp_path):
    closed = "http://127.0.0.1:9"
    variables = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "KERAS_HOME": str(tmp_path),
        "https_proxy": closed,
        "http_proxy": closed,
        "HEADSTART_CACHE": str(tmp_path / "cache"),
    }
    completed = subprocess.run(
        [sys.executable, "-m", "headstart", "backbones", "show", name],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 2, completed.stderr
    assert completed.stdout == ""
    assert "Traceback" not in completed.stderr
    last_line = completed.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f"headstart: The weights of {name} are not in the cache")
    assert "--weights FILE" in completed.stderr


def test_sizes_that_a_network_cannot_take_are_refused(tmp_path):
    with pytest.raises(OptionError, match="cannot be built for 16 x 16"):
        backbones.load("keras:InceptionV3", options=InputOptions(size=(16, 16)))
    _, path = timm_network("vit_tiny_patch16_224", 224, tmp_path)
    with pytest.raises(BackboneError, match="8 x 8"):  # less than a patch
        backbones.load("timm:vit_tiny_patch16_224", options=InputOptions(weights=str(path), size=(8, 8)))
