"""``embed`` and ``merge``: the same model for any cut of the images, and a folder that a kill does not spoil."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers.photos import write_photos

import headstart as hs
from headstart.classifier.embed_folder import embed_to_folder
from headstart.classifier.parts import merge_parts
from headstart.classifier.refit import fit_features
from headstart.errors import OptionError
from headstart.features.rows_folder import FILE, read_rows

parquet = pytest.importorskip("pyarrow.parquet")
FILES = ("model.onnx", "head.safetensors", "config.json")
COMMON = ("--backbone", "headstart-s", "--runtime", "onnxruntime")
OPTIONS = hs.FitOptions("headstart-s", compute=hs.Compute("onnxruntime"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """28 images, two of them with the same content. Read only."""
    folder = tmp_path_factory.mktemp("merge") / "photos"
    write_photos(folder / "train", 10)
    write_photos(folder / "validation", 4, seed=1)
    shutil.copy(folder / "train" / "disc" / "000.jpg", folder / "train" / "disc" / "again.jpg")
    return folder


def contents(model):
    return {name: (model / name).read_bytes() for name in FILES}


def test_parts_give_the_model_of_one_fit(run, data, tmp_path):
    """Any cut and order of the images: by embed into parts, by models that keep features, and by one fit."""
    run("fit", data, "-o", tmp_path / "whole", *COMMON, "--keep-features", "--no-report")
    paths = sorted(data.rglob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    for part in range(3):  # the same image may be in two parts
        for i in [*order[part::3], order[0]]:
            target = tmp_path / f"part{part}" / paths[i].relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths[i], target)
        status, out, _ = run("embed", tmp_path / f"part{part}", "-o", tmp_path / f"f{part}", *COMMON)
        assert status == 0
        assert f"headstart merge {tmp_path / f'f{part}'} -o MODEL" in out
    status, out, err = run("merge", *(tmp_path / f"f{i}" for i in (2, 0, 1)), "-o", tmp_path / "merged")
    assert status == 0, err
    assert "kept, none computed" in out
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    for name in ("merged", "whole"):  # no training image is in golden.npz
        card = (tmp_path / name / "README.md").read_text("utf-8")
        assert "`golden.npz` holds 8 rendered images, of nobody" in card
        assert "of the training images" not in card
        assert "made of sums" not in card
    # A model of two parts, and the third one; the images themselves are gone.
    for part in range(3):
        shutil.rmtree(tmp_path / f"part{part}")
    assert run("merge", tmp_path / "f1", tmp_path / "f0", "-o", tmp_path / "two")[0] == 0
    assert contents(tmp_path / "two") != contents(tmp_path / "whole")
    status, out, err = run("merge", tmp_path / "f2", tmp_path / "two", "-o", tmp_path / "three", "--json")
    assert status == 0, err
    assert contents(tmp_path / "three") == contents(tmp_path / "whole")
    assert json.loads(out)["images"]["train"] == 20
    assert "the same image as another one" in err
    left_out = (tmp_path / "three" / "skipped.csv").read_text("utf-8").splitlines()[1:]
    assert len(left_out) == 3  # the image in all parts, and one of the copies
    assert run("verify", tmp_path / "three")[0] == 0


def test_the_rows_of_an_image_do_not_depend_on_its_neighbours(data, tmp_path):
    dataset = hs.open_dataset(data)
    embed_to_folder(dataset, tmp_path / "whole", OPTIONS)
    alone = dataset.select([3])
    embed_to_folder(alone, tmp_path / "alone", hs.FitOptions("headstart-s", compute=OPTIONS.compute, cache=False))
    backwards = dataset.select(range(len(dataset) - 1, -1, -1))
    embed_to_folder(backwards, tmp_path / "back", OPTIONS, shard_images=5)
    whole, one, back = (merge_parts([tmp_path / name]).rows for name in ("whole", "alone", "back"))
    place = whole.hashes.index(one.hashes[0])
    for tap, value in one.values.items():
        np.testing.assert_array_equal(value[0], whole.values[tap][place])
        np.testing.assert_array_equal(whole.values[tap], back.values[tap])


def test_embed_goes_on_where_it_was_stopped(data, tmp_path, monkeypatch):
    dataset = hs.open_dataset(data)
    options = hs.FitOptions("headstart-s", compute=OPTIONS.compute, cache=False)
    embed_to_folder(dataset, tmp_path / "at-once", options, shard_images=6)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "at-once").iterdir()}
    folder = tmp_path / "again"
    shutil.copytree(tmp_path / "at-once", folder)
    (folder / FILE).unlink()
    first, second, *_ = sorted(folder.glob("*.parquet"))
    rows = [parquet.read_metadata(path).num_rows for path in (first, second)]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-50])
    computed = []
    monkeypatch.setattr("headstart.classifier.embed_folder.embed", _counting(computed))
    result = embed_to_folder(dataset, folder, options, shard_images=6)
    assert sorted(computed) == sorted([8, *rows])  # the golden images, and two shards
    assert (result.shards, result.found) == (5, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def _counting(computed):
    def count(images, *arguments, **options):
        computed.append(len(images))
        return hs.features.embed(images, *arguments, **options)

    return count


def test_a_changed_or_broken_image_is_noticed(run, data, tmp_path):
    shutil.copytree(data, tmp_path / "photos")
    folder = tmp_path / "f"
    (tmp_path / "photos" / "train" / "disc" / "broken.jpg").write_bytes(b"\xff\xd8\xffbroken")
    status, out, err = run("embed", tmp_path / "photos", "-o", folder, *COMMON)
    assert (status, "28 images" in out, "broken.jpg" in err) == (0, False, True)
    assert "29 images in 1 shard" in out
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    _, out, _ = run("embed", tmp_path / "photos", "-o", folder, *COMMON)
    assert "1 shard, 1 of them there before" in out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    image = tmp_path / "photos" / "train" / "disc" / "000.jpg"
    image.write_bytes((tmp_path / "photos" / "train" / "stripes" / "000.jpg").read_bytes())
    _, out, _ = run("embed", tmp_path / "photos", "-o", folder, *COMMON)
    assert "there before" not in out
    rows = read_rows(folder).rows
    places = [i for i, path in enumerate(rows.paths) if path.endswith("train/disc/000.jpg")]
    other = [i for i, path in enumerate(rows.paths) if path.endswith("train/stripes/000.jpg")]
    assert rows.hashes[places[0]] == rows.hashes[other[0]]
    status, _, err = run("merge", folder, "-o", tmp_path / "model")
    assert status == 0
    assert "Left out: 2 images, the same image with another label" in err
    left_out = (tmp_path / "model" / "skipped.csv").read_text("utf-8")
    assert "broken.jpg" in left_out
    assert run("embed", tmp_path / "photos", "-o", tmp_path / "g", *COMMON, "--strict")[0] == 1


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_folder_that_the_next_run_finishes(data, tmp_path):
    code = """
import sys
from pathlib import Path
import headstart as hs
from headstart.classifier.embed_folder import embed_to_folder
options = hs.FitOptions("headstart-s", compute=hs.Compute("onnxruntime"), cache=False)
embed_to_folder(hs.open_dataset(sys.argv[1]), Path(sys.argv[2]), options, shard_images=2)
"""
    command = [sys.executable, "-c", code, str(data)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env={**os.environ})
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    folder = tmp_path / "killed"
    for shards in (1, 4, 9):
        process = subprocess.Popen([*command, str(folder)], env={**os.environ})
        while process.poll() is None and len([*folder.glob("*.parquet")]) < shards:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in folder.glob("*.parquet"):
            assert path.read_bytes() == expected[path.name]
    subprocess.run([*command, str(folder)], check=True, env={**os.environ})
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix} == expected


def test_what_cannot_be_merged_is_told(run, data, model_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run("embed", data / "train", "-o", tmp_path / "f", *COMMON)[0] == 0
    for arguments, message in (
        ([tmp_path / "none"], "There is no folder"),
        ([tmp_path / "empty"], "has no features.json"),
        ([model_folder], "keeps no features"),
        ([tmp_path / "f", "--head", "mlp"], "trained in steps"),
        ([tmp_path / "f", "--cut", "nowhere"], "nowhere"),
        ([tmp_path / "f", "--group-by", "exif"], "not kept"),
    ):
        status, _, err = run("merge", *arguments, "-o", tmp_path / "model")
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err
    status, _, err = run("fit", tmp_path / "f", "-o", tmp_path / "model")
    assert (status, "headstart merge" in err) == (2, True)
    (tmp_path / "f" / "mine.txt").write_text("mine")
    status, _, err = run("embed", data / "train", "-o", tmp_path / "f", *COMMON)
    assert (status, "holds other files" in err) == (2, True)


def test_images_without_a_label_and_of_a_test_split_are_kept_but_not_fitted_to(data, tmp_path):
    dataset = hs.open_dataset(data)
    items = [*dataset.items]
    items[1] = replace(items[1], label=None)
    items[2] = replace(items[2], split="test")
    embed_to_folder(replace(dataset, items=tuple(items)), tmp_path / "f", OPTIONS)
    features = merge_parts([tmp_path / "f"])
    assert len(features.rows) == len(items)
    result = fit_features(features, OPTIONS)
    reasons = {reason for _, reason in result.left_out}
    assert {"without a label", "for tests, not for a fit"} <= reasons


def test_groups_that_a_column_names_are_kept(data, tmp_path):
    shutil.copytree(data / "train", tmp_path / "train")
    rows = ["path,label,site"]
    for i, path in enumerate(sorted((tmp_path / "train").rglob("*.jpg"))):
        rows.append(f"{path.relative_to(tmp_path)},{path.parent.name},site {i % 5}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    options = hs.FitOptions("headstart-s", group_by="site", compute=OPTIONS.compute)
    dataset = hs.open_dataset(tmp_path / "labels.csv", hs.data.ReadOptions(group_column="site"))
    embed_to_folder(dataset, tmp_path / "f", options)
    merged = fit_features(merge_parts([tmp_path / "f"]), options)
    fitted = hs.fit_dataset(dataset, options, keep_features=True)
    assert merged.model.graph == fitted.model.graph
    assert merged.model.run["groups"] == fitted.model.run["groups"]
    assert merged.model.run["groups"]["method"] == "column"
    embed_to_folder(hs.open_dataset(data), tmp_path / "g", OPTIONS)
    unnamed = merge_parts([tmp_path / "g"])
    with pytest.raises(OptionError, match="no column"):
        fit_features(unnamed, options)


@pytest.mark.slow
def test_a_hundred_parts_of_real_images_give_the_model_of_one_fit(shared, tmp_path):
    dataset = hs.open_dataset(shared / "data" / "ants-bees")
    options = hs.FitOptions(compute=OPTIONS.compute)
    hs.fit_dataset(dataset, options, keep_features=True).save(tmp_path / "whole")
    order = np.random.default_rng(0).permutation(len(dataset))
    for count in (7, 100):
        parts = [tmp_path / f"{count}-{i}" for i in range(count)]
        for i, part in enumerate(parts):
            embed_to_folder(dataset.select(order[i::count].tolist()), part, options, shard_images=50)
        fit_features(merge_parts(parts[::-1]), options).save(tmp_path / f"merged-{count}")
        assert contents(tmp_path / f"merged-{count}") == contents(tmp_path / "whole")


def test_kept_features_are_not_replaced_by_a_model_without(run, data, tmp_path):
    model = tmp_path / "model"
    assert run("fit", data, "-o", model, *COMMON, "--keep-features", "--no-report")[0] == 0
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    status, out, err = run("fit", data, "-o", model, *COMMON, "--no-report")
    assert (status, out) == (2, "")
    assert err.startswith(f"headstart: {model} keeps the features of its images")
    with pytest.raises(OptionError, match="keeps the features of its images"):
        hs.ImageClassifier("headstart-s").fit(data).save(model)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert run("fit", data, "-o", model, *COMMON, "--no-report", "--overwrite")[0] == 0
    assert not (model / "features").exists()


def test_a_share_is_not_held_out_beside_validation_images(run, data, tmp_path):
    embed_to_folder(hs.open_dataset(data), tmp_path / "rows", OPTIONS)
    status, _, err = run("merge", tmp_path / "rows", "-o", tmp_path / "model", "--validation", "0.3")
    assert status == 2
    assert "has 8 validation images of its own; leave out the share --validation 0.3" in err
    assert not (tmp_path / "model").exists()
    embed_to_folder(hs.open_dataset(data / "train"), tmp_path / "training", OPTIONS)
    status, _, err = run("merge", tmp_path / "training", "-o", tmp_path / "model", "--validation", "0.3")
    assert status == 0, err
