"""``fit_dataset``: estimates without leakage, notes, and a result that cannot be changed."""

import hashlib
import json
import pickle
import shutil
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import paths_and_labels, write_photos
from helpers.same import assert_same
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

import headstart as hs
from headstart.classifier import FitOptions, fit_dataset
from headstart.classifier.notes import contradiction_notes
from headstart.classifier.run_info import versions
from headstart.data import from_images, open_dataset
from headstart.errors import DataError, ImageError, OptionError
from headstart.features import Compute, embed
from headstart.features.runtime import RuntimeInfo
from headstart.model.predictions import Predictions, evaluate

ONNXRUNTIME = Compute("onnxruntime")


def fit(dataset, **options):
    if not isinstance(dataset, hs.Dataset):
        dataset = open_dataset(dataset)
    return fit_dataset(dataset, FitOptions(**options))


def test_a_result_can_be_pickled_but_for_its_images(photos, tmp_path):
    """Of a fit with a dataset to validate on, and with views; the reader of a folder is of this process alone."""
    dataset = open_dataset(photos)
    options = {"validation": dataset.split("validation"), "views": 2}
    result = fit(dataset.split("train"), compute=ONNXRUNTIME, cache=False, **options)
    data = pickle.dumps(result)
    again = pickle.loads(data)
    assert_same(again, result, left_out=("reader",))
    assert len(data) < 2 * len(result.model.graph)
    assert_same(pickle.loads(pickle.dumps(again)), result, left_out=("reader",))
    assert dataset.read(0)
    assert result.data.dataset.read(0)  # the result itself keeps its images
    for images in (again.data.dataset, again.options.validation):
        with pytest.raises(ImageError, match="The pickle of a result holds no image; open the dataset again"):
            images.read(0)
    predicted = [hs.Predictor(one.model, ONNXRUNTIME).predict(photos / "validation") for one in (again, result)]
    np.testing.assert_array_equal(predicted[0].probabilities, predicted[1].probabilities)
    folders = [Path(one.save(tmp_path / name)) for one, name in ((again, "again"), (result, "result"))]
    assert (folders[0] / "model.onnx").read_bytes() == (folders[1] / "model.onnx").read_bytes()


def test_the_result_of_a_fit_cannot_be_changed(photos):
    result = fit(photos, compute=ONNXRUNTIME)
    with pytest.raises(FrozenInstanceError):
        result.model = None
    assert result.model.run["accuracy"] == {name: value.to_dict() for name, value in result.accuracy.items()}
    assert result.selected.main is None  # otherwise a result would hold all features twice


def test_the_basis_is_computed_with_one_thread_also_where_the_images_are_split_before(photos, monkeypatch):
    """With more threads its last digits are others, and with them those of the model."""
    module = sys.modules["headstart.classifier.fit"]
    is_split, threads = threading.Event(), []
    real_split, real_basis = module.split_features, module.deepest_basis

    def split(*arguments):
        found = real_split(*arguments)
        is_split.set()
        return found

    def basis(values):
        assert is_split.wait(60)
        time.sleep(0.2)  # for what follows the split
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return real_basis(values)

    monkeypatch.setattr(module, "split_features", split)
    monkeypatch.setattr(module, "deepest_basis", basis)
    with threadpool_limits(2, "blas"):
        fit(photos, compute=ONNXRUNTIME)
    assert threads
    assert set(threads) == {1}


def test_versions_name_the_runtime_of_features_that_all_came_from_the_cache(monkeypatch):
    installed = metadata.version("openvino")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    assert versions(RuntimeInfo("openvino", installed, "fp32"))["openvino"] == installed
    assert "openvino" not in versions(RuntimeInfo("openvino", "1.0", "fp32"))  # computed elsewhere
    assert "openvino" not in versions(RuntimeInfo("onnxruntime", "1.0", "fp32"))
    assert "openvino" not in versions()


def test_features_are_extracted_by_the_given_function(photos):
    """Any function with the parameters of ``embed``, such as one that uses other machines."""
    calls = []

    def extract(dataset, backbone, compute, **options):
        calls.append((len(dataset), options.get("view")))
        return embed(dataset, backbone, compute, **options)

    options = FitOptions(compute=ONNXRUNTIME, views=2)
    result = fit_dataset(open_dataset(photos), options, extract)
    assert [count for count, _ in calls] == [40, 28]  # all images, then a view of the training images
    assert result.model.graph == fit_dataset(open_dataset(photos), options).model.graph


def test_leave_one_group_out_leaves_out_copies(tmp_path):
    """Every image twice: with the copy in training, random labels can be learned; with both left out, they cannot."""
    paths, _ = paths_and_labels(write_photos(tmp_path / "d", 12))
    random = np.random.default_rng(0).permutation(np.arange(24) % 2).tolist()
    doubled = from_images(paths + paths, random + random)
    by_group, ungrouped = fit(doubled), fit(doubled, group_by="none")
    assert by_group.accuracy["leave_group_out"].value < 0.8
    assert ungrouped.accuracy["leave_group_out"].value > 0.9


def test_a_share_of_the_groups_is_held_out(photos):
    run = fit(photos / "train", validation=0.25, group_by="none").model.run
    assert run["images"]["train"] + run["images"]["validation"] == 28
    assert 4 <= run["images"]["validation"] <= 8
    assert run["accuracy"]["validation"]["method"] == "Wilson"


def test_the_validation_images_have_no_part_in_the_selection(photos, tmp_path):
    """Swap the labels of the validation images: the model is the same, bit for bit."""
    swapped_data = tmp_path / "swapped"
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        (swapped_data / target).mkdir(parents=True)
        for path in (photos / "validation" / source).iterdir():
            (swapped_data / target / path.name).write_bytes(path.read_bytes())
    plain = fit(photos / "train")
    swapped = fit(photos / "train", validation=str(swapped_data))
    assert plain.model.graph == swapped.model.graph
    assert swapped.accuracy["validation"].value < 0.3


def test_the_same_images_in_another_order_under_other_names_give_the_same_model(photos, tmp_path):
    paths, labels = paths_and_labels(photos / "train")
    renamed = []
    for i in range(len(paths)):
        renamed.append(tmp_path / f"{997 * i % 1000}.jpg")
        renamed[-1].write_bytes(Path(paths[i]).read_bytes())
    first = fit(from_images(paths, labels))
    order = np.random.default_rng(0).permutation(len(paths))
    second = fit(from_images([renamed[i] for i in order], [labels[i] for i in order]))
    assert second.model.run["cache"]["misses"] == 0
    folders = [Path(result.save(tmp_path / name)) for name, result in (("first", first), ("second", second))]
    for name in ("model.onnx", "head.safetensors", "golden.npz", "training_images.bin"):
        contents = [(folder / name).read_bytes() for folder in folders]
        assert contents[0] == contents[1], name
    first_config, second_config = (json.loads((folder / "config.json").read_text()) for folder in folders)
    assert first_config | {"date": ""} == second_config | {"date": ""}


def test_the_same_images_in_a_folder_of_another_name_give_the_same_model(photos, tmp_path):
    other = tmp_path / "other"
    for path in sorted((photos / "train").rglob("*.jpg"), reverse=True):
        digest = hashlib.sha256(path.name.encode()).hexdigest()[:12]
        target = other / path.parent.name / f"{digest}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    models = [fit(open_dataset(folder)).model for folder in (photos / "train", other)]
    assert models[0].graph == models[1].graph


def test_rows_are_in_the_order_of_contents_training_images_first(photos):
    result = fit(open_dataset(photos))
    features, split = result.data.features, result.data.split
    assert split.train.tolist() == list(range(len(split.train)))
    for rows in (split.train, split.validation):
        hashes = [bytes(content) for content in features.content_hashes[rows]]
        assert hashes == sorted(hashes)
    for i, content in zip(features.index, features.content_hashes, strict=True):
        assert hashlib.sha256(result.data.dataset.read(int(i))).digest() == bytes(content)


def test_unreadable_images_are_quarantined_and_named(photos, tmp_path):
    paths, labels = paths_and_labels(photos / "train")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>404</html>")
    classifier = hs.ImageClassifier().fit([*paths, bad], [*labels, "disc"])
    assert classifier.run_["images"]["quarantined"][0]["path"] == str(bad)
    assert "Not an image" in classifier.run_["images"]["quarantined"][0]["reason"]
    assert classifier.run_["images"]["train"] == 28
    with pytest.raises(DataError, match="cannot be read"):
        classifier.predict([bad])


def test_validation_images_that_are_copies_of_training_images_are_named(tmp_path):
    data = tmp_path / "data"
    write_photos(data / "train", 8)
    write_photos(data / "validation", 4, seed=9)
    assert not [note for note in fit(data, compute=ONNXRUNTIME).notes if "copies" in note]
    original = sorted((data / "train" / "disc").iterdir())[2]
    with Image.open(original) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data / "validation" / "disc" / "copy.jpg", quality=70)
    (note,) = [note for note in fit(data, compute=ONNXRUNTIME).notes if "copies" in note]
    assert note.startswith("Validation images that are copies of training images: 1 (")
    assert "copy.jpg" in note


def test_views_add_rows_of_the_group_of_their_image_and_are_cached(photos):
    with_views = hs.ImageClassifier(views=3, augmentation="lesson").fit(photos)
    repeated = hs.ImageClassifier(views=3, augmentation="lesson").fit(photos)
    without_views = hs.ImageClassifier().fit(photos)
    assert with_views.run_["views"] == {"count": 3, "augmentation": "lesson"}
    assert with_views.accuracy_["leave_group_out"].count == without_views.accuracy_["leave_group_out"].count
    np.testing.assert_array_equal(repeated.predict_proba(photos), with_views.predict_proba(photos))
    assert np.abs(with_views.predict_proba(photos) - without_views.predict_proba(photos)).max() > 1e-4


@pytest.mark.parametrize("labels", [["a"] * 28, None, ["a"] * 5])
def test_labels_that_cannot_be_learned_are_an_error(photos, labels):
    paths, _ = paths_and_labels(photos / "train")
    with pytest.raises(DataError):
        hs.ImageClassifier().fit(paths, labels)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet"},
        {"backbone": "onnx:nothing.onnx"},
        {"cut": "nowhere"},
        {"head": "forest"},
        {"dropout": 1.5},
        {"runtime": "cuda"},
        {"precision": "int4"},
        {"group_by": "scene"},
        {"validation": 1.5},
        {"validation": "nowhere"},
        {"coverage": 0.0},
        {"coverage": 1.0},
        {"false_alarms": 1.0},
        {"false_alarms": -1.0},
    ],
)
def test_options_that_cannot_be_used_are_errors_of_fit(photos, options):
    with pytest.raises(hs.HeadstartError):
        hs.ImageClassifier(**options).fit(photos / "train")


def evaluation(correct, count):
    """An evaluation with so many correct predictions out of ``count``."""
    truth = np.repeat([0, 1], [correct, count - correct])
    probabilities = np.tile([0.9, 0.1], (count, 1))
    paths = tuple(map(str, range(count)))
    return evaluate(Predictions(("a", "b"), paths, np.arange(count), probabilities, truth))


@pytest.mark.parametrize(
    ("left_out", "validation", "text"),
    [
        ((90, 100), (10, 20), "Validation accuracy is below"),
        ((1, 20), (95, 100), "Validation accuracy is above"),
        ((90, 100), (88, 100), None),
    ],
)
def test_accuracies_that_contradict_each_other_are_noted(left_out, validation, text):
    notes = contradiction_notes({"leave_group_out": evaluation(*left_out), "validation": evaluation(*validation)})
    assert len(notes) == (text is not None)
    assert text is None or text in notes[0]
    assert contradiction_notes({"leave_group_out": evaluation(*left_out)}) == []


def test_the_note_of_a_contradiction_is_part_of_the_result(photos, tmp_path):
    swapped = tmp_path / "swapped"
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        (swapped / target).mkdir(parents=True)
        for path in (photos / "validation" / source).iterdir():
            (swapped / target / path.name).write_bytes(path.read_bytes())
    notes = fit(photos / "train", validation=str(swapped), compute=ONNXRUNTIME).notes
    assert any("Validation accuracy is below" in note for note in notes)
    assert not any("Validation accuracy" in note for note in fit(photos, compute=ONNXRUNTIME).notes)


def test_too_few_groups_for_a_target_are_noted(photos):
    notes = fit(photos, coverage=0.99, false_alarms=0.01, group_by="none").notes
    assert any("28 groups of images are too few for a coverage of 99%" in note for note in notes)
    assert sum("99 groups are needed" in note for note in notes) == 2


def test_unlabelled_validation_images_are_an_error(photos, tmp_path):
    write_photos(tmp_path, 4)
    unlabelled = tmp_path / "new"
    unlabelled.mkdir()
    for number, path in enumerate(tmp_path.glob("*/*.jpg")):
        path.rename(unlabelled / f"{number}.jpg")
    with pytest.raises(DataError, match="validation images without a label"):
        fit(photos, validation=unlabelled)


def test_rows_without_a_label_are_counted_where_one_class_is_left(tmp_path):
    """A class of North America, which R calls as it calls a missing value."""
    write_photos(tmp_path, 4)
    names = {"disc": "EU", "stripes": "NA"}
    rows = [f"{path.relative_to(tmp_path)},{names[path.parent.name]}\n" for path in tmp_path.glob("*/*.jpg")]
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(rows))
    with pytest.raises(DataError, match=r"only one class, 'EU', in .*t\.csv; 4 skipped: no label but NA\."):
        fit(tmp_path / "t.csv")


def test_a_share_is_refused_where_the_data_have_validation_images(photos):
    with pytest.raises(OptionError, match="validation images of its own; leave out the share"):
        fit(photos, validation=0.4)


def test_values_that_cannot_be_used_are_refused_before_any_work():
    for options in ({"seed": -1}, {"coverage": 1.0}, {"views": 0}, {"augmentation": "blur"}):
        with pytest.raises(OptionError):
            FitOptions(**options)
    for workers in (0, -1):
        with pytest.raises(OptionError, match="workers cannot be used"):
            Compute(workers=workers)
