"""``headstart verify EXPORT``: the replay, what it exits with, and what it does not believe."""

import json
import os
import shutil
from importlib import metadata

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.errors import ModelError
from headstart.export import verify_export
from headstart.export.about import hash_file
from headstart.features.runtime import resolve_runtime


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("options", [{}, {"any_size": True}], ids=["prepared", "any size"])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_export_is_verified_without_the_model_and_the_data(copied, to, options):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    result = run(copied(to, **options), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["to"], found["problems"], found["not_proven"]) == (to, [], [])
    assert [part["images"] for part in found["proof"]["comparisons"]] == ([20] if options else [8, 20])


def test_without_the_runtime_nothing_is_proven_and_strict_fails(copied, monkeypatch):
    monkeypatch.setattr("headstart.export.to_openvino.util.find_spec", lambda name: None)
    folder = copied("openvino")
    result = run(folder)
    assert result.exit_code == 0
    assert "Not proven here: OpenVINO is not installed" in result.stdout
    assert "run: pip install openvino, then: headstart verify EXPORT" in result.stdout
    assert run(folder, "--strict").exit_code == 1


def test_an_export_without_the_runtime_here_says_so(model_folder, tmp_path, monkeypatch):
    from headstart.errors import missing_extra
    from headstart.export import export_model, registry
    from headstart.model.folder import read_model

    def load(folder, about):
        raise missing_extra("OpenVINO is not installed", "openvino")

    from dataclasses import replace

    monkeypatch.setitem(registry.FORMATS, "onnx", replace(registry.FORMATS["onnx"], load=load))
    result = export_model(read_model(model_folder), "onnx", tmp_path / "out")
    assert result.proof is None
    assert result.parity["runtime"] is None
    assert result.not_proven[0][1] == "pip install onnxruntime, then: headstart verify EXPORT"


def test_a_changed_file_is_named(copied):
    folder = copied("onnx")
    (folder / "README.md").write_text("other")
    (folder / "proof" / "tiny.png").unlink()
    with pytest.raises(ModelError, match=r"proof/tiny\.png is missing"):
        verify_export(folder)
    shutil.copy(folder / "proof" / "grey.jpg", folder / "proof" / "tiny.png")
    result = run(folder)
    assert result.exit_code == 1
    assert "README.md is not the file that was proven" in result.stderr
    assert "image files: " in result.stderr


@pytest.mark.parametrize("options", [{}, {"any_size": True}], ids=["prepared", "any size"])
def test_an_older_export_is_verified_with_the_least_tolerance_and_says_so(copied, options):
    """It does not say what a level in the pixels changes; that matters where pixels are prepared otherwise."""
    folder = copied("onnx", **options)
    file = folder / "proof" / "expected.npz"
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith("level_off.")}
        assert len(kept) == len(arrays.files) - 2
    np.savez(file, **kept)
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    parity["files"]["proof/expected.npz"] = hash_file(file)
    (folder / "parity.json").write_text(json.dumps(parity), "utf-8")
    result = verify_export(folder)
    assert result.problems == ()
    assert result.proof.tolerances["files"].score == (0.1 if options else result.proof.tolerances["graph"].score)
    assert any("an older export" in remark for remark in result.proof.remarks) == bool(options)
    assert ("note: an older export, which does not say" in run(folder).output) == bool(options)


@pytest.mark.parametrize("to", ["onnx", "hub"])
def test_the_package_for_gpus_runs_exports_as_well(exports, monkeypatch, to):
    """ONNX Runtime is one module in several packages."""
    version = metadata.version

    def version_of(package):
        if package == "onnxruntime":
            raise metadata.PackageNotFoundError(package)
        return "9.9" if package == "onnxruntime-gpu" else version(package)

    folder = exports(to)
    resolve_runtime.cache_clear()
    monkeypatch.setattr(metadata, "version", version_of)
    try:
        result = verify_export(folder)
    finally:
        resolve_runtime.cache_clear()
    assert result.runtime == {"onnx": "onnxruntime 9.9", "hub": "onnxruntime, with Pillow 9.9"}[to]
    assert result.problems == ()


def test_a_changed_program_is_not_run(copied):
    folder = copied("onnx")
    (folder / "preprocess.py").write_text("raise SystemExit('it ran')")
    result = run(folder)
    assert result.exit_code == 1
    assert "preprocess.py is not the one that Headstart writes for this model; it was not run" in result.stderr
    assert "it ran" not in result.output


@pytest.mark.parametrize(
    "change",
    [
        lambda parity: parity.update(library_name="other"),
        lambda parity: parity.update(format=99),
        lambda parity: parity["files"].update({"../../etc/passwd": "0"}),
        lambda parity: parity["files"].update({"model.onnx": 3}),
        lambda parity: parity["about"].update(classes=["one"]),
        lambda parity: parity["about"].update(classes=["a", "b", "c"]),
        lambda parity: parity["about"].update(batch=-1),
        lambda parity: parity["about"].update(preprocess={"height": 10**9, "width": 1}),
        lambda parity: parity["about"].update(preprocess={"height": 8, "width": 8}),
        lambda parity: parity.pop("about"),
    ],
)
def test_a_hostile_description_is_one_error(copied, change):
    folder = copied("onnx")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    change(parity)
    (folder / "parity.json").write_text(json.dumps(parity))
    with pytest.raises(ModelError):
        verify_export(folder)


def test_hostile_files_are_one_error(copied, tmp_path):
    folder = copied("onnx")
    for name in ("model.onnx", "proof/expected.npz"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\x80\x04N." + original[:100])
        with pytest.raises(ModelError):
            verify_export(folder)
        (folder / name).write_bytes(original)
    (folder / "proof" / "grey.jpg").unlink()
    (folder / "proof" / "grey.jpg").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="refused"):
        verify_export(folder)


@pytest.mark.parametrize(("to", "file"), [("openvino", "model.bin"), ("openvino", "model.xml"), ("onnx", "more/x")])
@pytest.mark.parametrize("kind", ["pipe", "link", "loop"])
def test_what_is_no_file_of_the_export_is_given_to_no_runtime(copied, to, file, kind, tmp_path):
    if to == "openvino":
        pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    folder = copied(to)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(tmp_path / "outside")
    else:
        (tmp_path / "outside").write_text("x")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "outside" if kind == "link" else path)
    with pytest.raises(ModelError, match="is no file, or a link out of the folder; refused"):
        verify_export(folder)


def _custom(graph, _):
    graph.node[-1].domain = "com.example"


def _loop(graph, _):
    graph.node[-1].op_type = "Loop"


def _outside(graph, folder):
    tensor = next(tensor for tensor in graph.initializer if tensor.raw_data)
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def _repeated(graph, times):
    """Let the pixels be repeated so often before the first node that reads them."""
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["repeated" if tensor == name else tensor for tensor in node.input]
    repeats = [times, 1, 1, 1]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(repeats, np.int64), "times"))
    graph.node.insert(0, onnx.helper.make_node("Tile", [name, "times"], ["repeated"]))


def _large(graph, _):
    _repeated(graph, 100_000)


def _other_input(graph, _):
    graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_custom, "has the operator 'com.example."),
        (_loop, "has the operator 'Loop'"),
        (_outside, "refers to other files; refused"),
        (_large, "GiB of memory at a time, more than the limit"),
        (_other_input, "has the inputs "),
    ],
)
@pytest.mark.parametrize(("to", "file"), [("onnx", "model.onnx"), ("hub", "onnx/model.onnx")])
def test_a_graph_that_is_not_arithmetic_or_takes_too_much_is_not_run(copied, to, file, change, said, monkeypatch):
    folder = copied(to)
    model = onnx.load(folder / file)
    change(model.graph, (folder / file).parent)
    (folder / file).write_bytes(model.SerializeToString())
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(ModelError, match=said):
        verify_export(folder)


def test_a_graph_of_any_size_is_checked_for_an_image_of_two_million_pixels(copied):
    folder = copied("onnx", any_size=True)
    model = onnx.load(folder / "model.onnx")
    _repeated(model.graph, 1)  # allowed
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert verify_export(folder).problems == ("model.onnx is not the file that was proven",)
    times = next(tensor for tensor in model.graph.initializer if tensor.name == "times")
    times.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 1, 200, 1], np.int64), "times"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"more than the limit|bad_alloc"):
        verify_export(folder)
