"""Small images of a report, and their cache."""

import numpy as np
import pytest
from helpers.photos import write_photos

from headstart.backbones import load
from headstart.classifier import FitOptions, fit_dataset
from headstart.data import open_dataset
from headstart.features import Compute, FeatureCache, embed
from headstart.features.features import thumbnail_key
from headstart.report import thumbnails

ONNXRUNTIME = Compute("onnxruntime")


def test_tiles_come_from_the_cache_and_damaged_entries_are_computed_again(tmp_path, monkeypatch):
    dataset = open_dataset(write_photos(tmp_path / "data", 8))
    backbone = load("headstart-s")
    with FeatureCache(tmp_path / "cache", thumbnails=True) as cache:
        features = embed(dataset, backbone, ONNXRUNTIME, cache=cache)
        rows = range(len(features.index))

        def tiles(side, cache=cache):
            return dict(thumbnails.tiles(dataset, features, rows, side, cache, 1))

        monkeypatch.setattr(type(dataset), "read", lambda *_: pytest.fail("an image is read again"))
        cached = tiles(48)
        monkeypatch.undo()
        decoded = tiles(48, None)  # decoded again, at another size
        assert all(np.abs(cached[row].astype(int) - decoded[row]).mean() < 4 for row in rows)
        assert {tile.shape for tile in tiles(32).values()} == {(32, 32, 3)}
        cache.put_many({thumbnail_key(features.content_hashes[3].tobytes()): np.zeros(5, np.uint8)})
        again = tiles(48)
        assert np.array_equal(again[2], cached[2])
        assert np.array_equal(again[3], decoded[3])  # computed anew


@pytest.mark.parametrize("with_report", [True, False])
def test_a_fit_caches_tiles_only_for_a_report(tmp_path, with_report):
    dataset = open_dataset(write_photos(tmp_path / "data", 12))
    features = fit_dataset(dataset, FitOptions(compute=ONNXRUNTIME), thumbnails=with_report).data.features
    with FeatureCache() as cache:
        values = cache.get_many([thumbnail_key(content.tobytes()) for content in features.content_hashes])
    assert [value is not None for value in values] == [with_report] * 24
