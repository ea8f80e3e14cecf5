"""The test of drift against sums of probabilities, and how often it alarms for nothing."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.serve.drift import ALARM, WINDOW, Drift, binomial_tail


@given(st.integers(1, 60), st.data(), st.fractions(0, 1, max_denominator=50))
def test_the_tail_is_the_sum_of_its_probabilities(n, data, share):
    count = data.draw(st.integers(0, n))
    exact = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))
    if 0 < share < 1:
        assert binomial_tail(count, n, float(share)) == pytest.approx(float(Fraction(exact)), rel=1e-6, abs=1e-300)


def test_only_the_last_images_count():
    drift = Drift(0.05)
    drift.add([True] * 100)
    assert drift.is_alarm
    drift.add([False] * WINDOW)
    assert drift.to_dict() == {
        "images": WINDOW,
        "rejected": 0,
        "expected": 0.05,
        "p_value": 1.0,
        "is_alarm": False,
    }


def test_a_doubled_share_is_noticed_and_the_promised_one_is_not():
    random = np.random.default_rng(0)
    promised, doubled = Drift(0.05), Drift(0.05)
    promised.add(random.random(WINDOW) < 0.05)
    doubled.add(random.random(WINDOW) < 0.1)
    assert not promised.is_alarm
    assert doubled.is_alarm


def test_streams_without_drift_cause_no_alarm():
    random = np.random.default_rng(1)
    bound = next(k for k in range(WINDOW) if binomial_tail(k, WINDOW, 0.05) < ALARM)
    for _ in range(20):
        sums = np.cumsum(random.random(100_000) < 0.05)
        assert (sums[WINDOW:] - sums[:-WINDOW]).max() < bound
