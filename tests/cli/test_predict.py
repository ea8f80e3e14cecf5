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
    assert all(row["error"] == "" for row in rows)


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


def test_there_is_a_result_for_every_input_in_the_order_given(run, model_folder, photos, tmp_path):
    """Also for a text file that the shell's * names, a missing one, an empty folder and a broken archive."""
    image = min((photos / "train" / "disc").iterdir())
    folder = write_photos(tmp_path / "new", 1) / "disc"
    (folder / "deeper").mkdir()
    shutil.copy(image, folder / "deeper" / "one.jpg")
    (folder / "notes.txt").write_text("x")
    (tmp_path / "notes.txt").write_text("where they were taken")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK")
    inputs = [
        tmp_path / "notes.txt",
        folder,
        tmp_path / "missing.jpg",
        image,
        tmp_path / "empty",
        tmp_path / "broken.zip",
    ]
    expected = [inputs[0], folder / "000.jpg", folder / "deeper" / "one.jpg", *inputs[2:]]
    status, out, err = run("predict", model_folder, *inputs, "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [result["path"] for result in results] == [str(path) for path in expected]
    assert ["error" in result for result in results] == [True, False, False, True, False, True, True]
    assert results[2]["classes"][0]["probability"] == pytest.approx(results[4]["classes"][0]["probability"], abs=1e-3)
    assert "Skipped 1 file (not an image)" in err
    rows = list(csv.DictReader(io.StringIO(run("predict", model_folder, *inputs, "--csv")[1])))
    assert [row["path"] for row in rows] == [str(path) for path in expected]
    assert [bool(row["error"]) for row in rows] == ["error" in result for result in results]
    assert [bool(row["class_1"]) for row in rows] == ["error" not in result for result in results]
    assert len(run("predict", model_folder, *inputs)[1].splitlines()) == 3


def test_rows_of_a_table_are_inputs_also_where_their_file_is_missing(run, model_folder, photos, tmp_path):
    table = tmp_path / "new.csv"
    shutil.copy(min((photos / "train" / "disc").iterdir()), tmp_path / "one.jpg")
    table.write_text("path,label\none.jpg,\nnowhere.jpg,disc\none.jpg,squares\n", "utf-8")  # labels do not matter
    status, out, _ = run("predict", model_folder, table, "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert ["error" in result for result in results] == [False, True, False]


def test_paths_that_spreadsheets_take_for_formulas_are_written_as_paths(
    run, model_folder, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(min((photos / "train" / "disc").iterdir()), "=1+1.jpg")
    (row,) = csv.DictReader(io.StringIO(run("predict", model_folder, "=1+1.jpg", "--csv")[1]))
    assert row["path"] == "./=1+1.jpg"
    assert json.loads(run("predict", model_folder, "=1+1.jpg", "--json")[1])["path"] == "=1+1.jpg"
