"""/predict of a running server: what it answers is what ``Predictor`` says."""

import base64
import html
import io
import json
import os
import shlex
import shutil
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.http_clients import exchange, running
from PIL import Image

from headstart import FitOptions, fit_dataset, open_dataset
from headstart.errors import ModelError, OptionError, VerifyError
from headstart.features import Compute
from headstart.model import Predictor
from headstart.model.explain import Explainer
from headstart.serve.app import make_app
from headstart.serve.models import Models
from headstart.serve.options import ServerOptions
from headstart.serve.predict import MAX_IMAGES

from .conftest import serving, wait_until

JPEG = {"Content_Type": "image/jpeg"}
JSON = {"Content_Type": "application/json"}


@pytest.fixture(scope="module")
def expected(model_folder, files):
    predictor = Predictor.load(model_folder, Compute("onnxruntime", workers=1))
    return predictor.predict(files)


def post(port, body, path="/predict", **headers):
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {**JSON, **headers}
    status, _, answer = exchange(port, "POST", path, body, **headers)
    return status, json.loads(answer)


def text(data):
    return base64.b64encode(data).decode()


def test_the_bytes_of_an_image_are_answered_as_the_predictor_does(server, files, expected):
    for i, file in enumerate(files):
        status, answer = post(server, file, **JPEG)
        assert status == 200
        assert [entry["label"] for entry in answer] == [expected.classes[c] for c in expected.ranking(i)]
        scores = [expected.probabilities[i][c] for c in expected.ranking(i)]
        assert [entry["score"] for entry in answer] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Type": "application/octet-stream"}, {"Content_Type": "IMAGE/png; a=b"}]
)
def test_the_type_of_an_image_is_taken_from_its_bytes(server, files, headers):
    assert post(server, files[0], **headers) == post(server, files[0], **JPEG)


def test_the_whole_answer(server, files, expected, model_folder):
    model = Predictor.load(model_folder).model
    status, answer = post(server, files[0], "/predict/model?full=1", **JPEG)
    assert status == 200
    names = "predictions set none_of_these distance reject_threshold coverage model"
    assert set(answer) == set(names.split())
    assert answer["set"] == expected.prediction_set(0)
    assert answer["none_of_these"] is bool(expected.is_rejected[0])
    assert answer["distance"] == pytest.approx(expected.ood_scores[0], abs=1e-5)
    assert answer["coverage"] == model.thresholds.coverage
    assert answer["model"] == model.sha256
    assert len(answer["predictions"]) == len(model.classes)


def test_where_the_model_looked(server, files, model_folder):
    predictor = Predictor.load(model_folder, Compute("onnxruntime", workers=1))
    _, answer = post(server, files[0], "/predict?full=1&explain=1", **JPEG)
    activation = answer["activation"]
    pixels = predictor.model.preprocess(Image.open(io.BytesIO(files[0])).convert("RGB"))
    pair = [np.array([predictor.model.classes.index(activation[name])]) for name in ("positive", "negative")]
    ((values, _),) = Explainer.of(predictor.model).activations(pixels[None], *pair)
    assert activation["positive"] == answer["predictions"][0]["label"]
    assert np.array(activation["values"]) == pytest.approx(values, abs=1e-4)
    left, top, width, height = activation["box"]
    crop = predictor.model.preprocess.crop
    assert max(width, height) <= crop + 1e-9
    assert (left + width / 2, top + height / 2) == pytest.approx((0.5, 0.5))


def test_the_hugging_face_task(server, files, expected):
    status, answer = post(server, {"inputs": text(files[0]), "parameters": {"top_k": 1}})
    assert status == 200
    assert [entry["label"] for entry in answer] == [expected.classes[expected.ranking(0)[0]]]
    assert post(server, files[0], "/predict?top_k=1", **JPEG) == (200, answer)


def test_each_image_of_a_list_has_its_answer_or_its_error(server, files):
    images = [text(files[0]), text(b"no image"), "!", text(files[-1])]
    status, answers = post(server, {"inputs": images})
    assert status == 200
    assert answers[0] == post(server, files[0], **JPEG)[1]
    assert answers[3] == post(server, files[-1], **JPEG)[1]
    assert answers[1]["error"].startswith("Not an image that can be read")
    assert answers[2]["error"].startswith("Not base64")
    assert post(server, images) == (200, answers)  # a list alone
    assert post(server, []) == (200, [])


@pytest.mark.parametrize(
    ("body", "path", "headers", "status"),
    [
        (b"", "/predict", JPEG, 400),
        (b"no image", "/predict", JPEG, 422),
        (b"x", "/predict", {"Content_Type": "text/plain"}, 415),
        (b"x", "/predict", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        (b"x", "/predict", {"Content_Type": "multipart/form-data; boundary=x"}, 415),
        (b"x", "/predict", {**JPEG, "Content_Encoding": "gzip"}, 415),
        (b"x", "/predict?top_k=0", JPEG, 400),
        (b"x", "/predict?top_k=-1", JPEG, 400),
        (b"x", f"/predict?top_k={'9' * 5000}", JPEG, 400),
        (b"x", "/predict?full=yes", JPEG, 400),
        (b"x", "/predict?explain=1", JPEG, 400),
        (b"x", "/predict?url=http://evil.example/a.jpg", JPEG, 400),
        (b"x", "/predict/other", JPEG, 404),
        (b"x", "/predict/..%2f..%2fetc%2fpasswd", JPEG, 404),
        (b"{", "/predict", JSON, 400),
        (b"\xff", "/predict", JSON, 400),
        (b"[" * 100_000, "/predict", JSON, 400),
        (b"[" + b"1," * 10_000 + b"1]", "/predict", JSON, 413),
        (b"1", "/predict", JSON, 400),
        (b"{}", "/predict", JSON, 400),
        (b'{"inputs": 1}', "/predict", JSON, 400),
        (b'{"inputs": "http://evil.example/a.jpg"}', "/predict", JSON, 400),
        (b'{"inputs": "/etc/passwd"}', "/predict", JSON, 400),
        (b'{"inputs": "AAAA", "parameters": {"top_k": "5"}}', "/predict", JSON, 400),
        (b'{"inputs": "AAAA", "parameters": {"function_to_apply": "sigmoid"}}', "/predict", JSON, 400),
        (b'{"inputs": "AAAA", "wait_for_model": true}', "/predict", JSON, 400),
        (json.dumps(["AAAA"] * (MAX_IMAGES + 1)).encode(), "/predict", JSON, 413),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_one_line(server, body, path, headers, status):
    found, answer = post(server, body, path, **headers)
    assert found == status
    assert set(answer) == {"error"}
    assert "\n" not in answer["error"]


def test_images_that_come_together_run_together(model_folder, files):
    with serving([model_folder]) as (port, models):
        alone = [post(port, file, **JPEG) for file in files]
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda file: post(port, file, **JPEG), files * 4))
        for (status, answer), (_, before) in zip(together, alone * 4, strict=True):
            assert status == 200
            assert [e["label"] for e in answer] == [e["label"] for e in before]
            assert [e["score"] for e in answer] == pytest.approx([e["score"] for e in before], abs=1e-5)
        sizes = models.get(None).engine.batcher.sizes
        assert sum(size * count for size, count in sizes.items()) == 5 * len(files)
        assert max(sizes) > 1
        metrics = exchange(port, path="/metrics")[2].decode()
        assert f'headstart_images_total{{model="model"}} {5 * len(files)}\n' in metrics
        assert f'headstart_requests_total{{route="/predict",status="200"}} {5 * len(files)}\n' in metrics
        assert f'headstart_request_seconds_count{{route="/predict"}} {5 * len(files)}\n' in metrics
        assert 'headstart_queue_images{model="model"} 0\n' in metrics


def test_several_models_are_asked_by_name(model_folder, tmp_path, files):
    for name in ("horses", "dogs"):
        shutil.copytree(model_folder, tmp_path / name)
    with serving([tmp_path / "horses", tmp_path / "dogs"]) as (port, _):
        assert post(port, files[0], "/predict/dogs", **JPEG) == post(port, files[0], "/predict/horses", **JPEG)
        status, answer = post(port, files[0], **JPEG)
        assert (status, answer["error"]) == (404, "There is no model here; there is /predict/horses, /predict/dogs.")
        models = json.loads(exchange(port, path="/models")[2])["models"]
        assert [(model["name"], model["ready"]) for model in models] == [("horses", True), ("dogs", True)]
        paths = json.loads(exchange(port, path="/openapi.json")[2])["paths"]
        assert "/predict" not in paths
        assert {"/predict/horses", "/predict/dogs"} < set(paths)


def test_names_that_cannot_be_served_are_errors(model_folder, tmp_path):
    for name in ("a b", "ä", "..", ".hidden"):
        with pytest.raises(OptionError, match="cannot be the name"):
            Models.of([tmp_path / "x" / name if name != ".." else "/"], Compute(), 16)
    shutil.copytree(model_folder, tmp_path / "model")
    with pytest.raises(OptionError, match="both named model"):
        Models.of([model_folder, tmp_path / "model"], Compute(), 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        Models.of([tmp_path / "empty"], Compute(), 16)


def test_a_replaced_folder_is_loaded_without_a_lost_request(model_folder, fitted, tmp_path, files):
    from headstart.model.folder import write_model

    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    with serving([folder]) as (port, models), ThreadPoolExecutor(4) as pool:
        served, before = models.get(None), models.get(None).engine
        is_done = False

        def ask_all_the_time(_):
            found = []
            while not is_done:
                found.append(post(port, files[0], "/predict?full=1", **JPEG))
            return found

        requests = [pool.submit(ask_all_the_time, i) for i in range(4)]
        try:
            write_model(fitted.model, folder)
            wait_until(lambda: served.engine is not before)
            wait_until(lambda: served.reloads == 1)
            post(port, files[0], **JPEG)
        finally:
            is_done = True
        answers = [answer for request in requests for answer in request.result()]
        assert {status for status, _ in answers} == {200}
        assert {answer["model"] for _, answer in answers} >= {before.model.sha256}
        assert post(port, files[0], "/predict?full=1", **JPEG)[1]["model"] == fitted.model.sha256

        (folder / "model.onnx").write_bytes(b"damaged")
        wait_until(lambda: served.failures == 1)
        assert post(port, files[0], "/predict?full=1", **JPEG)[1]["model"] == fitted.model.sha256
        _, _, answer = exchange(port, path="/models")
        assert "model.onnx" in json.loads(answer)["models"][0]["error"]
        assert exchange(port, path="/health")[0] == 200


@pytest.mark.parametrize("error", [VerifyError, RuntimeError])
def test_a_model_that_does_not_prove_itself_is_never_ready(model_folder, files, monkeypatch, error):
    def verify(_):
        raise error("The golden sample differs by 0.5.")

    monkeypatch.setattr(Predictor, "verify", verify)
    models = Models.of([model_folder], Compute("onnxruntime", workers=1), 16)
    with running(make_app(models, ServerOptions(port=0))) as port:
        wait_until(lambda: models.get(None).failures == 1)
        assert exchange(port, path="/health")[0] == 503
        assert exchange(port, path="/v2/health/ready")[0] == 503
        assert exchange(port, path="/v2/health/live")[0] == 200
        status, answer = post(port, files[0], **JPEG)
        assert (status, answer["error"]) == (503, "Model model is not ready: The golden sample differs by 0.5.")


def test_a_link_to_nothing_beside_the_files_of_a_model_keeps_it_from_nothing(model_folder, tmp_path, files):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "notes").symlink_to("nowhere")
    with serving([folder]) as (port, _):
        assert post(port, files[0], **JPEG)[0] == 200


def test_a_folder_that_vanishes_before_it_is_loaded_is_named(model_folder, tmp_path, files):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    models = Models.of([folder], Compute("onnxruntime", workers=1), 16)
    folder.rename(tmp_path / "elsewhere")
    with running(make_app(models, ServerOptions(port=0))) as port:
        wait_until(lambda: models.get(None).error)
        status, answer = post(port, files[0], **JPEG)
        assert (status, answer["error"]) == (
            503,
            f"Model model is not ready: {folder} cannot be read; put it back, or start the server again.",
        )
        (tmp_path / "elsewhere").rename(folder)
        wait_until(lambda: models.is_ready)
        assert post(port, files[0], **JPEG)[0] == 200


def test_the_pages_of_the_server(server):
    for path, kind in (("/", "text/html"), ("/docs", "text/html"), ("/openapi.json", "application/json")):
        status, headers, body = exchange(server, path=path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert b"http:" not in body.replace(
            f"http://127.0.0.1:{server}/predict".encode(), b""
        )  # nothing from elsewhere
        assert b"https:" not in body
        assert b"<script>" not in body
        assert b"<style" not in body


def test_the_example_on_the_page_of_the_api_can_be_pasted(model_folder, files, tmp_path):
    """With the port, the token and, of two models, the name of one."""
    other = shutil.copytree(model_folder, tmp_path / "other")
    with serving([model_folder, other], token="a token of mine") as (port, _):
        page = exchange(port, path="/docs", Authorization="Bearer a token of mine")[2].decode()
        words = shlex.split(html.unescape(page.partition("<pre>")[2].partition("</pre>")[0]))
        assert words[:3] == ["curl", "--data-binary", "@new.jpg"]
        headers = [
            words[i + 1].replace("$HEADSTART_TOKEN", "a token of mine") for i, word in enumerate(words) if word == "-H"
        ]
        assert headers == ["Content-Type: image/jpeg", "Authorization: Bearer a token of mine"]
        start, path = words[-1][: -len("/predict/model")], words[-1][-len("/predict/model") :]
        assert (start, path) == (f"http://127.0.0.1:{port}", "/predict/model")
        named = dict(header.split(": ") for header in headers)
        status, answer = post(port, files[0], path, **{name.replace("-", "_"): value for name, value in named.items()})
        assert (status, len(answer)) == (200, 2)


def test_with_a_token_only_health_is_answered_without_it(model_folder, files):
    with serving([model_folder], token="a token of mine") as (port, _):
        for path in ("/", "/predict", "/models", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/model", "/x"):
            assert exchange(port, path=path)[0] == 401
        assert post(port, files[0], **JPEG)[0] == 401
        assert post(port, files[0], Authorization="Bearer a token of mine", **JPEG)[0] == 200
        models = json.loads(exchange(port, path="/models", Authorization="Bearer a token of mine")[2])
        assert models["needs_token"] is True
        for path in ("/health", "/v2/health/live", "/v2/health/ready"):
            status, _, body = exchange(port, path=path)
            assert status == 200
            assert set(json.loads(body)) <= {"live", "ready"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes on Linux")
def test_a_class_whose_name_is_not_utf8_is_named_as_everywhere(photos, files, tmp_path):
    data, name = tmp_path / "data", os.fsdecode(b"caf\xe9")
    for label, source in ((name, "disc"), ("stripes", "stripes")):
        shutil.copytree(photos / "train" / source, data / label)
    model = tmp_path / "model"
    fit_dataset(open_dataset(data), FitOptions("headstart-s", compute=Compute("onnxruntime"))).save(model)
    with serving([model]) as (port, _):
        models = json.loads(exchange(port, path="/models")[2])
        assert (models["models"][0]["classes"], models["needs_token"]) == (["caf\\xe9", "stripes"], False)
        status, _, body = exchange(port, "POST", "/predict", files[0], **JPEG)
        assert (status, {one["label"] for one in json.loads(body)}) == (200, {"caf\\xe9", "stripes"})
        request = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text(files[0])]}]}
        outputs = [{"name": "label"}, {"name": "probabilities", "parameters": {"classification": 2}}]
        body = json.dumps({**request, "outputs": outputs}).encode()
        label, ranked = json.loads(exchange(port, "POST", "/v2/models/model/infer", body)[2])["outputs"]
        assert label["data"][0] in ("caf\\xe9", "stripes")
        assert {entry.split(":")[2] for entry in ranked["data"]} == {"caf\\xe9", "stripes"}
        body = json.dumps({**request, "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}).encode()
        _, headers, answer = exchange(port, "POST", "/v2/models/model/infer", body)
        binary = answer[int(headers["inference-header-content-length"]) :]
        assert binary == struct.pack("<I", len(label["data"][0])) + label["data"][0].encode()
