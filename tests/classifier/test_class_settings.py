"""Class weights, costs and thresholds, checked against the names of the classes."""

import numpy as np
import pytest

import headstart as hs
from headstart.classifier.class_settings import ClassSettings
from headstart.classifier.fit import FitOptions
from headstart.errors import OptionError
from headstart.heads.mlp import MlpConfig

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0] * 6 + [1] * 3 + [2])
COSTS = {
    "cat": {"cat": 0, "dog": 1, "owl": 2},
    "dog": {"cat": 3, "dog": 0, "owl": 4},
    "owl": {"cat": 5, "dog": 6, "owl": 0},
}


def settings(weights=None, costs=None, thresholds=None):
    return ClassSettings.of(weights, costs, thresholds, CLASSES)


def test_nothing_is_set_by_default():
    assert settings() == ClassSettings()
    assert settings().class_weights(CLASSES, LABELS) is None
    assert settings().rule(CLASSES) is None
    assert settings().to_dict(CLASSES, LABELS) == {}


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(settings("balanced").class_weights(CLASSES, LABELS), expected)


def test_weights_and_costs_come_in_the_order_of_the_classes(tmp_path):
    np.testing.assert_array_equal(settings({"owl": 3, "cat": 1, "dog": 2}).class_weights(CLASSES, LABELS), [1, 2, 3])
    rule = settings(costs={name: COSTS[name] for name in ("owl", "cat", "dog")}).rule(CLASSES)
    np.testing.assert_array_equal(rule.costs, [[0, 1, 2], [3, 0, 4], [5, 6, 0]])
    (tmp_path / "prices.csv").write_text("truth,owl,dog,cat\ndog,4,0,3\ncat,2,1,0\nowl,0,6,5\n")
    from_file = settings(costs=tmp_path / "prices.csv").rule(CLASSES)
    np.testing.assert_array_equal(from_file.costs, rule.costs)
    assert from_file.describe(CLASSES) == "Decisions minimise the costs in prices.csv"


def test_classes_without_a_readable_image_are_left_out():
    left = ("cat", "owl")
    np.testing.assert_array_equal(settings(costs=COSTS).rule(left).costs, [[0, 2], [5, 0]])
    np.testing.assert_array_equal(settings({"owl": 3, "cat": 1, "dog": 2}).class_weights(left, LABELS), [1, 3])
    assert settings(thresholds={"dog": 0.2}).rule(left) is None


def test_thresholds_of_some_classes():
    rule = settings(thresholds={"owl": 0.1, "cat": 0.6}).rule(CLASSES)
    np.testing.assert_allclose(rule.thresholds, [0.6, 0.9, 0.1])
    assert rule.describe(CLASSES) == "Decisions follow thresholds: cat 0.6, dog 0.9, owl 0.1"


def test_labels_that_are_numbers_name_classes():
    given = ClassSettings.of({0: 1, 1: 9}, None, {1: 0.2}, ("0", "1"))
    np.testing.assert_array_equal(given.class_weights(("0", "1"), LABELS), [1, 9])
    np.testing.assert_allclose(given.rule(("0", "1")).thresholds, [0.8, 0.2])


def costs_with(truth, predicted, value):
    return {**COSTS, truth: {**COSTS[truth], predicted: value}}


BAD = {
    "an unknown class": (
        {"weights": {"cat": 1, "dog": 1, "owl": 1, "emu": 1}},
        "no class is called 'emu'; the classes",
    ),
    "a missing class": ({"weights": {"cat": 1, "dog": 1}}, "nothing is given for 'owl'"),
    "a weight of 0": ({"weights": {"cat": 0, "dog": 1, "owl": 1}}, "the weight of 'cat' is '0'"),
    "a negative weight": ({"weights": {"cat": -1, "dog": 1, "owl": 1}}, "above 0"),
    "a weight of NaN": ({"weights": {"cat": float("nan"), "dog": 1, "owl": 1}}, "the weight of 'cat' is 'nan'"),
    "an infinite weight": ({"weights": {"cat": float("inf"), "dog": 1, "owl": 1}}, "the weight of 'cat' is 'inf'"),
    "a huge weight": ({"weights": {"cat": 10**400, "dog": 1, "owl": 1}}, "the weight of 'cat'"),
    "a tiny weight": ({"weights": {"cat": 1e-7, "dog": 1, "owl": 1}}, "the weight of 'cat'"),
    "a text": ({"weights": {"cat": "1", "dog": 1, "owl": 1}}, "the weight of 'cat'"),
    "a boolean": ({"weights": {"cat": True, "dog": 1, "owl": 1}}, "the weight of 'cat'"),
    "a list of weights": ({"weights": [1, 2, 3]}, "class_weight .* cannot be used"),
    "a cost of NaN": ({"costs": costs_with("dog", "cat", float("nan"))}, "predicting 'cat' for 'dog' is 'nan'"),
    "a negative cost": ({"costs": costs_with("dog", "cat", -3)}, "predicting 'cat' for 'dog' is '-3'"),
    "a huge cost": ({"costs": costs_with("dog", "cat", 1e9)}, "predicting 'cat' for 'dog'"),
    "a dear correct prediction": ({"costs": costs_with("dog", "dog", 9)}, "correct prediction costs more"),
    "a row too few": ({"costs": {name: COSTS[name] for name in ("cat", "dog")}}, "nothing is given for 'owl'"),
    "a row too many": ({"costs": {**COSTS, "emu": COSTS["cat"]}}, "no class is called 'emu'"),
    "a column too many": ({"costs": costs_with("cat", "emu", 1)}, "the row of 'cat': no class is called 'emu'"),
    "a column too few": (
        {"costs": {**COSTS, "cat": {"cat": 0}}},
        "the row of 'cat': nothing is given for 'dog', 'owl'",
    ),
    "a row that is none": ({"costs": {**COSTS, "cat": 5}}, "cannot be used"),
    "costs of nothing": ({"costs": {c: dict.fromkeys(CLASSES, 0) for c in CLASSES}}, "decide nothing"),
    "an unknown threshold": ({"thresholds": {"emu": 0.5}}, "no class is called 'emu'"),
    "no thresholds": ({"thresholds": {}}, "between 0 and 1"),
    "a threshold of 1": ({"thresholds": {"cat": 1}}, "between 0 and 1"),
    "a threshold of NaN": ({"thresholds": {"cat": float("nan")}}, "between 0 and 1"),
    "a text for a threshold": ({"thresholds": {"cat": "low"}}, "between 0 and 1"),
    "a list of thresholds": ({"thresholds": [0.5]}, "cannot be used"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_named(case):
    arguments, message = BAD[case]
    with pytest.raises(OptionError, match=message) as info:
        settings(**arguments)
    assert "\n" not in str(info.value)


def test_a_file_is_named_in_the_message(tmp_path):
    (tmp_path / "w.csv").write_text("cat,1\ndog,nan\nowl,1\n")
    with pytest.raises(OptionError, match=r"w\.csv: the weight of 'dog' is 'nan'"):
        settings(str(tmp_path / "w.csv"))
    (tmp_path / "c.csv").write_text(",cat,dog,owl\ncat,0,1,1\ndog,1,0,-1\nowl,1,1,0\n")
    with pytest.raises(OptionError, match=r"c\.csv: the cost of predicting 'owl' for 'dog' is '-1\.0'"):
        settings(costs=str(tmp_path / "c.csv"))


def test_two_rules_and_two_weights_are_refused():
    with pytest.raises(OptionError, match="give one of them"):
        FitOptions(costs=COSTS, thresholds={"cat": 0.5})
    with pytest.raises(OptionError, match="weighted twice"):
        FitOptions(head="mlp", mlp=MlpConfig(class_weights=True), class_weight="balanced")


def test_a_fit_refuses_before_it_reads_the_images(photos, monkeypatch):
    monkeypatch.setattr("headstart.classifier.embedded.measure_sample_range", None)
    with pytest.raises(OptionError, match="no class is called 'zebra'"):
        hs.ImageClassifier("headstart-s", thresholds={"zebra": 0.5}, cache=False).fit(photos)


def test_scikit_learn_clones_the_parameters():
    from sklearn.base import clone

    classifier = hs.ImageClassifier(class_weight={"a": 1, "b": 2}, thresholds={"a": 0.2})
    assert clone(classifier).get_params() == classifier.get_params()
