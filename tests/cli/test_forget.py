"""``update`` and ``forget``: the model of a fit that always, or never, had some images; nothing is left of those."""

import base64
import hashlib
import importlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos

import headstart as hs
from headstart.classifier.forget import find_images, forget_images
from headstart.errors import OptionError
from headstart.features import FeatureCache
from headstart.features.cache import entry_key
from headstart.features.rows_folder import read_rows

pytest.importorskip("pyarrow")
FILES = ("model.onnx", "head.safetensors", "config.json")
COMMON = ("--backbone", "headstart-s", "--runtime", "onnxruntime", "--no-report", "--keep-features")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Images of two classes and of three customers, and models that keep the features of some. Read only."""
    folder = tmp_path_factory.mktemp("forget")
    write_photos(folder / "all" / "train", 9)
    write_photos(folder / "all" / "validation", 3, seed=1)
    for kind in ("disc", "stripes"):
        for i in (2, 5):
            (folder / "all" / "train" / kind / f"00{i}.jpg").rename(
                folder / "all" / "train" / kind / f"customer-17-{i}.jpg"
            )
    for name, wanted in (("few", "00"), ("customer", "customer-17")):
        for path in (folder / "all").rglob("*.jpg"):
            if path.name.startswith(wanted):
                target = folder / name / path.relative_to(folder / "all")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    options = hs.FitOptions("headstart-s", compute=hs.Compute("onnxruntime"), cache=False, coverage=0.9, seed=3)
    for name in ("all", "few"):
        result = hs.fit_dataset(hs.open_dataset(folder / name), options, keep_features=True)
        result.save(folder / f"{name}-model")
    return folder


def contents(model):
    return {name: (model / name).read_bytes() for name in FILES}


def test_what_a_killed_run_has_left_beside_the_model_is_named(setting, tmp_path):
    shutil.copytree(setting / "all-model", tmp_path / "model")
    left = tmp_path / ".headstart-killed"
    shutil.copytree(setting / "all-model", left / "new")
    (tmp_path / ".headstart-other").mkdir()
    told = f"{left} was left by a run that was killed, or is of one that runs now, and may hold forgotten images"
    notes = forget_images(tmp_path / "model", ["train/disc/001.jpg"]).notes
    assert [note for note in notes if ".headstart-" in note] == [f"{told}; delete it when none runs."]
    with pytest.raises(OptionError, match="No image of") as caught:
        forget_images(tmp_path / "model", ["train/disc/001.jpg"])
    assert told in str(caught.value)


@pytest.mark.parametrize("command", ["forget", "update"])
def test_what_another_process_has_forgotten_meanwhile_stays_forgotten(run, setting, tmp_path, monkeypatch, command):
    folder = tmp_path / "model"
    shutil.copytree(setting / "all-model", folder)
    module = importlib.import_module(f"headstart.classifier.{command}")
    refit = module.refit

    def refit_while_another_forgets(*values, **options):
        monkeypatch.setattr(module, "refit", refit)
        forget_images(folder, ["train/disc/001.jpg"])
        return refit(*values, **options)

    monkeypatch.setattr(module, "refit", refit_while_another_forgets)
    named = ["train/disc/003.jpg"] if command == "forget" else [setting / "few"]
    status, out, err = run(command, folder, *named)
    assert (status, out) == (2, "")
    assert f"{folder} was changed by another process meanwhile" in err
    paths = read_rows(folder / "features").rows.paths
    assert not any(path.endswith("train/disc/001.jpg") for path in paths)
    assert any(path.endswith("train/disc/003.jpg") for path in paths)
    assert run(command, folder, *named)[0] == 0


def test_update_gives_the_model_that_always_had_them(run, setting, tmp_path):
    shutil.copytree(setting / "few-model", tmp_path / "model")
    status, out, err = run("update", tmp_path / "model", setting / "customer")
    assert status == 0, err
    assert out.startswith("Added       4 images\n")
    assert "kept, none computed" not in out
    cache = json.loads((tmp_path / "model" / "run.json").read_text("utf-8"))["cache"]
    assert cache["hits"] + cache["misses"] == 4
    assert contents(tmp_path / "model") == contents(setting / "all-model")
    status, out, err = run("update", tmp_path / "model", setting / "customer", "-o", tmp_path / "new", "--json")
    assert (status, json.loads(out)["added"]) == (0, 0)
    assert "4 of the images were part of the model before" in err
    assert contents(tmp_path / "new") == contents(setting / "all-model")


def test_a_model_that_may_only_be_read_is_changed_elsewhere(run, setting, tmp_path, monkeypatch):
    """With -o nothing is written beside the model; without it that is refused before the work."""
    shutil.copytree(setting / "few-model", tmp_path / "read-only" / "model")
    shutil.copytree(setting / "customer", tmp_path / "customer")
    access, model = os.access, tmp_path / "read-only" / "model"
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not (Path(path) == model.parent and mode & os.W_OK)
    )
    status, _, err = run("update", model, tmp_path / "customer", "-o", tmp_path / "more")
    assert status == 0, err
    assert contents(tmp_path / "more") == contents(setting / "all-model")
    status, _, err = run("forget", tmp_path / "more", tmp_path / "customer", "-o", tmp_path / "fewer")
    assert status == 0, err
    assert contents(tmp_path / "fewer") == contents(setting / "few-model")
    for command in (("update", model, tmp_path / "customer"), ("forget", model, "*.jpg"), ("embed", setting / "few")):
        output = () if command[0] != "embed" else ("-o", model.parent / "features")
        status, _, err = run(*command, *output)
        assert status == 2
        assert f": nothing can be written in {model.parent}" in err


def test_a_new_class_is_told(run, setting, tmp_path):
    write_photos(tmp_path / "more", 4, ("disc", "stripes", "dots"), seed=5)
    shutil.rmtree(tmp_path / "more" / "disc")
    status, _, err = run("update", setting / "few-model", tmp_path / "more", "-o", tmp_path / "new")
    assert status == 0
    assert "dots is a new class, of 4 images." in err
    assert hs.load(tmp_path / "new").model_.classes == ("disc", "dots", "stripes")


@pytest.mark.parametrize("how", ["files", "gone", "hashes", "folder"])
def test_forget_gives_the_model_that_never_had_them(run, setting, tmp_path, how):
    files = sorted((setting / "customer").rglob("*.jpg"))
    names = {
        "files": files,
        "gone": ["train/*/customer-17-?.jpg"],
        "hashes": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        "folder": [setting / "customer"],
    }[how]
    status, out, err = run("forget", setting / "all-model", *names, "-o", tmp_path / "new")
    assert status == 0, err
    assert contents(tmp_path / "new") == contents(setting / "few-model")
    assert sum(line.startswith("Forgotten ") for line in out.splitlines()) == 4
    assert "customer-17" not in err.replace(str(setting), "")
    assert "still holds them; delete it" in err
    record = json.loads((tmp_path / "new" / "run.json").read_bytes())["forgotten"]
    assert (record["images"], [time["images"] for time in record["times"]]) == (4, [4])
    hashes = (tmp_path / "new" / "training_images.bin").read_bytes()
    assert len(hashes) == 14 * 16


def forms(secret):
    """The forms in which bytes may be left: as they are, and in hexadecimal."""
    return {secret, secret.hex().encode(), secret.hex().upper().encode()}


def left(path):
    """All bytes of a file, and what each run of base64 in it stands for, at each of four alignments."""
    data = path.read_bytes()
    decoded = [data]
    for text in re.findall(rb"[A-Za-z0-9+/]{24,}", data):
        for start in range(4):
            part = text[start : start + (len(text) - start) // 4 * 4]
            decoded.append(base64.b64decode(part))
    return b"\n".join(decoded)


def test_nothing_of_an_image_is_left_in_the_model_or_in_the_cache(run, setting, tmp_path):
    shutil.copytree(setting / "all", tmp_path / "photos")
    broken = tmp_path / "photos" / "train" / "disc" / "customer-17-broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff broken")
    model = tmp_path / "model"
    arguments = [argument for argument in COMMON if argument != "--no-report"]
    assert run("fit", tmp_path / "photos", "-o", model, *arguments)[0] == 0
    cache = Path(os.environ["HEADSTART_CACHE"])
    rows = read_rows(model / "features").rows
    gone = [i for i, path in enumerate(rows.paths) if "customer-17" in path]
    kept = next(i for i, path in enumerate(rows.paths) if "customer-17" not in path)

    def secrets(i):
        vectors = [value[i].astype("<i2").tobytes() for value in rows.values.values()]
        return [rows.hashes[i], rows.hashes[i][:16], rows.tiny_images[i].tobytes(), *vectors]

    wanted = {form for i in gone for secret in secrets(i) for form in forms(secret)} | {b"customer-17"}
    wanted |= forms(hashlib.sha256(broken.read_bytes()).digest())
    before = [left(path) for folder in (model, cache) for path in folder.rglob("*") if path.is_file()]
    assert sum(any(secret in data for data in before) for secret in wanted) > 4 * len(gone)  # the search finds them
    with FeatureCache() as opened:
        count = opened.count()
    status, out, err = run("forget", model, "*customer-17*")
    assert status == 0, err
    assert "customer-17-broken.jpg" in out
    found = [(path, data) for folder in (model, cache) for path in folder.rglob("*") if (data := read(path))]
    for path, data in found:
        for secret in wanted:
            assert secret not in data, (path, secret[:40])
    assert any(rows.hashes[kept] in data for _, data in found)
    assert not (model / "report.html").exists()
    assert "no report" in err
    with FeatureCache() as opened:
        assert 0 < opened.count() <= count - len(gone)
    assert run("verify", model)[0] == 0


def read(path):
    return left(path) if path.is_file() else b""


def test_the_cache_forgets_all_entries_of_an_image_and_no_others(tmp_path):
    one, other = b"\x01" * 32, b"\x02" * 32
    names = [("net", "prep", "ort", "0", "tap"), ("", "", "", "0", "thumbnail"), ("other", "p", "ov", "1", "map")]
    values = {entry_key(content, *name): np.arange(300, dtype=np.float32) for content in (one, other) for name in names}
    with FeatureCache(tmp_path) as cache:
        cache.put_many(values)
        assert cache.forget([one]) == 3
        found = cache.get_many([*values])
    assert [value is not None for value in found] == [False] * 3 + [True] * 3


def test_a_name_is_a_path_its_end_or_a_folder_and_content_comes_first(setting, tmp_path):
    features = read_rows(setting / "all-model" / "features")

    def found(*names):
        result = find_images(features, [*map(str, names)])
        hashes = result.hashes
        paths = [
            path for path, content in zip(features.rows.paths, features.rows.hashes, strict=True) if content in hashes
        ]
        return sorted("/".join(path.split("/")[-3:]) for path in paths), result.unknown

    one = "train/disc/000.jpg"
    assert found(setting / "all" / one) == ([one], ())
    assert found("disc/000.jpg", "sc/000.jpg")[1] == ("sc/000.jpg",)
    assert len(found("000.jpg")[0]) == 4  # two classes, two splits
    assert len(found("validation/")[0]) == 6
    shutil.copy(setting / "all" / one, tmp_path / "001.jpg")  # the content of another image than its name says
    assert found(tmp_path / "001.jpg") == ([one], ())
    (tmp_path / "new.jpg").write_bytes(b"new")
    assert found(tmp_path / "new.jpg", "0" * 64)[1] == (str(tmp_path / "new.jpg"), "0" * 64)


@pytest.mark.parametrize("command", ["update", "forget"])
def test_a_model_that_keeps_nothing_names_the_option(run, model_folder, setting, command):
    status, _, err = run(command, model_folder, setting / "customer")
    assert (status, err.count("\n")) == (2, 1)
    assert "--keep-features" in err


def test_what_cannot_be_repeated_is_refused_with_the_reason(run, setting, tmp_path):
    shutil.copytree(setting / "few-model", tmp_path / "model")
    file = tmp_path / "model" / "run.json"
    value = json.loads(file.read_bytes())
    file.write_text(json.dumps({**value, "fine_tuning": {"kept": "fine-tuned"}}))
    status, _, err = run("forget", tmp_path / "model", "000.jpg")
    assert (status, "its backbone was trained on the images" in err) == (2, True)
    for options, message in (
        ({"seed": "x"}, "the options of the fit cannot be used: seed"),
        ({"class_weight": 3}, "class_weight"),
        ({"cut": 5}, "options is damaged"),
    ):
        file.write_text(json.dumps({**value, "options": {**value["options"], **options}}))
        status, _, err = run("forget", tmp_path / "model", "000.jpg")
        assert (status, err.count("\n")) == (2, 1), options
        assert message in err
    file.write_text(json.dumps({key: v for key, v in value.items() if key != "options"}))
    status, _, err = run("forget", tmp_path / "model", "000.jpg")
    assert (status, "has no options of the fit" in err) == (2, True)


def test_a_class_that_vanishes_is_told_and_two_must_remain(run, setting, tmp_path):
    before = contents(setting / "few-model")
    status, _, err = run("forget", setting / "few-model", "disc")
    assert (status, "stripes alone to tell apart; nothing was changed" in err) == (2, True)
    status, _, err = run("forget", setting / "few-model", "unknown/*.jpg")
    assert (status, "is named unknown/*.jpg; nothing was changed" in err) == (2, True)
    assert contents(setting / "few-model") == before
    write_photos(tmp_path / "more", 4, ("disc", "stripes", "dots"), seed=5)
    assert run("update", setting / "few-model", tmp_path / "more", "-o", tmp_path / "three")[0] == 0
    status, out, err = run("forget", tmp_path / "three", "more/dots", "nowhere.jpg", "--json")
    assert status == 0
    assert json.loads(out)["classes"] == ["disc", "stripes"]
    assert "dots has no training images left, and is no longer a class." in err
    assert "1 of what was named is no image of the model: nowhere.jpg" in err
    record = json.loads((tmp_path / "three" / "run.json").read_bytes())["forgotten"]
    assert record["images"] == 4


def test_exports_carry_no_features(run, setting, tmp_path):
    for target in ("onnx", "openvino", "hub"):
        status, _, err = run("export", setting / "few-model", "--to", target, "-o", tmp_path / target)
        assert status == 0, err
        names = [path.name for path in (tmp_path / target).rglob("*")]
        assert not any(name.endswith(".parquet") or name in ("features", "features.json") for name in names)
