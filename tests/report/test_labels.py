"""The report of several labels: its content against the fit, what is read back, hostile names and files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from headstart import Compute, FitOptions, fit_multi_label, report
from headstart.check.cells import SuspectCells, cell_issues, suspect_cells
from headstart.data import from_images
from headstart.data.label_sets import label_list
from headstart.errors import ModelError
from headstart.heads.label_ridge import LabelTargets
from headstart.report.data import MAX_IMAGES
from headstart.report.labels.data import Cell, LabelledImage
from headstart.report.labels.gather import _AllPredictions, _curve, _image, _pairs, _suspects, gather_labels
from headstart.report.labels.page import render_labels
from headstart.report.labels.storage import read_label_data, write_label_data
from headstart.report.storage import write_data

from .test_page import HOSTILE, ParsedPage
from .test_storage import value_at


@pytest.fixture(scope="module")
def label_report(label_fit):
    return gather_labels(label_fit)


@pytest.fixture
def folder(label_fit, label_report, tmp_path):
    label_fit.save(tmp_path / "model")
    write_label_data(label_report, tmp_path / "model")
    return tmp_path / "model"


def page_of(label_report, model, title="title", run=None):
    return render_labels(label_report, model.label_thresholds, model.run if run is None else run, title)


def test_the_report_agrees_with_the_fit(label_fit, label_report):
    assert label_report.labels == label_fit.model.classes == ("disc", "square", "stripes")
    assert label_report.total_images == len(label_report.images) == 110
    for set_index, summary in enumerate(label_report.evaluations):
        evaluation = label_fit.evaluations[summary.name]
        truth, said = evaluation.predictions.label_truth, evaluation.predictions.decisions
        for c, counts in enumerate(summary.counts):
            of_label = evaluation.metrics.per_label[c]
            assert counts.recall == pytest.approx(of_label.recall.value)
            assert counts.precision == pytest.approx(of_label.precision.value)
            assert counts.found + counts.missed == of_label.support
            assert counts.rejected == (~truth[:, c] & ~said[:, c]).sum()
        lowest = min(evaluation.metrics.per_label, key=lambda label: label.average_precision.value)
        assert label_report.labels[summary.curves[0].label] == lowest.name
        assert sum(b.count for b in summary.reliability) == truth.size
        pairs = {(a, b): count for a, b, count in summary.true_pairs}
        assert pairs == {(a, b): int((truth[:, a] & truth[:, b]).sum()) for a in range(3) for b in range(a + 1)}
        images = [image for image in label_report.images if image.set_index == set_index]
        wrong = (truth != said).any(axis=1).sum()
        assert sum(not image.is_correct for image in images) == wrong
    assert {image.path.split("_")[0] for image in label_report.images} == {"train", "validation"}


def test_suspects_are_those_of_check_by_the_probabilities_of_the_fit(label_fit, label_report):
    """Of validation and training images together, each predicted by a head that has not learned from it."""
    found = [label_fit.evaluations[name].predictions for name in ("validation", "leave_group_out")]
    values, known, probabilities = (
        np.concatenate([getattr(predictions, name) for predictions in found])
        for name in ("label_truth", "label_known", "probabilities")
    )
    paths = [str(i) for i in range(len(values))]
    names = label_fit.model.classes
    findings = [*cell_issues(paths, names, LabelTargets(values, known, np.arange(len(values))), probabilities)]
    expected = {
        (f.state, names.index(f.suggested_label), f.certainty == "likely", round(float(p), 6))
        for f in findings
        for p in [probabilities[int(f.files[0]), names.index(f.suggested_label)]]
    }
    assert {(s.kind, s.label, s.is_likely, s.probability) for s in label_report.suspects} == expected
    assert 0 < len(expected) < (np.abs(probabilities - values) > 0.5).sum()  # not whatever is contradicted
    assert sum(label_report.suspect_counts.values()) == len(expected)
    assert {i for s in label_report.suspects for i in s.images} == set(label_report.thumbnails)


def all_predictions(probabilities, truth, known=None, groups=None):
    count = len(truth)
    known = np.ones(truth.shape, bool) if known is None else known
    groups = np.full(count, -1) if groups is None else groups
    said = (probabilities >= 0.5) & known
    return _AllPredictions(
        np.arange(count), np.ones(count, np.int64), groups, probabilities, truth & known, known, said
    )


def test_suspects_of_one_scene_are_one_and_unknown_cells_are_none():
    probabilities = np.array([[0.9, 0.2], [0.95, 0.1], [0.8, 0.0], [0.7, 0.01], [0.6, 0.9]])
    truth = np.array([[False, True], [False, False], [False, False], [True, False], [False, True]])
    known = np.ones((5, 2), bool)
    known[2, 0] = False
    predictions = all_predictions(probabilities, truth, known, np.array([0, 0, 0, -1, -1]))
    cells = suspect_cells(truth & known, known, probabilities)
    suspects = _suspects(predictions, cells, np.arange(5))
    # The last image has less of the first label than the image that is labelled with it: no suspect.
    assert [(s.kind, s.label, s.images, s.probability) for s in suspects] == [("missing", 0, (1, 0), 0.95)]
    assert _image(predictions, 2, "x.jpg") == LabelledImage("x.jpg", 1, 0, (Cell(0, 0.8, None, False),), 1)


def test_likely_suspects_come_first():
    probabilities = np.array([[0.9, 0.99], [0.1, 0.2], [0.2, 0.3]])
    truth = np.zeros((3, 2), bool)
    predictions = all_predictions(probabilities, truth)
    is_suspect = probabilities > 0.5
    is_likely = is_suspect & [True, False]
    suspects = _suspects(predictions, SuspectCells(is_suspect, is_likely, np.ones(3), np.ones(3)), np.arange(3))
    assert [(s.label, s.is_likely, s.probability) for s in suspects] == [(0, True, 0.9), (1, False, 0.99)]


def test_an_image_of_very_many_labels_keeps_its_errors():
    rng = np.random.default_rng(0)
    probabilities = rng.random((1, 200))
    truth = rng.random((1, 200)) < probabilities
    image = _image(all_predictions(probabilities, truth), 0, "x.jpg")
    assert len(image.cells) == 40
    assert all(cell.is_error for cell in image.cells)
    assert [cell.probability for cell in image.cells] == sorted((c.probability for c in image.cells), reverse=True)


def test_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.random(40) < 0.4
    probabilities = np.clip(np.round(truth * 0.3 + rng.random(40) * 0.6, 1), 0, 1)  # with ties
    precision, recall, _ = precision_recall_curve(truth, probabilities)
    points = _curve(probabilities, truth)
    expected = [*zip(recall[:-1], precision[:-1], strict=True)][::-1]
    np.testing.assert_allclose(points, expected, atol=1e-5)
    many = _curve(rng.random(5_000), rng.random(5_000) < 0.5)
    assert len(many) == 60
    assert many[-1][0] == 1


def test_pairs_are_counted_of_the_labels_that_are_asked_for():
    cells = np.random.default_rng(0).random((50, 6)) < 0.4
    pairs = _pairs(cells, np.array([1, 4]))
    assert pairs == ((1, 1, cells[:, 1].sum()), (4, 1, (cells[:, 1] & cells[:, 4]).sum()), (4, 4, cells[:, 4].sum()))


def test_the_report_is_read_back_as_written_and_gives_the_same_page(label_fit, label_report, folder):
    assert read_label_data(folder) == label_report
    assert report.rewrite_report(folder).read_text("utf-8") == page_of(label_report, label_fit.model, "model")


def test_a_fit_without_validation_images_that_names_unknown_cells(label_fit, tmp_path):
    dataset = label_fit.images.dataset
    images = [dataset.read(i) for i, item in enumerate(dataset.items) if item.split == "train"][:40]
    labels = np.array([[name in item.labels for name in ("disc", "stripes")] for item in dataset.split("train").items])
    matrix = labels[:40].astype(float)
    matrix[::7, 0] = np.nan
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, group_by="none")
    result = fit_multi_label(from_images(images, label_list(matrix)), options)
    page = report.write_report(result, result.save(tmp_path / "model"))
    parsed = ParsedPage(page.read_text("utf-8"))
    data = json.loads(next(text for tag, text in parsed.texts if tag == "script"))
    assert data["unknown"].count(1) == 6
    text = " ".join(text for _, text in parsed.texts)
    assert "promises nothing" in text
    assert "The same for" not in text


DAMAGE = {
    "format": value_at("format", to=99),
    "kind": value_at("problem_type", to="single_label_classification"),
    "labels": value_at("labels", to=["disc"]),
    "other labels": value_at("labels", to=["disc", "square", "moon"]),
    "total": value_at("total_images", to=3),
    "short column": lambda value: value["images"]["cells"].pop(),
    "long columns": value_at("images", "path", to=["x"] * (MAX_IMAGES + 1)),
    "many cells": value_at("images", "cells", 0, to=[[0, 0.5, True, True]] * 41),
    "cell of no label": value_at("images", "cells", 0, to=[[3, 0.5, True, True]]),
    "cell that is a number": value_at("images", "cells", 0, to=[[0, 0.5, 1, True]]),
    "cell of nothing": value_at("images", "cells", 0, to=[[0, 0.5, True, None]]),
    "probability": value_at("images", "cells", 0, to=[[0, 1.5, True, True]]),
    "short cell": value_at("images", "cells", 0, to=[[0, 0.5, True]]),
    "unknown": value_at("images", "unknown", 0, to=4),
    "set": value_at("images", "set_index", 0, to=2),
    "evaluation": value_at("evaluations", 0, "name", to="test"),
    "counts": lambda value: value["evaluations"][0]["counts"].pop(),
    "negative count": value_at("evaluations", 0, "counts", 0, 0, to=-1),
    "curve": value_at("evaluations", 0, "curves", 0, "label", to=3),
    "points": value_at("evaluations", 0, "curves", 0, "points", to=[[0.5, 2]]),
    "pairs": value_at("evaluations", 0, "true_pairs", to=[[0, 3, 1]]),
    "many pairs": value_at("evaluations", 0, "said_pairs", to=[[0, 0, 1]] * 1601),
    "suspect": value_at("suspects", 0, "kind", to="other"),
    "suspect of no certainty": value_at("suspects", 0, "is_likely", to="yes"),
    "suspect of nothing": value_at("suspects", 0, "images", to=[]),
    "suspect of no image": value_at("suspects", 0, "images", to=[110]),
    "suspect counts": value_at("suspect_counts", to={"missing": -1}),
    "thumbnail": value_at("thumbnails", to={"0": "PHN2Zz4="}),
    "thumbnail of no image": value_at("thumbnails", to={"110": ""}),
    "sprite": value_at("sprite", "jpeg", to="not base64 <"),
    "seconds": value_at("seconds", to="1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(folder, name):
    value = json.loads((folder / "report.json").read_text("utf-8"))
    DAMAGE[name](value)
    (folder / "report.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(ModelError) as error_info:
        report.rewrite_report(folder)
    assert "\n" not in str(error_info.value)
    assert str(folder) in str(error_info.value)
    assert not (folder / "report.html").exists()


def test_the_report_of_the_other_kind_is_refused(label_fit, label_report, fitted, fit_report, tmp_path):
    folder, folder_with_report = tmp_path / "labels", tmp_path / "classes"
    label_fit.save(folder)
    fitted.save(folder_with_report)
    write_label_data(label_report, folder)
    write_data(fit_report, folder_with_report)
    files = [path / "report.json" for path in (folder, folder_with_report)]
    contents = [file.read_bytes() for file in files]
    for path, file, content in zip((folder, folder_with_report), files, reversed(contents), strict=True):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"report\.json is damaged"):
            report.rewrite_report(path)


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_names_remain_text(label_fit, label_report, first):
    names = HOSTILE[first:] + HOSTILE[:first]
    images = tuple(replace(image, path=names[i % len(names)]) for i, image in enumerate(label_report.images))
    hostile = replace(label_report, labels=tuple(names[:3]), images=images, date=names[3])
    run = {
        **label_fit.model.run,
        "labels": names[0],
        "backbone": {"id": names[1]},
        "cut": [names[2]],
        "author": names[4],
    }
    run["data"] = {"uri": names[5]}
    run["candidates"] = [{"taps": [names[0]], "kind": names[1], names[2]: names[3], "log_loss": 1.0}]
    original = ParsedPage(page_of(label_report, label_fit.model))
    page = page_of(hostile, label_fit.model, names[0], run)
    parsed = ParsedPage(page)
    assert set(parsed.tags) == set(original.tags)
    assert parsed.tags.count("script") == original.tags.count("script") == 2
    assert {(tag, name) for tag, name, _ in parsed.attributes} <= {(tag, name) for tag, name, _ in original.attributes}
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on") or name == "style"]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    data = json.loads(next(text for tag, text in parsed.texts if tag == "script"))
    assert len(data["paths"]) == 110
    assert "49" not in data["labelNames"]


METRICS = (None, [], {"validation": None}, {"validation": {"per_label": [1, 2, 3], "micro_f1": {"value": "x"}}})


@pytest.mark.parametrize("metrics", METRICS)
def test_a_damaged_run_leaves_out_what_it_lacks(label_fit, label_report, metrics):
    parsed = ParsedPage(page_of(label_report, label_fit.model, run={"metrics": metrics, "labels": 3, "candidates": 5}))
    text = " ".join(text for _, text in parsed.texts)
    assert "run.json contains no metrics." in text
    assert "Labels to check" in text


def test_metrics_that_contradict_each_other_are_left_out(label_fit, label_report):
    run = json.loads(json.dumps(label_fit.model.run))
    for metrics in run["metrics"].values():
        metrics["mean_average_precision"] = {"value": 0.5, "interval": [0.6, 0.7]}
    assert "run.json contains no metrics." in page_of(label_report, label_fit.model, run=run)


def test_ten_thousand_images_of_many_labels_make_a_page_of_bounded_size(label_fit, label_report):
    rng = np.random.default_rng(0)
    count, labels = MAX_IMAGES, 300
    cells = tuple(Cell(int(c), 0.5, True, bool(c % 2)) for c in rng.choice(labels, 40, replace=False))
    images = tuple(LabelledImage(f"folder/{i:06}.jpg", i % 2, i, cells, 0) for i in range(count))
    summaries = tuple(
        replace(s, counts=s.counts[:1] * labels, true_pairs=(), said_pairs=()) for s in label_report.evaluations
    )
    thresholds = replace(label_fit.model.label_thresholds, thresholds=(0.5,) * labels, is_promised=(True,) * labels)
    large = replace(
        label_report, labels=tuple(f"label {c}" for c in range(labels)), images=images, evaluations=summaries
    )
    page = render_labels(large, thresholds, {}, "large")
    assert len(page) < 15e6
    assert "the 100 labels with the lowest average precision, of 300" in page
