"""A model with thresholds or costs: every export decides as ``predict`` does, and its README says how."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from headstart import Compute, FitOptions, Predictor, fit_dataset, open_dataset
from headstart.export import export_model, to_coreml, to_litert, to_savedmodel
from headstart.images.standalone import preprocess

TOOLCHAINS = {part.TOOLCHAIN.name: part.TOOLCHAIN for part in (to_litert, to_savedmodel, to_coreml)}
SLOW = [pytest.mark.exports, pytest.mark.slow]
# Stands in for coremltools on a Mac: answers by the ONNX graph of an export.
CORE_ML = """
import json, numpy as np, onnxruntime
class MLModel:
    def __init__(self, path):
        self.session = onnxruntime.InferenceSession("../onnx/model.onnx")
        about = self.session.get_modelmeta().custom_metadata_map["headstart"]
        self.user_defined_metadata, self.classes = {"headstart": about}, json.loads(about)["classes"]
    def predict(self, inputs):
        p, distance = self.session.run(["probabilities", "distance"], {"pixels": np.asarray(inputs["pixels"])[None]})
        p = dict(zip(self.classes, p[0].tolist()))
        return {"classLabel": max(p, key=p.get), "classLabel_probs": p, "distance": distance}
class models:
    MLModel = MLModel
"""


@pytest.fixture(scope="module")
def decided(photos):
    """A model that predicts a disc where it is all but certain, an image that it decides against, and its answer."""
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), thresholds={"disc": 0.995})
    model = fit_dataset(open_dataset(photos), options).model
    paths = sorted((photos / "validation" / "disc").iterdir())
    predictions = Predictor(model, Compute("onnxruntime")).predict(list(map(str, paths)))
    is_against = predictions.predicted != predictions.probabilities.argmax(axis=1)
    place = int(np.flatnonzero(is_against)[0])
    return model, paths[place], predictions.probabilities[place]


@pytest.mark.slow
@pytest.mark.parametrize(
    "to",
    [
        "onnx",
        "openvino",
        pytest.param("torch", marks=[pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]),
        *(pytest.param(to, marks=SLOW) for to in ("litert", "savedmodel", "coreml")),
    ],
)
def test_the_program_of_the_readme_prints_the_class_that_is_predicted(decided, tmp_path, to):
    model, path, probabilities = decided
    _skip_without(to)
    export = export_model(model, to, tmp_path / to)
    assert export.problems == ()
    readme = (tmp_path / to / "README.md").read_text("utf-8")
    assert "Decisions follow thresholds: disc 0.995, stripes 0.005: the predicted class is not always" in readme
    shutil.copy(path, tmp_path / to / "new.jpg")
    python = sys.executable
    if to == "coreml":
        export_model(model, "onnx", tmp_path / "onnx")
        (tmp_path / to / "coremltools.py").write_text(CORE_ML, "utf-8")
    elif to in TOOLCHAINS:  # where Pillow is not
        python = TOOLCHAINS[to].interpreter
        np.save(tmp_path / to / "pixels.npy", preprocess(path, **model.preprocess.to_dict()))
        (tmp_path / to / "preprocess.py").write_text(
            "import numpy\n\ndef preprocess(_):\n    return numpy.load('pixels.npy')\n", "utf-8"
        )
    program = readme.partition("```python\n")[2].partition("```")[0]
    ran = subprocess.run([python, "-c", program], cwd=tmp_path / to, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    name, probability, _ = ran.stdout.split()
    assert (name, probabilities.argmax()) == ("stripes", 0)
    assert float(probability) == pytest.approx(probabilities[1], abs=1e-4)


def _skip_without(to):
    if to in TOOLCHAINS and not TOOLCHAINS[to].is_ready and not os.environ.get("HEADSTART_TOOLCHAINS"):
        pytest.skip("needs a converter (make exports installs it)")
    if to in ("openvino", "torch"):
        pytest.importorskip(to, reason=f"needs the extra {to}")
