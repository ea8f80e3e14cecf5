"""Small ONNX image classifiers of every kind, with weights from a seed, and how to run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.scaling import Scaling
from headstart.data import Dataset
from headstart.features.input_scaling import sample_pixels
from headstart.images.preprocess import Preprocess

SIZE = 32
CLASSES = 5
NORMS = [(np.zeros(8), np.ones(8)), (np.zeros(12), np.ones(12)), (np.zeros(12), np.ones(12))]  # for ``normed``
FLOAT = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


class _Builder:
    """Collects nodes and weights."""

    def __init__(self, dtype: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = FLOAT[dtype]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        values = (self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(self.dtype)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes))
        return output


def network(
    *,
    opset: int = 17,
    batch: int | str = "n",
    channels_last: bool = False,
    head: str = "Gemm",
    softmax: bool = True,
    dtype: int = TensorProto.FLOAT,
    size: int | str = SIZE,
    seed: int = 0,
) -> onnx.ModelProto:
    """conv 3 -> 8 (stride 2), ReLU, conv 8 -> 12 (stride 2), ReLU, average, classifier.

    The input is NHWC if ``channels_last``, else NCHW; ``head`` is how the classifier is written: "Gemm", "Reshape" or
    "Conv". Tensors: ``early`` [n, 8, 16, 16], ``late`` [n, 12, 8, 8], ``pooled``, ``logits``, ``probabilities``.
    """
    b = _Builder(dtype, seed)
    x = b.node("Transpose", ["image"], "first", perm=[0, 3, 1, 2]) if channels_last else "image"
    conv = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = b.node("Conv", [x, b.weight("w1", 8, 3, 3, 3), b.weight("b1", 8)], "c1", **conv)
    x = b.node("Relu", [x], "early")
    x = b.node("Conv", [x, b.weight("w2", 12, 8, 3, 3), b.weight("b2", 12)], "c2", **conv)
    x = b.node("Relu", [x], "late")
    x = b.node("GlobalAveragePool", [x], "pooled")
    if head == "Gemm":
        x = b.node("Flatten", [x], "flat")
        x = b.node("Gemm", [x, b.weight("w3", CLASSES, 12), b.weight("b3", CLASSES)], "logits", transB=1)
    elif head == "Reshape":  # names its batch, as exporters of fixed batches do
        shape = np.array([batch if isinstance(batch, int) else -1, 12], np.int64)
        b.weights.append(numpy_helper.from_array(shape, "shape"))
        x = b.node("Reshape", [x, "shape"], "flat")
        x = b.node("MatMul", [x, b.weight("w3", 12, CLASSES)], "logits")
    else:
        x = b.node("Conv", [x, b.weight("w3", CLASSES, 12, 1, 1)], "scores", kernel_shape=[1, 1])
        x = b.node("Flatten", [x], "logits")
    if softmax:
        x = b.node("Softmax", [x], "probabilities", axis=1)
    image = [batch, size, size, 3] if channels_last else [batch, 3, size, size]
    inputs = [helper.make_tensor_value_info("image", dtype, image)]
    outputs = [helper.make_tensor_value_info(x, dtype, [batch, CLASSES])]
    graph = helper.make_graph(b.nodes, "small", inputs, outputs, b.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model


def branching() -> onnx.ModelProto:
    """Two blocks of two branches each that are concatenated, as in Inception, the second of half the resolution.

    Tensors: ``joined`` [n, 12, 16, 16], ``narrow`` [n, 6, 16, 16] in a branch behind it, ``end`` [n, 14, 8, 8],
    ``logits``.
    """
    b = _Builder(TensorProto.FLOAT, 0)
    half, same = {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"pads": [1, 1, 1, 1]}
    x = b.node("Conv", ["image", b.weight("w1", 8, 3, 3, 3)], "first", **half)
    left = b.node("Conv", [x, b.weight("w2", 5, 8, 3, 3)], "left", **same)
    right = b.node("Conv", [x, b.weight("w3", 7, 8, 3, 3)], "right", **same)
    x = b.node("Concat", [left, right], "joined", axis=1)
    narrow = b.node("Conv", [x, b.weight("w4", 6, 12, 3, 3)], "narrow", **same)
    low = b.node("Conv", [narrow, b.weight("w5", 8, 6, 3, 3)], "low", **half)
    high = b.node("Conv", [x, b.weight("w6", 6, 12, 3, 3)], "high", **half)
    x = b.node("GlobalAveragePool", [b.node("Concat", [low, high], "end", axis=1)], "pooled")
    x = b.node("Gemm", [b.node("Flatten", [x], "flat"), b.weight("w7", CLASSES, 14)], "logits", transB=1)
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(b.nodes, "branching", inputs, outputs, b.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def transformer(batch: int = 1) -> onnx.ModelProto:
    """A block of attention as PyTorch exports it for a fixed batch: patches of 4 pixels, 4 heads, average, classifier.

    Every Reshape names the batch, and that no 0 is a size to be copied. Tensors: ``patches`` [n, 12, 8, 8], the weights
    of attention [n, 4, 64, 64] in the middle, ``map`` [n, 8, 8, 12], ``logits``.
    """
    b = _Builder(TensorProto.FLOAT, 0)

    def reshaped(tensor: str, output: str, *shape: int) -> str:
        b.weights.append(numpy_helper.from_array(np.array(shape, np.int64), f"{output}_shape"))
        return b.node("Reshape", [tensor, f"{output}_shape"], output, allowzero=1)

    conv = {"kernel_shape": [4, 4], "strides": [4, 4]}
    x = b.node("Conv", ["image", b.weight("w1", 12, 3, 4, 4)], "patches", **conv)
    tokens = b.node("Transpose", [reshaped(x, "flat", batch, 12, 64)], "tokens", perm=[0, 2, 1])
    heads = b.node("Transpose", [reshaped(tokens, "parts", batch, 64, 4, 3)], "heads", perm=[0, 2, 1, 3])
    queries = reshaped(heads, "queries", batch * 4, 64, 3)
    keys = b.node("Transpose", [queries], "keys", perm=[0, 2, 1])
    weights = b.node("Softmax", [b.node("MatMul", [queries, keys], "products")], "weights", axis=2)
    together = reshaped(weights, "weights_of_heads", batch, 4, 64, 64)
    seen = b.node("MatMul", [together, heads], "seen")
    x = reshaped(b.node("Transpose", [seen], "joined", perm=[0, 2, 1, 3]), "mixed", batch, 64, 12)
    x = reshaped(b.node("Add", [x, tokens], "sum"), "map", batch, 8, 8, 12)
    b.weights.append(numpy_helper.from_array(np.array([1, 2], np.int64), "axes"))
    x = b.node("ReduceMean", [x, "axes"], "pooled", keepdims=0)
    x = b.node("Gemm", [x, b.weight("w2", CLASSES, 12), b.weight("b2", CLASSES)], "logits", transB=1)
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(b.nodes, "transformer", inputs, outputs, b.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def normed(stored: list[tuple[np.ndarray, np.ndarray]], *, seed: int = 0, size: int = SIZE) -> onnx.ModelProto:
    """conv 3 -> 8 (stride 2), ReLU, conv 8 -> 12 (stride 2), ReLU, conv 12 -> 12, ReLU, average, classifier.

    Behind the first convolutions are batch norms with the ``stored`` means and variances. Tensors: the outputs ``c1``
    [n, 8, 16, 16], ``c2`` [n, 12, 8, 8], ``c3`` [n, 12, 8, 8] of the convolutions.
    """
    b = _Builder(TensorProto.FLOAT, seed)
    x = "image"
    for i, (outputs, inputs, stride) in enumerate(((8, 3, 2), (12, 8, 2), (12, 12, 1)), 1):
        conv = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1, 1, 1, 1]}
        x = b.node("Conv", [x, b.weight(f"w{i}", outputs, inputs, 3, 3)], f"c{i}", **conv)
        if i <= len(stored):
            values = {"gamma": np.ones(outputs), "beta": np.zeros(outputs), "mean": stored[i - 1][0]}
            values["variance"] = stored[i - 1][1]
            for name, value in values.items():
                b.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{name}{i}"))
            x = b.node("BatchNormalization", [x, *(f"{name}{i}" for name in values)], f"n{i}", epsilon=1e-5)
        x = b.node("Relu", [x], f"r{i}")
    x = b.node("GlobalAveragePool", [x], "pooled")
    x = b.node("Flatten", [x], "flat")
    x = b.node("Gemm", [x, b.weight("w4", CLASSES, 12), b.weight("b4", CLASSES)], "logits", transB=1)
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size])]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", CLASSES])]
    model = helper.make_model(
        helper.make_graph(b.nodes, "normed", inputs, outputs, b.weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 7
    onnx.checker.check_model(model)
    return model


def saved(folder: Path, name: str = "net.onnx", **options: object) -> Path:
    """Write the network with these options to a file, and return its path."""
    path = Path(folder) / name
    path.write_bytes(network(**options).SerializeToString())  # type: ignore[arg-type]
    return path


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs of a graph, by plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def tensor_value(model: onnx.ModelProto, tensor: str, image: np.ndarray) -> np.ndarray:
    """The value of any tensor of a graph as it was exported, batch by batch if its batch size is fixed."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_empty_tensor_value_info(tensor))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else len(image)
    return np.concatenate([session.run(None, {"image": image[i : i + step]})[0] for i in range(0, len(image), step)])


def tap_values(backbone, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The values of a backbone's taps by name, for uint8 images, batch by batch if its batch size is fixed."""
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    step = backbone.batch or len(pixels)
    batches = [session.run(None, {"pixels": pixels[i : i + step]}) for i in range(0, len(pixels), step)]
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches, strict=True), strict=True)}


def normalised(pixels: np.ndarray, mean=0.5, std=0.5, channels_last: bool = False, bgr: bool = False) -> np.ndarray:
    """uint8 images [n, height, width, 3] as a network takes them: float32, NCHW unless ``channels_last``."""
    x = ((pixels / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    x = x[..., ::-1] if bgr else x
    return np.ascontiguousarray(x if channels_last else x.transpose(0, 3, 1, 2))


def trained_network(scaling: Scaling, images: Dataset, path: Path) -> str:
    """Write a network whose batch norms hold what these images give, scaled like this; return its id."""
    pixels = sample_pixels(images, Preprocess(SIZE, SIZE))
    stored: list[tuple[np.ndarray, np.ndarray]] = []
    for i in (1, 2, 3):
        value = tensor_value(normed([*stored, *NORMS[i - 1 :]]), f"c{i}", scaling(pixels).transpose(0, 3, 1, 2))
        stored.append((value.mean(axis=(0, 2, 3)), value.var(axis=(0, 2, 3))))
    onnx.save(normed(stored), path)
    return f"onnx:{path}"
