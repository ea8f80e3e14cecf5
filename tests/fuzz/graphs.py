"""ONNX graphs: valid classifiers, and ones with operators that never end, sizes that fill memory, and odd messages."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from helpers.graphs import network
from onnx import TensorProto, helper, numpy_helper

from fuzz.mutate import EXTREMES, mutate, mutate_json

LOCATIONS = ("weights.bin", "../weights.bin", "/etc/passwd", "/dev/zero", "", ".", "x" * 5_000)
CONFIG = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "size": [32, 32], "crop": 0.9, "resample": 3}


def write(rng: random.Random, folder: Path, mutations: int) -> Path:
    """Write a graph, weights beside it and sometimes a description, and return its path."""
    path = folder / "graph.onnx"
    (folder / "weights.bin").write_bytes(bytes(1_000))
    path.write_bytes(mutated(rng, rng.choice(seeds()), mutations))
    if mutations and rng.random() < 0.15:
        (folder / "graph.json").write_bytes(repr(mutate_json(rng, CONFIG, mutations)).replace("'", '"').encode())
    return path


@cache
def seeds() -> tuple[bytes, ...]:
    options = ({}, {"head": "Reshape", "batch": 1}, {"channels_last": True}, {"head": "Conv", "softmax": False})
    return tuple(network(**each).SerializeToString() for each in options)  # type: ignore[arg-type]


def mutated(rng: random.Random, graph: bytes, mutations: int) -> bytes:
    """Return the bytes of a graph with mutations of its message, of its bytes, or of both."""
    model = onnx.load_model_from_string(graph)
    by_bytes = rng.random() < 0.25
    for change in rng.sample(CHANGES, 0 if by_bytes else min(mutations, 2)):
        change(rng, model.graph, model)
    data = _external(rng, model) if mutations and rng.random() < 0.15 else model.SerializeToString()
    return mutate(rng, data, mutations) if by_bytes else data


def _wrap(rng: random.Random, graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    """Put Loop, If or Scan over the values of an output."""
    name = graph.output[0].name
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    true = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    constants = {"trips": np.int64(rng.choice((1, 2**40))), "yes": np.bool_(True)}
    graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in constants.items())
    same = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    kind = rng.choice(("Loop", "If", "Scan"))
    if kind == "Loop":
        count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
        nodes = [same, helper.make_node("Identity", ["c"], ["go"])]
        going = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
        body = helper.make_graph(nodes, "body", [count, true, value], [going, out])
        node = helper.make_node("Loop", ["trips", "yes", name], ["wrapped"], body=body)
    elif kind == "If":
        branch = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "branch", [], [out])
        node = helper.make_node("If", ["yes"], ["wrapped"], then_branch=branch, else_branch=branch)
    else:
        body = helper.make_graph([same], "body", [value], [out])
        node = helper.make_node("Scan", [name], ["wrapped"], body=body, num_scan_inputs=1)
    graph.node.append(node)
    graph.output[0].name = "wrapped"


def _blow_up(rng: random.Random, graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    """Add a tensor of many values, whose largest is added to an inner value and to an output."""
    size = np.array([rng.choice((1, 1_000, 30_000, 10**9)), rng.choice((1, 50_000, 2**40))], np.int64)
    graph.initializer.extend(
        [numpy_helper.from_array(size, "size"), numpy_helper.from_array(np.ones((1, 1), np.float32), "one")]
    )
    kind = rng.choice(("ConstantOfShape", "Expand", "Tile", "RandomNormal"))
    inputs = {"ConstantOfShape": ["size"], "RandomNormal": []}.get(kind, ["one", "size"])
    options = {"shape": size.tolist()} if kind == "RandomNormal" else {}
    graph.node.insert(0, helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0))
    graph.node.insert(0, helper.make_node(kind, inputs, ["big"], **options))
    inner = next((node for node in graph.node if node.op_type == "Conv" and node.output), None)
    if inner is not None and rng.random() < 0.7:
        place = list(graph.node).index(inner) + 1
        graph.node.insert(place, helper.make_node("Add", ["small", "most"], list(inner.output)))
        inner.output[0] = "small"
    graph.node.append(helper.make_node("Add", [graph.output[0].name, "most"], ["grown"]))
    graph.output[0].name = "grown"


def _change_node(rng: random.Random, graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    if not graph.node:
        return
    node = rng.choice(list(graph.node))
    names = [name for other in graph.node for name in other.output] + [w.name for w in graph.initializer] + ["", "none"]
    change = rng.randrange(5)
    if change == 0:
        node.op_type = rng.choice(
            ("Evil", "Loop", "Resize", "Reshape", "Gather", "Einsum", "StringConcat", "Softmax", "LSTM")
        )
    elif change == 1:
        node.domain = rng.choice(("evil", "com.microsoft", "ai.onnx.ml", "ai.onnx.training"))
    elif change == 2 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif change == 3 and node.output:
        node.output[0] = rng.choice(names)
    elif node.attribute:
        attribute = rng.choice(list(node.attribute))
        attribute.ints[:] = [_signed(rng) for _ in range(rng.choice((0, 1, 2, 4, 2_000)))]
        attribute.i = _signed(rng)


def _change_weight(rng: random.Random, graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    if graph.initializer:
        weight = rng.choice(list(graph.initializer))
        if rng.random() < 0.6 and weight.dims:
            weight.dims[rng.randrange(len(weight.dims))] = _signed(rng)
        elif rng.random() < 0.5:
            weight.data_type = rng.choice((0, 1, 7, 8, 10, 11, 16, 23, 99))
        else:
            weight.raw_data = rng.choice((b"", b"\xff" * len(weight.raw_data), b"\x7f" * 3))


def _change_frame(rng: random.Random, graph: onnx.GraphProto, model: onnx.ModelProto) -> None:
    """Change the input, the outputs, the versions, or add a function that calls itself."""
    change = rng.randrange(5)
    if change == 0 and graph.input:
        shape = graph.input[0].type.tensor_type.shape.dim
        if shape:
            shape[rng.randrange(len(shape))].dim_value = _signed(rng)
    elif change == 1 and graph.input:
        graph.input[0].type.tensor_type.elem_type = rng.choice((0, 1, 2, 8, 10, 99))
    elif change == 2 and model.opset_import:
        model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**40))
    elif change == 3:
        graph.output.extend(list(graph.output))
    else:
        call = helper.make_node("Again", ["x"], ["y"], domain="own")
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", "Again", ["x"], ["y"], [call], opsets))
        model.opset_import.append(opsets[1])
        graph.node.append(helper.make_node("Again", [graph.output[0].name], ["called"], domain="own"))
        graph.output[0].name = "called"


def _signed(rng: random.Random) -> int:
    return rng.choice((-1, 3, 64, 100_000, *(value for value in EXTREMES if value < 2**63)))


def _external(rng: random.Random, model: onnx.ModelProto) -> bytes:
    """Move a weight to another file, in any of the forms that the same numbers have as bytes."""

    def varint(value: int) -> bytes:
        digits = [value >> 7 * i & 127 for i in range(max(-(-value.bit_length() // 7), rng.choice((1, 2, 4))))]
        return bytes(digit | 128 for digit in digits[:-1]) + bytes(digits[-1:])

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    if not model.graph.initializer:
        return model.SerializeToString()
    weight = model.graph.initializer.pop(rng.randrange(len(model.graph.initializer)))
    weight.ClearField("raw_data")
    entry = field(1, b"location") + field(2, rng.choice(LOCATIONS).encode())
    tensor = weight.SerializeToString() + field(13, entry) + varint(14 << 3) + varint(1)
    return model.SerializeToString() + field(7, field(5, tensor))  # parsers merge the two parts of the graph


CHANGES = (_wrap, _blow_up, _change_node, _change_node, _change_weight, _change_frame)
