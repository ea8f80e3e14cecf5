"""Lines about a fit that the user must see."""

import numpy as np
import pytest

from headstart.classifier.notes import coverage_notes
from headstart.stats.conformal import ConformalThresholds


def thresholds(coverage=0.95, set_thresholds=(0.2, 0.3), false_alarms=0.05, reject_threshold=0.4):
    return ConformalThresholds(coverage, set_thresholds, false_alarms, reject_threshold)


@pytest.mark.parametrize("sizes", [[3] * 19, [1] * 40, [2, 3] * 15])
def test_enough_groups_of_similar_size_need_no_note(sizes):
    assert coverage_notes(thresholds(), np.repeat(np.arange(len(sizes)), sizes)) == []


def test_groups_of_very_different_size_are_told_with_how_many_they_are_worth():
    sizes = [60] * 3 + [1] * 30  # 210 images: 210 ** 2 / (3 * 3600 + 30) = 4.07
    (note,) = coverage_notes(thresholds(), np.repeat(np.arange(33), sizes))
    assert "33 groups tell as much as 4 of equal size, and 19 are needed" in note
    assert coverage_notes(thresholds(0.5, false_alarms=0.0), np.repeat(np.arange(33), sizes)) == []


def test_too_few_groups_are_told_for_each_target():
    impossible = thresholds(set_thresholds=(0.0, 0.0), reject_threshold=float("inf"))
    coverage, rejection = coverage_notes(impossible, np.repeat(np.arange(10), 4))
    assert coverage.startswith("10 groups of images are too few for a coverage of 95%")
    assert rejection.startswith("10 groups of images are too few for a false-rejection rate of 5%")
