"""The shapes of tensors in a run of a graph, in a process of its own whose memory and time are limited.

ONNX's shape inference leaves some tensors open, and what a graph allocates before its shapes are known has no bound.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from headstart.errors import BackboneError, one_line

MEMORY = 2 * 2**30  # bytes, beside four times those of the graph
SECONDS = 300


def shapes_by_running(
    graph: bytes, name: str, shape: list[int], dtype: str, tensors: list[str]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of ``tensors``, which are all outputs of the graph, for one black image ``name`` of ``shape``.

    Raises BackboneError if the graph cannot be run, or not in this memory or time.
    """
    request = json.dumps({"name": name, "shape": shape, "dtype": dtype, "memory": MEMORY + 4 * len(graph)}).encode()
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-m", "headstart.backbones.onnx.limited_run"],
            # -P: nothing is imported from the working folder.
            input=len(request).to_bytes(4, "big") + request + graph,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackboneError(f"The graph runs for more than {SECONDS} seconds on one image.") from None
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        answer = {"error": "its memory has a limit of 2 GiB"}
    if "error" in answer:
        raise BackboneError(f"The graph cannot be run: {answer['error']}.")
    return {tensor: tuple(size) for tensor, size in zip(tensors, answer["shapes"], strict=True) if size is not None}


def _main() -> None:
    from headstart.backbones.onnx.runnable import open_session

    data = sys.stdin.buffer.read()
    length = int.from_bytes(data[:4], "big")
    request, graph = json.loads(data[4 : 4 + length]), data[4 + length :]
    try:
        import resource
    except ImportError:  # not on Windows: there the time is limited alone
        pass
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
    try:
        image = np.zeros(request["shape"], request["dtype"])
        values = open_session(graph).run(None, {request["name"]: image})
        shapes = [v.shape if isinstance(v, np.ndarray) else None for v in values]
        print(json.dumps({"shapes": shapes}))
    except Exception as error:  # onnxruntime's exceptions have no common base
        print(json.dumps({"error": one_line(error, 200)}))


if __name__ == "__main__":
    _main()
