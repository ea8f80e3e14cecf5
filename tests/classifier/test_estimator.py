"""``ImageClassifier`` as a scikit-learn estimator."""

import csv
import enum
import json
import pickle
import re
import subprocess
import sys
from dataclasses import asdict, fields
from typing import get_type_hints

import joblib
import numpy as np
import pytest
from helpers.photos import paths_and_labels, write_photos
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.utils.validation import check_is_fitted

import headstart as hs
from headstart.classifier import FitOptions
from headstart.errors import DataError, ModelError, OptionError
from headstart.heads.mlp import MlpConfig


def test_fit_and_predict_on_a_folder(photos):
    classifier = hs.ImageClassifier().fit(str(photos))
    assert classifier.classes_.tolist() == ["disc", "stripes"]
    paths, labels = paths_and_labels(photos / "validation")
    probabilities = classifier.predict_proba(paths)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert (classifier.predict(paths) == np.array(labels)).mean() >= 10 / 12
    evaluation = classifier.evaluate(photos)
    assert evaluation.accuracy.count == 12  # of a dataset with splits the validation images
    assert evaluation.accuracy.value == classifier.score(paths, labels)
    assert evaluation.confusion.sum() == 12
    assert evaluation.confusion.trace() == evaluation.accuracy.correct


def test_saved_and_loaded_gives_the_same_predictions(photos, tmp_path):
    classifier = hs.ImageClassifier().fit(photos)
    loaded = hs.load(classifier.save(tmp_path / "model"))
    paths, _ = paths_and_labels(photos / "validation")
    np.testing.assert_array_equal(loaded.predict_proba(paths), classifier.predict_proba(paths))
    assert loaded.predict(paths).tolist() == classifier.predict(paths).tolist()


def test_the_report_of_a_fit_is_written_and_a_loaded_model_says_where_its_own_is(fitted, tmp_path):
    classifier = hs.ImageClassifier()
    with pytest.raises(NotFittedError):
        classifier.report(tmp_path)
    classifier.result_, classifier.model_ = fitted, fitted.model
    folder = tmp_path / "new" / "report"
    assert classifier.report(folder) == str(folder / "report.html")
    accuracy = fitted.accuracy["validation"]
    assert f"{accuracy.correct} of {accuracy.count}" in (folder / "report.html").read_text("utf-8")
    with pytest.raises(OptionError, match="headstart open FOLDER"):
        hs.load(classifier.save(tmp_path / "model")).report(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(ModelError, match=rf"^Cannot make the folder {re.escape(str(folder))}: [^\n]+\.$"):
            classifier.report(folder)


def test_labels_keep_their_type_and_groups_are_used(photos):
    paths, labels = paths_and_labels(photos / "train")
    numbers = [int(name == "disc") for name in labels]
    groups = [i // 2 for i in range(len(paths))]
    classifier = hs.ImageClassifier().fit(paths, numbers, groups)
    assert classifier.classes_.tolist() == [0, 1]
    assert classifier.run_["groups"] == {"count": 14, "largest": 2, "method": "column"}


def test_parameters_follow_the_conventions_of_scikit_learn():
    classifier = hs.ImageClassifier(cut="stage4", dropout=0.2)
    assert classifier.get_params()["cut"] == "stage4"
    copy = clone(classifier)
    assert copy is not classifier
    assert copy.get_params() == classifier.get_params()
    assert copy.set_params(head="ridge") is copy
    with pytest.raises(OptionError, match="Unknown parameter"):
        copy.set_params(depth=3)
    assert repr(copy) == "ImageClassifier(cut='stage4', head='ridge', dropout=0.2)"
    assert is_classifier(classifier)


def test_not_fitted_is_scikit_learns_error(photos):
    classifier = hs.ImageClassifier()
    with pytest.raises(NotFittedError):
        classifier.predict(["a.jpg"])
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)
    check_is_fitted(classifier.fit(photos))


def test_a_second_fit_replaces_the_first_and_leaves_parameters_alone(photos, tmp_path):
    classifier = hs.ImageClassifier().fit(photos)
    before = classifier.get_params()
    classifier.fit(write_photos(tmp_path / "three", 6, ("disc", "dots", "stripes")))
    assert len(classifier.classes_) == 3
    assert classifier.get_params() == before


def test_cross_val_score_on_a_list_of_paths(photos):
    paths, labels = paths_and_labels(photos / "train")
    scores = cross_val_score(hs.ImageClassifier(), paths, labels, cv=3)
    assert scores.shape == (3,)
    assert scores.mean() > 0.6


def pandas_series(values):
    return pytest.importorskip("pandas").Series(values)


def coloured_images(classes, per_class=5):
    """Images of one colour for each class with a little noise, and the class index of each image."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), per_class)
    colours = rng.integers(0, 255, (classes, 3))
    return [np.clip(colours[c] + rng.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8) for c in truth], truth


@pytest.mark.parametrize(
    "make_label",
    [lambda c: int(c), lambda c: float(c), lambda c: f"colour {c:02d}", lambda c: f"c{c}"],
    ids=["integers", "floats", "texts", "unpadded texts"],
)
def test_columns_of_probabilities_are_in_the_order_of_the_labels(make_label):
    """scikit-learn passes on numbers instead of labels; sorted as text, 10 would come before 2."""
    arrays, truth = coloured_images(12)
    labels = np.array([make_label(c) for c in truth])
    classifier = hs.ImageClassifier(group_by="none", cache=False, head="lda")
    fitted = classifier.fit(arrays, labels)
    np.testing.assert_array_equal(fitted.classes_, np.unique(labels))
    assert (fitted.predict(arrays) == labels).mean() > 0.9
    by_column = np.unique(labels)[fitted.predict_proba(arrays).argmax(axis=1)]
    assert (by_column == labels).mean() > 0.9
    held_out = cross_val_predict(classifier, arrays, labels, cv=3, method="predict_proba")
    assert (np.unique(labels)[held_out.argmax(axis=1)] == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([7, -1], np.int64), ([True, False], np.bool_), ([7.0, -1.0], np.float64), (["b", "a"], np.str_)],
)
@pytest.mark.parametrize("container", [list, np.array, pandas_series])
def test_labels_come_back_in_the_type_that_they_had(values, dtype, container):
    arrays, truth = coloured_images(2)
    labels = [values[c] for c in truth]
    classifier = hs.ImageClassifier(group_by="none", cache=False).fit(arrays, container(labels))
    assert np.issubdtype(classifier.classes_.dtype, dtype)
    np.testing.assert_array_equal(classifier.classes_, np.unique(labels))
    predicted = classifier.predict(arrays)
    assert (predicted == np.array(labels)).mean() == classifier.score(arrays, labels) > 0.9
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict(arrays), predicted)


def test_scorers_of_scikit_learn_work_with_integers():
    arrays, truth = coloured_images(2)
    classifier = hs.ImageClassifier(group_by="none", cache=False)
    scores = cross_val_score(classifier, arrays, truth, cv=3, scoring="balanced_accuracy")
    assert scores.min() > 0.8


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, float("nan")], r"Image 1 has no label \(nan\)"),
        ([[0], 1], "Image 1 has 1, others have lists of labels"),
        (np.array([[0, 2], [1, 0]]), "Image 0 has 2 in the column 1; expected 0 or 1"),
        (["1", 1], "The labels '1' and 1 are of two types, texts and whole numbers"),
        ([True, 1], "of two types, booleans and whole numbers"),
        ([1, 1.0], "of two types, whole numbers and floating-point numbers"),
        ([0.0, float("inf")], "Image 1 has the label inf, a continuous value"),
        ([0.5, 1.5], "Image 0 has the label 0.5, a continuous value; expected names or whole numbers"),
        ([b"a", b"b"], "Image 0 has the label b'a'; expected one name or number"),
        (np.ma.array([1, 2], mask=[0, 1]), "Image 1 has no label"),
        (["a", "a\0"], "ends in a NUL"),
        (["a", "\ud800"], "holds half a character"),
        ("ab", "Expected a list, an array or a column of labels, got a str"),
        (None, "requires y to be passed, but the target y is None"),
    ],
)
def test_labels_that_cannot_be_used_are_errors(labels, message):
    arrays, _ = coloured_images(2, per_class=1)
    with pytest.raises(DataError, match=message):
        hs.ImageClassifier().fit(arrays, labels)


def test_one_image_after_another_uses_the_graph_that_is_loaded(photos, monkeypatch):
    paths, labels = paths_and_labels(photos / "train")
    classifier = hs.ImageClassifier(cache=False).fit(paths, labels)
    expected = [classifier.predict_proba([path]) for path in paths[:2]]

    def load_again(*_):
        raise AssertionError("the graph was loaded again")

    monkeypatch.setattr("headstart.model.predictor.load_backbone_graph", load_again)
    for path, probabilities in zip(paths[:2], expected, strict=True):
        np.testing.assert_array_equal(classifier.predict_proba([path]), probabilities)


def test_grid_search_over_cut_head_and_dropout(photos):
    paths, labels = paths_and_labels(photos / "train")
    grid = [{"cut": ["stage4", "features"], "head": ["lda", "centroid"]}, {"dropout": [0.2, 0.6]}]
    search = GridSearchCV(hs.ImageClassifier(), grid, cv=2, error_score="raise").fit(paths, labels)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_estimator_.classes_.tolist() == ["disc", "stripes"]
    assert set(search.predict(paths)) <= {"disc", "stripes"}


def test_a_fitted_classifier_can_be_sent_to_another_process(photos):
    """joblib sends estimators between processes by pickle; the copy must predict the same."""
    classifier = hs.ImageClassifier().fit(photos)
    data = pickle.dumps(classifier)
    assert len(data) < 2 * len(classifier.model_.graph)  # no images and no features
    restored = pickle.loads(data)
    paths, _ = paths_and_labels(photos / "validation")
    np.testing.assert_array_equal(restored.predict_proba(paths), classifier.predict_proba(paths))


def test_a_classifier_goes_through_a_file_of_joblib(model_folder, photos, tmp_path):
    paths, _ = paths_and_labels(photos / "validation")
    classifier = hs.load(model_folder)
    expected = classifier.predict_proba(paths), classifier.transform(paths[:3])  # graphs are loaded, and stay here
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    restored = joblib.load(tmp_path / "classifier.joblib")
    np.testing.assert_array_equal(restored.predict_proba(paths), expected[0])
    np.testing.assert_array_equal(restored.transform(paths[:3]), expected[1])
    assert restored.get_params() == classifier.get_params()
    assert restored.run_ == classifier.run_
    assert set(vars(restored)) == {*classifier.get_params(), "model_", "classes_"} | {"_last_predictor"}
    assert restored.verify().images == 8


def test_the_parameters_are_the_options_of_fit_dataset():
    assert hs.ImageClassifier().options == FitOptions()
    options = hs.ImageClassifier(cut=["a", "b"], runtime="onnxruntime", workers=2, views=3, validation=0.2).options
    assert (options.cut, options.views, options.validation) == (("a", "b"), 3, 0.2)
    assert options.compute == hs.Compute("onnxruntime", workers=2)


def test_numbers_of_numpy_are_parameters_as_those_of_python():
    """Grids of scikit-learn hold them. JSON has none: a model that was fitted with one could not be saved."""
    classifier = hs.ImageClassifier(
        cut=np.array(["a", "b"]),
        dropout=np.float32(0.5),
        validation=np.float32(0.25),
        coverage=np.float64(0.9),
        seed=np.int64(3),
        views=np.int32(2),
        cache=np.bool_(False),
        workers=np.int64(2),
        mlp=MlpConfig(epochs=np.int64(7)),
    )
    expected = FitOptions(
        cut=("a", "b"),
        dropout=0.5,
        validation=0.25,
        coverage=0.9,
        seed=3,
        views=2,
        cache=False,
        compute=hs.Compute(workers=2),
        mlp=MlpConfig(epochs=7),
    )
    assert classifier.options == expected
    assert json.dumps(asdict(classifier.options)) == json.dumps(asdict(expected))
    assert "cut=array(['a', 'b']" in repr(classifier)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seed": None}, "seed None cannot be used; expected a whole number."),
        ({"seed": 1.5}, "seed 1.5 cannot be used; expected a whole number."),
        ({"group_by": None}, "group_by None cannot be used; expected a text."),
        ({"cut": None}, "cut None cannot be used; expected a text or a list."),
        ({"cache": "no"}, "cache 'no' cannot be used; expected True or False."),
        ({"dropout": "0.5"}, "dropout '0.5' cannot be used; expected a number or None."),
        ({"workers": 1.5}, "workers 1.5 cannot be used; expected a whole number or None."),
        ({"mlp": {"epochs": 1}}, "mlp {'epochs': 1} cannot be used; expected MlpConfig or None."),
        (
            {"validation": ["a.jpg"]},
            "validation ['a.jpg'] cannot be used; expected Dataset, a text, a path, a number or None.",
        ),
    ],
)
def test_a_parameter_of_a_wrong_type_is_told_before_the_work(parameters, message):
    with pytest.raises(OptionError) as error:
        hs.ImageClassifier(**parameters).fit(["a.jpg", "b.jpg"], ["a", "b"])
    assert str(error.value) == message


def test_a_cut_of_no_taps_is_refused(photos):
    for cut in ([], ["features", 3], b"features"):
        with pytest.raises(OptionError, match=r"A cut of .* cannot be used; give 'auto', or the names of taps"):
            hs.ImageClassifier(cut=cut).fit(photos)


def test_the_types_of_parameters_are_those_of_the_options():
    given, options = get_type_hints(hs.ImageClassifier.__init__), get_type_hints(FitOptions)
    shared = [field.name for field in fields(FitOptions) if field.name != "compute"]
    assert {name: given[name] for name in shared} == {name: options[name] for name in shared}


class Kind(str, enum.Enum):  # noqa: UP042  # the kind that is not a StrEnum
    """As programs of before Python 3.11 have them: as a text it is "Kind.ANT", and equal to "ant"."""

    ANT = "ant"
    BEE = "bee"


class Number(int, enum.Enum):
    """The same of numbers."""

    ANT = 4
    BEE = 7


@pytest.mark.parametrize("kind", [Kind, Number])
def test_members_of_an_enumeration_are_the_classes_that_they_equal(kind):
    """NumPy made an array of the first letter of their names of them: all classes were K."""
    arrays, truth = coloured_images(2)
    labels = [list(kind)[c] for c in truth]
    classifier = hs.ImageClassifier(group_by="none", cache=False, class_weight={kind.ANT: 1, kind.BEE: 2})
    classifier.fit(arrays, labels)
    assert classifier.classes_.tolist() == [member.value for member in kind]
    assert classifier.model_.classes == tuple(str(member.value) for member in kind)
    assert (classifier.predict(arrays) == np.array([label.value for label in labels])).all()
    assert classifier.score(arrays, labels) == 1


def test_labels_and_groups_beside_a_dataset_are_refused(model_folder, photos):
    """They were ignored: an accuracy of groups and of labels that nobody had looked at."""
    count = len(paths_and_labels(photos)[0])
    for data in (str(photos), photos, hs.open_dataset(photos)):
        with pytest.raises(DataError, match="A dataset has its own labels and groups; leave y out"):
            hs.ImageClassifier().fit(data, ["a"] * count)
        with pytest.raises(DataError, match="leave groups out, or give a list of images"):
            hs.ImageClassifier().fit(data, groups=["a"] * count)
        with pytest.raises(DataError, match="leave y out"):
            hs.load(model_folder).score(data, ["a"] * count)


def test_one_image_or_none_is_told_as_such(model_folder, photos):
    path = paths_and_labels(photos)[0][0]
    with pytest.raises(DataError, match="Expected a list of images, got a single one; put it in a list"):
        hs.load(model_folder).predict(path)
    with pytest.raises(DataError, match="There are no images to learn from"):
        hs.ImageClassifier().fit([], [])
    with pytest.raises(DataError, match="There are no images to evaluate on"):
        hs.load(model_folder).score([], [])


def test_a_model_of_other_images_is_replaced_only_where_that_is_wanted(tmp_path):
    """Lists of images are called alike, which told that two of them were of one source."""
    arrays, truth = coloured_images(2)
    classifier = hs.ImageClassifier(group_by="none", cache=False, cut="features", head="lda")
    folder = classifier.fit(arrays, truth).save(tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()
    classifier.fit(arrays, truth).save(folder)
    classifier.fit([255 - array for array in arrays], truth)
    with pytest.raises(OptionError, match="holds a model of other images"):
        classifier.save(folder)
    assert (tmp_path / "model" / "model.onnx").exists()
    classifier.save(folder, overwrite=True)
    assert (tmp_path / "model" / "config.json").read_bytes() != before


def test_images_that_could_not_be_read_are_named_in_the_saved_model(tmp_path):
    arrays, truth = coloured_images(2)
    classifier = hs.ImageClassifier(group_by="none", cache=False, cut="features", head="lda")
    classifier.fit([*arrays, str(tmp_path / "gone.jpg")], [*truth, 0])
    folder = tmp_path / "model"
    classifier.save(folder)
    with (folder / "skipped.csv").open(newline="") as stream:
        rows = [*csv.reader(stream)]
    assert [row[0] for row in rows[1:]] == [str(tmp_path / "gone.jpg")]
    assert "No such file" in rows[1][1]
    hs.load(folder).save(tmp_path / "copy")  # a loaded model does not know them


def test_a_loaded_classifier_has_its_run_and_its_accuracies(model_folder):
    loaded = hs.load(model_folder)
    assert loaded.run_["backbone"]["id"] == loaded.backbone == "headstart-s"
    assert loaded.accuracy_["validation"].count == 12
    assert set(loaded.accuracy_) == {"validation", "leave_group_out"}


def test_fit_predict_and_save_need_neither_scipy_nor_scikit_learn(photos, tmp_path):
    code = f"""
import sys
sys.modules["scipy"] = sys.modules["sklearn"] = None  # as where they are not installed
import headstart as hs
classifier = hs.ImageClassifier(runtime="onnxruntime")
try:
    classifier.predict(["a.jpg"])
except Exception as error:
    print(type(error).__name__)
folder = classifier.fit({str(photos)!r}).save({str(tmp_path / "model")!r})
print(hs.load(folder).evaluate({str(photos)!r}).accuracy.count)
try:
    hs.ImageClassifier(head="logistic", runtime="onnxruntime").fit({str(photos)!r})
except hs.HeadstartError as error:
    print(error)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    error, count, missing = completed.stdout.splitlines()
    assert (error, count) == ("NotFittedError", "12")
    assert "scikit-learn" in missing
    assert "headstart[sklearn]" in missing
