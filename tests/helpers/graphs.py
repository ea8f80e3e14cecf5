"""Small ONNX image classifiers of every kind, with weights from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
FLOAT = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def network(
    *, opset: int = 17, batch: int | str = "n", last: bool = False, head: str = "Gemm", softmax: bool = True,
    dtype: int = TensorProto.FLOAT, size: int | str = SIZE, seed: int = 0, classes: int = 5,
) -> onnx.ModelProto:  # fmt: skip
    """conv 3 -> 8 (stride 2), ReLU, conv 8 -> 12 (stride 2), ReLU, average, classifier; NHWC input if ``last``.

    Tensors: ``early`` [n, 8, 16, 16], ``late`` [n, 12, 8, 8], ``pooled``, ``logits``, ``answer``.
    """
    rng = np.random.default_rng(seed)
    weights, nodes = [], []

    def weight(name, *shape):
        values = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(FLOAT[dtype])
        weights.append(numpy_helper.from_array(values, name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))
        return output

    x = node("Transpose", ["image"], "first", perm=[0, 3, 1, 2]) if last else "image"
    conv = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = node("Relu", [node("Conv", [x, weight("w1", 8, 3, 3, 3), weight("b1", 8)], "c1", **conv)], "early")
    x = node("Relu", [node("Conv", [x, weight("w2", 12, 8, 3, 3), weight("b2", 12)], "c2", **conv)], "late")
    x = node("GlobalAveragePool", [x], "pooled")
    if head == "Gemm":
        x = node("Flatten", [x], "flat")
        x = node("Gemm", [x, weight("w3", classes, 12), weight("b3", classes)], "logits", transB=1)
    elif head == "Reshape":  # names its batch, as exporters of fixed batches do
        shape = numpy_helper.from_array(np.array([batch if isinstance(batch, int) else -1, 12], np.int64), "shape")
        weights.append(shape)
        x = node("MatMul", [node("Reshape", [x, "shape"], "flat"), weight("w3", 12, classes)], "logits")
    else:
        x = node("Conv", [x, weight("w3", classes, 12, 1, 1)], "scores", kernel_shape=[1, 1])
        x = node("Flatten", [x], "logits")
    if softmax:
        x = node("Softmax", [x], "answer", axis=1)
    shape = [batch, size, size, 3] if last else [batch, 3, size, size]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info(x, dtype, [batch, classes])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model


def saved(folder: Path, name: str = "net.onnx", **options: object) -> Path:
    """The network in a file."""
    path = Path(folder) / name
    path.write_bytes(network(**options).SerializeToString())  # type: ignore[arg-type]
    return path


def inner(model: onnx.ModelProto, tensor: str, image: np.ndarray) -> np.ndarray:
    """The value of any tensor of a graph, by plain ONNX Runtime, one image at a time if the batch is fixed."""
    import onnxruntime

    open_ = onnx.ModelProto()
    open_.CopyFrom(model)
    del open_.graph.output[:]
    open_.graph.output.append(helper.make_empty_tensor_value_info(tensor))
    session = onnxruntime.InferenceSession(open_.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else len(image)
    return np.concatenate([session.run(None, {"image": image[i : i + step]})[0] for i in range(0, len(image), step)])
