"""The rendered sample: reproducible, no figure in both splits, and classes that colours and sizes do not reveal."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from headstart.data.rendered import render
from headstart.errors import OptionError
from headstart.images.decoding import decode


def hashes(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "set"
    assert render("horses-or-humans", folder, train=24, validation=10, workers=1) == 34
    return folder


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(small, tmp_path):
    render("horses-or-humans", tmp_path / "two", train=24, validation=10, workers=2)
    assert hashes(tmp_path / "two") == hashes(small)
    render("horses-or-humans", tmp_path / "seed", train=24, validation=10, seed=1)
    assert not set(hashes(tmp_path / "seed").values()) & set(hashes(small).values())


def test_half_of_each_class_and_no_figure_in_both_splits(small):
    figures = {}
    for split, count in (("train", 24), ("validation", 10)):
        names = [p.stem for p in (small / split).rglob("*.jpg")]
        assert len(names) == count
        assert sum(name.startswith("horse") for name in names) == count // 2
        figures[split] = {name.split("-")[0] for name in names}
        assert len(figures[split]) < len(names)  # several images show one figure
    assert not figures["train"] & figures["validation"]


def test_images_have_contrast_and_the_documented_sizes(small):
    sizes = set()
    for p in small.rglob("*.jpg"):
        pixels = decode(p.read_bytes())
        assert min(pixels.shape[:2]) >= 160
        assert max(pixels.shape[:2]) <= 300
        assert pixels.std() > 8
        sizes.add(pixels.shape)
    assert len(sizes) > 10


@pytest.mark.parametrize(
    "options", [{"name": "cats"}, {"train": 1}, {"train": -5}, {"validation": -1}, {"seed": -1}, {"seed": 2**40}]
)
def test_invalid_options_are_refused(tmp_path, options):
    with pytest.raises(OptionError):
        render(**({"name": "horses-or-humans", "folder": tmp_path / "x"} | options))
    assert not (tmp_path / "x").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OptionError, match="not an empty folder"):
        render("horses-or-humans", tmp_path)


@pytest.mark.slow
def test_neither_colours_nor_size_nor_brightness_reveal_the_class(tmp_path):
    from sklearn.ensemble import RandomForestClassifier

    render("horses-or-humans", tmp_path / "set", train=500, validation=200)

    def read(split):
        histograms = []
        statistics = []
        labels = []
        for p in sorted((tmp_path / "set" / split).rglob("*.jpg")):
            with Image.open(p) as image:
                pixels = np.asarray(image.convert("RGB"))
            bins = (pixels // 32).astype(int) @ [64, 8, 1]
            histograms.append(np.sqrt(np.bincount(bins.ravel(), minlength=512) / bins.size))
            statistics.append([*pixels.shape[:2], pixels.mean(), pixels.std(), len(p.read_bytes())])
            labels.append(p.parent.name)
        return np.array(histograms), np.array(statistics), labels

    train, validation = read("train"), read("validation")
    for kind in (0, 1):
        forest = RandomForestClassifier(300, random_state=0).fit(train[kind], train[2])
        assert forest.score(validation[kind], validation[2]) < 0.75
