"""The model folder: it is read back as written, and files that are not of a model are never replaced."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart.errors import ModelError, OptionError
from headstart.model.folder import read_model, write_model


@pytest.fixture
def model(model_folder, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit(model: Path, change) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    change(config)
    (model / "config.json").write_text(json.dumps(config), "utf-8")


def test_the_folder_holds_what_the_format_says(model_folder):
    names = {p.name for p in model_folder.iterdir()}
    assert names == {"config.json", "model.onnx", "head.safetensors", "golden.npz", "run.json", "README.md"} | {
        "training_images.bin",
        "preprocess.py",
    }
    config = json.loads((model_folder / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "disc", "1": "stripes"}
    assert config["label2id"] == {"disc": 0, "stripes": 1}
    assert config["preprocess"]["height"] == 160
    assert config["backbone"]["id"] == "headstart-s"
    assert config["format"] == 3
    assert config["library_name"] == "headstart"
    assert config["reject_threshold"] is None or 0 < config["reject_threshold"] < 1
    assert len(config["set_thresholds"]) == 2
    assert (config["coverage"], config["false_alarms"]) == (0.95, 0.05)
    run = json.loads((model_folder / "run.json").read_text("utf-8"))
    assert {"versions", "seed", "data", "seconds", "accuracy", "candidates"} <= set(run)
    card = (model_folder / "README.md").read_text("utf-8")
    assert "disc, stripes" in card
    assert f"{run['accuracy']['validation']['value']:.1%}" in card


def test_reading_gives_back_what_was_written(model_folder, tmp_path):
    first = read_model(model_folder)
    second = read_model(write_model(first, tmp_path / "again"))
    assert second.classes == first.classes
    assert second.preprocess == first.preprocess
    assert second.graph == first.graph
    assert second.head.taps == first.head.taps
    assert second.head.temperature == first.head.temperature
    np.testing.assert_array_equal(second.head.weights, first.head.weights)
    np.testing.assert_array_equal(second.golden.pixels, first.golden.pixels)
    np.testing.assert_array_equal(second.golden.decoded, first.golden.decoded)
    np.testing.assert_array_equal(second.golden.ood_scores, first.golden.ood_scores)
    assert second.golden.ood_tolerance == first.golden.ood_tolerance
    for name in ("centre", "scales", "factor"):
        np.testing.assert_array_equal(getattr(second.ood, name), getattr(first.ood, name))
    assert second.thresholds == first.thresholds
    assert second.run == json.loads(json.dumps(first.run))


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "head.safetensors", "golden.npz"])
def test_missing_files_are_named(name, model):
    (model / name).unlink()
    with pytest.raises(ModelError, match=name):
        hs.load(model)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_folder_of_an_earlier_format_gets_one_clear_line(model, version):
    edit(model, lambda c: c.update(format=version))
    with pytest.raises(ModelError, match=f"is of format {version}, made by an earlier version; .* fit the model again"):
        hs.load(model)


def test_the_error_for_a_missing_folder_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match="headstart fit"):
        hs.load(tmp_path / "nothing")


def test_a_folder_without_run_or_golden_sample_still_predicts(model, photos):
    (model / "run.json").unlink()
    edit(model, lambda c: c.pop("golden"))
    (model / "golden.npz").unlink()
    assert len(hs.load(model).predict(sorted((photos / "validation").rglob("*.jpg")))) == 12


def test_writing_over_a_model_replaces_it_whole(model_folder, model):
    (model / "training.svg").write_text("old")
    write_model(read_model(model_folder), model)
    assert not (model / "training.svg").exists()
    assert read_model(model).classes == ("disc", "stripes")


@pytest.mark.parametrize("beside", ["notes.txt", "zebra/1.jpg", ".git/HEAD", "README.md/inner", "model.onnx.bak"])
def test_files_beside_a_model_are_left_alone(model_folder, model, beside):
    if beside.startswith("README"):
        (model / "README.md").unlink()
    (model / beside).parent.mkdir(exist_ok=True)
    (model / beside).write_text("years of work")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(OptionError, match=beside.split("/")[0].replace(".", r"\.")):
        write_model(read_model(model_folder), model)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


OTHER_CONFIGS = {
    "a JavaScript project": '{"name": "shop", "version": "1.0.0"}',
    "a checkout of the Hub": '{"architectures": ["ViTForImageClassification"], "id2label": {"0": "cat", "1": "dog"}}',
    "another library's model": '{"library_name": "keras", "format": 2}',
    "no object": '["headstart"]',
    "no JSON": "headstart",
    "nothing": "",
}


@pytest.mark.parametrize("text", OTHER_CONFIGS.values(), ids=OTHER_CONFIGS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with others"])
def test_the_config_of_other_software_is_not_a_model(model_folder, tmp_path, text, alone):
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text(text)
    if not alone:
        (project / "index.js").write_text("code")
    with pytest.raises(OptionError, match="not a Headstart model"):
        write_model(read_model(model_folder), project)
    assert (project / "config.json").read_text() == text
    assert alone or (project / "index.js").read_text() == "code"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_names_of_any_bytes_are_written_and_read_back(model_folder, tmp_path):
    """A byte that is not UTF-8 comes from a file name as a lone surrogate."""
    loaded = read_model(model_folder)
    latin1_name = os.fsdecode(b"gu\xeape")
    run = {**loaded.run, "images": {**loaded.run["images"], "quarantined": [{"path": latin1_name, "reason": "empty"}]}}
    restored = read_model(write_model(replace(loaded, classes=("disc", latin1_name), run=run), tmp_path / "m"))
    assert restored.classes == ("disc", latin1_name)
    assert restored.run["images"]["quarantined"][0]["path"] == latin1_name


def test_writing_over_something_else_is_refused(model_folder, tmp_path):
    loaded = read_model(model_folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(OptionError, match="not a Headstart model"):
        write_model(loaded, tmp_path / "thesis")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="it is a link, or no folder"):
        write_model(loaded, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    with pytest.raises(OptionError, match="it is a link, or no folder"):
        write_model(loaded, tmp_path / "link")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


FULL_DISK = """
import resource, signal, sys
from headstart.model.folder import read_model, write_model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = read_model(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_model(model, sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_full_disk_leaves_the_old_model_alone(model_folder, model):
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    completed = subprocess.run([sys.executable, "-c", FULL_DISK, model_folder, model], capture_output=True, text=True)
    assert completed.stdout.startswith("ModelError Cannot write the model"), completed
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]  # no partial folder is left


KILLED = """
import os, sys
from headstart.model import folder
from headstart.model.folder import read_model
model = read_model(sys.argv[1])
fsync, count = os.fsync, 0
def fsync_or_die(fd):
    global count
    count += 1
    if count > int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    fsync(fd)
os.fsync = fsync_or_die
folder.write_model(model, sys.argv[2])
"""


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_kill_while_writing_leaves_the_old_model_alone(model_folder, model, after):
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    completed = subprocess.run([sys.executable, "-c", KILLED, model_folder, model, str(after)], capture_output=True)
    assert completed.returncode == -9
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before


def test_a_model_of_other_data_is_replaced_only_if_asked(model_folder, tmp_path):
    target = tmp_path / "m"
    model = read_model(model_folder)
    write_model(model, target)
    other_source = replace(model, run={**model.run, "data": {"uri": "elsewhere"}})
    write_model(other_source, target)  # the same images from another place
    hashes = model.training_hashes
    half = replace(other_source, run={"data": {"uri": "a third"}}, training_hashes=hashes[: -(-len(hashes) // 2)])
    write_model(half, target)
    strangers = np.zeros((20, 16), np.uint8)
    other_images = replace(model, run={"data": {"uri": "a fourth"}}, training_hashes=strangers)
    with pytest.raises(OptionError, match="holds a model of other images, from a third; give --overwrite"):
        write_model(other_images, target)
    other_classes = replace(half, classes=("disc", "squares"))
    with pytest.raises(OptionError, match=r"holds a model of other classes \(disc, stripes\); give --overwrite"):
        write_model(other_classes, target)
    assert read_model(target).run == {"data": {"uri": "a third"}}
    write_model(other_images, target, overwrite=True)
    assert read_model(target).run == {"data": {"uri": "a fourth"}}


def test_a_damaged_model_is_replaced_only_if_asked(model_folder, tmp_path):
    target = tmp_path / "m"
    model = read_model(model_folder)
    write_model(model, target)
    (target / "run.json").write_text("{", "utf-8")
    (target / "training_images.bin").unlink()
    with pytest.raises(OptionError, match="from an unknown source; give --overwrite"):
        write_model(model, target)
    (target / "config.json").write_text('{"library_name": "headstart", "id2label": 3}', "utf-8")
    with pytest.raises(OptionError, match=r"other classes \(unknown\)"):
        write_model(model, target)
    write_model(model, target, overwrite=True)
    read_model(target)


def test_a_model_that_a_killed_run_had_moved_aside_is_read(model, photos):
    image = photos / "train" / "disc" / "000.jpg"
    expected = hs.Predictor.load(model).predict([image]).probabilities
    aside = model.parent / ".headstart-killed" / "old0" / model.name
    aside.parent.mkdir(parents=True)
    model.rename(aside)
    assert (hs.Predictor.load(model).predict([image]).probabilities == expected).all()
    model.rename(aside)
    with pytest.raises(OptionError, match="other classes"):  # it is still there, and is not replaced by another
        write_model(replace(read_model(aside), classes=("a", "b")), model)
    with pytest.raises(ModelError, match="no model folder"):
        read_model(model.parent / "nothing")


@pytest.mark.parametrize("name", [".DS_Store", "._config.json", "Thumbs.db", "desktop.ini"])
def test_what_the_system_leaves_in_a_folder_keeps_no_model_from_it(model_folder, tmp_path, name):
    folder, model = tmp_path / "model", read_model(model_folder)
    folder.mkdir()
    for _ in range(2):  # into a folder that a person has made, then in the place of the model
        (folder / name).write_text("x")
        write_model(model, folder)
        assert read_model(folder).sha256 == model.sha256
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(OptionError, match="also holds"):
        write_model(model, folder)


def test_an_unfinished_file_of_a_killed_run_does_not_keep_a_model_from_being_replaced(model_folder, tmp_path):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (folder / ".headstart-0123").write_text("half a page")
    model = read_model(folder)
    write_model(model, folder)
    assert not (folder / ".headstart-0123").exists()
    assert read_model(folder).sha256 == model.sha256
    (folder / ".headstart-folder").mkdir()
    with pytest.raises(OptionError, match=r"also holds \.headstart-folder"):
        write_model(model, folder)
