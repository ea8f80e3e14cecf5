"""``ImageClassifier`` as a transformer: the features that its head gets."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.photos import paths_and_labels
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import headstart as hs
from headstart import backbones
from headstart.errors import DataError, ModelError
from headstart.features import Compute, embed
from headstart.model.compose import compose


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cut", ["features", ["stage4", "features"]])
def test_the_features_are_those_of_the_taps_and_the_head_turns_them_into_the_probabilities(photos, runtime, cut):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    paths, labels = paths_and_labels(photos / "train")
    classifier = hs.ImageClassifier("headstart-s", cut=cut, runtime=runtime, precision="fp32", cache=False).fit(
        paths, labels
    )
    features = classifier.transform(paths)
    assert features.dtype == np.float32
    head = classifier.model_.head
    np.testing.assert_allclose(head.probabilities(features), classifier.predict_proba(paths), atol=1e-5)
    of_backbone = embed(hs.open_dataset(photos / "train"), backbones.load("headstart-s"), Compute(runtime, "fp32"))
    expected = of_backbone.matrix(head.taps, np.arange(len(paths)))  # rounded to steps
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=2e-3)
    names = classifier.get_feature_names_out()
    assert names.tolist() == [f"imageclassifier{i}" for i in range(features.shape[1])]


def test_the_features_are_those_before_a_hidden_layer(model_folder, photos):
    loaded = hs.load(model_folder)
    model, rng = loaded.model_, np.random.default_rng(0)
    width = len(model.ood.centre)
    hidden = (rng.normal(0, 1, (width, 8)).astype(np.float32), rng.normal(0, 1, 8).astype(np.float32))
    head = replace(model.head, hidden_layer=hidden, weights=rng.normal(0, 0.01, (8, 2)).astype(np.float32))
    graph = compose(backbones.load("headstart-s"), head, model.ood)
    loaded.set_params(runtime="onnxruntime").model_ = replace(model, head=head, graph=graph)
    paths, _ = paths_and_labels(photos / "validation")
    features = loaded.transform(paths)
    assert features.shape == (len(paths), width)
    np.testing.assert_allclose(head.probabilities(features), loaded.predict_proba(paths), atol=1e-4)


def test_it_is_a_step_of_a_pipeline(photos):
    paths, labels = paths_and_labels(photos / "train")
    pipeline = make_pipeline(hs.ImageClassifier(runtime="onnxruntime"), LogisticRegression(max_iter=1000))
    assert cross_val_score(pipeline, paths, labels, cv=2, error_score="raise").mean() > 0.6
    pipeline.fit(paths, labels)
    first, last = pipeline[0], pipeline[-1]
    direct = LogisticRegression(max_iter=1000).fit(first.transform(paths), labels)
    np.testing.assert_allclose(last.coef_, direct.coef_)
    assert pipeline.predict(paths).tolist() == direct.predict(first.transform(paths)).tolist()
    assert len(pipeline[:-1].get_feature_names_out()) == last.n_features_in_


def test_a_loaded_model_transforms_as_before_and_an_unreadable_image_is_an_error(model_folder, photos, tmp_path):
    paths, _ = paths_and_labels(photos / "validation")
    loaded = hs.load(model_folder)
    features = loaded.transform(paths[:3])
    np.testing.assert_allclose(loaded.model_.head.probabilities(features), loaded.predict_proba(paths[:3]), atol=0.02)
    one_by_one = np.concatenate([loaded.transform([path]) for path in paths[:3]])
    np.testing.assert_allclose(features, one_by_one, rtol=0.02, atol=0.02)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 images cannot be read, first .*bad\.jpg: Not an image"):
        loaded.transform([paths[0], bad])


def test_a_graph_that_does_not_name_its_features_is_an_error(model_folder, photos):
    loaded = hs.load(model_folder)
    paths, _ = paths_and_labels(photos / "validation")
    loaded.model_ = replace(loaded.model_, graph=loaded.model_.graph.replace(b"distance.away", b"distance_away"))
    with pytest.raises(ModelError, match="does not say where the features of the head are; fit the model again"):
        loaded.transform(paths[:1])
    loaded.model_ = replace(loaded.model_, graph=b"\xff\xff")
    with pytest.raises(ModelError, match="is not an ONNX graph"):
        loaded.transform(paths[:1])
