"""``keras:NAME``: the networks of keras.applications, on Keras' PyTorch backend, exported once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from headstart.backbones.backbone import Backbone, InputOptions, provider
from headstart.backbones.providers.framework import (
    Exported,
    Opened,
    Request,
    described_file,
    filled,
    load_exported,
    one_line,
    refuse,
)
from headstart.errors import BackboneError, MissingExtraError, OptionError

RESERVED = {
    "weights", "include_top", "include_preprocessing", "input_tensor", "input_shape", "pooling", "classes",
    "classifier_activation", "name",
}  # fmt: skip
DEFAULT_SIZE = 224  # and what differs, by the functions' own defaults
SIZES = {
    "InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299, "NASNetLarge": 331,
    "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380, "EfficientNetB5": 456,
    "EfficientNetB6": 528, "EfficientNetB7": 600, "EfficientNetV2B1": 240, "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300, "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip
NO_TAP = {"InputLayer", "ZeroPadding2D", "Cropping2D", "Rescaling", "Normalization"}


@provider("keras")
def load_keras(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """The backbone ``keras:REST``. Raises BackboneError, OptionError, MissingExtraError."""
    return load_exported("keras", rest, options, taps, _export)


def _export(request: Request) -> Exported:
    return open_keras(request).export()


def open_keras(request: Request) -> Opened:
    """The network as a torch module, whose ``model`` is Keras' own and ``order`` names the layers of the network.

    Raises BackboneError, OptionError, MissingExtraError.
    """
    keras = _keras()
    refuse("keras", request, RESERVED)
    applications = keras.applications
    known = [name for name in dir(applications) if name[0].isupper()]
    if request.name not in known:
        near = get_close_matches(request.name, known, 3) or known
        raise BackboneError(f"keras.applications has no {request.name!r}; did you mean {', '.join(near)}?")
    build = getattr(applications, request.name)
    size = request.options.size or (SIZES.get(request.name, DEFAULT_SIZE),) * 2
    mean, std, channels = scaling(sys.modules[build.__module__].preprocess_input)
    described = InputOptions(
        mean=mean, std=std, channels=channels, size=size, crop=1.0, resize="squash", interpolation="bilinear"
    )
    network = _built(keras, build, request, size)
    layers = _layers(network, request)
    with _plain(keras):
        tapped = keras.Model(network.inputs, [network.get_layer(name).output for name in layers.values()])
    if request.weights is not None:
        source = f"keras {keras.__version__}, {described_file(request.weights)}"
    else:
        source = f"keras {keras.__version__}, keras.applications.{request.name}, ImageNet"
    module = _module(tapped, tuple(layer.name for layer in network.layers))
    how = filled(request.options, described)
    return Opened(module, tuple(layers), (*size, 3), how, "unknown", source, within=partial(_plain, keras))


def _keras() -> Any:
    """Keras on PyTorch, whatever the surroundings ask for."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError:
        raise MissingExtraError("Keras or PyTorch is not installed; run: pip install 'headstart[keras]'") from None
    finally:
        os.environ.pop("KERAS_BACKEND")
        if before is not None:
            os.environ["KERAS_BACKEND"] = before
    if keras.backend.backend() != "torch":
        raise BackboneError(
            f"Keras runs on {keras.backend.backend()} in this process; set KERAS_BACKEND=torch before it is imported."
        )
    return keras


@contextmanager
def _plain(keras: Any) -> Iterator[None]:
    """Channels last, float32, on the processor: what the published weights are for, whatever ~/.keras says.

    Layers without a name of their own are numbered within a process; counting starts anew here, so that a cut names the
    same layer every time.
    """
    layout, policy = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.utils.clear_session()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    try:
        with keras.device("cpu"):
            yield
    finally:
        keras.config.set_image_data_format(layout)
        keras.config.set_dtype_policy(policy)


def scaling(preprocess: Any) -> tuple[tuple[float, float, float], tuple[float, float, float], str]:
    """Mean and deviation of RGB in 0..1, and the order of channels, that a ``preprocess_input`` comes to.

    They are read off what it does to black and to pure colours, so no list of modes is kept here.
    """
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.float32).reshape(4, 1, 1, 3)
    values = np.asarray(preprocess(pixels.copy(), data_format="channels_last"), np.float64).reshape(4, 3)
    shift, slopes = values[0], (values[1:] - values[0]) / 255
    reverse = abs(slopes[0, 0]) < abs(slopes[0, 2])
    if reverse:
        shift, slopes = shift[::-1], slopes[:, ::-1]
    slope = np.diag(slopes)
    if (slope <= 0).any() or not np.allclose(slopes, np.diag(slope), atol=1e-6):
        raise BackboneError("This network's preprocessing is no scaling of each channel; Headstart cannot follow it.")
    std = 1 / (255 * slope)
    mean = -shift * std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), "BGR" if reverse else "RGB"


def _built(keras: Any, build: Any, request: Request, size: tuple[int, int]) -> Any:
    name, arguments = request.name, request.arguments
    try:
        with _plain(keras), _unrefused(build):
            network = build(include_top=False, weights=None, input_shape=(*size, 3), **arguments)
    except Exception as error:  # too small a picture, arguments the function does not have
        raise OptionError(f"keras:{name} cannot be built for {size[0]} x {size[1]}: {one_line(error)}") from None
    if request.weights is not None:
        from headstart.backbones.providers.keras_weights import fill

        fill(network, request.weights, name)
    else:
        try:
            with _plain(keras), _unrefused(build):
                network = build(include_top=False, weights="imagenet", input_shape=(*size, 3), **arguments)
        except Exception as error:  # of the network, the disk or the file
            raise BackboneError(
                f"The weights of keras:{name} are not in the cache and cannot be fetched ({one_line(error, 120)}); "
                "run this once with a network connection, or give the file with --weights FILE."
            ) from None
    network.trainable = False
    return network


@contextmanager
def _unrefused(build: Any) -> Iterator[None]:
    """Keras refuses to build NASNetMobile on PyTorch, but its layers answer there as on TensorFlow: decisions.md."""
    module: Any = sys.modules[build.__module__]
    if build.__name__ != "NASNetMobile":
        yield
        return
    before = module.backend
    module.backend = SimpleNamespace(**{**vars(before), "backend": lambda: "tensorflow"})
    try:
        yield
    finally:
        module.backend = before


def _layers(network: Any, request: Request) -> Mapping[str, str]:
    """Tap name -> layer name: the last layer of each resolution, any asked for, and the output as "features"."""
    by_size: dict[tuple[int, int], str] = {}
    names = set()
    for layer in network.layers:
        names.add(layer.name)
        shape = tuple(getattr(layer.output, "shape", ()))
        if type(layer).__name__ not in NO_TAP and len(shape) == 4 and min(shape[1:3]) > 1 and shape[-1] >= 4:
            by_size[shape[-3], shape[-2]] = layer.name
    last = network.layers[-1].name
    found = {name: name for name in by_size.values() if name != last}
    for tap in request.cuts:
        if tap not in names | {"features"}:
            near = get_close_matches(tap, sorted(names), 3)
            raise BackboneError(
                f"Unknown cut {tap!r}; keras:{request.name} has {', '.join([*found, 'features'])}, "
                "or any layer's name" + (f", such as {', '.join(near)}." if near else ".")
            )
        if tap != "features":
            found[tap] = tap
    return found | {"features": last}


def _module(model: Any, order: tuple[str, ...]) -> Any:
    import torch

    class Frozen(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.order = model, order

        def forward(self, pixels: Any) -> Any:
            return self.model(pixels, training=False)

    return Frozen().eval()
