"""Local folders, and paths that are not a dataset."""

import os
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.data import open_dataset, reading
from headstart.errors import DataError, ImageError


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "data" / "train", 3)
    write_photos(tmp_path / "data" / "validation", 2, seed=1)
    return tmp_path / "data"


def test_the_error_for_a_path_that_is_not_a_dataset_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="it is empty"):
        open_dataset(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="1 not an image"):
        open_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"did you mean .*images"):
        open_dataset(tmp_path / "image")
    with pytest.raises(DataError, match="not a dataset"):
        open_dataset(tmp_path / "a.txt")


def test_links_are_followed_only_inside_the_folder(folder, tmp_path):
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    (folder / "train" / "disc" / "stolen.jpg").symlink_to(outside)
    (folder / "train" / "disc" / "up").symlink_to(tmp_path)
    (folder / "train" / "disc" / "circle").symlink_to(folder / "train" / "disc")
    (folder / "train" / "disc" / "inside.jpg").symlink_to(folder / "train" / "disc" / "000.jpg")
    (folder / "train" / "disc" / "broken.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "train" / "disc" / "itself.jpg").symlink_to("itself.jpg")
    (folder / "train" / "disc" / "itself").symlink_to("itself")
    dataset = open_dataset(folder)
    names = [Path(item.path).name for item in dataset.items]
    assert "stolen.jpg" not in names
    assert "inside.jpg" in names
    assert "secret.jpg" not in names
    assert len(dataset) == 11
    assert dataset.skip_counts["link that leaves the folder"] == 2
    assert dataset.skip_counts["link to a folder that is read anyway"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX")
def test_a_pipe_is_skipped(folder):
    os.mkfifo(folder / "train" / "disc" / "pipe.jpg")
    assert open_dataset(folder).skip_counts["not a file"] == 1


def test_a_file_larger_than_the_limit_is_refused_when_read(folder, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="more bytes"):
        open_dataset(folder).read(0)


def test_the_reference_images(shared):
    horses = open_dataset(shared / "data" / "horse-or-human")
    assert (len(horses.split("train")), len(horses.split("validation"))) == (1027, 256)
    assert horses.classes == ("horses", "humans")
    ants = open_dataset(shared / "data" / "ants-bees")
    assert ants.splits == ("train", "validation")
    assert ants.classes == ("ants", "bees")
