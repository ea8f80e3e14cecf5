"""A head from statistics alone, against the same from the rows by brute force."""

import numpy as np
import pytest

from headstart.errors import DataError, OptionError
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.from_statistics import PENALTIES, TapStatistics, exact_scatter, fit_statistics
from headstart.heads.integers import IntegerVectors
from headstart.heads.ood import fit_ood
from headstart.heads.statistics import Statistics
from headstart.heads.vectors import Vectors, one_hot

EXPONENTS = {"early": (-3,) * 5, "late": (-6, -5, -6, -7, -6, -6, -5, -6, -6)}


@pytest.fixture
def rows():
    """Whole numbers [n, 14] of two taps, their real values, and labels [n] of three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    integers = np.rint(rng.normal(size=(3, 14))[labels] * 40 + rng.normal(size=(150, 14)) * 60 + 90).astype(np.int16)
    steps = np.concatenate([np.ldexp(1.0, exponents) for exponents in EXPONENTS.values()])
    return integers, integers * steps, labels


def summed(integers, labels, exponents=EXPONENTS):
    vectors = IntegerVectors(integers, np.concatenate(list(exponents.values())))
    return TapStatistics(exponents, Statistics.of(vectors, labels, 3))


@pytest.mark.parametrize(("count", "told"), [(0, "of no images"), (4, "of one class")])
def test_fewer_than_two_classes_are_an_error(rows, count, told):
    integers, _, labels = rows
    with pytest.raises(DataError, match=told):
        fit_statistics(summed(integers[:count], np.zeros_like(labels[:count])))


def standardised(x):
    """Scale each tap to a total variance of 1, and centre."""
    parts = [part / np.sqrt(part.var(axis=0).sum()) for part in np.split(x, [5], axis=1)]
    scaled = np.concatenate(parts, axis=1)
    return scaled - scaled.mean(axis=0)


def test_the_penalty_is_that_of_generalised_cross_validation_of_the_rows(rows):
    integers, x, labels = rows
    fit = fit_statistics(summed(integers, labels))
    z, y = standardised(x), one_hot(labels, 3)
    unit = (z**2).sum() / len(z)
    for penalty, error in fit.criterion.items():
        smoother = z @ np.linalg.inv(z.T @ z + penalty * unit * np.eye(14)) @ z.T + 1 / len(z)
        residual = y - smoother @ y
        expected = (residual**2).sum() / len(z) / (1 - np.trace(smoother) / len(z)) ** 2
        assert error == pytest.approx(expected, rel=1e-9)
    assert tuple(fit.criterion) == PENALTIES
    assert fit.head.settings["penalty"] == min(fit.criterion, key=fit.criterion.get)
    assert fit.head.temperature == pytest.approx(min(fit.criterion.values()) / 3)


def test_the_head_is_ridge_on_the_rows(rows):
    integers, x, labels = rows
    head = fit_statistics(summed(integers, labels)).head
    z, y = standardised(x), one_hot(labels, 3)
    penalty = head.settings["penalty"] * (z**2).sum() / len(z)
    scores = z @ np.linalg.solve(z.T @ z + penalty * np.eye(14), z.T @ y) + y.mean(axis=0)
    np.testing.assert_allclose(head.scores(x), scores, atol=2e-6)
    assert head.taps == ("early", "late")


def test_dropout_gives_the_penalty(rows):
    integers, x, labels = rows
    fit = fit_statistics(summed(integers, labels), dropout=0.3)
    centred, y = x - x.mean(axis=0), one_hot(labels, 3)
    system = centred.T @ centred + np.diag(0.3 / 0.7 * (x**2).sum(axis=0))
    expected = centred @ np.linalg.solve(system, centred.T @ y) + y.mean(axis=0)
    np.testing.assert_allclose(fit.head.scores(x), expected, atol=2e-6)
    assert fit.head.temperature == pytest.approx(((y - expected) ** 2).sum() / len(x) / 3, rel=1e-5)
    assert (fit.criterion, fit.head.settings) == ({}, {"dropout": 0.3})
    with pytest.raises(OptionError):
        fit_statistics(summed(integers, labels), dropout=1.0)


def test_the_detector_is_that_of_the_rows_of_the_deepest_tap(rows):
    integers, x, labels = rows
    ood = fit_statistics(summed(integers, labels)).ood
    late = x[:, 5:]
    expected = fit_ood(Eigenbasis.of(Vectors((late,), np.full(9, 1 / np.sqrt(late.var(axis=0).sum()))))).behind(5)
    far = np.concatenate([x, x * 3, -x])
    np.testing.assert_allclose(ood.scores(far), expected.scores(far), atol=1e-3)  # its factor is float16


def test_all_is_the_same_bytes_for_any_parts_and_order(rows):
    integers, _, labels = rows
    whole = fit_statistics(summed(integers, labels))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(labels))
        cuts = np.array_split(order, seed + 1)
        parts = [summed(integers[cut], labels[cut]).statistics for cut in cuts]
        fit = fit_statistics(TapStatistics(EXPONENTS, Statistics.merged(parts)))
        for one, other in ((fit.head, whole.head), (fit.ood, whole.ood)):
            for name, value in vars(one).items():
                if isinstance(value, np.ndarray):
                    assert value.tobytes() == getattr(other, name).tobytes(), name
        assert fit.head.temperature == whole.head.temperature


def test_a_cut_takes_its_part(rows):
    integers, _, labels = rows
    late = {"late": EXPONENTS["late"]}
    own, part = summed(integers[:, 5:], labels, late), summed(integers, labels).select(("late",))
    np.testing.assert_array_equal(own.statistics.gram, part.statistics.gram)
    np.testing.assert_array_equal(own.statistics.sums, part.statistics.sums)
    assert part.taps == late
    with pytest.raises(OptionError, match=r"Unknown cut 'x'; these statistics are of early, late"):
        part = summed(integers, labels).select(("x",))


def test_the_scatter_is_exact_far_from_zero():
    integers = (np.random.default_rng(0).integers(-3, 4, (5000, 4)) + 32_000).astype(np.int16)
    found = exact_scatter(summed(integers, np.zeros(5000, np.int64), {"a": (0,) * 4}).statistics)
    centred = integers - integers.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found, centred.T @ centred, rtol=1e-12, atol=1e-7)


def test_what_cannot_be_fitted_is_refused(rows):
    integers, _, labels = rows
    with pytest.raises(DataError, match="one class"):
        fit_statistics(summed(integers, np.zeros_like(labels)))
    with pytest.raises(DataError, match="same features"):
        fit_statistics(summed(np.full_like(integers, 7), labels))


def test_fewer_images_than_numbers_can_be_fitted(rows):
    integers, x, labels = rows
    fit = fit_statistics(summed(integers[:8], labels[:8]))
    assert np.isfinite(fit.head.weights).all()
    assert min(fit.criterion.values()) < float("inf")
    assert np.isfinite(fit.ood.scores(x)).all()
