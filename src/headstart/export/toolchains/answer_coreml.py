"""Answer images by the arithmetic of a Core ML package. Runs in the toolchain "coreml": python answer_coreml.py PACKAGE

Core ML itself runs on Apple's systems alone. So the saved package is read, each operation of its program is written as
the ONNX operator that computes the same, and that graph is run. This proves weights, wiring, shapes and labels in the
file; not Apple's runtime, nor how it scales images. Requests and answers: see ``export.toolchain``.
"""

import json
import os
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAME = {  # operations of MIL, and the operator of ONNX with the same inputs in the same order
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "real_div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "erf": "Erf",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "identity": "Identity",
}
TYPES = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT, "int32": TensorProto.INT32}
SLICE = {"begin": 0, "end": 0, "stride": 1, "begin_mask": False, "end_mask": False, "squeeze_mask": False}
REDUCE = {"reduce_mean": "ReduceMean", "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}


class Writer:
    """Nodes and constants of the ONNX graph so far."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def name(self, value: Any) -> str:
        """Return the name of a value; a constant is written."""
        if value.val is not None and value.name not in self.constants:
            self.constants[value.name] = numpy_helper.from_array(np.asarray(value.val), value.name)
        return str(value.name)

    def integers(self, name: str, values: Any) -> str:
        """Write numbers of 64 bits, as ONNX wants them, and return their name."""
        self.constants[name] = numpy_helper.from_array(np.asarray(values, np.int64).reshape(-1), name)
        return name

    def node(self, kind: str, inputs: list[str], op: Any, **attributes: Any) -> None:
        """Write a node with the name of the operation's output."""
        self.nodes.append(helper.make_node(kind, inputs, [op.outputs[0].name], **attributes))

    def add(self, op: Any) -> None:
        """Write an operation. Raises SystemExit for one that is not known here."""
        kind, inputs = op.op_type, op.inputs
        if kind == "const":
            self.name(op.outputs[0])
        elif kind in SAME:
            self.node(SAME[kind], [self.name(inputs[key]) for key in ("x", "y") if key in inputs], op)
        elif kind in REDUCE:
            axes = self.integers(f"{op.name}.axes", inputs["axes"].val)
            self.node(REDUCE[kind], [self.name(inputs["x"]), axes], op, keepdims=int(inputs["keep_dims"].val))
        elif kind == "cast":
            self.node("Cast", [self.name(inputs["x"])], op, to=TYPES[inputs["dtype"].val])
        elif kind == "clip":
            self.node("Clip", [self.name(inputs[key]) for key in ("x", "alpha", "beta")], op)
        elif kind == "conv":
            self.add_convolution(op)
        elif kind == "linear":
            names = [self.name(inputs[key]) for key in ("x", "weight", "bias") if inputs.get(key) is not None]
            self.node("Gemm", names, op, transB=1)
        elif kind == "matmul":
            if any(bool(inputs[key].val) for key in ("transpose_x", "transpose_y")):
                raise SystemExit("A matmul with transposed inputs is not known here.")
            self.node("MatMul", [self.name(inputs["x"]), self.name(inputs["y"])], op)
        elif kind == "softmax":
            self.node("Softmax", [self.name(inputs["x"])], op, axis=int(inputs["axis"].val))
        elif kind == "squeeze":
            self.node("Squeeze", [self.name(inputs["x"]), self.integers(f"{op.name}.axes", inputs["axes"].val)], op)
        elif kind == "reshape":
            self.node("Reshape", [self.name(inputs["x"]), self.integers(f"{op.name}.shape", inputs["shape"].val)], op)
        elif kind == "transpose":
            self.node("Transpose", [self.name(inputs["x"])], op, perm=[int(axis) for axis in inputs["perm"].val])
        elif kind == "concat":
            names = [self.name(value) for value in inputs["values"]]
            self.node("Concat", names, op, axis=int(inputs["axis"].val))
        elif kind in ("avg_pool", "max_pool"):
            self.add_pool(op)
        elif kind in ("layer_norm", "gelu", "gather", "slice_by_index"):
            self.add_of_transformer(op)
        elif kind == "batch_norm":
            names = [self.name(inputs[key]) for key in ("x", "gamma", "beta", "mean", "variance")]
            self.node("BatchNormalization", names, op, epsilon=float(inputs["epsilon"].val))
        elif kind != "classify":
            raise SystemExit(f"The operation {kind} is not known here.")

    def add_of_transformer(self, op: Any) -> None:
        """Write an operation that transformers have beside those of convolutional networks."""
        kind, inputs = op.op_type, op.inputs
        if kind == "layer_norm":
            rank, axes = len(inputs["x"].shape), [int(axis) for axis in inputs["axes"].val]
            axes = sorted(axis % rank for axis in axes)
            if axes != list(range(axes[0], rank)):
                raise SystemExit("A layer_norm of other than the last axes is not known here.")
            names = [self.name(inputs[key]) for key in ("x", "gamma", "beta")]
            self.node("LayerNormalization", names, op, axis=axes[0], epsilon=float(inputs["epsilon"].val))
        elif kind == "gelu":
            kinds = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
            if str(inputs["mode"].val) not in kinds:
                raise SystemExit(f"A gelu of the mode {inputs['mode'].val} is not known here.")
            self.node("Gelu", [self.name(inputs["x"])], op, approximate=kinds[str(inputs["mode"].val)])
        elif kind == "gather":
            if inputs.get("batch_dims") is not None and int(inputs["batch_dims"].val):
                raise SystemExit("A gather of batches is not known here.")
            names = [self.name(inputs[key]) for key in ("x", "indices")]
            self.node("Gather", names, op, axis=int(inputs["axis"].val))
        else:
            self.add_slice(op)

    def add_slice(self, op: Any) -> None:
        """Write a slice: where a mask says so, it begins at the first and ends with the last place of an axis."""
        inputs, rank = op.inputs, len(op.inputs["x"].shape)
        begin, end, stride, *masks = (
            np.broadcast_to(default if inputs.get(key) is None else inputs[key].val, rank).astype(np.int64)
            for key, default in SLICE.items()
        )
        if masks[2].any() or stride.min() < 1:
            raise SystemExit("A slice that drops an axis or goes backwards is not known here.")
        starts, ends = np.where(masks[0], 0, begin), np.where(masks[1], np.iinfo(np.int64).max, end)
        parts = {"starts": starts, "ends": ends, "axes": np.arange(rank), "steps": stride}
        names = [self.integers(f"{op.name}.{part}", numbers) for part, numbers in parts.items()]
        self.node("Slice", [self.name(inputs["x"]), *names], op)

    def padding(self, op: Any) -> dict[str, Any]:
        """Return the attributes of the padding: MIL's pairs are begin and end of each axis in turn."""
        kind = op.inputs["pad_type"].val
        if kind == "valid":
            return {}
        if kind != "custom":
            return {"auto_pad": "SAME_UPPER" if kind == "same" else "SAME_LOWER"}
        pad = [int(value) for value in op.inputs["pad"].val]
        return {"pads": pad[0::2] + pad[1::2]}

    def add_convolution(self, op: Any) -> None:
        """Write a convolution."""
        inputs = op.inputs
        names = [self.name(inputs[key]) for key in ("x", "weight", "bias") if inputs.get(key) is not None]
        self.node(
            "Conv",
            names,
            op,
            strides=[int(value) for value in inputs["strides"].val],
            dilations=[int(value) for value in inputs["dilations"].val],
            group=int(inputs["groups"].val),
            **self.padding(op),
        )

    def add_pool(self, op: Any) -> None:
        """Write a pooling over windows."""
        inputs, attributes = op.inputs, {}
        if op.op_type == "avg_pool":
            attributes["count_include_pad"] = int(not inputs["exclude_padding_from_average"].val)
        self.node(
            "AveragePool" if op.op_type == "avg_pool" else "MaxPool",
            [self.name(inputs["x"])],
            op,
            kernel_shape=[int(value) for value in inputs["kernel_sizes"].val],
            strides=[int(value) for value in inputs["strides"].val],
            ceil_mode=int(inputs["ceil_mode"].val),
            **attributes,
            **self.padding(op),
        )


def graph_of(path: str) -> tuple[bytes, list[str], list[str]]:
    """Return the ONNX graph of a package, the names of its outputs, and its labels."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    package = coremltools.models.MLModel(path, skip_model_load=True)
    spec = package.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=package.weights_dir)
    function = program.functions["main"]
    writer = Writer()
    for op in function.operations:
        writer.add(op)
    classifiers = [op for op in function.operations if op.op_type == "classify"]
    if classifiers:
        (classify,) = classifiers
        probabilities = classify.inputs["probabilities"].name
        labels = [str(label) for label in classify.inputs["classes"].val]
    else:  # several labels an image
        probabilities, labels = "probabilities", json.loads(spec.description.metadata.userDefined["labels"])
        given = sorted(output.name for output in spec.description.output)
        if given != ["distance", probabilities]:
            raise SystemExit(f"The package gives {', '.join(given)}, not distance and probabilities.")
    image = spec.description.input[0].type.imageType
    if spec.description.input[0].name != "pixels" or image.colorSpace != image.ColorSpace.Value("RGB"):
        raise SystemExit("The package does not take an RGB image named pixels.")
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, image.height, image.width])
    for name in (probabilities, "distance"):  # of an fp16 package they may be fp16
        writer.nodes.append(helper.make_node("Cast", [name], [f"{name}.fp32"], to=TensorProto.FLOAT))
    names = [f"{name}.fp32" for name in (probabilities, "distance")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(writer.nodes, "package", [pixels], outputs, [*writer.constants.values()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString(), names, labels


def main(path: str) -> None:
    """Answer until the input ends; its first line are the labels that the package must have, as JSON."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    import onnxruntime

    content, outputs, written = graph_of(path)
    labels = json.loads(requests.readline())
    if written != labels:
        raise SystemExit(f"The package has the labels {written}, not {labels}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    _, _, height, width = session.get_inputs()[0].shape
    while line := requests.readline():
        for _ in range(int(line)):
            image = np.frombuffer(requests.read(height * width * 3), np.uint8).reshape(height, width, 3)
            planes = image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
            values = session.run(outputs, {"pixels": planes})
            answers.write(np.concatenate([value.reshape(-1) for value in values]).astype("<f4").tobytes())
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
