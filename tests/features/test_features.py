"""Features equal the steps done by hand, and a picture is computed once wherever it lies."""

import shutil
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from helpers.graphs import saved
from helpers.photos import write_photos

from headstart import backbones
from headstart.data import from_images, open_dataset
from headstart.errors import BackboneError
from headstart.features import extractor as passes
from headstart.features import features
from headstart.features.cache import FeatureCache
from headstart.features.extractor import Pass
from headstart.features.features import embed
from headstart.images.decode import decode


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
            backbone.preprocess(decode(dataset.read(i), at_least=backbone.preprocess.at_least))
            for i in range(len(dataset))
        ]
    )
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"pixels": pixels}), strict=True))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("cached", [True, False])
def test_features_are_decode_preprocess_and_graph(backbone, data, tmp_path, workers, cached):
    dataset = open_dataset(data)
    expected = by_hand(dataset, backbone)
    cache = FeatureCache(tmp_path / "c") if cached else None
    for _ in range(2):
        found = embed(dataset, backbone, cache=cache, runtime="onnxruntime", workers=workers)
        assert found.index.tolist() == list(range(40))
        for tap, value in expected.items():
            assert found.values[tap].dtype == np.float16
            np.testing.assert_allclose(found.values[tap], value, rtol=2e-3, atol=1e-3)
    exact = embed(dataset, backbone, runtime="onnxruntime", workers=workers, exact=True)
    for tap, value in expected.items():
        np.testing.assert_allclose(exact.values[tap], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found.matrix(["early", "features"], np.arange(40)),
        np.concatenate([expected["early"], expected["features"]], axis=1),
        rtol=2e-3, atol=1e-3,
    )  # fmt: skip
    some = np.array([3, 1, 2])
    np.testing.assert_array_equal(found.matrix(["early"], some), np.float32(found.values["early"][some]))
    assert np.shares_memory(found.vectors(np.arange(5, 9))["early"], found.values["early"])
    if cache is not None:
        cache.close()


def test_a_picture_is_computed_once_whatever_its_name_and_folder(backbone, data, tmp_path):
    with FeatureCache(tmp_path / "c") as cache:

        def count(folder):
            found = embed(open_dataset(folder), backbone, cache=cache, runtime="onnxruntime")
            return found.hits, found.misses

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


def test_the_same_picture_twice_in_one_run(backbone, data, tmp_path):
    paths = sorted(map(str, Path(data).rglob("*.jpg")))[:3]
    with FeatureCache(tmp_path / "c") as cache:
        for misses in (9, 0):
            found = embed(from_images(paths * 3), backbone, cache=cache, runtime="onnxruntime")
            assert found.misses == misses
            for value in found.values.values():
                np.testing.assert_array_equal(value[:3], value[3:6])
                np.testing.assert_array_equal(value[:3], value[6:])


def test_another_backbone_preprocessing_or_precision_has_entries_of_its_own(backbone, data, tmp_path):
    dataset = open_dataset(data)
    others = [
        backbones.load(f"onnx:{saved(tmp_path, 'other.onnx', seed=1)}"),
        backbones.load(f"onnx:{saved(tmp_path)}", options=backbones.InputOptions(crop=0.5)),
        backbones.load(f"onnx:{saved(tmp_path)}", options=backbones.InputOptions(mean=(0, 0, 0), std=(1, 1, 1))),
        backbones.load(f"onnx:{saved(tmp_path)}", taps=("c2",)),
    ]
    with FeatureCache(tmp_path / "c") as cache:
        embed(dataset, backbone, cache=cache, runtime="onnxruntime")
        for other in others:
            assert embed(dataset, other, cache=cache, runtime="onnxruntime").hits == 0
        assert embed(dataset, backbone, cache=cache, runtime="onnxruntime").misses == 0


def test_what_cannot_be_read_is_named_and_the_rest_keeps_its_place(backbone, data):
    paths = sorted(data.rglob("*.jpg"))
    bad = paths[3].with_name("bad.jpg")
    bad.write_bytes(paths[3].read_bytes()[:200])
    dataset = from_images([paths[0], bad, paths[1], Path("missing.jpg"), paths[2]])
    found = embed(dataset, backbone, runtime="onnxruntime")
    assert found.index.tolist() == [0, 2, 4]
    assert [q.path for q in found.quarantined] == [str(bad), "missing.jpg"]
    good = embed(from_images(paths[:3]), backbone, runtime="onnxruntime")
    np.testing.assert_array_equal(found.values["features"], good.values["features"])


def test_nothing_readable_is_no_crash(backbone):
    found = embed(from_images(["missing.jpg"]), backbone, runtime="onnxruntime")
    assert len(found.index) == 0
    assert len(found.quarantined) == 1


def test_values_beyond_half_precision_are_kept_whole(data, tmp_path):
    path = saved(tmp_path)
    options = backbones.InputOptions(mean=(0.5,) * 3, std=(1e-6,) * 3)
    backbone = backbones.load(f"onnx:{path}", options=options)
    with FeatureCache(tmp_path / "c") as cache:
        for _ in range(2):
            found = embed(open_dataset(data), backbone, cache=cache, runtime="onnxruntime").values["early"]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, by_hand(open_dataset(data), backbone)["early"], rtol=2e-3)


def test_values_that_are_not_finite_are_an_error(backbone, data, monkeypatch):
    monkeypatch.setattr(
        passes, "run_padded", lambda graph, batch, _: {"early": np.full((len(batch), 8), np.inf, np.float32)}
    )
    with pytest.raises(BackboneError, match="not finite"):
        embed(open_dataset(data), backbone, runtime="onnxruntime")


def test_progress_counts_to_the_end_and_some_taps_can_be_asked_for(backbone, data):
    told = []
    found = embed(
        open_dataset(data), backbone, taps=["early"], runtime="onnxruntime", progress=lambda *a: told.append(a)
    )
    assert told[-1] == (40, 40)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert list(found.values) == ["early"]


def test_the_small_picture_is_the_mean_of_its_parts(backbone):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = embed(from_images([image]), backbone, runtime="onnxruntime").tiny_images[0].reshape(16, 16, 3)
    expected = image.reshape(16, 4, 16, 6, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 1.5


def test_a_damaged_entry_is_computed_again(backbone, data, tmp_path, monkeypatch):
    dataset = open_dataset(data)
    with FeatureCache(tmp_path / "c") as cache:
        first = embed(dataset, backbone, cache=cache, runtime="onnxruntime")
        real = cache.get_many
        monkeypatch.setattr(cache, "get_many", lambda keys: [v[:-1] if v is not None else v for v in real(keys)])
        again = embed(dataset, backbone, cache=cache, runtime="onnxruntime")
    assert again.misses == 40
    np.testing.assert_array_equal(again.values["features"], first.values["features"])


def test_pictures_are_decoded_while_the_network_loads(backbone, data, monkeypatch):
    """All 40 are five batches; the network comes only when the last is decoded."""
    ready, seen, decode, load = threading.Event(), [], Pass.decode, Pass.load

    def decoding(self, batch):
        seen.extend(each.place for each in batch)
        if len(seen) == 40:
            ready.set()
        return decode(self, batch)

    def loading(self):
        assert ready.wait(60)
        return load(self)

    monkeypatch.setattr(Pass, "decode", decoding)
    monkeypatch.setattr(Pass, "load", loading)
    found = embed(open_dataset(data), backbone, runtime="onnxruntime", workers=1)
    assert found.misses == 40
    assert sorted(seen) == list(range(40))


def test_no_more_is_under_way_than_is_allowed(backbone, data, monkeypatch):
    looked, ran, under_way, look_up, run = [], [], [], Pass.look_up, Pass.run  # lists: two threads count

    def looking(self, indices):
        looked.extend(indices)
        under_way.append(len(looked) - len(ran))
        return look_up(self, indices)

    def running(self, decoded, graph):
        work = run(self, decoded, graph)
        ran.extend(work.found)
        return work

    monkeypatch.setattr(Pass, "look_up", looking)
    monkeypatch.setattr(Pass, "run", running)
    monkeypatch.setattr(passes, "AHEAD", 0)
    assert embed(open_dataset(data), backbone, runtime="onnxruntime", workers=1).misses == 40
    assert max(under_way) <= 3 * passes.BATCH


def test_of_many_pictures_the_features_are_the_same(backbone, data, monkeypatch):
    """Where freed memory is given back, from a number of pictures on, nothing else changes."""
    few = embed(open_dataset(data), backbone, runtime="onnxruntime")
    monkeypatch.setattr(features, "MANY", 1)
    many = embed(open_dataset(data), backbone, runtime="onnxruntime")
    np.testing.assert_array_equal(many.values["features"], few.values["features"])
