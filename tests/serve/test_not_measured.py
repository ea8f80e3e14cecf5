"""A server of a model for which nothing was measured promises nothing, and says so."""

import json
import shutil

import pytest
from helpers.http_clients import exchange

from .conftest import serving

UNMEASURED = "prediction sets, rejection, groups and learning curve are not measured"


@pytest.fixture
def unmeasured(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"measured": False, "reject_threshold": None, "set_thresholds": [0.0, 0.0]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_nothing_is_promised(unmeasured, files):
    with serving([unmeasured]) as (port, _):
        status, _, body = exchange(port, "POST", "/predict?full=1", files[0], Content_Type="image/jpeg")
        answer = json.loads(body)
        assert status == 200
        assert [answer[name] for name in ("set", "none_of_these", "reject_threshold", "coverage")] == [None] * 4
        assert UNMEASURED in answer["note"]
        (about,) = json.loads(exchange(port, path="/models")[2])["models"]
        assert (about["coverage"], about["reject_rate"], about["drift"]) == (None, None, None)
        assert UNMEASURED in about["note"]
        outputs = json.loads(exchange(port, path="/v2/models/model")[2])["outputs"]
        assert [output["name"] for output in outputs] == ["probabilities", "distance", "label"]
        size = len(files[0])
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size + 4}}
        head = json.dumps({"inputs": [tensor]}).encode()
        binary = size.to_bytes(4, "little") + files[0]
        status, _, body = exchange(
            port,
            "POST",
            "/v2/models/model/infer",
            head + binary,
            Content_Type="application/octet-stream",
            Inference_Header_Content_Length=str(len(head)),
        )
        assert status == 200, body
        assert [output["name"] for output in json.loads(body)["outputs"]] == ["probabilities", "distance", "label"]


def test_a_model_that_was_measured_has_no_note(server):
    (about,) = json.loads(exchange(server, path="/models")[2])["models"]
    assert about["coverage"] == 0.95
    assert "note" not in about
