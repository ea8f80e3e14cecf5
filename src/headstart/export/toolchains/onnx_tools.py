"""What the converters do with an ONNX graph before, and by, onnx2tf."""

from pathlib import Path
from typing import Any

import onnx
from onnx import helper


def bypass(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Remove a node; what read its output reads its input."""
    for other in graph.node:
        names = [node.input[0] if name == node.output[0] else name for name in other.input]
        del other.input[:]
        other.input.extend(names)
    graph.node.remove(node)


def drop_single_concats(graph: onnx.GraphProto) -> None:
    """Remove Concat nodes of one input, which earlier models have and no converter knows what to do with."""
    outputs = {value.name for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "Concat" and len(n.input) == 1]:
        if node.output[0] in outputs:
            node.op_type = "Identity"
            del node.attribute[:]
        else:
            bypass(graph, node)


def pool_by_windows(model: onnx.ModelProto) -> None:
    """Replace global average pools by pools over windows of the map's size.

    Behind a global one of a map that another layer reads as well, as a tap in the middle, onnx2tf 2.6.9 leaves a tensor
    that nothing computes.
    """
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in known}
    for node in model.graph.node:
        size = shapes.get(node.input[0], [])[2:] if node.op_type == "GlobalAveragePool" else []
        if len(size) == 2 and all(size):
            node.op_type = "AveragePool"
            node.attribute.append(helper.make_attribute("kernel_shape", size))


def run_onnx2tf(source: Path, folder: Path, **options: Any) -> Path:
    """Convert a graph, for one image at a time, into ``folder``; return the folder of the results."""
    import onnx2tf

    model = onnx.load(source)
    drop_single_concats(model.graph)
    pool_by_windows(model)
    onnx.save(model, folder / "model.onnx")
    onnx2tf.convert(
        input_onnx_file_path=str(folder / "model.onnx"),
        output_folder_path=str(folder / "out"),
        batch_size=1,
        keep_shape_absolutely_input_names=["pixels"],
        non_verbose=True,
        **options,
    )
    return folder / "out"
