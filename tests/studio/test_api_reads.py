"""What the studio's API says of a project whose full choice is made."""

import io

import numpy as np
import pytest
from helpers.photos import write_photos
from PIL import Image

from headstart import Compute, Predictor

from .conftest import OPTIONS, running_studio


def rows(client):
    answer = client.get("/api/images").json()
    return {row[10]: dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]}, answer


def test_the_state(fitted_client):
    state = fitted_client.state()
    engine = fitted_client.studio.engine
    assert state["project"] == "photos"
    assert state["classes"] == [
        {"name": "disc", "images": 10, "folder": True},
        {"name": "stripes", "images": 14, "folder": True},
    ]
    assert (state["images"], state["changes"], state["trash"], state["undo"]) == (24, 0, 0, None)
    assert state["embedding"] == {"done": 24, "total": 24, "failed": 0}
    assert state["full"]["state"] == "done"
    assert state["full"]["version"] == state["version"]
    assert state["shows"] == "full"
    fit = engine.full.result.accuracy["leave_group_out"]
    assert state["evaluation"]["accuracy"] == pytest.approx(fit.value)
    assert state["evaluation"]["images"] == fit.count
    assert state["saved"] is None
    assert state["label_issues"] == 2
    assert "onnx" in state["formats"]


def test_the_images_with_what_the_held_out_head_says(fitted_client):
    found, answer = rows(fitted_client)
    assert answer["classes"] == ["disc", "stripes"]
    assert answer["total"] == len(found) == 24
    wrong = found["stripes/wrong-a.jpg"]
    assert (wrong["label"], wrong["folder_label"], wrong["predicted"], wrong["status"]) == (1, 1, 0, "ready")
    assert wrong["suspicion"] > 0.3
    right = found["disc/005.jpg"]
    assert (right["label"], right["predicted"], right["suspicion"]) == (0, 0, 0.0)
    full = fitted_client.studio.engine.full
    probabilities = full.result.evaluations["leave_group_out"].predictions.probabilities
    for i, id in enumerate(full.ids):
        row = next(row for row in found.values() if row["id"] == id)
        top = np.sort(probabilities[i])[::-1]
        assert row["probability"] == pytest.approx(top[0], abs=1e-3)
        assert row["uncertainty"] == pytest.approx(1 - (top[0] - top[1]), abs=1e-3)


def test_images_come_in_parts_and_not_twice(fitted_client):
    answer = fitted_client.get("/api/images", params={"offset": 20, "limit": 3})
    assert [row[10] for row in answer.json()["rows"]] == ["stripes/010.jpg", "stripes/011.jpg", "stripes/wrong-a.jpg"]
    again = fitted_client.get("/api/images", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert fitted_client.get("/api/images?offset=-1").status_code == 400


def test_one_image(fitted_client):
    id = fitted_client.ids()["stripes/wrong-a.jpg"]
    image = fitted_client.get(f"/api/images/{id}").json()
    assert image["label"] == "stripes"
    assert image["predicted"] == image["probabilities"][0]["label"] == "disc"
    assert sum(entry["score"] for entry in image["probabilities"]) == pytest.approx(1)
    assert image["issue"]["suggested"] == "disc"
    assert "labelled stripes, predicted disc" in image["issue"]["why"]


def test_evaluation_confusion_and_classes(fitted_client):
    answer = fitted_client.get("/api/evaluation").json()
    assert answer["confusion"] == [[10, 0], [2, 12]]
    assert answer["accuracy"] == 22 / 24
    assert answer["interval"][0] < 22 / 24 < answer["interval"][1]
    disc, stripes = answer["by_class"]
    assert (disc["recall"], disc["precision"], disc["images"]) == (1, 10 / 12, 10)
    assert (stripes["recall"], stripes["precision"]) == (12 / 14, 1)


def test_label_issues_and_the_most_uncertain(fitted_client):
    ids = fitted_client.ids()
    answer = fitted_client.get("/api/label-issues").json()
    assert {issue["id"] for issue in answer["issues"]} == {ids["stripes/wrong-a.jpg"], ids["stripes/wrong-b.jpg"]}
    assert {issue["suggested"] for issue in answer["issues"]} == {"disc"}
    for issue in answer["issues"]:
        first = fitted_client.get(f"/api/images/{issue['id']}").json()["probabilities"][0]
        assert first == {"label": "disc", "score": issue["probability"]}
    assert fitted_client.get("/api/label-issues?limit=1").json()["total"] == 2
    uncertain = fitted_client.get("/api/uncertain?limit=5").json()["images"]
    found, _ = rows(fitted_client)
    most = sorted((row["uncertainty"] for row in found.values()), reverse=True)[:5]
    assert [entry["uncertainty"] for entry in uncertain] == pytest.approx(most, abs=1e-3)


def test_a_learning_curve_needs_images(fitted_client):
    answer = fitted_client.get("/api/learning-curve", params={"class": "disc", "more": 20}).json()
    assert answer["expected"] is None
    assert "60 images" in answer["why"]
    answer = fitted_client.get("/api/learning-curve", params={"class": "stripes", "more": 3}).json()
    assert [point["images"] for point in answer["points"]][-1] == 14
    assert answer["points"][-1]["recall"] == pytest.approx(12 / 14)
    assert (answer["expected"] is not None) == answer["check"]["holds"]
    assert fitted_client.get("/api/learning-curve?class=none").status_code == 404


def test_copies_of_images_by_their_key_alone(fitted_client):
    key, id = fitted_client.state()["key"], fitted_client.ids()["disc/005.jpg"]
    for folder, size in (("thumbnails", (128, 96)), ("images", (128, 96))):
        address = f"/{folder}/{id}"
        answer = fitted_client.get(address, params={"key": key}, headers={"Authorization": ""})
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert "immutable" in answer.headers["Cache-Control"]
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == size
        assert fitted_client.get(address, headers={"Authorization": ""}).status_code == 401
        assert fitted_client.get(f"{address}?key=x", headers={"Authorization": ""}).status_code == 401
    assert fitted_client.get("/api/state", params={"key": key}, headers={"Authorization": ""}).status_code == 401


def test_addresses_of_any_length_are_refused_by_the_rules(fitted_client):
    many = "&".join(["a=1"] * 1000)
    key, id = fitted_client.state()["key"], fitted_client.ids()["disc/005.jpg"]
    assert fitted_client.get(f"/images/{id}?{many}", headers={"Authorization": ""}).status_code == 401
    assert fitted_client.get(f"/images/{id}?{many}&key={key}", headers={"Authorization": ""}).status_code == 200
    assert fitted_client.get(f"/api/jobs/{'9' * 5000}").status_code == 404


@pytest.mark.parametrize(
    "address", ["/thumbnails/0", "/images/..%2f..%2fetc%2fpasswd", "/thumbnails/disc%2f000.jpg", "/api/images/%00"]
)
def test_no_path_of_a_client_is_followed(fitted_client, address):
    assert fitted_client.get(address).status_code == 404


def test_try_with_its_set_and_its_map(fitted_client, tmp_path):
    folder = fitted_client.studio.project.folder
    data = (folder / "disc" / "007.jpg").read_bytes()
    answer = fitted_client.post("/api/try", content=data, headers={"Content-Type": "image/jpeg"}).json()
    assert answer["predicted"] == "disc"
    assert answer["set"][0] == "disc"
    assert [entry["label"] for entry in answer["probabilities"]] == ["disc", "stripes"]
    assert answer["map"].startswith("data:image/png;base64,")
    assert answer["none_of_these"] is False
    alone = fitted_client.post("/api/try?map=0", content=data, headers={"Content-Type": "image/jpeg"}).json()
    assert alone["map"] is None
    expected = fitted_client.studio.engine.full.result.model
    probabilities = Predictor(expected, Compute("onnxruntime")).predict([data]).probabilities[0]
    assert answer["probabilities"][0]["score"] == pytest.approx(probabilities.max(), abs=1e-4)
    broken = fitted_client.post("/api/try", content=b"MZ", headers={"Content-Type": "image/jpeg"})
    assert broken.status_code == 422


def test_images_without_a_class_are_predicted_by_the_last_full_choice(tmp_path):
    folder = write_photos(tmp_path / "photos", 12)
    new = ["disc/000.jpg", "stripes/000.jpg"]
    lines = ["path,label,split", *(f"photos/{path},,train" for path in new)]
    (tmp_path / "photos-labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    with running_studio(folder) as client:
        full = client.wait()
        assert full.result.accuracy["leave_group_out"].count == 22
        ids = client.ids()
        expected = Predictor(full.result.model, OPTIONS.compute).predict([str(folder / path) for path in new])
        answer = client.get("/api/images").json()
        rows = {row[0]: dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]}
        uncertain = {image["id"]: image for image in client.get("/api/uncertain").json()["images"]}
        for i, path in enumerate(new):
            row, probabilities = rows[ids[path]], np.sort(expected.probabilities[i])
            assert (row["label"], row["suspicion"]) == (-1, None)
            assert answer["classes"][row["predicted"]] == path.split("/")[0]
            assert row["probability"] == pytest.approx(probabilities[-1], abs=2e-3)
            assert row["uncertainty"] == pytest.approx(1 - (probabilities[-1] - probabilities[-2]), abs=4e-3)
            assert client.get(f"/api/images/{ids[path]}").json()["predicted"] == path.split("/")[0]
            assert uncertain[ids[path]]["label"] is None
            assert uncertain[ids[path]]["predicted"] == path.split("/")[0]
        assert client.get("/api/evaluation").json()["images"] == 22  # those that have a class
        assert client.change("relabel", ids=[ids[new[0]]], label="disc").json()["evaluation"]["images"] == 23
        assert client.change("classes/rename", name="stripes", to="bars").status_code == 200
        assert client.get(f"/api/images/{ids[new[1]]}").json()["predicted"] is None  # the model knows no bars yet
