"""``headstart predict``: text, JSON and CSV."""

import csv
import io
import json
import shutil

import pytest
from helpers.photos import write_photos


def with_thresholds(folder, target, **changes):
    """Copy a model folder, with other thresholds."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return target


def test_each_image_is_a_line(run, model_folder, photos):
    images = sorted((photos / "validation" / "disc").iterdir())
    status, out, _ = run("predict", model_folder, *images, "--top", 2)
    lines = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [line[0] for line in lines] == [str(path) for path in images]
    assert all({line[1], line[3]} == {"disc", "stripes"} for line in lines)


def test_json_has_an_object_on_each_line(run, model_folder, photos, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    image = next((photos / "validation" / "disc").iterdir())
    status, out, err = run("predict", model_folder, image, tmp_path / "bad.jpg", "--json", "--top", 2)
    good, bad = map(json.loads, out.splitlines())
    assert status == 1  # there are predictions, but one input could not be read
    assert good["path"] == str(image)
    assert sum(entry["probability"] for entry in good["classes"]) == pytest.approx(1)
    assert good["classes"][0]["probability"] >= good["classes"][1]["probability"]
    assert isinstance(good["none_of_these"], bool)
    assert good["set"][0] == good["classes"][0]["class"]
    assert 0 <= good["distance"] <= 1
    assert bad["path"].endswith("bad.jpg")
    assert "Not an image" in bad["error"]
    assert "1 image could not be read" in err


def test_csv_reads_back(run, model_folder, photos):
    status, out, _ = run("predict", model_folder, photos / "validation" / "stripes", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert len(rows) == 6
    assert {row["class_1"] for row in rows} <= {"disc", "stripes"}
    assert all(0.5 <= float(row["probability_1"]) <= 1 for row in rows)
    assert {row["none_of_these"] for row in rows} <= {"true", "false"}
    assert all(row["set"].split("|")[0] == row["class_1"] for row in rows)


def test_rejection_and_sets_are_shown_in_every_form(run, model_folder, photos, tmp_path):
    strict = with_thresholds(model_folder, tmp_path / "m", reject_threshold=0.0, set_thresholds=[0.0, 0.0])
    image = next((photos / "validation" / "disc").iterdir())
    path, rejected, nearest, first, _, could_be = run("predict", strict, image)[1].rstrip("\n").split("\t")
    assert (path, rejected, nearest) == (str(image), "none of these", "nearest:")
    assert could_be in ("could be disc, stripes", "could be stripes, disc")
    value = json.loads(run("predict", strict, image, "--json")[1])
    assert value["none_of_these"] is True
    assert sorted(value["set"]) == ["disc", "stripes"]
    assert value["set"][0] == value["classes"][0]["class"] == first
    (row,) = csv.DictReader(io.StringIO(run("predict", strict, image, "--csv")[1]))
    assert row["none_of_these"] == "true"
    assert sorted(row["set"].split("|")) == ["disc", "stripes"]


def test_inputs_of_which_none_can_be_read_are_status_two(run, model_folder, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    assert run("predict", model_folder, tmp_path / "bad.jpg")[0] == 2
    assert run("predict", model_folder, tmp_path / "missing.jpg")[0] == 2


def test_images_and_folders_can_be_mixed(run, model_folder, photos):
    image = next((photos / "train" / "disc").iterdir())
    status, out, _ = run("predict", model_folder, photos / "validation" / "disc", image)
    assert status == 0
    assert len(out.splitlines()) == 7


def test_names_cannot_control_the_terminal(run, model_folder, tmp_path):
    folder = write_photos(tmp_path / "d", 1)
    path = folder / "disc" / "\x1b[31mred\nline.jpg"
    (folder / "disc" / "000.jpg").rename(path)
    _, out, _ = run("predict", model_folder, path)
    assert "\x1b" not in out
    assert out.count("\n") == 1
