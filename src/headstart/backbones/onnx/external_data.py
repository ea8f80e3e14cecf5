"""Read a foreign ONNX file, and the files beside it that hold weights of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from headstart.backbones.backbone import MAX_FILE_BYTES
from headstart.backbones.onnx.limits import check_operators
from headstart.errors import BackboneError, one_line

MAX_LOCATION = 200  # characters of the path of a file with weights


def parse_graph(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse the ``content`` of an ONNX file.

    Raises BackboneError, naming ``path``, if it is not one, and for operators that no image classifier needs.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError):
        raise BackboneError(f"{path} is not an ONNX graph, or it was cut off.") from None
    if not model.graph.node or not model.graph.output:
        raise BackboneError(f"{path} is not an ONNX graph, or it was cut off.")
    check_operators(model)
    return model


def load_with_weights(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse the ``content`` of the ONNX file ``path``, and load the weights beside it. Raises BackboneError."""
    model = parse_graph(content, path)
    if weight_files(model, path):
        try:
            onnx.load_external_data_for_model(model, str(path.parent.resolve()))
        except Exception as error:  # onnx's checker raises its own kinds
            raise BackboneError(f"The weights beside {path.name} cannot be read: {one_line(error, None)}") from None
    return model


def weight_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files that hold weights of the graph in the file ``path``, sorted.

    Raises BackboneError if one lies outside that file's folder or is missing, or if they are too large.
    """
    folder = path.parent.resolve()
    files = set()
    for location in weight_locations(model):
        file = (folder / location[:MAX_LOCATION]).resolve()
        if not location or len(location) > MAX_LOCATION or folder not in file.parents:
            raise BackboneError(f"{path.name} keeps weights outside its folder ({location[:100]!r}); refused.")
        if not file.is_file():
            raise BackboneError(f"{path.name} needs the file {location!r} beside it; copy it there.")
        files.add(file)
    total = sum(file.stat().st_size for file in files)
    if total > MAX_FILE_BYTES:
        raise BackboneError(
            f"The weights beside {path.name} have {total:,} bytes, more than the limit of {MAX_FILE_BYTES:,}."
        )
    return sorted(files)


def weight_locations(model: onnx.ModelProto) -> set[str]:
    """Paths of the files that hold weights, as the graph gives them; "" where a tensor does not give one."""
    return {
        next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        for tensor in _constants(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def has_external_data(model: onnx.ModelProto) -> bool:
    """Return whether any tensor, wherever in the message it is, has its values in another file."""
    pending: list[Message] = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto) and (
            message.external_data or message.data_location == onnx.TensorProto.EXTERNAL
        ):
            return True
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                pending += [value] if isinstance(value, Message) else value
    return False


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all constants of a graph."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
