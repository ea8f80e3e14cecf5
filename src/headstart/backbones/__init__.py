"""Backbones: pretrained networks as ONNX graphs with named taps, each from a provider.

backbone.py      Backbone, Tap and InputOptions
input_config.py  how a network wants its images, from a JSON file
prepare.py       from a foreign graph to a backbone in the store
scaling.py       the usual scalings, and which fits what batch norms have stored
steps.py         the steps by which features are rounded to whole numbers
store.py         prepared backbones on disk: put, get, entries, remove
int8.py          the int8 version beside a backbone's graph: read and write

onnx/            work on graphs
    external_data   read a graph and the weights beside it
    standardise     bring it into the standard form, with the taps as outputs
    taps            find the taps
    shapes          shape and layout of each tensor
    channels_first  remove transposes
    folding         fold constants, padding, scales and shifts into weights
    runnable        check that it runs, and with which batch sizes
    norms           its batch norms, and what images give as their input
    quantise        an int8 version of a graph
    unpool          the maps that the taps are means of
    graph           small operations that several of these need

providers/       where backbones come from
    builtin         headstart-m and headstart-s, which come with the package
    onnx_file       onnx:FILE, any ONNX image classifier
    hub             hf:ORG/NAME, ONNX repositories on the Hugging Face Hub (hub_client speaks to it)
    timm            timm:NAME, PyTorch Image Models
    keras           keras:NAME, keras.applications (keras_weights reads files of weights)
    framework       what the last two share
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import Backbone, InputOptions, Tap, check_taps
from headstart.errors import OptionError

if TYPE_CHECKING:
    from onnx import ModelProto
else:
    ModelProto = Any  # to import onnx takes a quarter of a second, and few programs call ``cut``

__all__ = ["AVAILABLE", "DEFAULT_BACKBONE", "FAST_BACKBONE", "Backbone", "InputOptions", "Tap", "cut", "load"]

DEFAULT_BACKBONE = "headstart-m"
FAST_BACKBONE = "headstart-s"  # the other one that is built in
AVAILABLE = {
    DEFAULT_BACKBONE: "built in, the default and the more accurate one, no download",
    FAST_BACKBONE: "built in, the faster one, no download",
    "onnx:FILE": "any ONNX image classifier",
    "hf:ORG/NAME": "an ONNX repository on the Hugging Face Hub, fetched once",
    "timm:NAME": "any PyTorch Image Model, exported once (pip install 'headstart[timm]')",
    "keras:NAME": "any network of keras.applications, exported once (pip install 'headstart[keras]')",
    "NAME": "a backbone stored by headstart backbones import",
}


def load(
    id: str, *, options: InputOptions | None = None, taps: Sequence[str] = (), precision: str = "fp32"
) -> Backbone:
    """Load the backbone with an id such as ``headstart-m`` or ``onnx:FILE``.

    ``options`` override how images are prepared; ``taps`` name further tensors of the graph to tap. ``precision``
    "int8" is the backbone's int8 version, every other value its float graph. Raises BackboneError when the network
    cannot be read or cut, OptionError for an id that no provider knows or that has no int8 version, MissingExtraError
    when a provider needs a package that is not installed.
    """
    from headstart.backbones.int8 import require_int8
    from headstart.backbones.providers import PROVIDERS

    name, _, rest = id.partition(":")
    if name not in PROVIDERS:
        backbone = _load_stored(id, options or InputOptions(), tuple(taps))
    else:
        backbone = PROVIDERS[name](rest, options or InputOptions(), tuple(taps))
    return require_int8(backbone, id) if precision == "int8" else backbone


def _load_stored(name: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load a backbone of the store. It is prepared already, so options are refused."""
    from headstart.backbones import store

    backbone = store.get(name)
    if backbone is None:
        stored = [entry.name for entry in store.entries() if entry.name and ":" not in entry.name]
        mend = "" if ":" in name else f"; a network of timm is timm:{name}, one of Keras keras:{name}"
        raise OptionError(f"Unknown backbone {name!r}; expected {', '.join([*AVAILABLE][:-1] + stored)}{mend}.")
    if options != InputOptions():
        raise OptionError(f"{name} was imported with its input size and scaling; leave those options out.")
    check_taps(backbone, taps, name)
    return backbone


def cut(backbone: Backbone, taps: Sequence[str]) -> ModelProto:
    """The backbone's graph with only ``taps`` as outputs, and only the nodes and weights that they need.

    Raises BackboneError for an unknown tap.
    """
    import onnx

    from headstart.backbones.onnx.graph import prune

    check_taps(backbone, taps)
    read = onnx.load_model_from_string if isinstance(backbone.graph, bytes) else onnx.load
    model = read(backbone.graph)
    prune(model, taps)
    return model
