"""Comparing backbones: the same groups for all, the choice of fit, ties and limits told."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import saved
from helpers.photos import write_photos

from headstart import ImageClassifier, backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers.onnx_file import load_onnx
from headstart.cli import main
from headstart.compare.backbones import Row, _average, _ranked, compare, entries
from headstart.data import open_dataset
from headstart.errors import OptionError
from headstart.features.cache import FeatureCache
from headstart.features.features import embed
from headstart.heads import Candidate
from headstart.stats.accuracy import Accuracy


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two small networks with other weights."""
    folder = tmp_path_factory.mktemp("nets")
    return [f"onnx:{saved(folder, f'net{seed}.onnx', seed=seed)}" for seed in (0, 1)]


def test_one_backbone_gets_the_choice_and_the_numbers_of_fit(photos):
    found = compare(open_dataset(photos), ["headstart-s"])
    run = ImageClassifier().fit(photos).run_
    (row,) = found.rows
    assert list(row.cut) == run["cut"]
    assert row.head == {k: v for k, v in run["head"].items() if k != "temperature"}
    assert row.accuracy.to_dict() == run["accuracy"]["leave_group_out"]
    assert found.groups.count == run["groups"]["count"]
    assert found.pictures == run["images"]["train"]
    assert found.reason == "the only one looked at"


def test_every_cut_has_a_row_and_deeper_cuts_are_larger(photos, two):
    found = compare(open_dataset(photos), ["headstart-s", *two], cuts="all")
    cuts = {(row.backbone, row.cut) for row in found.rows}
    for name in ("headstart-s", *two):
        assert {(name, (tap.name,)) for tap in backbones.load(name).taps} <= cuts
    assert [row.log_loss for row in found.rows] == sorted(row.log_loss for row in found.rows)
    size = {(row.backbone, row.cut): row.bytes for row in found.rows}
    assert size["headstart-s", ("stage2",)] < size["headstart-s", ("stage4",)] < size["headstart-s", ("features",)]
    assert all(row.pictures_per_second > 0 for row in found.rows)
    assert sum(row.recommended for row in found.rows) == 1
    assert found.rows[0].tied


def test_the_order_of_the_backbones_changes_nothing(photos, two):
    first, second = (compare(open_dataset(photos), names) for names in (two, two[::-1]))
    assert first.groups.index.tolist() == second.groups.index.tolist()
    assert [(r.backbone, r.log_loss) for r in first.rows] == [(r.backbone, r.log_loss) for r in second.rows]


def test_the_average_of_cosines_is_that(photos, two):
    dataset = open_dataset(photos)
    found = [embed(dataset, backbones.load(name)) for name in two]
    wanted = 0
    for one in found:
        x = one.values["features"].astype(np.float64)
        x -= x.mean(axis=0)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        wanted = wanted + x @ x.T / 2
    got = _average(found)
    np.testing.assert_allclose(got @ got.T / 2, wanted, atol=1e-5)


def row(name, speed, size):
    return Row(name, "", "", ("features",), {}, 0.0, (0, 0), Accuracy(1, 1, (0, 1), ""), size, speed)


def candidate(losses):
    losses = np.array(losses, float)
    return Candidate(("features",), "ridge", {}, float(losses.mean()), 1.0, 1.0, losses, np.zeros((len(losses), 2)))


def ranked(*entrants):
    judged = [(replace(row(name, speed, size), log_loss=np.mean(losses)), candidate(losses))
              for name, losses, speed, size in entrants]  # fmt: skip
    return _ranked(sorted(judged, key=lambda pair: pair[0].log_loss), np.arange(40))


def test_ties_pareto_and_the_recommendation():
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 40))
    rows, reason = ranked(
        ("slow", 0.200 + noise[0] - noise[0].mean(), 100, 9), ("fast", 0.203 + noise[1] - noise[1].mean(), 300, 8),
        ("bad", 0.400 + noise[2], 900, 1), ("worse", 0.500 + noise[3], 90, 9),
    )  # fmt: skip
    by = {r.backbone: r for r in rows}
    assert {name: r.tied for name, r in by.items()} == {"slow": True, "fast": True, "bad": False, "worse": False}
    assert {name: r.pareto for name, r in by.items()} == {"slow": True, "fast": True, "bad": True, "worse": False}
    assert by["fast"].recommended
    assert reason == "as good as the best (slow at features) within the noise, and 3.0 times as fast"
    assert by["bad"].behind[1] > 0
    assert by["fast"].behind[1] < 0 < by["fast"].behind[2]


def test_a_clear_winner_is_called_that():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    rows, reason = ranked(("good", 0.1 + noise[0], 10, 9), ("bad", 0.4 + noise[1], 900, 1))
    assert rows[0].backbone == "good"
    assert rows[0].recommended
    assert reason == "the best, and no other is as good within the noise"


def test_what_is_too_large_is_named(photos, two):
    found = compare(open_dataset(photos), ["headstart-s", two[0]], max_size=0.1)
    assert {r.backbone for r in found.rows} == {"headstart-s", two[0]}
    assert all(r.bytes <= 0.1e6 for r in found.rows)
    ((what, why),) = found.skipped
    assert what == "headstart-s at stage4, stage5, features"
    assert why == "larger than 0.1 MB"
    with pytest.raises(OptionError, match=r"No backbone was looked at \(headstart-s: larger than 0 MB\); allow more"):
        compare(open_dataset(photos), ["headstart-s"], max_size=0)


def test_when_the_time_is_up_the_rest_is_named(photos, two, monkeypatch):
    monkeypatch.setattr("headstart.compare.backbones._Limits.over", lambda self, share=1.0: bool(seen) and share < 1)
    seen: list[int] = []

    def progress(name, done, total):
        if name == two[0] and done == total:
            seen.append(done)

    found = compare(open_dataset(photos), two, time_limit=5, progress=progress)
    assert [r.backbone for r in found.rows] == two[:1]
    assert found.skipped == ((two[1], "the time limit of 5 s"),)


def test_a_run_stopped_half_way_goes_on_from_the_cache(tmp_path):
    dataset = open_dataset(write_photos(tmp_path / "data", 60))

    class Stop(Exception):
        pass

    def stop(name, done, total):
        if done >= 60:
            raise Stop

    with FeatureCache() as cache, pytest.raises(Stop):
        compare(dataset, ["headstart-s"], cache=cache, progress=stop)
    with FeatureCache() as cache:
        found = compare(dataset, ["headstart-s"], cache=cache)
    assert found.hits >= 60
    assert found.hits + found.misses == 120


@pytest.fixture
def by_weights(monkeypatch, two):
    """A provider ``timm:`` whose weights are the whole of a small network, since PyTorch is not always here; and two
    files of them."""

    def load(rest, options, taps):
        return replace(load_onnx(options.weights or two[0][5:], InputOptions(), taps), id=f"timm:{rest}")

    monkeypatch.setitem(backbones.PROVIDERS, "timm", load)
    return [name[5:] for name in two]


def test_weights_go_to_the_backbone_they_are_for(photos, two, by_weights):
    name, (first, second) = "timm:net?pad=same", by_weights
    wanted = {row.sha256: row for row in compare(open_dataset(photos), ["headstart-s", *two]).rows}
    weights = [(name, second), (name, first)]
    found = compare(open_dataset(photos), ["headstart-s", name], weights=weights)
    assert {(row.backbone, row.weights) for row in found.rows} == {("headstart-s", None), *weights}
    for row in found.rows:
        assert row.log_loss == wanted[row.sha256].log_loss
        assert row.bytes == wanted[row.sha256].bytes
        if row.weights:
            plain = wanted[row.sha256].backbone
            assert row.weights == plain.removeprefix("onnx:")
    published = compare(open_dataset(photos), [name]).rows[0]
    assert (published.sha256, published.weights) == (backbones.load(two[0]).sha256, None)


def test_what_is_looked_at_and_in_which_order():
    assert [e.label for e in entries(["b", "a"], [("a", "2"), ("b", "x"), ("a", "1")])] == [
        "b with x", "a with 2", "a with 1"
    ]  # fmt: skip
    with pytest.raises(OptionError, match=r"'f' are for 'c', which is not compared"):
        entries(["a", "b"], [("c", "f")])
    with pytest.raises(OptionError, match="each once"):
        entries(["a"], [("a", "f"), ("a", "f")])


def test_unreadable_pictures_are_left_out_alike(tmp_path, two):
    data = write_photos(tmp_path / "data", 8)
    (data / "disc" / "bad.jpg").write_bytes(b"no picture")
    found = compare(open_dataset(data), two)
    assert found.pictures == 16
    assert [q.path.endswith("bad.jpg") for q in found.quarantined] == [True]
    assert {r.accuracy.count for r in found.rows} == {16}


@pytest.mark.parametrize(("names", "options"), [([], {}), (["headstart-s"] * 2, {}), (["headstart-s"], {"cuts": "no"}),
                                                (["nowhere"], {}), (["onnx:none.onnx"], {})])  # fmt: skip
def test_wrong_input_is_one_line(photos, names, options):
    from headstart.errors import HeadstartError

    with pytest.raises(HeadstartError) as told:
        compare(open_dataset(photos), names, **options)
    assert "\n" not in str(told.value)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["headstart", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_command(monkeypatch, capsys, photos, two, more):
    ids = ",".join(["headstart-s", *two])
    status, out, _ = command(monkeypatch, capsys, photos, "--backbones", ids, "--cuts", "all", *more)
    assert status == 0
    if more:
        found = json.loads(out)
        assert found["images"] == {"count": 28, "quarantined": 0}
        assert {row["backbone"] for row in found["rows"]} == {"headstart-s", *two}
        assert found["recommended"]["backbone"] in ("headstart-s", *two)
        assert found["not_looked_at"] == []
        return
    table = out.split("loss: log-loss")[0].splitlines()
    assert all(len(each) <= 80 for each in table)
    assert len(table) >= 2 + 5 + 2 * 2


def test_a_shallow_cut_that_ties_is_not_recommended_before_the_cut_of_fit():
    noise = np.random.default_rng(0).normal(0, 0.02, (2, 40))
    noise -= noise.mean(axis=1, keepdims=True)
    judged = [
        (replace(row("a", 900, 1), cut=("shallow",), fit_cut=False, log_loss=0.2), candidate(0.2 + noise[0])),
        (replace(row("a", 100, 9), log_loss=0.201), candidate(0.201 + noise[1])),
    ]
    rows, reason = _ranked(judged, np.arange(40))
    assert [r.tied for r in rows] == [True, True]
    assert [r.recommended for r in rows] == [False, True]
    assert reason.startswith("as good as the best (a at shallow) within the noise, and ")


def test_the_command_with_weights(monkeypatch, capsys, photos, by_weights):
    """Ids and files may hold equals signs; an id may begin like another."""
    first, second = by_weights
    equals = Path(first).with_name("a=b.onnx")
    equals.write_bytes(Path(first).read_bytes())
    ids = "timm:net?pad=same,timm:net"
    given = [f"--weights=timm:net={second}", f"--weights=timm:net?pad=same={equals}", f"--weights=timm:net={first}"]
    status, out, _ = command(monkeypatch, capsys, photos, "--backbones", ids, *given, "--json")
    assert status == 0
    found = json.loads(out)
    wanted = {("timm:net?pad=same", str(equals)), ("timm:net", first), ("timm:net", second)}
    assert {(row["backbone"], row["weights"]) for row in found["rows"]} == wanted
    assert (found["recommended"]["backbone"], found["recommended"]["weights"]) in wanted
    status, out, err = command(monkeypatch, capsys, photos, "--backbones", ids, *given, "--progress")
    assert status == 0
    assert "84/84" in err  # three times 28 pictures
    assert "net1.onnx" in out


@pytest.mark.parametrize("text", ["", "x", "=x", "timm:net", "timm:net=", "timm:other=x", "timm:nets=x"])
def test_weights_that_name_no_backbone_are_one_line(monkeypatch, capsys, photos, text):
    status, out, err = command(monkeypatch, capsys, photos, "--backbones", "headstart-s,timm:net", f"--weights={text}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "expected ID=FILE" in err


def test_weights_for_what_brings_its_own_are_one_line(monkeypatch, capsys, photos):
    for name in ("headstart-s", "onnx:net.onnx"):
        status, out, err = command(monkeypatch, capsys, photos, "--backbones", name, f"--weights={name}=w.pth")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "its own" in err
