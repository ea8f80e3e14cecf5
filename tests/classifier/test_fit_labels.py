"""Fits to several labels an image, and the estimator with scikit-learn's conventions."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.labels import write_labelled
from helpers.same import assert_same
from sklearn import metrics as sklearn_metrics
from sklearn.preprocessing import MultiLabelBinarizer

from headstart import Compute, FitOptions, ImageClassifier, ReadOptions, fit_multi_label, load, open_dataset
from headstart.errors import DataError, ImageError, OptionError

OPTIONS = {"backbone": "headstart-s", "group_by": "none", "cache": False, "runtime": "onnxruntime"}


def fit(dataset, **options):
    compute = Compute("onnxruntime")
    return fit_multi_label(dataset, FitOptions("headstart-s", compute=compute, cache=False, **options))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 paths, and the labels of each."""
    folder = tmp_path_factory.mktemp("images")
    rows = [row.split(",") for row in write_labelled(folder, 60, seed=3)]
    return [str(folder / name) for name, _, _ in rows], [[x for x in labels.split(";") if x] for _, labels, _ in rows]


def test_a_result_can_be_pickled_but_for_its_images(label_fit):
    again = pickle.loads(pickle.dumps(label_fit))
    assert_same(again, label_fit, left_out=("reader",))
    with pytest.raises(ImageError, match="holds no image"):
        again.images.dataset.read(0)


def test_held_out_and_validation_metrics(labelled):
    result = fit(open_dataset(labelled), group_by="none", target_recall=0.8)
    assert set(result.evaluations) == {"validation", "leave_group_out"}
    for evaluation in result.evaluations.values():
        predictions = evaluation.predictions
        expected = sklearn_metrics.average_precision_score(predictions.label_truth, predictions.probabilities)
        assert evaluation.metrics.mean_average_precision.value == pytest.approx(expected)
        assert evaluation.metrics.mean_average_precision.value > 0.8
    thresholds = result.model.label_thresholds
    assert (thresholds.target, thresholds.share) == ("recall", 0.8)
    left_out = result.evaluations["leave_group_out"].metrics
    for label, promised in zip(left_out.per_label, thresholds.is_promised, strict=True):
        assert promised
        assert label.recall.value >= 0.8
    run = result.model.run
    assert run["problem_type"] == "multi_label_classification"
    assert run["metrics"]["validation"] == result.evaluations["validation"].metrics.to_dict()
    assert sum(candidate["weight"] for candidate in run["candidates"]) == pytest.approx(1)


def test_unknown_cells_count_neither_way(labelled):
    lines = labelled.read_text("utf-8").splitlines()
    rng = np.random.default_rng(0)
    changed = [lines[0]]
    for line in lines[1:]:
        path, names, split = line.split(",")
        parts = [part for part in names.split(";") if part and part != "disc"]
        parts += ["?disc"] if rng.random() < 0.3 else ["disc"] * ("disc" in names)
        changed.append(f"{path},{';'.join(parts)},{split}")
    table = labelled.with_name("unknown.csv")
    table.write_text("\n".join(changed), "utf-8")
    result = fit(open_dataset(table), group_by="none")
    disc = result.evaluations["leave_group_out"].metrics.per_label[0]
    assert disc.unknown == (~result.split.targets.known[:, 0]).sum() > 10
    assert disc.average_precision.value > 0.8
    assert np.isnan(result.selected.probabilities).sum() == disc.unknown


def test_labels_of_no_use_are_left_out_and_few_images_promise_nothing(labelled):
    lines = labelled.read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:]]
    rows = [[path, f"{names};photo".strip(";"), split] for path, names, split in rows]
    for row in rows[:2]:
        row[1] += ";moon"
    rows[-1][1] += ";star"  # a validation image
    table = labelled.with_name("rare.csv")
    table.write_text("\n".join(["path,labels,split", *(",".join(row) for row in rows)]), "utf-8")
    result = fit(open_dataset(table), group_by="none", target_recall=0.9)
    assert result.model.classes == ("disc", "moon", "square", "stripes")
    notes = " ".join(result.notes)
    assert "left out, since no readable training image has them: star" in notes
    assert "left out, since every one has them: photo" in notes
    assert "Too few positives of moon (2) to promise a recall of 90%" in notes
    assert "Too few groups of images have moon (2) to promise that a prediction set holds it" in notes
    assert dict(zip(result.model.classes, result.model.label_thresholds.is_promised, strict=True))["moon"] is False
    assert result.model.thresholds.set_thresholds[1] == 0


def test_a_share_is_held_out(images):
    paths, labels = images
    from headstart.data import from_images

    result = fit(from_images(paths, labels), group_by="none", validation=0.25)
    held_out = len(result.split.validation)
    assert 8 <= held_out <= 15
    assert result.evaluations["validation"].metrics.per_label[0].support > 0
    assert len(result.split.train) == 60 - held_out


def test_views_are_learned_from_and_not_measured(images):
    from headstart.data import from_images

    paths, labels = images
    result = fit(from_images(paths[:30], labels[:30]), group_by="none", views=2)
    assert len(result.selected.probabilities) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "lda"}, "--head"),
        ({"dropout": 0.1}, "--dropout"),
        ({"class_weight": "balanced"}, "--class-weight"),
        ({"thresholds": {"disc": 0.5}}, "--threshold"),
        ({"validation": 1.5}, "validation share of 1.5"),
    ],
)
def test_options_that_cannot_be_used(images, options, message):
    from headstart.data import from_images

    with pytest.raises(OptionError, match=message):
        fit(from_images(images[0][:20], images[1][:20]), **{"group_by": "none", **options})


def test_data_of_one_class_an_image_are_refused(photos):
    with pytest.raises(DataError, match="has one class an image; fit it with fit_dataset"):
        fit(open_dataset(photos))


def test_the_estimator_has_scikit_learns_conventions(images, tmp_path):
    paths, labels = images
    binarizer = MultiLabelBinarizer().fit(labels)
    classifier = ImageClassifier(**OPTIONS).fit(paths, labels)
    assert classifier.classes_.tolist() == binarizer.classes_.tolist()
    decided, probabilities = classifier.predict(paths), classifier.predict_proba(paths)
    assert decided.shape == probabilities.shape == (60, 3)
    assert decided.dtype == np.int64
    assert set(np.unique(decided)) <= {0, 1}
    assert np.abs(probabilities.sum(axis=1) - 1).max() > 0.2
    truth = binarizer.transform(labels)
    assert classifier.score(paths, labels) == pytest.approx(sklearn_metrics.accuracy_score(truth, decided))
    assert classifier.score(paths, truth) == pytest.approx(sklearn_metrics.accuracy_score(truth, decided))
    assert sklearn_metrics.f1_score(truth, decided, average="micro") > 0.8
    assert classifier.transform(paths[:2]).shape[0] == 2
    assert "mean average precision (mAP)" in Path(classifier.report(tmp_path / "page")).read_text("utf-8")
    classifier.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.classes_.tolist() == ["disc", "square", "stripes"]
    np.testing.assert_array_equal(loaded.predict(paths[:5]), decided[:5])
    assert loaded.accuracy_ == {}


def test_an_indicator_matrix_keeps_its_columns(images):
    paths, labels = images
    matrix = np.array([[name in held for name in ("stripes", "disc")] for held in labels]).astype(float)
    matrix[0, 1] = np.nan
    classifier = ImageClassifier(**OPTIONS).fit(paths, matrix)
    assert classifier.classes_.tolist() == [0, 1]
    assert classifier.model_.classes == ("0", "1")
    known = ~np.isnan(matrix).any(axis=1)
    decided = classifier.predict(paths)
    assert (decided[known] == matrix[known]).mean() > 0.9
    assert classifier.score(paths, matrix) > 0.8


def test_a_matrix_with_a_column_that_the_fit_left_out_is_evaluated(images):
    paths, labels = images[0], images[1]
    matrix = np.array([["stripes" in held, False, "disc" in held] for held in labels]).astype(int)
    classifier = ImageClassifier(**OPTIONS).fit(paths, matrix)
    assert classifier.classes_.tolist() == [0, 2]
    assert classifier.score(paths, matrix) == classifier.score(paths, matrix[:, [0, 2]])


def test_a_table_is_found_to_be_multi_label(labelled):
    classifier = ImageClassifier(**OPTIONS, target_precision=0.8).fit(labelled)
    assert classifier.classes_.tolist() == ["disc", "square", "stripes"]
    assert classifier.evaluate(labelled).metrics.mean_average_precision.value > 0.8
    assert classifier.verify().images == 8
    assert open_dataset(labelled, ReadOptions()).is_multi_label
