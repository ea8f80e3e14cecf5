"""int8 from the option to the prediction: features, cache, cut and composed graphs, golden sample, refusals."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.frameworks import blobs
from helpers.graphs import saved
from helpers.photos import write_photos

from headstart import Compute, FitOptions, Predictor, backbones, fit_dataset, open_dataset
from headstart.backbones import store
from headstart.backbones.int8 import int8_version
from headstart.errors import DataError, HeadstartError, OptionError, VerifyError
from headstart.features import FeatureCache, embed
from headstart.features.extractor import FeatureExtractor, load_backbone_graph, run_backbone
from headstart.features.int8 import calibration_images, make_int8
from headstart.features.runtime import resolve_runtime
from headstart.model import folder as model_folders

ONNXRUNTIME = Compute("onnxruntime", "int8", 1)


def runtimes():
    """The runtimes that are installed."""
    for name in ("onnxruntime", "openvino"):
        try:
            resolve_runtime(name)
        except HeadstartError:
            continue
        yield name


def relative_error(actual, expected):
    """The error relative to how much images differ from each other."""
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected - expected.mean(axis=0))


@pytest.fixture(scope="module")
def dataset(photos):
    return open_dataset(photos)


@pytest.mark.parametrize("name", ["headstart-s", pytest.param("headstart-m", marks=pytest.mark.slow)])
def test_int8_features_are_near_float_features_on_every_runtime(name, dataset):
    for runtime in runtimes():
        exact = embed(dataset, backbones.load(name), Compute(runtime, "fp32"))
        quantised = embed(dataset, backbones.load(name, precision="int8"), Compute(runtime, "int8"))
        assert quantised.runtime.key == f"{runtime}-int8"
        assert list(quantised.values) == list(exact.values) == ["stage2", "stage3", "stage4", "stage5", "features"]
        for tap, values in exact.values.items():
            assert 0.001 < relative_error(np.float64(quantised.values[tap]), np.float64(values)) < 0.25, tap
            np.testing.assert_array_equal(quantised.values[tap].exponents, values.exponents)


def test_int8_has_a_hash_and_cache_entries_of_its_own(dataset):
    backbone = backbones.load("headstart-s")
    quantised = backbones.load("headstart-s", precision="int8")
    assert quantised.sha256 != backbone.sha256
    same = {"graph": b"", "sha256": "", "precision": ""}
    assert replace(quantised, **same) == replace(backbone, **same)
    keys = {
        FeatureExtractor(dataset, *pair).key(b"content")
        for pair in ((backbone, Compute("onnxruntime")), (quantised, ONNXRUNTIME), (quantised, Compute("onnxruntime")))
    }
    assert len(keys) == 3
    with FeatureCache() as cache:
        assert embed(dataset, backbone, Compute("onnxruntime"), cache=cache).misses == 40
        first = embed(dataset, quantised, ONNXRUNTIME, cache=cache)
        again = embed(dataset, quantised, ONNXRUNTIME, cache=cache)
    assert (first.misses, again.misses, again.hits) == (40, 0, 40)
    np.testing.assert_array_equal(first.deepest, again.deepest)


def test_int8_of_a_float_graph_is_refused(dataset):
    with pytest.raises(OptionError, match="headstart-s computes in fp32"):
        embed(dataset, backbones.load("headstart-s"), ONNXRUNTIME)


def pixels_of(backbone, count=3):
    """Images as a backbone takes them: soft random blobs."""
    return blobs(backbone.preprocess.height, count)


@pytest.mark.parametrize("taps", [["stage3"], ["stage5", "features"]])
def test_a_cut_int8_graph_gives_the_same_taps(taps):
    backbone = backbones.load("headstart-m", precision="int8")
    pixels = pixels_of(backbone)
    whole = run_backbone(load_backbone_graph(backbone, ONNXRUNTIME), backbone, pixels)
    kept = replace(
        backbone,
        graph=backbones.cut(backbone, taps).SerializeToString(),
        taps=tuple(tap for tap in backbone.taps if tap.name in taps),
    )
    outputs = run_backbone(load_backbone_graph(kept, ONNXRUNTIME), kept, pixels)
    assert list(outputs) == taps
    for tap in taps:
        np.testing.assert_array_equal(outputs[tap], whole[tap])


@pytest.fixture(scope="module")
def result(dataset):
    """A fit in int8 on ONNX Runtime."""
    return fit_dataset(dataset, FitOptions(backbone="headstart-s", compute=ONNXRUNTIME, cache=False))


def test_the_composed_graph_is_the_head_on_int8_features(result):
    backbone, head = result.data.backbone, result.selected.head
    pixels = pixels_of(backbone, 5)
    features = run_backbone(load_backbone_graph(backbone, ONNXRUNTIME), backbone, pixels)
    expected = head.probabilities(np.concatenate([features[tap] for tap in head.taps], axis=1))
    model = result.model.as_backbone()
    actual = run_backbone(load_backbone_graph(model, ONNXRUNTIME), model, pixels)["probabilities"]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_a_model_in_int8_says_so_and_predicts_on_every_runtime(result, dataset, tmp_path):
    folder = result.save(tmp_path / "model")
    model = model_folders.read_model(folder)
    assert model.precision == model.backbone["precision"] == model.golden.precision == "int8"
    assert model.run["runtime"]["precision"] == model.run["backbone"]["precision"] == "int8"
    assert {node.op_type for node in onnx.load_from_string(model.graph).graph.node} >= {"QuantizeLinear"}
    assert len(model.graph) < 3e6
    reference = Predictor.load(folder, ONNXRUNTIME).predict(dataset).probabilities
    for runtime in runtimes():
        predictor = Predictor.load(folder, Compute(runtime))
        verification = predictor.verify()
        assert verification.runtime.precision == "int8"
        assert verification.difference <= verification.tolerance
        assert np.abs(predictor.predict(dataset).probabilities - reference).max() < 0.1
        for precision in ("fp32", "int8"):
            assert replace(predictor, compute=Compute(runtime, precision)).compute_of_model.precision == "int8"


def test_a_changed_int8_model_fails_verification(result):
    golden = result.model.golden
    model = replace(result.model, golden=replace(golden, probabilities=golden.probabilities[:, ::-1].copy()))
    with pytest.raises(VerifyError, match="differs by"):
        Predictor(model, ONNXRUNTIME).verify()


def test_a_float_model_is_not_run_in_int8(model_folder, dataset):
    with pytest.raises(OptionError, match="computes in fp32"):
        Predictor.load(model_folder, ONNXRUNTIME).predict(dataset)


def test_a_backbone_without_int8_says_how_to_make_it_and_then_has_it(tmp_path, dataset):
    path = saved(tmp_path)
    id = f"onnx:{path}"
    with pytest.raises(OptionError, match=rf"headstart backbones quantize {id} --images"):
        backbones.load(id, precision="int8")
    made = make_int8(backbones.load(id), [dataset], 16)
    assert made == backbones.load(id, precision="int8")
    assert int8_version(made) is made
    again = make_int8(backbones.load(id), [dataset], 16)
    assert again.sha256 == made.sha256 != make_int8(backbones.load(id), [dataset], 16, seed=1).sha256
    result = fit_dataset(dataset, FitOptions(backbone=id, compute=ONNXRUNTIME, cache=False))
    assert result.model.precision == "int8"


def test_a_damaged_int8_graph_or_one_of_another_graph_counts_as_missing(tmp_path, dataset):
    id = f"onnx:{saved(tmp_path)}"
    backbone = backbones.load(id)
    made = make_int8(backbone, [dataset], 16)
    made.graph.write_bytes(made.graph.read_bytes() + b" ")
    assert int8_version(backbone) is None
    made = make_int8(backbone, [dataset], 16)
    assert int8_version(replace(backbone, sha256="0" * 64)) is None
    made.graph.with_name("int8.json").write_text("[]")
    assert int8_version(backbone) is None


def test_images_to_quantise_with_are_training_images_and_bounded(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    few = open_dataset(write_photos(tmp_path / "few", 3))
    with pytest.raises(DataError, match="Only 6 of the images"):
        make_int8(backbone, [few], 16)
    for count in (15, 1001):
        with pytest.raises(OptionError, match="cannot be used; give 16 to 1,000"):
            make_int8(backbone, [few], count)
    write_photos(tmp_path / "split" / "train", 4)
    write_photos(tmp_path / "split" / "validation", 4, seed=1)
    dataset = open_dataset(tmp_path / "split")
    drawn = calibration_images(backbone, [dataset], 100, 0)
    train = calibration_images(backbone, [dataset.split("train")], 100, 0)
    assert len(drawn) == 8
    np.testing.assert_array_equal(drawn, train)


def test_an_int8_backbone_is_imported_as_one():
    backbone = backbones.load("headstart-s", precision="int8")
    store.put("mine", backbone)
    kept = backbones.load("mine")
    assert (kept.precision, kept.sha256) == ("int8", backbone.sha256)
    assert backbones.load("mine", precision="int8") == kept
