"""``headstart evaluate`` and ``headstart verify``."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from helpers.photos import write_photos
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from headstart.stats.accuracy import held_out_accuracy, leave_one_group_out_accuracy


def with_thresholds(folder, target, **changes):
    """Copy a model folder, with other thresholds."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return target


def test_the_json_form(run, model_folder, photos):
    status, out, _ = run("evaluate", model_folder, photos / "validation", "--json")
    value = json.loads(out)
    assert status == 0
    assert value["accuracy"]["count"] == 12
    assert sum(map(sum, value["confusion"])) == 12
    assert value["coverage"]["promised"] == 0.95
    assert value["coverage"]["found"]["count"] == value["none_of_these"]["known"]["count"] == 12
    assert 1 <= value["coverage"]["found"]["set_size"] <= 2
    assert value["none_of_these"]["unknown"] is None


def test_metrics_by_class_are_those_of_scikit_learn_in_every_form(run, model_folder, photos, tmp_path):
    """An unbalanced set with an unknown class."""
    data = tmp_path / "data"
    shutil.copytree(photos / "validation" / "disc", data / "disc")
    shutil.copytree(photos / "train" / "stripes", data / "stripes")
    write_photos(tmp_path / "more", 4, ("a", "b", "dots"))
    shutil.copytree(tmp_path / "more" / "dots", data / "dots")
    lines = map(json.loads, run("predict", model_folder, data, "--json")[1].splitlines())
    label_by_path = {line["path"].split("/", 1)[-1]: line["classes"][0]["class"] for line in lines}
    files = sorted(data.rglob("*.jpg"))
    truth = [file.parent.name for file in files]
    predicted = [label_by_path[next(p for p in label_by_path if str(file).endswith(p))] for file in files]
    names = ["disc", "stripes", "dots"]
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)

    value = json.loads(run("evaluate", model_folder, data, "--json")[1])
    rows = value["per_class"]
    assert [row["class"] for row in rows] == names
    np.testing.assert_allclose([row["precision"] or 0 for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], f1)
    assert [row["support"] for row in rows] == support.tolist()
    assert value["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert value["macro"] == pytest.approx({"precision": precision.mean(), "recall": recall.mean(), "f1": f1.mean()})

    table = list(csv.DictReader(io.StringIO(run("evaluate", model_folder, data, "--csv")[1])))
    assert [row["class"] for row in table] == names
    np.testing.assert_allclose([float(row["f1"]) for row in table], f1)
    assert table[2]["precision"] == ""  # never predicted: not defined

    out = run("evaluate", model_folder, data)[1]
    assert f"balanced accuracy {balanced_accuracy_score(truth, predicted):.1%}" in out
    assert f"{recall[0]:9.1%}" in next(line for line in out.splitlines() if line.startswith("disc "))
    assert "macro average" in out


def specimens(photos, folder, name):
    """Copy the validation images and write a table: three specimens of four images, whose column is called ``name``."""
    shutil.copytree(photos / "validation", folder / "images")
    files = sorted((folder / "images").rglob("*.jpg"))  # six discs, then six of stripes
    labels = ["disc"] * 4 + ["stripes"] * 8
    rows = [f"{file.relative_to(folder)},{labels[i]},specimen {i // 4}\n" for i, file in enumerate(files)]
    (folder / "table.csv").write_text(f"path,label,{name}\n" + "".join(rows))
    return folder / "table.csv"


def test_images_of_one_group_count_together_in_the_intervals_of_a_model(run, model_folder, photos, tmp_path):
    """Four images of each of three specimens say less than twelve independent ones."""

    def accuracy(*arguments):
        value = json.loads(run("evaluate", model_folder, *arguments, "--json")[1])
        methods = {value["coverage"]["found"]["method"], value["none_of_these"]["known"]["method"]}
        assert methods == {value["accuracy"]["method"]}
        return value["accuracy"]

    by_group = specimens(photos, tmp_path / "group", "group")
    by_subject = specimens(photos, tmp_path / "subject", "subject")
    correct = np.array([True] * 4 + [False] * 2 + [True] * 6)  # the model knows discs and stripes without an error
    grouped = leave_one_group_out_accuracy(correct, np.repeat(np.arange(3), 4)).to_dict()
    assert accuracy(by_group) == accuracy(by_subject, "--group-by", "subject") == grouped
    assert accuracy(by_subject) == accuracy(by_group, "--group-by", "none") == held_out_accuracy(correct).to_dict()
    pair = json.loads(run("evaluate", model_folder, model_folder, by_group, "--json")[1])
    assert [model["accuracy"] for model in pair["models"]] == [grouped, grouped]


@pytest.mark.parametrize(("rule", "why"), [("subject", "no column 'subject'"), ("name:{a}", "fits the pattern")])
def test_a_rule_that_names_no_group_is_refused_for_one_model_too(run, model_folder, photos, rule, why):
    status, _, error = run("evaluate", model_folder, photos, "--group-by", rule)
    assert (status, why in error) == (2, True)


def test_images_of_which_a_rule_names_no_group_are_counted(run, model_folder, photos):
    note = "note: 12 of 12 images have no EXIF time; each of them counts by itself.\n"
    assert run("evaluate", model_folder, photos, "--group-by", "exif")[2].startswith(note)
    note = "note: 10 of 12 images do not fit the pattern; each of them counts by itself.\n"
    assert run("evaluate", model_folder, photos, "--group-by", "name:{0*}3")[2].startswith(note)
    assert "counts by itself" not in run("evaluate", model_folder, photos, "--group-by", "none")[2]


def test_validation_images_have_an_interval_by_their_groups(run, photos, tmp_path):
    table = specimens(photos, tmp_path / "held out", "group")
    fit = ("fit", photos / "train", "--backbone", "headstart-s", "--json", "--overwrite", "-o", tmp_path / "model")
    found = json.loads(run(*fit, "--validation", table)[1])["accuracy"]["validation"]
    assert found["method"] == "groups resampled"
    assert found["interval"][0] < held_out_accuracy(np.array([True] * 10 + [False] * 2)).interval[0]
    held_out = json.loads(run(*fit, "--validation", 0.3)[1])  # whole groups, found by pixels and features
    assert held_out["accuracy"]["validation"]["method"] == "groups resampled"
    alone = json.loads(run(*fit, "--validation", 0.3, "--group-by", "none")[1])
    assert alone["accuracy"]["validation"]["method"] == "Wilson"


def test_a_class_without_images_has_no_f1_and_is_named(run, model_folder, photos, tmp_path):
    shutil.copytree(photos / "validation" / "disc", tmp_path / "data" / "disc")
    stripes = sorted((photos / "validation" / "stripes").iterdir())
    shutil.copy(stripes[0], tmp_path / "data" / "disc" / "taken-for-stripes.jpg")
    out = run("evaluate", model_folder, tmp_path / "data")[1]
    row = next(line for line in out.splitlines() if line.startswith("stripes "))
    assert row.split() == ["stripes", "0.0%", "-", "-", "0"]
    assert "No images of stripes: left out of the macro averages." in out
    assert "No images of" not in run("evaluate", model_folder, photos / "validation")[1]


def test_text(run, model_folder, photos):
    status, out, _ = run("evaluate", model_folder, photos / "validation")
    assert status == 0
    assert out.startswith("Accuracy    ")
    assert "hold the true class (target 95%)" in out
    assert "of known classes (target 5%)" in out
    assert "95% interval" in out


def test_sets_and_rejection_are_counted(run, model_folder, photos, tmp_path):
    strict = with_thresholds(model_folder, tmp_path / "m", reject_threshold=0.0, set_thresholds=[0.0, 0.0])
    value = json.loads(run("evaluate", strict, photos / "validation", "--json")[1])
    assert value["coverage"]["found"]["set_size"] == 2
    assert value["coverage"]["found"]["value"] == value["none_of_these"]["known"]["value"] == 1


def test_rejected_images_of_unknown_classes_are_counted(run, model_folder, photos, tmp_path):
    strict = with_thresholds(model_folder, tmp_path / "m", reject_threshold=0.0)
    shutil.copytree(photos / "validation" / "disc", tmp_path / "data" / "zebra")
    status, out, err = run("evaluate", strict, tmp_path / "data")
    assert status == 0
    assert "of classes that the model does not know" in out
    assert "hold the true class" not in out
    assert "does not know zebra; those images count as wrong. It knows disc, stripes: if these are the same" in err
    (tmp_path / "names.csv").write_text("class,name\nzebra,stripes\n")  # what the note says
    assert "does not know" not in run("evaluate", strict, tmp_path / "data", "--classes", tmp_path / "names.csv")[2]
    value = json.loads(run("evaluate", strict, tmp_path / "data", "--json")[1])
    assert value["none_of_these"]["unknown"]["correct"] == 6
    assert value["coverage"]["found"] is None


def test_several_models_are_compared(run, model_folder, photos, tmp_path):
    status, out, _ = run("evaluate", model_folder, model_folder, photos)
    assert status == 0
    assert "12 images do not show whether" in out
    assert "McNemar p 1)" in out
    swapped = tmp_path / "swapped"
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        shutil.copytree(photos / "train" / source, swapped / target)
    run("fit", swapped, "-o", tmp_path / "bad")
    status, out, _ = run("evaluate", tmp_path / "bad", model_folder, photos, "--json", "--group-by", "none")
    value = json.loads(out)
    assert [entry["model"] for entry in value["models"]] == [str(tmp_path / "bad"), str(model_folder)]
    (pair,) = value["differences"]
    assert pair["real"]
    assert pair["difference"] > 0.5
    assert pair["only_second"] - pair["only_first"] == round(12 * pair["difference"])
    assert value["groups"]["count"] == 12
    out = run("evaluate", tmp_path / "bad", model_folder, photos, "--group-by", "none")[1]
    assert f"{model_folder} is better than {tmp_path / 'bad'}" in out
    assert run("evaluate", model_folder, tmp_path / "nothing", photos)[0] == 2
    assert run("evaluate", model_folder, model_folder, photos, "--group-by", "scene")[0] == 2


def test_an_accuracy_below_the_required_one_is_status_one(run, model_folder, photos, tmp_path):
    assert run("evaluate", model_folder, photos, "--min-accuracy", 0.5)[0] == 0
    swapped = tmp_path / "swapped"
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        shutil.copytree(photos / "validation" / source, swapped / target)
    status, out, err = run("evaluate", model_folder, swapped, "--min-accuracy", 0.5, "--json")
    assert status == 1
    assert json.loads(out)["accuracy"]["value"] < 0.5  # printed nevertheless
    last = err.splitlines()[-1]
    assert last.startswith(f"{model_folder}: accuracy ")
    assert last.endswith("is below the 50.0% required.")
    status, _, err = run("evaluate", model_folder, model_folder, swapped, "--min-accuracy", 0.5)
    assert status == 1
    assert err.count("required.") == 2
    assert run("evaluate", model_folder, photos, "--min-accuracy", 2)[0] == 2


def test_strict_is_status_one_where_an_image_cannot_be_read(run, model_folder, photos, tmp_path):
    data = shutil.copytree(photos / "validation", tmp_path / "data")
    (data / "disc" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    status, out, err = run("evaluate", model_folder, data)
    assert status == 0
    assert "bad.jpg" in err
    status, out, _ = run("evaluate", model_folder, data, "--strict")
    assert status == 1
    assert "Accuracy" in out


def test_verify(run, model_folder):
    status, out, _ = run("verify", model_folder, "--json")
    value = json.loads(out)
    assert status == 0
    assert value["pictures"] == 8
    assert value["distance"] is not None
    status, out, _ = run("verify", model_folder, "--runtime", "onnxruntime")
    assert status == 0
    assert "8 golden images" in out


def test_verify_out_of_tolerance_is_status_one(run, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    with np.load(folder / "golden.npz") as arrays:
        values = dict(arrays)
    values["probabilities"] = values["probabilities"][:, ::-1]
    np.savez(folder / "golden.npz", **values)
    status, out, err = run("verify", folder, "--runtime", "onnxruntime")
    assert (status, out) == (1, "")
    assert err.startswith("headstart: The golden sample differs by ")
    assert err.count("\n") == 1
    status, out, err = run("verify", folder, "--runtime", "onnxruntime", "--json")
    assert status == 1
    assert json.loads(out)["error"] == err.removeprefix("headstart: ").rstrip("\n")


def test_images_that_the_model_was_trained_on_are_pointed_out(run, model_folder, photos, tmp_path):
    status, out, err = run("evaluate", model_folder, photos / "train", "--json")
    value = json.loads(out)
    assert status == 0
    assert value["images"]["training"] == value["images"]["count"] > 0
    assert f"All of these {value['images']['count']} images are training images of {model_folder}" in err
    mixed = tmp_path / "mixed"
    shutil.copytree(photos / "validation", mixed)
    shutil.copy(min((photos / "train" / "disc").iterdir()), mixed / "disc" / "copy.jpg")
    _, out, err = run("evaluate", model_folder, mixed, "--json")
    assert json.loads(out)["images"]["training"] == 1
    assert "1 of these 13 images are training images" in err
    assert "training images" not in run("evaluate", model_folder, photos / "validation")[2]
    shutil.copytree(model_folder, tmp_path / "m")
    (tmp_path / "m" / "training_images.bin").write_bytes(b"cut off")
    assert run("evaluate", tmp_path / "m", mixed)[0] == 2
    (tmp_path / "m" / "training_images.bin").unlink()
    assert "training images" not in run("evaluate", tmp_path / "m", mixed)[2]


def test_targets_that_are_missed_are_said_in_a_sentence(run, model_folder, photos, tmp_path):
    assert "targeted" not in run("evaluate", model_folder, photos / "validation")[2]
    strict = with_thresholds(model_folder, tmp_path / "m", reject_threshold=0.0, set_thresholds=[1.0, 1.0])
    _, _, err = run("evaluate", strict, photos / "validation")
    assert "100.0% of images of known classes are rejected, 5% were targeted: these images differ" in err
    swapped = tmp_path / "swapped"  # every set holds the wrong class alone
    shutil.copytree(photos / "validation", swapped)
    (swapped / "disc").rename(swapped / "x")
    (swapped / "stripes").rename(swapped / "disc")
    (swapped / "x").rename(swapped / "stripes")
    _, _, err = run("evaluate", strict, swapped)
    assert "of the prediction sets hold the true class, 95% were targeted: these images differ" in err
