"""What changes through the studio's API, and what it refuses."""

import io
import json
import os
import sys
import threading
import zipfile

import httpx
import pytest
from helpers.photos import write_photos
from PIL import Image

from headstart import Predictor, open_dataset

from .conftest import running_studio


def photo(tmp_path, seed=9, name="disc"):
    return (write_photos(tmp_path / f"more-{seed}", 1, seed=seed) / name / "000.jpg").read_bytes()


def table(client):
    return {item.path: item.label for item in open_dataset(client.studio.project.table).items}


def test_an_image_is_added_once(client, tmp_path):
    data, version = photo(tmp_path), client.state()["version"]
    answer = client.add(data, "disc", group="burst-1")
    assert answer.status_code == 201
    body = answer.json()
    assert (body["added"], body["label"], body["group"], body["version"]) == (True, "disc", "burst-1", version + 1)
    again = client.add(data, "stripes")
    assert again.status_code == 200
    assert (again.json()["added"], again.json()["id"], again.json()["label"]) == (False, body["id"], "disc")
    assert len(table(client)) == 13
    client.wait()
    assert client.state()["embedding"] == {"done": 13, "total": 13, "failed": 0}


def test_what_is_no_image_is_not_added(client):
    for data, status in ((b"", 422), (b"<svg/>", 422), (b"\xff\xd8\xff cut", 422)):
        assert client.add(data, "disc").status_code == status
    assert client.add(b"x", "no such class").status_code == 422
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    assert client.add(picture.getvalue(), "no such class").status_code == 404
    assert client.add(picture.getvalue(), "disc", group="../x").status_code == 400
    answer = client.post("/api/images?class=disc", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert len(client.studio.project.state.records) == 12


def test_a_file_that_is_gone_is_named_with_what_to_do(client):
    id = client.ids()["disc/000.jpg"]
    (client.studio.project.folder / "disc" / "000.jpg").unlink()
    answer = client.change("delete", ids=[id])
    assert (answer.status_code, answer.json()) == (
        409,
        {
            "error": "disc/000.jpg is not there any more; start the studio again, which looks what is there.",
            "reason": "gone",
        },
    )


def test_relabel_shows_at_once_and_the_full_choice_follows(client):
    client.wait()
    ids, version = client.ids(), client.state()["version"]
    chosen = [ids["disc/000.jpg"], ids["disc/001.jpg"]]
    body = client.change("relabel", ids=chosen, label="stripes").json()
    assert (body["changed"], body["version"]) == (2, version + 1)
    assert body["evaluation"]["shows"] == "live"
    answer = client.get("/api/images").json()
    assert answer["shows"] == "live"
    assert body["evaluation"]["accuracy"] == sum(row[1] == row[6] for row in answer["rows"]) / 12 < 1
    state = client.state()
    assert (state["changes"], state["undo"]) == (2, "Relabelled 2 images to stripes")
    assert table(client)["photos/disc/000.jpg"] == "stripes"
    client.wait()
    state = client.state()
    assert state["shows"] == "full"
    full = client.studio.engine.full.result.accuracy["leave_group_out"]
    assert state["evaluation"]["accuracy"] == pytest.approx(full.value)


def test_of_two_tabs_the_one_that_has_not_seen_the_last_change_is_told(client):
    version, ids = client.state()["version"], client.ids()
    first = client.change("relabel", version=version, ids=[ids["disc/000.jpg"]], label="stripes")
    second = client.change("relabel", version=version, ids=[ids["disc/000.jpg"]], label="disc")
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json()["version"] == version + 1
    assert second.json()["reason"] == "stale"  # by which the page knows it from other conflicts
    assert table(client)["photos/disc/000.jpg"] == "stripes"
    for what, body in (("delete", {"ids": [ids["disc/001.jpg"]]}), ("undo", {}), ("apply", {}), ("save", {})):
        assert client.change(what, version=version, **body).status_code == 409
    assert client.post("/api/undo", json={}).status_code == 428


def test_accept_delete_undo_and_apply(client):
    ids = client.ids()
    assert client.change("accept", ids=[ids["disc/000.jpg"]]).json()["changed"] == 1
    assert client.get(f"/api/images/{ids['disc/000.jpg']}").json()["accepted"] is True
    assert client.change("delete", ids=[ids["disc/001.jpg"], ids["disc/002.jpg"]]).json()["changed"] == 2
    state = client.state()
    assert (state["images"], state["trash"]) == (10, 2)
    assert client.get(f"/thumbnails/{ids['disc/001.jpg']}").status_code == 404
    assert client.change("undo").json()["undone"] == "Deleted 2 images"
    assert client.state()["images"] == 12
    client.change("relabel", ids=[ids["disc/001.jpg"]], label="stripes")
    answer = client.change("apply").json()
    assert (answer["moved"], answer["kept"]) == (1, [])
    folder = client.studio.project.folder
    assert (folder / "stripes" / "001-2.jpg").is_file()
    client.change("undo")
    assert (folder / "disc" / "001.jpg").is_file()
    for _ in range(2):
        client.change("undo")
    assert client.change("undo").json()["reason"] == "nothing_to_undo"


def test_classes(client):
    answer = client.change("classes", name="wasps")
    assert (answer.status_code, answer.json()["name"]) == (201, "wasps")
    assert client.change("classes", name="Wasps").json()["reason"] == "exists"
    assert client.change("classes/rename", name="disc", to="stripes").json()["reason"] == "exists"
    assert client.change("classes/rename", name="disc", to="circle").json()["changed"] == 6
    assert [entry["name"] for entry in client.state()["classes"]] == ["circle", "stripes", "wasps"]
    assert client.change("classes/rename", name="disc", to="x").status_code == 404
    for name in ("../x", "a/b", ".x", "", "x" * 101, 7):
        assert client.change("classes", name=name).status_code == 400


def test_class_names_that_differ_in_case_alone_are_one(client, tmp_path):
    for to in ("Stripes", "STRIPES", "disc", " disc "):
        answer = client.change("classes/rename", name="disc", to=to)
        assert (answer.status_code, answer.json()["reason"]) == (409, "exists"), to
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("new/0.jpg", photo(tmp_path, 11))
        archive.writestr("Stripes/1.jpg", photo(tmp_path, 12))
    for query in ("", "?class=Stripes"):
        answer = client.post(
            f"/api/import{query}", content=stream.getvalue(), headers={"Content-Type": "application/zip"}
        )
        assert (answer.status_code, answer.json()["reason"]) == (409, "exists")
        assert "There is a class 'stripes' already" in answer.json()["error"]
    state = client.state()
    assert [entry["name"] for entry in state["classes"]] == ["disc", "stripes"]
    assert (state["images"], state["undo"]) == (12, None)
    assert client.change("classes/rename", name="disc", to="Disc").json()["changed"] == 6  # its own, in another case
    assert [entry["name"] for entry in client.state()["classes"]] == ["Disc", "stripes"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes on Linux")
def test_a_class_whose_name_is_not_utf8(tmp_path):
    folder, name, told = write_photos(tmp_path / "photos", 3), os.fsdecode(b"caf\xe9"), "caf\\xe9"
    (folder / "disc").rename(folder / name)
    with running_studio(folder) as client:
        client.wait()
        assert [entry["name"] for entry in client.state()["classes"]] == [told, "stripes"]
        ids = client.ids()
        chosen = ids["stripes/000.jpg"]
        image = client.get(f"/api/images/{chosen}").json()
        assert {entry["label"] for entry in image["probabilities"]} == {told, "stripes"}
        with httpx.stream("GET", f"{client.base_url}/api/events", params={"key": client.state()["key"]}) as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": hello"
            assert client.change("relabel", ids=[chosen], label=told).json()["changed"] == 1
            event = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        assert event["what"] == f"Relabelled 1 image to {told}"
        assert client.state()["undo"] == event["what"]
        assert client.studio.project.state.records[chosen].label == name
        assert client.get(f"/api/images/{chosen}").json()["label"] == told
        assert client.get("/api/learning-curve", params={"class": told}).json()["class"] == told
        added = client.add(photo(tmp_path), told)
        assert (added.status_code, added.json()["label"]) == (201, told)
        path = client.studio.project.state.records[added.json()["id"]].path
        assert (folder / path).parent == folder / name
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("0.jpg", photo(tmp_path, 11))
        zipped = {"content": stream.getvalue(), "headers": {"Content-Type": "application/zip"}}
        answer = client.post("/api/import", params={"class": told}, **zipped).json()
        assert (answer["added"], answer["classes"]) == (1, [told])
        data, image_type = photo(tmp_path, 12), {"Content-Type": "image/jpeg"}
        tried = client.post("/api/try", content=data, headers=image_type).json()
        assert {entry["label"] for entry in tried["probabilities"]} == {told, "stripes"}
        assert client.post(f"/api/try/{tried['try']}/add", json={"class": told}).json()["label"] == told
        version = client.studio.project.state.version
        for path, key, status in (("classes", "name", 400), ("relabel", "label", 404)):
            body = json.dumps({"version": version, key: "\udc80\ud800", "ids": [chosen]})
            refused = client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
            assert (refused.status_code, set(refused.json())) == (status, {"error"})
        assert client.change("classes/rename", name=told, to="coffee").json()["changed"] == 7


def test_an_archive(client, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("manifest.json", "{}")
        archive.writestr("Class 1/0.jpg", photo(tmp_path, 11))
        archive.writestr("../evil.jpg", photo(tmp_path, 12))
    answer = client.post("/api/import", content=stream.getvalue(), headers={"Content-Type": "application/zip"}).json()
    assert (answer["added"], answer["already"], answer["classes"]) == (1, 0, ["Class 1"])
    assert [entry["name"] for entry in answer["refused"]] == ["../evil.jpg"]
    bad = client.post("/api/import", content=b"no zip", headers={"Content-Type": "application/zip"})
    assert bad.status_code == 422
    assert not list((client.studio.project.folder / ".studio").glob("*.zip"))


def test_a_wrong_answer_is_added_to_its_class(client, tmp_path):
    data = photo(tmp_path, 13)
    early = client.post("/api/try", content=data, headers={"Content-Type": "image/jpeg"})
    assert (early.status_code, early.json()["reason"]) == (409, "not_ready") or early.status_code == 200
    client.wait()
    tried = client.post("/api/try", content=data, headers={"Content-Type": "image/jpeg"}).json()["try"]
    answer = client.post(f"/api/try/{tried}/add", json={"class": "stripes"})
    assert (answer.status_code, answer.json()["label"]) == (201, "stripes")
    assert client.studio.project.state.records[answer.json()["id"]].label == "stripes"
    assert client.post("/api/try/0000/add", json={"class": "stripes"}).status_code == 404


def test_save_compare_report_and_export(client):
    assert client.wait_for_job(client.change("save"))["result"]["saved"] is True
    folder = client.studio.project.folder
    model = folder.parent / "photos-model"
    predictor = Predictor.load(model)
    predictor.verify()
    saved = client.state()["saved"]
    assert (saved["folder"], saved["sha256"]) == (str(model), predictor.model.sha256)
    comparison = client.get("/api/compare").json()
    assert (comparison["verdict"], comparison["difference"], comparison["images"]) == ("no_difference", 0, 12)
    report = client.wait_for_job(client.change("report"))
    page = client.get(report["result"]["url"], headers={"Authorization": ""})
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert "<html" in page.text
    export = client.wait_for_job(client.change("export", to="onnx"))
    assert export["state"] == "done"
    assert (folder.parent / "photos-model-onnx" / "model.onnx").is_file()
    assert client.change("export", to="../x").status_code == 400


def test_a_worse_model_does_not_replace_the_saved_one_unasked(client, monkeypatch):
    from headstart.studio import api_changes
    from headstart.studio.saved import Comparison

    client.wait_for_job(client.change("save"))
    monkeypatch.setattr(api_changes, "compare", lambda *_: Comparison("worse", "It is worse.", 12, 0.5, 0.9))
    before = client.state()["saved"]["at"], client.state()["saved"]["version"]
    client.change("relabel", ids=[client.ids()["disc/000.jpg"]], label="stripes")
    job = client.wait_for_job(client.change("save"))
    assert (job["result"]["saved"], job["result"]["why"]) == (False, "It is worse.")
    assert (client.state()["saved"]["at"], client.state()["saved"]["version"]) == before
    assert client.wait_for_job(client.change("save", anyway=True))["result"]["saved"] is True
    assert client.state()["saved"]["version"] == client.state()["version"]


def test_events_tell_of_changes(client):
    key, seen = client.state()["key"], []
    ready = threading.Event()

    def listen():
        with httpx.stream("GET", f"{client.base_url}/api/events", params={"key": key}, timeout=60) as stream:
            ready.set()
            name = ""
            for text in stream.iter_lines():
                if text.startswith("event: "):
                    name = text[7:]
                elif text.startswith("data: "):
                    seen.append((name, json.loads(text[6:])))
                    if name == "full" and seen[-1][1]["state"] == "done" and ("version" in dict(seen)):
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait(30)
    client.wait()
    client.change("relabel", ids=[client.ids()["disc/000.jpg"]], label="stripes")
    client.wait()
    listener.join(60)
    assert not listener.is_alive()
    changes = [value for name, value in seen if name == "version"]
    assert changes == [{"version": client.state()["version"], "what": "Relabelled 1 image to stripes"}]


ROUTES = [
    *(
        ("GET", path)
        for path in ("/", "/health", "/api/state", "/api/images", "/api/events", "/thumbnails/0", "/report")
    ),
    *(("POST", f"/api/{path}") for path in ("images", "relabel", "delete", "undo", "classes", "apply", "try", "save")),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_foreign_host_is_refused_on_every_route(fitted_client, method, path):
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        answer = fitted_client.request(method, path, headers={"Host": host})
        assert answer.status_code in (400, 403), (host, answer.status_code)


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST"])
def test_pages_of_other_sites_and_users_without_the_token_change_nothing(fitted_client, path):
    version = fitted_client.state()["version"]
    for headers, status in (
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {fitted_client.studio.key}"}, 401),
    ):
        assert fitted_client.post(path, json={}, headers=headers).status_code == status
    assert fitted_client.state()["version"] == version


def test_bodies_that_are_no_json(fitted_client):
    for data, content_type, status in (
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b" " * (4 * 2**20 + 1), "application/json", 413),
    ):
        answer = fitted_client.post("/api/relabel", content=data, headers={"Content-Type": content_type})
        assert answer.status_code == status, data[:20]
        assert "error" in answer.json()
    version = fitted_client.state()["version"]
    for body in ({"ids": "x"}, {"ids": [1]}, {"ids": []}, {"ids": ["x"], "label": 3}):
        answer = fitted_client.post("/api/relabel", json={"version": version, "label": "disc", **body})
        assert answer.status_code == 400
    for version in ("1", 1.5, True, [1]):
        assert fitted_client.post("/api/undo", json={"version": version}).status_code == 400


def test_the_page_and_its_files_need_no_token(fitted_client):
    answer = fitted_client.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert fitted_client.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}
    assert fitted_client.get("/page/..%2f..%2fapp.py").status_code == 404
