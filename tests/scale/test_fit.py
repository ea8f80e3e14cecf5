"""``headstart fit --on``: the model of a fit by one process, whoever computes the features."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos
from typer.testing import CliRunner

from headstart.classifier import FitOptions, fit_sharded
from headstart.classifier.embed_sharded import Where, embed_sharded
from headstart.classifier.fit_sharded import unfinished_folder
from headstart.classifier.shown_images import shown_images
from headstart.cli import app
from headstart.data import ReadOptions, open_dataset
from headstart.errors import ImageError
from headstart.features import Compute
from headstart.features.extractor import content_hash
from headstart.features.rows import Rows

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'headstart[tables]'")
NOTHING = np.empty((0, 0), np.uint8)
EMPTY = Rows(NOTHING, (), (), (), (), (), NOTHING, NOTHING.astype(np.float32), {})
FIT = ("--backbone", "headstart-s", "--runtime", "onnxruntime")


def call(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), *FIT])
    return result.exit_code, result.output


def fit(*arguments):
    return call("fit", *arguments)


def contents(model):
    config = json.loads((model / "config.json").read_text("utf-8"))
    config.pop("date", None)  # a model that keeps features has none
    return (model / "model.onnx").read_bytes(), (model / "head.safetensors").read_bytes(), config


def report(model):
    """What a report holds of images, and not of the run."""
    value = json.loads((model / "report.json").read_text("utf-8"))
    return {name: value[name] for name in value if name not in ("seconds", "date")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 images for training, 8 for validation, one of which is damaged."""
    folder = tmp_path_factory.mktemp("fit") / "photos"
    write_photos(folder / "train", 12)
    write_photos(folder / "validation", 4, seed=1)
    (folder / "validation" / "disc" / "000.jpg").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    model = tmp_path_factory.mktemp("whole") / "model"
    status, output = fit(data, "-o", model, "--no-cache", "--keep-features")
    assert status == 0, output
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--on", "processes", "--workers", "1"),
        ("--on", "processes", "--workers", "2"),
        pytest.param(("--on", "ray", "--workers", "2"), marks=pytest.mark.ray),
    ],
)
def test_the_model_is_that_of_one_process(data, whole, more, tmp_path):
    if "ray" in more:
        pytest.importorskip("ray", reason="needs Ray: make scale installs it")
    status, output = fit(data, "-o", tmp_path / "model", *more)

    assert status == 0, output
    assert f"Report      {tmp_path / 'model' / 'report.html'}" in output
    assert "31 computed, 0 from the cache" in output
    assert contents(tmp_path / "model") == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}  # nothing is left of the features
    assert report(tmp_path / "model") == report(whole)
    run, expected = (json.loads((m / "run.json").read_text("utf-8")) for m in (tmp_path / "model", whole))
    for name in ("images", "groups", "classes", "accuracy", "candidates"):
        assert run[name] == expected[name], name


@pytest.mark.slow
def test_archives_are_fitted_to_and_features_kept(data, whole, tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in sorted(data.rglob("*.jpg"))[number::2]:
                archive.add(path, path.relative_to(data))
    status, output = fit(f"{tmp_path}/{{0..1}}.tar", "-o", tmp_path / "model", "--keep-features")

    assert status == 0, output
    assert contents(tmp_path / "model") == contents(whole)
    assert (tmp_path / "model" / "features" / "features.json").is_file()
    found, expected = report(tmp_path / "model"), report(whole)
    for name in ("evaluations", "projections", "sprite", "thumbnails", "activation_maps", "finding_counts"):
        assert found[name] == expected[name], name


@pytest.mark.slow
def test_archives_elsewhere_are_not_fetched_again_for_the_report(data, whole, tmp_path):
    for number in range(2):
        local = tmp_path / f"{number}.tar"
        with tarfile.open(local, "w") as archive:
            for path in sorted(data.rglob("*.jpg"))[number::2]:
                archive.add(path, path.relative_to(data))
    pattern = f"file://{tmp_path}/{{0..1}}.tar"
    status, output = fit(pattern, "-o", tmp_path / "model")

    assert status == 0, output
    assert "note: The archives are not fetched a second time for the report" in output
    found, expected = report(tmp_path / "model"), report(whole)
    assert (found["activation_maps"], found["thumbnails"]) == ([], {})
    assert found["maps_unavailable"] == "None of the images could be read again."
    assert found["evaluations"] == expected["evaluations"]
    assert len(found["sprite"]["jpeg"]) > 1000  # of the pixels that are kept


def test_an_image_is_shown_as_it_was_when_its_row_was_computed(data, tmp_path):
    photos = shutil.copytree(data, tmp_path / "photos")
    dataset = open_dataset(photos)
    paths = [item.path for item in dataset.items[:3]]
    hashes = [content_hash(dataset.read(i)) for i in range(3)]
    rows = replace(EMPTY, paths=tuple(paths), content_hashes=np.stack([np.frombuffer(h, np.uint8) for h in hashes]))
    read = shown_images(str(photos), ReadOptions(), dataset, rows)
    assert [content_hash(read(i)) for i in range(3)] == hashes
    Path(paths[1]).write_bytes(b"changed")
    with pytest.raises(ImageError, match="has changed since its features were computed"):
        read(1)
    Path(paths[2]).unlink()
    with pytest.raises(ImageError):
        read(2)
    with pytest.raises(ImageError, match="could not be read when its features were computed"):
        read(-1)
    with pytest.raises(ImageError, match="no longer there"):
        shown_images(str(photos), ReadOptions(), dataset, replace(rows, paths=("elsewhere.jpg",)))(0)


def test_an_image_of_a_pattern_is_read_from_its_archive(archives):
    pattern, _ = archives
    first = open_dataset(pattern.replace("{0..1}", "0"))
    path, content = first.items[2].path, content_hash(first.read(2))
    rows = replace(EMPTY, paths=(path, path), content_hashes=np.frombuffer(content * 2, np.uint8).reshape(2, 32))
    assert content_hash(shown_images(pattern, ReadOptions(), None, rows)(1)) == content
    for wrong, told in (("elsewhere/0.tar/disc/1.jpg", "of none of the archives"), ("{}/disc/1.jpg", "cannot be read")):
        rows = replace(rows, paths=(wrong.format(pattern.replace("{0..1}", "1")),) * 2)  # the second one is cut off
        with pytest.raises(ImageError, match=told):
            shown_images(pattern, ReadOptions(), None, rows)(0)


@pytest.mark.slow
def test_a_fit_that_failed_goes_on_from_its_features(data, tmp_path, monkeypatch):
    found = []

    def embed(*args, **kwargs):
        result = embed_sharded(*args, **kwargs)
        found.append((result.found, result.shards))
        return result

    monkeypatch.setattr(fit_sharded, "embed_sharded", embed)
    model = tmp_path / "model"
    status, output = fit(data, "-o", model, "--on", "processes", "--group-by", "name:no-such-name-{#}")
    assert status == 2, output
    assert f"What was computed is in {unfinished_folder(model)}" in output
    assert not model.exists()
    (unfinished_folder(model) / "features.json").unlink()  # as if the driver had been killed
    status, output = fit(data, "-o", model, "--on", "processes")

    assert status == 0, output
    assert found == [(0, found[0][1]), (found[0][1], found[0][1])]
    assert not unfinished_folder(model).exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--dry-run",), "leave --on and --address out"),
        (("--validation", "elsewhere"), "cannot be read by workers"),
        (("--head", "mlp"), "give another --head"),
        (("--views", "2"), "leave --views out"),
        (("--group-by", "exif"), "are not kept"),
        (("--target-recall", "0.9"), "leave it out"),
        (("--on", "pigeons"), "choose one of processes, ray"),
        (("--address", "auto"), "give --on ray too"),
    ],
)
def test_what_workers_cannot_do_is_refused_before_the_work(data, tmp_path, more, told):
    status, output = fit(data, "-o", tmp_path / "model", "--on", "processes", *more)

    assert status == 2
    assert told in output
    assert list(tmp_path.iterdir()) == []


def test_what_others_keep_where_features_would_be_is_neither_deleted_nor_called_ours(data, tmp_path):
    folder = unfinished_folder(tmp_path / "model")
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    status, output = fit(data, "-o", tmp_path / "model", "--on", "processes")
    assert status == 2
    told = "holds something else (thesis.txt); move that elsewhere, or give another name for the model"
    assert told in output.replace("\n", " ")
    assert "delete it" not in output
    assert [path.name for path in tmp_path.rglob("*")] == [folder.name, "thesis.txt"]


def test_a_link_where_features_would_be_is_not_written_through(data, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    unfinished_folder(tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    status, output = fit(data, "-o", tmp_path / "model", "--on", "processes")
    assert status == 2
    assert "is for the features of a fit that is not finished, and is something else" in output.replace("\n", " ")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_of_features_that_are_not_needed_any_more_nothing_else_is_deleted(tmp_path):
    folder = tmp_path / ".m.unfinished"
    (folder / ".headstart-x").mkdir(parents=True)
    names = ("features.json", f"{'a' * 32}.parquet", ".headstart-y", "thesis.txt", "b.parquet")
    for name in names:
        (folder / name).write_bytes(b"x")
    fit_sharded.forget_unfinished(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["b.parquet", "thesis.txt"]
    for name in ("b.parquet", "thesis.txt"):
        (folder / name).unlink()
    fit_sharded.forget_unfinished(folder)
    assert not folder.exists()


def test_a_model_of_a_pattern_needs_a_name():
    assert "give one: -o MODEL" in fit("shards/{0..1}.tar")[1]


@pytest.fixture
def archives(tmp_path):
    """Two archives of 12 images each; of the second one half is missing."""
    photos = sorted(write_photos(tmp_path / "photos", 12).rglob("*.jpg"))
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in photos[number::2]:
                archive.add(path, f"{path.parent.name}/{path.name}")
    whole = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[:700])
    return f"{tmp_path}/{{0..1}}.tar", whole


@pytest.mark.slow
def test_features_are_kept_while_shards_are_missing(archives, tmp_path):
    """What the note promises, that the same command tries the missing shards again, it does without the others."""
    pattern, whole = archives
    output = tmp_path / "made"
    status, printed = fit(pattern, "-o", output)
    assert status == 0, printed
    assert "1 of 2 shards are missing" in printed
    folder = unfinished_folder(output)
    assert f"note: What was computed is kept in {folder} until all shards are there" in printed
    (before,) = folder.glob("*.parquet")
    written = before.stat().st_mtime_ns

    (tmp_path / "1.tar").write_bytes(whole)
    monitored = fit_sharded.embed_sharded(
        pattern, folder, FitOptions("headstart-s", compute=Compute("onnxruntime")), ReadOptions(), Where("processes", 1)
    )
    assert (monitored.found, monitored.found_rows, monitored.rows, monitored.missing) == (1, 12, 24, 0)
    assert before.stat().st_mtime_ns == written
    status, printed = fit(pattern, "-o", output)
    assert status == 0, printed
    assert "missing" not in printed
    assert not folder.exists()
    assert "0 computed, 24 from the cache" in printed  # all shards were there


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--target-recall", "0.9"), "for several labels an image"),
        (("--validation", "0.3"), "has 8 validation images of its own; leave out the share --validation 0.3"),
        (("--costs", "nofile.csv"), "nofile.csv"),
        (("--threshold", "cube=0.3"), "no class is called 'cube'"),
        (("-o", "{other}"), "holds a model of other classes"),
    ],
)
def test_options_that_do_not_suit_the_data_are_refused_before_the_work(data, tmp_path, more, told):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"library_name": "headstart", "id2label": {"0": "cat", "1": "dog"}}', "utf-8")
    more = [text.format(other=other) for text in more]
    status, output = fit(data, "-o", tmp_path / "model", "--on", "processes", *more)

    assert status == 2
    assert told in output
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("option", ["--costs", "--class-weight"])
def test_of_a_pattern_files_of_classes_are_read_before_the_work(archives, tmp_path, option):
    status, output = fit(archives[0], "-o", tmp_path / "model", option, "nofile.csv")

    assert status == 2
    assert "nofile.csv" in output
    assert not unfinished_folder(tmp_path / "model").exists()


@pytest.mark.parametrize(("command", "more"), [("fit", ("--head", "lda")), ("embed", ("--statistics",))])
def test_what_several_labels_cannot_do_is_refused_before_the_work(data, tmp_path, command, more):
    paths = sorted(path.relative_to(data).as_posix() for path in (data / "train").rglob("*.jpg"))
    table = data / f"{command}.csv"
    table.write_text("\n".join(["path,labels", *(f"{path},round;small" for path in paths)]), "utf-8")
    status, output = call(command, table, "-o", tmp_path / "made", "--on", "processes", "--multi-label", *more)
    table.unlink()

    assert status == 2
    assert ("leave --head out" if command == "fit" else "needs one class an image") in output
    assert list(tmp_path.iterdir()) == []


def test_features_are_not_read_as_images(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "features.json").write_text("{}", "utf-8")
    status, output = fit(tmp_path / "rows", "-o", tmp_path / "model", "--on", "processes")

    assert status == 2
    assert f"headstart merge {tmp_path / 'rows'} -o MODEL" in output
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
