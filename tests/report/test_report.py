"""The report of a fit, and its file against hostile data."""

import json

import numpy as np
import pytest
from helpers.photos import write_photos
from PIL import Image

import headstart as hs
from headstart import report
from headstart.backbones import load
from headstart.check import check_from_features
from headstart.data import from_images, open_dataset
from headstart.errors import ModelError, OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import embed, small_key
from headstart.report import thumbnails as pictures
from headstart.report.data import MAX_SHOWN, Picture, Report, read_data, unsure, worst, write_data
from headstart.report.gather import gather
from headstart.report.page import render
from headstart.stats.accuracy import confusion_matrix


@pytest.fixture
def folder(fitted, made, tmp_path):
    """A model folder with the data of a report."""
    path = tmp_path / "model"
    fitted.save(path)
    write_data(made, path)
    return path


def test_the_report_says_what_the_fit_measured(fitted, made):
    run = fitted.run_
    assert made.classes == ("disc", "stripes")
    assert made.total == len(made.pictures) == 40
    for number, measured in enumerate(made.measured):
        told = run["accuracy"][measured.name]
        assert sum(n for truth, answer, n in measured.confusion if truth == answer) == told["correct"]
        assert sum(n for _, _, n in measured.confusion) == told["count"]
        own = [p for p in made.pictures if p.measured == number]
        table = confusion_matrix(np.array([p.truth for p in own]), np.array([p.answer for p in own]), 2)
        assert {(t, a): n for t, a, n in measured.confusion} == {k: n for k, n in np.ndenumerate(table) if n}
    by_path = {p.path: p for p in made.pictures}
    assert {path.split("/")[0] for path in by_path} == {"train", "validation"}  # no folder of this machine
    found = fitted.choice_.probabilities[0]
    first = next(p for p in made.pictures if p.measured == 1)
    assert (first.sure, first.truth_sure) == (round(float(found.max()), 6), round(float(found[first.truth]), 6))
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
    found = check_from_features(learned.dataset, learned.features, ["disc", "stripes"], sure, (1, 1))
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


def test_small_pictures_are_made_with_the_features_and_damage_is_not_believed(tmp_path, monkeypatch):
    data = open_dataset(write_photos(tmp_path / "data", 8))
    network = load("headstart-s")
    with FeatureCache(tmp_path / "cache") as cache:
        features = embed(data, network, cache=cache, runtime="onnxruntime", squares=True)
        rows = range(len(features.index))

        def squares(side, cache=cache):
            return dict(pictures.squares(data, features, rows, side, cache, 1))

        monkeypatch.setattr(type(data), "read", lambda *_: pytest.fail("a picture is read again"))
        kept = squares(48)
        monkeypatch.undo()
        plain = squares(48, None)  # decoded again, at a size of its own
        assert all(np.abs(kept[row].astype(int) - plain[row]).mean() < 4 for row in rows)
        small = squares(32)
        assert {each.shape for each in small.values()} == {(32, 32, 3)}
        cache.put_many({small_key(features.content_hashes[3].tobytes()): np.zeros(5, np.uint8)})
        again = squares(48)
        assert np.array_equal(again[2], kept[2])
        assert np.array_equal(again[3], plain[3])  # made anew


@pytest.mark.parametrize("wanted", [True, False])
def test_small_pictures_are_kept_where_a_report_will_be_made(tmp_path, wanted):
    folder = write_photos(tmp_path / "data", 12)
    features = hs.ImageClassifier(runtime="onnxruntime").fit(folder, report=wanted).learned_.features
    with FeatureCache() as cache:
        kept = cache.get_many([small_key(content.tobytes()) for content in features.content_hashes])
    assert [each is not None for each in kept] == [wanted] * 24


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


def test_lists_hold_what_they_say():
    rng = np.random.default_rng(0)
    some = [Picture("", 0, int(t), int(a), 0, s, s / 2, 0.1) for t, a, s in rng.uniform(0, 2, (300, 3))]
    mistakes, doubts = worst(some), unsure(some)
    assert all(some[i].truth != some[i].answer for i in mistakes)
    assert all(some[i].truth == some[i].answer for i in doubts)
    assert min(some[i].sure for i in mistakes) >= max(
        (p.sure for i, p in enumerate(some) if p.truth != p.answer and i not in mistakes), default=0
    )


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
        dataset = from_images(paths)
        assert list(_Names(dataset, Like(paths), np.arange(len(paths))).shown) == wanted


def test_a_dataset_of_tables_names_its_files(tmp_path):
    data = write_photos(tmp_path / "pictures", 8)
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(data.rglob("*.jpg"))]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    made = gather(hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(open_dataset(tmp_path / "table.csv")))
    assert {p.path.split("/")[-2] for p in made.pictures} == {"disc", "stripes"}


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
