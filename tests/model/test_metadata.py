"""``model.onnx`` says what its outputs mean, in our words and in those of Intel's Model API."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from headstart.features import Compute
from headstart.model import Predictor
from headstart.model.compose import features_graph
from headstart.model.folder import read_model
from headstart.model.metadata import graph_metadata, labels_without_blanks, model_info


def test_the_graph_carries_classes_preprocessing_and_thresholds(model_folder):
    session = onnxruntime.InferenceSession(model_folder / "model.onnx")
    texts = session.get_modelmeta().custom_metadata_map
    config = json.loads((model_folder / "config.json").read_text("utf-8"))
    own = json.loads(texts["headstart"])
    assert own["classes"] == list(config["id2label"].values()) == ["disc", "stripes"]
    for key in ("preprocess", "coverage", "set_thresholds", "false_alarms", "reject_threshold"):
        assert own[key] == config[key]
    assert model_info(texts) == {
        "model_type": "Classification",
        "labels": "disc stripes",
        "resize_type": "crop",
        "output_raw_scores": "True",
    }


@given(st.lists(st.text(" \t\u3000ab_\udce9\\", max_size=4), min_size=2, max_size=6, unique=True))
def test_labels_have_no_blanks_and_differ(names):
    labels = labels_without_blanks(names)
    assert " ".join(labels).split() == labels
    assert len(set(labels)) == len(names)
    " ".join(labels).encode("utf-8")


@given(st.lists(st.text("ab_c\u00e9", min_size=1, max_size=4), min_size=2, max_size=6, unique=True))
def test_names_without_blanks_stay(names):
    assert labels_without_blanks(names) == names


def test_a_rule_is_in_the_metadata(model_folder):
    from headstart.stats.decision import DecisionRule

    model = read_model(model_folder)
    rule = DecisionRule.of_thresholds([0.5, 0.1])
    texts = graph_metadata(model.classes, model.preprocess, model.thresholds, rule)
    assert json.loads(texts["headstart"])["decision"] == rule.to_dict()


def as_before(model):
    """The same graph as earlier versions wrote it: a Concat of one tensor, no metadata."""
    graph = onnx.load_model_from_string(model.graph)
    del graph.metadata_props[:]
    away = next(i for i, node in enumerate(graph.graph.node) if "distance.away" in node.output)
    features = graph.graph.node[away].input[0]
    for node in graph.graph.node:
        if node.output[0].startswith(("head.", "distance.")):
            for i, name in enumerate(node.input):
                node.input[i] = "head.features" if name == features else name
    first = min(i for i, node in enumerate(graph.graph.node) if "head.features" in node.input)
    graph.graph.node.insert(first, helper.make_node("Concat", [features], ["head.features"], axis=1))
    return graph.SerializeToString()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_models_of_earlier_versions_give_the_same_features_and_are_verified(model_folder, photos, tmp_path, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    import hashlib
    import shutil

    model = read_model(model_folder)
    graph = as_before(model)
    assert sum(node.op_type == "Concat" for node in onnx.load_model_from_string(graph).graph.node) == 1
    old = shutil.copytree(model_folder, tmp_path / "old")
    (old / "model.onnx").write_bytes(graph)
    config = json.loads((old / "config.json").read_text("utf-8"))
    config["sha256"]["model.onnx"] = hashlib.sha256(graph).hexdigest()
    (old / "config.json").write_text(json.dumps(config), "utf-8")
    (old / "preprocess.py").unlink()
    compute = Compute(runtime, "fp32")
    before, now = Predictor.load(old, compute), Predictor.load(model_folder, compute)
    np.testing.assert_allclose(before.features(photos), now.features(photos), atol=1e-6)
    assert before.verify().difference < 1e-5
    assert features_graph(before.model).taps[0].channels == len(model.ood.centre)


def test_a_cut_of_one_tensor_has_no_concat(model_folder):
    model = read_model(model_folder)
    graph = onnx.load_model_from_string(model.graph).graph
    assert [len(node.input) for node in graph.node if node.op_type == "Concat"] in ([], [len(model.head.taps)])
    assert not any(node.op_type == "Concat" and len(node.input) == 1 for node in graph.node)


def test_logarithms_of_the_probabilities_are_the_scores_before_the_softmax(model_folder):
    """Of float32 probabilities, but for a constant of each image, which the softmax removes."""
    model = read_model(model_folder)
    graph = onnx.load_model_from_string(model.graph)
    graph.graph.output.append(helper.make_tensor_value_info("head.scores", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    probabilities, scores = session.run(["probabilities", "head.scores"], {"pixels": model.golden.pixels})
    logarithms = np.log(probabilities.astype(np.float64))
    np.testing.assert_allclose(logarithms[:, 0] - logarithms[:, 1], scores[:, 0] - scores[:, 1], atol=1e-5)
