"""``--precision auto`` takes int8 where it is faster by more than the test costs, and shown to be no worse."""

from dataclasses import replace

import numpy as np
import pytest

from headstart import Compute, FitOptions, backbones, fit_dataset, open_dataset
from headstart.classifier import precision
from headstart.classifier.precision import decide, draw_by_content, is_worth_a_test
from headstart.data import from_images
from headstart.features import embed
from headstart.features import runtime as runtimes

RNG = np.random.default_rng(0)


def planted(increase, noise, groups, per_group=2):
    """Losses of images in groups of equal size, without and with int8, whose difference has this mean exactly."""
    base = RNG.exponential(0.2, groups * per_group)
    by_group = RNG.normal(0, noise, groups)
    difference = np.repeat(by_group - by_group.mean() + increase, per_group)
    return base, base + difference, np.repeat(np.arange(groups), per_group)


def test_int8_is_taken_where_the_bound_is_below_the_margin():
    choice = decide(*planted(0.001, 0.02, 100), "fp32", (100.0, 300.0))
    assert choice.precision == "int8"
    assert choice.increase == pytest.approx(0.001)
    # One standard error of a mean of groups is 0.02 / sqrt(100) = 0.002, whatever the images in them.
    assert choice.upper == pytest.approx(0.001 + 1.645 * 0.002, abs=0.0008)
    assert (choice.images, choice.groups) == (200, 100)
    assert choice.reason.startswith("3.0 times as fast here, and on 200 images of 100 groups the log-loss changes")


def test_a_worse_int8_is_refused_however_many_the_groups():
    choice = decide(*planted(0.012, 0.001, 1000), "bf16", (100.0, 300.0))
    assert choice.precision == "bf16"
    assert choice.upper == pytest.approx(0.012, abs=1e-3)
    assert choice.reason.startswith("int8 is not as good: on 2,000 images")


def test_too_few_groups_cannot_show_that_int8_is_as_good():
    losses, int8_losses, groups = planted(0.0, 0.05, 20)
    choice = decide(losses, int8_losses, groups, "fp32", (100.0, 300.0))
    assert choice.precision == "fp32"
    assert choice.reason.startswith("too few groups to tell")
    one = decide(losses, losses, np.zeros(len(losses), int), "fp32", (100.0, 300.0))
    assert (one.precision, one.upper) == ("fp32", float("inf"))
    # The images of a group count once: the same losses, each image by itself, would pass.
    apart = decide(*planted(0.0, 0.05, 20)[:2], np.arange(40), "fp32", (100.0, 300.0))
    assert apart.upper < choice.upper


def test_int8_that_is_not_faster_or_saves_less_than_the_test_takes_is_not_tested():
    assert is_worth_a_test(100_000, 100.0, 300.0)
    assert not is_worth_a_test(100_000, 100.0, 119.0)
    assert not is_worth_a_test(100_000, 300.0, 100.0)
    # 1,000 images: 800 of them save 800 * (1/100 - 1/300) = 5.3 s; 200 in int8 and the rest take 0.7 + 4 s.
    assert is_worth_a_test(1000, 100.0, 300.0)
    assert not is_worth_a_test(800, 100.0, 300.0)


@pytest.fixture
def images(photos, monkeypatch):
    """A dataset of which a fit tests int8, since so few images are enough here and the int8 network so much faster."""
    monkeypatch.setattr(precision, "MIN_IMAGES", 10)
    monkeypatch.setattr(precision, "SHARE", 2)
    monkeypatch.setattr(precision, "TRIAL_SECONDS", 0.0)
    speeds = {"fp32": 1.0, "int8": 3.0}
    monkeypatch.setattr(precision, "_remembered_speed", lambda backbone, _: speeds[backbone.precision])
    return open_dataset(photos)


def counted(calls):
    """``embed``, which notes how many images at which precision it was asked for."""

    def extract(dataset, backbone, compute, **options):
        calls.append((len(dataset), backbone.precision, compute.precision))
        return embed(dataset, backbone, compute, **options)

    return extract


@pytest.mark.parametrize("margin", [10.0, -10.0])
def test_a_fit_takes_what_the_test_shows_and_records_it(images, monkeypatch, margin):
    monkeypatch.setattr(precision, "MARGIN", margin)
    calls = []
    options = FitOptions(compute=Compute("onnxruntime"), cache=False)
    result = fit_dataset(images, options, extract=counted(calls))
    taken = "int8" if margin > 0 else "fp32"
    assert calls[:2] == [(14, "fp32", "auto"), (14, "int8", "int8")]
    assert calls[2:] == [(40, "int8", "int8") if margin > 0 else (40, "fp32", "auto")]
    assert result.model.precision == result.data.backbone.precision == result.model.run["runtime"]["precision"] == taken
    record = result.model.run["precision_choice"]
    assert (record["precision"], record["images"], record["speeds"]) == (taken, 14, [1.0, 3.0])
    assert sum(note.startswith(f"Features are computed in {taken}: ") for note in result.notes) == 1


def test_a_given_precision_and_few_images_are_not_tested(images, monkeypatch):
    for options in (FitOptions(compute=Compute("onnxruntime", "fp32"), cache=False), FitOptions(cache=False)):
        calls = []
        result = fit_dataset(images, options, extract=counted(calls))
        assert len(calls) == 1
        assert result.model.run["precision_choice"] is None
        monkeypatch.setattr(precision, "MIN_IMAGES", 1000)


@pytest.mark.parametrize("runtime", ["auto", "onnxruntime-cuda"])
def test_int8_is_not_tested_where_a_gpu_computes(images, monkeypatch, runtime):
    monkeypatch.setattr(runtimes, "has_cuda_provider", lambda: True)
    runtimes.resolve_runtime.cache_clear()
    measured, calls = [], []
    monkeypatch.setattr(precision, "_remembered_speed", lambda backbone, _: measured.append(backbone.precision) or 1.0)
    backbone, options = backbones.load("headstart-s"), FitOptions(compute=Compute(runtime), cache=False)
    try:
        assert options.compute.resolve().name == "onnxruntime-cuda"
        chosen = precision.choose_precision(images, backbone, options, counted(calls), None)
    finally:
        runtimes.resolve_runtime.cache_clear()
    assert chosen == (backbone, options.compute, None)
    assert (measured, calls) == ([], [])


def test_an_int8_that_is_not_faster_is_not_tested_and_recorded_without_a_note(images, monkeypatch):
    monkeypatch.setattr(precision, "_remembered_speed", lambda *_: 100.0)
    result = fit_dataset(images, FitOptions(compute=Compute("onnxruntime"), cache=False))
    assert result.model.precision == "fp32"
    assert result.model.run["precision_choice"]["reason"] == "int8 is 1.0 times as fast here, too little for 40 images"
    assert not any(note.startswith("Features are computed in") for note in result.notes)


def test_int8_is_not_even_measured_where_it_could_not_save_the_test(images, monkeypatch):
    monkeypatch.setattr(precision, "TRIAL_SECONDS", 20.0)  # 40 images at one a second: 20 of them save at most 15 s
    measured = []
    monkeypatch.setattr(precision, "_remembered_speed", lambda backbone, _: measured.append(backbone.precision) or 1.0)
    result = fit_dataset(images, FitOptions(compute=Compute("onnxruntime"), cache=False))
    assert measured == ["fp32"]
    assert result.model.run["precision_choice"] is None


def test_a_measured_speed_is_remembered(monkeypatch):
    backbone, compute = backbones.load("headstart-s"), Compute("onnxruntime")
    rates = iter([123.0, 456.0, 789.0])
    monkeypatch.setattr(precision, "images_per_second", lambda *_: next(rates))
    assert [precision._remembered_speed(backbone, compute) for _ in range(2)] == [123.0, 123.0]
    other = replace(backbone, sha256="0" * 64)
    assert precision._remembered_speed(other, compute) == 456.0
    assert precision._remembered_speed(backbone, replace(compute, workers=7)) == 789.0


def test_images_are_drawn_by_their_contents():
    arrays = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
    order = RNG.permutation(40)
    drawn = draw_by_content(from_images(list(arrays)), 10, seed=3)
    from_others = draw_by_content(from_images([arrays[i] for i in order]), 10, seed=3)
    contents = [drawn.read(i).tobytes() for i in range(10)]
    assert contents == [from_others.read(i).tobytes() for i in range(10)]
    assert len(set(contents)) == 10
    with_other_seed = draw_by_content(from_images(list(arrays)), 10, seed=4)
    assert {with_other_seed.read(i).tobytes() for i in range(10)} != set(contents)
