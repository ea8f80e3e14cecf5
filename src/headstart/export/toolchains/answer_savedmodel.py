"""Answer images by a SavedModel. Runs in the toolchain "savedmodel": python answer_savedmodel.py FOLDER

Requests and answers: see ``export.toolchain``. A SavedModel is a program that may read and write files, so before it is
loaded every operation of it must be one that only computes.
"""

import os
import sys
from pathlib import Path

import numpy as np

OPERATIONS = """
Abs AddN AddV2 All Any ArgMax AvgPool BatchMatMulV2 BatchToSpaceND BiasAdd Cast ConcatV2 Const Conv2D
DepthwiseConv2dNative Einsum Elu Equal Erf Exp ExpandDims Fill FloorDiv FusedBatchNormV3 GatherV2 Greater
GreaterEqual Identity IdentityN LeakyRelu Less LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul Max
MaxPool Maximum Mean Min Minimum MirrorPad Mul Neg NoOp Pack Pad PadV2 PartitionedCall Placeholder Pow Prod
Range ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor Rsqrt Select
SelectV2 Selu Shape Sigmoid Sign Slice Softmax Softplus SpaceToBatchND Split SplitV Sqrt Square
SquaredDifference Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Tile Transpose Unpack
VarHandleOp ZerosLike
"""
COMPUTES = set(OPERATIONS.split())
HOLDS = {"user_object", "function", "variable", "bare_concrete_function", "constant", "captured_tensor"}
SAVES = ("__inference__traced_save", "__inference__traced_restore")  # functions for which nothing here calls


def check(content: bytes) -> None:
    """Raise SystemExit for a SavedModel that could do more than compute."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString(content)
    if len(model.meta_graphs) != 1:
        raise SystemExit("The SavedModel has more than one graph, or none.")
    (graph,) = model.meta_graphs
    kinds = {node.WhichOneof("kind") for node in graph.object_graph_def.nodes}
    if not kinds <= HOLDS:
        raise SystemExit(f"The SavedModel holds {', '.join(sorted(map(str, kinds - HOLDS)))}, which may read files.")
    for function in graph.graph_def.library.function:
        if function.signature.name.startswith(SAVES):
            continue
        for node in function.node_def:
            called = [value.func.name for value in node.attr.values() if value.WhichOneof("value") == "func"]
            if node.op not in COMPUTES or any(name.startswith(SAVES) for name in called):
                raise SystemExit(f"The SavedModel has the operation {node.op}, which may do more than compute.")


def main(path: str) -> None:
    """Answer until the input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get among the answers
    check((Path(path) / "saved_model.pb").read_bytes())
    import tensorflow

    model = tensorflow.saved_model.load(path)
    run = model.signatures["serving_default"]
    _, height, width, _ = run.structured_input_signature[1]["pixels"].shape
    while line := requests.readline():
        for _ in range(int(line)):
            pixels = np.frombuffer(requests.read(height * width * 3), np.uint8).reshape(1, height, width, 3)
            result = run(pixels=tensorflow.constant(pixels))
            numbers = [result[name].numpy().reshape(-1) for name in ("probabilities", "distance")]
            answers.write(np.concatenate(numbers).astype("<f4").tobytes())
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
