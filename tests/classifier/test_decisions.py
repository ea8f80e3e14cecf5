"""A fit with class weights, costs or thresholds: whatever is measured, stored and printed is of the model as it is."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

import headstart as hs
from headstart.classifier import FitOptions, fit_dataset
from headstart.classifier.fit import FitTimes, make_result
from headstart.classifier.notes import imbalance_notes
from headstart.errors import MissingExtraError, ModelError
from headstart.features import Compute
from headstart.features.runtime import load_graph
from headstart.heads.head import weigh
from headstart.images.decoding import decode
from headstart.model.folder import read_model, write_model
from headstart.report.gather import gather
from headstart.stats.classification import classification_metrics
from headstart.stats.conformal import fit_thresholds
from headstart.stats.decision import DecisionRule

COSTS = {"disc": {"disc": 0.0, "stripes": 1.0}, "stripes": {"disc": 20.0, "stripes": 0.5}}
WEIGHTS = {"disc": 1.0, "stripes": 3.0}


@pytest.fixture(scope="module")
def weighted(photos):
    """The fit of ``fitted`` with class weights and costs."""
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False, class_weight=WEIGHTS, costs=COSTS)
    return fit_dataset(hs.open_dataset(photos), options)


@pytest.fixture(scope="module")
def folder(weighted, tmp_path_factory):
    return write_model(weighted.model, tmp_path_factory.mktemp("weighted") / "model")


@pytest.fixture
def pixels(weighted, photos):
    dataset = hs.open_dataset(photos).split("validation")
    return np.stack([weighted.model.preprocess(decode(dataset.read(i))) for i in range(len(dataset))])


def test_held_out_probabilities_and_the_model_are_weighted_in_the_same_way(fitted, weighted):
    weights = np.array([1.0, 3])
    for name in ("leave_group_out", "validation"):
        before = fitted.evaluations[name].predictions.probabilities
        after = weighted.evaluations[name].predictions.probabilities
        np.testing.assert_allclose(after, weigh(before, weights), atol=1e-6)
    np.testing.assert_allclose(weighted.selected.probabilities, weigh(fitted.selected.probabilities, weights))
    np.testing.assert_allclose(
        weighted.model.head.bias - fitted.model.head.bias, fitted.model.head.temperature * np.log(weights), atol=1e-6
    )
    np.testing.assert_array_equal(weighted.model.head.weights, fitted.model.head.weights)
    np.testing.assert_allclose(weighted.selected.unweighted_head.bias, fitted.model.head.bias, atol=1e-6)


def test_thresholds_are_those_of_the_weighted_probabilities(weighted):
    split, selected = weighted.data.split, weighted.selected
    expected = fit_thresholds(
        selected.probabilities, split.labels, split.groups.index, selected.ood_scores, coverage=0.95, false_alarms=0.05
    )
    assert weighted.model.thresholds == expected


def test_what_is_measured_is_measured_on_decisions(weighted):
    costs = np.array([[0, 1], [20, 0.5]])
    for name, evaluation in weighted.evaluations.items():
        predictions = evaluation.predictions
        decided = np.array([(p @ costs).argmin() for p in predictions.probabilities])
        np.testing.assert_array_equal(predictions.predicted, decided)
        assert evaluation.accuracy.correct == (decided == predictions.truth).sum()
        assert evaluation.confusion[:, 0].sum() == (decided == 0).sum()
        assert evaluation.cost.value == pytest.approx(costs[predictions.truth, decided].mean())
        assert weighted.model.run["cost"][name] == evaluation.cost.to_dict()
    left_out = weighted.evaluations["leave_group_out"]
    assert left_out.predictions.predicted.sum() > left_out.predictions.probabilities.argmax(axis=1).sum()
    assert weighted.learning_curve.points[-1].accuracy == pytest.approx(left_out.accuracy.value)


def test_the_program_of_the_card_prints_the_class_that_is_predicted(weighted, folder, photos, tmp_path):
    predictions = weighted.evaluations["validation"].predictions
    is_against = predictions.predicted != predictions.probabilities.argmax(axis=1)
    place = int(np.flatnonzero(is_against)[0])
    copy = shutil.copytree(folder, tmp_path / "model")
    shutil.copy(photos / predictions.paths[place], copy / "new.jpg")
    code = (copy / "README.md").read_text("utf-8").partition("    import json")[2].partition("\n\n`golden.npz`")[0]
    program = f"import json{code}".replace("\n    ", "\n")
    ran = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    name, probability = ran.stdout.split()
    best = int(predictions.predicted[place])
    assert name == predictions.classes[best]
    assert float(probability) == pytest.approx(predictions.probabilities[place, best], abs=1e-4)


def test_run_card_and_report_name_weights_and_costs(weighted, folder):
    run = json.loads((folder / "run.json").read_text("utf-8"))
    assert run["class_weight"] == {"balanced": False, "weights": WEIGHTS}
    assert run["decision"]["matrix"] == [[0, -1], [-20, -0.5]]
    assert run["decision"]["description"] == "Decisions minimise given costs"
    card = (folder / "README.md").read_text("utf-8")
    assert "Decisions minimise given costs" in card
    assert f"mean cost: {weighted.evaluations['validation'].cost.value:.4g} per image" in card
    from headstart.report.view.accuracy import facts
    from headstart.report.view.run_values import RunValues

    report = gather(weighted)
    rows = dict(facts(report, RunValues(run)))
    assert rows["Decision"] == "Decisions minimise given costs"
    assert rows["Mean cost, validation images"].startswith(f"{run['cost']['validation']['value']:.4g} per image")
    predictions = weighted.evaluations["validation"].predictions
    shown = [image for image in report.images if image.set_index == 0]
    for i, (path, image) in enumerate(zip(predictions.paths, shown, strict=True)):
        assert path.endswith(image.path)
        assert image.predicted_class == predictions.predicted[i]
        assert image.second_class != image.predicted_class
        assert image.confidence == pytest.approx(predictions.confidence[i], abs=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_graph_decides_as_numpy_does(weighted, pixels, runtime):
    try:
        graph = load_graph(weighted.model.graph, Compute(runtime, "fp32"))
    except MissingExtraError as error:
        pytest.skip(str(error))
    outputs = graph.run(pixels)
    expected = weighted.model.rule.decide(outputs["probabilities"].astype(np.float64))
    np.testing.assert_array_equal(outputs["decision"], expected)
    assert expected.sum() > 0


def test_the_decision_of_the_graph_is_an_int64_for_each_image(weighted, pixels):
    session = onnxruntime.InferenceSession(weighted.model.graph)
    decision = session.get_outputs()[2]
    assert (decision.name, decision.type, decision.shape) == ("decision", "tensor(int64)", ["batch"])
    assert session.run(["decision"], {"pixels": pixels[:5]})[0].shape == (5,)


def test_a_model_without_a_rule_has_no_decision(fitted):
    assert fitted.model.rule is None
    assert [o.name for o in onnxruntime.InferenceSession(fitted.model.graph).get_outputs()] == [
        "probabilities",
        "distance",
    ]
    assert not {"decision", "class_weight", "cost"} & set(fitted.model.run)


def test_the_rule_is_read_back_and_obeyed(weighted, folder, photos):
    model = read_model(folder)
    np.testing.assert_array_equal(model.rule.matrix, weighted.model.rule.matrix)
    classifier = hs.load(folder)
    predictions = classifier.predict_dataset(photos / "validation")
    evaluation = classifier.evaluate(photos / "validation")
    np.testing.assert_array_equal(
        classifier.predict(photos / "validation"), np.take(model.classes, predictions.predicted)
    )
    np.testing.assert_array_equal(evaluation.predictions.predicted, predictions.predicted)
    assert evaluation.cost.value == pytest.approx(weighted.evaluations["validation"].cost.value, abs=1e-6)
    assert evaluation.to_dict()["cost"]["count"] == 12
    assert predictions.ranking(0)[0] == predictions.predicted[0]
    assert sorted(predictions.ranking(0)) == [0, 1]
    members = predictions.thresholds.sets(predictions.probabilities)
    np.testing.assert_array_equal(predictions.sets, members)


DAMAGED = {
    "NaN": {"matrix": [[0, float("nan")], [-1, 0]]},
    "a row for each of three classes": {"matrix": [[0, -1, -1], [-1, 0, -1], [-1, -1, 0]]},
    "no matrix": {"matrix": None},
    "another kind": {"kind": "exec"},
    "a number too large": {"matrix": [[0, -(10**400)], [-1, 0]]},
    "a correct prediction that costs more": {"matrix": [[-2, -1], [-1, -2]]},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_rule_in_a_model_folder_is_refused(folder, tmp_path, change):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["decision"].update(change)
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_model(copy)
    config["decision"] = []
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_model(copy)


def test_thresholds_decide_and_have_no_cost(fitted):
    from headstart.classifier.class_settings import ClassSettings

    settings = ClassSettings.of(None, None, {"stripes": 0.01}, fitted.data.split.classes)
    result = make_result(fitted.options, replace(fitted.data, settings=settings), fitted.selected, FitTimes(0.0, 0.0))
    evaluation = result.evaluations["validation"]
    np.testing.assert_array_equal(evaluation.predictions.predicted, evaluation.predictions.probabilities[:, 1] > 0.01)
    assert evaluation.cost is None
    assert "cost" not in result.model.run
    assert result.model.run["decision"]["description"] == "Decisions follow thresholds: disc 0.99, stripes 0.01"
    assert isinstance(result.model.rule, DecisionRule)


def test_uneven_classes_that_are_missed_get_a_hint_where_nothing_is_set(weighted, fitted):
    truth = np.array([0] * 9 + [1])
    metrics = classification_metrics(truth, np.zeros(10, int), ["horse", "human"])
    assert "--class-weight balanced" in imbalance_notes(metrics, fitted.data.settings)[0]
    assert imbalance_notes(metrics, weighted.data.settings) == []
    even = classification_metrics(np.array([0, 1]), np.zeros(2, int), ["horse", "human"])
    assert imbalance_notes(even, fitted.data.settings) == []
