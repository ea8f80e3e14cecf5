"""Every closed form against the computation that it stands for, done the long way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from headstart.errors import DataError, OptionError
from headstart.heads.centroid import centroid_in_basis, held_out_centroid, solve_centroid
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Targets
from headstart.heads.lda import held_out_lda, lda_in_basis, solve_lda
from headstart.heads.logistic import fit_logistic, held_out_logistic
from headstart.heads.ood import held_out_ood_scores
from headstart.heads.random_features import draw_random_features
from headstart.heads.ridge import dropout_penalty, held_out_ridge, ridge_in_basis, solve_ridge
from headstart.heads.statistics import Statistics
from headstart.heads.vectors import Vectors


def problem(seed=0, n=40, d=12, classes=3, groups=13):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    x = rng.normal(size=(n, d)) * np.geomspace(0.3, 3, d) + rng.normal(size=(classes, d))[labels] + 2
    return x, labels, rng.permutation(np.arange(n) % groups)


def ridge_by_hand(x, labels, classes, penalty):
    """Augmented least squares: rows sqrt(penalty) * e_j with target 0, and an unpenalised column of ones."""
    n, d = x.shape
    rows = np.vstack(
        [np.c_[x, np.ones(n)], np.c_[np.diag(np.sqrt(np.broadcast_to(penalty, d).astype(float))), np.zeros(d)]]
    )
    targets = np.vstack([np.eye(classes)[labels], np.zeros((d, classes))])
    solution = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return solution[:-1], solution[-1]


def lda_by_hand(x, labels, classes, shrinkage):
    """Log of prior times normal density, with the pooled covariance written out."""
    counts = np.bincount(labels, minlength=classes)
    means = np.array([x[labels == c].mean(axis=0) for c in range(classes)])
    away = x - means[labels]
    covariance = (away.T @ away + shrinkage * np.eye(x.shape[1])) / len(x)
    inverse = np.linalg.inv(covariance)

    def scores(new):
        return np.stack(
            [
                np.log(counts[c] / len(x)) - 0.5 * np.einsum("nd,de,ne->n", new - means[c], inverse, new - means[c])
                for c in range(classes)
            ],
            axis=1,
        )

    return scores


def test_ridge_is_augmented_least_squares():
    x, labels, _ = problem()
    for penalty in (0.01, 1.0, np.linspace(0.1, 5, 12)):
        weights, bias = solve_ridge(Statistics.of(x, labels, 3), penalty)
        expected = ridge_by_hand(x, labels, 3, penalty)
        np.testing.assert_allclose(weights, expected[0], atol=1e-10)
        np.testing.assert_allclose(bias, expected[1], atol=1e-10)


def test_ridge_without_penalty_is_the_shortest_least_squares_solution():
    x, labels, _ = problem(n=10, d=20)
    weights, bias = solve_ridge(Statistics.of(x, labels, 3), 0.0)
    np.testing.assert_allclose(x @ weights + bias, np.eye(3)[labels], atol=1e-6)


def test_lda_ranks_as_the_normal_densities_do():
    x, labels, _ = problem(n=60, d=5)
    weights, bias = solve_lda(Statistics.of(x, labels, 3), 0.7)
    expected = lda_by_hand(x, labels, 3, 0.7)(x)
    got = x @ weights + bias
    np.testing.assert_allclose(
        got - logsumexp(got, axis=1, keepdims=True), expected - logsumexp(expected, axis=1, keepdims=True), atol=1e-9
    )


def test_lda_agrees_with_scikit_learn():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, labels, _ = problem(n=60, d=5)
    weights, bias = solve_lda(Statistics.of(x, labels, 3), 1e-9)
    ours = x @ weights + bias
    ours = np.exp(ours - logsumexp(ours, axis=1, keepdims=True))
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, labels)
    # scikit-learn weighs class covariances by priors, that is the within scatter over n: the same as ours.
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=1e-6)


def test_centroid_is_the_nearest_mean():
    x, labels, _ = problem()
    weights, bias = solve_centroid(Statistics.of(x, labels, 3))
    means = np.array([x[labels == c].mean(axis=0) for c in range(3)])
    distances = ((x[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_allclose(-2 * (x @ weights + bias) + (x**2).sum(axis=1, keepdims=True), distances, atol=1e-9)


def test_statistics_of_seven_shuffled_parts_give_the_same_head():
    x, labels, _ = problem(n=91)
    rng = np.random.default_rng(5)
    parts = np.array_split(rng.permutation(91), 7)
    merged = Statistics.of(x[parts[0]], labels[parts[0]], 3)
    for part in [parts[i] for i in rng.permutation(range(1, 7))]:
        merged = Statistics.of(x[part], labels[part], 3) + merged
    whole = Statistics.of(x, labels, 3)
    assert merged.count == 91
    np.testing.assert_array_equal(merged.counts, whole.counts)
    for fit in (lambda s: solve_ridge(s, 0.3), lambda s: solve_lda(s, 0.3), solve_centroid):
        for got, expected in zip(fit(merged), fit(whole), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


def test_subtracting_pictures_is_fitting_without_them():
    x, labels, _ = problem(n=50)
    gone = np.arange(0, 50, 6)
    stay = np.setdiff1d(np.arange(50), gone)
    less = Statistics.of(x, labels, 3) - Statistics.of(x[gone], labels[gone], 3)
    again = Statistics.of(x[stay], labels[stay], 3)
    for fit in (lambda s: solve_ridge(s, 0.3), lambda s: solve_lda(s, 0.3), solve_centroid):
        for got, expected in zip(fit(less), fit(again), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


def test_subtracting_what_was_never_added_is_refused():
    x, labels, _ = problem(n=20)
    with pytest.raises(DataError, match="subtract only what was added"):
        _ = Statistics.of(x[:5], labels[:5], 3) - Statistics.of(x, labels, 3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 6), st.integers(1, 5))
def test_statistics_add_and_subtract_in_any_split(seed, n, d, classes):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, d)), rng.integers(0, classes, n)
    cut = int(rng.integers(0, n + 1))
    first, second = Statistics.of(x[:cut], labels[:cut], classes), Statistics.of(x[cut:], labels[cut:], classes)
    whole = Statistics.of(x, labels, classes)
    for a, b in ((first + second, whole), (whole - second, first)):
        np.testing.assert_array_equal(a.counts, b.counts)
        np.testing.assert_allclose(a.sums, b.sums, atol=1e-9)
        np.testing.assert_allclose(a.gram, b.gram, atol=1e-9)


def test_dropout_is_the_mean_over_sampled_masks():
    """Squared loss averaged over 10,000 inverted-dropout masks has its minimum where the closed form says."""
    rng = np.random.default_rng(0)
    x, labels, rate = rng.normal(size=(30, 4)) + 1, np.arange(30) % 2, 0.4
    centred = x - x.mean(axis=0)
    targets = np.eye(2)[labels] - 0.5
    gram, cross = np.zeros((4, 4)), np.zeros((4, 2))
    for _ in range(10_000):
        masked = centred * (rng.random(centred.shape) >= rate) / (1 - rate)
        gram += masked.T @ masked / 10_000
        cross += masked.T @ targets / 10_000
    sampled = np.linalg.solve(gram, cross)
    statistics = Statistics.of(centred, labels, 2)
    weights, _ = solve_ridge(statistics, dropout_penalty(statistics, rate))
    np.testing.assert_allclose(weights, sampled, atol=0.02 * np.abs(weights).max())
    plain, _ = solve_ridge(statistics, 0.0)
    assert np.abs(plain - sampled).max() > 0.1 * np.abs(weights).max()  # the test can tell them apart


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_rates_that_mean_nothing_are_refused(rate):
    x, labels, _ = problem()
    with pytest.raises(OptionError, match="Dropout rate"):
        dropout_penalty(Statistics.of(x, labels, 3), rate)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (25, 60), (25, 25)])
@pytest.mark.parametrize("by_group", [True, False])
def test_ridge_left_out_is_a_refit(n, d, by_group):
    x, labels, groups = problem(n=n, d=d)
    groups = groups if by_group else np.arange(n)
    basis = Eigenbasis.of(x)
    scores = held_out_ridge(basis, Targets(labels, 3, groups), [0.1, 5.0])
    for place, penalty in enumerate([0.1, 5.0]):
        for group in np.unique(groups):
            out, stay = groups == group, groups != group
            weights, bias = ridge_by_hand(x[stay], labels[stay], 3, penalty)
            np.testing.assert_allclose(scores[place, out], x[out] @ weights + bias, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (25, 60)])
@pytest.mark.parametrize("by_group", [True, False])
def test_lda_left_out_is_a_refit(n, d, by_group):
    x, labels, groups = problem(n=n, d=d)
    groups = groups if by_group else np.arange(n)
    scores = held_out_lda(Eigenbasis.of(x), Targets(labels, 3, groups), [0.5, 10.0])
    for place, shrinkage in enumerate([0.5, 10.0]):
        for group in np.unique(groups):
            out, stay = groups == group, groups != group
            weights, bias = solve_lda(Statistics.of(x[stay], labels[stay], 3), shrinkage)
            expected, got = x[out] @ weights + bias, scores[place, out]
            np.testing.assert_allclose(
                got - got.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=1e-6
            )


def test_centroid_left_out_is_a_refit():
    x, labels, groups = problem()
    scores = held_out_centroid(Eigenbasis.of(x), Targets(labels, 3, groups))
    for group in np.unique(groups):
        out, stay = groups == group, groups != group
        weights, bias = solve_centroid(Statistics.of(x[stay], labels[stay], 3))
        expected, got = x[out] @ weights + bias, scores[out]
        np.testing.assert_allclose(
            got - got.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=1e-9
        )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(6, 20), st.integers(1, 12), st.integers(2, 6))
def test_left_out_is_a_refit_whatever_the_groups(seed, n, d, groups):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    x, index = rng.normal(size=(n, d)), rng.integers(0, groups, n)
    if len(np.unique(index)) < 2:
        return
    scores = held_out_ridge(Eigenbasis.of(x), Targets(labels, 2, index), [0.7])[0]
    for group in np.unique(index):
        out, stay = index == group, index != group
        weights, bias = ridge_by_hand(x[stay], labels[stay], 2, 0.7)
        np.testing.assert_allclose(scores[out], x[out] @ weights + bias, atol=1e-7)


def test_the_intercept_does_not_make_every_left_out_score_perfect():
    """With the constant direction left in the smoother, noise would look learnable as the penalty goes to zero."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(30, 200)), rng.permutation(np.arange(30) % 2)
    scores = held_out_ridge(Eigenbasis.of(x), Targets(labels, 2, np.arange(30)), [1e-6])[0]
    assert (scores.argmax(axis=1) == labels).mean() < 0.8


@pytest.fixture(params=[{}, {"LARGE_GROUP": 4, "CHUNK_SIZE": 20}], ids=["in one piece", "in blocks"])
def limits(request, monkeypatch):
    """Limits of large groups and of blocks as they are, and so low that small groups are large and come in blocks."""
    for name, value in request.param.items():
        monkeypatch.setattr(f"headstart.heads.leave_one_group_out.{name}", value)


@pytest.mark.parametrize("sizes", [(300, 257, 120, 3, 1), (90, 20, 7, 3, 1), (9, 9, 9)])
def test_a_group_larger_than_its_vectors_are_wide_is_left_out_all_the_same(limits, sizes):
    """Some of these groups are refitted and some not; a class goes with its group."""
    groups = np.random.default_rng(2).permutation(np.repeat(np.arange(len(sizes)), sizes))
    x, labels, _ = problem(n=len(groups), d=5)
    labels = np.where(groups == 0, 2, labels % 2)
    basis = Eigenbasis.of(x)
    found = {
        "ridge": held_out_ridge(basis, Targets(labels, 3, groups), [0.1, 5.0]),
        "lda": held_out_lda(basis, Targets(labels, 3, groups), [0.5, 10.0]),
        "centroid": held_out_centroid(basis, Targets(labels, 3, groups))[None],
    }
    for group in np.unique(groups):
        out, stay = groups == group, groups != group
        others = Statistics.of(x[stay], labels[stay], 3)
        refits = {
            "ridge": [ridge_by_hand(x[stay], labels[stay], 3, penalty) for penalty in (0.1, 5.0)],
            "lda": [solve_lda(others, shrinkage) for shrinkage in (0.5, 10.0)],
            "centroid": [solve_centroid(others)],
        }
        for kind, heads in refits.items():
            for got, (weights, bias) in zip(found[kind][:, out], heads, strict=True):
                expected = x[out] @ weights + bias
                gone = np.isneginf(expected)
                expected = np.where(gone, np.where(gone, np.inf, expected).min(axis=1, keepdims=True), expected)
                if kind != "ridge":  # known but for what all classes share
                    got, expected = (a - a.mean(axis=1, keepdims=True) for a in (got, expected))
                np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["lda", "centroid"])
def test_a_class_that_vanishes_with_its_group_gets_the_lowest_score(kind):
    x, labels, groups = problem()
    groups = np.where(labels == 2, 99, groups)
    basis = Eigenbasis.of(x)
    if kind == "lda":
        scores = held_out_lda(basis, Targets(labels, 3, groups), [1.0])[0]
    else:
        scores = held_out_centroid(basis, Targets(labels, 3, groups))
    assert np.isfinite(scores).all()
    gone = scores[labels == 2]
    assert (gone[:, 2] <= gone[:, :2].min(axis=1)).all()


def test_basis_turns_vectors_without_changing_distances():
    for n, d in ((30, 8), (8, 30), (5, 5)):
        x = np.random.default_rng(n).normal(size=(n, d)) + 3
        basis = Eigenbasis.of(x)
        centred = x - x.mean(axis=0)
        coordinates = basis.project(slice(None))
        np.testing.assert_allclose(coordinates @ coordinates.T, centred @ centred.T, atol=1e-9)
        np.testing.assert_allclose((coordinates**2).sum(axis=0), basis.eigenvalues, rtol=1e-9)
        np.testing.assert_allclose(basis.project(np.array([[2, 0]])), coordinates[[[2, 0]]], atol=1e-9)
        targets = np.random.default_rng(1).normal(size=(n, 3))
        np.testing.assert_allclose(basis.products(targets), coordinates.T @ targets, atol=1e-9)
        inner = np.random.default_rng(0).normal(size=(len(basis.eigenvalues), 2))
        np.testing.assert_allclose(centred @ basis.weights(inner), coordinates @ inner, atol=1e-8)


def test_basis_of_equal_vectors_is_empty_and_of_none_fails_nowhere():
    basis = Eigenbasis.of(np.ones((4, 3)))
    assert basis.project(slice(None)).shape[0] == 4
    scores = held_out_ridge(basis, Targets(np.array([0, 1, 0, 1]), 2, np.arange(4)), [1.0])
    assert np.isfinite(scores).all()
    basis, labels, groups = Eigenbasis.of(np.ones((600, 3))), np.arange(600) % 2, np.arange(600) // 300
    for scores in (
        held_out_ridge(basis, Targets(labels, 2, groups), [1.0]),
        held_out_lda(basis, Targets(labels, 2, groups), [1.0]),
        held_out_centroid(basis, Targets(labels, 2, groups)),
        held_out_ood_scores(basis, groups),
    ):
        assert np.isfinite(scores).all()


def test_logistic_agrees_with_scikit_learn_for_two_and_three_classes():
    from sklearn.linear_model import LogisticRegression

    for classes in (2, 3):
        x, labels, _ = problem(classes=classes)
        weights, bias = fit_logistic(x, labels, classes, 0.5)
        got = x @ weights + bias
        got = np.exp(got - logsumexp(got, axis=1, keepdims=True))
        expected = LogisticRegression(C=0.5, max_iter=2000).fit(x, labels).predict_proba(x)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_logistic_folds_keep_groups_whole():
    """Two copies of every picture in one group: labels are noise, so held-out answers must be no better."""
    rng = np.random.default_rng(3)
    x = np.repeat(rng.normal(size=(60, 40)), 2, axis=0)
    labels, groups = np.repeat(rng.permutation(np.arange(60) % 2), 2), np.repeat(np.arange(60), 2)
    by_group = held_out_logistic(x, Targets(labels, 2, groups), [10.0])[0]
    by_picture = held_out_logistic(x, Targets(labels, 2, np.arange(120)), [10.0])[0]
    assert (by_group.argmax(axis=1) == labels).mean() < 0.7
    assert (by_picture.argmax(axis=1) == labels).mean() > 0.8


def test_expansion_is_seeded_and_bends():
    x = np.random.default_rng(0).normal(size=(50, 6)) + 4
    matrix, offset = draw_random_features(Vectors.of(x), 32, seed=1)
    again = draw_random_features(Vectors.of(x), 32, seed=1)
    np.testing.assert_array_equal(matrix, again[0])
    np.testing.assert_array_equal(offset, again[1])
    active = (x @ matrix + offset > 0).mean(axis=0)
    assert ((active > 0.02) & (active < 0.98)).mean() > 0.8  # most units bend within the data


def test_vectors_in_blocks_are_the_vectors_at_once():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 4)).astype(np.float16), rng.normal(size=(300, 3)).astype(np.float32)
    scales, bend = rng.uniform(1, 2, 7), (rng.normal(size=(7, 5)), rng.normal(size=5))
    whole = np.concatenate([a.astype(float), b.astype(float)], axis=1) * scales
    for vectors, expected in (
        (Vectors((a, b), scales, block_size=700), whole),
        (Vectors((a, b), scales, bend, block_size=700), np.maximum(whole @ bend[0] + bend[1], 0)),
    ):
        assert len(list(vectors.blocks())) > 2
        np.testing.assert_allclose(np.concatenate([vectors.rows(s) for s in vectors.blocks()]), expected)
        np.testing.assert_allclose(vectors.moments()[0], expected.mean(axis=0))
        np.testing.assert_allclose(vectors.moments()[1], (expected**2).mean(axis=0))
        np.testing.assert_allclose(vectors.products(whole), expected.T @ whole)
        labels = np.arange(300) % 3
        basis = Eigenbasis.of(vectors)
        np.testing.assert_allclose(
            held_out_ridge(basis, Targets(labels, 3, labels * 50 + np.arange(300) // 6), [0.4]),
            held_out_ridge(Eigenbasis.of(expected), Targets(labels, 3, labels * 50 + np.arange(300) // 6), [0.4]),
            atol=1e-8,
        )


@pytest.mark.parametrize(("count", "width"), [(40, 90), (300, 20)])
def test_the_whole_head_from_the_basis_is_that_of_the_statistics(count, width):
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((count, width)) + 3, np.arange(count) % 3
    x[:, 0] = x[:, 1]  # a direction in which nothing varies
    basis, statistics = Eigenbasis.of(x), Statistics.of(x - x.mean(axis=0), labels, 3)
    pairs = [
        (ridge_in_basis(basis, Targets(labels, 3, labels), 0.7), solve_ridge(statistics, 0.7)),
        (lda_in_basis(basis, Targets(labels, 3, labels), 0.7), solve_lda(statistics, 0.7)),
        (centroid_in_basis(basis, Targets(labels, 3, labels)), solve_centroid(statistics)),
    ]
    points = rng.standard_normal((10, width)) + 3
    for (weights, bias), (exact, offset) in pairs:
        np.testing.assert_allclose(weights, exact, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(points @ weights + bias, (points - x.mean(axis=0)) @ exact + offset, rtol=1e-8)
