"""Providers of backbones, one module each, by the part of a backbone id before its colon."""

from collections.abc import Callable
from functools import partial

from headstart.backbones.backbone import Backbone, InputOptions
from headstart.backbones.providers.builtin import load_builtin
from headstart.backbones.providers.hub import load_hub
from headstart.backbones.providers.keras import load_keras
from headstart.backbones.providers.onnx_file import load_onnx
from headstart.backbones.providers.timm import load_timm

__all__ = ["BUILT_IN", "PROVIDERS", "Provider"]

Provider = Callable[[str, InputOptions, tuple[str, ...]], Backbone]
BUILT_IN = ("headstart-s", "headstart-m")
PROVIDERS: dict[str, Provider] = {
    **{name: partial(load_builtin, name) for name in BUILT_IN},
    "onnx": load_onnx,
    "hf": load_hub,
    "timm": load_timm,
    "keras": load_keras,
}
