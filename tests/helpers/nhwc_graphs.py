"""Graphs in NHWC layout as exporters of Keras write them: each convolution between two transposes, padding separate."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.standardise import Normalisation, standardise
from helpers.graphs import normalised, run

SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), bgr=True)
OPERATORS = (
    "conv",
    "padded conv",
    "squeeze and excitation",
    "relu",
    "clip",
    "branch",
    "concat",
    "slice",
    "mean",
    "gather",
    "layer norm",
    "scalar",
    "edge padding",
    "max pool",
    "padded max pool",
)


class GraphBuilder:
    """Adds nodes one by one; methods return the name of the tensor that they add."""

    def __init__(self, opset=18, seed=0):
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes = []
        self.constants = []
        self.count = 0

    def constant(self, value):
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"k{self.count}"))
        return f"k{self.count}"

    def node(self, op_type, *inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(op_type, list(inputs), [f"t{self.count}"], **attributes))
        return f"t{self.count}"

    def numbers(self, *shape):
        return self.constant((self.rng.normal(size=shape) / 3 + 0.5).astype(np.float32))

    def conv(self, x, channels_in, channels_out, pads=None, stride=1, fill=0.0):
        """Padding, a 3 x 3 convolution between transposes, a batch norm written as arithmetic, ReLU."""
        if pads is not None:
            x = self.node("Pad", x, self.constant(np.array(pads, np.int64)), self.constant(np.float32(fill)))
        scale = 3 * channels_in**0.5
        weight = self.constant((self.rng.normal(size=(3, 3, channels_in, channels_out)) / scale).astype(np.float32))
        weight = self.node("Transpose", weight, perm=[3, 2, 0, 1])
        x = self.node("Transpose", x, perm=[0, 3, 1, 2])
        x = self.node("Conv", x, weight, pads=[1, 1, 1, 1], strides=[stride] * 2)
        x = self.node("Transpose", x, perm=[0, 2, 3, 1])
        x = self.node("Sub", x, self.numbers(channels_out))
        x = self.node("Mul", x, self.numbers(1, 1, 1, channels_out))
        return self.node("Relu", self.node("Add", x, self.numbers(channels_out)))

    def squeeze(self, x, channels):
        """Squeeze and excitation: each channel times a function of its mean."""
        y = self.node("ReduceMean", x, self.constant(np.array([1, 2], np.int64)), keepdims=0)
        y = self.node("Reshape", y, self.constant(np.array([-1, 1, 1, channels], np.int64)))
        return self.node("Mul", x, self.node("Sigmoid", self.node("Add", y, self.numbers(channels))))

    def append(self, x, operator, channels):
        """One more of the ``OPERATORS`` on an NHWC tensor: the new tensor and its channels."""
        if operator in ("conv", "padded conv"):
            pads = [0, 1, 0, 0, 0, 0, 2, 0] if operator == "padded conv" else None
            return self.conv(x, channels, 6, pads, fill=float(self.rng.integers(0, 2))), 6
        if operator == "squeeze and excitation":
            return self.squeeze(x, channels), channels
        if operator == "concat":
            return self.node("Concat", x, self.node("Sigmoid", x), axis=-1), 2 * channels
        if operator == "slice":
            bounds = [self.constant(np.array(v, np.int64)) for v in ([1, 0], [99, 2], [2, 3])]
            return self.node("Slice", x, *bounds), min(2, channels)
        if operator == "layer norm":  # needs the NHWC layout
            norm = self.node("LayerNormalization", x, self.numbers(channels), axis=-1)
            return self.node("MatMul", norm, self.constant(self.rng.normal(size=(channels, 5)).astype(np.float32))), 5
        return self._append_like(x, operator, channels), channels

    def _append_like(self, x, operator, channels):
        """An operator that keeps the number of channels."""
        if operator == "clip":
            return self.node("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        if operator == "branch":
            return self.node("Sub", self.node("Tanh", x), self.node("Mul", x, self.numbers(channels)))
        if operator == "mean":
            return self.node("Add", x, self.node("ReduceMean", x, self.constant(np.array([3], np.int64)), keepdims=1))
        if operator == "gather":
            return self.node("Gather", x, self.constant(np.arange(channels)[::-1].copy()), axis=3)
        if operator == "scalar":
            # Never near a division by zero, which would turn rounding into any number.
            above = self.constant(np.array([self.rng.uniform(0.5, 1.5)], np.float32))
            return self.node("Div", self.constant(np.float32(1)), self.node("Add", self.node("Abs", x), above))
        pads = self.constant(np.array([0, 1, 1, 0, 0, 1, 1, 0], np.int64))
        if operator == "edge padding":
            return self.node("Pad", x, pads, mode="edge")
        if operator in ("max pool", "padded max pool"):
            if operator == "padded max pool":
                x = self.node("Pad", x, pads, self.constant(np.float32(0)))
            x = self.node("Transpose", x, perm=[0, 3, 1, 2])
            x = self.node("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1])
            return self.node("Transpose", x, perm=[0, 2, 3, 1])
        return self.node("Relu", x)

    def model(self, output):
        """The graph with the input ``image`` [n, 16, 16, 3] and this output."""
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "nhwc", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return model


def standard_form(model, tensor):
    """A copy of the graph in standard form, with ``tensor`` as its features."""
    standard = onnx.ModelProto.FromString(model.SerializeToString())
    standardise(standard, NORMALISATION, (SIDE, SIDE), (), {"features": tensor})
    return standard


def normalised_pixels(channels_last=True):
    """``PIXELS`` as a network takes them."""
    scaling = NORMALISATION
    return normalised(PIXELS, scaling.mean, scaling.std, channels_last=channels_last, bgr=scaling.bgr)


def exported_value(model):
    """What the graph gives for ``PIXELS`` as it was exported."""
    return run(model, {"image": normalised_pixels()})[0]
