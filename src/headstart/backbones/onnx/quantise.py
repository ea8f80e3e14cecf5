"""An int8 version of a graph: convolutions and what lies between them in 8 bits, taps in float.

ONNX Runtime's own quantiser sets the ranges of activations (uint8, one scale for each tensor, minimum and maximum over
calibration images); the weights are quantised here (int8, one scale for each output channel). Three things keep the
features near those of the float graph:

* Before, the channels between two convolutions with a ReLU between them are brought to like ranges, which changes
  nothing in float (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
  section 4.1).
* Rounding the weights of a convolution shifts the mean of its output by what follows from the mean of its input; the
  bias takes the shift back (section 4.2 there, with means over the calibration images).
* Processors without VNNI add two products of 8 bits in 16 bits and clip the sum. No two neighbouring weights are so
  large that uint8 activations could reach that, so all processors compute the same.

The result is one graph of QuantizeLinear and DequantizeLinear, which ONNX Runtime and OpenVINO both run in int8.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.graph import attribute, producers, prune, set_messages
from headstart.errors import BackboneError, one_line
from headstart.machine import import_onnxruntime

Array = NDArray[Any]
Images = NDArray[np.uint8]
QUANTISED = ("Conv", "Add", "Relu", "Clip", "MaxPool")  # pooling to a vector and all else stay in float
MAX_WEIGHT = 127
MAX_NEIGHBOURS = 128  # 255 * 128 < 2**15: the largest sum of two neighbouring weights of one sign
SMALLEST_SCALE = 1e-2  # of a channel in equalisation: one that is hardly used is not made larger without bound
STATISTICS_BATCH = 4  # images whose maps are held at a time
OPSET = 13  # the first whose DequantizeLinear has a scale for each channel


@dataclass(frozen=True)
class _Weights:
    """The float weights and bias of a convolution, and the names of its nodes and tensors in the float graph."""

    node: onnx.NodeProto
    weight: Array
    bias: Array

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one input channel, of its own number."""
        return self.weight.shape[1] == 1 and int(attribute(self.node, "group", 1)) == len(self.weight)


def quantise(model: onnx.ModelProto, images: Images, batch: int | None = None) -> onnx.ModelProto:
    """Return an int8 version of a backbone's graph in standard form; the graph itself is changed in place.

    ``images`` [n, height, width, 3] uint8 are those that ranges and means are measured on, a few dozen to a few
    hundred; ``batch`` is the only batch size that the graph allows. The same images give the same graph. Raises
    BackboneError where nothing can be quantised.
    """
    outputs = [output.name for output in model.graph.output]
    _fold_casts(model.graph)
    prune(model, outputs)
    _complete(model)
    if not _convolutions(model.graph):
        raise BackboneError("The graph has no convolutions with weights of their own, which int8 is for; use fp32.")
    if max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0) < OPSET:
        raise BackboneError(f"The graph is of an opset before {OPSET}, which has no int8 weights; export a newer one.")
    chunks = _chunks(images, batch)
    try:
        _equalise(model, chunks)
        quantised = _with_ranges(model, chunks)
        _quantise_weights(model, quantised, chunks)
    except Exception as error:  # the quantiser and the runtime raise many kinds
        if isinstance(error, BackboneError):
            raise
        raise BackboneError(f"ONNX Runtime cannot quantise the graph: {one_line(error)}") from None
    prune(quantised, outputs)
    return quantised


def _fold_casts(graph: onnx.GraphProto) -> None:
    """Replace casts of constants, such as weights stored in fp16, by their values: the quantiser reads no others."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    remaining = []
    for node in graph.node:
        is_float = node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT
        if is_float and node.input[0] in constants:
            value = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        else:
            remaining.append(node)
    set_messages(graph.node, remaining)


def _complete(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, and every convolution a bias, which the correction needs."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for i, node in enumerate(graph.node):
        node.name = f"node.{i}"
        if node.op_type == "Conv" and len(node.input) == 2 and node.input[1] in constants:
            name = f"{node.name}.bias"
            zeros = np.zeros(constants[node.input[1]].dims[0], np.float32)
            graph.initializer.append(numpy_helper.from_array(zeros, name))
            node.input.append(name)


def _chunks(images: Images, batch: int | None) -> list[Images]:
    """Split images into batches that the graph allows; the last image fills up the last one."""
    size = batch or STATISTICS_BATCH
    missing = 0 if batch is None else -len(images) % batch
    images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
    return [images[i : i + size] for i in range(0, len(images), size)]


def _convolutions(graph: onnx.GraphProto) -> list[_Weights]:
    """List the convolutions of maps whose weight and bias are constants that nothing else reads."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    found = []
    for node in graph.node:
        names = node.input[1:3]
        is_own = all(name in constants and readers[name] == 1 for name in names)
        if node.op_type == "Conv" and len(names) == 2 and is_own:
            weight, bias = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in names)
            if weight.ndim == 4:
                found.append(_Weights(node, weight, bias))
    return found


def _channel_statistics(
    model: onnx.ModelProto, tensors: Sequence[str], chunks: Sequence[Images]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the largest value and the mean of each channel of maps [batch, channels, height, width], by tensor."""
    onnxruntime = import_onnxruntime()
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    set_messages(probe.graph.output, [helper.make_empty_tensor_value_info(name) for name in tensors])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    largest: dict[str, Array] = {}
    total: dict[str, Array] = {}
    for chunk in chunks:
        for name, value in zip(tensors, session.run(list(tensors), {"pixels": chunk}), strict=True):
            top, mean = value.max(axis=(0, 2, 3)), value.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
            largest[name] = np.maximum(largest.get(name, top), top)
            total[name] = total.get(name, 0) + mean
    count = sum(map(len, chunks))
    return largest, {name: value / count for name, value in total.items()}


def _equalise(model: onnx.ModelProto, chunks: Sequence[Images]) -> None:
    """Scale channels between pairs of convolutions, in place, to like ranges: by 1/s before the ReLU, by s behind it.

    Behind a convolution of single channels s can be chosen freely, since its weights have a scale for each; before
    others it is the geometric mean of what would equalise the activations and what would equalise the weights.
    """
    graph = model.graph
    pairs = list(_relu_pairs(graph))
    if not pairs:
        return
    largest, _ = _channel_statistics(model, [relu for _, relu, _ in pairs], chunks)
    current = {c.node.name: c for c in _convolutions(graph)}
    for first_name, relu, second_name in pairs:
        first, second = current[first_name], current[second_name]
        top = np.maximum(largest[relu].astype(np.float64), 1e-6)
        if second.is_depthwise:
            scale, shape = top, (-1, 1, 1, 1)
        else:
            column = np.maximum(np.abs(second.weight).max(axis=(0, 2, 3)), 1e-6)
            scale, shape = np.sqrt(top / column), (1, -1, 1, 1)
        scale = np.maximum(scale / scale.max(), SMALLEST_SCALE)
        current[first_name] = _Weights(first.node, first.weight / scale[:, None, None, None], first.bias / scale)
        current[second_name] = _Weights(second.node, second.weight * scale.reshape(shape), second.bias)
    values: dict[str, Array] = {}
    for found in current.values():
        values |= {found.node.input[1]: found.weight, found.node.input[2]: found.bias}
    _set_constants(graph, {name: value.astype(np.float32) for name, value in values.items()})


def _relu_pairs(graph: onnx.GraphProto) -> Iterator[tuple[str, str, str]]:
    """Yield the names of a convolution, of the ReLU's output that it alone feeds, and of the one that alone reads it.

    The second convolution reads either all channels or each channel by itself.
    """
    producer = producers(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    convolutions = {c.node.name: c for c in _convolutions(graph)}
    for relu in graph.node:
        if relu.op_type != "Relu" or outputs & {relu.input[0], relu.output[0]}:
            continue
        first, behind = producer.get(relu.input[0]), readers.get(relu.output[0], [])
        is_pair = first is not None and len(readers[relu.input[0]]) == 1 and len(behind) == 1
        if not is_pair or first is None or not {first.name, behind[0].name} <= convolutions.keys():
            continue
        second = convolutions[behind[0].name]
        if second.is_depthwise or attribute(second.node, "group", 1) == 1:
            yield first.name, relu.output[0], behind[0].name


def _with_ranges(model: onnx.ModelProto, chunks: Sequence[Images]) -> onnx.ModelProto:
    """Return the model with QuantizeLinear and DequantizeLinear around what is computed in int8."""
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives the quantiser its images."""

        def __init__(self) -> None:
            self.chunks = iter(chunks)

        def get_next(self) -> dict[str, Images] | None:
            """Return the next input of the graph."""
            chunk = next(self.chunks, None)
            return None if chunk is None else {"pixels": chunk}

    constants = {tensor.name for tensor in model.graph.initializer}
    # The sum with a constant is part of the normalisation of the input, and stays in float.
    left_out = [node.name for node in model.graph.node if node.op_type == "Add" and constants & {*node.input}]
    # Weights that several convolutions share, or that are computed, are not quantised here, and stay in float.
    quantised = {c.node.name for c in _convolutions(model.graph)}
    left_out += [node.name for node in model.graph.node if node.op_type == "Conv" and node.name not in quantised]
    add_pre_process_metadata(model)  # else the quantiser warns on standard error that it was not simplified
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_out,
        )
        return onnx.load(target)


def _quantise_weights(model: onnx.ModelProto, quantised: onnx.ModelProto, chunks: Sequence[Images]) -> None:
    """Quantise the weights of all convolutions anew, in place, within the bound on neighbours; correct the biases."""
    convolutions = {c.node.name: c for c in _convolutions(model.graph)}
    inputs = list(dict.fromkeys(c.node.input[0] for c in convolutions.values()))
    _, means = _channel_statistics(model, inputs, chunks)
    graph = quantised.graph
    producer = producers(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    changed: dict[str, Array] = {}
    for node in graph.node:
        if node.op_type != "Conv" or node.name not in convolutions:
            continue
        images, weight, bias = (producer.get(name) for name in node.input)
        if not all(n is not None and n.op_type == "DequantizeLinear" for n in (images, weight, bias)):
            continue
        assert images is not None
        assert weight is not None
        assert bias is not None
        found = convolutions[node.name]
        input_scale = float(numpy_helper.to_array(constants[images.input[1]]).item())
        scale, values = quantise_weight(found.weight, np.abs(found.bias) / input_scale, found.is_depthwise)
        mean = means[found.node.input[0]]
        bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
        corrected = found.bias + _mean_shift(found, values * scale[:, None, None, None].astype(np.float64), mean)
        changed[weight.input[0]], changed[weight.input[1]] = values, scale
        changed[bias.input[0]] = np.round(corrected / bias_scale).astype(np.int32)
        changed[bias.input[1]] = bias_scale
    _set_constants(graph, changed)


def quantise_weight(
    weight: Array, bias: Array, is_depthwise: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return scales [channels] and values of the shape of ``weight`` [channels, inputs, height, width].

    A scale is the least with which no value is beyond 127, no two neighbours of one sign add up to more than 128 (so
    that 16 bits hold their products with uint8), and the ``bias`` [channels] fits into 32 bits. The weights of a
    depthwise convolution are not multiplied in pairs.
    """
    scale = np.abs(weight).max(axis=(1, 2, 3)) / MAX_WEIGHT
    if not is_depthwise:
        scale = np.maximum(scale, _neighbours(weight) / (MAX_NEIGHBOURS - 1))
    scale = np.maximum(scale, np.abs(bias) / 2**29)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    values = np.round(weight / scale[:, None, None, None].astype(np.float64))
    return scale, values.clip(-MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)


def _neighbours(weight: Array) -> Array:
    """Return the largest sum [channels] of two weights of one sign that a processor may multiply as a pair.

    Kernels of 1 x 1 are multiplied by pairs of inputs; of others the order is not known, so any two may be a pair.
    """
    flat = weight.reshape(len(weight), -1)
    signs = (np.maximum(flat, 0), np.maximum(-flat, 0))
    if weight.shape[2:] != (1, 1):
        any_two: Array = np.max([np.sort(part, axis=1)[:, -2:].sum(axis=1) for part in signs], axis=0)
        return any_two
    odd = flat.shape[1] % 2
    pairs = [np.pad(part, ((0, 0), (0, odd))).reshape(len(weight), -1, 2).sum(axis=2) for part in signs]
    largest: Array = np.max([pair.max(axis=1) for pair in pairs], axis=0)
    return largest


def _mean_shift(found: _Weights, values: Array, mean: Array) -> Array:
    """Return by how much rounding the weights lowers the mean [channels] of a convolution's output."""
    difference = (found.weight - values).sum(axis=(2, 3))
    group = attribute(found.node, "group", 1)
    inputs = mean.reshape(group, -1).repeat(len(difference) // group, axis=0)
    shift: Array = (difference * inputs).sum(axis=1)
    return shift


def _set_constants(graph: onnx.GraphProto, values: Mapping[str, Array]) -> None:
    for tensor in graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
