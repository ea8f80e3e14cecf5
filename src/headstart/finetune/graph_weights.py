"""The weights of a trained network, written into the graph that was exported before the training.

The exporter names weights as PyTorch does, and folds the batch norm behind a convolution into it: of a network without
other changes the new graph follows from the new weights, and none need be traced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

Array = NDArray[np.float32]
TOLERANCE = 1e-5  # of the largest number of a constant, between the graph's and that computed of the initial weights


def write_weights(
    graph: bytes, module: nn.Module, norms: Mapping[str, str], initial: Mapping[str, Tensor]
) -> bytes | None:
    """Return the ``graph`` of ``module`` with its present weights; None where it is not certain which they are.

    ``initial`` are the tensors of the module that the graph was exported with, ``norms`` the batch norm behind each
    convolution, by the names of both. Constants of tensors that did not change stay as they are, bit for bit.
    """
    model = onnx.load_model_from_string(graph)
    before, after = _arrays(initial), _arrays(module.state_dict())
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    biases = {node.input[1]: node.input[2] for node in model.graph.node if node.op_type == "Conv" and node.input[2:]}
    constants: dict[str, tuple[Array, Array]] = {}  # by name, as it should be now and as it is to be
    for convolution, norm in norms.items():
        parts = {name for name in changed if name.rpartition(".")[0] in (convolution, norm)}
        if parts:
            eps = float(module.get_submodule(norm).eps)
            weight = f"{convolution}.weight"
            folded = [fold(tensors, convolution, norm, eps) for tensors in (before, after)]
            constants[weight], constants[biases.get(weight, "")] = zip(*folded, strict=True)
            changed -= parts
    constants |= {name: (before[name], after[name]) for name in changed}
    return model.SerializeToString() if _replace(model.graph, constants) else None


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """The values of tensors by name, without the counters of batch norms, which no graph has."""
    return {name: t.detach().cpu().numpy() for name, t in tensors.items() if not name.endswith("num_batches_tracked")}


def fold(tensors: Mapping[str, Array], convolution: str, norm: str, eps: float) -> tuple[Array, Array]:
    """Return the weight and the bias of a convolution with its batch norm, in the arithmetic of PyTorch's exporter.

    ``tensors`` are those of both by name; either may lack a bias, and the batch norm a weight.
    """
    mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
    scale = tensors.get(f"{norm}.weight", np.ones_like(mean)) / np.sqrt(variance + np.float32(eps))
    bias = (tensors.get(f"{convolution}.bias", np.zeros_like(mean)) - mean) * scale
    weight = tensors[f"{convolution}.weight"] * scale[:, None, None, None]
    return weight, bias + tensors.get(f"{norm}.bias", np.zeros_like(mean))


def _replace(graph: onnx.GraphProto, values: Mapping[str, tuple[Array, Array]]) -> bool:
    """Replace constants, by name, each with its values now and then; False where one is not there, shared or other."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    for name, (before, after) in values.items():
        if name not in constants or readers[name] != 1:
            return False
        stored = numpy_helper.to_array(constants[name])
        if stored.dtype != np.float32 or stored.shape != before.shape:
            return False
        if not np.abs(stored - before).max(initial=0) <= TOLERANCE * np.abs(before).max(initial=0):
            return False
        constants[name].CopyFrom(numpy_helper.from_array(after.astype(np.float32), name))
    return True
