"""What a graph may hold, so that a small file cannot run for ever, fill memory or do what is not arithmetic.

The operators are those that networks for images are made of: all that the exporters of PyTorch and TensorFlow write
for them. Control flow (If, Loop, Scan), functions, operators of other domains and random numbers are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from headstart.backbones.onnx.graph import DEFAULT_DOMAIN, attribute
from headstart.backbones.onnx.shapes import Shapes
from headstart.errors import BackboneError

ARITHMETIC = """
Abs Add And BitShift Cast CastLike Ceil Clip Cos Div Equal Erf Exp Floor Greater GreaterOrEqual Identity IsInf IsNaN
Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sqrt Sub Sum Tan Where Xor
"""
ACTIVATIONS = """
Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax Softplus Softsign Swish
Tanh ThresholdedRelu
"""
LAYERS = """
Attention AveragePool BatchNormalization Conv ConvTranspose Dropout Einsum Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization LpPool MatMul MaxPool
MeanVarianceNormalization RMSNormalization GRU LSTM RNN
ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear
"""
REDUCTIONS = """
ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare TopK
"""
SHAPES = """
Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND GridSample OneHot Pad
Range Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile
Transpose Trilu Unsqueeze Upsample Col2Im
"""
OPERATORS = frozenset((ARITHMETIC + ACTIVATIONS + LAYERS + REDUCTIONS + SHAPES).split())
MAX_NODES = 100_000
BATCH = 8  # images that run at a time
# Bytes of all tensors that are needed at one moment, for a batch. EfficientNet-B7 at 600 pixels takes 1.55 GiB.
MAX_LIVE_BYTES = 7 * 2**28
MAX_MULTIPLY_ADDS = 2e12  # for one image, the most of published networks being about 1e12
ITEM_BYTES = 4


def check_operators(model: onnx.ModelProto) -> None:
    """Raise BackboneError for a graph that holds anything but the operators of images' networks."""
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise BackboneError(f"The graph has {len(graph.node):,} nodes, more than the limit of {MAX_NODES:,}.")
    for node in graph.node:
        domain = "" if node.domain in DEFAULT_DOMAIN else f"{node.domain}."
        if domain or node.op_type not in OPERATORS:
            raise BackboneError(
                f"The graph has the operator {f'{domain}{node.op_type}'[:80]!r}, which is not one of the "
                f"{len(OPERATORS)} for images' networks that are allowed; export it without control flow, functions "
                "and custom operators."
            )
        for value in node.attribute:
            if value.HasField("g") or value.graphs:
                raise BackboneError(f"The graph has a node {node.op_type} with a graph inside; export it without.")
            if value.HasField("sparse_tensor") or value.sparse_tensors:
                raise BackboneError("The graph has sparse weights; export it with dense ones.")
    if graph.sparse_initializer:
        raise BackboneError("The graph has sparse weights; export it with dense ones.")


def check_size(graph: onnx.GraphProto, shapes: Shapes, batch: int | None) -> None:
    """Raise BackboneError for a graph that takes too much memory or work; ``batch`` is the only size that it allows."""
    live = live_bytes(graph, shapes) * max(batch or 1, BATCH)
    if live > MAX_LIVE_BYTES:
        raise BackboneError(
            f"The graph needs {live / 2**30:,.1f} GiB of memory at a time, more than the limit of "
            f"{MAX_LIVE_BYTES / 2**30:g}; give a smaller --input-size."
        )
    work = sum(work_of(node, shapes) for node in graph.node)
    if work > MAX_MULTIPLY_ADDS:
        raise BackboneError(
            f"The graph takes {work:.1e} multiply-adds for an image, more than the limit of {MAX_MULTIPLY_ADDS:.0e}; "
            "give a smaller --input-size."
        )


def live_bytes(graph: onnx.GraphProto, shapes: Shapes) -> float:
    """Return the bytes of all tensors that are needed at one moment of a run on one image, at most.

    What is computed from constants alone is kept for the whole run, as runtimes do that compute it beforehand.
    """
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last |= {output.name: len(graph.node) for output in graph.output}
    constant = {"", *(tensor.name for tensor in graph.initializer)}
    alive: dict[str, float] = {}
    now = peak = 0.0
    for i, node in enumerate(graph.node):
        if constant.issuperset(node.input):
            constant.update(node.output)
        for name in node.output:
            alive[name] = _count(shapes.by_name.get(name, ())) * ITEM_BYTES
            now += alive[name]
        peak = max(peak, now)
        for name in {*node.input, *node.output} - constant:
            if last.get(name, -1) <= i:
                now -= alive.pop(name, 0.0)
    return peak


def work_of(node: onnx.NodeProto, shapes: Shapes) -> float:
    """Return at most how many multiply-adds a node takes for one image; 0 where they are as many as its numbers."""
    sizes = [shapes.by_name.get(name) or shapes.weights.get(name) or () for name in node.input]
    output = _count(shapes.by_name.get(node.output[0], ()))
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        return output * _count(attribute(node, "kernel_shape", ()))
    if node.op_type == "LRN":
        return output * float(attribute(node, "size", 1))
    if node.op_type == "ConvTranspose":
        return _count(sizes[0]) * _count(sizes[1][1:])
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return output * _count(sizes[3 if node.op_type == "QLinearConv" else 1][1:])
    if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        inner = sizes[0][0] if attribute(node, "transA", 0) else sizes[0][-1]
        return output * inner
    if node.op_type in ("GRU", "LSTM", "RNN"):
        return _count(sizes[0][:2]) * (_count(sizes[1]) + _count(sizes[2]))
    if node.op_type == "Attention":
        return _count(sizes[0]) * sizes[1][-2]
    if node.op_type == "Einsum":
        return _einsum_work(attribute(node, "equation", b"").decode(), sizes)
    return 0.0


def _einsum_work(equation: str, sizes: list[tuple[int, ...]]) -> float:
    """Return the product of the lengths of all indices of an equation such as "bij,bjk->bik"."""
    if "." in equation:
        return _count([length for size in sizes for length in size])
    lengths: dict[str, int] = {}
    for term, size in zip(equation.replace(" ", "").split("->")[0].split(","), sizes, strict=True):
        lengths |= dict(zip(term, size, strict=True))
    return _count(list(lengths.values()))


def _count(size: Sequence[int]) -> float:
    return float(np.prod(size, dtype=float))
