"""Backbones: pretrained networks as ONNX graphs with named taps, each from a provider.

graph.py       read a graph, find its taps, bake the normalisation in, cut it
onnx_file.py   onnx:FILE, any ONNX image classifier
described.py   how it wants its pictures, from JSON beside it
hub.py         hf:ORG/NAME, ONNX repositories on the Hugging Face Hub
builtin.py     headstart-s, the one that comes with the package
exported.py    what the next two share: ids with arguments, one export, the store
timm_zoo.py    timm:NAME, PyTorch Image Models
keras_zoo.py   keras:NAME, keras.applications
store.py       backbones kept under a name: put, get, entries, remove
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.backbones.backbone import PROVIDERS, Backbone, InputOptions, Tap
from headstart.errors import BackboneError, OptionError

if TYPE_CHECKING:
    import onnx

__all__ = ["AVAILABLE", "PROVIDERS", "Backbone", "InputOptions", "Tap", "cut", "load"]

AVAILABLE = {
    "headstart-s": "built in: 160 x 160 pixels, five taps, 4 MB, no download",
    "onnx:FILE": "any ONNX image classifier",
    "hf:ORG/NAME": "an ONNX repository on the Hugging Face Hub, fetched once",
    "timm:NAME": "any PyTorch Image Model, exported once (pip install 'headstart[zoo]')",
    "keras:NAME": "any network of keras.applications, exported once (pip install 'headstart[keras]')",
    "NAME": "what headstart backbones import keeps under NAME",
}


def load(backbone: str, *, options: InputOptions | None = None, taps: Sequence[str] = ()) -> Backbone:
    """The backbone with an id such as ``onnx:FILE`` or ``headstart-s``.

    ``options`` override how pictures are prepared; ``taps`` name further tensors of the graph to tap. Raises
    BackboneError when the network cannot be read or cut, OptionError for an id no provider knows.
    """
    from headstart.backbones.providers import builtin, hub, keras, onnx_file, timm  # noqa: F401  # they enter PROVIDERS

    name, _, rest = backbone.partition(":")
    if name not in PROVIDERS:
        return _kept(backbone, options or InputOptions(), tuple(taps))
    return PROVIDERS[name](rest, options or InputOptions(), tuple(taps))


def _kept(name: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """A backbone of the store. It is prepared already, so options are refused."""
    from headstart.backbones import store

    found = store.get(name)
    if found is None:
        known = [entry.name for entry in store.entries() if entry.name and ":" not in entry.name]
        raise OptionError(f"Unknown backbone {name!r}; expected {', '.join([*AVAILABLE][:-1] + known)}.")
    if options != InputOptions():
        raise OptionError(f"{name} was imported with its input size and scaling; leave those options out.")
    unknown = [tap for tap in taps if tap not in [known.name for known in found.taps]]
    if unknown:
        raise BackboneError(f"Unknown cut {unknown[0]!r}; {name} has {', '.join(tap.name for tap in found.taps)}.")
    return found


def cut(backbone: Backbone, taps: Sequence[str]) -> onnx.ModelProto:
    """The backbone's graph with only ``taps`` as outputs, and only what they need. Raises BackboneError."""
    import onnx

    from headstart.backbones.onnx.standardise import prune

    known = [tap.name for tap in backbone.taps]
    for tap in taps:
        if tap not in known:
            raise BackboneError(f"Unknown cut {tap!r}; {backbone.id} has {', '.join(known)}.")
    read = onnx.load_model_from_string if isinstance(backbone.graph, bytes) else onnx.load
    model = read(backbone.graph)
    prune(model, taps)
    return model
