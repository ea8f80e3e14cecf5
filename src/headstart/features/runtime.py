"""Run a graph: OpenVINO where it is installed, else ONNX Runtime.

The machine's cores are used once. Each of ``workers`` threads may call ``Graph.run`` with a batch of its own,
and each call runs on one core; so decoding and inference of different batches overlap by themselves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import BackboneError, OptionError, missing_extra, one_line
from headstart.machine import cores, has_bf16

RUNTIMES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("auto", "fp32", "bf16")
Batch = NDArray[np.uint8]
Outputs = dict[str, NDArray[np.float32]]
_STARTING = threading.Lock()


@dataclass(frozen=True)
class RuntimeInfo:
    """Which library ran a graph, its version, and the precision of its arithmetic ("fp32" or "bf16")."""

    name: str
    version: str
    precision: str

    @property
    def key(self) -> str:
        """What features are kept under: numbers of another library or precision differ a little."""
        return f"{self.name}-{self.precision}"


@cache
def resolve_runtime(runtime: str = "auto", precision: str = "auto") -> RuntimeInfo:
    """The runtime that ``load_graph`` would use, found without loading it. Raises OptionError, MissingExtraError."""
    if runtime not in RUNTIMES:
        raise OptionError(f"Unknown runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}.")
    if precision not in PRECISIONS:
        raise OptionError(f"Unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    installed = util.find_spec("openvino") is not None
    if runtime == "openvino" and not installed:
        raise missing_extra("OpenVINO is not installed", "openvino")
    if runtime == "onnxruntime" or not installed:
        if precision == "bf16":
            raise OptionError("ONNX Runtime computes in fp32 on processors; use --runtime openvino for bf16.")
        return RuntimeInfo("onnxruntime", metadata.version("onnxruntime"), "fp32")
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp32"
    return RuntimeInfo("openvino", metadata.version("openvino"), precision)


@dataclass(frozen=True)
class Graph:
    """A loaded graph. ``outputs`` are its output names; ``workers`` calls of ``run`` may go on at once."""

    info: RuntimeInfo
    outputs: tuple[str, ...]
    workers: int
    _call: Callable[[Batch], list[NDArray[np.float32]]]

    def run(self, batch: Batch) -> Outputs:
        """Outputs by name, float32, for uint8 pictures [batch, height, width, 3]. Thread-safe."""
        return dict(zip(self.outputs, self._call(np.ascontiguousarray(batch)), strict=True))


def load_graph(
    model: Path | bytes, *, runtime: str = "auto", precision: str = "auto", workers: int | None = None
) -> Graph:
    """Load an ONNX graph whose one input is ``pixels``, from a file or its bytes.

    ``workers`` is how many threads will call ``run`` at once, each on one core; the number of cores unless
    given. Raises OptionError, MissingExtraError, BackboneError.
    """
    info = resolve_runtime(runtime, precision)
    workers = workers or cores()
    try:
        if info.name == "openvino":
            return _openvino(model, info, workers)
        return _onnxruntime(model, info, workers)
    except Exception as error:  # neither library's exceptions share a base that says so
        raise BackboneError(f"{info.name} cannot run the graph: {one_line(error)}") from None


def _onnxruntime(model: Path | bytes, info: RuntimeInfo, workers: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if workers > 1 else cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model), options, providers=["CPUExecutionProvider"]
    )

    def call(batch: Batch) -> list[NDArray[np.float32]]:
        values: list[NDArray[np.float32]] = session.run(None, {"pixels": batch})
        return values

    return Graph(info, tuple(output.name for output in session.get_outputs()), workers, call)


def _openvino(model: Path | bytes, info: RuntimeInfo, workers: int) -> Graph:
    import openvino

    # Its binding to NumPy starts with the first array that it is given, and two threads that do so at once can wait for
    # each other for ever (seen in 2026.4): here it starts in one, while others that load a graph wait.
    with _STARTING:
        openvino.Type.u8.to_dtype()
    core = openvino.Core()
    network = core.read_model(model) if isinstance(model, bytes) else core.read_model(os.fspath(model))
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT" if workers > 1 else "LATENCY",
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers if workers > 1 else cores(),
        "INFERENCE_PRECISION_HINT": "bf16" if info.precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", settings)
    names = tuple(output.get_any_name() for output in compiled.outputs)
    local = threading.local()

    def call(batch: Batch) -> list[NDArray[np.float32]]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        request: Any = local.request
        request.infer([batch], share_inputs=True)
        return [np.array(request.get_output_tensor(i).data, np.float32) for i in range(len(names))]

    return Graph(info, names, workers, call)


def images_per_second(
    model: Path | bytes, size: tuple[int, int], fixed: int | None, *, runtime: str = "auto", precision: str = "auto",
    seconds: float = 0.5,
) -> float:  # fmt: skip
    """How fast a graph runs here on pictures of (height, width) ``size``: all cores, no decoding.

    Batches of 16 (``fixed`` where only that is allowed) of noise run for about ``seconds``, after one to warm up;
    the median of three such spells, so that one busy moment does not decide.
    """
    graph = load_graph(model, runtime=runtime, precision=precision)
    batch = np.random.default_rng(0).integers(0, 256, (16, *size, 3), np.uint8)

    def spell(until: float) -> int:
        count = 0
        while count == 0 or time.perf_counter() < until:
            run_padded(graph, batch, fixed)
            count += len(batch)
        return count

    rates = []
    with ThreadPoolExecutor(graph.workers) as pool:
        list(pool.map(spell, [0.0] * graph.workers))
        for _ in range(3):
            began = time.perf_counter()
            count = sum(pool.map(spell, [began + seconds / 3] * graph.workers))
            rates.append(count / (time.perf_counter() - began))
    return float(np.median(rates))


def run_padded(graph: Graph, batch: Batch, fixed: int | None) -> Outputs:
    """``graph.run`` for a graph that only takes batches of ``fixed`` pictures (None: any number)."""
    if fixed is None:
        return graph.run(batch)
    parts = []
    for start in range(0, len(batch), fixed):
        part = batch[start : start + fixed]
        filled = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
        parts.append({name: value[: len(part)] for name, value in graph.run(filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in graph.outputs}
