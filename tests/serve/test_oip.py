"""The Open Inference Protocol v2 of a running server, asked by Triton's client and byte by byte."""

import base64
import json
import struct

import numpy as np
import pytest
from helpers.http_clients import exchange

from headstart.features import Compute
from headstart.model import Predictor

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http] (extra dev)")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

MODEL = "/v2/models/model"


@pytest.fixture(scope="module")
def predictor(model_folder):
    return Predictor.load(model_folder, Compute("onnxruntime", workers=1))


@pytest.fixture(scope="module")
def client(server):
    client = triton.InferenceServerClient(f"127.0.0.1:{server}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def golden(predictor):
    return predictor.model.golden


def infer(server, request, binary=b"", path=f"{MODEL}/infer", **headers):
    body = json.dumps(request).encode() if not isinstance(request, bytes) else request
    if binary:
        headers = {"Inference_Header_Content_Length": str(len(body)), **headers}
    status, found, answer = exchange(server, "POST", path, body + binary, **headers)
    return status, found, answer


def tensor(name="image", shape=(1,), datatype="BYTES", **values):
    return {"name": name, "shape": list(shape), "datatype": datatype, **values}


def test_the_server_and_its_model_describe_themselves(client, predictor):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    assert client.is_model_ready("model", predictor.model.sha256)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("model", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification"]
    metadata = client.get_model_metadata("model")
    assert (metadata["name"], metadata["versions"]) == ("model", [predictor.model.sha256])
    size = [predictor.model.preprocess.height, predictor.model.preprocess.width]
    assert metadata["inputs"] == [
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, *size, 3]},
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [output["name"] for output in metadata["outputs"]] == [
        "probabilities",
        "distance",
        "label",
        "set",
        "none_of_these",
    ]


def test_health_answers_as_the_text_of_the_protocol_says(server):
    assert json.loads(exchange(server, path="/v2/health/live")[2]) == {"live": True}
    assert json.loads(exchange(server, path="/v2/health/ready")[2])["live"] is True
    assert json.loads(exchange(server, path=f"{MODEL}/ready")[2]) == {"name": "model", "ready": True}


@pytest.mark.parametrize("is_binary_in", [True, False])
@pytest.mark.parametrize("is_binary_out", [True, False])
def test_pixels_are_answered_as_the_golden_sample(client, golden, predictor, is_binary_in, is_binary_out):
    pixels = golden.pixels[:2]
    given = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels, binary_data=is_binary_in)
    names = ("probabilities", "distance", "label", "set", "none_of_these")
    outputs = [triton.InferRequestedOutput(name, binary_data=is_binary_out) for name in names]
    result = client.infer("model", [given], outputs=outputs, request_id="seven")
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    assert probabilities == pytest.approx(golden.probabilities[:2], abs=2e-5)
    assert result.as_numpy("distance") == pytest.approx(golden.ood_scores[:2], abs=2e-5)
    thresholds = predictor.model.thresholds
    assert result.as_numpy("set").astype(bool).tolist() == thresholds.sets(probabilities.astype(float)).tolist()
    rejected = thresholds.rejects(golden.ood_scores[:2].astype(float))
    assert result.as_numpy("none_of_these").astype(bool).tolist() == rejected.tolist()
    labels = [predictor.model.classes[c] for c in probabilities.argmax(axis=1)]
    found = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label")]
    assert found == labels
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", "model", predictor.model.sha256)


def test_encoded_files_take_our_own_preprocessing(client, files, predictor):
    expected = predictor.predict(files[:3])
    given = triton.InferInput("image", [3], "BYTES")
    given.set_data_from_numpy(np.array(files[:3], object))
    result = client.infer("model", [given], model_version=predictor.model.sha256)  # all outputs, as binary data
    assert result.as_numpy("probabilities") == pytest.approx(expected.probabilities, abs=2e-5)
    assert result.as_numpy("distance") == pytest.approx(expected.ood_scores, abs=2e-5)


def test_bytes_in_json_are_base64(server, files, predictor):
    data = [base64.b64encode(file).decode() for file in files[:2]]
    status, headers, body = infer(server, {"inputs": [tensor(shape=[2], data=data)]})
    assert (status, headers["content-type"]) == (200, "application/json")
    outputs = {output["name"]: output for output in json.loads(body)["outputs"]}
    expected = predictor.predict(files[:2])
    assert outputs["probabilities"]["data"] == pytest.approx(expected.probabilities.ravel().tolist(), abs=2e-5)
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["label"] == {
        "name": "label",
        "shape": [2],
        "datatype": "BYTES",
        "data": [expected.classes[c] for c in expected.predicted],
    }


def test_classification_names_the_classes(client, golden, predictor):
    given = triton.InferInput("pixels", list(golden.pixels[:1].shape), "UINT8")
    given.set_data_from_numpy(golden.pixels[:1])
    output = triton.InferRequestedOutput("probabilities", class_count=1)
    ((text,),) = client.infer("model", [given], outputs=[output]).as_numpy("probabilities")
    value, index, label = text.decode().split(":")
    best = int(golden.probabilities[0].argmax())
    assert (int(index), label) == (best, predictor.model.classes[best])
    assert float(value) == pytest.approx(golden.probabilities[0, best], abs=2e-5)


def test_numbers_in_json_may_be_nested_or_flat(server, golden):
    pixels = golden.pixels[:1]
    answers = []
    for data in (pixels.tolist(), pixels.ravel().tolist()):
        status, _, body = infer(server, {"inputs": [tensor("pixels", pixels.shape, "UINT8", data=data)]})
        assert status == 200
        answers.append(json.loads(body))
    assert answers[0] == answers[1]


def test_errors_of_the_client_library(client, golden):
    wrong = triton.InferInput("pixels", [1, 2, 2, 3], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(InferenceServerException, match=r"shape \[1, 2, 2, 3\]; expected \[n,"):
        client.infer("model", [wrong])
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"no image"], object))
    with pytest.raises(InferenceServerException, match="Image 0 cannot be read"):
        client.infer("model", [given])
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("other", [given])
    with pytest.raises(InferenceServerException, match="no version"):
        client.infer("model", [given], model_version="1")
    with pytest.raises(InferenceServerException, match="output is unknown"):
        client.infer("model", [given], outputs=[triton.InferRequestedOutput("logits")])


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"{",
        b"[]",
        {},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": [tensor()]},  # no data
        {"inputs": [tensor(data="AAAA")]},
        {"inputs": [tensor(data=["!"])]},
        {"inputs": [tensor(data=[1])]},
        {"inputs": [tensor(data=[])]},
        {"inputs": [tensor(shape=[0], data=[])]},
        {"inputs": [tensor(shape=[2], data=["AAAA"])]},
        {"inputs": [tensor(shape=[1, 1], data=["AAAA"])]},
        {"inputs": [tensor(shape=[-1], data=["AAAA"])]},
        {"inputs": [tensor(shape=["1"], data=["AAAA"])]},
        {"inputs": [tensor(shape=[True], data=["AAAA"])]},
        {"inputs": [tensor(datatype="FP32", data=["AAAA"])]},
        {"inputs": [tensor(name="logits", data=["AAAA"])]},
        {"inputs": [tensor(data=["AAAA"]), tensor(data=["AAAA"])]},
        {"inputs": [tensor(shape=[65], data=["AAAA"] * 65)]},
        {"inputs": [tensor(data=["AAAA"], parameters={"binary_data_size": 4})]},
        {"inputs": [tensor(parameters={"binary_data_size": 4})]},
        {"inputs": [tensor(parameters={"binary_data_size": -4})]},
        {"inputs": [tensor(parameters=[1])]},
        {"inputs": [tensor(data=["AAAA"])], "outputs": [{"name": "nothing"}]},
        {"inputs": [tensor(data=["AAAA"])], "outputs": [1]},
        *(
            {"inputs": [tensor(data=["AAAA"])], "outputs": [{"name": "label", "parameters": {"classification": value}}]}
            for value in (None, "", [], {}, 1, -1, True)
        ),
        {"inputs": [tensor(data=["AAAA"])], "outputs": {"name": "label"}},
        {"inputs": [tensor(data=["AAAA"])], "parameters": [1]},
        {"inputs": [tensor("pixels", [1, 1, 1, 3], "UINT8", data=[0, 0, 0])]},
        {"inputs": [tensor("pixels", [2**31 - 1] * 4, "UINT8", data=[0, 0, 0])]},
        {"inputs": [tensor("pixels", [10**30], "UINT8", data=[0])]},
    ],
)
def test_hostile_requests_are_errors(server, request_):
    status, _, body = infer(server, request_)
    assert status == 400
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize(
    "changed",
    [
        lambda _: [0],
        lambda _: [[0], [0, 1]],
        lambda count: [0] * (count - 1),
        lambda count: [256] * count,
        lambda count: [-1] * count,
        lambda count: [0.5] * count,
        lambda count: [True] * count,
        lambda count: ["0"] * count,
        lambda count: [10**400] + [0] * (count - 1),
        lambda count: [[0]] + [0] * (count - 1),
        lambda count: ["0" * 10**7] + [0] * (count - 1),  # NumPy would take ten million characters for each
    ],
)
def test_pixels_in_json_that_are_none_are_errors_before_they_take_memory(server, golden, changed):
    shape = golden.pixels[:1].shape
    request = {"inputs": [tensor("pixels", shape, "UINT8", data=changed(golden.pixels[0].size))]}
    status, _, body = infer(server, request)
    assert status == 400
    assert json.loads(body)["error"].startswith("The data of input 'pixels'")


@pytest.mark.parametrize(
    ("binary", "size", "headers"),
    [
        (b"\x01", 1, {}),  # ends within a length
        (struct.pack("<I", 2**32 - 1), 4, {}),  # longer than the body
        (struct.pack("<I", 0), 5, {}),
        (struct.pack("<I", 0) + b"rest", 4, {}),
        (struct.pack("<I", 0), 2**40, {}),
        (struct.pack("<I", 0), 4, {"Inference_Header_Content_Length": "99999"}),
        (struct.pack("<I", 0), 4, {"Inference_Header_Content_Length": "-1"}),
        (struct.pack("<I", 0), 4, {"Inference_Header_Content_Length": "x"}),
        (struct.pack("<I", 0), 4, {"Inference_Header_Content_Length": "0"}),
        (struct.pack("<I", 0), 4, {"Inference_Header_Content_Length": "9" * 5000}),
    ],
)
def test_lengths_that_lie_are_errors(server, binary, size, headers):
    request = {"inputs": [tensor(parameters={"binary_data_size": size})]}
    status, _, body = infer(server, request, binary, **headers)
    assert status == 400
    assert set(json.loads(body)) == {"error"}


def test_the_same_output_is_not_written_any_number_of_times(server):
    request = {"inputs": [tensor(data=["AAAA"])], "outputs": [{"name": "set"}] * 17}
    status, _, body = infer(server, request)
    assert (status, json.loads(body)) == (413, {"error": "17 outputs are more than the limit of 16."})


def test_texts_that_are_not_unicode_come_back_as_escapes(server, files):
    data = [base64.b64encode(files[0]).decode()]
    status, _, body = infer(server, {"id": "\udc80", "inputs": [tensor(data=data)]})
    assert (status, json.loads(body)["id"]) == (200, "\\x80")


def test_other_forms_are_refused(server):
    assert infer(server, {}, Content_Type="text/plain")[0] == 415
    assert infer(server, {}, Content_Encoding="gzip")[0] == 415
    many = b'{"inputs": [' + b"1," * 2_000_001 + b"1]}"
    assert infer(server, many)[0] == 413
    assert exchange(server, "GET", f"{MODEL}/infer")[0] == 405
    assert exchange(server, "POST", MODEL)[0] == 405
