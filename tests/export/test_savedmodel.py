"""``--to savedmodel``: TensorFlow answers as the model does, and a SavedModel that could do more is not loaded."""

import json
import os
from importlib import resources

import numpy as np
import pytest

from headstart import FitOptions, fit_dataset, open_dataset
from headstart.errors import ModelError
from headstart.export import export_model, verify_export
from headstart.export.about import hash_files
from headstart.export.to_savedmodel import FOLDER, TOOLCHAIN
from headstart.export.toolchain import Worker, run_program

# Writes SavedModels of one image into the folder: one that only computes, and others that do more.
WRITE = """
import sys
import tensorflow as tf
def save(name, call, **more):
    module = tf.Module()
    signature = [tf.TensorSpec([1, 4, 4, 3], tf.uint8, "pixels")]
    for key, value in more.items():
        setattr(module, key, value)
    module.call = tf.function(lambda pixels: call(pixels), input_signature=signature)
    tf.saved_model.save(module, f"{sys.argv[1]}/{name}", {"serving_default": module.call})
def answer(pixels):
    mean = tf.reduce_mean(tf.cast(pixels, tf.float32)) / 255
    return {"probabilities": tf.stack([[mean, 1 - mean]]), "distance": tf.reshape(mean, [1])}
def writing(pixels):
    tf.io.write_file(f"{sys.argv[1]}/written", "x")
    return answer(pixels)
def reading(pixels):
    text = tf.io.read_file("/etc/passwd")
    return {**answer(pixels), "distance": tf.cast(tf.strings.length(text), tf.float32)[None]}
save("computes", answer)
save("writes", writing)
save("reads", reading)
asset = tf.saved_model.Asset(__file__)
save("asset", answer, asset=asset)
"""
# The converter's reshape, as onnx2tf's own executor calls it, on six numbers: the shapes by options and by inputs.
RESHAPE = """
import json, sys
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from convert_savedmodel import reshape_as_given
import tensorflow as tf
from onnx2tf.tflite_builder.saved_model_exporter import _REGISTERED_KERNELS
class Executor:
    def _resolve_tensor(self, name, env):
        return env[name]
    def _assign_outputs(self, op, values, env):
        env["y"] = values[0]
shapes = []
for options in ({"newShape": []}, {"newShape": [3, 2]}, {}):
    env = {"x": tf.range(6), "shape": tf.constant([2, 3])}
    op = SimpleNamespace(op_type="RESHAPE", inputs=["x", "shape"], outputs=["y"], options=options)
    reshape_as_given(_REGISTERED_KERNELS["RESHAPE"])(Executor(), op, env)
    shapes.append(env["y"].shape.as_list())
env = {"x": tf.constant([7])}
op = SimpleNamespace(op_type="RESHAPE", inputs=["x"], outputs=["y"], options={"newShape": []})
reshape_as_given(_REGISTERED_KERNELS["RESHAPE"])(Executor(), op, env)
json.dump([*shapes, env["y"].shape.as_list()], open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def tensorflow():
    """The toolchain; it is only installed where that is asked for: it takes 2.7 GB."""
    if not TOOLCHAIN.is_ready and not os.environ.get("HEADSTART_TOOLCHAINS"):
        pytest.skip("needs TensorFlow (make exports installs it)")


@pytest.mark.exports
@pytest.mark.slow
def test_an_export_is_proven_and_verified(tensorflow, exports):
    folder = exports("savedmodel")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert parity["runtime"]["name"] == "tensorflow"
    assert all(comparison["changed"] == 0 for comparison in parity["proof"]["comparisons"])
    assert set(hash_files(folder)) >= {f"{FOLDER}/saved_model.pb", f"{FOLDER}/variables/variables.index", "labels.txt"}
    assert not verify_export(folder).problems


@pytest.mark.exports
@pytest.mark.slow
def test_a_model_of_several_taps_is_converted(tensorflow, photos, tmp_path):
    options = FitOptions("headstart-m", cut=("stage4", "stage5", "features"), cache=False)
    export = export_model(fit_dataset(open_dataset(photos), options).model, "savedmodel", tmp_path / "export")
    assert export.proof is not None
    assert not export.proof.problems


@pytest.mark.exports
@pytest.mark.slow
def test_a_shape_that_is_given_as_an_input_is_taken(tensorflow, tmp_path):
    program = tmp_path / "reshape.py"
    program.write_text(RESHAPE)
    run_program(TOOLCHAIN, str(program), str(resources.files("headstart.export") / "toolchains"), tmp_path / "shapes")
    assert json.loads((tmp_path / "shapes").read_text()) == [[2, 3], [3, 2], [2, 3], []]


@pytest.mark.exports
@pytest.mark.slow
def test_a_saved_model_that_does_more_than_compute_is_not_loaded(tensorflow, tmp_path):
    program = tmp_path / "write.py"
    program.write_text(WRITE)
    run_program(TOOLCHAIN, str(program), tmp_path)
    pixels = np.full((2, 4, 4, 3), 51, np.uint8)
    worker = Worker(TOOLCHAIN, "answer_savedmodel.py", tmp_path / "computes", 2)
    assert worker(pixels).probabilities == pytest.approx(np.array([[0.2, 0.8]] * 2))
    worker.close()
    for name, said in (("writes", "operation WriteFile"), ("reads", "operation ReadFile"), ("asset", "holds asset")):
        with pytest.raises(ModelError, match=said):
            Worker(TOOLCHAIN, "answer_savedmodel.py", tmp_path / name, 2)(pixels)
    assert not (tmp_path / "written").exists()
