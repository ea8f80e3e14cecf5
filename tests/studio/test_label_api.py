"""The API of the studio where images have several labels: what it says, what it changes, what it refuses."""

import csv
import io
import zipfile
from dataclasses import replace

import httpx
import numpy as np
import pytest
from helpers.labels import write_labelled

from headstart import Predictor, open_dataset

from .conftest import running_studio, write_label_project

NAMES = ["disc", "square", "stripes"]


def images(client):
    answer = client.get("/api/images").json()
    return {row[10]: dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]}


def named(row, column="labels"):
    return None if row[column] is None else [NAMES[i] for i in row[column]]


def table(client):
    with client.studio.project.table.open(newline="", encoding="utf-8") as file:
        return {row["path"].removeprefix("photos/"): row["labels"] for row in csv.DictReader(file)}


def truth(client):
    """The labels as the table that was found says them."""
    folder = client.studio.project.folder
    items = open_dataset(folder / ".studio" / "labels-as-found.csv").items
    return {item.path.removeprefix("photos/"): list(item.labels) for item in items}


def photo(tmp_path, seed=9):
    write_labelled(tmp_path / f"more-{seed}", 1, seed=seed)
    return (tmp_path / f"more-{seed}" / "train_000.png").read_bytes()


def test_the_state_says_that_there_are_several_labels(fitted_label_client):
    client = fitted_label_client
    state, expected = client.state(), truth(client)
    assert state["multi_label"] is True
    assert [entry["name"] for entry in state["classes"]] == NAMES
    counts = [sum(name in labels for labels in expected.values()) for name in NAMES]
    assert [entry["images"] for entry in state["classes"]] == counts
    assert all({*entry} == {"name", "images", "unknown", "learned", "why"} for entry in state["classes"])
    assert {(entry["unknown"], entry["learned"], entry["why"]) for entry in state["classes"]} == {(3, True, "")}
    assert (state["images"], state["unlabelled"], state["changes"]) == (63, 3, 0)
    assert state["without"] == sum(not labels for labels in expected.values())
    assert "hub" not in state["formats"]
    assert "onnx" in state["formats"]
    metrics = client.studio.engine.full.result.evaluations["leave_group_out"].metrics
    evaluation = state["evaluation"]
    assert evaluation["mean_average_precision"] == pytest.approx(metrics.mean_average_precision.value)
    assert evaluation["interval"] == pytest.approx(list(metrics.mean_average_precision.interval))
    assert (evaluation["images"], evaluation["labels"], evaluation["shows"]) == (60, 3, "full")


def test_the_images_with_their_labels_and_what_is_predicted(fitted_label_client):
    found, expected = images(fitted_label_client), truth(fitted_label_client)
    assert {path: named(row) for path, row in found.items()} == {
        **expected,
        **{f"new_{i:03}.png": None for i in range(3)},
    }
    selected = fitted_label_client.studio.engine.full.result.selected.probabilities
    for i, id in enumerate(fitted_label_client.studio.engine.full.ids):
        row = next(row for row in found.values() if row["id"] == id)
        assert named(row, "predicted") == [name for name, p in zip(NAMES, selected[i], strict=True) if p >= 0.5]
        assert row["uncertainty"] == pytest.approx((1 - np.abs(2 * selected[i] - 1)).max(), abs=1e-3)
    assert {row["status"] for row in found.values()} == {"ready"}
    assert found["new_000.png"]["predicted"] is not None  # the model's guess


def test_the_images_say_which_labels_are_not_predicted_of_them(fitted_label_client, monkeypatch):
    engine, ids = fitted_label_client.studio.engine, fitted_label_client.ids()
    figures = engine.figures()
    probabilities = figures.probabilities[:, :2].copy()
    some, none = (figures.ids.index(ids[f"new_00{i}.png"]) for i in range(2))
    probabilities[some], probabilities[none] = (np.nan, 0.9), np.nan
    changed = replace(
        figures,
        names=figures.names[:2],
        probabilities=probabilities,
        thresholds=figures.thresholds[:2],
        left_out=("stripes",),
    )
    monkeypatch.setattr(engine, "figures", lambda *_: changed)
    found = images(fitted_label_client)
    assert {path: named(row, "unpredicted") for path, row in found.items()} == {
        **{path: ["stripes"] for path in found},
        "new_000.png": ["stripes", "disc"],
        "new_001.png": [],  # nothing at all is predicted of it
    }
    assert (named(found["new_000.png"], "predicted"), found["new_001.png"]["predicted"]) == (["square"], None)
    monkeypatch.undo()
    assert {tuple(row["unpredicted"]) for row in images(fitted_label_client).values()} == {()}


def test_one_image_with_the_probability_of_each_label(fitted_label_client):
    id = fitted_label_client.ids()["train_005.png"]
    image = fitted_label_client.get(f"/api/images/{id}").json()
    labels = truth(fitted_label_client)["train_005.png"]
    assert image["labels"] == [{"label": n, "state": "present" if n in labels else "absent"} for n in NAMES]
    scores = [entry["score"] for entry in image["probabilities"]]
    assert scores == sorted(scores, reverse=True)
    assert all(entry["holds"] == (entry["score"] >= entry["threshold"] == 0.5) for entry in image["probabilities"])
    assert all(entry["held_out"] for entry in image["probabilities"])
    new = fitted_label_client.get(f"/api/images/{fitted_label_client.ids()['new_000.png']}").json()
    assert (new["labelled"], {entry["state"] for entry in new["labels"]}) == (False, {"unknown"})
    assert not any(entry["held_out"] for entry in new["probabilities"])


def test_the_numbers_of_each_label(fitted_label_client):
    answer = fitted_label_client.get("/api/evaluation").json()
    metrics = fitted_label_client.studio.engine.full.result.evaluations["leave_group_out"].metrics
    for entry, label in zip(answer["by_label"], metrics.per_label, strict=True):
        assert (entry["name"], entry["images"], entry["threshold"]) == (label.name, label.support, 0.5)
        assert entry["average_precision"]["value"] == pytest.approx(label.average_precision.value)
        for name in ("f1", "precision", "recall"):
            estimate = getattr(label, name)
            assert entry[name]["value"] == pytest.approx(estimate.value)
            assert entry[name]["interval"] == pytest.approx(list(estimate.interval))
    assert answer["micro_f1"]["value"] == pytest.approx(metrics.micro_f1.value)
    assert answer["left_out"] == []
    curve = fitted_label_client.get("/api/learning-curve", params={"class": "disc"})
    assert (curve.status_code, curve.json()["error"]) == (400, "There is no learning curve of several labels an image.")


def test_cells_that_look_wrong_with_their_probability(label_client):
    client = label_client
    client.wait()
    answer = client.get("/api/label-issues?limit=3").json()
    selected = client.studio.engine.full.result.selected.probabilities
    assert (
        answer["total"] == client.state()["label_issues"] == sum(len(row["issues"]) for row in images(client).values())
    )
    assert len(answer["issues"]) == min(3, answer["total"]) > 0
    for issue in answer["issues"]:
        row = client.studio.engine.full.ids.index(issue["id"])
        probability = selected[row, NAMES.index(issue["label"])]
        assert issue["probability"] == pytest.approx(probability, abs=1e-4)
        assert issue["state"] == ("missing" if probability > 0.5 else "wrong")
        assert issue["why"].startswith(f"{issue['label']} ")


def test_the_most_uncertain_images_are_first(fitted_label_client):
    found = fitted_label_client.get("/api/uncertain?limit=5").json()["images"]
    most = sorted((row["uncertainty"] for row in images(fitted_label_client).values()), reverse=True)[:5]
    assert [entry["uncertainty"] for entry in found] == pytest.approx(most, abs=1e-3)
    for entry in found:
        assert entry["uncertainty"] == pytest.approx(1 - abs(2 * entry["probability"] - 1))
        assert entry["label"] in NAMES


def test_an_image_is_tried_with_all_probabilities(fitted_label_client):
    data = (fitted_label_client.studio.project.folder / "train_007.png").read_bytes()
    answer = fitted_label_client.post("/api/try", content=data, headers={"Content-Type": "image/png"}).json()
    predictions = Predictor(fitted_label_client.studio.engine.full.result.model).predict([data])
    assert answer["labels"] == predictions.names(0)
    assert answer["could_have"] == predictions.further(0)
    assert {entry["label"] for entry in answer["probabilities"]} == set(NAMES)
    assert all(entry["holds"] == (entry["label"] in answer["labels"]) for entry in answer["probabilities"])
    assert answer["map"].startswith("data:image/png;base64,")


def test_labels_are_toggled_and_undone_and_are_in_the_table(label_client):
    client = label_client
    client.wait()
    ids, version = client.ids(), client.state()["version"]
    some = [ids["new_000.png"], ids["train_000.png"]]
    body = client.change("labels", ids=some, labels={"square": "present", "disc": "unknown"}).json()
    assert (body["changed"], body["version"], body["evaluation"]["shows"]) == (2, version + 1, "live")
    assert table(client)["new_000.png"] == "square;?disc"
    assert client.state()["undo"] == "square present, disc not known: 2 images"
    assert images(client)["new_000.png"]["unknown"] == [0]
    body = client.change("labels", ids=some, others="absent").json()
    assert table(client)["train_000.png"] == ""
    assert client.change("undo").json()["undone"] == "none of the labels: 2 images"
    assert client.change("undo").json()["undone"] == "square present, disc not known: 2 images"
    assert named(images(client)["new_000.png"]) is None
    assert table(client)["new_000.png"] == "?"


def test_cells_are_accepted_one_by_one(label_client):
    ids = label_client.ids()
    assert label_client.change("accept", ids=[ids["train_000.png"]], label="disc").json()["changed"] == 1
    image = label_client.get(f"/api/images/{ids['train_000.png']}").json()
    assert (image["accepted"], image["accepted_labels"]) == (False, ["disc"])
    assert label_client.change("accept", ids=[ids["train_000.png"]]).json()["changed"] == 1
    assert label_client.get(f"/api/images/{ids['train_000.png']}").json()["accepted"] is True


def test_images_are_added_with_a_label_or_without(label_client, tmp_path):
    png = {"Content-Type": "image/png"}
    bare = label_client.post("/api/images", content=photo(tmp_path, 11), headers=png)
    assert (bare.status_code, bare.json()["labels"]) == (201, None)
    one = label_client.post("/api/images?class=disc&group=burst-1", content=photo(tmp_path, 12), headers=png)
    assert (one.json()["labels"], one.json()["group"]) == (["disc"], "burst-1")
    assert label_client.post("/api/images?class=no", content=photo(tmp_path, 13), headers=png).status_code == 404
    folder = label_client.studio.project.folder
    assert all((folder / name).is_file() for name in table(label_client))
    assert not (folder / "disc").exists()


def test_a_tried_image_is_added_with_all_its_labels(label_client, tmp_path):
    label_client.wait()
    tried = label_client.post("/api/try?map=0", content=photo(tmp_path), headers={"Content-Type": "image/png"}).json()
    path = f"/api/try/{tried['try']}/add"
    for labels in ("disc", ["no such"], [1], None):
        assert label_client.post(path, json={"labels": labels}).status_code in (400, 404)
    answer = label_client.post(path, json={"labels": ["disc", "stripes"]}).json()
    assert (answer["added"], answer["labels"]) == (True, ["disc", "stripes"])


def test_an_archive_of_folders_gives_each_image_the_label_of_its_folder(label_client, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("disc/0.png", photo(tmp_path, 21))
        archive.writestr("dots/1.png", photo(tmp_path, 22))
    answer = label_client.post("/api/import", content=stream.getvalue(), headers={"Content-Type": "application/zip"})
    assert (answer.json()["added"], answer.json()["classes"]) == (2, ["disc", "dots"])
    cells = table(label_client)
    assert sorted(text for path, text in cells.items() if path[:5] not in ("train", "new_0")) == ["disc", "dots"]
    assert all("?dots" in text or text == "?" for path, text in cells.items() if path.startswith(("train", "new")))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"labels": {"disc": "maybe"}}, 400),
        ({"labels": {"disc": 1}}, 400),
        ({"labels": {"disc": ["present"]}}, 400),
        ({"labels": ["disc"]}, 400),
        ({"labels": {"no such": "present"}}, 404),
        ({"labels": {f"label {i}": "present" for i in range(1001)}}, 400),
        ({"labels": {}, "others": "perhaps"}, 400),
        ({"labels": {}, "others": ["absent"]}, 400),
        ({"labels": {"disc": "present"}, "ids": ["0" * 32]}, 404),
        ({"labels": {"disc": "present"}, "ids": "all"}, 400),
        ({"labels": {"disc": "present"}, "version": "1"}, 400),
        ({"labels": {"disc": "present"}, "version": None}, 428),
    ],
)
def test_what_cannot_be_said_of_labels_is_refused(fitted_label_client, body, status):
    client = fitted_label_client
    before, first = client.studio.project.state, client.ids()["train_000.png"]
    answer = client.change("labels", **{"ids": [first], **body})
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")
    assert client.studio.project.state is before


def test_what_is_of_one_class_is_refused_with_a_reason(fitted_label_client, client):
    several, first = fitted_label_client, fitted_label_client.ids()["train_000.png"]
    answer = several.change("relabel", ids=[first], label="disc")
    assert (answer.status_code, "/api/labels" in answer.json()["error"]) == (400, True)
    answer = several.change("apply")
    assert (answer.status_code, "no one folder" in answer.json()["error"]) == (400, True)
    assert several.change("export", to="hub").status_code == 400
    assert several.change("accept", ids=[first], label="no such").status_code == 404
    single = client.change("labels", ids=[client.ids()["disc/000.jpg"]], labels={"disc": "present"})
    assert (single.status_code, "/api/relabel" in single.json()["error"]) == (400, True)


def test_of_two_tabs_the_one_that_has_not_seen_the_last_change_is_told(label_client):
    version, ids = label_client.state()["version"], label_client.ids()
    first = label_client.change("labels", version=version, ids=[ids["train_000.png"]], labels={"disc": "unknown"})
    second = label_client.change("labels", version=version, ids=[ids["train_000.png"]], labels={"disc": "absent"})
    assert (first.status_code, second.status_code) == (200, 409)
    assert table(label_client)["train_000.png"].endswith("?disc")


def test_a_model_is_saved_compared_reported_and_exported(label_client):
    client = label_client
    job = client.wait_for_job(client.change("save"))
    assert job["result"]["saved"] is True, job
    predictor = Predictor.load(job["result"]["folder"])
    assert list(predictor.model.classes) == NAMES
    client.change("labels", ids=[client.ids()["new_000.png"]], labels={"disc": "present"})
    job = client.wait_for_job(client.change("save"))
    assert job["result"]["comparison"]["verdict"] == "no_difference", job
    assert job["result"]["comparison"]["images"] == 25
    job = client.wait_for_job(client.change("report"))
    page = httpx.get(f"http://127.0.0.1:{client.port}{job['result']['url']}")
    assert "stripes" in page.text
    job = client.wait_for_job(client.change("export", to="onnx"))
    assert (job["state"], job["result"]["folder"].endswith("photos-model-onnx")) == ("done", True), job


@pytest.mark.parametrize("path", ["/api/images", "/api/images/{id}", "/api/label-issues", "/api/uncertain"])
def test_an_answer_is_of_one_state_where_a_label_is_renamed_meanwhile(label_client, monkeypatch, path):
    client = label_client
    client.wait()
    id = client.ids()["train_000.png"]
    found, engine = client.get(path.format(id=id)).json(), client.studio.engine
    real, names = engine.figures, ["disc", "round"]

    def figures():
        answer = real()
        client.studio.project.rename_class(None, names[0], names[1])
        names.reverse()
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(engine, "figures", figures)
        again = client.get(path.format(id=id))
    assert again.status_code == 200
    for same in ("classes", "rows", "labels", "version"):
        if path != "/api/images" and same == "version":
            continue
        assert again.json().get(same) == found.get(same), same


def test_before_the_first_choice_no_model_is_said_not_to_know_a_label(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.studio.engine.Engine._work", lambda self: None)  # nothing is computed
    with running_studio(write_label_project(tmp_path, 24)) as client:
        left_out = client.get("/api/evaluation").json()["left_out"]
    assert [entry["name"] for entry in left_out] == NAMES
    assert {entry["why"] for entry in left_out} == {"no model has been chosen yet that could know it"}


def test_an_archive_of_images_of_a_camera_gives_no_label(label_client, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(3):
            archive.writestr(f"IMG_{1000 + number}.png", photo(tmp_path, 31 + number))
    label_client.change("accept", ids=[label_client.ids()["train_000.png"]])  # so that the table is written
    before = table(label_client)
    answer = label_client.post("/api/import", content=stream.getvalue(), headers={"Content-Type": "application/zip"})
    assert (answer.json()["added"], answer.json()["classes"], answer.json()["refused"]) == (3, [], [])
    after = table(label_client)
    assert label_client.studio.project.state.classes == tuple(NAMES)
    assert {path: after.pop(path) for path in before} == before
    assert [*after.values()] == ["?"] * 3


def test_messages_speak_of_labels(fitted_label_client):
    client, first = fitted_label_client, fitted_label_client.ids()["train_000.png"]
    answers = [
        client.change("labels", ids=[first], labels={"dog": "present"}),
        client.change("classes/rename", name="dog", to="cat"),
        client.change("classes", name="\n"),
        client.change("classes", name="a;b"),
        client.change("classes", name="test"),
        client.change("classes", name="Disc"),
        client.change("classes/rename", name="disc", to="disc"),
    ]
    assert [answer.json()["error"] for answer in answers] == [
        "There is no label dog.",
        "There is no label dog.",
        "A label needs a name of 1 to 100 printable characters.",
        "A label cannot be called 'a;b', since its name stands in a cell of a table.",
        "A label cannot be called 'test', which means something else to a reader of tables and folders.",
        "There is a label 'disc' already; give another name.",
        "The label is called 'disc' already.",
    ]
