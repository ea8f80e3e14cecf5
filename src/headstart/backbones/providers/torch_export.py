"""From a torch module to an ONNX graph for any batch size, by PyTorch's exporter.

With a batch of open size the exporter computes each shape as a formula, which is most of its time. Hence a network of
batch norms is exported for ``MARK`` images first. Where that number is found in the graph shows where the graph depends
on its batch: nowhere but as the first dimension of tensors, for the graph to be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.backbone import MAX_FILE_BYTES
from headstart.errors import BackboneError, one_line

if TYPE_CHECKING:
    import onnx

OPSET = 18  # what PyTorch's exporter writes by itself
MARK = 37  # images, a prime that divides few numbers of channels; where it does, the batch is taken to be open
RESHAPES = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")


def to_onnx(module: Any, shape: tuple[int, ...]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Export a torch module whose input has ``shape`` for one image; any batch size is allowed where that can be.

    Returns the graph as the exporter simplifies it, and the one before, which still has its batch norms. Raises
    BackboneError.
    """
    import torch

    try:
        exported = _export_marked(module, shape)
    except Exception:  # the exporter's errors have no common base
        exported = None
    if exported is not None:
        return exported
    any_batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    try:
        return _export(module, torch.zeros(2, *shape), (any_batch,))
    except Exception:  # some networks compute their batch size in Python: the graph then takes one image
        pass
    try:
        return _export(module, torch.zeros(1, *shape), None)
    except Exception as error:
        raise BackboneError(f"PyTorch cannot export the network: {one_line(error)}") from None


def _export_marked(module: Any, shape: tuple[int, ...]) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """Export a module for ``MARK`` images, and let the graph take any number; None where it depends on it."""
    import torch

    if not any("BatchNorm" in type(part).__name__ for part in module.modules()):
        return None  # transformers and their like reshape batches: that would be seen late
    with torch.no_grad():
        program = torch.export.export(module, (torch.zeros(MARK, *shape),))
    if any(_depends_on_batch(node) for node in program.graph.nodes):
        return None
    model, unfolded = _export(program, None, None)
    return (model, unfolded) if _free_batch(model) and _free_batch(unfolded) else None


def _export(module: Any, example: Any, dynamic_shapes: Any) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Export a module, or a program that ``torch.export`` made of one, which has its example."""
    import torch

    with torch.no_grad():
        program: Any = torch.onnx.export(
            module,
            () if example is None else (example,),
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            verbose=False,
            optimize=False,
        )
    unfolded: onnx.ModelProto = program.model_proto
    program.optimize()
    model: onnx.ModelProto = program.model_proto
    size = model.ByteSize()
    if size > MAX_FILE_BYTES:
        raise BackboneError(f"The exported graph has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}.")
    return model, unfolded


def _is_marked(number: int) -> bool:
    return number != 0 and number % MARK == 0


def _depends_on_batch(node: Any) -> bool:
    """Whether a number of an operation of a captured program comes from its batch, but for the first of a new shape."""
    numbers = list(_integers((node.args, node.kwargs)))
    if str(node.target) in RESHAPES and numbers[:1] == [MARK]:
        del numbers[0]
    return any(map(_is_marked, numbers))


def _integers(value: Any) -> Iterator[int]:
    """All integers within lists, tuples and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _integers(part)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _free_batch(model: onnx.ModelProto) -> bool:
    """Let a graph, in place, that was exported for ``MARK`` images take any number; False where it depends on that."""
    from onnx import helper, numpy_helper

    graph = model.graph
    _free_reshapes(graph)
    numbers: list[Any] = []
    for node in graph.node:
        numbers += [helper.get_attribute_value(a) for a in node.attribute]
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        numbers.append(list(tensor.dims))
        if tensor.data_type in (tensor.INT32, tensor.INT64):
            numbers.append(numpy_helper.to_array(tensor).tolist())
    values = [*graph.input, *graph.output, *graph.value_info]
    for value in values:
        dim = value.type.tensor_type.shape.dim
        if dim and dim[0].dim_value == MARK:
            dim[0].dim_param = "batch"
        numbers.append([d.dim_value for d in dim])
    return not model.functions and not any(map(_is_marked, _integers(numbers)))


def _free_reshapes(graph: onnx.GraphProto) -> None:
    """Where a new shape begins with ``MARK``, let it begin with what the other numbers leave, which are of one image.

    A shape is a constant, or several behind each other, that nothing else reads.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            [attribute] = node.attribute
            if attribute.name == "value_ints":
                tensor = numpy_helper.from_array(np.array(attribute.ints, np.int64))
                attribute.CopyFrom(helper.make_attribute("value", tensor))
            if attribute.name == "value":
                constants[node.output[0]] = attribute.t
    joined = {node.output[0]: list(node.input) for node in graph.node if node.op_type == "Concat"}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        parts = joined.get(node.input[1], [node.input[1]])
        if any(part not in constants for part in parts) or readers[node.input[1]] != 1 or readers[parts[0]] != 1:
            continue
        first, *others = (numpy_helper.to_array(constants[part]) for part in parts)
        if first.ndim == 1 and first[:1] == [MARK] and all((part > 0).all() for part in (first, *others)):
            freed = np.concatenate([[-1], first[1:]]).astype(first.dtype)
            constants[parts[0]].CopyFrom(numpy_helper.from_array(freed, constants[parts[0]].name))
