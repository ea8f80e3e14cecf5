"""Exports of a model of several labels an image: probabilities of each by itself, and decisions by its threshold."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.browser import start
from helpers.frameworks import marked
from helpers.labels import write_labelled
from helpers.servers import serving_folder
from onnx import helper, numpy_helper
from scipy.special import expit, logit
from typer.testing import CliRunner

from headstart import Compute, FitOptions, Predictor, fit_multi_label
from headstart.cli import app
from headstart.data import open_dataset
from headstart.errors import ModelError, OptionError, VerifyError
from headstart.export import ExportOptions, export_model, verify_export
from headstart.export.about import About, read_parity
from headstart.export.answers import Answers, compare, scores_of
from headstart.export.browser import find_chromium
from headstart.export.proof_set import read_proof_set
from headstart.export.recount import Recount
from headstart.export.to_coreml import FILE as PACKAGE
from headstart.export.to_coreml import SCRIPT
from headstart.export.to_coreml import TOOLCHAIN as COREML
from headstart.export.to_litert import TOOLCHAIN as LITERT
from headstart.export.to_savedmodel import TOOLCHAIN as SAVEDMODEL
from headstart.export.toolchain import run_program
from headstart.images.standalone import preprocess
from headstart.stats.label_thresholds import LabelThresholds

LABELS = ("disc", "square", "stripes")
THRESHOLDS = (0.3, 0.5, 0.6)


@pytest.fixture
def copied(label_exports, tmp_path):
    """A function that returns a copy of an export, to be changed."""
    return lambda to, **options: shutil.copytree(label_exports(to, **options), tmp_path / f"copy-of-{to}")


@pytest.fixture
def about(label_model):
    return About.of(label_model, "onnx", "fp32", any_size=False, scales=True)


def validation_files(labelled):
    return sorted(labelled.parent.glob("validation_*.png"))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_export_is_proven_and_verified_by_label(label_exports, to):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    folder = label_exports(to)
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert parity["format"] == 2  # earlier versions would read it as an export of one class an image
    assert parity["about"]["label_thresholds"]["thresholds"] == list(THRESHOLDS)
    assert {part["of"]: part["images"] for part in parity["proof"]["comparisons"]} == {
        "golden images": 8,
        "low-margin images": 6,
        "image files": 20,
    }
    for part in (*parity["proof"]["comparisons"], parity["data"]):
        assert (part["score"] < 0.001, part["changed"]) == (True, 0)
        assert {name: label["changed"] for name, label in part["labels"].items()} == dict.fromkeys(LABELS, 0)
        assert max(label["score"] for label in part["labels"].values()) == part["score"]
    assert parity["data"]["images"] == 30  # the validation images, found again by the hashes of the training images
    found = verify_export(folder)
    assert found.problems == ()
    assert found.about.label_thresholds.thresholds == THRESHOLDS


def test_low_margin_images_are_near_to_the_threshold_of_each_label(label_exports):
    folder = label_exports("onnx")
    proof = read_proof_set(folder, read_parity(folder)[0])
    away = np.abs(logit(proof.pixels_answers.probabilities) - logit(THRESHOLDS))
    assert away.min() > 0.049  # none is so near that rounding changes it
    assert ((away < 0.51).sum(axis=0) >= 2).all()


def test_decisions_of_the_exported_graph_are_those_of_predict(label_exports, label_model, labelled):
    session = onnxruntime.InferenceSession(label_exports("onnx") / "model.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    files = validation_files(labelled)
    pixels = np.stack([preprocess(path, **about["preprocess"]) for path in files])
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
    expected = Predictor(label_model, Compute("onnxruntime")).predict(files)
    assert (probabilities >= about["label_thresholds"]["thresholds"]).tolist() == expected.decisions.tolist()
    assert 0 < expected.decisions.sum() < expected.decisions.size
    assert expit(logits) == pytest.approx(probabilities, abs=1e-6)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_model_api_finds_scores_first_and_the_lowest_threshold(label_exports, to):
    """It takes a sigmoid of the first output, and says that a label holds above one threshold for all."""
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    file = label_exports(to) / ("model.onnx" if to == "onnx" else "model.xml")
    network = openvino.Core().read_model(file)
    assert [output.get_any_name() for output in network.outputs] == ["logits", "probabilities", "distance"]
    info = {"multilabel": "True", "confidence_threshold": "0.3", "labels": " ".join(LABELS), "resize_type": "crop"}
    if to == "onnx":
        texts = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
        assert {name: texts[f"model_info {name}"] for name in info} == info
    else:
        assert {name: network.get_rt_info(["model_info", name]).value for name in info} == info
        own = json.loads(network.get_rt_info(["headstart"]).value)
        assert own["label_thresholds"]["thresholds"] == list(THRESHOLDS)


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """The table of images without noise, and a model of them: a level of a pixel must not move it far."""
    folder = tmp_path_factory.mktemp("smooth")
    rows = write_labelled(folder, 80, noise=0.5) + write_labelled(folder, 30, 1, "validation", noise=0.5)
    (folder / "labels.csv").write_text("\n".join(["path,labels,split", *rows]), "utf-8")
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, group_by="none")
    model = fit_multi_label(open_dataset(folder / "labels.csv"), options).model
    return folder / "labels.csv", replace(model, label_thresholds=LabelThresholds(THRESHOLDS, (False,) * 3))


@pytest.mark.slow
def test_a_graph_of_any_size_says_the_same(smooth, tmp_path):
    labelled, model = smooth
    folder = tmp_path / "out"
    export_model(model, "onnx", folder, ExportOptions(any_size=True))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    from headstart.images.decoding import decode

    files = validation_files(labelled)
    found = [session.run(["probabilities"], {"pixels": decode(file.read_bytes())[None]})[0][0] for file in files]
    expected = Predictor(model, Compute("onnxruntime")).predict(files).probabilities
    assert np.abs(np.array(found) - expected).max() < 0.025


def test_fewer_bits_are_counted_by_image(label_exports):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    counts = json.loads((label_exports("openvino", precision="fp16") / "parity.json").read_text("utf-8"))["recount"]
    assert counts["images"] == 30
    assert counts["training"] == 0
    assert counts["correct"]["before"] > 20
    lost = Recount(200, 0, (190, 187), (195, 190), (5, 9), several_labels=True).problems
    assert lost[0] == "3 of 200 images with every label right are lost, 2 may be"
    assert lost[1] == "5 of 200 prediction sets with all labels that hold are lost, 2 may be"


def test_a_count_is_that_of_evaluate(label_model, label_exports, labelled):
    evaluation = Predictor(label_model, Compute("onnxruntime")).evaluate(open_dataset(labelled))
    counts = json.loads((label_exports("onnx") / "parity.json").read_text("utf-8"))["recount"]
    truth, sets = evaluation.predictions.label_truth, evaluation.predictions.sets
    exact = (evaluation.predictions.decisions == truth).all(axis=1).sum()
    assert counts["correct"] == {"before": exact, "after": exact}
    assert counts["covered"]["before"] == (sets | ~truth).all(axis=1).sum()
    assert counts["rejected"]["before"] == evaluation.false_rejections.correct


def test_data_of_any_kind_prove_an_export(label_model_folder, labelled, photos, tmp_path):
    def run(data, output):
        arguments = ("export", label_model_folder, "--to", "onnx", "--data", data, "-o", tmp_path / output, "--json")
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    single = tmp_path / "single.csv"  # no image of it has several labels: the model says how it is read
    files = [shutil.copy(file, tmp_path) for file in validation_files(labelled)[:3]]
    single.write_text("path,labels\n" + "".join(f"{Path(file).name},disc\n" for file in files), "utf-8")
    assert run(single, "a")["recount"]["images"] == 3
    found = run(photos, "b")  # classes that are none of its labels are passed over
    assert found["data"]["images"] == 12
    assert found["recount"] is None


def test_the_hub_is_refused_with_the_reason(label_model, tmp_path):
    with pytest.raises(OptionError, match=r"transformers\.js takes a softmax of the scores of every image classifier"):
        export_model(label_model, "hub", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change(folder, *nodes, constants=(), rename="right"):
    """Put ``nodes``, from the tensor ``rename`` to "probabilities", behind the sigmoid of an exported graph."""
    model = onnx.load(folder / "model.onnx")
    for entry in model.graph.node:
        for i, name in enumerate(entry.output):
            entry.output[i] = rename if name == "probabilities" else name
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in dict(constants).items())
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def softmax(folder):
    change(folder, helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))


def other_order(folder):
    order = {"order": np.array([1, 0, 2])}
    change(folder, helper.make_node("Gather", ["right", "order"], ["probabilities"], axis=1), constants=order)


def sigmoid_twice(folder):
    change(folder, helper.make_node("Sigmoid", ["right"], ["probabilities"]))


def one_label_off(folder):
    shift = {"shift": np.array([0, 0, 0.2], np.float32)}
    nodes = (
        helper.make_node("Add", ["logits", "shift"], ["off"]),
        helper.make_node("Sigmoid", ["off"], ["probabilities"]),
    )
    change(folder, *nodes, constants=shift)


SKEWS = {
    "softmax": (softmax, "it looks as if a softmax is taken where a sigmoid is right"),
    "other order": (other_order, "it looks as if the labels are in another order"),
    "sigmoid twice": (sigmoid_twice, "images get other labels (disc, square"),
    "one label off": (one_label_off, "stripes), a score before the sigmoid differs by 0.2"),
}


@pytest.mark.parametrize("name", SKEWS)
def test_a_planted_skew_is_named_and_fails(copied, name):
    plant, text = SKEWS[name]
    folder = copied("onnx")
    plant(folder)
    result = verify_export(folder)
    low_margin = next(problem for problem in result.problems if problem.startswith("low-margin images"))
    assert text in low_margin, low_margin
    if name == "one label off":
        (part, _) = result.proof.comparisons
        assert part.labels["disc"]["score"] < 1e-6
        assert part.labels["stripes"]["score"] == pytest.approx(0.2, abs=1e-3)
        assert (part.labels["stripes"]["changed"] > 0) == ("images get other labels (stripes)" in low_margin)


def test_an_export_that_is_skewed_is_not_written(label_model, tmp_path, monkeypatch):
    from headstart.export import registry
    from headstart.export.to_onnx import write

    def skewed(graph, about, model, options, folder):
        write(graph, about, model, options, folder)
        softmax(folder)

    monkeypatch.setitem(registry.FORMATS, "onnx", replace(registry.FORMATS["onnx"], write=skewed))
    with pytest.raises(VerifyError, match="it looks as if a softmax is taken where a sigmoid is right"):
        export_model(label_model, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda parity: parity.update(format=1),
        lambda parity: parity["about"].pop("label_thresholds"),
        lambda parity: parity["about"].update(label_thresholds={}),
        lambda parity: parity["about"]["label_thresholds"].update(thresholds=[0.5]),
        lambda parity: parity["about"]["label_thresholds"].update(thresholds=[0.5, 2, 0.5]),
        lambda parity: parity["about"]["label_thresholds"].update(thresholds=["0.5", None, 1]),
        lambda parity: parity["about"].update(classes=[]),
    ],
)
def test_a_hostile_description_is_one_error(copied, change):
    folder = copied("onnx")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    change(parity)
    (folder / "parity.json").write_text(json.dumps(parity))
    with pytest.raises(ModelError):
        verify_export(folder)


def test_scores_are_those_before_the_sigmoid_as_far_as_float32_has_them(about):
    scores = np.linspace(-30, 30, 601)
    probabilities = expit(scores).astype(np.float32).astype(np.float64)[:, None] * np.ones(3)
    found = scores_of(probabilities, about)[:, 0]
    assert found == pytest.approx(np.clip(scores, -9, 9), abs=1e-3)


def test_a_comparison_says_which_label_is_off(about):
    expected = Answers(np.array([[0.29, 0.6, 0.9], [0.31, 0.4, 0.1]]), np.zeros(2))
    found = Answers(np.array([[0.29, 0.6, 0.59], [0.31, 0.4, 0.1]]), np.zeros(2))
    comparison = compare("data", ["a", "b"], expected, found, about)
    assert (comparison.changed, comparison.worst) == (1, "a, stripes")
    assert comparison.labels["stripes"] == {
        "probability": pytest.approx(0.31),
        "score": pytest.approx(logit(0.9) - logit(0.59)),
        "changed": 1,
    }
    assert comparison.labels["disc"] == {"probability": 0, "score": 0, "changed": 0}


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_program_of_the_readme_prints_every_label(label_exports, labelled, tmp_path, to):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    folder = shutil.copytree(label_exports(to), tmp_path / to)
    file = validation_files(labelled)[0]
    shutil.copy(file, folder / "new.jpg")
    readme = (folder / "README.md").read_text("utf-8")
    assert "It says which of 3 labels an image has, any number or none: disc, square, stripes." in readme
    assert "A label holds from its probability on, of each by itself: disc 0.3, square 0.5, stripes 0.6." in readme
    program = readme.partition("```python\n")[2].partition("```")[0]
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split()[0] for line in found[:3]] == list(LABELS)
    parity = read_parity(folder)[0]
    for line, threshold in zip(found[:3], parity.label_thresholds.thresholds, strict=True):
        assert line.endswith("holds") == (float(line.split()[1]) >= threshold)


@pytest.fixture(scope="module")
def page(smooth, runtime_folder, tmp_path_factory):
    """The folder of a page, proven in Chromium. Read only."""
    try:
        find_chromium()
    except ImportError:
        pytest.skip("needs a browser: apt-get install chromium")
    folder = tmp_path_factory.mktemp("web") / "page"
    export_model(smooth[1], "web", folder, ExportOptions(runtime_folder=runtime_folder))
    return folder


@pytest.mark.slow
def test_a_page_is_proven_and_other_thresholds_are_found(page, tmp_path):
    parity = json.loads((page / "parity.json").read_text("utf-8"))
    golden, low_margin, files = parity["proof"]["comparisons"]
    assert (golden["changed"], low_margin["changed"], files["images"]) == (0, 0, 19)
    assert low_margin["images"] >= 4
    folder = shutil.copytree(page, tmp_path / "page")
    assert verify_export(folder).problems == ()
    about = json.loads((folder / "about.json").read_text("utf-8"))
    about["label_thresholds"]["thresholds"][0] = 0.9
    (folder / "about.json").write_text(json.dumps(about), "utf-8")
    assert "about.json decides by other thresholds than the export was made with" in verify_export(folder).problems


@pytest.mark.slow
def test_a_visitor_sees_every_label_and_which_hold(page, smooth, tmp_path):
    browser = start(tmp_path / "p")
    from selenium.webdriver.support.ui import WebDriverWait

    files = validation_files(smooth[0])[:6]
    expected = Predictor(smooth[1], Compute("onnxruntime")).predict(files)
    with browser, serving_folder(page) as address:
        browser.get(address)
        wait = WebDriverWait(browser, 120)
        wait.until(lambda b: b.find_element("id", "file").is_enabled())
        assert browser.title == browser.find_element("css selector", "h1").text == "Which labels does it have?"
        browser.find_element("id", "file").send_keys("\n".join(map(str, files)))
        wait.until(lambda b: len(b.find_elements("css selector", "#results .answer")) == len(files))
        for i, card in enumerate(reversed(browser.find_elements("css selector", "#results > li"))):
            assert [chip.text for chip in card.find_elements("css selector", ".chips strong")] == expected.names(i)
            assert expected.names(i) or "no label" in card.text
            rows = card.find_elements("css selector", ".answer ol li")
            assert [row.find_element("css selector", "span").text for row in rows] == [
                LABELS[c] for c in expected.ranking(i)
            ]
            for row, c in zip(rows, expected.ranking(i), strict=True):
                assert f"from {THRESHOLDS[c]:.0%} on" in row.text
                assert ("does not hold" in row.text) == (not expected.decisions[i, c])
                shown = float(row.find_elements("css selector", "span")[1].text.rstrip("%")) / 100
                assert shown == pytest.approx(expected.probabilities[i, c], abs=0.02)


@marked("torch")
def test_pytorch_answers_the_same(label_exports):
    folder = label_exports("torch")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert all(part["changed"] == 0 and part["score"] < 0.01 for part in parity["proof"]["comparisons"])
    assert verify_export(folder).problems == ()
    assert 'about["label_thresholds"]["thresholds"]' in (folder / "README.md").read_text("utf-8")


def needs_toolchain(toolchain):
    """Skip the calling test where the converter is not here, unless it is asked for."""
    if not toolchain.is_ready and not os.environ.get("HEADSTART_TOOLCHAINS"):
        pytest.skip(f"needs the converter of {toolchain.name} (make exports installs it)")


@pytest.mark.exports
@pytest.mark.slow
@pytest.mark.parametrize("toolchain", [LITERT, SAVEDMODEL], ids=lambda toolchain: toolchain.name)
def test_tensorflow_and_litert_answer_the_same(label_exports, toolchain):
    needs_toolchain(toolchain)
    folder = label_exports(toolchain.name)
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert all(part["changed"] == 0 and part["score"] < 0.01 for part in parity["proof"]["comparisons"])
    assert verify_export(folder).problems == ()
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == list(LABELS)
    assert tuple(map(float, (folder / "thresholds.txt").read_text("utf-8").split())) == THRESHOLDS
    assert "thresholds.txt" in (folder / "README.md").read_text("utf-8")


# A program of the toolchain, so that Apple's own reader says what is in the package.
READ = """
import json, sys
import coremltools
spec = coremltools.models.MLModel(sys.argv[1], skip_model_load=True).get_spec()
json.dump({
    "outputs": {output.name: output.type.WhichOneof("Type") for output in spec.description.output},
    "predicted": spec.description.predictedFeatureName,
    "metadata": dict(spec.description.metadata.userDefined),
}, open(sys.argv[2], "w"))
"""


@pytest.mark.exports
@pytest.mark.slow
def test_core_ml_gives_an_array_with_labels_and_thresholds_beside_it(label_exports, copied, tmp_path):
    needs_toolchain(COREML)
    folder = label_exports("coreml")
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert all(part["changed"] == 0 and part["score"] < 0.01 for part in parity["proof"]["comparisons"])
    assert verify_export(folder).problems == ()
    program = tmp_path / "read.py"
    program.write_text(READ)
    run_program(COREML, str(program), folder / PACKAGE, tmp_path / "read.json")
    found = json.loads((tmp_path / "read.json").read_text())
    assert found["outputs"] == {"probabilities": "multiArrayType", "distance": "multiArrayType"}
    assert found["predicted"] == ""  # no classifier, which would name one class
    assert json.loads(found["metadata"]["labels"]) == list(LABELS)
    assert json.loads(found["metadata"]["headstart"])["label_thresholds"]["thresholds"] == list(THRESHOLDS)
    renamed = copied("coreml")
    parity["about"]["classes"] = ["square", "disc", "stripes"]
    (renamed / "parity.json").write_text(json.dumps(parity))
    with pytest.raises(ModelError, match="has the labels"):
        verify_export(renamed)


# Stands in for coremltools on a Mac: answers by the ONNX graph, the last label more probable by OFF.
STAND_IN = """
import numpy as np, onnxruntime
class ComputeUnit:
    CPU_ONLY = 1
class MLModel:
    def __init__(self, path, compute_units):
        self.session = onnxruntime.InferenceSession("model.onnx")
    def predict(self, inputs):
        values = self.session.run(["probabilities", "distance"], {"pixels": np.asarray(inputs["pixels"])[None]})
        return {"probabilities": values[0] + np.float32([0, 0, OFF]), "distance": values[1]}
class models:
    MLModel = MLModel
"""


@pytest.mark.parametrize(("off", "status"), [(0.0, 0), (0.01, 1)])
def test_the_script_for_a_mac_compares_labels(copied, off, status):
    from importlib import resources

    folder = copied("onnx")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / SCRIPT).write_bytes((resources.files("headstart.export") / "toolchains" / SCRIPT).read_bytes())
    (folder / "coremltools.py").write_text(STAND_IN.replace("OFF", str(off)))
    completed = subprocess.run([sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == status, completed.stderr
    assert "low-margin images: 6, largest difference " in completed.stdout


def test_a_threshold_of_one_and_of_nought_can_be_exported(label_model, tmp_path):
    """A label that always holds, and one that never does, have no image near to their thresholds."""
    thresholds = LabelThresholds((0.0, 0.5, 1.0), (False, False, False))
    export = export_model(replace(label_model, label_thresholds=thresholds), "onnx", tmp_path / "out")
    assert export.problems == ()
    assert verify_export(tmp_path / "out").problems == ()
