"""The report: its numbers against brute force, its file against hostile data, its page against hostile names."""

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from conftest import write_photos
from graphs import network, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import headstart as hs
from headstart import backbones, report
from headstart.backbones import Tap
from headstart.cache import Cache
from headstart.check import check_fitted
from headstart.check.looks import look
from headstart.datasets import from_pictures, open_dataset
from headstart.errors import ModelError, OptionError
from headstart.evaluation import confusion
from headstart.heads import Head
from headstart.report import charts, curves, evidence, layout, pictures
from headstart.report.data import MAX_SHOWN, Picture, Report, read_data, unsure, worst, write_data
from headstart.report.gather import gather
from headstart.report.page import render

HOSTILE = (
    "<script>alert(1)</script>", '"onerror=alert(1) x="', "</script><b>", "\N{RIGHT-TO-LEFT OVERRIDE}gnp", "a\nb",
    "مرحبا", "x" * 300, "{{ 7 * 7 }}", "</style>", "' onload='", "\\u003c", "&lt;",
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(photos):
    return hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(photos)


@pytest.fixture(scope="module")
def made(fitted):
    return gather(fitted)


@pytest.fixture
def folder(fitted, made, tmp_path):
    """A model folder with the data of a report."""
    path = tmp_path / "model"
    fitted.save(path)
    write_data(made, path)
    return path


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


@pytest.mark.parametrize("options", [{}, {"opset": 18}, {"last": True}, {"batch": 2}, {"head": "Conv"}], ids=str)
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
    with Cache(tmp_path) as cache:
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


def test_tokens_have_no_places():
    model = network()
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert evidence.unpooled(model.graph, "y") is None
    assert evidence.unpooled(model.graph, "nothing") is None


def _outputs(backbone, image):
    from headstart.runtime import load_graph, pad_batch

    return pad_batch(load_graph(backbone.graph, runtime="onnxruntime", workers=1), image, backbone.batch)


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


# From a fit


def test_the_report_says_what_the_fit_measured(fitted, made):
    run = fitted.run_
    assert made.classes == ("disc", "stripes")
    assert made.total == len(made.pictures) == 40
    for number, measured in enumerate(made.measured):
        told = run["accuracy"][measured.name]
        assert sum(n for truth, answer, n in measured.confusion if truth == answer) == told["correct"]
        assert sum(n for _, _, n in measured.confusion) == told["count"]
        own = [p for p in made.pictures if p.measured == number]
        table = confusion(np.array([p.truth for p in own]), np.array([p.answer for p in own]), 2)
        assert {(t, a): n for t, a, n in measured.confusion} == {k: n for k, n in np.ndenumerate(table) if n}
    by_path = {p.path: p for p in made.pictures}
    assert {path.split("/")[0] for path in by_path} == {"train", "validation"}  # no folder of this machine
    found = fitted.choice_.probabilities[0]
    first = next(p for p in made.pictures if p.measured == 1)
    assert (first.sure, first.truth_sure) == (found.max(), found[first.truth])
    assert len(made.evidence) >= 4
    for each in made.evidence:
        assert np.sum(each.grid) + each.bias == pytest.approx(each.score, abs=1e-2)


def test_evidence_is_that_of_the_model_as_it_is_served(fitted, made, folder, photos):
    clf = hs.load(folder).set_params(runtime="onnxruntime")
    for each in made.evidence:
        path = next(photos.rglob(made.pictures[each.picture].path))
        row = clf.predict_proba([str(path)])[0]
        assert np.log(row[each.towards] / row[each.against]) == pytest.approx(each.score, abs=0.02)


def test_a_fit_finds_what_check_finds(tmp_path):
    data = write_photos(tmp_path / "data" / "train", 14)
    write_photos(tmp_path / "data" / "validation", 6, seed=1)
    twin = data / "disc" / "000.jpg"
    (data / "disc" / "twin.jpg").write_bytes(twin.read_bytes())
    leaked = tmp_path / "data" / "validation" / "stripes" / "leak.jpg"
    Image.open(data / "stripes" / "001.jpg").save(leaked, quality=50)
    Image.open(data / "disc" / "005.jpg").point(lambda v: v // 12).save(data / "disc" / "005.jpg")
    (data / "disc" / "broken.jpg").write_bytes(b"no picture")
    made = gather(hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(tmp_path / "data"))
    found = {(f.kind, f.files) for f in made.findings}
    assert ("exact_duplicate", ("train/disc/000.jpg", "train/disc/twin.jpg")) in found
    assert ("leak", ("train/stripes/001.jpg", "validation/stripes/leak.jpg")) in found
    assert ("dark", ("train/disc/005.jpg",)) in found
    assert made.counts["unreadable"] == 1
    for told in made.findings:
        assert [made.pictures[p].path for p in told.pictures] == [f for f in told.files if "broken" not in f]
        assert set(told.pictures) <= set(made.thumbnails)


def test_suspects_of_a_fit_are_those_of_its_probabilities(fitted):
    learned = fitted.learned_
    labels = np.array([["disc", "stripes"].index(learned.dataset.items[i].label) for i in learned.features.index])
    sure = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    sure[3] = sure[3, ::-1]
    found = check_fitted(
        learned.dataset, learned.features, ["disc", "stripes"], sure, look(learned.dataset, learned.features.index),
        (1, 1),
    )  # fmt: skip
    suspects = [f for f in found if f.kind == "label_suspect"]
    assert [f.files for f in suspects] == [(learned.dataset.items[3].path,)]
    assert suspects[0].confidence == pytest.approx(0.8)


def test_pictures_from_arrays_and_pictures_that_are_gone(tmp_path):
    data = write_photos(tmp_path / "data", 8)
    paths = sorted(data.rglob("*.jpg"))
    clf = hs.ImageClassifier(runtime="onnxruntime", cache=False)
    of_arrays = gather(clf.fit([np.asarray(Image.open(p)) for p in paths], [p.parent.name for p in paths]))
    assert of_arrays.pictures[0].path == "picture 0"
    assert len(of_arrays.thumbnails) > 0
    clf.fit(data)
    for path in paths[::2]:
        path.unlink()
    found = gather(clf)
    assert found.total == 16
    shown = {found.pictures[place].path for place in found.thumbnails}
    assert shown.isdisjoint({str(p.relative_to(data)) for p in paths[::2]})


def test_validation_classes_that_were_not_learned(tmp_path):
    write_photos(tmp_path / "train", 10)
    write_photos(tmp_path / "validation", 4, classes=("disc", "stripes", "dots"), seed=1)
    clf = hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(tmp_path)
    made = gather(clf)
    assert (made.classes, made.known) == (("disc", "stripes", "dots"), 2)
    strange = [p for p in made.pictures if p.truth == 2]
    assert len(strange) == 4
    assert all(p.truth_sure == 0 for p in strange)
    assert "not learned" in render(made, clf.run_, "m")


def test_a_loaded_model_has_nothing_to_gather(model_folder):
    with pytest.raises(OptionError, match="Fit it here first"):
        gather(hs.load(model_folder))


def test_small_pictures_are_kept_and_damage_is_not_believed(fitted, tmp_path):
    learned = fitted.learned_
    every = range(len(learned.features.index))

    def squares(cache):
        return pictures.small_pictures(learned.dataset, learned.features, every, 48, cache, 1)

    with Cache(tmp_path) as cache:
        looks, first = squares(cache)
        cached_looks, again = squares(cache)
    exact = look(learned.dataset, learned.features.index)
    np.testing.assert_array_equal(looks.size, exact.size)
    np.testing.assert_array_equal(looks.sharpness, exact.sharpness)
    np.testing.assert_array_equal(cached_looks.sharpness, exact.sharpness)
    assert all(np.array_equal(first[row], again[row]) for row in every)


def test_a_large_set_is_shown_in_part():
    from headstart.report.gather import _Answers, _shown

    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], 25_000)
    truth = (rng.uniform(size=25_000) < 0.5).astype(np.int64)
    answers = _Answers(np.arange(25_000), np.ones(25_000, np.int64), truth, probabilities)
    shown = _shown(answers)
    assert len(shown) == len(set(shown.tolist())) == MAX_SHOWN
    wrong = np.flatnonzero(~answers.right)
    unsure_wrong = wrong[np.argsort(answers.sure[wrong])][:5000]
    assert np.isin(unsure_wrong, shown).all()


# The file


def test_what_was_written_is_read_back(made, tmp_path):
    write_data(made, tmp_path)
    again = read_data(tmp_path)
    for name in Report.__dataclass_fields__:
        if name != "pictures":
            assert getattr(again, name) == getattr(made, name), name
    for one, other in zip(again.pictures, made.pictures, strict=True):
        assert (one.path, one.truth, one.answer) == (other.path, other.truth, other.answer)
        assert one.sure == pytest.approx(other.sure, abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def value_at(*path, to):
    def change(value):
        inner = value
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to

    return change


DAMAGE = {
    "format": value_at("format", to="1"),
    "no format": lambda value: value.pop("format"),
    "newer": value_at("format", to=99),
    "boolean format": value_at("format", to=True),
    "classes": value_at("classes", to="disc"),
    "class no text": value_at("classes", 0, to=7),
    "long class": value_at("classes", 0, to="x" * 10_000),
    "known": value_at("known", to=5),
    "known of a truth": value_at("known", to=True),
    "total": value_at("total", to=3),
    "column gone": lambda value: value["pictures"].pop("truth"),
    "short column": lambda value: value["pictures"]["truth"].pop(),
    "long columns": value_at("pictures", "path", to=["x"] * (MAX_SHOWN + 1)),
    "truth beyond": value_at("pictures", "truth", 0, to=2),
    "truth negative": value_at("pictures", "truth", 0, to=-1),
    "answer beyond": value_at("pictures", "answer", 0, to=2),
    "answer is a float": value_at("pictures", "answer", 0, to=0.0),
    "sure beyond": value_at("pictures", "sure", 0, to=1.5),
    "sure not a number": value_at("pictures", "sure", 0, to=float("nan")),
    "set beyond": value_at("pictures", "measured", 0, to=2),
    "path no text": value_at("pictures", "path", 0, to=None),
    "layout short": lambda value: value["layouts"][0]["x"].pop(),
    "layout beyond": value_at("layouts", 0, "x", 0, to=1001),
    "layouts": value_at("layouts", to=[{}]),
    "measured": value_at("measured", 0, "name", to="test"),
    "confusion": value_at("measured", 0, "confusion", to=[[0, 0]]),
    "confusion beyond": value_at("measured", 0, "confusion", to=[[0, 9, 1]]),
    "bin": value_at("measured", 0, "reliability", 0, "count", to=0),
    "risk": value_at("measured", 0, "risk", 0, to=[0, float("inf")]),
    "side": value_at("side", to=0),
    "side beyond": value_at("side", to=10**6),
    "columns": value_at("columns", to=0),
    "sprite": value_at("sprite", to="not base64 <"),
    "sprite no jpeg": value_at("sprite", to="PHN2Zz48L3N2Zz4="),
    "sprite no text": value_at("sprite", to=5),
    "thumbnail of none": value_at("thumbnails", to={"99": ""}),
    "thumbnail": value_at("thumbnails", to={"0": "PHN2Zz4="}),
    "thumbnail name": value_at("thumbnails", to={"x": ""}),
    "thumbnails": value_at("thumbnails", to=[]),
    "finding": value_at("findings", to=[{"kind": "leak"}]),
    "findings": value_at("findings", to={}),
    "finding beyond": value_at("findings", to=[
        {"kind": "leak", "files": [], "pictures": [40], "confidence": 1, "action": "", "why": ""}]),
    "counts": value_at("counts", to={"leak": -1}),
    "evidence beyond": value_at("evidence", 0, "picture", to=40),
    "evidence crooked": value_at("evidence", 0, "grid", to=[[1.0], [1.0, 2.0]]),
    "evidence empty": value_at("evidence", 0, "grid", to=[]),
    "evidence infinite": value_at("evidence", 0, "score", to=float("inf")),
    "seconds": value_at("seconds", to="1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_one_line(folder, name):
    value = json.loads((folder / "report.json").read_text("utf-8"))
    DAMAGE[name](value)
    (folder / "report.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(ModelError) as caught:
        report.rewrite(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b"1e999", b'{"format":1}'])
def test_a_file_that_is_no_report(folder, data):
    (folder / "report.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"report\.json is damaged"):
        report.rewrite(folder)


def test_a_file_that_is_not_there_or_a_link_or_too_large(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.report.data.MAX_BYTES", 100)
    with pytest.raises(ModelError, match="more than 100 bytes"):
        report.rewrite(folder)
    (folder / "report.json").rename(tmp_path / "elsewhere.json")
    (folder / "report.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match="a link out of the folder"):
        report.rewrite(folder)
    (folder / "report.json").unlink()
    with pytest.raises(ModelError, match="fit again, without --no-report"):
        report.rewrite(folder)
    with pytest.raises(ModelError, match="There is no model folder"):
        report.rewrite(tmp_path / "nothing")


def test_another_models_report_is_refused(folder):
    value = json.loads((folder / "report.json").read_text("utf-8"))
    value["classes"].insert(0, "another")
    value["known"] = 3
    (folder / "report.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(ModelError, match="of 3 classes, the model of 2"):
        report.rewrite(folder)


def test_the_page_goes_where_it_is_told(folder, tmp_path):
    assert report.rewrite(folder) == folder / "report.html"
    other = tmp_path / "page.html"
    assert report.rewrite(folder, other) == other
    assert other.read_bytes() == (folder / "report.html").read_bytes()
    with pytest.raises(ModelError, match="is a folder"):
        report.rewrite(folder, tmp_path)
    with pytest.raises(ModelError, match="Cannot write"):
        report.rewrite(folder, tmp_path / "nowhere" / "page.html")


# The page


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, attributes and texts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def named(made, names):
    """The report with every name that came from the data replaced by a hostile one."""
    names = list(names)
    pick = lambda i: names[i % len(names)]  # noqa: E731
    value = copy.copy(made)
    told = tuple(
        type(f)(f.kind, tuple(pick(i) for i in range(len(f.files))), f.pictures, f.confidence, pick(n), pick(n + 1))
        for n, f in enumerate(made.findings)
    )
    shown = tuple(Picture(f"{pick(i)}/{pick(i + 1)}", *list(vars(p).values())[1:]) for i, p in enumerate(made.pictures))
    fields = {**vars(value), "classes": tuple(names[:2]), "pictures": shown, "findings": told, "no_evidence": ""}
    return Report(**fields)


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_hostile_names_stay_text(made, fitted, first):
    names = HOSTILE[first:] + HOSTILE[:first]
    run = copy.deepcopy(fitted.run_)
    run["backbone"] = dict.fromkeys(("id", "sha256", "licence"), names[0])
    run["versions"] = {names[0]: names[1]}
    run["cut"], run["data"]["uri"] = [names[0]], names[1]
    run["candidates"] = [{"taps": [names[0]], "kind": names[1], names[2]: names[3], "log_loss": 1.0, "accuracy": 0.5}]
    plain = Seen(render(made, fitted.run_, "title"))
    page = render(named(made, names), run, names[0])
    seen = Seen(page)
    assert set(seen.tags) == set(plain.tags)
    assert seen.tags.count("script") == plain.tags.count("script") == 2
    assert {(tag, name) for tag, name, _ in seen.attributes} <= {(t, n) for t, n, _ in plain.attributes} | {
        ("tr", "class")
    }
    assert not [a for a in seen.attributes if a[1].startswith("on") or a[1] == "style"]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    told = json.loads(next(text for tag, text in seen.texts if tag == "script"))
    assert len(told["path"]) == 40
    assert len(told["classes"]) == 2
    assert "49" not in told["classes"]


def test_the_page_asks_for_nothing(made, fitted):
    page = render(made, fitted.run_, "title")
    seen = Seen(page)
    assert {v.split(":")[0] for _, n, v in seen.attributes if n in ("src", "poster", "data", "action")} == {"data"}
    assert all(v.startswith("#") for _, n, v in seen.attributes if n == "href")
    assert "@import" not in page
    assert "url(" not in page
    policy = next(v for _, n, v in seen.attributes if n == "content" and v.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_policy_allows_the_style_and_script_that_are_there(made, fitted):
    import base64
    import hashlib

    page = render(made, fitted.run_, "title")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        wanted = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{kind} 'sha256-{wanted}'" in page


GARBAGE = [None, [], {}, "x", -1, 10**400, float("nan"), float("inf"), True, [[]], {"a": {}}, "<b>"]


def leaves(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(2, len(value))):
            yield from leaves(value[i], (*path, i))


def test_a_page_is_made_of_any_run(made, fitted):
    run = {
        **fitted.run_,
        "learning_curve": {
            "points": [{"pictures": c, "accuracy": 0.8, "interval": [0.7, 0.9]} for c in (10, 20)],
            "expectation": {"more": 20, "pictures": 40, "accuracy": 0.9},
        },
    }
    for number, path in enumerate(leaves(run)):
        changed = copy.deepcopy(run)
        garbage = GARBAGE[number % len(GARBAGE)]
        if not path:
            changed = {}
        else:
            value_at(*path, to=garbage)(changed)
        seen = Seen(render(made, changed, "title"))
        assert seen.tags.count("script") == 2, path
        assert seen.tags.count("section") >= 8, path


def test_a_learning_curve_is_drawn_where_there_is_one(made, fitted):
    assert "Would more pictures help?" not in render(made, {**fitted.run_, "learning_curve": None}, "m")
    points = [{"pictures": c, "accuracy": a, "interval": [a - 0.1, a + 0.02]} for c, a in ((50, 0.7), (100, 0.8))]
    run = {**fitted.run_, "learning_curve": {"points": points, "expectation": {"pictures": 400, "accuracy": 0.9}}}
    seen = Seen(render(made, run, "m"))
    cells = [text for tag, text in seen.texts if tag in ("th", "td")]
    assert cells[cells.index("50") : cells.index("50") + 4] == ["50", "70.0%", "60.0% to 72.0%", "measured"]
    assert cells[cells.index("400") : cells.index("400") + 4] == ["400", "90.0%", "90.0% to 90.0%", "expected"]


def test_many_classes_and_pictures_stay_small(made, fitted):
    rng = np.random.default_rng(0)
    classes = tuple(f"{'名' * 190}{i}" for i in range(5_000))
    shown = tuple(
        Picture(
            f"{'名' * 380}/{i}.jpg",
            i % 2,
            int(rng.integers(5_000)),
            int(rng.integers(5_000)),
            int(rng.integers(5_000)),
            0.6,
            0.3,
            0.1,
        )
        for i in range(MAX_SHOWN)
    )
    noise = (rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(MAX_SHOWN))
    sheet = pictures.sprite(enumerate(noise), 32, 50, MAX_SHOWN)
    thumbnail = pictures.jpeg(Image.fromarray(rng.integers(0, 256, (144, 144, 3), np.uint8)))
    count = pictures.THUMBNAILS_BYTES // len(thumbnail)
    paper = tuple(int(v) for v in rng.integers(0, 1001, MAX_SHOWN))
    layouts = tuple(type(each)(each.name, each.about, paper, paper) for each in made.layouts)
    measured = tuple(
        type(m)(m.name, tuple((p.truth, p.answer, 1) for p in shown if p.measured == i), m.reliability, m.risk)
        for i, m in enumerate(made.measured)
    )
    large = Report(
        **{
            **vars(made), "classes": classes, "known": 5_000, "total": 10**6, "pictures": shown, "layouts": layouts,
            "measured": measured, "side": 32, "sprite": sheet, "thumbnails": dict.fromkeys(range(count), thumbnail),
        }
    )  # fmt: skip
    page = render(large, fitted.run_, "m")
    assert len(page.encode()) < 15e6
    assert page.count("<tr") < 500
    assert page.count("<figure") < 200


def test_lists_hold_what_they_say():
    rng = np.random.default_rng(0)
    some = [Picture("", 0, int(t), int(a), 0, s, s / 2, 0.1) for t, a, s in rng.uniform(0, 2, (300, 3))]
    mistakes, doubts = worst(some), unsure(some)
    assert all(some[i].truth != some[i].answer for i in mistakes)
    assert all(some[i].truth == some[i].answer for i in doubts)
    assert min(some[i].sure for i in mistakes) >= max(
        (p.sure for i, p in enumerate(some) if p.truth != p.answer and i not in mistakes), default=0
    )


def test_any_names_can_be_shown(made, fitted):
    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text(max_size=20), min_size=2, max_size=6, unique=True))
    def shown(names):
        seen = Seen(render(named(made, names), fitted.run_, names[0]))
        assert seen.tags.count("script") == 2
        assert "main" in seen.tags

    shown()


def test_unlabelled_names_of_pictures_are_shortened_alike():
    from headstart.report.gather import _Names

    class Like:
        def __init__(self, paths):
            self.index = np.arange(len(paths))

    for paths, wanted in (
        (["/a/b/c/1.jpg", "/a/b/d/2.jpg"], ["c/1.jpg", "d/2.jpg"]),
        (["/a/b/1.jpg", "/a/b/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/a/b1/1.jpg", "/a/b2/1.jpg"], ["b1/1.jpg", "b2/1.jpg"]),
        (["1.jpg", "x/2.jpg"], ["1.jpg", "x/2.jpg"]),
        (["/one.jpg"], ["one.jpg"]),
    ):
        dataset = from_pictures(paths)
        assert list(_Names(dataset, Like(paths), np.arange(len(paths))).shown) == wanted


def test_taps_of_the_builtin_network_have_places():
    backbone = backbones.load("headstart-s")
    assert all(isinstance(tap, Tap) and tap.size for tap in backbone.taps)
    graph = backbones.cut(backbone, [tap.name for tap in backbone.taps]).graph
    assert all(evidence.unpooled(graph, tap.name) is not None for tap in backbone.taps)


def test_a_dataset_of_tables_names_its_files(tmp_path):
    data = write_photos(tmp_path / "pictures", 8)
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(data.rglob("*.jpg"))]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    made = gather(hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(open_dataset(tmp_path / "table.csv")))
    assert {p.path.split("/")[-2] for p in made.pictures} == {"disc", "stripes"}
