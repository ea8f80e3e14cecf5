"""``keras:NAME``: the networks of keras.applications, on Keras' PyTorch backend, exported once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from headstart.backbones.backbone import Backbone, InputOptions
from headstart.backbones.input_config import merge_options
from headstart.backbones.providers.framework import (
    OnnxExport,
    Request,
    TorchModel,
    assumed_scaling,
    file_sha256,
    load_exported,
    reject_arguments,
    weights_source,
)
from headstart.backbones.scaling import ChannelStatistics
from headstart.errors import BackboneError, OptionError, missing_extra, one_line

RESERVED = {
    "weights",
    "include_top",
    "include_preprocessing",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
}
DEFAULT_SIZE = 224  # pixels; the networks below have another default
DEFAULT_SIZES = {
    "InceptionV3": 299,
    "InceptionResNetV2": 299,
    "Xception": 299,
    "NASNetLarge": 331,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
}
NOT_TAPPED = {"InputLayer", "ZeroPadding2D", "Cropping2D", "Rescaling", "Normalization"}
MIN_CHANNELS = 4  # of a map that is tapped


def load_keras(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the backbone ``keras:REST``. Raises BackboneError, OptionError, MissingExtraError."""
    return load_exported("keras", rest, options, taps, _export)


def _export(request: Request) -> OnnxExport:
    return open_keras(request).export()


def open_keras(request: Request) -> TorchModel:
    """Build the network as a torch module, whose ``model`` is Keras' own and ``layer_names`` those of its layers.

    Raises BackboneError, OptionError, MissingExtraError.
    """
    keras = _import_keras()
    reject_arguments("keras", request, RESERVED)
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    if request.name not in names:
        near = get_close_matches(request.name, names, 3) or names
        raise BackboneError(f"keras.applications has no {request.name!r}; did you mean {', '.join(near)}?")
    build = getattr(keras.applications, request.name)
    size = request.options.size or (DEFAULT_SIZES.get(request.name, DEFAULT_SIZE),) * 2
    mean, std, channels = scaling(sys.modules[build.__module__].preprocess_input)
    described = InputOptions(
        mean=mean, std=std, channels=channels, size=size, crop=1.0, resize="squash", interpolation="bilinear"
    )
    fetched: list[WeightsFile] = []
    network = _build(keras, build, request, size, fetched)
    layers = _tapped_layers(network, request)
    with _default_config(keras):
        tapped = keras.Model(network.inputs, [network.get_layer(name).output for name in layers.values()])
    if request.weights is not None:
        source = f"keras {keras.__version__}, {weights_source(request.weights)}"
    else:
        files = "".join(f", {file.name} (sha256 {file.sha256})" for file in fetched)
        source = f"keras {keras.__version__}, keras.applications.{request.name}, ImageNet{files}"
    notes = [
        f"Keras publishes no hash of {file.name}; that of the file received is sha256 {file.sha256}."
        for file in fetched
        if not file.is_checked
    ]
    options = merge_options(request.options, described)
    return TorchModel(
        module=_torch_module(tapped, tuple(layer.name for layer in network.layers)),
        taps=tuple(layers),
        shape=(*size, 3),
        options=options,
        licence="unknown",
        source=source,
        notes=tuple(notes),
        export_context=partial(_default_config, keras),
        assumed=assumed_scaling(request, options, f"keras.applications.{request.name}"),
        norms=_norms(network),
    )


def _norms(network: Any) -> Mapping[bytes, ChannelStatistics]:
    """The batch norms of a network, which Keras writes as arithmetic."""
    from headstart.backbones.onnx.norms import known_norms

    layers = [layer for layer in network.layers if type(layer).__name__ == "BatchNormalization"]
    return known_norms((layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in layers)


def _import_keras() -> Any:
    """Import Keras on PyTorch, whatever KERAS_BACKEND says. Raises MissingExtraError, BackboneError."""
    backend = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError:
        raise missing_extra("Keras or PyTorch is not installed", "keras") from None
    finally:
        os.environ.pop("KERAS_BACKEND")
        if backend is not None:
            os.environ["KERAS_BACKEND"] = backend
    if keras.backend.backend() != "torch":
        raise BackboneError(
            f"Keras runs on {keras.backend.backend()} in this process; set KERAS_BACKEND=torch before it is imported."
        )
    return keras


@contextmanager
def _default_config(keras: Any) -> Iterator[None]:
    """Channels last, float32, on the CPU: what the published weights are for, whatever ~/.keras says.

    Layers without a name of their own are numbered within a process. The count starts anew here, so that a cut names
    the same layer every time.
    """
    data_format = keras.config.image_data_format()
    dtype_policy = keras.config.dtype_policy()
    keras.utils.clear_session()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    try:
        with keras.device("cpu"):
            yield
    finally:
        keras.config.set_image_data_format(data_format)
        keras.config.set_dtype_policy(dtype_policy)


def scaling(preprocess_input: Any) -> tuple[tuple[float, float, float], tuple[float, float, float], str]:
    """Mean and deviation of RGB in 0..1, and order of the channels, that a ``preprocess_input`` amounts to.

    They are measured on black and on the three pure colours, so that no list of networks is kept here. Raises
    BackboneError if it does not scale each channel by itself.
    """
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.float32).reshape(4, 1, 1, 3)
    values = np.asarray(preprocess_input(pixels.copy(), data_format="channels_last"), np.float64).reshape(4, 3)
    shift, slopes = values[0], (values[1:] - values[0]) / 255
    is_reversed = abs(slopes[0, 0]) < abs(slopes[0, 2])
    if is_reversed:
        shift, slopes = shift[::-1], slopes[:, ::-1]
    slope = np.diag(slopes)
    if (slope <= 0).any() or not np.allclose(slopes, np.diag(slope), atol=1e-6):
        raise BackboneError(
            "This network's preprocessing does not scale each channel by itself, so Headstart cannot reproduce it."
        )
    std = 1 / (255 * slope)
    mean = -shift * std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), "BGR" if is_reversed else "RGB"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that Keras fetched, or had in its cache; ``is_checked`` against a hash that Keras knows."""

    name: str
    sha256: str
    is_checked: bool


def _build(keras: Any, build: Any, request: Request, size: tuple[int, int], fetched: list[WeightsFile]) -> Any:
    """Build a network, with the published weights unless the request has a file of them.

    ``fetched`` gets the files of weights that Keras fetches.
    """
    name, shape = request.name, (*size, 3)
    try:
        with _default_config(keras), allowed_on_torch(build):
            network = build(include_top=False, weights=None, input_shape=shape, **request.arguments)
    except Exception as error:  # too small an image, arguments that the function does not have
        raise OptionError(f"keras:{name} cannot be built for {size[0]} x {size[1]}: {one_line(error)}") from None
    if request.weights is not None:
        from headstart.backbones.providers.keras_weights import load_weights

        load_weights(network, request.weights, name)
    else:
        try:
            with _default_config(keras), allowed_on_torch(build), _recorded_files(build, fetched):
                network = build(include_top=False, weights="imagenet", input_shape=shape, **request.arguments)
        except Exception as error:  # of the network, the disk or the file
            raise BackboneError(
                f"The weights of keras:{name} are not in the cache and cannot be fetched ({one_line(error, 240)}); "
                "run this once with a network connection, or give the file with --weights FILE."
            ) from None
    network.trainable = False
    return network


@contextmanager
def _recorded_files(build: Any, fetched: list[WeightsFile]) -> Iterator[None]:
    """Record the files that ``build`` fetches with Keras' ``get_file``, which compares a hash where it is given one."""
    module: Any = sys.modules[build.__module__]
    file_utils = module.file_utils

    def get_file(*args: Any, **kwargs: Any) -> Any:
        path = file_utils.get_file(*args, **kwargs)
        is_checked = any(kwargs.get(key) for key in ("file_hash", "md5_hash"))
        fetched.append(WeightsFile(Path(path).name, file_sha256(Path(path)), is_checked))
        return path

    module.file_utils = SimpleNamespace(**{**vars(file_utils), "get_file": get_file})
    try:
        yield
    finally:
        module.file_utils = file_utils


@contextmanager
def allowed_on_torch(build: Any) -> Iterator[None]:
    """Let ``build`` make NASNetMobile, which Keras allows on TensorFlow alone.

    Its layers give on PyTorch what they give on TensorFlow (see docs/explanation/graphs.md).
    """
    module: Any = sys.modules[build.__module__]
    if build.__name__ != "NASNetMobile":
        yield
        return
    backend = module.backend
    module.backend = SimpleNamespace(**{**vars(backend), "backend": lambda: "tensorflow"})
    try:
        yield
    finally:
        module.backend = backend


def _tapped_layers(network: Any, request: Request) -> Mapping[str, str]:
    """Layer name by tap name: the last layer of each resolution, the requested ones, and the last as "features".

    A layer that all ways pass comes before one of a branch.
    """
    from headstart.backbones.onnx.taps import passed_by_all

    last = network.layers[-1].name
    passed = passed_by_all([([layer.name], _layers_before(layer)) for layer in network.layers], last)
    last_of_size: dict[tuple[int, int], str] = {}
    names = set()
    for layer in network.layers:
        names.add(layer.name)
        shape = tuple(getattr(layer.output, "shape", ()))
        if type(layer).__name__ in NOT_TAPPED or len(shape) != 4:
            continue
        is_better = layer.name in passed or last_of_size.get(shape[1:3]) not in passed
        if min(shape[1:3]) > 1 and shape[3] >= MIN_CHANNELS and is_better:
            last_of_size[shape[1:3]] = layer.name
    taps = {name: name for name in last_of_size.values() if name != last}
    for name in request.layers:
        if name not in names | {"features"}:
            near = get_close_matches(name, sorted(names), 3)
            raise BackboneError(
                f"Unknown cut {name!r}; keras:{request.name} has {', '.join([*taps, 'features'])}, "
                "or any layer's name" + (f", such as {', '.join(near)}." if near else ".")
            )
        if name != "features":
            taps[name] = name
    return taps | {"features": last}


def _layers_before(layer: Any) -> set[str]:
    """The layers whose outputs a layer takes."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return {tensor._keras_history.operation.name for tensor in inputs} - {layer.name}


def _torch_module(model: Any, layer_names: tuple[str, ...]) -> Any:
    import torch

    class Frozen(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.layer_names = layer_names

        def forward(self, pixels: Any) -> Any:
            return self.model(pixels, training=False)

    return Frozen().eval()
