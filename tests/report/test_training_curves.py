"""Training curves: the numbers are where they should be, in text, in the SVG, and as they are read from run.json."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.report import training_svg
from headstart.report.training_curves import Curve, Curves, curves_svg, curves_text, epoch_ticks, round_step
from headstart.report.view.run_values import RunValues
from headstart.report.view.training import read_training_curves

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("training images", "groups left out")


def curves(*accuracies, title=""):
    """Curves of these accuracies, whose losses are what is missing to 1."""
    named = list(zip(NAMES, accuracies, strict=False))
    losses = [(name, tuple(None if a is None else 1 - a for a in values)) for name, values in named]
    return Curves(title, *(tuple(Curve(name, tuple(values)) for name, values in part) for part in (named, losses)))


def epoch(number, accuracy, **further):
    return {"number": number, "accuracy": accuracy, "loss": 1 - accuracy, **further}


def rows_of(text, quantity):
    """The rows of the chart of a quantity: label and cells, the highest first."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{quantity} by epoch"))
    rows = []
    for line in lines[start + 1 :]:
        if "└" in line:
            return rows
        label, cells = line[:9].strip(), line[10:]
        rows.append((label, cells))
    raise AssertionError("no axis")


def test_marks_are_at_their_values():
    text = curves_text(curves([0.6, 0.8, 1.0], [0.6, 0.7, 0.7]))
    assert text.splitlines()[0] == "accuracy by epoch: x training images, o groups left out, * both"
    rows = rows_of(text, "accuracy")
    assert [label for label, _ in rows if label] == ["100%", "90%", "80%", "70%", "60%"]
    found = {(label, column): cells[column] for label, cells in rows for column in range(len(cells)) if label}
    assert {key: mark for key, mark in found.items() if mark != " "} == {
        ("60%", 0): "*",
        ("80%", 3): "x",
        ("70%", 3): "o",
        ("100%", 6): "x",
        ("70%", 6): "o",
    }
    assert text.splitlines()[len(rows) + 2].split() == ["epoch", "1", "2", "3"]
    assert [label for label, _ in rows_of(text, "loss") if label] == ["0.4", "0.3", "0.2", "0.1", "0"]


def test_many_epochs_are_averaged_to_the_width_and_gaps_stay_empty():
    rows = rows_of(curves_text(curves([i / 1000 for i in range(1000)])), "accuracy")
    assert max(len(cells) for _, cells in rows) == 60
    assert rows[0][1].strip() == "xxx"  # of the averages of 16 or 17 epochs, those above 95%
    rows = rows_of(curves_text(curves([0.5, 0.6, 0.7], [None, 0.6, None])), "accuracy")
    assert sum(cells.count("*") for _, cells in rows) == 1
    assert not any("o" in cells for _, cells in rows)


def test_one_epoch_is_reported_as_a_sentence():
    assert curves_text(curves([0.7], [0.6], title="mean of 3 folds")) == (
        "after one epoch, mean of 3 folds: accuracy 70.0% (training images), accuracy 60.0% (groups left out), "
        "loss 0.3 (training images), loss 0.4 (groups left out)"
    )
    circles = ElementTree.fromstring(curves_svg(curves([0.7], [0.6]))).findall(f".//{SVG}circle")
    assert len(circles) == 4


def test_the_svg_has_a_line_per_curve_through_every_epoch_with_ticks_and_a_legend():
    root = ElementTree.fromstring(curves_svg(curves([0.5, 0.6, 0.9, 1.0], [0.5, 0.5, 0.6, 0.7])))
    lines = root.findall(f".//{SVG}polyline")
    assert len(lines) == 4
    points = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points").split()]
    assert [x for x, _ in points] == pytest.approx([62, 62 + 356 / 3, 62 + 712 / 3, 418], abs=0.1)
    # The axis goes from 50% at 274 to 100% at 62.
    assert [y for _, y in points] == pytest.approx([274, 274 - 42.4, 62 + 42.4, 62], abs=0.1)
    words = [text.text for text in root.findall(f".//{SVG}text")]
    assert words.count("training images") == words.count("groups left out") == 2
    assert {"50%", "60%", "70%", "80%", "90%", "100%", "0", "0.5"} <= set(words)
    assert words.count("epoch") == 2
    assert words.count("4") == 2


def test_equal_values_are_drawn():
    assert "x" in curves_text(curves([1.0, 1.0]))
    ElementTree.fromstring(curves_svg(curves([1.0, 1.0])))


@given(st.floats(1e-6, 1e6))
def test_steps_are_round_and_the_smallest_that_are_large_enough(span):
    step = round_step(span)
    assert step * 5 >= span * (1 - 1e-6)
    mantissa = float(f"{step:e}".split("e")[0])
    assert mantissa in (1, 2, 5)
    smaller = step / (2.5 if mantissa == 5 else 2)
    assert smaller * 5 < span * (1 + 1e-6)


@given(st.integers(1, 100_000))
def test_epochs_on_the_axis_are_few_and_in_order(epochs):
    ticks = epoch_ticks(epochs)
    assert ticks[0] == 1
    assert ticks[-1] == epochs
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 8


def test_curves_are_those_of_the_training_with_what_was_held_out():
    history = [epoch(1, 0.5, held_out_accuracy=0.4, held_out_loss=0.9), epoch(2, 0.9, held_out_accuracy=0.6)]
    read = read_training_curves(RunValues({"training": history}))
    assert read.title == ""
    assert read.accuracy == (Curve("training images", (0.5, 0.9)), Curve("groups left out", (0.4, 0.6)))
    assert read.loss == (Curve("training images", (0.5, pytest.approx(0.1))), Curve("groups left out", (0.9, None)))


def test_curves_of_a_fine_tuning_are_the_means_of_its_folds_and_a_fold_that_stopped_counts_on():
    trainings = {
        "fold 1 of 2": [epoch(1, 0.5, held_out_accuracy=0.4)],
        "fold 2 of 2": [epoch(1, 0.7, held_out_accuracy=0.6), epoch(2, 0.9, held_out_accuracy=0.8)],
        "all images": [epoch(1, 0.1)],
    }
    read = read_training_curves(RunValues({"training": [], "fine_tuning": {"trainings": trainings}}))
    assert read.title == "mean of 2 folds"
    assert [curve.values for curve in read.accuracy] == [
        pytest.approx((0.6, 0.7)),
        pytest.approx((0.5, 0.6)),
    ]


def test_a_damaged_run_has_no_curves_and_a_model_that_was_solved_says_so():
    for training in (None, [], "x", [1, 2], [{"accuracy": "a", "loss": 1}], [{"accuracy": 2.0, "loss": 0.1}]):
        assert read_training_curves(RunValues({"training": training})) is None
    with pytest.raises(OptionError, match="solved, not trained"):
        training_svg({"training": []})
    assert "<polyline" in training_svg({"training": [epoch(1, 0.5), epoch(2, 0.6)]})


def test_a_table_has_at_most_two_hundred_rows_and_the_last_epoch():
    assert curves([0.5] * 7).listed_epochs == list(range(1, 8))
    listed = curves([0.5] * 1001).listed_epochs
    assert len(listed) <= 200
    assert listed[-1] == 1001
