"""Networks of timm and Keras with random weights whose signals keep their scale, and the values of their graphs."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime

from headstart.backbones.providers.framework import parse_id
from headstart.backbones.providers.keras import allowed_on_torch

os.environ["KERAS_BACKEND"] = "torch"


def needs(*modules):
    """Skip the calling test module unless all of these are installed."""
    import pytest  # here: an environment of notebooks, which writes weights, has none

    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module} (make zoo installs it)", allow_module_level=True)


def marked(*modules):
    """A decorator: the test is marked zoo, is skipped unless all of these are installed, and lets frameworks warn."""
    import pytest

    is_installed = all(importlib.util.find_spec(module) for module in modules)
    marks = [
        pytest.mark.zoo,
        pytest.mark.filterwarnings("ignore"),
        pytest.mark.skipif(not is_installed, reason=f"needs {', '.join(modules)} (make zoo installs them)"),
    ]

    def decorate(test):
        for mark in marks:
            test = mark(test)
        return test

    return decorate


def predict_in_new_process(model, data, without):
    """What a new process predicts with a model folder; none of the modules ``without`` may be imported there."""
    code = (
        "import sys, headstart as hs\nm = hs.load(sys.argv[1])\nm.verify()\n"
        "print(m.predict_proba(sys.argv[2]).tolist())\nassert not set(sys.argv[3:]) & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, model, data, *without]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(json.loads(completed.stdout))


def blobs(size, count=3):
    """Images [count, size, size, 3] of soft random blobs: noise alone makes all images look the same to a network."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 6, 6, 3))
    fine = np.repeat(np.repeat(coarse, -(-size // 6), axis=1), -(-size // 6), axis=2)[:, :size, :size]
    return np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255).astype(np.uint8)


def served(backbone, pixels):
    """The values of a backbone's taps, by name."""
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, {"pixels": pixels}), strict=True))


def assert_close(actual, expected):
    """Equal within 0.1% of how much the images differ from each other, a far stricter measure than their size.

    Maps [n, channels, height, width] among the expected values are averaged over places first.
    """
    expected = expected.mean(axis=tuple(range(2, expected.ndim))) if expected.ndim > 2 else expected
    spread = np.linalg.norm(expected - expected.mean(axis=0))
    assert spread > 1e-4 * np.linalg.norm(expected)  # else nothing would be compared
    assert np.linalg.norm(actual - expected) < 1e-3 * spread


def timm_image(network, pixels):
    """Images as a timm network takes them: [n, 3, height, width], normalised as its description says."""
    import torch

    mean, std = (np.array(network.pretrained_cfg[key]) for key in ("mean", "std"))
    return torch.tensor(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)


def timm_network(name, size, folder):
    """A timm network with random weights whose batch norms fit its signals, and the path of a file of them."""
    import timm
    import torch
    from safetensors.torch import save_file

    plain_name, arguments = parse_id("timm", name)
    torch.manual_seed(0)
    network = timm.create_model(plain_name, **arguments)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            network.train()(timm_image(network, blobs(size, 8)))
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network.eval(), path


def keras_network(name, size, **options):
    """A Keras network with random weights whose batch norms fit its signals."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    with allowed_on_torch(build):
        network = build(include_top=False, weights=None, input_shape=(size, size, 3), **options)
    rng = np.random.default_rng(0)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    for variable in network.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable.numpy() + 0.1 * rng.normal(size=variable.shape))
    if norms:
        network(keras_image(name, blobs(size, 8)), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return network


def keras_image(name, pixels):
    """Images as a network of keras.applications takes them, by its own ``preprocess_input``."""
    import keras

    module = sys.modules[getattr(keras.applications, name).__module__]
    return module.preprocess_input(pixels.astype(np.float32))


def keras_values(name, network, pixels, layer=None):
    """What a layer of a Keras network gives, or its last one, averaged over places: [n, channels]."""
    import keras

    if layer:
        network = keras.Model(network.inputs, network.get_layer(layer).output)
    value = network(keras_image(name, pixels), training=False)
    return value.detach().cpu().numpy().mean(axis=(1, 2))


def legacy_file(network, path):
    """Write weights as Keras 1 did: other names, one group per layer, lists of names. Returns the path."""
    import h5py

    with h5py.File(path, "w") as file:
        names = []
        for number, layer in enumerate(network.layers):
            group = file.create_group(f"layer_{number + 7}")
            names.append(group.name[1:].encode())
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            for i, weight in enumerate(weights):
                group[f"old_{i}:0"] = weight.numpy()
            group.attrs["weight_names"] = [f"old_{i}:0".encode() for i in range(len(weights))]
        file.attrs["layer_names"] = names
        file.attrs["backend"] = b"tensorflow"
    return path
