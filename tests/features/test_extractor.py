"""Images are decoded while the network runs, and the number of images in progress is bounded."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers.graphs import saved
from helpers.photos import write_photos

from headstart import backbones
from headstart.data import open_dataset
from headstart.errors import BackboneError
from headstart.features import Compute, embed, extractor
from headstart.features.extractor import BATCH_SIZE, FeatureExtractor, load_backbone_graph
from headstart.features.runtime import Graph
from headstart.machine import return_freed_memory

ONNXRUNTIME = Compute("onnxruntime", workers=1)


@pytest.fixture
def backbone(tmp_path):
    return backbones.load(f"onnx:{saved(tmp_path)}")


@pytest.fixture
def dataset(tmp_path):
    return open_dataset(write_photos(tmp_path / "data", 20))


def test_values_that_are_not_finite_are_an_error(backbone, dataset):
    def infinite(backbone, compute):
        graph = load_backbone_graph(backbone, compute)
        channels = {tap.name: tap.channels for tap in backbone.taps}
        outputs = [np.full((8, channels[name]), np.inf, "f4") for name in graph.outputs]
        return Graph(graph.info, graph.outputs, 1, lambda images: outputs)

    with pytest.raises(BackboneError, match="not finite"):
        list(FeatureExtractor(dataset, backbone, ONNXRUNTIME, load=infinite).batches())


def test_values_of_another_shape_are_an_error(backbone, dataset):
    def narrow(backbone, compute):
        graph = load_backbone_graph(backbone, compute)
        return Graph(graph.info, graph.outputs, 1, lambda images: [np.zeros((len(images), 7), "f4")] * 2)

    taps = backbone.taps[-1:]
    with pytest.raises(BackboneError, match="56 values of features for 8 images; its description says 12"):
        list(FeatureExtractor(dataset, replace(backbone, taps=taps), ONNXRUNTIME, load=narrow).batches())


def test_images_are_decoded_while_the_network_loads(backbone, dataset):
    """All 40 are five batches; the network is loaded only when the last is decoded."""
    ready, decoded = threading.Event(), []

    class Extractor(FeatureExtractor):
        def decode(self, batch):
            decoded.extend(image.index for image in batch)
            if len(decoded) == 40:
                ready.set()
            return super().decode(batch)

    def load_late(backbone, compute):
        assert ready.wait(60)
        return load_backbone_graph(backbone, compute)

    results = list(Extractor(dataset, backbone, ONNXRUNTIME, load=load_late).batches())
    assert sum(result.misses for result in results) == 40
    assert sorted(decoded) == list(range(40))


def test_the_number_of_images_in_progress_is_bounded(backbone, dataset):
    looked_up, finished, in_progress = [], [], []  # lists: two threads count

    class Extractor(FeatureExtractor):
        def look_up(self, start):
            result, pending, end = super().look_up(start)
            looked_up.extend(range(start, end))
            in_progress.append(len(looked_up) - len(finished))
            return result, pending, end

        def run(self, decoded, load):
            result = super().run(decoded, load)
            finished.extend(result.vectors)
            return result

    results = list(Extractor(dataset, backbone, ONNXRUNTIME, max_bytes_in_flight=0).batches())
    assert sum(result.misses for result in results) == 40
    assert max(in_progress) <= 3 * BATCH_SIZE


def test_the_bytes_of_large_files_in_progress_are_bounded(backbone, dataset, monkeypatch):
    """Of files of which four are as large as the limit, at most ten are held: those in progress, and two that were
    just read."""
    size = max(len(dataset.read(i)) for i in range(40))
    monkeypatch.setattr(extractor, "MAX_BYTES", 4 * size)
    held, most = set(), []
    lock = threading.Lock()

    class Extractor(FeatureExtractor):
        def look_up(self, start):
            result, pending, end = super().look_up(start)
            with lock:
                held.update(image.index for image in pending)
                most.append(len(held))
            return result, pending, end

        def run(self, decoded, load):
            result = super().run(decoded, load)
            with lock:
                held.difference_update(result.vectors)
            return result

    results = list(Extractor(dataset, backbone, ONNXRUNTIME).batches())
    assert sorted(i for result in results for i in result.vectors) == list(range(40))
    assert max(most) <= 10


def test_a_graph_without_a_tap_is_an_error(backbone, dataset, tmp_path):
    other_cut = backbones.load(f"onnx:{saved(tmp_path, 'cut.onnx')}", taps=("c2",))
    with pytest.raises(BackboneError, match="The graph has no output c2"):
        list(FeatureExtractor(dataset, replace(backbone, taps=other_cut.taps), ONNXRUNTIME).batches())


def test_features_are_the_same_where_freed_memory_is_returned(backbone, dataset):
    before = embed(dataset, backbone, ONNXRUNTIME)
    return_freed_memory()
    after = embed(dataset, backbone, ONNXRUNTIME)
    np.testing.assert_array_equal(after.values["features"], before.values["features"])


def test_vectors_of_an_image_are_packed_and_unpacked():
    vectors = {
        "a": np.arange(3, dtype=np.int16) - 1,
        "b": np.array([1e30], np.float32),
        "c": np.array([7, 8], np.uint8),
    }
    widths = {name: len(vector) for name, vector in vectors.items()}
    packed = extractor.pack(vectors, [*widths])
    unpacked = extractor.unpack(packed, widths)
    assert {name: (vector.dtype, vector.tolist()) for name, vector in unpacked.items()} == {
        name: (vector.dtype, vector.tolist()) for name, vector in vectors.items()
    }
    for damaged in (packed[:-1], np.append(packed, np.uint8(0)), packed[:0]):
        assert extractor.unpack(damaged, widths) is None
