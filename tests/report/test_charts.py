"""Charts: marks are where the numbers are."""

import re

import pytest

from headstart.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    LearningPoint,
    interval_bar,
    learning_curve,
    reliability_diagram,
    risk_coverage_curve,
    scale_start,
)
from headstart.report.data import ReliabilityBin


def numbers(chart, attribute):
    return [float(value) for value in re.findall(rf' {attribute}="([-\d.]+)"', chart)]


def ticks(chart, anchor):
    return re.findall(rf'<text class="tick"[^>]*text-anchor="{anchor}">([^<]+)</text>', chart)


@pytest.mark.parametrize(("low", "start"), [(0.3, "0%"), (0.6, "50%"), (0.95, "90%")])
def test_the_interval_bar_starts_below_the_interval(low, start):
    chart = interval_bar(0.97, low, 0.99, scale_start([0.97, low]))
    assert ticks(chart, "start") == [start]
    assert numbers(chart, "cx")[0] > numbers(chart, "x")[0]
    assert f"97.0%, 95% interval {low:.1%} to 99.0%" in chart


def test_reliability_markers_are_at_confidence_and_accuracy():
    first, second = ReliabilityBin(10, 0.5, 1.0, 0.7, 1.0), ReliabilityBin(10, 1.0, 0.0, 0.0, 0.3)
    chart = reliability_diagram([[first], [second]])
    assert (numbers(chart, "cx"), numbers(chart, "cy")) == ([(LEFT + WIDTH - RIGHT) / 2], [TOP])
    square = re.search(r'<rect class="dot s1 " x="([\d.]+)" y="([\d.]+)"', chart)
    assert (float(square[1]), float(square[2])) == (WIDTH - RIGHT - 4, HEIGHT - BOTTOM - 4)


def test_the_risk_axis_ends_at_a_round_number_above_the_curve():
    chart = risk_coverage_curve([[(0.5, 0.01), (1.0, 0.092)]])
    assert ticks(chart, "end") == ["0%", "5%", "10%", "15%", "20%"]


@pytest.mark.parametrize(
    ("lowest", "labels"),
    [(0.82, ["75%", "80%", "85%", "90%", "95%", "100%"]), (0.5, ["50%", "60%", "70%", "80%", "90%", "100%"])],
)
def test_ticks_of_the_learning_curve_are_round_numbers(lowest, labels):
    measured = [LearningPoint(count, 0.9, lowest, 0.95) for count in (50, 100)]
    chart = learning_curve(measured, [LearningPoint(400, 0.92, 0.9, 0.95)])
    assert ticks(chart, "end") == labels[::-1]
    assert ticks(chart, "middle") == ["50", "100", "200"]  # round numbers within the range, not the points themselves
    assert 'class="line s0 expected"' in chart
    whiskers = re.findall(r'class="whisker s0 expected" x1="([\d.]+)"[^>]*y1="([\d.]+)" y2="([\d.]+)"', chart)
    hollow = re.search(r'<circle class="dot s0 hollow" cx="([\d.]+)" cy="([\d.]+)"', chart)
    ((x, low, high),) = whiskers
    assert x == hollow[1]
    assert float(low) > float(hollow[2]) > float(high)  # pixels count from the top


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        (33, 187, ["50", "100", "200"]),
        (49, 147, ["50", "100"]),
        (3, 9_000, ["10", "100", "1,000", "10,000"]),
    ],
)
def test_counts_on_the_axis_of_the_learning_curve_are_round(first, last, labels):
    chart = learning_curve([LearningPoint(first, 0.8, 0.7, 0.9), LearningPoint(last, 0.9, 0.8, 0.95)], [])
    assert ticks(chart, "middle") == labels
