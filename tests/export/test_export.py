"""``headstart export``: what is written, what is proven, and what is refused."""

import json

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from headstart import Compute, Predictor
from headstart.cli import app
from headstart.data import open_dataset
from headstart.errors import OptionError, VerifyError
from headstart.export import ExportOptions, export_model
from headstart.export.graphs import runner
from headstart.features.runtime import Graph, RuntimeInfo
from headstart.model.folder import read_model


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def model(model_folder):
    return read_model(model_folder)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_export_is_proven_on_golden_low_margin_files_and_the_recorded_data(exports, photos, to):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    parity = json.loads((exports(to) / "parity.json").read_text("utf-8"))
    kinds = {part["of"]: part for part in parity["proof"]["comparisons"]}
    assert {name: part["images"] for name, part in kinds.items()} == {
        "golden images": 8,
        "low-margin images": 8,
        "image files": 20,
    }
    for part in (*kinds.values(), parity["data"]):
        assert part["score"] < 0.001
        assert part["changed"] == 0
    assert parity["data"]["images"] == 12  # the validation images, found again by the hashes of the training images
    assert parity["problems"] == []
    assert parity["runtime"]["name"] == ("onnxruntime" if to == "onnx" else "openvino")
    assert str(photos) not in json.dumps(parity)
    assert set(parity["files"]) >= {"README.md", "preprocess.py", "proof/expected.npz", "proof/exif_6.jpg"}


@pytest.mark.parametrize(("batch", "sizes"), [(None, [8, 8, 5]), (4, [4] * 6)])
def test_a_graph_is_run_on_as_many_images_as_its_memory_was_checked_for(batch, sizes):
    found = []

    def call(images):
        found.append(len(images))
        values = images[:, 0, 0, 0].astype(np.float32)
        return [np.stack([values, 1 - values], axis=1), values[:, np.newaxis] * 2]

    graph = Graph(RuntimeInfo("none", "0", "fp32"), ("probabilities", "distance"), 1, call)
    answers = runner(graph, batch)(np.arange(21, dtype=np.uint8).reshape(21, 1, 1, 1))
    assert found == sizes
    assert answers.probabilities.tolist() == [[i, 1 - i] for i in range(21)]
    assert answers.ood_scores.tolist() == [2 * i for i in range(21)]


def test_low_margin_images_have_a_low_margin(exports, model):
    from headstart.export.about import read_parity
    from headstart.export.proof_set import read_proof_set

    folder = exports("onnx")
    proof = read_proof_set(folder, read_parity(folder)[0])
    session = onnxruntime.InferenceSession(model.graph)
    probabilities = session.run(["probabilities"], {"pixels": proof.pixels})[0]
    margin = np.abs(np.log(probabilities[:, 0] / probabilities[:, 1]))
    assert ((margin > 0.04) & (margin < 0.51)).all()
    assert len(proof.skewed) >= 15


def test_an_export_of_any_size_takes_decoded_images(exports, model_folder, photos):
    session = onnxruntime.InferenceSession(exports("onnx", any_size=True) / "model.onnx")
    dataset = open_dataset(photos).split("validation")
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict(dataset).probabilities
    from headstart.images.decoding import decode

    images = [decode(dataset.read(i))[None] for i in range(len(dataset))]
    found = [session.run(["probabilities"], {"pixels": image})[0][0] for image in images]
    assert np.abs(np.array(found) - expected).max() < 0.025
    assert (np.argmax(found, axis=1) == expected.argmax(axis=1)).all()


def test_the_command_names_its_folder_and_prints_what_was_proven(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(model_folder, "--to", "onnx")
    assert result.exit_code == 0, result.output
    assert "Export      model-onnx (onnx, fp32" in result.stdout
    assert "Image files        20 images: largest difference 0 in a probability" in result.stdout
    assert "Recount     12 images: " in result.stdout
    assert run(model_folder, "--to", "onnx", "--json").exit_code == 0  # its own export is replaced
    (tmp_path / "model-onnx" / "notes.txt").write_text("mine")
    result = run(model_folder, "--to", "onnx")
    assert (result.exit_code, "notes.txt, which Headstart did not write" in result.stderr) == (2, True)
    assert (tmp_path / "model-onnx" / "notes.txt").read_text() == "mine"


def test_what_cannot_be_exported_is_an_error(model_folder, photos, tmp_path):
    for arguments, text in (
        (("--to", "tflite3"), "Unknown format 'tflite3'; choose one of onnx, openvino, litert, "),
        (("--to", "onnx", "--precision", "fp16"), "--to onnx has no fp16; choose fp32 or int8"),
        (("--to", "onnx", "-o", photos), "holds files that are not an export"),
        (("--to", "onnx", "--data", tmp_path / "none"), "none"),
    ):
        result = run(model_folder, *arguments)
        assert result.exit_code == 2
        assert text in result.stderr


def test_fewer_bits_are_counted_again(exports):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    parity = json.loads((exports("openvino", precision="fp16") / "parity.json").read_text("utf-8"))
    assert parity["recount"]["images"] == 12
    assert parity["recount"]["correct"]["before"] - parity["recount"]["correct"]["after"] <= 1
    assert parity["proof"]["tolerances"]["graph"]["probability"] == 0.025
    sizes = [(exports("openvino", precision=p) / "model.bin").stat().st_size for p in ("fp16", "fp32")]
    assert sizes[0] <= sizes[1]


def test_fewer_bits_without_images_to_count_on_are_refused(model, tmp_path):
    from dataclasses import replace

    elsewhere = replace(model, run={**model.run, "data": {"uri": str(tmp_path / "gone")}})
    options = ExportOptions("int8")
    with pytest.raises(VerifyError, match="what int8 costs was not counted, for want of labelled images"):
        export_model(elsewhere, "onnx", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    forced = export_model(elsewhere, "onnx", tmp_path / "out", options, force=True)
    assert "was not counted" in forced.problems[0]
    assert any("the data that the model was fitted to are not here" in note for note in forced.notes)


def test_other_training_images_at_the_recorded_place_do_not_count(model, photos, tmp_path):
    import shutil

    from headstart.export.recount import recorded_data

    assert recorded_data(model)[0] is not None
    changed = shutil.copytree(photos, tmp_path / "photos")
    next((changed / "train" / "disc").glob("*.jpg")).unlink()
    from dataclasses import replace

    other = replace(model, run={**model.run, "data": {"uri": str(changed)}})
    assert recorded_data(other) == (None, f"1 of 28 training images are not in {changed} any more")


def test_validation_images_that_were_a_share_are_those_not_trained_on(model, photos, tmp_path):
    """They had been counted with the images that it was trained on."""
    from dataclasses import replace

    from headstart.export.recount import recorded_data

    for path in photos.glob("*/*/*.jpg"):
        target = tmp_path / "all" / path.parent.name / f"{path.parts[-3]}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    data, why = recorded_data(replace(model, run={**model.run, "data": {"uri": str(tmp_path / "all")}}))
    assert why == ""
    assert len(data) == 12
    assert all("validation-" in item.path for item in data.items)
    without = {**model.run, "data": {"uri": str(tmp_path / "all")}, "images": {**model.run["images"], "validation": 0}}
    assert len(recorded_data(replace(model, run=without))[0]) == 40  # not the few that were added since


def test_an_export_with_fewer_bits_that_loses_answers_is_refused(model):
    from headstart.export.recount import Recount

    kept = Recount(200, 0, (190, 188), (195, 193), (5, 7))
    lost = Recount(200, 0, (190, 187), (195, 190), (5, 9))
    assert (kept.allowed, kept.problems) == (2, [])
    assert [text.split(" of ")[0] for text in lost.problems] == ["3", "5", "4"]


def test_a_model_in_int8_stays_int8(model):
    from dataclasses import replace

    from headstart.export.formats import check_options
    from headstart.export.registry import FORMATS
    from headstart.export.to_onnx import ONNX

    quantised = replace(model, backbone={**model.backbone, "precision": "int8"})
    assert check_options(ONNX, quantised, ExportOptions()) == "int8"
    with pytest.raises(OptionError, match="int8 already"):
        check_options(ONNX, quantised, ExportOptions("fp32"))
    with pytest.raises(OptionError, match="batches of 4 images only"):
        check_options(ONNX, replace(model, batch=4), ExportOptions(any_size=True))
    with pytest.raises(OptionError, match="--to hub takes one image"):
        check_options(FORMATS["hub"], replace(model, batch=4), ExportOptions())


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino", "hub"])
def test_a_model_with_thresholds_is_exported_with_its_decisions(photos, tmp_path, to):
    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    from headstart import FitOptions, fit_dataset

    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), thresholds={"disc": 0.9})
    result = fit_dataset(open_dataset(photos), options)
    export = export_model(result.model, to, tmp_path / "out")
    assert export.parity["about"]["decision"] == result.model.rule.to_dict()
    assert export.problems == ()
    from headstart.export import verify_export

    assert verify_export(tmp_path / "out").about.rule.to_dict() == result.model.rule.to_dict()
    if to == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
        assert [output.name for output in session.get_outputs()] == ["probabilities", "distance", "decision"]


def test_openvino_carries_labels_for_model_api(exports):
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    network = openvino.Core().read_model(exports("openvino") / "model.xml")
    assert network.get_rt_info(["model_info", "labels"]).value == "disc stripes"
    assert network.get_rt_info(["model_info", "model_type"]).value == "Classification"
    assert json.loads(network.get_rt_info(["headstart"]).value)["classes"] == ["disc", "stripes"]


@pytest.mark.parametrize("file", ["onnx/model.onnx", "openvino/model.xml"])
def test_model_api_takes_the_export_unchanged(exports, model_folder, photos, file):
    """Its own preprocessing is a no-op for an export of any size, which it gives the decoded image as it is.

    OpenVINO computes in bf16 here where the processor has it, since Model API asks for nothing else.
    """
    models = pytest.importorskip("model_api.models", reason="needs openvino-model-api, in an environment of its own")
    from headstart.images.decoding import decode

    to, name = file.split("/")
    dataset = open_dataset(photos).split("validation")
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict(dataset)
    classifier = models.Model.create_model(str(exports(to, any_size=True) / name))
    for i in range(len(dataset)):
        result = classifier(decode(dataset.read(i)))
        assert result.top_labels[0].name == expected.classes[expected.predicted[i]]
        assert np.abs(np.array(result.raw_scores).reshape(-1) - expected.probabilities[i]).max() < 0.05
