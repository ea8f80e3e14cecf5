"""``--to litert``: the file answers as the model does, in LiteRT's own interpreter, and carries its labels."""

import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from headstart import FitOptions, fit_dataset, open_dataset
from headstart.errors import OptionError
from headstart.export import ExportOptions, export_model, toolchain, verify_export
from headstart.export.labels import as_lines
from headstart.export.to_litert import TOOLCHAIN
from headstart.export.toolchain import run_program
from headstart.model.folder import read_model

# A program of the toolchain, so that a library that we did not write reads the file.
READ = """
import json, sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(run,) = [interpreter.get_signature_runner()]
def about(details):
    return {name: [value["shape"].tolist(), value["dtype"].__name__] for name, value in details.items()}
json.dump([about(run.get_input_details()), about(run.get_output_details())], open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def litert():
    """The toolchain; it is only installed where that is asked for: it takes 700 MB."""
    if not TOOLCHAIN.is_ready and not os.environ.get("HEADSTART_TOOLCHAINS"):
        pytest.skip("needs the converter of LiteRT (make exports installs it)")


@pytest.mark.exports
@pytest.mark.slow
def test_an_export_is_proven_and_verified(litert, exports, tmp_path):
    folder = exports("litert")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert parity["runtime"]["name"] == "ai-edge-litert"
    assert {comparison["of"] for comparison in parity["proof"]["comparisons"]} >= {"golden images", "image files"}
    assert all(comparison["changed"] == 0 for comparison in parity["proof"]["comparisons"])
    assert not verify_export(folder).problems
    program = tmp_path / "read.py"
    program.write_text(READ)
    run_program(TOOLCHAIN, str(program), folder / "model.tflite", tmp_path / "read.json")
    about = parity["about"]["preprocess"]
    inputs, outputs = json.loads((tmp_path / "read.json").read_text())
    assert inputs == {"pixels": [[1, about["height"], about["width"], 3], "uint8"]}
    assert outputs["probabilities"] == [[1, len(parity["about"]["classes"])], "float32"]
    assert set(outputs) == {"probabilities", "distance"}


@pytest.mark.exports
@pytest.mark.slow
def test_a_model_of_several_taps_is_converted(litert, photos, tmp_path):
    options = FitOptions("headstart-m", cut=("stage4", "stage5", "features"), cache=False)
    export = export_model(fit_dataset(open_dataset(photos), options).model, "litert", tmp_path / "export")
    assert export.proof is not None
    assert not export.proof.problems


@pytest.mark.exports
@pytest.mark.slow
def test_the_labels_lie_in_the_file_and_beside_it(litert, exports):
    folder = exports("litert")
    classes = json.loads((folder / "parity.json").read_text("utf-8"))["about"]["classes"]
    with zipfile.ZipFile(folder / "model.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == classes
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == classes
    assert b"TFLITE_METADATA" in (folder / "model.tflite").read_bytes()


@pytest.mark.exports
@pytest.mark.slow
def test_a_model_with_one_cut_and_an_old_graph_is_converted(litert, model_folder, tmp_path):
    """Graphs of one tap once had a Concat of one input, for which LiteRT has no operator."""
    import onnx

    model = read_model(model_folder)
    graph = onnx.load_model_from_string(model.graph)
    head = next(node for node in graph.graph.node if node.op_type in ("Gemm", "MatMul"))
    concat = onnx.helper.make_node("Concat", [head.input[0]], ["cuts"], axis=1)
    graph.graph.node.insert(list(graph.graph.node).index(head), concat)
    head.input[0] = "cuts"
    export = export_model(replace(model, graph=graph.SerializeToString()), "litert", tmp_path / "export")
    assert export.proof is not None
    assert not export.proof.problems


@pytest.mark.exports
@pytest.mark.slow
def test_a_skew_in_the_file_is_found(litert, copied):
    folder = copied("litert")
    content = bytearray((folder / "model.tflite").read_bytes())
    floats = np.frombuffer(content, "<f4", count=len(content) // 4)
    place = int(np.flatnonzero((np.abs(floats) > 0.01) & (np.abs(floats) < 2))[len(floats) // 8])
    content[4 * place : 4 * place + 4000] = np.roll(floats[place : place + 1000], 1).tobytes()
    (folder / "model.tflite").write_bytes(content)
    assert any("model.tflite" in problem for problem in verify_export(folder).problems)


def test_without_the_toolchain_nothing_is_written_and_a_proof_says_so(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(OptionError, match=r"is not installed\. Without --no-install this is run|needs Python 3\.12"):
        export_model(read_model(model_folder), "litert", tmp_path / "export", ExportOptions(install=False))
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits_are_refused_with_the_reason(model_folder, tmp_path, precision):
    with pytest.raises(
        OptionError, match=rf"--to litert has no {precision} \(onnx2tf's .* int8 lost .*\); choose fp32"
    ):
        export_model(read_model(model_folder), "litert", tmp_path / "export", ExportOptions(precision))


def test_labels_are_lines():
    names = ("a b", "two\nlines", "tab\there", "line\u2028end")
    assert as_lines(names) == ["a b", "two\\x0alines", "tab\there", "line\\u2028end"]
