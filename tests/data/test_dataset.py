"""Datasets from lists, and selecting from and concatenating any datasets."""

import numpy as np
import pytest
from helpers.photos import write_photos

from headstart.data import as_dataset, concatenate, from_images, open_dataset
from headstart.errors import DataError


@pytest.fixture
def dataset(tmp_path):
    write_photos(tmp_path / "train", 3)
    write_photos(tmp_path / "validation", 2, seed=1)
    return open_dataset(tmp_path)


def contents(dataset):
    return [dataset.read(i) for i in range(len(dataset))]


def test_lists_of_paths_bytes_and_arrays(tmp_path):
    path = next(write_photos(tmp_path, 1).rglob("*.jpg"))
    array = np.zeros((4, 5, 3), np.uint8)
    dataset = from_images([str(path), path, path.read_bytes(), array], ["a", "b", "3", "a"], [1, 1, 2, 2])
    assert dataset.classes == ("3", "a", "b")
    assert [item.group for item in dataset.items] == ["1", "1", "2", "2"]
    assert dataset.read(0) == dataset.read(1) == dataset.read(2) == path.read_bytes()
    assert dataset.read(3) is array


def test_lists_of_unequal_lengths_and_single_images_are_refused():
    with pytest.raises(DataError, match="2 images but 1 labels"):
        from_images(["a", "b"], ["x"])
    with pytest.raises(DataError, match="2 images but 3 groups"):
        from_images(["a", "b"], ["x", "y"], [1, 2, 3])
    with pytest.raises(DataError, match="list of images"):
        from_images("a.jpg")


def test_select_keeps_order_and_classes(dataset):
    selected = dataset.select([9, 0, 4])
    assert contents(selected) == [dataset.read(9), dataset.read(0), dataset.read(4)]
    assert selected.classes == dataset.classes


def test_with_split_changes_nothing_but_the_split(dataset):
    test = dataset.with_split("test")
    assert test.splits == ("test",)
    assert contents(test) == contents(dataset)
    assert [(item.path, item.label) for item in test.items] == [(item.path, item.label) for item in dataset.items]
    assert dataset.splits == ("train", "validation")


def test_concatenate_reads_both_in_order(dataset):
    train, validation = dataset.split("train"), dataset.split("validation")
    both = concatenate(validation, train)
    assert contents(both) == [*contents(validation), *contents(train)]
    selected = both.select([9, 0, 4])
    assert contents(selected) == [both.read(9), both.read(0), both.read(4)]
    assert selected.classes == dataset.classes


def test_datasets_from_several_sources_are_concatenated(dataset):
    first = from_images([b"a", b"b"], [10, 2])
    second = from_images([b"c"], ["z"]).with_split("validation")
    both = concatenate(concatenate(first.select([1]), second), dataset.split("train"))
    assert contents(both) == [b"b", b"c", *contents(dataset.split("train"))]
    assert both.classes == ("2", "10", "z", "disc", "stripes")
    assert [item.split for item in both.items] == ["train", "validation"] + ["train"] * 6
    empty = first.select([])
    assert contents(concatenate(empty, second)) == contents(concatenate(second, empty)) == [b"c"]


def test_skipped_files_of_one_source_are_counted_once(tmp_path):
    for name in ("first", "second"):
        write_photos(tmp_path / name, 1)
        (tmp_path / name / "disc" / "notes.txt").write_text("x")
    first, second = open_dataset(tmp_path / "first"), open_dataset(tmp_path / "second")
    assert concatenate(first, first).skip_counts == {"not an image": 1}
    assert concatenate(first, second).skip_counts == {"not an image": 2}


def test_a_missing_label_is_refused_instead_of_a_class_named_none():
    with pytest.raises(DataError, match=r"Image 1 has no label \(None\)"):
        from_images([b"a", b"b"], ["cat", None])


@pytest.mark.parametrize(("labels", "groups"), [([0, 1], None), (None, ["a", "b"])])
@pytest.mark.parametrize("opened", [False, True])
def test_labels_and_groups_beside_a_dataset_are_refused(tmp_path, labels, groups, opened):
    """They were ignored, and a fit ended with a KeyError."""
    folder = write_photos(tmp_path, 1)
    with pytest.raises(DataError, match=r"A dataset has its own labels and groups; leave (y|groups) out"):
        as_dataset(open_dataset(folder) if opened else str(folder), labels, groups)


def test_rows_of_pixels_are_said_to_be_one_image():
    with pytest.raises(DataError, match=r"got a single one; .*reshape it to \[n, height, width\]"):
        as_dataset(np.zeros((20, 784), np.uint8), [0, 1] * 10)
    with pytest.raises(DataError, match=r"got a single one; put it in a list\.$"):
        as_dataset(np.zeros((20, 20, 3), np.uint8))
