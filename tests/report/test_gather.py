"""The content of a report against the fit that it describes."""

import numpy as np
import pytest
from helpers.graphs import saved
from helpers.photos import write_photos
from PIL import Image

from headstart.check import check_from_features
from headstart.classifier import FitOptions, fit_dataset
from headstart.data import Dataset, from_images, open_dataset
from headstart.features import Compute
from headstart.model import Predictor
from headstart.report.data import MAX_IMAGES
from headstart.report.gather import _AllPredictions, _individually_shown, gather
from headstart.report.page import render
from headstart.report.shown import Paths
from headstart.stats.classification import confusion_matrix

ONNXRUNTIME = Compute("onnxruntime")


def fit(dataset, **options):
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset)
    return fit_dataset(
        dataset, FitOptions(**{"backbone": "headstart-s", "compute": ONNXRUNTIME, "cache": False, **options})
    )


def test_the_report_agrees_with_the_fit(fitted, fit_report):
    assert fit_report.classes == ("disc", "stripes")
    assert fit_report.total_images == len(fit_report.images) == 40
    for set_index, summary in enumerate(fit_report.evaluations):
        accuracy = fitted.model.run["accuracy"][summary.name]
        assert sum(n for truth, prediction, n in summary.confusion if truth == prediction) == accuracy["correct"]
        assert sum(n for _, _, n in summary.confusion) == accuracy["count"]
        images = [image for image in fit_report.images if image.set_index == set_index]
        truth = np.array([image.true_class for image in images])
        matrix = confusion_matrix(truth, np.array([image.predicted_class for image in images]), 2)
        assert {(t, p): n for t, p, n in summary.confusion} == {k: n for k, n in np.ndenumerate(matrix) if n}
    # No folder of this machine is in the paths.
    assert {image.path.split("/")[0] for image in fit_report.images} == {"train", "validation"}
    probabilities = fitted.selected.probabilities[0]
    first = next(image for image in fit_report.images if image.set_index == 1)
    assert first.confidence == round(float(probabilities.max()), 6)
    assert first.true_class_confidence == round(float(probabilities[first.true_class]), 6)


def test_activation_maps_add_up_to_the_log_odds_of_the_saved_model(fit_report, folder_with_report, photos):
    assert len(fit_report.activation_maps) >= 4
    predictor = Predictor.load(folder_with_report, ONNXRUNTIME)
    for activation_map in fit_report.activation_maps:
        assert np.sum(activation_map.grid) + activation_map.bias == pytest.approx(activation_map.score, abs=1e-2)
        path = next(photos.rglob(fit_report.images[activation_map.image].path))
        probabilities = predictor.predict([path]).probabilities[0]
        log_odds = np.log(probabilities[activation_map.positive] / probabilities[activation_map.negative])
        assert log_odds == pytest.approx(activation_map.score, abs=0.02)


def test_a_report_without_activation_maps_gives_the_reason(photos, tmp_path):
    backbone = f"onnx:{saved(tmp_path)}"
    result = fit(photos, backbone=backbone, cut="flat")
    report = gather(result)
    assert report.activation_maps == ()
    assert "The cut flat is a vector, not the mean of a feature map" in render(report, result.model.run, "m")


def test_a_fit_has_the_findings_of_check(tmp_path):
    data = write_photos(tmp_path / "data" / "train", 14)
    write_photos(tmp_path / "data" / "validation", 6, seed=1)
    twin = data / "disc" / "000.jpg"
    (data / "disc" / "twin.jpg").write_bytes(twin.read_bytes())
    leaked = tmp_path / "data" / "validation" / "stripes" / "leak.jpg"
    Image.open(data / "stripes" / "001.jpg").save(leaked, quality=50)
    Image.open(data / "disc" / "005.jpg").point(lambda v: v // 12).save(data / "disc" / "005.jpg")
    (data / "disc" / "broken.jpg").write_bytes(b"no image")
    report = gather(fit(tmp_path / "data"))
    findings = {(finding.kind, finding.files) for finding in report.findings}
    assert ("exact_duplicate", ("train/disc/000.jpg", "train/disc/twin.jpg")) in findings
    assert ("leak", ("train/stripes/001.jpg", "validation/stripes/leak.jpg")) in findings
    assert ("dark", ("train/disc/005.jpg",)) in findings
    assert report.finding_counts["unreadable"] == 1
    for finding in report.findings:
        readable = [path for path in finding.files if "broken" not in path]
        assert [report.images[index].path for index in finding.images] == readable
        assert set(finding.images) <= set(report.thumbnails)


def test_images_have_the_groups_of_the_fit_and_validation_images_groups_of_their_own(tmp_path):
    data = write_photos(tmp_path / "data" / "train", 12)
    write_photos(tmp_path / "data" / "validation", 6, seed=1)
    for folder, twin in ((data, "004.jpg"), (tmp_path / "data" / "validation", "002.jpg")):
        (folder / "disc" / "twin.jpg").write_bytes((folder / "disc" / twin).read_bytes())
    result = fit(tmp_path / "data")
    groups = {image.path: (image.set_index, image.group) for image in gather(result).images}
    index = dict(zip(result.data.split.train.tolist(), result.data.split.groups.index.tolist(), strict=True))
    prefix = f"{tmp_path / 'data'}/"
    paths = [result.data.dataset.items[i].path.removeprefix(prefix) for i in result.data.features.index]
    for row, group in index.items():
        assert groups[paths[row]] == (1, group)
    assert groups["train/disc/twin.jpg"] == groups["train/disc/004.jpg"]
    assert groups["validation/disc/twin.jpg"] == groups["validation/disc/002.jpg"]
    assert len({group for group in groups.values() if group[0] == 0}) > 2


def test_label_issues_of_a_fit_come_from_its_probabilities(fitted):
    dataset, features = fitted.data.dataset, fitted.data.features
    labels = np.array([["disc", "stripes"].index(dataset.items[i].label) for i in features.index])
    probabilities = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    probabilities[3] = probabilities[3, ::-1]
    findings = check_from_features(dataset, features, ["disc", "stripes"], probabilities, (1, 1))
    issues = [finding for finding in findings if finding.kind == "label_issue"]
    assert [issue.files for issue in issues] == [(dataset.items[features.index[3]].path,)]
    assert issues[0].confidence == pytest.approx(0.8)


def test_images_in_memory_and_images_deleted_after_the_fit(tmp_path):
    data = write_photos(tmp_path / "data", 8)
    paths = sorted(data.rglob("*.jpg"))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    of_arrays = gather(fit(from_images(arrays, [path.parent.name for path in paths])))
    assert {image.path for image in of_arrays.images} == {f"image {i}" for i in range(len(paths))}
    assert len(of_arrays.thumbnails) > 0
    result = fit(data)
    for path in paths[::2]:
        path.unlink()
    report = gather(result)
    assert report.total_images == 16
    with_thumbnail = {report.images[index].path for index in report.thumbnails}
    assert with_thumbnail.isdisjoint({str(p.relative_to(data)) for p in paths[::2]})


def test_validation_classes_that_the_model_does_not_have(tmp_path):
    write_photos(tmp_path / "train", 10)
    write_photos(tmp_path / "validation", 4, classes=("disc", "stripes", "dots"), seed=1)
    result = fit(tmp_path)
    report = gather(result)
    assert (report.classes, report.known_classes) == (("disc", "stripes", "dots"), 2)
    unknown = [image for image in report.images if image.true_class == 2]
    assert len(unknown) == 4
    assert all(image.true_class_confidence == 0 for image in unknown)
    assert "not a class of the model" in render(report, result.model.run, "m")


def test_a_large_set_is_shown_in_part():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], 25_000)
    truth = (rng.uniform(size=25_000) < 0.2).astype(np.int64)
    rows = np.arange(25_000)
    predicted = probabilities.argmax(axis=1)
    predictions = _AllPredictions(("a", "b"), rows, np.ones(25_000, np.int64), truth, predicted, probabilities)
    shown = _individually_shown(predictions)
    assert len(shown) == len(set(shown.tolist())) == MAX_IMAGES
    errors = np.flatnonzero(~predictions.is_correct)
    assert len(errors) > MAX_IMAGES // 2
    most_confident = errors[np.argsort(-predictions.confidence[errors])][: MAX_IMAGES // 2]
    assert np.isin(most_confident, shown).all()


def test_where_errors_are_few_the_least_confident_correct_images_are_shown_too():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], 25_000)
    truth = probabilities.argmax(axis=1)
    truth[:100] = 1 - truth[:100]
    rows = np.arange(25_000)
    predicted = probabilities.argmax(axis=1)
    predictions = _AllPredictions(("a", "b"), rows, np.ones(25_000, np.int64), truth, predicted, probabilities)
    shown = _individually_shown(predictions)
    correct = np.flatnonzero(predictions.is_correct)
    least_confident = correct[np.argsort(predictions.confidence[correct])][: MAX_IMAGES // 2 - 100]
    assert np.isin(np.arange(100), shown).all()
    assert np.isin(least_confident, shown).all()


def test_the_common_folder_of_all_paths_is_left_out():
    class FeaturesStub:
        def __init__(self, paths):
            self.index = np.arange(len(paths))

    for paths, expected in (
        (["/a/b/c/1.jpg", "/a/b/d/2.jpg"], ["c/1.jpg", "d/2.jpg"]),
        (["/a/b/1.jpg", "/a/b/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/a/b1/1.jpg", "/a/b2/1.jpg"], ["b1/1.jpg", "b2/1.jpg"]),
        (["1.jpg", "x/2.jpg"], ["1.jpg", "x/2.jpg"]),
        (["/one.jpg"], ["one.jpg"]),
    ):
        dataset = from_images(paths)
        assert list(Paths(dataset, FeaturesStub(paths), np.arange(len(paths))).short_paths) == expected


def test_images_of_a_table_are_named_by_their_paths(tmp_path):
    data = write_photos(tmp_path / "images", 8)
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(data.rglob("*.jpg"))]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    report = gather(fit(tmp_path / "table.csv"))
    assert {image.path.split("/")[-2] for image in report.images} == {"disc", "stripes"}
