"""Accuracies and key facts of a run."""

import pytest

from headstart.report.view.accuracy import facts, headlines, intervals_are_disjoint
from headstart.report.view.run_values import RunValues


def accuracy(low, value, high):
    return {"correct": 9, "count": 10, "value": value, "interval": [low, high], "method": "Wilson"}


def test_accuracies_are_those_of_the_run(fitted):
    validation, training = headlines(RunValues(fitted.model.run))
    assert validation.title == "validation images"
    assert training.title == "training images, group left out"
    for headline, name in ((validation, "validation"), (training, "leave_group_out")):
        expected = fitted.model.run["accuracy"][name]
        assert (headline.correct, headline.count) == (expected["correct"], expected["count"])
        assert [headline.low, headline.high] == expected["interval"]


@pytest.mark.parametrize(
    "damage", [{"value": 1.2}, {"value": 0.1}, {"interval": [0.9]}, {"count": 0}, {"correct": "9"}]
)
def test_an_inconsistent_accuracy_is_left_out(damage):
    run = {"accuracy": {"validation": {**accuracy(0.8, 0.9, 0.95), **damage}}}
    assert headlines(RunValues(run)) == []


def test_intervals_that_do_not_overlap_are_noticed():
    def disjoint(first, second):
        run = {"accuracy": {"validation": accuracy(*first), "leave_group_out": accuracy(*second)}}
        return intervals_are_disjoint(headlines(RunValues(run)))

    assert disjoint((0.5, 0.6, 0.7), (0.8, 0.9, 0.95))
    assert not disjoint((0.5, 0.6, 0.85), (0.8, 0.9, 0.95))


def test_facts_name_images_groups_and_a_fine_tuned_backbone(fit_report):
    run = {
        "images": {"train": 1200, "validation": 0},
        "groups": {"count": 1000, "largest": 12},
        "backbone": {"id": "net"},
        "fine_tuning": {"kept": "fine-tuned"},
        "head": {"kind": "ridge"},
        "cut": ["a", "b"],
        "seconds": {"total": 3.21},
    }
    assert facts(fit_report, RunValues(run)) == [
        ("Classes", "2"),
        ("Images", "1,200 training"),
        ("Groups", "1,000, the largest of 12"),
        ("Backbone", "net, fine-tuned"),
        ("Head", "ridge on a, b"),
        ("Fit time", "3.2 s"),
    ]


def test_of_an_average_the_kinds_and_the_number_of_heads_are_named(fit_report):
    kept = [{"kind": "lda", "weight": 0.25}, {"kind": "ridge", "weight": 0.5}, {"kind": "ridge", "weight": 0.25}]
    run = {"head": {"kind": "average"}, "cut": ["a"], "candidates": [*kept, {"kind": "mlp", "weight": 0.0}]}
    assert ("Head", "ridge and lda (average of 3) on a") in facts(fit_report, RunValues(run))
    damaged = {**run, "candidates": [1, {"weight": "0.5"}, {"kind": "ridge", "weight": 1.0}]}
    assert ("Head", "average on a") in facts(fit_report, RunValues(damaged))
