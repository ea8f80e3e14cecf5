"""Backbones are compared on the same images and groups, with the selection of fit; what is skipped is named."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.graphs import saved, trained_network
from helpers.photos import write_photos

from headstart import ImageClassifier, backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers import PROVIDERS
from headstart.backbones.providers.onnx_file import load_onnx
from headstart.backbones.scaling import USUAL, Scaling
from headstart.compare import CompareOptions, compare_backbones, parse_entries
from headstart.compare.backbones import _average_directions
from headstart.data import open_dataset
from headstart.errors import HeadstartError, OptionError
from headstart.features import FeatureCache, embed


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory):
    """Two small networks with different weights."""
    folder = tmp_path_factory.mktemp("nets")
    return [f"onnx:{saved(folder, f'net{seed}.onnx', seed=seed)}" for seed in (0, 1)]


@pytest.fixture
def timm_provider(monkeypatch, two_networks):
    """A provider ``timm:`` that needs no PyTorch: its weight files are small ONNX networks. Returns two such files."""

    def load(rest, options, taps):
        return replace(load_onnx(options.weights or two_networks[0][5:], InputOptions(), taps), id=f"timm:{rest}")

    monkeypatch.setitem(PROVIDERS, "timm", load)
    return [name[5:] for name in two_networks]


def compare(data, ids, weights=(), *, cache=None, progress=None, **options):
    entries = parse_entries(ids, weights)
    return compare_backbones(open_dataset(data), entries, CompareOptions(**options), cache=cache, progress=progress)


def test_one_backbone_gets_the_selection_and_the_numbers_of_fit(photos):
    comparison = compare(photos, ["headstart-s"])
    run = ImageClassifier("headstart-s").fit(photos).run_
    (row,) = comparison.rows
    assert list(row.cut) == run["cut"]
    assert row.head == {k: v for k, v in run["head"].items() if k != "temperature"}
    assert row.accuracy.to_dict() == run["accuracy"]["leave_group_out"]
    assert comparison.groups.count == run["groups"]["count"]
    assert comparison.images == run["images"]["train"]
    assert comparison.reason == "the only one compared"


def test_every_cut_has_a_row_and_deeper_cuts_are_larger(photos, two_networks):
    comparison = compare(photos, ["headstart-s", *two_networks], cuts="all")
    rows = comparison.rows
    cuts = {(row.backbone, row.cut) for row in rows}
    for name in ("headstart-s", *two_networks):
        assert {(name, (tap.name,)) for tap in backbones.load(name).taps} <= cuts
    assert [row.log_loss for row in rows] == sorted(row.log_loss for row in rows)
    size = {(row.backbone, row.cut): row.bytes for row in rows}
    assert size["headstart-s", ("stage2",)] < size["headstart-s", ("stage4",)] < size["headstart-s", ("features",)]
    assert all(row.images_per_second > 0 for row in rows)
    assert sum(row.recommended for row in rows) == 1
    assert rows[0].tied


def test_a_scaling_that_nobody_names_is_that_of_a_fit(photos, tmp_path):
    scaling = Scaling(*USUAL["ImageNet's mean and deviation"])
    id = trained_network(scaling, open_dataset(photos).split("train"), tmp_path / "net.onnx")
    comparison = compare(photos, [id])
    assert any(f"its batch norms fit {scaling}, which is taken" in note for note in comparison.notes)
    (row,) = comparison.rows
    given = InputOptions(mean=scaling.mean, std=scaling.std)
    run = ImageClassifier(id, input_options=given).fit(photos).run_
    assert row.head == {k: v for k, v in run["head"].items() if k != "temperature"}
    assert row.accuracy.to_dict() == run["accuracy"]["leave_group_out"]


def test_the_order_of_the_backbones_changes_nothing(photos, two_networks):
    first, second = compare(photos, two_networks), compare(photos, two_networks[::-1])
    assert first.groups.index.tolist() == second.groups.index.tolist()
    assert [(r.backbone, r.log_loss) for r in first.rows] == [(r.backbone, r.log_loss) for r in second.rows]


def test_the_cosine_of_the_average_directions_is_the_mean_of_the_cosines(photos, two_networks):
    dataset = open_dataset(photos)
    features = [embed(dataset, backbones.load(name)) for name in two_networks]
    expected = 0
    for backbone_features in features:
        x = np.asarray(backbone_features.values["features"], np.float64)
        x -= x.mean(axis=0)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        expected = expected + x @ x.T / 2
    directions = _average_directions(features)
    np.testing.assert_allclose(directions @ directions.T / 2, expected, atol=1e-5)


def test_graphs_that_are_too_large_are_skipped_and_named(photos, two_networks):
    comparison = compare(photos, ["headstart-s", two_networks[0]], max_size=0.1)
    assert {row.backbone for row in comparison.rows} == {"headstart-s", two_networks[0]}
    assert all(row.bytes <= 0.1e6 for row in comparison.rows)
    ((what, why),) = comparison.skipped
    assert what == "headstart-s at stage4, stage5, features"
    assert why == "larger than 0.1 MB"
    assert comparison.to_dict()["skipped"] == [{"what": what, "why": why}]
    with pytest.raises(OptionError, match=r"\(headstart-s: larger than 0 MB\); raise --time-limit or --max-size"):
        compare(photos, ["headstart-s"], max_size=0)


def test_backbones_beyond_the_time_limit_are_skipped_and_named(photos, two_networks, monkeypatch):
    finished: list[int] = []
    monkeypatch.setattr(
        "headstart.compare.backbones._Budget.is_spent", lambda self, share=1.0: bool(finished) and share < 1
    )

    def progress(name, done, total):
        if name == two_networks[0] and done == total:
            finished.append(done)

    comparison = compare(photos, two_networks, time_limit=5, progress=progress)
    assert [row.backbone for row in comparison.rows] == two_networks[:1]
    assert comparison.skipped == ((two_networks[1], "the time limit of 5 s"),)


def test_an_interrupted_run_continues_from_the_cache(tmp_path):
    data = write_photos(tmp_path / "data", 60)

    class Stop(Exception):
        pass

    def stop(name, done, total):
        if done >= 60:
            raise Stop

    with FeatureCache() as cache, pytest.raises(Stop):
        compare(data, ["headstart-s"], cache=cache, progress=stop)
    with FeatureCache() as cache:
        comparison = compare(data, ["headstart-s"], cache=cache)
    assert comparison.hits >= 60
    assert comparison.hits + comparison.misses == 120


def test_weights_are_for_the_backbone_they_name(photos, two_networks, timm_provider):
    name, (first, second) = "timm:net?pad=same", timm_provider
    expected = {row.sha256: row for row in compare(photos, ["headstart-s", *two_networks]).rows}
    weights = [(name, second), (name, first)]
    comparison = compare(photos, ["headstart-s", name], weights)
    assert {(row.backbone, row.weights) for row in comparison.rows} == {("headstart-s", None), *weights}
    for row in comparison.rows:
        assert row.log_loss == expected[row.sha256].log_loss
        assert row.bytes == expected[row.sha256].bytes
        if row.weights:
            assert row.weights == expected[row.sha256].backbone.removeprefix("onnx:")
    published = compare(photos, [name]).rows[0]
    assert (published.sha256, published.weights) == (backbones.load(two_networks[0]).sha256, None)


def test_entries_and_their_order():
    entries = parse_entries(["b", "a"], [("a", "2"), ("b", "x"), ("a", "1")])
    assert [entry.label for entry in entries] == ["b with x", "a with 2", "a with 1"]
    with pytest.raises(OptionError, match=r"'f' are for 'c', which is not compared"):
        parse_entries(["a", "b"], [("c", "f")])
    with pytest.raises(OptionError, match="each once"):
        parse_entries(["a"], [("a", "f"), ("a", "f")])


def test_images_that_cannot_be_read_are_left_out_for_all(tmp_path, two_networks):
    data = write_photos(tmp_path / "data", 8)
    (data / "disc" / "bad.jpg").write_bytes(b"no image")
    comparison = compare(data, two_networks)
    assert comparison.images == 16
    assert [image.path.endswith("bad.jpg") for image in comparison.quarantined] == [True]
    assert {row.accuracy.count for row in comparison.rows} == {16}


@pytest.mark.parametrize(
    ("ids", "options"),
    [
        ([], {}),
        (["headstart-s"] * 2, {}),
        (["headstart-s"], {"cuts": "no"}),
        (["nowhere"], {}),
        (["onnx:none.onnx"], {}),
    ],
)
def test_wrong_input_is_an_error_of_one_line(photos, ids, options):
    with pytest.raises(HeadstartError) as error:
        compare(photos, ids, **options)
    assert "\n" not in str(error.value)
