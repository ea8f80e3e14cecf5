"""Features equal decoding, preprocessing and the graph in sequence; an image is computed once whatever its path."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from helpers.graphs import saved
from helpers.photos import write_photos

from headstart import backbones
from headstart.data import from_images, open_dataset
from headstart.features import Compute, FeatureCache, embed
from headstart.features.features import embed_exactly
from headstart.images.decoding import decode

ONNXRUNTIME = Compute("onnxruntime")


@pytest.fixture
def backbone(tmp_path):
    return backbones.load(f"onnx:{saved(tmp_path)}")


@pytest.fixture
def data(tmp_path):
    return write_photos(tmp_path / "data", 20)


def by_hand(dataset, backbone):
    session = onnxruntime.InferenceSession(backbone.graph)
    pixels = np.stack(
        [
            backbone.preprocess(decode(dataset.read(i), min_size=backbone.preprocess.min_size))
            for i in range(len(dataset))
        ]
    )
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("cached", [True, False])
def test_features_are_decode_preprocess_and_graph(backbone, data, tmp_path, workers, cached):
    dataset = open_dataset(data)
    expected = by_hand(dataset, backbone)
    exponents = {tap.name: np.array(tap.exponents) for tap in backbone.taps}
    cache = FeatureCache(tmp_path / "c") if cached else None
    for _ in range(2):
        features = embed(dataset, backbone, Compute("onnxruntime", workers=workers), cache=cache)
        assert features.index.tolist() == list(range(40))
        for tap, value in expected.items():
            assert features.values[tap].integers.dtype == np.int16
            steps = np.exp2(exponents[tap].astype(float))  # an integer is the nearest one
            assert (np.abs(np.float64(features.values[tap]) - value) <= 0.5001 * steps + 1e-5 * np.abs(value)).all()
    assert features.cut_off == dict.fromkeys(expected, 0)
    assert features.notes == ()
    exact = embed_exactly(dataset, backbone, Compute("onnxruntime", workers=workers))
    for tap, value in expected.items():
        np.testing.assert_allclose(exact.values[tap], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        features.matrix(["early", "features"], np.arange(40)),
        np.concatenate([expected["early"], expected["features"]], axis=1),
        atol=1e-3,
    )
    rows = np.array([3, 1, 2])
    np.testing.assert_array_equal(features.matrix(["early"], rows), np.float32(features.values["early"][rows]))
    consecutive = features.vectors(np.arange(5, 9))["early"].integers
    assert np.shares_memory(consecutive, features.values["early"].integers)
    if cache is not None:
        cache.close()


def test_an_image_is_computed_once_whatever_its_name_and_folder(backbone, data, tmp_path):
    with FeatureCache(tmp_path / "c") as cache:

        def count(folder):
            features = embed(open_dataset(folder), backbone, ONNXRUNTIME, cache=cache)
            return features.hits, features.misses

        assert count(data) == (0, 40)
        assert count(data) == (40, 0)
        moved = tmp_path / "elsewhere"
        for i, p in enumerate(sorted(data.rglob("*.jpg"))):
            target = moved / "renamed" / p.parent.name / f"{997 - i}.jpeg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, target)
        assert count(moved) == (40, 0)
        for p in write_photos(tmp_path / "new", 5, seed=7).rglob("*.jpg"):
            shutil.copy(p, data / p.parent.name / f"new-{p.name}")
        assert count(data) == (40, 10)


def test_the_same_image_twice_in_one_run(backbone, data, tmp_path):
    paths = sorted(map(str, Path(data).rglob("*.jpg")))[:3]
    with FeatureCache(tmp_path / "c") as cache:
        for misses in (9, 0):
            features = embed(from_images(paths * 3), backbone, ONNXRUNTIME, cache=cache)
            assert features.misses == misses
            for value in features.values.values():
                np.testing.assert_array_equal(value[:3], value[3:6])
                np.testing.assert_array_equal(value[:3], value[6:])


def test_another_backbone_or_preprocessing_has_cache_entries_of_its_own(backbone, data, tmp_path):
    dataset = open_dataset(data)
    others = [
        backbones.load(f"onnx:{saved(tmp_path, 'other.onnx', seed=1)}"),
        backbones.load(f"onnx:{saved(tmp_path)}", options=backbones.InputOptions(crop=0.5)),
        backbones.load(f"onnx:{saved(tmp_path)}", options=backbones.InputOptions(mean=(0, 0, 0), std=(1, 1, 1))),
        backbones.load(f"onnx:{saved(tmp_path)}", taps=("c2",)),
    ]
    with FeatureCache(tmp_path / "c") as cache:
        embed(dataset, backbone, ONNXRUNTIME, cache=cache)
        for other in others:
            assert embed(dataset, other, ONNXRUNTIME, cache=cache).hits == 0
        assert embed(dataset, backbone, ONNXRUNTIME, cache=cache).misses == 0


def test_unreadable_images_are_named_and_the_others_keep_their_index(backbone, data):
    paths = sorted(data.rglob("*.jpg"))
    bad = paths[3].with_name("bad.jpg")
    bad.write_bytes(paths[3].read_bytes()[:200])
    dataset = from_images([paths[0], bad, paths[1], Path("missing.jpg"), paths[2]])
    features = embed(dataset, backbone, ONNXRUNTIME)
    assert features.index.tolist() == [0, 2, 4]
    assert [q.path for q in features.quarantined] == [str(bad), "missing.jpg"]
    good = embed(from_images(paths[:3]), backbone, ONNXRUNTIME)
    np.testing.assert_array_equal(features.values["features"], good.values["features"])


def test_a_dataset_without_readable_images_has_no_features(backbone):
    features = embed(from_images(["missing.jpg"]), backbone, ONNXRUNTIME)
    assert len(features.index) == 0
    assert len(features.quarantined) == 1


def test_large_values_have_large_steps(data, tmp_path):
    path = saved(tmp_path)
    options = backbones.InputOptions(mean=(0.5,) * 3, std=(1e-6,) * 3)
    backbone = backbones.load(f"onnx:{path}", options=options)
    with FeatureCache(tmp_path / "c") as cache:
        for _ in range(2):
            features = embed(open_dataset(data), backbone, ONNXRUNTIME, cache=cache)
            expected = by_hand(open_dataset(data), backbone)["early"]
            assert np.abs(expected).max() > 60_000
            np.testing.assert_allclose(features.values["early"], expected, atol=1e-3 * np.abs(expected).max())
            assert features.cut_off["early"] == 0


def test_values_beyond_the_range_are_cut_off_and_counted(backbone, data, tmp_path):
    shallow, deep = backbone.taps
    low = tuple(exponent - 8 for exponent in shallow.exponents)
    backbone = replace(backbone, taps=(replace(shallow, exponents=low), deep))
    limits = 32767 * np.exp2(np.array(low, float))
    expected = by_hand(open_dataset(data), backbone)["early"]
    count = int((np.abs(expected) > limits).sum())
    assert 0 < count < expected.size
    with FeatureCache(tmp_path / "c") as cache:
        for _ in range(2):  # counted again where they come from the cache
            features = embed(open_dataset(data), backbone, ONNXRUNTIME, cache=cache)
            assert features.cut_off == {"early": count, "features": 0}
            np.testing.assert_allclose(features.values["early"], np.clip(expected, -limits, limits), rtol=1e-2)
            assert features.notes[0].startswith(f"{count} of 320 values of early are beyond the range")
    assert features.hits == 40


def test_other_steps_are_another_backbone(backbone, data, tmp_path):
    taps = tuple(replace(tap, exponents=tuple(e + 1 for e in tap.exponents)) for tap in backbone.taps)
    with FeatureCache(tmp_path / "c") as cache:
        first = embed(open_dataset(data), backbone, ONNXRUNTIME, cache=cache)
        other = embed(open_dataset(data), replace(backbone, taps=taps), ONNXRUNTIME, cache=cache)
    assert (first.misses, other.misses) == (40, 40)
    difference = np.abs(np.float64(first.values["early"]) - np.float64(other.values["early"]))
    assert 0 < difference.max() <= np.exp2(np.max(taps[0].exponents))


def test_a_backbone_without_steps_gets_those_that_preparing_it_would_give(backbone, data):
    bare = replace(backbone, taps=tuple(replace(tap, exponents=None) for tap in backbone.taps))
    expected, features = (embed(open_dataset(data), b, ONNXRUNTIME) for b in (backbone, bare))
    for tap in expected.values:
        np.testing.assert_array_equal(features.values[tap].exponents, expected.values[tap].exponents)
        np.testing.assert_array_equal(features.values[tap].integers, expected.values[tap].integers)


@pytest.mark.parametrize("coarser", [0, 6])
def test_channels_that_hardly_vary_are_coarse(backbone, data, coarser):
    taps = tuple(replace(tap, exponents=tuple(e + coarser for e in tap.exponents)) for tap in backbone.taps)
    rows, dataset = np.arange(5, 40), open_dataset(data)
    found = embed(dataset, replace(backbone, taps=taps), ONNXRUNTIME).coarse_channels(rows)
    for tap in taps:
        deviations = by_hand(dataset, backbone)[tap.name][rows].std(axis=0)
        assert found[tap.name] == (deviations < 8 * np.exp2(np.array(tap.exponents, float))).mean()
    assert (found["early"] > 0.4) == (coarser == 6)


def test_progress_counts_to_the_end(backbone, data):
    calls = []
    embed(open_dataset(data), backbone, ONNXRUNTIME, progress=lambda *counts: calls.append(counts))
    assert calls[-1] == (40, 40)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_features_have_only_the_taps_of_the_backbone(backbone, data):
    shallow = replace(backbone, taps=backbone.taps[:1])
    assert list(embed(open_dataset(data), shallow, ONNXRUNTIME).values) == ["early"]


def test_the_tiny_image_is_the_mean_of_its_parts(backbone):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    features = embed(from_images([image]), backbone, ONNXRUNTIME).tiny_images[0].reshape(16, 16, 3)
    expected = image.reshape(16, 4, 16, 6, 3).mean(axis=(1, 3))
    assert np.abs(features - expected).max() <= 1.5


def test_a_damaged_entry_is_computed_again(backbone, data, tmp_path, monkeypatch):
    dataset = open_dataset(data)
    with FeatureCache(tmp_path / "c") as cache:
        first = embed(dataset, backbone, ONNXRUNTIME, cache=cache)
        get_many = cache.get_many
        monkeypatch.setattr(cache, "get_many", lambda keys: [v[:-1] if v is not None else v for v in get_many(keys)])
        second = embed(dataset, backbone, ONNXRUNTIME, cache=cache)
    assert second.misses == 40
    np.testing.assert_array_equal(second.values["features"], first.values["features"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_depends_neither_on_its_neighbours_nor_on_its_place(data, runtime, precision):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    dataset, backbone = open_dataset(data), backbones.load("headstart-s", precision=precision)
    expected = embed(dataset, backbone, Compute(runtime, precision))
    rows = np.random.default_rng(0).permutation(40)[:21]
    for workers in (1, 2):
        features = embed(dataset.select(rows.tolist()), backbone, Compute(runtime, precision, workers))
        for tap, values in features.values.items():
            np.testing.assert_array_equal(values.integers, expected.values[tap].integers[rows])


def test_rows_are_ordered_by_content_while_they_are_put_together_or_later(backbone, data):
    (data / "disc" / "broken.jpg").write_bytes(b"no image")
    dataset = open_dataset(data)
    later = embed(dataset, backbone, ONNXRUNTIME).by_content(dataset)
    at_once = embed(dataset, backbone, ONNXRUNTIME, by_content=True)
    assert at_once.by_content(dataset) is at_once
    assert len(at_once.index) == 40
    contents = [hashlib.sha256(dataset.read(int(i))).digest() for i in at_once.index]
    assert contents == sorted(contents) == [bytes(content) for content in at_once.content_hashes]
    for name in ("index", "content_hashes", "tiny_images", "image_stats"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(later, name))
    expected = by_hand(dataset.select(at_once.index.tolist()), backbone)
    for tap in at_once.values:
        np.testing.assert_array_equal(at_once.values[tap].integers, later.values[tap].integers)
        np.testing.assert_allclose(at_once.values[tap], expected[tap], atol=1e-3)
