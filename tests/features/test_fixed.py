"""Features that do not depend on the batch, on the place in it, on neighbours or on threads: what workers compute."""

import numpy as np
import pytest
from helpers.photos import write_photos

from headstart import backbones
from headstart.data import open_dataset
from headstart.features import Compute
from headstart.features.extractor import BATCH_SIZE, FeatureExtractor, load_backbone_graph
from headstart.features.features import embed_exactly
from headstart.features.runtime import Graph

RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_photos(tmp_path_factory.mktemp("photos"), 11))


@pytest.fixture(scope="module")
def backbone():
    return backbones.load("headstart-s")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_does_not_depend_on_its_neighbours_nor_on_its_place(runtime, dataset, backbone):
    pytest.importorskip(runtime)
    expected = embed_exactly(dataset, backbone, Compute(runtime, "fp32", 1, fixed=True))
    rng = np.random.default_rng(0)
    for count, workers in ((22, 1), (22, 2), (9, 3), (1, 1), (1, 2)):
        chosen = rng.permutation(len(dataset))[:count]

        found = embed_exactly(dataset.select(chosen), backbone, Compute(runtime, "fp32", workers, fixed=True))

        for tap, values in found.values.items():
            assert values.tobytes() == expected.values[tap][chosen].tobytes()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_does_not_depend_on_an_unreadable_neighbour(runtime, dataset, backbone, tmp_path):
    pytest.importorskip(runtime)
    compute = Compute(runtime, "fp32", 1, fixed=True)
    photos = open_dataset(write_photos(tmp_path, 5))
    expected = embed_exactly(photos, backbone, compute)
    (tmp_path / "disc" / "002.jpg").write_bytes(b"damaged")

    found = embed_exactly(photos, backbone, compute)

    assert found.index.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert found.deepest.tobytes() == expected.deepest[found.index].tobytes()


def test_batches_are_filled_up_and_run_on_one_thread(dataset, backbone):
    sizes = []

    def load(wanted, compute):
        graph = load_backbone_graph(wanted, compute)
        assert compute.fixed

        def call(images):
            sizes.append(len(images))
            return graph._call(images)

        return Graph(graph.info, graph.outputs, graph.workers, call)

    extractor = FeatureExtractor(dataset, backbone, Compute("onnxruntime", workers=1, fixed=True), load=load)

    assert len([i for result in extractor.batches() for i in result.vectors]) == 22
    assert sizes == [BATCH_SIZE] * 3


def test_one_thread_runs_a_fixed_graph(backbone, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    seen = []
    real = onnxruntime.InferenceSession

    def session(model, options, **arguments):
        seen.append(options.intra_op_num_threads)
        return real(model, options, **arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr("headstart.features.runtime.cores", lambda: 4)
    load_backbone_graph(backbone, Compute("onnxruntime", workers=1))
    load_backbone_graph(backbone, Compute("onnxruntime", workers=1, fixed=True))

    assert seen == [4, 1]
