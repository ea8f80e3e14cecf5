"""Models of several labels an image: their folder, their predictions, and what is refused of them."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from sklearn import metrics as sklearn_metrics

from headstart import Compute, Predictor, ReadOptions, open_dataset
from headstart.errors import DataError, ModelError, OptionError
from headstart.model.folder import read_model
from headstart.model.label_predictions import MultiLabelPredictions

COMPUTE = Compute("onnxruntime")


@pytest.fixture(scope="module")
def predictor(label_model_folder):
    return Predictor.load(label_model_folder, COMPUTE)


@pytest.fixture(scope="module")
def validation(labelled):
    return open_dataset(labelled).split("validation")


def test_predictions_are_those_of_the_graph_alone(predictor, validation, label_model_folder):
    predictions = predictor.predict(validation)
    assert isinstance(predictions, MultiLabelPredictions)
    model = predictor.model
    pixels = np.stack([model.preprocess(decoded(validation, i)) for i in range(len(validation))])
    session = onnxruntime.InferenceSession(label_model_folder / "model.onnx")
    probabilities, distance = session.run(["probabilities", "distance"], {"pixels": pixels})
    np.testing.assert_allclose(predictions.probabilities, probabilities, atol=2e-3)
    np.testing.assert_allclose(predictions.ood_scores, distance, atol=2e-3)
    about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    assert about["problem_type"] == "multi_label_classification"
    thresholds = about["label_thresholds"]["thresholds"]
    assert (predictions.decisions == (predictions.probabilities >= thresholds)).all()
    # Model API takes a sigmoid of the first output itself: only an export, which has the scores there, is for it.
    assert set(session.get_modelmeta().custom_metadata_map) == {"headstart"}


def decoded(dataset, i):
    from headstart.images.decoding import decode

    return decode(dataset.read(i))


def test_an_evaluation_counts_what_scikit_learn_counts(predictor, validation):
    evaluation = predictor.evaluate(validation)
    truth = np.array([[name in item.labels for name in predictor.model.classes] for item in validation.items])
    predictions = evaluation.predictions
    expected = sklearn_metrics.average_precision_score(truth, predictions.probabilities, average="macro")
    assert evaluation.metrics.mean_average_precision.value == pytest.approx(expected)
    exact = (predictions.decisions == truth).all(axis=1).mean()
    assert evaluation.metrics.exact_match.value == pytest.approx(exact)
    held = predictions.sets[truth]
    assert (evaluation.coverage.correct, evaluation.coverage.count) == (held.sum(), truth.sum())
    assert evaluation.training_images == 0
    json.dumps(evaluation.to_dict())


def test_what_is_of_one_class_an_image_is_an_error(predictor, validation):
    predictions = predictor.predict(validation)
    for name in ("predicted", "confidence"):
        with pytest.raises(OptionError, match="several of these labels"):
            getattr(predictions, name)
    with pytest.raises(ModelError, match="gives an image several labels"):
        predictor.model.decide(predictions.probabilities)


def test_parts_of_a_run_are_the_same_predictions(predictor, validation):
    whole = predictor.predict(validation).probabilities
    parts = [found.probabilities for _, found in predictor.predict_in_parts(validation)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_the_golden_sample_is_verified(predictor):
    result = predictor.verify()
    assert result.images == 8
    assert result.changed == 0


def test_labels_that_only_the_data_or_only_the_model_have_are_named(predictor, tmp_path, labelled):
    rows = ["path,labels", "train_000.png,disc;moon", "train_001.png,moon", "train_002.png,"]
    for name in ("train_000.png", "train_001.png", "train_002.png"):
        shutil.copy(labelled.parent / name, tmp_path)
    (tmp_path / "t.csv").write_text("\n".join(rows), "utf-8")
    evaluation = predictor.evaluate(tmp_path / "t.csv")
    assert any("does not know moon" in note for note in evaluation.predictions.notes)
    assert any("do not name square, stripes" in note for note in evaluation.predictions.notes)
    assert [label.support for label in evaluation.metrics.per_label] == [1, 0, 0]


def test_data_and_models_of_two_kinds(predictor, photos, model_folder, labelled):
    with pytest.raises(DataError, match="several labels"):
        predictor.evaluate(open_dataset(photos))
    with pytest.raises(DataError, match="has several labels an image"):
        Predictor.load(model_folder, COMPUTE).evaluate(labelled)


def damaged(change):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        change(config)
        (folder / "config.json").write_text(json.dumps(config), "utf-8")

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damaged(lambda c: c.pop("problem_type")),
        damaged(lambda c: c.update(problem_type="single_label_classification")),
        damaged(lambda c: c.update(format=3)),
        damaged(lambda c: c.update(format=5)),
        damaged(lambda c: c.pop("label_thresholds")),
        damaged(lambda c: c["label_thresholds"].update(thresholds=[0.5])),
        damaged(lambda c: c["label_thresholds"].update(thresholds=[0.5, 0.5, 2])),
        damaged(lambda c: c["label_thresholds"].update(is_promised=[1, 1, 1])),
        damaged(lambda c: c["label_thresholds"].update(target="luck")),
        damaged(lambda c: c.update(label_thresholds=[])),
    ],
)
def test_damaged_folders_are_errors_of_one_line(label_model_folder, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(label_model_folder, folder)
    damage(folder)
    with pytest.raises(ModelError) as error_info:
        read_model(folder)
    assert "\n" not in str(error_info.value)


def test_a_model_of_one_class_does_not_become_one_of_several_by_its_config(model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    damaged(lambda c: c.update(problem_type="multi_label_classification"))(folder)
    with pytest.raises(ModelError, match="of format 3 with problem_type 'multi_label_classification'"):
        read_model(folder)


def test_a_fit_of_classes_refuses_the_data(labelled):
    from headstart import FitOptions, fit_dataset

    with pytest.raises(DataError, match="has several labels an image"):
        fit_dataset(open_dataset(labelled, ReadOptions()), FitOptions("headstart-s"))
