"""What the converters do with an ONNX graph before, and by, onnx2tf."""

from pathlib import Path
from typing import Any

import onnx


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


def run_onnx2tf(source: Path, folder: Path, **options: Any) -> Path:
    """Convert a graph, for one image at a time, into ``folder``; return the folder of the results."""
    import onnx2tf

    model = onnx.load(source)
    drop_single_concats(model.graph)
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
