"""The batch norms of a graph: where they are, what training left in them, and what images give as their input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.graph import attribute, prune, set_messages
from headstart.backbones.onnx.runnable import open_session
from headstart.backbones.onnx.standardise import image_input
from headstart.backbones.scaling import ChannelStatistics, Norms, Scaling, channel_statistics
from headstart.errors import BackboneError, untrusted

FIRST = 2  # batch norms that tell the scaling: behind more of them, wrong scalings differ less from the right one
LAST_SHARE = 3  # the last third tells the padding: a shift by half a pixel adds up, to three pixels of seven at the end
Found = tuple[ChannelStatistics, int]


def known_norms(norms: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> dict[bytes, ChannelStatistics]:
    """Key batch norms, each its mean and variance [channels], by the mean as it stands in a graph."""
    return {np.asarray(mean, np.float32).tobytes(): _statistics(mean, variance) for mean, variance in norms}


def find_norms(
    model: onnx.ModelProto, known: Mapping[bytes, ChannelStatistics] | None = None, *, padding_is_open: bool = False
) -> Norms | None:
    """Find the batch norms of a graph, which stays as it is; None where it has none.

    ``known`` are batch norms with their channels last that the exporter wrote as arithmetic (``known_norms``): the mean
    is subtracted first. With ``padding_is_open`` the last ones are returned, too.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, Found] = {}
    for node in model.graph.node:
        norm = _read_norm(node, constants, known or {})
        if norm is not None and any(norm[0].mean):  # else it is as it was made, and never saw an image
            found.setdefault(node.input[0], norm)
    names = list(found)
    if not names:
        return None
    last = names[max(FIRST, len(names) - len(names) // LAST_SHARE) :] if padding_is_open else []
    names = names[:FIRST] + last
    part = onnx.ModelProto.FromString(model.SerializeToString())
    set_messages(part.graph.output, [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names])
    prune(part, names)
    statistics = tuple(found[name][0] for name in names)
    return Norms(part.SerializeToString(), statistics, tuple(found[name][1] for name in names), bool(last))


def _read_norm(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], known: Mapping[bytes, ChannelStatistics]
) -> Found | None:
    """What a node's batch norm has stored, and the axis of its channels; None where it is none."""
    if node.op_type == "BatchNormalization" and all(name in constants for name in node.input[3:5]):
        mean, variance = (numpy_helper.to_array(constants[name]) for name in node.input[3:5])
        return _statistics(mean, variance), 1
    if node.op_type == "Sub" and node.input[1] in constants:
        mean = numpy_helper.to_array(constants[node.input[1]])
        if mean.ndim == 4 and mean.tobytes() in known:
            return known[mean.tobytes()], 3
    return None


def measure_norms(
    norms: Norms, pixels: NDArray[np.uint8], scaling: Scaling, *, first: bool, same_padding: bool = False
) -> list[ChannelStatistics]:
    """Measure what images [n, height, width, 3] uint8 give as input of the ``first`` batch norms, or of the others.

    With ``same_padding`` convolutions with a stride are padded as TensorFlow's "same". Raises BackboneError.
    """
    chosen = slice(None, FIRST) if first else slice(FIRST, None)
    axes = norms.axes[chosen]
    with untrusted("The graph before the batch norms", BackboneError):
        content = norms.graph.read_bytes() if isinstance(norms.graph, Path) else norms.graph
        model = onnx.load_model_from_string(content)
        prune(model, [output.name for output in model.graph.output][chosen])
        if same_padding:
            pad_as_tensorflow(model.graph)
        source = image_input(model)
        session = open_session(model.SerializeToString())
        per_image = []
        for image in pixels:  # one at a time: what is measured is as large as the largest maps of the network
            value = scaling(image).astype(helper.tensor_dtype_to_np_dtype(source.dtype))
            value = value if source.channels_last else np.ascontiguousarray(value.transpose(2, 0, 1))
            maps = session.run(None, {source.name: np.repeat(value[None], source.batch or 1, 0)})
            per_image.append([channel_statistics(map[:1], axis) for map, axis in zip(maps, axes, strict=True)])
    return [_together(of_norm) for of_norm in zip(*per_image, strict=True)]


def pad_as_tensorflow(graph: onnx.GraphProto) -> None:
    """Let convolutions with a stride, in place, pad as TensorFlow's "same": more below and to the right than above."""
    for node in graph.node:
        pads = attribute(node, "pads", [])
        if node.op_type == "Conv" and max(attribute(node, "strides", [1])) > 1 and any(pads):
            kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
            set_messages(node.attribute, [*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])


def _together(of_images: Iterable[ChannelStatistics]) -> ChannelStatistics:
    """The statistics of all images, from those of maps of the same size."""
    images = list(of_images)
    means = np.array([image.mean for image in images])
    variance = np.mean([image.variance for image in images], axis=0) + means.var(axis=0)
    return _statistics(means.mean(axis=0), variance)


def _statistics(mean: NDArray[np.floating], variance: NDArray[np.floating]) -> ChannelStatistics:
    mean, variance = np.ravel(mean).astype(np.float64), np.ravel(variance).astype(np.float64)
    return ChannelStatistics(tuple(mean.tolist()), tuple(variance.tolist()))
