"""A server of a model of several labels an image: what it answers is what ``Predictor`` says."""

import base64
import json
import shutil

import numpy as np
import pytest
from helpers.http_clients import exchange

from headstart.features import Compute
from headstart.images.decoding import decode
from headstart.model import Predictor
from headstart.model.explain import Explainer

from .conftest import serving

LABELS = {"disc", "square", "stripes"}
MODEL = "/v2/models/model"


@pytest.fixture(scope="module")
def port(label_model_folder):
    with serving([label_model_folder]) as (found, _):
        yield found


@pytest.fixture(scope="module")
def images(labelled):
    return [path.read_bytes() for path in sorted(labelled.parent.glob("validation_*.png"))[:12]]


@pytest.fixture(scope="module")
def predictor(label_model_folder):
    return Predictor.load(label_model_folder, Compute("onnxruntime", workers=1))


@pytest.fixture(scope="module")
def expected(predictor, images):
    return predictor.predict(images)


def post(port, body, path="/predict", kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = exchange(port, "POST", path, data, Content_Type=kind)
    return status, json.loads(answer)


def ask(port, image, path="/predict"):
    status, answer = post(port, image, path, "image/png")
    assert status == 200, answer
    return answer


def test_every_label_has_a_probability_a_threshold_and_a_decision(port, images, expected):
    assert any(len(expected.names(i)) != 1 for i in range(len(images)))
    for i, image in enumerate(images):
        answer = ask(port, image)
        assert [entry["label"] for entry in answer] == [expected.classes[c] for c in expected.ranking(i)]
        for entry in answer:
            c = expected.classes.index(entry["label"])
            assert entry["score"] == pytest.approx(expected.probabilities[i, c], abs=1e-5)
            assert entry["threshold"] == expected.label_thresholds.thresholds[c]
            assert entry["holds"] == expected.decisions[i, c] == (entry["score"] >= entry["threshold"])
    assert len(ask(port, images[0], "/predict?top_k=1")) == 1


def test_the_whole_answer(port, images, expected, predictor):
    for i, image in enumerate(images):
        answer = ask(port, image, "/predict/model?full=1")
        names = "predictions set none_of_these distance reject_threshold coverage model labels could_have"
        assert set(answer) == set(names.split())
        assert answer["labels"] == expected.names(i)
        assert answer["set"] == expected.prediction_set(i)
        assert answer["could_have"] == expected.further(i)
        assert not set(answer["could_have"]) & set(answer["labels"])
        assert answer["none_of_these"] == expected.is_rejected[i]
        assert answer["distance"] == pytest.approx(expected.ood_scores[i], abs=1e-5)
        assert answer["model"] == predictor.model.sha256


def test_each_label_that_holds_is_explained(port, images, expected, predictor):
    model = predictor.model
    for i, image in enumerate(images[:6]):
        activations = ask(port, image, "/predict?full=1&explain=1")["activations"]
        assert [one["positive"] for one in activations] == expected.names(i)
        assert all(one["negative"] is None and len(one["box"]) == 4 for one in activations)
        pixels = model.preprocess(decode(image))[None]
        (maps,) = Explainer.of(model).label_activations(pixels, [expected.holding(i)])
        for one, values in zip(activations, maps, strict=True):
            assert np.array(one["values"]) == pytest.approx(values, abs=1e-4)


def test_the_task_of_hugging_face(port, images):
    inputs = [base64.b64encode(image).decode() for image in images[:2]]
    status, answer = post(port, {"inputs": [*inputs, "bm8gaW1hZ2U="], "parameters": {"function_to_apply": "sigmoid"}})
    assert status == 200
    assert [{entry["label"] for entry in one} for one in answer[:2]] == [LABELS, LABELS]
    assert "error" in answer[2]
    status, answer = post(port, {"inputs": inputs, "parameters": {"function_to_apply": "softmax"}})
    assert (status, answer["error"]) == (400, "The scores are calibrated probabilities; leave function_to_apply out.")


def test_a_model_of_one_class_an_image_takes_no_sigmoid(server, files):
    inputs = base64.b64encode(files[0]).decode()
    status, answer = post(server, {"inputs": inputs, "parameters": {"function_to_apply": "sigmoid"}})
    assert (status, answer["error"]) == (400, "The scores are calibrated probabilities; leave function_to_apply out.")


def test_the_models_say_that_there_are_several_labels(port, predictor):
    (model,) = json.loads(exchange(port, path="/models")[2])["models"]
    assert model["problem_type"] == "multi_label_classification"
    assert model["label_thresholds"] == predictor.model.label_thresholds.to_dict()
    assert model["classes"] == list(predictor.model.classes)


def infer(port, **request):
    status, answer = post(port, request, f"{MODEL}/infer")
    return status, answer


def test_the_open_inference_protocol(port, images, expected, predictor):
    outputs = json.loads(exchange(port, path=MODEL)[2])["outputs"]
    assert {output["name"]: (output["datatype"], output["shape"]) for output in outputs} == {
        "probabilities": ("FP32", [-1, 3]),
        "distance": ("FP32", [-1]),
        "holds": ("BOOL", [-1, 3]),
        "set": ("BOOL", [-1, 3]),
        "none_of_these": ("BOOL", [-1]),
    }
    data = [base64.b64encode(image).decode() for image in images]
    status, answer = infer(port, inputs=[{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}])
    assert status == 200
    found = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert found["holds"].tolist() == expected.decisions.tolist()
    assert found["set"].tolist() == expected.sets.tolist()
    assert found["none_of_these"].tolist() == expected.is_rejected.tolist()
    golden = predictor.model.golden
    pixels = {"name": "pixels", "datatype": "UINT8", "shape": [1, *golden.pixels.shape[1:]]}
    status, answer = infer(port, inputs=[{**pixels, "data": golden.pixels[0].ravel().tolist()}])
    assert status == 200
    assert answer["outputs"][0]["data"] == pytest.approx(golden.probabilities[0].tolist(), abs=1e-5)


def test_an_output_of_another_kind_of_model_is_unknown(port, server, images, files):
    for place, image, name in ((port, images[0], "label"), (server, files[0], "holds")):
        given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}
        for wanted in (name, [name], None, {}):
            status, answer = infer(place, inputs=[given], outputs=[{"name": wanted}])
            assert status == 400
            assert answer["error"].startswith("An output is unknown; there are probabilities, distance, ")


def test_classification_names_the_most_probable_labels(port, images, expected):
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(images[0]).decode()]}
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    status, answer = infer(port, inputs=[given], outputs=wanted)
    assert status == 200
    names = [text.split(":")[2] for text in answer["outputs"][0]["data"]]
    assert names == [expected.classes[c] for c in expected.ranking(0)[:2]]


def test_metrics_and_drift_count_its_images(label_model_folder, images, expected):
    with serving([label_model_folder]) as (own, models):
        for image in images:
            ask(own, image)
        assert post(own, b"no image", kind="image/png")[0] == 422
        text = exchange(own, path="/metrics")[2].decode()
        assert f'headstart_images_total{{model="model"}} {len(images)}' in text
        assert 'headstart_images_unread_total{model="model"} 1' in text
        rejected = int(expected.is_rejected.sum())
        assert f'headstart_images_rejected_total{{model="model"}} {rejected}' in text
        drift = models.get("model").drift.to_dict()
        assert (drift["images"], drift["rejected"]) == (len(images), rejected)


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("/predict", b"", "image/png", 400),
        ("/predict", b"\x89PNG\r\n\x1a\n", "image/png", 422),
        ("/predict?top_k=0", b"x", "image/png", 400),
        ("/predict?explain=1", b"x", "image/png", 400),
        ("/predict", b"[" * 100_000, "application/json", 400),
        ("/predict", b'{"inputs": "eA==", "parameters": {"function_to_apply": ["sigmoid"]}}', "application/json", 400),
        ("/predict", b'{"inputs": "eA==", "parameters": {"threshold": 0.1}}', "application/json", 400),
        (f"{MODEL}/infer", b"{}", "application/json", 400),
        (f"{MODEL}/infer", b'{"inputs": [], "outputs": [{"name": "holds"}]}', "application/json", 400),
    ],
)
def test_hostile_requests_are_one_error(port, path, body, kind, status):
    found, answer = post(port, body, path, kind)
    assert found == status
    assert list(answer) == ["error"]


def test_both_kinds_of_models_are_served_beside_each_other(label_model_folder, model_folder, images, files, tmp_path):
    other = shutil.copytree(model_folder, tmp_path / "photos")
    with serving([label_model_folder, other]) as (own, _):
        assert "holds" in ask(own, images[0], "/predict/model")[0]
        assert set(ask(own, files[0], "/predict/photos")[0]) == {"label", "score"}
