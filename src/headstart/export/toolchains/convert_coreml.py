"""Convert ONNX to Core ML. Runs in the toolchain "coreml": python convert_coreml.py MODEL.onnx ABOUT.json OUT.mlpackage

ABOUT.json has the labels, whether an image may have several of them, the precision, a description, and texts for the
user-defined metadata.
"""

import json
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx_tools import bypass, drop_single_concats


def convert(source: Path, about: dict[str, object], target: Path) -> None:
    """Convert the graph to one that takes an RGB image, and write the package."""
    import coremltools
    import onnxsim

    model = onnx.load(source)
    height, width = take_planes(model.graph)
    drop_decision(model.graph)
    for output in model.graph.output:
        if output.type.tensor_type.shape.dim:
            output.type.tensor_type.shape.dim[0].Clear()
            output.type.tensor_type.shape.dim[0].dim_value = 1
    model, _ = onnxsim.simplify(model)
    precision = coremltools.precision.FLOAT16 if about["precision"] == "fp16" else coremltools.precision.FLOAT32
    # Given in both calls: without it the first one makes the program fp16, whatever the second one says.
    program = onnxsim.export_coreml(model, convert_to="milinternal", compute_precision=precision)
    image = coremltools.ImageType("pixels", (1, 3, height, width), color_layout=coremltools.colorlayout.RGB)
    classifier = None  # Core ML's classifiers give one class an image
    if not about["is_multi_label"]:
        classifier = coremltools.ClassifierConfig(about["labels"], predicted_probabilities_output="probabilities")
    package = coremltools.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        skip_model_load=True,
        compute_precision=precision,
        inputs=[image],
        classifier_config=classifier,
    )
    package.short_description = about["description"]
    package.user_defined_metadata.update(about["metadata"])
    package.save(str(target))


def take_planes(graph: onnx.GraphProto) -> tuple[int, int]:
    """Let the graph take float planes [1, 3, height, width], without Transpose and Cast; return height and width."""
    drop_single_concats(graph)
    height, width = (size.dim_value for size in graph.input[0].type.tensor_type.shape.dim[1:3])
    wanted = {"Transpose", "Cast"}
    while wanted:
        users = [node for node in graph.node if "pixels" in node.input]
        if len(users) != 1 or users[0].op_type not in wanted:
            raise SystemExit("The graph does not begin with a Transpose and a Cast, which Core ML cannot do.")
        wanted.remove(users[0].op_type)
        bypass(graph, users[0])
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, height, width]))
    del graph.value_info[:]
    return height, width


def drop_decision(graph: onnx.GraphProto) -> None:
    """Remove the number of the class that costs or thresholds decide for: onnxsim knows no ArgMax for Core ML."""
    kept = [output for output in graph.output if output.name != "decision"]
    del graph.output[:]
    graph.output.extend(kept)
    nodes = [node for node in graph.node if node.output[0] not in ("decision", "decision.scores")]
    del graph.node[:]
    graph.node.extend(nodes)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), Path(sys.argv[3]))
