"""``Predictor``: predictions, evaluation, and the modules that it imports."""

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.data import from_images, open_dataset
from headstart.errors import DataError, HeadstartError
from headstart.features import Compute
from headstart.features.extractor import load_backbone_graph
from headstart.model import Predictor
from headstart.model.predictor import PART, _part_ends, labelled_part

ONNXRUNTIME = Compute("onnxruntime")


@pytest.fixture
def predictor(model_folder):
    return Predictor.load(model_folder, ONNXRUNTIME)


def test_serving_imports_no_fitting_code(model_folder, photos):
    """No fitting code, no SciPy and no scikit-learn is imported, nor needed, to predict, evaluate and verify."""
    code = f"""
import sys
sys.modules["scipy"] = sys.modules["sklearn"] = None  # as where they are not installed
from headstart.model import Predictor
def imported():
    parts = ("classifier", "finetune", "report", "compare", "check", "heads.selection", "heads.candidates", "cli")
    return [name for name in sys.modules if name.startswith(tuple(f"headstart.{{part}}" for part in parts))]
assert not imported(), imported()
predictor = Predictor.load({str(model_folder)!r})
evaluation = predictor.evaluate({str(photos)!r})
predictor.verify()
assert not imported(), imported()
print(evaluation.accuracy.count)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout.strip()) == (0, "12"), completed.stderr


def test_predictions_name_images_sets_scores_and_what_cannot_be_read(predictor, photos, tmp_path):
    files = sorted((photos / "validation").rglob("*.jpg"))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>404</html>")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    predictions = predictor.predict([*files, bad, noise])
    assert predictions.paths == (*map(str, files), "image 13")
    assert [image.path for image in predictions.quarantined] == [str(bad)]
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(predictions.sets, predictions.thresholds.sets(predictions.probabilities))
    scores = predictions.ood_scores
    np.testing.assert_array_equal(predictions.is_rejected, scores > predictions.thresholds.reject_threshold)
    assert scores[-1] > scores[:-1].max()
    assert predictions.truth is None


def test_true_classes_are_known_where_all_images_have_labels(predictor, photos):
    predictions = predictor.predict(open_dataset(photos).split("validation"))
    assert predictions.truth.tolist() == [0] * 6 + [1] * 6
    assert predictions.unknown_classes == ()


def test_predictions_do_not_depend_on_the_other_images_of_a_batch(predictor, photos):
    files = sorted((photos / "validation").rglob("*.jpg"))
    together = predictor.predict(files).probabilities
    alone = np.concatenate([predictor.predict([file]).probabilities for file in files])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_an_evaluation_is_on_the_validation_split_else_test_else_all(photos, tmp_path):
    assert {item.split for item in labelled_part(open_dataset(photos)).items} == {"validation"}
    shutil.copytree(photos / "validation", tmp_path / "d" / "test")
    shutil.copytree(photos / "train", tmp_path / "d" / "train")
    assert {item.split for item in labelled_part(open_dataset(tmp_path / "d")).items} == {"test"}
    assert len(labelled_part(open_dataset(photos / "validation"))) == 12


def test_an_evaluation_without_labels_or_readable_images_is_an_error(predictor, photos, tmp_path):
    with pytest.raises(DataError, match="no labels"):
        predictor.evaluate(photos / "train" / "disc")
    with pytest.raises(DataError, match="None of the 1 images"):
        predictor.evaluate(from_images([str(tmp_path / "missing.jpg")], ["disc"]))


def test_images_of_unknown_classes_count_as_wrong(predictor, photos):
    files = sorted((photos / "validation").rglob("*.jpg"))
    labels = ["zebra" if file.parent.name == "disc" else file.parent.name for file in files]
    evaluation = predictor.evaluate(from_images(files, labels))
    assert evaluation.predictions.unknown_classes == ("zebra",)
    assert evaluation.accuracy.correct <= 6
    assert evaluation.confusion.sum() == 6
    by_name = {metrics.name: metrics for metrics in evaluation.metrics.per_class}
    assert (by_name["zebra"].recall, by_name["zebra"].support, by_name["disc"].support) == (0, 6, 0)
    assert evaluation.ood_recall.count == 6


def test_a_graph_without_a_required_output_is_an_error(model_folder, photos, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    graph = onnx.load(folder / "model.onnx")
    graph.graph.output.pop()
    data = graph.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["sha256"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(HeadstartError, match="no output distance"):
        Predictor.load(folder).predict(sorted((photos / "validation").rglob("*.jpg")))


def test_a_process_that_was_forked_loads_the_graph_itself(predictor, photos, monkeypatch):
    """With that of its parent OpenVINO waits for ever for threads that only the parent has."""
    files = sorted((photos / "validation").rglob("*.jpg"))
    loaded = []

    def load(*arguments):
        loaded.append(os.getpid())
        return load_backbone_graph(*arguments)

    monkeypatch.setattr("headstart.model.predictor.load_backbone_graph", load)
    parent = os.getpid()
    expected = predictor.predict(files).probabilities
    predictor.predict(files)
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in the child
    np.testing.assert_array_equal(predictor.predict(files).probabilities, expected)
    predictor.predict(files)
    assert loaded == [parent, -1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of what is tested
def test_a_classifier_that_has_predicted_can_be_used_behind_a_fork(model_folder, photos):
    pytest.importorskip("openvino")
    files = sorted(photos.rglob("*.jpg"))
    predictor = Predictor.load(model_folder, Compute("openvino"))
    expected = predictor.predict(files).probabilities
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: send.send(predictor.predict(files).probabilities), daemon=True
    )
    process.start()
    try:
        assert receive.poll(300), "the child waits for ever"
        np.testing.assert_array_equal(receive.recv(), expected)
    finally:
        process.kill()
        process.join()


def test_arrays_bytes_and_paths_get_the_same_predictions(predictor, photos):
    files = sorted((photos / "validation").rglob("*.jpg"))
    expected = predictor.predict(files).probabilities
    of_bytes = predictor.predict([file.read_bytes() for file in files]).probabilities
    of_arrays = predictor.predict([np.asarray(Image.open(file).convert("RGB")) for file in files]).probabilities
    np.testing.assert_allclose(of_bytes, expected, atol=1e-6)
    np.testing.assert_allclose(of_arrays, expected, atol=0.02)  # two JPEG decoders


def test_parts_have_the_predictions_of_the_whole_and_come_while_the_rest_is_not_read(predictor, photos):
    paths = [*map(str, sorted((photos / "train").rglob("*.jpg"))), str(photos / "missing.jpg")]
    read = []

    def reader(key):
        read.append(key)
        return dataset.reader(key)

    dataset = from_images(paths)
    whole = predictor.predict_dataset(dataset)
    predictor = Predictor(predictor.model, Compute("onnxruntime", workers=1))
    parts = predictor.predict_in_parts(replace(dataset, reader=reader), start=3)
    part, first = next(parts)
    assert sorted(read) == [3, 4, 5, 6, 7]  # a batch of eight begins with image 0
    assert first.paths == tuple(item.path for item in part.items) == tuple(paths[3:8])
    ((rest, last),) = parts
    assert len(rest) == len(paths) - 8
    assert [image.path for image in last.quarantined] == [paths[-1]]
    assert np.allclose(np.concatenate([first.probabilities, last.probabilities]), whole.probabilities[3:], atol=1e-3)
    assert last.rows.tolist() == [*range(len(paths) - 9)]
    assert list(predictor.predict_in_parts(dataset, start=len(dataset))) == []


def test_a_note_about_images_of_several_parts_is_said_once_with_their_number(predictor, tmp_path):
    for i in range(20):
        Image.new("I;16", (40, 40), 1000 * i).save(tmp_path / f"{i:02}.png")
    paths = sorted(map(str, tmp_path.iterdir()))
    whole = predictor.predict(paths)
    predictor = Predictor(predictor.model, Compute("onnxruntime", workers=1))
    notes = [predictions.notes for _, predictions in predictor.predict_in_parts(paths)]
    assert whole.notes
    assert notes == [(), whole.notes]


@given(st.integers(0, 5000), st.integers(1, 600))
def test_parts_follow_each_other_and_none_is_small(count, smallest):
    ends = list(_part_ends(count, smallest))
    sizes = np.diff([0, *ends])
    assert ends[-1] == count
    assert len(ends) == 1 or min(sizes) >= smallest
    assert max(sizes) < max(PART, smallest) + smallest
    assert len(ends) == 1 or sizes[0] == smallest
