"""Providers of backbones, one module each. Importing this package enters them all in ``PROVIDERS``."""

from headstart.backbones.providers import builtin, hub, keras, onnx_file, timm

__all__ = ["builtin", "hub", "keras", "onnx_file", "timm"]
