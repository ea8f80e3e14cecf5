"""``ImageClassifier`` as a scikit-learn estimator and as the one object of the public interface."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

import headstart as hs
from headstart.classifier import _apart
from headstart.errors import DataError, OptionError
from headstart.stats.accuracy import Accuracy, wilson


def paths_and_labels(folder):
    paths = sorted(str(p) for p in folder.rglob("*.jpg"))
    return paths, [p.split("/")[-2] for p in paths]


def test_fit_on_a_folder_and_answer(photos):
    classifier = hs.ImageClassifier().fit(str(photos))
    assert classifier.classes_.tolist() == ["disc", "stripes"]
    paths, labels = paths_and_labels(photos / "validation")
    probabilities = classifier.predict_proba(paths)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert (classifier.predict(paths) == np.array(labels)).mean() >= 10 / 12
    found = classifier.evaluate(photos)
    assert found.accuracy.count == 12  # of a set with splits the validation pictures
    assert found.accuracy.value == classifier.score(paths, labels)
    assert found.confusion.sum() == 12
    assert found.confusion.trace() == found.accuracy.correct


def test_paths_bytes_and_arrays_get_the_same_answers(photos):
    classifier = hs.ImageClassifier(runtime="onnxruntime").fit(photos)
    paths, _ = paths_and_labels(photos / "validation")
    contents = [Path(p).read_bytes() for p in paths]
    arrays = [np.asarray(Image.open(p).convert("RGB")) for p in paths]
    expected = classifier.predict_proba(paths)
    np.testing.assert_allclose(classifier.predict_proba(contents), expected, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(arrays), expected, atol=0.02)  # two JPEG decoders


def test_saved_and_loaded_gives_the_same_answers(photos, tmp_path):
    classifier = hs.ImageClassifier().fit(photos)
    loaded = hs.load(classifier.save(tmp_path / "model"))
    paths, _ = paths_and_labels(photos / "validation")
    np.testing.assert_array_equal(loaded.predict_proba(paths), classifier.predict_proba(paths))
    assert loaded.predict(paths).tolist() == classifier.predict(paths).tolist()


def test_labels_of_any_kind_come_back_as_text_and_groups_are_used(photos):
    paths, labels = paths_and_labels(photos / "train")
    numbers = [int(name == "disc") for name in labels]
    groups = [i // 2 for i in range(len(paths))]
    classifier = hs.ImageClassifier().fit(paths, numbers, groups)
    assert classifier.classes_.tolist() == ["0", "1"]
    assert classifier.run_["groups"] == {"count": 14, "largest": 2, "method": "column"}


def test_leave_group_out_leaves_out_copies(tmp_path):
    """Every picture twice: with the copy in training, noise labels are learned; left out together, not."""
    folder = write_photos(tmp_path / "d", 12)
    paths, _ = paths_and_labels(folder)
    noise = np.random.default_rng(0).permutation(np.arange(24) % 2)
    doubled, labels = paths + paths, [*noise, *noise]
    honest = hs.ImageClassifier().fit(doubled, labels)
    fooled = hs.ImageClassifier(group_by="none").fit(doubled, labels)
    assert honest.accuracy_["leave_group_out"].value < 0.8
    assert fooled.accuracy_["leave_group_out"].value > 0.9


def test_a_share_of_groups_is_held_out(photos):
    paths, labels = paths_and_labels(photos / "train")
    run = hs.ImageClassifier(validation=0.25, group_by="none").fit(paths, labels).run_
    assert run["images"]["train"] + run["images"]["validation"] == 28
    assert 4 <= run["images"]["validation"] <= 8
    assert run["accuracy"]["validation"]["method"] == "Wilson"


def test_the_validation_set_has_no_part_in_the_choice(photos, tmp_path):
    """Turn all labels of the validation set round: the model is the same, bit for bit."""
    other = tmp_path / "turned"
    (other / "disc").mkdir(parents=True)
    (other / "stripes").mkdir()
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        for p in (photos / "validation" / source).iterdir():
            (other / target / p.name).write_bytes(p.read_bytes())
    plain = hs.ImageClassifier().fit(photos / "train")
    turned = hs.ImageClassifier(validation=str(other)).fit(photos / "train")
    assert plain.model_.graph == turned.model_.graph
    assert turned.accuracy_["validation"].value < 0.3


def test_the_same_pictures_in_another_order_under_other_names_give_the_same_model(photos, tmp_path):
    paths, labels = paths_and_labels(photos / "train")
    renamed = []
    for i in range(len(paths)):
        renamed.append(tmp_path / f"{997 * i % 1000}.jpg")
        renamed[-1].write_bytes(Path(paths[i]).read_bytes())
    first = hs.ImageClassifier().fit(paths, labels)
    second = hs.ImageClassifier().fit(renamed[::-1], labels[::-1])
    assert second.run_["cache"]["misses"] == 0
    np.testing.assert_allclose(first.model_.head.weights, second.model_.head.weights, atol=1e-5)


def test_unreadable_pictures_are_quarantined_and_named(photos, tmp_path):
    paths, labels = paths_and_labels(photos / "train")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>404</html>")
    classifier = hs.ImageClassifier().fit([*paths, bad], [*labels, "disc"])
    assert classifier.run_["images"]["quarantined"][0]["path"] == str(bad)
    assert "Not a picture" in classifier.run_["images"]["quarantined"][0]["reason"]
    assert classifier.run_["images"]["train"] == 28
    with pytest.raises(DataError, match="cannot be read"):
        classifier.predict([bad])


def test_answers_hold_sets_distances_and_refusals(photos):
    classifier = hs.ImageClassifier(group_by="none", coverage=0.9, false_alarms=0.1).fit(photos)
    paths, _ = paths_and_labels(photos / "validation")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = classifier.answer(classifier._open([*paths, noise], None, None))
    promises = classifier.model_.promises
    np.testing.assert_array_equal(found.sets, promises.sets(found.probabilities))
    np.testing.assert_array_equal(found.none_of_these, found.distances > promises.reject_threshold)
    assert found.none_of_these[-1]
    assert found.none_of_these[:-1].mean() <= 0.5
    assert found.set_of(0)[0] == found.classes[found.probabilities[0].argmax()]
    assert classifier.choice_.chosen.basis is None  # else a pickled classifier would carry all features


def test_pictures_of_unknown_classes_count_as_wrong(photos):
    classifier = hs.ImageClassifier().fit(photos)
    paths, labels = paths_and_labels(photos / "validation")
    found = classifier.evaluate(paths, ["zebra" if name == "disc" else name for name in labels])
    assert found.unknown == ("zebra",)
    assert found.accuracy.correct <= 6
    assert found.confusion.sum() == 6


@pytest.mark.parametrize("labels", [["a"] * 28, None, ["a"] * 5])
def test_labels_that_cannot_be_learned_from(photos, labels):
    paths, _ = paths_and_labels(photos / "train")
    with pytest.raises(DataError):
        hs.ImageClassifier().fit(paths, labels)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet"}, {"backbone": "onnx:nothing.onnx"}, {"cut": "nowhere"}, {"head": "forest"},
        {"dropout": 1.5}, {"runtime": "cuda"}, {"precision": "int4"}, {"group_by": "scene"}, {"validation": 1.5},
        {"validation": "nowhere"}, {"coverage": 0.0}, {"coverage": 1.0}, {"false_alarms": 1.0}, {"false_alarms": -1.0},
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused_at_fit(photos, options):
    with pytest.raises(hs.HeadstartError):
        hs.ImageClassifier(**options).fit(photos / "train")


def test_parameters_are_scikit_learns():
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


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_mixin_order",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
    ],
)
def test_scikit_learns_own_checks_that_need_no_numbers(check):
    getattr(estimator_checks, check)("ImageClassifier", hs.ImageClassifier())


def test_not_fitted_is_scikit_learns_error(photos):
    classifier = hs.ImageClassifier()
    with pytest.raises(NotFittedError):
        classifier.predict(["a.jpg"])
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)
    check_is_fitted(classifier.fit(photos))


def test_fitting_again_forgets_and_leaves_parameters_alone(photos, tmp_path):
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


def coloured(classes, each=5):
    """Arrays of one colour a class and a little noise; the class of each."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), each)
    colours = rng.integers(0, 255, (classes, 3))
    return [np.clip(colours[c] + rng.normal(0, 20, (64, 64, 3)), 0, 255).astype(np.uint8) for c in truth], truth


@pytest.mark.parametrize(
    "named",
    [lambda c: int(c), lambda c: float(c), lambda c: f"colour {c:02d}", lambda c: f"c{c}"],
    ids=["integers", "floats", "texts", "unpadded texts"],
)
def test_columns_of_probabilities_are_in_the_order_of_the_labels(named):
    """scikit-learn hands on numbers in place of labels; of more than ten, 10 is not before 2."""
    arrays, truth = coloured(12)
    labels = np.array([named(c) for c in truth])
    classifier = hs.ImageClassifier(group_by="none", cache=False, head="lda")
    fitted = classifier.fit(arrays, labels)
    assert fitted.classes_.tolist() == [str(label) for label in np.unique(labels)]
    by_column = np.unique(labels)[fitted.predict_proba(arrays).argmax(axis=1)]
    assert (by_column == labels).mean() > 0.9
    held_out = cross_val_predict(classifier, arrays, labels, cv=3, method="predict_proba")
    assert (np.unique(labels)[held_out.argmax(axis=1)] == labels).mean() > 0.9


def test_grid_search_over_cut_head_and_dropout(photos):
    paths, labels = paths_and_labels(photos / "train")
    grid = [{"cut": ["stage4", "features"], "head": ["lda", "centroid"]}, {"dropout": [0.2, 0.6]}]
    search = GridSearchCV(hs.ImageClassifier(), grid, cv=2, error_score="raise").fit(paths, labels)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_estimator_.classes_.tolist() == ["disc", "stripes"]
    assert set(search.predict(paths)) <= {"disc", "stripes"}


def test_a_fitted_classifier_survives_a_worker_process(photos):
    """joblib sends estimators between processes by pickle; what comes back must answer the same."""
    classifier = hs.ImageClassifier().fit(photos)
    again = pickle.loads(pickle.dumps(classifier))
    paths, _ = paths_and_labels(photos / "validation")
    np.testing.assert_array_equal(again.predict_proba(paths), classifier.predict_proba(paths))


def test_answers_do_not_depend_on_the_company_a_picture_keeps(photos):
    classifier = hs.ImageClassifier(runtime="onnxruntime").fit(photos)
    paths, _ = paths_and_labels(photos / "validation")
    together = classifier.predict_proba(paths)
    alone = np.concatenate([classifier.predict_proba([p]) for p in paths])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_held_out_copies_of_training_pictures_are_told(tmp_path):
    data = tmp_path / "data"
    write_photos(data / "train", 8)
    write_photos(data / "validation", 4, seed=9)
    fitted = hs.ImageClassifier(runtime="onnxruntime").fit(data)
    assert not [note for note in fitted.notes_ if "copies" in note]
    seen = sorted((data / "train" / "disc").iterdir())[2]
    with Image.open(seen) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data / "validation" / "disc" / "seen.jpg", quality=70)
    (told,) = [note for note in hs.ImageClassifier(runtime="onnxruntime").fit(data).notes_ if "copies" in note]
    assert told.startswith("1 held-out pictures are copies of training pictures")
    assert "seen.jpg" in told


def test_views_add_rows_of_their_pictures_group_and_are_kept(photos):
    fitted = hs.ImageClassifier(views=3, augmentation="lesson").fit(photos)
    again = hs.ImageClassifier(views=3, augmentation="lesson").fit(photos)
    alone = hs.ImageClassifier().fit(photos)
    assert fitted.run_["views"] == {"count": 3, "augmentation": "lesson"}
    assert fitted.accuracy_["leave_group_out"].count == alone.accuracy_["leave_group_out"].count
    np.testing.assert_array_equal(again.predict_proba(photos), fitted.predict_proba(photos))
    assert np.abs(fitted.predict_proba(photos) - alone.predict_proba(photos)).max() > 1e-4


@pytest.mark.parametrize(
    ("left_out", "held_out", "said"),
    [
        ((90, 100), (10, 20), "recognised worse"),
        ((1, 20), (95, 100), "recognised better"),
        ((90, 100), (88, 100), None),
    ],
)
def test_accuracies_that_contradict_each_other_are_told(left_out, held_out, said):
    def accuracy(correct, count):
        return Accuracy(correct, count, wilson(correct, count), "Wilson")

    notes = _apart({"leave_group_out": accuracy(*left_out), "validation": accuracy(*held_out)})
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    assert _apart({"leave_group_out": accuracy(*left_out)}) == []


def test_the_note_of_a_contradiction_follows_the_accuracies(photos, monkeypatch):
    """Another network that is adopted has accuracies of its own."""

    def accuracies(correct):
        return lambda *_: {"leave_group_out": Accuracy(90, 100, wilson(90, 100), "Wilson"),
                           "validation": Accuracy(correct, 100, wilson(correct, 100), "Wilson")}  # fmt: skip

    monkeypatch.setattr("headstart.classifier._accuracies", accuracies(40))
    fitted = hs.ImageClassifier(runtime="onnxruntime").fit(photos)
    assert any("recognised worse" in note for note in fitted.notes_)
    monkeypatch.setattr("headstart.classifier._accuracies", accuracies(90))
    fitted.adopt(fitted.learned_, fitted.choice_)
    assert not any("recognised" in note for note in fitted.notes_)
