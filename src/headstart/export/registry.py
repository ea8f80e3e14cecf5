"""All formats by name: one module each."""

from __future__ import annotations

from headstart.export.formats import Format
from headstart.export.to_coreml import COREML
from headstart.export.to_hub import HUB
from headstart.export.to_litert import LITERT
from headstart.export.to_onnx import ONNX
from headstart.export.to_openvino import OPENVINO
from headstart.export.to_savedmodel import SAVEDMODEL
from headstart.export.to_torch import TORCH
from headstart.export.to_web import WEB

FORMATS: dict[str, Format] = {
    format.name: format for format in (ONNX, OPENVINO, LITERT, SAVEDMODEL, COREML, TORCH, WEB, HUB)
}
