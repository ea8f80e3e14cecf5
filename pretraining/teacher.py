"""The teacher: an ONNX file on the frozen runtime, its stages tapped. Only the student pays for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.float32]
STAGE_ENDS = ("1.1", "2.2", "4.2", "6.0", "head")


class Teacher:
    """MobileNetV2 as ``onnx:FILE``; ``ends`` are block names ("1.1") or "head", the last 1 x 1 layer.

    ``self.weights`` maps a layer ("blocks.1.0.conv_pw") to (weight, bias), batch norms folded, float32.
    """

    def __init__(self, uri: str, ends: Sequence[str] = STAGE_ENDS, *, precise: bool = False, threads: int = 2):
        if not uri.startswith("onnx:"):
            raise SystemExit(f"unknown teacher {uri!r}: expected onnx:FILE")
        model = onnx.load(Path(uri.removeprefix("onnx:")))
        values = {i.name: numpy_helper.to_array(i).astype(np.float32) for i in model.graph.initializer}
        self.weights = {
            name.removesuffix(".weight"): (value, values[bias])
            for name, value in values.items()
            if name.endswith(".weight")
            for bias in (name + "_bias", name.removesuffix("weight") + "bias")
            if bias in values
        }
        outputs = [_output_of(model.graph, end) for end in ends]
        for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
            dim.dim_param = name
        del model.graph.value_info[:]
        del model.graph.output[:]
        for name in outputs:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self._run = _openvino(model, precise, threads) or _onnxruntime(model, outputs, threads)

    def __call__(self, pixels: Array) -> list[Array]:
        """Pixels [n, 3, h, w] in [-1, 1] to the maps [n, channels, h', w'] of the asked ends."""
        return self._run(pixels)


def _output_of(graph: onnx.GraphProto, end: str) -> str:
    if end == "head":
        wanted = ("conv_head.weight",)
    else:
        wanted = (f"blocks.{end}.conv_pwl.weight", "blocks.0.0.conv_pw.weight" if end == "0.0" else "-")
    name = next(n.output[0] for n in graph.node if n.op_type == "Conv" and n.input[1] in wanted)
    follows = "Clip" if end == "head" else "Add"
    return next((n.output[0] for n in graph.node if n.op_type == follows and n.input[0] == name), name)


def _openvino(model: onnx.ModelProto, precise: bool, threads: int):
    try:
        import openvino as ov
    except ImportError:
        return None
    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precise:
        config["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
    request = compiled.create_infer_request()

    def run(pixels: Array) -> list[Array]:
        result = request.infer({0: np.ascontiguousarray(pixels)})
        return [np.array(result[port]) for port in compiled.outputs]

    return run


def _onnxruntime(model: onnx.ModelProto, outputs: list[str], threads: int):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options)
    return lambda pixels: session.run(outputs, {"pixels": pixels})
