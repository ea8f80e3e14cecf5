"""Convert ONNX to LiteRT. Runs in the toolchain "litert": python convert_litert.py MODEL.onnx ABOUT.json OUT.tflite

ABOUT.json has the texts of the metadata: name, description, version, labels, and a description of each tensor.
"""

import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from onnx_tools import run_onnx2tf

LABELS = "labels.txt"
IDENTIFIER = b"M001"  # of the metadata's own FlatBuffer, and the oldest parser that reads it
PARSER = "1.0.0"
IMAGE_CONTENT, FEATURE_CONTENT, RGB = 2, 1, 1  # ContentProperties, ColorSpaceType
NORMALIZATION = 1  # ProcessUnitOptions
TENSOR_AXIS_LABELS = 2  # AssociatedFileType


def convert(source: Path, about: dict[str, Any], target: Path) -> None:
    """Convert, refuse operators that no interpreter knows, and write the model with its metadata and labels."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = run_onnx2tf(source, Path(folder)).glob("*_float32.tflite")
        content = path.read_bytes()
    flat = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    unknown = {code.customCode.decode() for code in flat.operatorCodes if code.customCode}
    if unknown:
        raise SystemExit(f"LiteRT has no operator {', '.join(sorted(unknown))}, which this network needs.")
    flat.buffers.append(schema.BufferT())
    flat.buffers[-1].data = metadata(about, flat.subgraphs[0])
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(flat.buffers) - 1
    flat.metadata = [*(flat.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(flat.Pack(builder), file_identifier=b"TFL3")
    # The labels lie behind the model, as an archive of one file: the model's own size says where it ends.
    stream = io.BytesIO()
    stream.write(builder.Output())
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), "\n".join(about["labels"]) + "\n")
    target.write_bytes(stream.getvalue())


def metadata(about: dict[str, Any], graph: schema.SubGraphT) -> bytes:
    """Return the metadata of TensorFlow Lite (metadata_schema.fbs, version 1.0.0) as its FlatBuffer."""
    builder = flatbuffers.Builder(4096)
    names = [graph.tensors[i].name.decode() for i in (*graph.inputs, *graph.outputs)]
    tensors = [tensor_metadata(builder, about, name, is_input=i < len(graph.inputs)) for i, name in enumerate(names)]
    inputs = vector(builder, tensors[: len(graph.inputs)])
    outputs = vector(builder, tensors[len(graph.inputs) :])
    subgraph = table(builder, 9, {2: inputs, 3: outputs})
    name, description, version = (builder.CreateString(about[key]) for key in ("name", "description", "version"))
    subgraphs, parser = vector(builder, [subgraph]), builder.CreateString(PARSER)
    root = table(builder, 8, {0: name, 1: description, 2: version, 3: subgraphs, 7: parser})
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def tensor_metadata(builder: flatbuffers.Builder, about: dict[str, Any], name: str, *, is_input: bool) -> int:
    """Write the metadata of a tensor: an RGB image, or numbers, those of the classes with their labels."""
    fields = {}
    if name == "probabilities":
        labels, text = builder.CreateString(LABELS), builder.CreateString("The classes, in the order of the numbers.")
        builder.StartObject(5)
        builder.PrependUOffsetTRelativeSlot(0, labels, 0)
        builder.PrependUOffsetTRelativeSlot(1, text, 0)
        builder.PrependInt8Slot(2, TENSOR_AXIS_LABELS, 0)
        fields[6] = vector(builder, [builder.EndObject()])
    builder.StartObject(2 if is_input else 0)
    if is_input:
        builder.PrependInt8Slot(0, RGB, 0)
    properties = builder.EndObject()
    builder.StartObject(3)
    builder.PrependUint8Slot(0, IMAGE_CONTENT if is_input else FEATURE_CONTENT, 0)
    builder.PrependUOffsetTRelativeSlot(1, properties, 0)
    fields[3] = builder.EndObject()
    if is_input:  # Pixels go in as they are: Task Library wants the mean 0 and the deviation 1 that do nothing.
        values = {}
        for slot, number in ((0, 0.0), (1, 1.0)):
            builder.StartVector(4, 1, 4)
            builder.PrependFloat32(number)
            values[slot] = builder.EndVector()
        options = table(builder, 2, values)
        builder.StartObject(2)
        builder.PrependUint8Slot(0, NORMALIZATION, 0)
        builder.PrependUOffsetTRelativeSlot(1, options, 0)
        fields[4] = vector(builder, [builder.EndObject()])
    fields[0] = builder.CreateString(name)
    fields[1] = builder.CreateString(about["tensors"].get(name, ""))
    return table(builder, 7, fields)


def table(builder: flatbuffers.Builder, slots: int, fields: dict[int, int]) -> int:
    """Write a table of offsets."""
    builder.StartObject(slots)
    for slot, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    written: int = builder.EndObject()
    return written


def vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    """Write a vector of offsets."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    written: int = builder.EndVector()
    return written


if __name__ == "__main__":
    convert(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), Path(sys.argv[3]))
