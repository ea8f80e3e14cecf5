"""``headstart fit`` on the command line."""

import csv
import hashlib
import json
import os
import shutil
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos
from PIL import Image

from headstart.errors import INSTALL_PYTORCH
from headstart.features import FeatureCache
from headstart.features.features import thumbnail_key


def test_fit_prints_counts_accuracies_and_the_learning_curve(run, photos, tmp_path):
    status, out, err = run("fit", photos, "-o", tmp_path / "model")
    assert status == 0
    assert "28 for training, 12 for validation; classes: disc, stripes" in out
    assert "on validation images" in out
    assert "leaving one group out at a time" in out
    assert out.count("95% interval") == 2
    assert "More data   with 20 more images expect " in out
    assert err == ""
    assert (tmp_path / "model" / "model.onnx").exists()


def test_the_result_comes_first_and_a_weak_class_right_behind_its_accuracy(run, tmp_path):
    """Discs that are half stripes by mistake: most of the class is taken for the other one."""
    data = write_photos(tmp_path / "data", 30)
    (data / "README.md").write_text("what this is")
    for path in sorted((write_photos(tmp_path / "more", 40, seed=3) / "stripes").iterdir()):
        path.rename(data / "disc" / f"wrong-{path.name}")
    for path in sorted((write_photos(tmp_path / "rest", 90, seed=4) / "stripes").iterdir()):
        path.rename(data / "stripes" / f"more-{path.name}")
    status, out, err = run("fit", data, "-o", tmp_path / "m", "--no-report", "--group-by", "none")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("Accuracy ")
    assert lines[1].startswith("Weak class  disc: ")
    assert lines[1].endswith(" of 70 taken for stripes")
    assert "Skipped" not in out + err
    run_info = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))
    assert run_info["images"]["skipped"] == {"about the data": 1}
    (weak,) = run_info["weak_classes"]["leave_group_out"]
    assert (weak["class"], weak["taken_for"]) == ("disc", "stripes")
    assert (tmp_path / "m" / "skipped.csv").read_text("utf-8").count("\n") == 2
    status, out, _ = run("evaluate", tmp_path / "m", data)
    assert out.splitlines()[1].startswith("Weak class  disc: ")


def test_a_model_has_a_version_a_date_and_an_author(run, photos, tmp_path):
    text = ("--model-version", "1.2-rc", "--author", "A. *Bee*")
    before = datetime.now(UTC).replace(microsecond=0)
    status, _, _ = run("fit", photos, "-o", tmp_path / "m", "--backbone", "headstart-s", "--no-report", *text)
    assert status == 0
    for name in ("config.json", "run.json"):
        value = json.loads((tmp_path / "m" / name).read_text("utf-8"))
        assert (value["version"], value["author"]) == ("1.2-rc", "A. *Bee*")
        assert before <= datetime.fromisoformat(value["date"]) <= datetime.now(UTC)
    card = (tmp_path / "m" / "README.md").read_text("utf-8")
    assert "- Version: 1.2-rc\n- Author: A. \\*Bee\\*\n- Date: 2" in card
    status, _, err = run("fit", photos, "-o", tmp_path / "n", "--author", "two\nlines")
    assert (status, err.count("\n")) == (2, 1)
    assert "give one line of at most 200 characters" in err


def test_fit_json_has_the_documented_form(run, photos, tmp_path):
    status, out, _ = run("fit", photos, "-o", tmp_path / "model", "--json")
    value = json.loads(out)
    assert status == 0
    assert set(value) == {
        "model",
        "version",
        "author",
        "date",
        "classes",
        "images",
        "groups",
        "backbone",
        "cut",
        "head",
        "runtime",
        "accuracy",
        "metrics",
        "weak_classes",
        "seconds",
        "cache",
        "learning_curve",
        "report",
    }
    assert Path(value["report"]) == tmp_path / "model" / "report.html"
    assert Path(value["report"]).exists()
    assert value["classes"] == ["disc", "stripes"]
    assert value["images"]["train"] == 28
    assert value["images"]["validation"] == 12
    assert value["images"]["quarantined"] == 0
    assert set(value["groups"]) >= {"count", "largest"}
    assert set(value["backbone"]) >= {"id", "sha256"}
    assert value["backbone"]["id"] == "headstart-m"
    assert isinstance(value["cut"], list)
    for method in ("validation", "leave_group_out"):
        entry = value["accuracy"][method]
        assert set(entry) == {"correct", "count", "value", "interval", "method"}
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
        metrics = value["metrics"][method]
        assert [row["class"] for row in metrics["per_class"]] == ["disc", "stripes"]
        assert sum(row["support"] for row in metrics["per_class"]) == entry["count"]
        # With equally many images of each class, the mean recall is the accuracy.
        assert metrics["balanced_accuracy"] == metrics["macro"]["recall"] == pytest.approx(entry["value"])
    assert set(value["seconds"]) == {"total", "decode", "features", "head"}
    assert value["cache"] == {"hits": 0, "misses": 40}
    expected = value["learning_curve"]["expectation"]
    assert (expected["more"], expected["pictures"], expected["per_class"]) == (20, 48, [24, 24])
    assert expected["interval"][0] <= expected["accuracy"] <= expected["interval"][1]


def test_the_report_is_written_and_can_be_omitted_or_rewritten(run, photos, tmp_path):
    model = tmp_path / "model"
    status, out, _ = run("fit", photos, "-o", model)
    assert status == 0
    assert out.splitlines()[-1] == f"Report      {model / 'report.html'}"
    page = (model / "report.html").read_bytes()
    status, out, err = run("report", model, "-o", tmp_path / "page.html")
    assert (status, out.strip(), err) == (0, str(tmp_path / "page.html"), "")
    assert (tmp_path / "page.html").read_bytes() == page
    status, out, _ = run("fit", photos, "-o", model, "--no-report", "--json")
    assert json.loads(out)["report"] is None
    assert not [path.name for path in model.iterdir() if "report" in path.name]
    status, out, err = run("report", model)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "--no-report" in err


@pytest.mark.parametrize("options", [(), ("--no-report",)])
def test_thumbnails_of_a_report_are_cached_as_images_are_decoded(run, photos, tmp_path, monkeypatch, options):
    monkeypatch.setattr("headstart.report.write_report", lambda *_, **__: "page")  # it would make missing thumbnails
    assert run("fit", photos, "-o", tmp_path / "model", *options)[0] == 0
    with FeatureCache() as cache:
        keys = [thumbnail_key(hashlib.sha256(path.read_bytes()).digest()) for path in photos.rglob("*.jpg")]
        assert keys
        assert all((entry is None) == bool(options) for entry in cache.get_many(keys))


def test_a_second_fit_reads_the_cache_and_ten_more_images_are_ten_misses(run, tmp_path):
    data = write_photos(tmp_path / "data", 10)

    def fit(*options):
        return json.loads(run("fit", data, "-o", tmp_path / "m", "--json", *options)[1])["cache"]

    assert fit() == {"hits": 0, "misses": 20}
    assert fit() == {"hits": 20, "misses": 0}
    for path in write_photos(tmp_path / "more", 5, seed=9).rglob("*.jpg"):
        path.rename(data / path.parent.name / f"new-{path.name}")
    assert fit() == {"hits": 20, "misses": 10}
    assert fit("--no-cache")["hits"] == 0


def test_targets_are_options(run, photos, tmp_path):
    out = tmp_path / "m"
    _, _, err = run("fit", photos, "-o", out, "--coverage", 0.8, "--false-alarms", 0.2, "--group-by", "none")
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert (config["coverage"], config["false_alarms"]) == (0.8, 0.2)
    assert 0 < config["reject_threshold"] < 1
    assert err == ""
    _, _, err = run("fit", photos, "-o", out, "--coverage", 0.99, "--false-alarms", 0.01, "--group-by", "none")
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["reject_threshold"] is None
    assert config["set_thresholds"] == [0, 0]
    assert "28 groups of images are too few for a coverage of 99%" in err
    assert err.count("99 groups are needed") == 2
    for option in (("--coverage", 1), ("--coverage", "nan"), ("--false-alarms", -0.1), ("--false-alarms", 1)):
        status, _, err = run("fit", photos, "-o", out, *option)
        assert status == 2
        assert err.count("\n") == 1


def test_strict_ends_with_one_and_still_writes(run, tmp_path):
    data = write_photos(tmp_path / "data", 6)
    (data / "disc" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    status, out, err = run("fit", data, "-o", tmp_path / "m", "--strict")
    assert status == 1
    assert "Accuracy" in out
    assert "1 image could not be read" in err
    assert "bad.jpg" in err
    assert (tmp_path / "m" / "config.json").exists()
    assert run("fit", data, "-o", tmp_path / "m")[0] == 0
    run_info = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))
    assert run_info["images"]["quarantined"][0]["path"].endswith("bad.jpg")


def test_names_that_are_not_utf_8_do_not_stop_a_fit(run, tmp_path):
    """A class folder unzipped on another system, and a broken image, named in Latin-1."""
    data = write_photos(tmp_path / "data", 6)
    latin1_folder = os.fsencode(data / "gu") + b"\xeape"
    (data / "disc").rename(os.fsdecode(latin1_folder))
    Path(os.fsdecode(latin1_folder + b"/bro\xe7.jpg")).write_bytes(b"no image")
    status, out, err = run("fit", data, "-o", tmp_path / "m")
    assert status == 0
    assert "classes: gu\\xeape, stripes" in out
    assert "gu\\xeape/bro\\xe7.jpg: Not an image" in err
    assert (tmp_path / "m" / "report.html").exists()
    value = json.loads(run("evaluate", tmp_path / "m", data, "--json")[1])
    assert value["accuracy"]["count"] == 12
    assert value["unknown_classes"] == []
    assert run("predict", tmp_path / "m", os.fsdecode(latin1_folder))[0] == 1  # the broken image is among them
    assert run("report", tmp_path / "m")[0] == 0


def test_quiet_prints_nothing_on_standard_error_and_progress_can_be_forced(run, photos, tmp_path):
    assert run("fit", photos, "-o", tmp_path / "m", "--quiet")[2] == ""
    assert "Reading features" in run("fit", photos, "-o", tmp_path / "m", "--progress")[2]


def test_class_names_in_any_script(run, tmp_path):
    data = write_photos(tmp_path / "data", 6, ("écureuil", "馬"))
    status, out, _ = run("fit", data, "-o", tmp_path / "m", "--json")
    assert status == 0
    assert json.loads(out)["classes"] == ["écureuil", "馬"]
    assert json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))["label2id"] == {"écureuil": 0, "馬": 1}
    assert "馬" in run("predict", tmp_path / "m", data / "馬")[1]


def test_fit_with_fine_tune_names_the_command_for_it(run, photos, tmp_path):
    status, out, err = run("fit", photos, "-o", tmp_path / "m", "--fine-tune")
    assert (status, out) == (2, "")
    assert err == "headstart: Fine-tuning is a command of its own: headstart fine-tune DATA\n"


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_fine_tuning_without_pytorch_names_the_extra(run, photos, tmp_path):
    status, out, err = run("fine-tune", photos, "-o", tmp_path / "m")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"run: {INSTALL_PYTORCH} (not for a GPU), then: pip install 'headstart[torch]'" in err
    assert not (tmp_path / "m").exists()


def test_options_of_the_mlp_head_need_that_head(run, photos, tmp_path):
    status, out, err = run("fit", photos, "-o", tmp_path / "m", "--epochs", "3")
    assert (status, out) == (2, "")
    assert err == "headstart: Only the mlp head is trained; give --head mlp, or leave --epochs out.\n"


@pytest.mark.zoo
def test_an_mlp_head_on_the_command_line(run, photos, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    options = ["--head", "mlp", "--epochs", "4", "--lr", "0.001", "--hidden", "32", "--optimizer", "adam"]
    status, out, _ = run("fit", photos, "-o", tmp_path / "m", *options, "--views", "2", "--augmentation", "flip")
    assert status == 0
    assert "accuracy by epoch: x training images, o groups left out, * both" in out
    assert (tmp_path / "m" / "training.svg").read_text("utf-8").startswith("<svg")
    config = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    assert config["head"] == {
        "kind": "mlp",
        "hidden": 32,
        "dropout": 0.2,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "epochs": 4,
    }
    assert run("verify", tmp_path / "m")[0] == 0


def test_what_is_skipped_is_counted_named_and_listed(run, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    for i in range(120):
        (data / "train" / "disc" / f"{i:03}.txt").write_text("x")
    (data / "train" / "stripes" / "broken, cut off.jpg").write_bytes(b"x")
    (data / "train" / "disc" / ".hidden.jpg").write_bytes(b"x")
    (data / "lonely.jpg").write_bytes(b"x")
    status, out, err = run("fit", data, "-o", tmp_path / "m", "--no-report")
    assert status == 0
    assert "Read as     split/class/image" in out
    assert "120 files (not an image)" in out
    assert "1 image was skipped, no class folder" in err
    assert str(data / "lonely.jpg") in err
    images = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))["images"]
    assert images["skipped"] == {"not an image": 120, "hidden": 1, "no class folder": 1}
    assert len(images["skipped_files"]["not an image"]) == 100
    rows = list(csv.reader((tmp_path / "m" / "skipped.csv").open(encoding="utf-8", newline="")))
    assert rows[0] == ["path", "reason"]
    assert len(rows) == 1 + 120 + 1 + 1 + 1
    assert any(path.endswith("broken, cut off.jpg") and "Not an image" in reason for path, reason in rows[1:])
    assert run("fit", data, "-o", tmp_path / "m", "--no-report")[0] == 0  # skipped.csv is one of our files


def test_uneven_classes_have_a_baseline_and_classes_that_are_missed_are_named(run, tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("common", 40), ("rare", 2)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "d" / name / f"{i}.png")
    status, out, err = run("fit", tmp_path / "d", "-o", tmp_path / "m", "--no-report", "--group-by", "none")
    assert status == 0
    assert "Baseline    95.2% by always predicting common; balanced accuracy" in out
    assert "of that class there are 2 training images: add some." in err
    (tmp_path / "e").mkdir()
    status, out, _ = run("evaluate", tmp_path / "m", tmp_path / "d")
    assert "Baseline    95.2% by always predicting common" in out


def test_a_class_whose_images_cannot_be_read_is_named(run, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos / "train", data)
    (data / "wasps").mkdir()
    for i in range(3):
        (data / "wasps" / f"{i}.jpg").write_text("no image")
    status, out, err = run("fit", data, "-o", tmp_path / "m", "--no-report", "--quiet")
    assert status == 0
    assert "classes: disc, stripes" in out
    assert "All of the 3 images of wasps could not be read; the first is" in err


def test_the_model_is_named_after_the_data_and_other_data_need_overwrite(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, tmp_path / "my photos.v2")
    assert run("fit", tmp_path / "my photos.v2", "--no-report")[0] == 0
    assert (tmp_path / "my photos-model" / "model.onnx").exists()
    assert run("fit", "my photos.v2/", "--no-report")[0] == 0  # the same images, named in another way
    write_photos(tmp_path / "other", 6, seed=5)
    arguments = ("fit", tmp_path / "other", "-o", tmp_path / "my photos-model", "--no-report")
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "holds a model of other images" in err
    write_photos(tmp_path / "third", 6, ("a", "b"))
    status, _, err = run("fit", tmp_path / "third", "-o", tmp_path / "my photos-model", "--no-report")
    assert (status, "holds a model of other classes (disc, stripes)" in err) == (2, True)
    assert run(*arguments, "--overwrite")[0] == 0


def test_classes_are_renamed_in_training_and_validation_images_and_recorded(run, tmp_path):
    data = write_photos(tmp_path / "data", 6, ("disc", "stripes", "dots"))
    validation = write_photos(tmp_path / "validation", 2, ("disc", "stripes"), seed=1)
    names = tmp_path / "names.csv"
    names.write_text("class,name\ndisc,round\ndots,\n")
    model = tmp_path / "model"
    status, out, err = run(
        "fit", data, "--classes", names, "--validation", validation, "-o", model, "--no-report", "--json"
    )
    assert status == 0
    value = json.loads(out)
    assert value["classes"] == ["round", "stripes"]
    assert (value["images"]["train"], value["images"]["validation"]) == (12, 4)
    assert value["images"]["skipped"] == {"class left out by --classes": 6}
    assert "leaves out dots (6): 6 images" in err
    recorded = json.loads((model / "run.json").read_text("utf-8"))["data"]["class_names"]
    assert recorded == {"disc": "round", "dots": ""}
    status, out, _ = run("evaluate", model, data, "--classes", names, "--json")
    assert status == 0
    rows = json.loads(out)["per_class"]
    assert {row["class"]: row["support"] for row in rows} == {"round": 6, "stripes": 6}
