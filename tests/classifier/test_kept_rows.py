"""Models that keep rows: what they are depends on the images alone, and no image is in them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.photos import write_photos

import headstart as hs
from headstart.classifier.kept_rows import embedded_from, usable_rows
from headstart.classifier.refit import fit_features, options_from_dict, options_to_dict
from headstart.classifier.rendered_golden import rendered_images
from headstart.data import from_images
from headstart.errors import ImageError, OptionError
from headstart.features.rows import Rows, joined
from headstart.features.rows_folder import read_rows
from headstart.model.folder import read_model

OPTIONS = hs.FitOptions("headstart-s", compute=hs.Compute("onnxruntime"))
FILES = ("model.onnx", "head.safetensors", "config.json")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The images of a model that keeps its rows, and its folder. Read only."""
    folder = tmp_path_factory.mktemp("kept")
    write_photos(folder / "photos" / "train", 8)
    write_photos(folder / "photos" / "validation", 4, seed=1)
    result = hs.fit_dataset(hs.open_dataset(folder / "photos"), replace(OPTIONS, cache=False), keep_features=True)
    result.save(folder / "model")
    return folder / "photos", folder / "model"


def contents(model):
    return {name: (model / name).read_bytes() for name in FILES}


def test_the_same_images_under_other_names_give_the_same_bytes(kept, tmp_path):
    photos, model = kept
    for split in ("train", "validation"):
        for folder in (photos / split).iterdir():
            (tmp_path / "other" / split / folder.name).mkdir(parents=True)
            for i, path in enumerate(sorted(folder.iterdir(), reverse=True)):
                shutil.copy(path, tmp_path / "other" / split / folder.name / f"{i:03}.jpg")
    result = hs.fit_dataset(hs.open_dataset(tmp_path / "other"), OPTIONS, keep_features=True)
    result.save(tmp_path / "model")
    assert contents(tmp_path / "model") == contents(model)


def test_rows_alone_give_the_same_bytes(kept, tmp_path):
    _, model = kept
    run = read_model(model).run
    options, settings = options_from_dict(run["options"], run["classes"], hs.Compute("onnxruntime"))
    result = fit_features(read_rows(model / "features"), options, settings)
    result.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(model)
    again = read_model(tmp_path / "again").run
    assert {key: again[key] for key in ("options", "classes", "groups", "metrics")} == {
        key: run[key] for key in ("options", "classes", "groups", "metrics")
    }
    with pytest.raises(ImageError, match="features alone"):
        result.data.dataset.read(0)


def test_the_golden_sample_is_rendered_and_verifies(kept):
    _, model = kept
    loaded = read_model(model)
    first = loaded.preprocess(rendered_images().read(0))
    np.testing.assert_array_equal(loaded.golden.pixels[0], first)
    assert hs.Predictor.load(model, hs.Compute("onnxruntime")).verify().images == 8
    plain = hs.fit_dataset(hs.open_dataset(kept[0]), OPTIONS).model
    assert not (plain.golden.pixels == loaded.golden.pixels).all()
    assert plain.accuracy["validation"] == loaded.accuracy["validation"]


def test_the_folder_is_replaced_and_the_rows_go_with_it(kept, tmp_path):
    shutil.copytree(kept[1], tmp_path / "model")
    hs.fit_dataset(hs.open_dataset(kept[0]), OPTIONS).save(tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model" / "features").exists()
    (tmp_path / "model" / "features").mkdir()
    (tmp_path / "model" / "features" / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="also holds features"):
        hs.fit_dataset(hs.open_dataset(kept[0]), OPTIONS).save(tmp_path / "model", overwrite=True)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"head": "mlp"}, "trained in steps"),
        ({"views": 2}, "leave --views out"),
        ({"group_by": "exif"}, "times at which"),
    ],
)
def test_what_rows_cannot_repeat_is_refused_before_the_work(kept, options, why):
    with pytest.raises(OptionError, match=why):
        hs.fit_dataset(hs.open_dataset(kept[0]), replace(OPTIONS, **options), keep_features=True)


def test_class_settings_are_repeated():
    options = replace(OPTIONS, cut=("a", "b"), seed=3, validation=0.25, model_version="1", coverage=0.9)
    settings = replace(options, thresholds={"cat": 0.2}, class_weight={"cat": 1.0, "dog": 2.0}).class_settings(
        from_images(["c.jpg", "d.jpg"], ["cat", "dog"])
    )
    again, read = options_from_dict(options_to_dict(options, settings), ["cat", "dog"], options.compute)
    assert (again.cut, again.seed, again.validation, again.model_version) == (("a", "b"), 3, 0.25, "1")
    assert read == settings
    _, smaller = options_from_dict(options_to_dict(options, settings), ["dog"], options.compute)
    assert (smaller.weights, smaller.thresholds) == ({"dog": 2.0}, None)


def rows_of_texts(*rows):
    """Rows [n] of (content, path, label, split)."""
    count = len(rows)
    hashes = np.zeros((count, 32), np.uint8)
    hashes[:, 0] = [row[0] for row in rows]
    return Rows(
        hashes,
        tuple(row[1] for row in rows),
        tuple(row[2] for row in rows),
        tuple(row[3] for row in rows),
        (None,) * count,
        ("",) * count,
        np.zeros((count, 768), np.uint8),
        np.zeros((count, 4), np.float32),
        {"features": np.arange(count, dtype=np.int16)[:, None]},
    )


def test_an_image_counts_once_and_a_contradiction_not_at_all():
    rows = rows_of_texts(
        (1, "a", "cat", "train"),
        (1, "b", "cat", "train"),
        (2, "c", "cat", "train"),
        (2, "d", "dog", "train"),
        (3, "e", "dog", "train"),
        (3, "f", "dog", "validation"),
        (4, "g", None, "train"),
        (5, "h", "dog", "test"),
        (6, "i", "dog", "train"),
    )
    kept, left_out = usable_rows(rows)
    assert [rows.paths[i] for i in kept] == ["a", "i"]
    assert [(item.path, item.reason) for item in left_out] == [
        ("h", "for tests, not for a fit"),
        ("b", "the same image as another one"),
        ("e", "the same image in training and validation"),
        ("f", "the same image in training and validation"),
        ("c", "the same image with another label"),
        ("d", "the same image with another label"),
        ("g", "without a label"),
    ]


def test_what_is_left_out_is_named_and_counted(kept):
    features = read_rows(kept[1] / "features")
    rows = features.rows
    labels = ("stripes" if rows.labels[0] != "stripes" else "dots", *rows.labels[1:])
    both = replace(features, rows=joined([rows, replace(rows, labels=labels)], 2 * len(rows)).in_order())
    embedded = embedded_from(both, OPTIONS)
    assert len(embedded.features.index) == len(rows) - 1
    assert "Left out: 2 images, the same image with another label; skipped.csv names them." in embedded.notes
