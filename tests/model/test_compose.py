"""``model.onnx`` computes what the backbone, the head and the OOD detector compute one after the other."""

import numpy as np
import onnxruntime
import pytest
from helpers.graphs import network
from onnx import TensorProto, helper

from headstart import ImageClassifier, backbones
from headstart.backbones.onnx.graph import rename_tensors
from headstart.data import open_dataset
from headstart.errors import HeadstartError
from headstart.features import Compute
from headstart.features.features import embed_exactly
from headstart.images.decoding import decode
from headstart.model import Predictor
from headstart.model.compose import add_decision
from headstart.model.folder import read_model
from headstart.stats.decision import DecisionRule

ONNXRUNTIME = Compute("onnxruntime")


@pytest.fixture
def dataset(photos):
    return open_dataset(photos).split("validation")


@pytest.fixture
def vectors(model_folder, dataset):
    """The head's input for the images of the dataset."""
    features = embed_exactly(dataset, backbones.load("headstart-s"), ONNXRUNTIME)
    return features.matrix(read_model(model_folder).head.taps, np.arange(len(features.index)))


def run_plain(model_folder, dataset, output):
    """Run the graph in plain ONNX Runtime on the resized images."""
    session = onnxruntime.InferenceSession(model_folder / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["pixels"]
    assert [(o.name, len(o.shape)) for o in session.get_outputs()] == [("probabilities", 2), ("distance", 1)]
    preprocess = read_model(model_folder).preprocess
    pixels = np.stack([preprocess(decode(dataset.read(i))) for i in range(len(dataset))])
    return session.run([output], {"pixels": pixels})[0]


def test_plain_onnx_runtime_gives_the_same_probabilities(model_folder, dataset):
    expected = Predictor.load(model_folder, ONNXRUNTIME).predict(dataset).probabilities
    probabilities = run_plain(model_folder, dataset, "probabilities")
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_backbone_may_have_tensors_called_like_those_of_the_head(photos, tmp_path):
    """Its predictions are those of the same network with other names."""
    plain, named = network(), network()
    rename_tensors(
        named.graph, {"w1": "head.weights", "b1": "head.bias", "early": "probabilities", "late": "distance.away"}
    )
    rename_tensors(named.graph, {"probabilities": "distance"})
    predictions = []
    for name, model in (("plain", plain), ("named", named)):
        del model.graph.node[-1]  # the softmax, which is called probabilities
        model.graph.output[0].name = "logits"
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        classifier = ImageClassifier(f"onnx:{path}", cache=False, runtime="onnxruntime").fit(photos)
        classifier.save(tmp_path / name)
        predictions.append(Predictor.load(tmp_path / name, ONNXRUNTIME).predict(photos).probabilities)
    np.testing.assert_array_equal(*predictions)


def test_the_graph_is_the_head_on_the_features(model_folder, dataset, vectors):
    probabilities = Predictor.load(model_folder, ONNXRUNTIME).predict(dataset).probabilities
    np.testing.assert_allclose(probabilities, read_model(model_folder).head.probabilities(vectors), atol=1e-4)


def test_the_graph_gives_the_scores_of_the_ood_detector(model_folder, dataset, vectors):
    expected = read_model(model_folder).ood.scores(vectors)
    np.testing.assert_allclose(run_plain(model_folder, dataset, "distance"), expected, atol=1e-4)
    assert expected.std() > 0.01
    for runtime in ("onnxruntime", "openvino"):
        compute = Compute(runtime)
        try:
            compute.resolve()
        except HeadstartError:
            continue
        scores = Predictor.load(model_folder, compute).predict(dataset).ood_scores
        np.testing.assert_allclose(scores, expected, atol=0.1 if runtime == "openvino" else 1e-4)


@pytest.mark.parametrize("kind", ["costs", "thresholds"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_graph_decides_by_any_rule_as_numpy_does(kind, classes):
    rng = np.random.default_rng(classes)
    for scale in (1e-3, 1, 1e6):
        if kind == "costs":
            costs = rng.random((classes, classes)) * scale * (1 - np.eye(classes))
            rule = DecisionRule.of_costs(costs)
        else:
            rule = DecisionRule.of_thresholds(rng.choice([0.5, 0.01, 1e-6, 0.99], classes).tolist())
        shape = ["batch", classes]
        inputs = [helper.make_tensor_value_info("given", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)]
        identity = helper.make_node("Identity", ["given"], ["probabilities"])
        graph = helper.make_graph([identity], "probabilities", inputs, outputs)
        add_decision(graph, rule)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        given = rng.dirichlet(np.full(classes, 0.3), 3000).astype(np.float32)
        scores = given.astype(np.float64) @ rule.matrix
        two = np.sort(scores, axis=1)[:, -2:]
        is_clear = two[:, 1] - two[:, 0] > 1e-5 * np.abs(scores).max(axis=1)  # beyond the rounding of float32
        assert is_clear.mean() > 0.9
        decided = session.run(["decision"], {"given": given})[0]
        np.testing.assert_array_equal(decided[is_clear], rule.decide(given.astype(np.float64))[is_clear])
