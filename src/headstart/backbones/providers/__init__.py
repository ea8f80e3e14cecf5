"""Providers of backbones, one module each, by the part of a backbone id before its colon."""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from headstart.backbones.backbone import Backbone, InputOptions

__all__ = ["BUILT_IN", "PROVIDERS", "Provider"]

Provider = Callable[[str, InputOptions, tuple[str, ...]], Backbone]
BUILT_IN = ("headstart-s", "headstart-m")


def _load(module: str, function: str, *arguments: object) -> Backbone:
    """Call a function of a provider, whose module is imported here: a command needs one of them."""
    backbone: Backbone = getattr(import_module(f"{__name__}.{module}"), function)(*arguments)
    return backbone


PROVIDERS: dict[str, Provider] = {
    **{name: partial(_load, "builtin", "load_builtin", name) for name in BUILT_IN},
    "onnx": partial(_load, "onnx_file", "load_onnx"),
    "hf": partial(_load, "hub", "load_hub"),
    "timm": partial(_load, "timm", "load_timm"),
    "keras": partial(_load, "keras", "load_keras"),
}
