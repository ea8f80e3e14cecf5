"""Run a graph: on a GPU by ONNX Runtime's CUDA provider where both are there, else on OpenVINO, else on ONNX Runtime.

Each of ``workers`` threads may call ``Graph.run`` with a batch of its own, and each call runs on one core. So the
machine's cores are used once, and decoding and inference of different batches overlap by themselves.
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

from headstart.errors import BackboneError, OptionError, check_types, missing_extra, one_line
from headstart.machine import cores, cuda_devices, has_bf16, import_onnxruntime

RUNTIMES = ("auto", "onnxruntime", "openvino", "onnxruntime-cuda")
CUDA_PROVIDER = "CUDAExecutionProvider"
# Sums in fp32, not in tf32, whose rounding is a thousand times as coarse; and no search for the fastest algorithm.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
PRECISIONS = ("auto", "fp32", "bf16", "int8")
Images = NDArray[np.uint8]  # [batch, height, width, 3]
Outputs = dict[str, NDArray[np.float32]]
_OPENVINO_START = threading.Lock()


@dataclass(frozen=True)
class RuntimeInfo:
    """Which library runs a graph, its version, and the precision of its arithmetic.

    "fp32", "bf16", or "int8": the convolutions of a quantised graph in 8 bits, all else in fp32.
    """

    name: str
    version: str
    precision: str

    @property
    def key(self) -> str:
        """The part of a cache key: numbers of another library or precision differ a little."""
        return f"{self.name}-{self.precision}"

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"name": self.name, "version": self.version, "precision": self.precision}


@dataclass(frozen=True)
class Compute:
    """What runs networks, and on how many threads.

    ``runtime`` is "auto", "onnxruntime", "openvino" or "onnxruntime-cuda", ``precision`` "auto", "fp32", "bf16" or
    "int8"; ``workers`` threads, or one for each core.
    With ``fixed`` nothing varies that a runtime's sums may depend on: each batch is filled up to the same size, and
    runs on one thread; so an image's features are the same bytes whatever lies beside it, and however many work.
    """

    runtime: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        """Raises OptionError."""
        check_types(self)
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"{self.workers} workers cannot be used; give 1 or more, or None for one per core.")

    @property
    def threads(self) -> int:
        """How many threads work."""
        return self.workers or cores()

    def resolve(self) -> RuntimeInfo:
        """Find out what "auto" means on this machine. Raises OptionError, MissingExtraError."""
        return resolve_runtime(self.runtime, self.precision)


@cache
def resolve_runtime(runtime: str = "auto", precision: str = "auto") -> RuntimeInfo:
    """Return the runtime that ``load_graph`` would use, without loading it. Raises OptionError, MissingExtraError."""
    if runtime not in RUNTIMES:
        raise OptionError(f"Unknown runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}.")
    if precision not in PRECISIONS:
        raise OptionError(f"Unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if runtime == "onnxruntime-cuda" or (runtime == "auto" and precision in ("auto", "fp32") and has_cuda_provider()):
        return _resolve_cuda(precision)
    has_openvino = util.find_spec("openvino") is not None
    if runtime == "openvino" and not has_openvino:
        raise missing_extra("OpenVINO is not installed", "openvino")
    if runtime == "onnxruntime" or not has_openvino:
        if precision == "bf16":
            raise OptionError("ONNX Runtime computes in fp32 on processors; use --runtime openvino for bf16.")
        return RuntimeInfo("onnxruntime", onnxruntime_version(), "int8" if precision == "int8" else "fp32")
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp32"
    return RuntimeInfo("openvino", metadata.version("openvino"), precision)


def _resolve_cuda(precision: str) -> RuntimeInfo:
    if precision not in ("auto", "fp32"):
        runtime = {"bf16": "openvino", "int8": "onnxruntime"}[precision]
        raise OptionError(f"ONNX Runtime computes in fp32 on CUDA; use --runtime {runtime} for {precision}.")
    if not has_cuda_provider():
        raise missing_extra("ONNX Runtime has no CUDA provider, or there is no GPU here", "cuda")
    return RuntimeInfo("onnxruntime-cuda", onnxruntime_version(), "fp32")


@cache
def has_cuda_provider() -> bool:
    """Return whether ONNX Runtime is installed with its CUDA provider, and a GPU is there."""
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return cuda_devices() > 0 and CUDA_PROVIDER in import_onnxruntime().get_available_providers()


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime, whichever of its packages is installed."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return metadata.version("onnxruntime-gpu")


@dataclass(frozen=True)
class Graph:
    """A loaded graph. ``outputs`` are its output names; ``workers`` calls of ``run`` may run at once."""

    info: RuntimeInfo
    outputs: tuple[str, ...]
    workers: int
    _call: Callable[[Images], list[NDArray[np.float32]]]

    def run(self, images: Images) -> Outputs:
        """Compute the outputs by name, float32, of uint8 images [batch, height, width, 3]. Thread-safe.

        Raises BackboneError.
        """
        try:
            values = self._call(np.ascontiguousarray(images))
        except Exception as error:  # neither library's exceptions share a base class of their own
            raise BackboneError(f"{self.info.name} cannot run the graph: {one_line(error)}") from None
        return dict(zip(self.outputs, values, strict=True))


def load_graph(model: Path | bytes, compute: Compute | None = None) -> Graph:
    """Load an ONNX graph whose one input is ``pixels``, from a file or its bytes.

    ``compute.workers`` is how many threads will call ``run`` at once, each on one core; a single one uses all cores,
    unless ``compute.fixed``. Raises OptionError,
    MissingExtraError, BackboneError.
    """
    compute = compute or Compute()
    info = compute.resolve()
    try:
        if info.name == "openvino":
            return _load_openvino(model, info, compute)
        return _load_onnxruntime(model, info, compute)
    except BackboneError:
        raise
    except Exception as error:  # neither library's exceptions share a base class of their own
        raise BackboneError(f"{info.name} cannot run the graph: {one_line(error)}") from None


def _load_onnxruntime(model: Path | bytes, info: RuntimeInfo, compute: Compute) -> Graph:
    onnxruntime = import_onnxruntime()
    workers = compute.threads
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if workers > 1 or compute.fixed else cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if info.name == "onnxruntime-cuda":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # those of CUDA and cuDNN that PyTorch or NVIDIA's packages have brought
        providers = [(CUDA_PROVIDER, CUDA_OPTIONS), *providers]
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model), options, providers=providers
    )
    if info.name == "onnxruntime-cuda" and CUDA_PROVIDER not in session.get_providers():
        # It falls back to the processor by itself: then run.json would name the wrong device.
        raise BackboneError("CUDA or cuDNN cannot be loaded; install them, or give --runtime onnxruntime.")

    def call(images: Images) -> list[NDArray[np.float32]]:
        values: list[NDArray[np.float32]] = session.run(None, {"pixels": images})
        return values

    return Graph(info, tuple(output.name for output in session.get_outputs()), workers, call)


def _load_openvino(model: Path | bytes, info: RuntimeInfo, compute: Compute) -> Graph:
    import openvino

    workers = compute.threads
    # Its binding to NumPy starts with the first array that it is given, and two threads that do so at once can wait for
    # each other for ever (seen in 2026.4): here it starts in one, while others that load a graph wait.
    with _OPENVINO_START:
        openvino.Type.u8.to_dtype()
    core = openvino.Core()
    network = core.read_model(model) if isinstance(model, bytes) else core.read_model(os.fspath(model))
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT" if workers > 1 or compute.fixed else "LATENCY",
        "NUM_STREAMS": workers,
        "INFERENCE_NUM_THREADS": workers if workers > 1 or compute.fixed else cores(),
        "INFERENCE_PRECISION_HINT": "bf16" if info.precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", settings)
    # Of the compiled network an output that is an inner tensor as well has the names of both.
    names = tuple(output.get_any_name() for output in network.outputs)
    local = threading.local()

    def call(images: Images) -> list[NDArray[np.float32]]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        request: Any = local.request
        request.infer([images], share_inputs=True)
        return [np.array(request.get_output_tensor(i).data, np.float32) for i in range(len(names))]

    return Graph(info, names, workers, call)


def run_padded(graph: Graph, images: Images, batch_size: int | None) -> Outputs:
    """Run a graph that only takes batches of ``batch_size`` images (None: any number) on any number of images."""
    if batch_size is None:
        return graph.run(images)
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = np.repeat(batch[-1:], batch_size - len(batch), axis=0)
        values = graph.run(np.concatenate([batch, padding]))
        outputs.append({name: value[: len(batch)] for name, value in values.items()})
    return {name: np.concatenate([output[name] for output in outputs]) for name in graph.outputs}


def images_per_second(
    model: Path | bytes,
    size: tuple[int, int],
    batch_size: int | None,
    compute: Compute | None = None,
    *,
    seconds: float = 0.5,
) -> float:
    """Measure how fast a graph runs here on images of (height, width) ``size``: all cores, no decoding.

    Batches of 16 (``batch_size`` where only that is allowed) of noise run for about ``seconds``, after one to warm up;
    the median of three intervals, so that one busy moment does not decide.
    """
    graph = load_graph(model, compute)
    images = np.random.default_rng(0).integers(0, 256, (16, *size, 3), np.uint8)

    def run_until(deadline: float) -> int:
        count = 0
        while count == 0 or time.perf_counter() < deadline:
            run_padded(graph, images, batch_size)
            count += len(images)
        return count

    rates = []
    with ThreadPoolExecutor(graph.workers) as pool:
        list(pool.map(run_until, [0.0] * graph.workers))
        for _ in range(3):
            start = time.perf_counter()
            count = sum(pool.map(run_until, [start + seconds / 3] * graph.workers))
            rates.append(count / (time.perf_counter() - start))
    return float(np.median(rates))
