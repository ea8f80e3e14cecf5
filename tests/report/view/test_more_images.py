"""Advice how many more images of a class to add."""

import numpy as np
import pytest

from headstart.report.view.more_images import more_images
from headstart.report.view.run_values import RunValues


def run_with(counts, errors):
    points = [
        {"pictures": int(sum(c)), "per_class": [int(n) for n in c], "class_accuracy": [1 - float(s) for s in e]}
        for c, e in zip(counts, errors, strict=True)
    ]
    return RunValues({"learning_curve": {"points": points}})


def test_the_number_is_the_first_round_one_that_saves_a_fifth_of_the_errors():
    counts = np.array([[20, 20], [40, 40], [80, 80], [100, 100]])
    errors = np.stack([4 * counts[:, 0] ** -0.8, 0.3 * counts[:, 1] ** -0.05], axis=1)
    first, second = more_images(run_with(counts, errors), 2)
    # 100 * 1.25 ** (1 / 0.8) = 132.2 images would do: 20 more are too few, 50 are enough.
    assert (second.class_index, second.few, second.now, second.more) == (0, 20, 100, 50)
    assert second.now_error == pytest.approx(4 * 100**-0.8)
    assert second.expected_error == pytest.approx(4 * 150**-0.8)
    # This class has more errors, but twice the images would leave 0.966 of them.
    assert (first.class_index, first.more) == (1, None)
    assert first.expected_error == pytest.approx(0.3 * 200**-0.05)


def test_classes_with_next_to_no_errors_get_no_advice():
    counts = np.array([[20, 20], [100, 100]])
    assert more_images(run_with(counts, [[0.2, 0.2], [0.0, 0.02]]), 2) == []


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        [{"per_class": [10, 10], "class_accuracy": [0.5, 0.5]}],
        [{"per_class": [10, 10]}, {"per_class": [20, 20]}],
        [{"per_class": [10, 10], "class_accuracy": [0.5, 2]}, {"per_class": [20, 20], "class_accuracy": [0.5, 0.5]}],
        [{"per_class": [0, 10], "class_accuracy": [0.5, 0.5]}, {"per_class": [20, 20], "class_accuracy": [0.5, 0.5]}],
        [{"per_class": [30, 30], "class_accuracy": [0.5, 0.5]}, {"per_class": [20, 20], "class_accuracy": [0.5, 0.5]}],
        ["x", 3],
    ],
)
def test_a_run_without_usable_points_gives_no_advice(points):
    assert more_images(RunValues({"learning_curve": {"points": points}}), 2) == []


def test_the_interval_lies_on_the_power_law_through_its_bounds():
    counts = np.array([[20, 20], [40, 40], [80, 80], [100, 100]])
    errors = np.stack([4 * counts[:, 0] ** -0.8, 0.01 + 0 * counts[:, 1]], axis=1)
    run = run_with(counts, errors)
    bounds = {size: (1 - 5 * size**-0.75, 1 - 3 * size**-0.85) for size in (100, 200)}
    curve = run.get("learning_curve")
    curve["points"][-1]["class_interval"] = [list(bounds[100]), None]
    curve["expectation"] = {"per_class": [200, 200], "class_interval": [list(bounds[200]), None]}
    (advice,) = more_images(run, 2)
    assert advice.more == 50
    assert advice.interval == pytest.approx((3 * 150**-0.85, 5 * 150**-0.75))
    for broken in (None, [], ["x", None], [[0.9, 0.5], None], [[0.5, 2.0], None], {"0": [0.1, 0.2]}):
        curve["expectation"]["class_interval"] = broken
        (advice,) = more_images(run, 2)
        assert advice.interval is None
        assert advice.more == 50
