"""The teacher: an ONNX file on an inference runtime, with the maps of its stages as outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.float32]
Run = Callable[[Array], list[Array]]
STAGE_ENDS = ("1.1", "2.2", "4.2", "6.0", "head")


class Teacher:
    """MobileNetV2 as ``onnx:FILE``; ``ends`` are names of blocks ("1.1") or "head", the last 1 x 1 layer.

    ``weights`` maps a layer ("blocks.1.0.conv_pw") to (weight, bias), batch norms folded, float32. ``fp32`` computes in
    fp32, otherwise the precision is the runtime's choice.
    """

    def __init__(self, uri: str, ends: Sequence[str] = STAGE_ENDS, *, fp32: bool = False, threads: int = 2):
        if not uri.startswith("onnx:"):
            raise SystemExit(f"Unknown teacher {uri!r}; expected onnx:FILE.")
        model = onnx.load(Path(uri.removeprefix("onnx:")))
        values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}
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
        self._run = _load_openvino(model, fp32, threads) or _load_onnxruntime(model, outputs, threads)

    def __call__(self, pixels: Array) -> list[Array]:
        """Compute the maps [n, channels, h', w'] at the ends from pixels [n, 3, h, w] in [-1, 1]."""
        return self._run(pixels)


def _output_of(graph: onnx.GraphProto, end: str) -> str:
    """Return the name of the tensor behind a block: that of its addition or activation, if it has one."""
    if end == "head":
        weights, next_op = "conv_head.weight", "Clip"
    else:
        weights, next_op = "blocks.0.0.conv_pw.weight" if end == "0.0" else f"blocks.{end}.conv_pwl.weight", "Add"
    output = next(node.output[0] for node in graph.node if node.op_type == "Conv" and node.input[1] == weights)
    return next((node.output[0] for node in graph.node if node.op_type == next_op and node.input[0] == output), output)


def _load_openvino(model: onnx.ModelProto, fp32: bool, threads: int) -> Run | None:
    try:
        import openvino as ov
    except ImportError:
        return None
    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if fp32:
        config["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
    request = compiled.create_infer_request()

    def run(pixels: Array) -> list[Array]:
        result = request.infer({0: np.ascontiguousarray(pixels)})
        return [np.array(result[port]) for port in compiled.outputs]

    return run


def _load_onnxruntime(model: onnx.ModelProto, outputs: list[str], threads: int) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options)
    return lambda pixels: session.run(outputs, {"pixels": pixels})
