"""``--to coreml``: the arithmetic of the saved package is the model's, and the script for a Mac compares."""

import json
import os
import shutil
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from scipy.special import erf, softmax

from headstart.errors import OptionError, VerifyError
from headstart.export import ExportOptions, export_model, toolchain, verify_export
from headstart.export.to_coreml import FILE, SCRIPT, TOOLCHAIN
from headstart.export.toolchain import Worker, run_program
from headstart.model.folder import read_model

# A program of the toolchain, so that Apple's own reader says what is in the package.
READ = """
import json, sys
import coremltools
spec = coremltools.models.MLModel(sys.argv[1], skip_model_load=True).get_spec()
image = spec.description.input[0]
json.dump({
    "input": [image.name, image.type.imageType.width, image.type.imageType.height],
    "outputs": [output.name for output in spec.description.output],
    "precisions": sorted({
        str(value.type.tensorType.dataType) for block in spec.mlProgram.functions["main"].block_specializations.values()
        for operation in block.operations if operation.type == "conv" for value in operation.outputs
    }),
    "metadata": dict(spec.description.metadata.userDefined),
}, open(sys.argv[2], "w"))
"""
# A package of the operations that transformers have.
TRANSFORMER = """
import sys
import coremltools as ct, numpy as np
from coremltools.converters.mil import Builder as mb
gamma, beta = np.float32([1, 2, 3, 4]), np.float32([0, 1, 0, -1])
@mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 4, 4))])
def program(pixels):
    x = mb.layer_norm(x=mb.mul(x=pixels, y=np.float32(0.01)), axes=[3], gamma=gamma, beta=beta, epsilon=np.float32(0.1))
    x = mb.gelu(x=x, mode=sys.argv[2])
    x = mb.slice_by_index(
        x=x, begin=[0, 1, 0, 0], end=[0, 3, 4, 0], stride=[1, 1, 2, 1],
        begin_mask=[True, False, False, True], end_mask=[True, False, False, True],
    )
    x = mb.reduce_sum(x=mb.gather(x=x, indices=1, axis=2), axes=[2], keep_dims=False)
    distance = mb.reduce_mean(x=x, axes=[1], keep_dims=False, name="distance")
    return mb.softmax(x=x, axis=1, name="probabilities"), distance
ct.convert(
    program, source="milinternal", convert_to="mlprogram", skip_model_load=True,
    compute_precision=ct.precision.FLOAT32,
    inputs=[ct.ImageType("pixels", (1, 3, 4, 4), color_layout=ct.colorlayout.RGB)],
    classifier_config=ct.ClassifierConfig(["a", "b"], predicted_probabilities_output="probabilities"),
).save(sys.argv[1])
"""
# Stands in for coremltools on a Mac: answers by the ONNX graph, the second class more probable by OFF.
STAND_IN = """
import numpy as np, onnxruntime
class ComputeUnit:
    CPU_ONLY = 1
class MLModel:
    def __init__(self, path, compute_units):
        self.session = onnxruntime.InferenceSession("model.onnx")
        self.labels = open("labels.txt", encoding="utf-8").read().splitlines()
    def predict(self, inputs):
        values = self.session.run(["probabilities", "distance"], {"pixels": np.asarray(inputs["pixels"])[None]})
        probabilities = values[0][0] + [0, OFF]
        return {"classLabel_probs": dict(zip(self.labels, probabilities)), "distance": values[1]}
class models:
    MLModel = MLModel
"""


def test_fp16_without_force_is_refused_before_anything_is_installed(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.export.to_coreml.install", lambda *_, **__: pytest.fail("it was installed"))
    said = (
        r"^--to coreml --precision fp16 is written with --force alone: "
        r"its fp16 arithmetic is that of the device, which nothing here proves\.$"
    )
    with pytest.raises(VerifyError, match=said):
        export_model(read_model(model_folder), "coreml", tmp_path / "export", ExportOptions("fp16"))
    assert not (tmp_path / "export").exists()


@pytest.fixture(scope="module")
def coreml():
    """The toolchain; it is only installed where that is asked for: it takes 300 MB."""
    if not TOOLCHAIN.is_ready and not os.environ.get("HEADSTART_TOOLCHAINS"):
        pytest.skip("needs the converter of Core ML (make exports installs it)")


@pytest.mark.exports
@pytest.mark.slow
def test_the_package_computes_what_the_model_does_and_says_what_is_not_proven(coreml, exports, tmp_path):
    folder = exports("coreml")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert all(comparison["changed"] == 0 for comparison in parity["proof"]["comparisons"])
    assert [entry["command"] for entry in parity["not_proven"]] == [f"python3 {SCRIPT}, on a Mac"]
    verification = verify_export(folder)
    assert not verification.problems
    assert len(verification.not_proven) == 1
    program = tmp_path / "read.py"
    program.write_text(READ)
    run_program(TOOLCHAIN, str(program), folder / FILE, tmp_path / "read.json")
    found = json.loads((tmp_path / "read.json").read_text())
    about = parity["about"]["preprocess"]
    assert found["input"] == ["pixels", about["width"], about["height"]]
    assert set(found["outputs"]) == {"classLabel", "classLabel_probs", "distance"}
    assert found["precisions"] == ["11"]  # FLOAT32 in MIL.proto: a package is fp16 (10) where that is not said twice
    assert json.loads(found["metadata"]["headstart"])["classes"] == parity["about"]["classes"]


@pytest.mark.exports
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION"])
def test_the_operations_of_transformers_are_computed(coreml, tmp_path, mode):
    program, pixels = tmp_path / "write.py", np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    program.write_text(TRANSFORMER)
    run_program(TOOLCHAIN, str(program), tmp_path / FILE, mode)
    worker = Worker(TOOLCHAIN, "answer_coreml.py", tmp_path / FILE, 2, b'["a", "b"]\n')
    found = worker(pixels)
    worker.close()
    x = pixels.transpose(0, 3, 1, 2) * 0.01
    x = (x - x.mean(axis=3, keepdims=True)) / np.sqrt(x.var(axis=3, keepdims=True) + 0.1) * [1, 2, 3, 4] + [0, 1, 0, -1]
    exact, approximate = erf(x / np.sqrt(2)), np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    x = x / 2 * (1 + (exact if mode == "EXACT" else approximate))
    scores = x[:, 1:3, 2].sum(axis=2)
    assert found.ood_scores == pytest.approx(scores.mean(axis=1), abs=1e-5)
    assert found.probabilities == pytest.approx(softmax(scores, axis=1), abs=1e-6)


@pytest.mark.exports
@pytest.mark.slow
def test_changed_weights_and_labels_are_found(coreml, copied):
    folder = copied("coreml")
    weights = folder / FILE / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    content = bytearray(weights.read_bytes())
    middle = len(content) // 2 // 4 * 4
    content[middle : middle + 4096] = content[middle + 4 : middle + 4100]
    weights.write_bytes(content)
    problems = verify_export(folder).problems
    assert any("weight.bin is not the file that was proven" in problem for problem in problems)


@pytest.mark.exports
@pytest.mark.slow
def test_fp16_is_written_with_force_alone_and_is_fp16(coreml, model_folder, photos, tmp_path):
    model, options = read_model(model_folder), ExportOptions("fp16")
    with pytest.raises(VerifyError, match="its fp16 arithmetic is that of the device, which nothing here proves"):
        export_model(model, "coreml", tmp_path / "refused", options)
    assert not (tmp_path / "refused").exists()
    export = export_model(model, "coreml", tmp_path / "export", options, force=True)
    assert len(export.problems) == 1
    assert export.proof is not None
    assert export.proof.tolerances["graph"].probability == 0.025
    assert max(part.probability for part in export.proof.comparisons) > 1e-5  # it was computed in fp16
    program = tmp_path / "read.py"
    program.write_text(READ)
    run_program(TOOLCHAIN, str(program), tmp_path / "export" / FILE, tmp_path / "read.json")
    assert json.loads((tmp_path / "read.json").read_text())["precisions"] == ["10"]


@pytest.mark.parametrize(("off", "status"), [(0.0, 0), (0.01, 1)])
def test_the_script_for_a_mac_compares(exports, tmp_path, off, status):
    folder = tmp_path / "export"
    shutil.copytree(exports("onnx"), folder)
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    (folder / "labels.txt").write_text("\n".join(parity["about"]["classes"]) + "\n")
    (folder / SCRIPT).write_bytes((resources.files("headstart.export") / "toolchains" / SCRIPT).read_bytes())
    (folder / "coremltools.py").write_text(STAND_IN.replace("OFF", str(off)))
    completed = subprocess.run([sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == status, completed.stderr
    assert f"image files: {len(list((folder / 'proof').iterdir())) - 1}, largest difference " in completed.stdout


def test_without_the_toolchain_nothing_is_written(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(OptionError, match=r"is not installed\. Without --no-install this is run|needs Python 3\.12"):
        export_model(read_model(model_folder), "coreml", tmp_path / "export", ExportOptions(install=False))
    assert not (tmp_path / "export").exists()
