"""Both runtimes give the same numbers, to their precision, from any number of threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.graphs import SIZE, saved
from onnx import TensorProto, helper

from headstart import backbones
from headstart.errors import BackboneError, HeadstartError, MissingExtraError, OptionError
from headstart.features import Compute
from headstart.features import runtime as runtimes
from headstart.features.runtime import load_graph, resolve_runtime, run_padded
from headstart.model.folder import read_model
from headstart.model.golden import verify

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 160, 160, 3), np.uint8)


def require(runtime, precision="auto"):
    try:
        return resolve_runtime(runtime, precision)
    except HeadstartError as error:
        pytest.skip(str(error))


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def test_runtimes_agree():
    require("openvino")
    backbone = backbones.load("headstart-s")
    reference = load_graph(backbone.graph, Compute("onnxruntime")).run(PIXELS)
    exact = load_graph(backbone.graph, Compute("openvino", "fp32")).run(PIXELS)
    half = load_graph(backbone.graph, Compute("openvino", "bf16")).run(PIXELS)
    assert set(reference) == set(exact) == set(half) == {tap.name for tap in backbone.taps}
    for tap, value in reference.items():
        assert value.dtype == exact[tap].dtype == np.float32
        assert relative(exact[tap], value) < 1e-3
        assert relative(half[tap], value) < 0.08


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_outputs_that_are_inner_tensors_as_well_keep_their_names(runtime):
    require(runtime)
    image = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 2, 2, 3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["cast"], ["/a"]),  # a name that comes before those of the outputs in any order
        helper.make_node("Abs", ["cast"], ["/b"]),
        helper.make_node("Cast", ["/b"], ["first"], to=TensorProto.FLOAT),  # does nothing, and is left out
        helper.make_node("Identity", ["/a"], ["second"]),
        helper.make_node("Identity", ["/a"], ["third"]),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("second", "first", "third")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    values = load_graph(model.SerializeToString(), Compute(runtime, "fp32")).run(pixels)
    assert list(values) == ["second", "first", "third"]
    for name, sign in (("first", 1), ("second", -1), ("third", -1)):
        np.testing.assert_array_equal(values[name], sign * pixels.astype(np.float32))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_several_threads_give_the_same_values_as_one(runtime, workers):
    require(runtime)
    graph = load_graph(backbones.load("headstart-s").graph, Compute(runtime, "fp32", workers=workers))
    assert graph.workers == workers
    expected = [graph.run(PIXELS[i : i + 2])["features"] for i in (0, 2, 4)]
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(3):
            results = list(pool.map(lambda i: graph.run(PIXELS[i : i + 2])["features"], (0, 2, 4)))
            for actual, value in zip(results, expected, strict=True):
                np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-5)


def test_results_are_copies():
    """A second run must not write into what the first one returned."""
    for runtime in ("onnxruntime", "openvino"):
        try:
            graph = load_graph(backbones.load("headstart-s").graph, Compute(runtime, workers=1))
        except HeadstartError:
            continue
        first = graph.run(PIXELS[:2])["features"]
        copy = first.copy()
        graph.run(PIXELS[2:4])
        np.testing.assert_array_equal(first, copy)


def test_graphs_of_a_fixed_batch_take_any_number(tmp_path):
    path = saved(tmp_path, batch=4)
    backbone = backbones.load(f"onnx:{path}")
    graph = load_graph(backbone.graph, Compute("onnxruntime"))
    pixels = np.random.default_rng(1).integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)
    expected = run_padded(graph, pixels, None)
    for fixed in (1, 4, 7, 9):
        padded = run_padded(graph, pixels, fixed)
        for tap, value in expected.items():
            np.testing.assert_allclose(padded[tap], value, rtol=1e-5)


def test_the_runtime_is_resolved_without_loading_it():
    info = resolve_runtime("onnxruntime")
    assert (info.name, info.precision, info.key) == ("onnxruntime", "fp32", "onnxruntime-fp32")
    assert resolve_runtime("auto").name in ("onnxruntime", "openvino")
    for bad in (("cuda", "auto"), ("auto", "int4"), ("onnxruntime", "bf16")):
        with pytest.raises(OptionError):
            resolve_runtime(*bad)


def test_without_openvino_onnxruntime_runs(monkeypatch):
    monkeypatch.setattr("headstart.features.runtime.util.find_spec", lambda _: None)
    assert resolve_runtime.__wrapped__("auto").name == "onnxruntime"
    with pytest.raises(HeadstartError, match=r"headstart\[openvino\]"):
        resolve_runtime.__wrapped__("openvino")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("graph", [b"", b"not a graph", bytes(1000)])
def test_graphs_that_cannot_be_loaded_are_errors(runtime, graph):
    require(runtime)
    with pytest.raises(BackboneError):
        load_graph(graph, Compute(runtime))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
@pytest.mark.parametrize("shared", [True, False])
def test_threads_that_run_for_the_first_time_together_do_not_deadlock(shared):
    """OpenVINO's binding to NumPy hung in one of eight such processes until it was started before the threads, and in
    one of four whose threads each loaded a graph until they waited for each other there."""
    code = f"""
import threading, numpy as np
from headstart import backbones
from headstart.features.runtime import Compute, load_graph
def load():
    return load_graph(backbones.load("headstart-s").graph, Compute("openvino", workers=2))
graph = load() if {shared} else None
pixels, barrier = np.zeros((1, 160, 160, 3), np.uint8), threading.Barrier(8)
def run():
    barrier.wait()
    (graph or load()).run(pixels)
threads = [threading.Thread(target=run) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    for _ in range(8):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def pretended_cuda(monkeypatch):
    """ONNX Runtime as if it had a CUDA provider, which computes on the processor; the providers it was asked for."""
    import onnxruntime

    asked, is_loaded = [], [True]

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, options, providers):
            asked.append(providers)
            super().__init__(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider"] * is_loaded[0] + super().get_providers()

    pretended = SimpleNamespace(InferenceSession=Session, SessionOptions=onnxruntime.SessionOptions)
    monkeypatch.setattr(runtimes, "has_cuda_provider", lambda: True)
    monkeypatch.setattr(runtimes, "import_onnxruntime", lambda: pretended)
    resolve_runtime.cache_clear()
    yield asked, is_loaded
    resolve_runtime.cache_clear()


def test_a_gpu_is_used_where_there_is_one_and_named(pretended_cuda):
    asked, is_loaded = pretended_cuda
    assert resolve_runtime().to_dict()["name"] == "onnxruntime-cuda"
    assert resolve_runtime("onnxruntime").name == "onnxruntime"
    assert resolve_runtime("auto", "int8").name != "onnxruntime-cuda"
    backbone = backbones.load("headstart-s")
    on_gpu, on_processor = (load_graph(backbone.graph, Compute(name)) for name in ("auto", "onnxruntime"))
    assert on_gpu.info.key == "onnxruntime-cuda-fp32"  # features of the two are kept apart in the cache
    assert asked == [
        [("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"],
        ["CPUExecutionProvider"],
    ]
    for tap, value in on_processor.run(PIXELS).items():
        np.testing.assert_array_equal(on_gpu.run(PIXELS)[tap], value)
    is_loaded[0] = False
    with pytest.raises(BackboneError, match="CUDA or cuDNN cannot be loaded"):
        load_graph(backbone.graph, Compute("onnxruntime-cuda"))
    for precision, runtime in (("int8", "onnxruntime"), ("bf16", "openvino")):
        with pytest.raises(OptionError, match=f"fp32 on CUDA; use --runtime {runtime} for {precision}"):
            resolve_runtime("onnxruntime-cuda", precision)


def test_the_golden_sample_is_verified_on_the_gpu(pretended_cuda, model_folder):
    result = verify(read_model(model_folder), resolve_runtime("onnxruntime-cuda"))
    assert result.runtime.name == "onnxruntime-cuda"
    assert result.difference <= result.tolerance == 0.002


def test_without_the_provider_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(runtimes, "has_cuda_provider", lambda: False)
    resolve_runtime.cache_clear()
    with pytest.raises(MissingExtraError, match=r"headstart\[cuda\]"):
        resolve_runtime("onnxruntime-cuda")
    resolve_runtime.cache_clear()
