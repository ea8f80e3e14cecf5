"""What the tests of timm: and keras: share: networks with random weights that behave, and what their graphs answer."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from headstart.backbones.providers import keras as keras_zoo

os.environ["KERAS_BACKEND"] = "torch"


def needs(*modules):
    """Skip the test module that asks, unless all of these are installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module} (make zoo installs it)", allow_module_level=True)


def marked(*modules):
    """A decorator: the test is of the zoo, skips unless all of these are installed, and lets frameworks warn."""
    found = all(importlib.util.find_spec(module) for module in modules)
    marks = [
        pytest.mark.zoo,
        pytest.mark.filterwarnings("ignore"),
        pytest.mark.skipif(not found, reason=f"needs {', '.join(modules)} (make zoo installs them)"),
    ]

    def mark(test):
        for each in marks:
            test = each(test)
        return test

    return mark


def answers_alone(model, data, without):
    """What a fresh process answers with the model folder, where none of the modules ``without`` may be loaded."""
    code = (
        "import sys, headstart as hs\nm = hs.load(sys.argv[1])\nm.verify()\n"
        "print(m.predict_proba(sys.argv[2]).tolist())\nassert not set(sys.argv[3:]) & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, model, data, *without]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout))


def images(size, count=3):
    """Soft random blobs: random noise alone makes every image look the same to a network."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 6, 6, 3))
    fine = np.repeat(np.repeat(coarse, -(-size // 6), axis=1), -(-size // 6), axis=2)[:, :size, :size]
    return np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255).astype(np.uint8)


def served(backbone, pixels):
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, {"pixels": pixels}), strict=True))


def assert_same(found, wanted):
    """Equal within 0.1% of how much the images differ from each other, a far stricter measure than their size."""
    wanted = wanted.mean(axis=tuple(range(2, wanted.ndim))) if wanted.ndim > 2 else wanted
    spread = np.linalg.norm(wanted - wanted.mean(axis=0))
    assert spread > 1e-4 * np.linalg.norm(wanted)  # else nothing would be compared
    assert np.linalg.norm(found - wanted) < 1e-3 * spread


def timm_image(network, pixels):
    """Images as a timm network takes them: [n, 3, height, width], normalised as its description says."""
    import torch

    mean, std = (np.array(network.pretrained_cfg[key]) for key in ("mean", "std"))
    return torch.tensor(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)


def timm_network(name, size, folder):
    """A timm network with random weights whose batch norms fit its signals, and a file of them."""
    import timm
    import torch
    from safetensors.torch import save_file

    from headstart.backbones.providers.framework import parse

    plain, arguments = parse("timm", name)
    torch.manual_seed(0)
    network = timm.create_model(plain, **arguments)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            network.train()(timm_image(network, images(size, 8)))
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network.eval(), path


def keras_network(name, size, **options):
    """A Keras network with random weights whose batch norms fit its signals."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    with keras_zoo._unrefused(build):
        network = build(include_top=False, weights=None, input_shape=(size, size, 3), **options)
    rng = np.random.default_rng(0)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    for variable in network.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable.numpy() + 0.1 * rng.normal(size=variable.shape))
    if norms:
        network(keras_image(name, images(size, 8)), training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
    return network


def keras_image(name, pixels):
    """Images as a network of keras.applications takes them, by its own ``preprocess_input``."""
    import keras

    module = sys.modules[getattr(keras.applications, name).__module__]
    return module.preprocess_input(pixels.astype(np.float32))


def keras_values(name, network, pixels, layer=None):
    """What a layer of a Keras network gives for images, or its end, averaged over places: [n, channels]."""
    import keras

    if layer:
        network = keras.Model(network.inputs, network.get_layer(layer).output)
    value = network(keras_image(name, pixels), training=False)
    return value.detach().cpu().numpy().mean(axis=(1, 2))


def legacy_file(network, path):
    """Weights as Keras 1 wrote them: other names, one group a layer, lists of names."""
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
