"""Classes and splits from the names of folders."""

import unicodedata
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.data import open_dataset


def test_class_folders(tmp_path):
    dataset = open_dataset(write_photos(tmp_path / "d", 3))
    assert len(dataset) == 6
    assert dataset.classes == ("disc", "stripes")
    assert dataset.splits == ("train",)
    assert dataset.read(0) == Path(dataset.items[0].path).read_bytes()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("VALIDATION", "validation"),
        ("test", "test"),
        ("testing", "test"),
    ],
)
def test_split_folders_in_any_case(tmp_path, name, split):
    write_photos(tmp_path / "d" / name, 1)
    assert open_dataset(tmp_path / "d").splits == (split,)


def test_all_splits_have_the_same_classes(tmp_path):
    write_photos(tmp_path / "train", 2, ("ant", "bee", "cat"))
    write_photos(tmp_path / "val", 2, ("bee", "cat"))
    dataset = open_dataset(tmp_path)
    validation = dataset.split("validation")
    assert dataset.classes == ("ant", "bee", "cat")
    assert validation.classes == dataset.classes
    assert {item.label for item in validation.items} == {"bee", "cat"}


def test_wrapping_folders_are_ignored_and_nested_ones_belong_to_their_class(tmp_path):
    write_photos(tmp_path / "download" / "flower_photos", 2)
    nested = tmp_path / "download" / "flower_photos" / "disc" / "2019" / "may"
    nested.mkdir(parents=True)
    (tmp_path / "download" / "flower_photos" / "disc" / "000.jpg").rename(nested / "000.jpg")
    dataset = open_dataset(tmp_path / "download")
    assert dataset.classes == ("disc", "stripes")
    assert len(dataset) == 4


def test_hidden_files_and_other_files_are_counted(tmp_path):
    write_photos(tmp_path / "train", 3)
    write_photos(tmp_path / "validation", 2, seed=1)
    for name in (".DS_Store", "train/disc/.hidden.jpg", "train/disc/notes.txt", "__MACOSX/disc/a.jpg", "lonely.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 10
    assert dataset.skipped == {"hidden": 3, "not an image": 1, "no class folder": 1}


def test_names_in_two_unicode_forms_are_one_class(tmp_path):
    write_photos(tmp_path / "train", 1, (unicodedata.normalize("NFC", "é"), "馬"))
    write_photos(tmp_path / "val", 1, (unicodedata.normalize("NFD", "é"), "馬"))
    assert open_dataset(tmp_path).classes == ("é", "馬")


def test_images_without_class_folders_are_unlabelled(tmp_path):
    write_photos(tmp_path, 2)
    dataset = open_dataset(tmp_path / "disc")
    assert len(dataset) == 2
    assert dataset.classes == ()
    assert dataset.items[0].label is None
