"""The crop and resize of ``images.preprocess`` as ONNX operators in front of a model: any size of image in.

Pillow's resize (``Resample.c``) is two products with a matrix of weights, first along the rows, then along the columns,
each rounded to whole levels; from version 13 on Pillow takes the order that costs less, so that of some images single
pixels differ by a level or two. The weights of an axis are those of the filter around the centre of each output pixel,
widened where the image is made smaller; here they are computed in the graph, from the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.graph import rename_tensors
from headstart.errors import OptionError
from headstart.images.preprocess import Preprocess

PREFIX = "resize."
MIN_OPSET = 11  # of Range
Emit = Callable[..., str]


def with_any_size(content: bytes, preprocess: Preprocess) -> bytes:
    """Return a model whose input ``pixels`` is one decoded image, uint8 [1, height, width, 3] of any size, in RGB.

    Raises OptionError for a model of an older opset.
    """
    model = onnx.load_model_from_string(content)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < MIN_OPSET:
        raise OptionError(f"This model is of ONNX opset {opset}; a resize inside it needs {MIN_OPSET} or newer.")
    graph = model.graph
    rename_tensors(graph, {"pixels": f"{PREFIX}pixels"})
    nodes: list[onnx.NodeProto] = []
    _resize(_emitter(nodes, graph), preprocess)
    rest = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *rest])
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, "height", "width", 3]))
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _emitter(nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> Emit:
    """Return a function that adds a node and gives its output's name; numbers among its inputs become constants."""

    def emit(kind: str, *inputs: str | float | list[int], output: str = "", **attributes: object) -> str:
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
                continue
            name = f"{PREFIX}constant{len(graph.initializer)}"
            dtype = np.int64 if isinstance(value, list) else np.float32
            graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
            names.append(name)
        output = output or f"{PREFIX}{len(nodes)}"
        nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    return emit


def _resize(emit: Emit, preprocess: Preprocess) -> None:
    """Add the nodes from ``pixels`` to ``resize.pixels``."""
    height, width = preprocess.height, preprocess.width
    shape = emit("Cast", emit("Shape", "pixels"), to=TensorProto.FLOAT)
    h, w = (emit("Reshape", emit("Gather", shape, [axis]), [-1]) for axis in (1, 2))
    if preprocess.resize == "squash":
        box_h, box_w = emit("Mul", h, preprocess.crop), emit("Mul", w, preprocess.crop)
    else:
        scale = emit("Mul", emit("Min", emit("Div", h, height), emit("Div", w, width)), preprocess.crop)
        box_h, box_w = emit("Mul", scale, height), emit("Mul", scale, width)
    by_row = _weights(emit, h, box_h, height, preprocess.interpolation)
    by_column = _weights(emit, w, box_w, width, preprocess.interpolation)
    image = emit("Transpose", emit("Cast", "pixels", to=TensorProto.FLOAT), perm=[0, 1, 3, 2])  # [1, h, 3, w]
    image = _round(emit, emit("MatMul", image, emit("Transpose", by_column, perm=[1, 0])))  # [1, h, 3, width]
    image = emit("Reshape", image, [1, -1, 3 * width])  # [1, h, 3 width]
    image = _round(emit, emit("MatMul", by_row, image))  # [1, height, 3 width]
    image = emit("Transpose", emit("Reshape", image, [1, height, 3, width]), perm=[0, 1, 3, 2])
    emit("Cast", image, output=f"{PREFIX}pixels", to=TensorProto.UINT8)


def _weights(emit: Emit, size: str, box: str, out: int, interpolation: str) -> str:
    """Return the weights [out, size] of an axis of ``size`` pixels, of which ``box`` in the middle are kept."""
    start = emit("Max", emit("Div", emit("Sub", size, box), 2.0), 0.0)
    kept = emit("Sub", emit("Min", size, emit("Add", start, box)), start)
    scale = emit("Div", kept, out)
    widening = emit("Max", scale, 1.0)
    steps = emit("Add", emit("Cast", list(range(out)), to=TensorProto.FLOAT), 0.5)
    centres = emit("Reshape", emit("Add", start, emit("Mul", steps, scale)), [-1, 1])
    scalar = emit("Reshape", size, [])
    places = emit("Reshape", emit("Add", emit("Range", 0.0, scalar, 1.0), 0.5), [1, -1])
    away = emit("Abs", emit("Div", emit("Sub", places, centres), widening))
    weights = _triangle(emit, away) if interpolation == "bilinear" else _cubic(emit, away)
    ones = emit("Add", emit("Mul", emit("Reshape", places, [-1, 1]), 0.0), 1.0)
    return emit("Div", weights, emit("MatMul", weights, ones))


def _triangle(emit: Emit, away: str) -> str:
    return emit("Max", emit("Sub", 1.0, away), 0.0)


def _cubic(emit: Emit, away: str) -> str:
    """Return Pillow's bicubic filter (Keys 1981, a = -0.5) of distances, 0 from 2 on.

    With u = min(x, 1) and v = min(max(x, 1), 2) it is near(u) + far(v): near(1) and far(1) are 0.
    """
    u, v = emit("Min", away, 1.0), emit("Min", emit("Max", away, 1.0), 2.0)
    near = emit("Mul", emit("Mul", emit("Sub", emit("Mul", u, 1.5), 2.5), u), u)
    near = emit("Add", near, 1.0)
    far = emit("Add", emit("Mul", emit("Sub", v, 5.0), v), 8.0)
    far = emit("Mul", emit("Sub", emit("Mul", far, v), 4.0), -0.5)
    return emit("Add", near, far)


def _round(emit: Emit, values: str) -> str:
    """Round to whole levels of 0 to 255."""
    return emit("Min", emit("Max", emit("Floor", emit("Add", values, 0.5)), 0.0), 255.0)
