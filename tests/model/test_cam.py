"""Where it looked, the curves and the map: closed forms against brute force."""

import numpy as np
import pytest
from helpers.graphs import saved
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import headstart as hs
from headstart import backbones
from headstart.features.cache import FeatureCache
from headstart.heads import Head
from headstart.model import cam as evidence
from headstart.report import charts
from headstart.report import projection as layout
from headstart.report import reliability as curves
from headstart.report.gather import gather
from headstart.report.page import render


def head_of(taps, widths, classes=3, seed=0, **more):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(sum(widths), classes)).astype(np.float32)
    return Head("ridge", taps, weights, rng.normal(size=classes).astype(np.float32), 0.7, **more)


def log_odds(head, vector, towards, against):
    probabilities = head.probabilities(vector[None].astype(np.float64))[0]
    return float(np.log(probabilities[towards]) - np.log(probabilities[against]))


# Where it looked


@pytest.mark.parametrize("taps", [("features",), ("stage5",), ("stage2", "features"), ("stage3", "stage4", "stage5")])
def test_places_and_bias_sum_to_the_score(taps):
    backbone = backbones.load("headstart-s")
    widths = {tap.name: tap.channels for tap in backbone.taps}
    head = head_of(taps, [widths[tap] for tap in taps])
    image = np.random.default_rng(1).integers(0, 256, (3, 160, 160, 3), np.uint8)
    found = evidence.maps(backbone, taps, list(image), [b"1", b"2", b"3"], None)
    pooled = _outputs(backbone, image)
    for i, own in enumerate(found):
        vector = np.concatenate([pooled[tap][i] for tap in taps])
        for towards, against in ((0, 1), (2, 0)):
            grid, bias = evidence.contributions(head, own, towards, against)
            assert grid.shape == max(own[tap].shape[:2] for tap in taps)
            assert grid.sum() + bias == pytest.approx(log_odds(head, vector, towards, against), abs=2e-4)
            back, other = evidence.contributions(head, own, against, towards)
            np.testing.assert_allclose(back, -grid)
            assert other == -bias


@pytest.mark.parametrize(
    "options", [{}, {"opset": 18}, {"channels_last": True}, {"batch": 2}, {"head": "Conv"}], ids=str
)
def test_places_of_any_onnx_network(tmp_path, options):
    backbone = backbones.load(f"onnx:{saved(tmp_path, **options)}")
    taps = tuple(tap.name for tap in backbone.taps if tap.size)
    head = head_of(taps, [tap.channels for tap in backbone.taps if tap.size])
    image = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert evidence.unavailable(backbone, head) == ""
    pooled = _outputs(backbone, image)
    for i, own in enumerate(evidence.maps(backbone, taps, list(image), [b"1", b"2", b"3"], None)):
        grid, bias = evidence.contributions(head, own, 1, 2)
        vector = np.concatenate([pooled[tap][i] for tap in taps])
        assert grid.sum() + bias == pytest.approx(log_odds(head, vector, 1, 2), abs=1e-4)


def test_a_place_counts_what_its_absence_takes_away():
    own = np.random.default_rng(0).normal(size=(4, 3, 6)).astype(np.float32)
    head = head_of(("a",), [6])
    grid, _ = evidence.contributions(head, {"a": own}, 0, 2)
    whole = log_odds(head, own.mean(axis=(0, 1)), 0, 2)
    for y, x in np.ndindex(4, 3):
        without = own.copy()
        without[y, x] = 0
        assert grid[y, x] == pytest.approx(whole - log_odds(head, without.mean(axis=(0, 1)), 0, 2), abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_a_coarse_place_is_spread_whole(fine, coarse):
    shares = evidence._shares(max(fine, coarse), min(fine, coarse))
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert shares.min() >= 0


def test_maps_are_kept(tmp_path):
    backbone = backbones.load("headstart-s")
    image = np.random.default_rng(1).integers(0, 256, (1, 160, 160, 3), np.uint8)
    with FeatureCache(tmp_path) as cache:
        first = evidence.maps(backbone, ("features",), list(image), [b"1"], cache)[0]["features"]
        again = evidence.maps(backbone, ("features",), [np.zeros_like(image[0])], [b"1"], cache)[0]["features"]
    np.testing.assert_allclose(again, first, rtol=1e-3, atol=1e-3)


def test_why_there_may_be_no_places(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}", taps=["flat"])
    bent = head_of(("features",), [12], expansion=(np.eye(12, dtype=np.float32), np.zeros(12, np.float32)))
    assert "bends its features" in evidence.unavailable(backbone, bent)
    assert "The cut flat is a vector" in evidence.unavailable(backbone, head_of(("flat",), [12]))
    assert evidence.unavailable(backbone, head_of(("features",), [12])) == ""


def test_a_report_without_places_says_why(photos, tmp_path):
    backbone = f"onnx:{saved(tmp_path)}"
    clf = hs.ImageClassifier(backbone, cut="flat", runtime="onnxruntime", cache=False).fit(photos)
    made = gather(clf)
    assert made.evidence == ()
    assert "The cut flat is a vector from the start" in render(made, clf.run_, "m")


def _outputs(backbone, image):
    from headstart.features.runtime import load_graph, run_padded

    return run_padded(load_graph(backbone.graph, runtime="onnxruntime", workers=1), image, backbone.batch)


# Curves and the map


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0])), st.randoms())
def test_risk_is_what_counting_gives(sure, random):
    right = np.array([random.random() < 0.7 for _ in sure])
    points = curves.risk(sure, right)
    assert points == tuple(
        (float((sure >= level).mean()), float((~right[sure >= level]).mean())) for level in sorted(set(sure))[::-1]
    )
    assert points[-1] == (1.0, float((~right).mean()))


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(0, 1)), st.randoms())
def test_reliability_counts_every_picture_once(sure, random):
    right = np.array([random.random() < 0.7 for _ in sure])
    bins = curves.reliability(sure, right)
    assert sum(b.count for b in bins) == len(sure)
    assert sum(b.count * b.right for b in bins) == pytest.approx(right.sum())
    assert sum(b.count * b.claimed for b in bins) == pytest.approx(sure.sum())
    assert all(b.low - 1e-9 <= b.right <= b.high + 1e-9 for b in bins)


def test_many_answers_keep_the_ends_of_the_curve():
    sure = np.random.default_rng(0).uniform(0.5, 1, 5000)
    right = np.random.default_rng(1).uniform(0, 1, 5000) < sure
    points = curves.risk(sure, right)
    assert len(points) <= curves.POINTS
    assert points[-1] == (1.0, float((~right).mean()))
    order = np.argsort(-sure)
    for coverage, risk in points:
        count = round(coverage * 5000)
        assert risk == pytest.approx((~right[order[:count]]).mean())


def test_the_map_is_the_principal_components():
    rows = np.random.default_rng(0).normal(size=(300, 40)) * np.linspace(5, 0.5, 40)
    points = layout.principal(rows)
    centred = rows - rows.mean(axis=0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        exact = left[:, axis] * spread[axis]
        assert abs(np.corrcoef(points[:, axis], exact)[0, 1]) > 0.999
        assert points[np.abs(points[:, axis]).argmax(), axis] > 0
    np.testing.assert_array_equal(points, layout.principal(rows))


def test_the_map_of_two_classes_has_their_log_odds_across():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=200) * 3
    probabilities = np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)
    vectors = rng.normal(size=(200, 10))
    vectors[:, 0] += odds
    points = layout.by_answer(probabilities, vectors)
    np.testing.assert_allclose(points[:, 0], odds, atol=1e-9)
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 3), (4, 1280)])
def test_a_map_of_few_pictures(shape):
    points = layout.by_look(np.random.default_rng(0).normal(size=shape))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


@settings(deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(-1e9, 1e9)))
def test_every_picture_is_on_the_paper(points):
    x, y = layout.on_paper(points)
    assert len(x) == len(y) == len(points)
    assert all(0 <= v <= 1000 for v in (*x, *y))
    order = np.argsort(points[:, 0], kind="stable")
    assert (np.diff(np.array(x)[order]) >= 0).all()


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_share_is_never_rounded_to_all_or_nothing(value):
    text = charts.percent(value)
    assert (text == "100.0%") == (value == 1)
    assert (text == "0.0%") == (value == 0)
