"""``embed --statistics`` and ``merge`` of them: a model without a row of any image, and without what needs rows."""

import json
import shutil

import numpy as np
import pytest
from helpers.photos import write_photos
from safetensors.numpy import load, save
from typer.testing import CliRunner

from headstart.classifier.embed_statistics import unfinished_sums
from headstart.classifier.fit_sharded import unfinished_folder
from headstart.classifier.fit_statistics import fit_to_statistics
from headstart.classifier.options import FitOptions
from headstart.cli import app
from headstart.errors import DataError, ModelError
from headstart.features import statistics_folder
from headstart.features.rows_folder import read_rows
from headstart.features.statistics_folder import read_statistics
from headstart.model.folder import read_model
from headstart.model.predictor import Predictor

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'headstart[tables]'")
FILES = ("model.onnx", "head.safetensors", "config.json")
COMMON = ("--backbone", "headstart-s", "--runtime", "onnxruntime")
UNMEASURED = "accuracy, temperature, prediction sets, rejection, groups and learning curve are not measured"


def call(*arguments):
    """Run a command; return its status and all that it printed."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """20 images for training, one of them twice, 8 for validation, one of them damaged. Read only."""
    folder = tmp_path_factory.mktemp("statistics") / "photos"
    write_photos(folder / "train", 10)
    write_photos(folder / "validation", 4, seed=1)
    shutil.copy(folder / "train" / "disc" / "000.jpg", folder / "train" / "disc" / "again.jpg")
    (folder / "validation" / "disc" / "000.jpg").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def summed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("summed") / "statistics"
    status, out = call("embed", data, "-o", folder, "--statistics", *COMMON)
    assert status == 0, out
    assert "Statistics  21 images in 2 classes, 6.7 MB: " in out
    assert f"headstart merge {folder} -o MODEL" in out
    return folder


@pytest.fixture(scope="module")
def model(summed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    status, out = call("merge", summed, "-o", folder)
    assert status == 0, out
    assert "Accuracy    not measured: the model was made of statistics alone" in out
    assert "Groups      not measured: every image counts by itself" in out
    assert "chosen of 13 by generalised cross-validation" in out
    assert UNMEASURED in out
    assert "Not summed: 7 images for validation." in out
    return folder


def contents(model):
    return {name: (model / name).read_bytes() for name in FILES}


def test_the_sums_are_those_of_the_rows(run, data, summed, tmp_path):
    assert {path.name for path in summed.iterdir()} == {"statistics.json", "statistics.safetensors"}
    assert [path.name for path in summed.parent.iterdir()] == ["statistics"]  # nothing is left of the rows
    run("embed", data, "-o", tmp_path / "rows", *COMMON)
    rows = read_rows(tmp_path / "rows").rows
    used = np.array([split == "train" for split in rows.splits])
    values = rows.values["features"][used].astype(object)
    part = read_statistics(summed)
    assert part.classes == ("disc", "stripes")
    assert part.left_out == {"validation": 7}
    np.testing.assert_array_equal(part.of_taps.statistics.counts, [11, 10])
    np.testing.assert_array_equal(part.of_taps.statistics.gram[:40], (values.T[:40] @ values).astype(np.int64))
    for c, name in enumerate(part.classes):
        is_of_class = np.array(rows.labels)[used] == name
        np.testing.assert_array_equal(part.of_taps.statistics.sums[c], values[is_of_class].sum(axis=0))


def test_no_name_and_no_hash_of_an_image_that_was_summed_is_kept(data, summed, model):
    text = b"".join(path.read_bytes() for folder in (summed, model) for path in sorted(folder.iterdir()))
    assert b"again.jpg" not in text
    assert b"validation/disc/000.jpg" in text  # it could not be read, and is named
    assert not (model / "training_images.bin").exists()


@pytest.mark.parametrize("count", [2, 3])
def test_any_parts_in_any_order_give_the_same_bytes(run, data, model, count, tmp_path):
    paths = sorted(data.rglob("*.jpg"))
    order = np.random.default_rng(count).permutation(len(paths))
    for part in range(count):
        for i in order[part::count]:
            target = tmp_path / f"part{part}" / paths[i].relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths[i], target)
        status, _, err = run("embed", tmp_path / f"part{part}", "-o", tmp_path / f"s{part}", "--statistics", *COMMON)
        assert status == 0, err
    status, _, err = run("merge", *(tmp_path / f"s{i}" for i in reversed(range(count))), "-o", tmp_path / "model")
    assert status == 0, err
    assert contents(tmp_path / "model") == contents(model)


@pytest.mark.slow
def test_workers_give_the_same_bytes(run, data, model, tmp_path):
    status, _, err = run(
        "embed", data, "-o", tmp_path / "s", "--statistics", "--on", "processes", "--workers", "2", *COMMON
    )
    assert status == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    run("merge", tmp_path / "s", "-o", tmp_path / "model")
    assert contents(tmp_path / "model") == contents(model)


def test_what_is_not_measured_is_not_predicted(run, data, model, tmp_path):
    image = data / "train" / "stripes" / "001.jpg"
    status, out, err = run("predict", model, image, "--json")
    value = json.loads(out)
    assert status == 0
    assert (value["set"], value["none_of_these"]) == (None, None)
    assert value["classes"][0]["class"] == "stripes"
    assert UNMEASURED in err
    status, out, err = run("predict", model, image)
    assert out.split("\t")[1] == "stripes"
    assert UNMEASURED in err
    status, out, err = run("predict", model, image, "-o", tmp_path / "table.csv")
    assert status == 0, err
    status, out, err = run("evaluate", model, data / "train")
    assert status == 0, err
    assert "(21/21" in out
    assert run("verify", model)[0] == 0
    status, _, err = run("report", model)
    assert status == 2
    assert "has no report" in err
    assert UNMEASURED in err


def test_the_card_and_the_files_say_so(run, summed, model, tmp_path):
    card = (model / "README.md").read_text("utf-8")
    assert card.count("- Not measured") == 2
    assert "Its temperature is not measured" in card
    assert "`skipped.csv` name files that were left out" in card
    assert "validation/disc/000.jpg" in (model / "skipped.csv").read_text("utf-8")
    assert "of the training images" not in card
    config, about = (json.loads((model / name).read_text("utf-8")) for name in ("config.json", "run.json"))
    assert config["measured"] is False
    assert (about["accuracy"], about["learning_curve"], about["measured"]) == ({}, None, False)
    assert about["groups"] == {"count": None, "largest": None, "method": "not measured"}
    read = read_model(model)
    assert not read.thresholds.is_measured
    assert read.accuracy == {}
    assert Predictor.load(str(model)).verify()
    status, out, _ = run("merge", summed, "-o", tmp_path / "m", "--json", "--dropout", "0.2", "--author", "Ada")
    value = json.loads(out)
    assert (status, value["accuracy"], value["head"]["dropout"], value["author"]) == (0, {}, 0.2, "Ada")


def test_a_config_that_hides_thresholds_is_damaged(model, tmp_path):
    for change in ({"measured": 0}, {"measured": None}, {"reject_threshold": 0.5}, {"set_thresholds": [0.1, 0.0]}):
        folder = shutil.copytree(model, tmp_path / f"{change}")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(config | change), "utf-8")
        with pytest.raises(ModelError, match="measured is no truth value"):
            read_model(folder)


@pytest.mark.parametrize(
    "option",
    [
        ("--head", "lda"),
        ("--validation", "0.2"),
        ("--group-by", "folder"),
        ("--class-weight", "balanced"),
        ("--threshold", "disc=0.3"),
        ("--coverage", "0.9"),
        ("--false-alarms", "0.1"),
        ("--target-recall", "0.9"),
        ("--target-precision", "0.9"),
    ],
)
def test_what_needs_rows_is_refused(run, summed, option, tmp_path):
    status, _, err = run("merge", summed, "-o", tmp_path / "m", *option)
    assert status == 2
    assert option[0] in err
    assert "without --statistics" in err
    assert not (tmp_path / "m").exists()


def test_parts_that_do_not_belong_together_are_refused(run, data, summed, tmp_path):
    again = shutil.copytree(summed, tmp_path / "again")
    status, _, err = run("merge", summed, again, "-o", tmp_path / "m")
    assert status == 2
    assert "are of the same images" in err
    run("embed", data, "-o", tmp_path / "rows", *COMMON)
    status, _, err = run("merge", summed, tmp_path / "rows", "-o", tmp_path / "m")
    assert status == 2
    assert "compute that with --statistics too" in err
    status, _, err = run("embed", data, "-o", tmp_path / "rows", "--statistics", *COMMON)
    assert status == 2
    assert "holds other files than statistics" in err
    status, _, err = run("merge", summed, "-o", tmp_path / "m", "--cut", "stage4")
    assert status == 2
    assert "Unknown cut 'stage4'; these statistics are of features." in err


def test_a_folder_with_other_files_is_not_replaced(run, data, summed, tmp_path):
    folder = shutil.copytree(summed, tmp_path / "s")
    (folder / "notes.txt").write_text("x")
    status, _, err = run("embed", data, "-o", folder, "--statistics", *COMMON)
    assert status == 2
    assert "holds other files than statistics (notes.txt)" in err
    assert (folder / "notes.txt").read_text() == "x"


FOREIGN = {
    "thesis.txt": lambda folder: (folder / "thesis.txt").write_text("x"),
    "sums/mine.txt": lambda folder: ((folder / "sums").mkdir(), (folder / "sums" / "mine.txt").write_text("x")),
    "sums": lambda folder: (folder / "sums").symlink_to(folder.parent),
    "rows/mine.txt": lambda folder: ((folder / "rows").mkdir(), (folder / "rows" / "mine.txt").write_text("x")),
    f"{'a' * 32}.parquet": lambda folder: (folder / f"{'a' * 32}.parquet").write_bytes(b"a row of a fit"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_of_unfinished_statistics_is_not_deleted(run, data, name, tmp_path):
    folder = tmp_path / ".s.unfinished-statistics"
    folder.mkdir()
    FOREIGN[name](folder)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    status, _, err = run("embed", data / "train", "-o", tmp_path / "s", "--statistics", *COMMON)
    assert status == 2
    assert f"holds something else ({name}); move that elsewhere" in err
    assert "delete it" not in err
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_comes_while_images_are_summed_is_not_deleted(run, data, tmp_path, monkeypatch):
    folder = tmp_path / ".s.unfinished-statistics"
    write = statistics_folder.write_statistics

    def written(*args):
        (folder / "thesis.txt").write_text("x")
        return write(*args)

    monkeypatch.setattr(statistics_folder, "write_statistics", written)
    status, _, err = run("embed", data / "train", "-o", tmp_path / "s", "--statistics", *COMMON)
    assert status == 0, err
    assert [path.name for path in folder.rglob("*")] == ["thesis.txt"]


def test_statistics_and_a_fit_of_one_name_are_unfinished_in_places_of_their_own(tmp_path):
    assert unfinished_sums(tmp_path / "m") != unfinished_folder(tmp_path / "m")


def test_images_of_which_none_counts_are_an_error_and_their_features_stay(run, data, tmp_path):
    (tmp_path / "images").mkdir()
    for path in sorted((data / "train" / "disc").iterdir())[:2]:
        shutil.copy(path, tmp_path / "images")
    status, _, err = run("embed", tmp_path / "images", "-o", tmp_path / "s", "--statistics", *COMMON)
    assert status == 2
    assert "There is nothing to sum" in err
    assert "2 images without a label" in err
    assert not (tmp_path / "s").exists()
    assert (tmp_path / ".s.unfinished-statistics").is_dir()


def test_taps_that_a_cut_names_are_summed(run, data, tmp_path):
    status, _, err = run("embed", data, "-o", tmp_path / "s", "--statistics", "--cut", "stage4,features", *COMMON)
    assert status == 0, err
    part = read_statistics(tmp_path / "s")
    assert [*part.of_taps.taps] == ["stage4", "features"]
    result = fit_to_statistics(part, FitOptions())
    assert result.model.head.taps == ("stage4", "features")
    assert fit_to_statistics(part, FitOptions(cut="stage4")).model.head.taps == ("stage4",)


def change_sums(folder, change):
    path = folder / "statistics.safetensors"
    tensors = {name: value.copy() for name, value in load(path.read_bytes()).items()}
    change(tensors)
    path.write_bytes(save(tensors))


def change_about(folder, key, value):
    path = folder / "statistics.json"
    about = json.loads(path.read_text("utf-8"))
    about[key] = value(about[key]) if callable(value) else value
    path.write_text(json.dumps(about), "utf-8")


def set_sum(name, value):
    return lambda folder: change_sums(folder, lambda tensors: tensors[name].reshape(-1).__setitem__(0, value))


HOSTILE = {
    "another format": lambda f: change_about(f, "format", 2),
    "no classes": lambda f: change_about(f, "classes", None),
    "a negative count": lambda f: change_about(f, "classes", {"disc": -1, "stripes": 22}),
    "too many images": lambda f: change_about(f, "classes", {"disc": 2**40, "stripes": 1}),
    "another sum of images": lambda f: change_about(f, "images", 3),
    "classes out of order": lambda f: change_about(f, "classes", {"stripes": 10, "disc": 11}),
    "another class": lambda f: change_about(f, "classes", lambda c: {**c, "z": 0}),
    "an unknown tap": lambda f: change_about(f, "summed", ["x"]),
    "no tap": lambda f: change_about(f, "summed", []),
    "another tap": lambda f: change_about(f, "summed", ["stage4"]),
    "left out text": lambda f: change_about(f, "left_out", {"test": "1"}),
    "a short fingerprint": lambda f: change_about(f, "fingerprint", "12"),
    "half a character": lambda f: change_about(f, "classes", {"disc": 11, "s\ud800": 10}),
    "half a character elsewhere": lambda f: change_about(f, "left_out", {"s\udfff": 1}),
    "several labels": lambda f: change_about(f, "multi_label", True),
    "a signed fingerprint": lambda f: change_about(f, "fingerprint", "+" + "1" * 63),
    "a fingerprint with gaps": lambda f: change_about(f, "fingerprint", "1_1" + "1" * 61),
    "no fingerprint": lambda f: change_about(f, "fingerprint", "x" * 64),
    "cut off": lambda f: (f / "statistics.safetensors").write_bytes(b"cut off"),
    "not JSON": lambda f: (f / "statistics.json").write_bytes(b"{"),
    "a sum that no image has": set_sum("sums", 2**40),
    "a negative square": set_sum("gram", -1),
    "a huge square": set_sum("gram", 2**62),
    "a product beyond its squares": lambda f: change_sums(f, lambda t: t["gram"].__setitem__(1, 2**60)),
    "another dtype": lambda f: change_sums(f, lambda t: t.update(sums=t["sums"].astype(np.float64))),
    "another shape": lambda f: change_sums(f, lambda t: t.update(sums=t["sums"].T)),
    "no gram": lambda f: change_sums(f, lambda t: t.update(gramm=t.pop("gram"))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_statistics_are_hostile_until_they_are_read(summed, name, tmp_path):
    folder = shutil.copytree(summed, tmp_path / "s")
    HOSTILE[name](folder)
    with pytest.raises(DataError, match=r"statistics\.(json|safetensors)"):
        read_statistics(folder)
