"""Classes and splits from the names of folders."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest
from helpers.photos import write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data import ReadOptions, open_dataset
from headstart.data.layout import split_name
from headstart.errors import DataError, OptionError


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


def test_texts_about_the_data_are_told_apart_from_files_that_might_have_been_images(tmp_path):
    write_photos(tmp_path, 2)
    expected = {"README.md": "about the data", "README.dataset.txt": "about the data", "LICENSE": "about the data"}
    expected |= {"disc/licence.txt": "about the data", "readme.psd": "not an image", "readers.md": "not an image"}
    for name in expected:
        (tmp_path / name).write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert {Path(item.path).relative_to(tmp_path).as_posix(): item.reason for item in dataset.skipped} == expected


def test_hidden_files_and_other_files_are_counted(tmp_path):
    write_photos(tmp_path / "train", 3)
    write_photos(tmp_path / "validation", 2, seed=1)
    for name in (".DS_Store", "train/disc/.hidden.jpg", "train/disc/notes.txt", "__MACOSX/disc/a.jpg", "lonely.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 10
    assert dataset.skip_counts == {"hidden": 2, "left by the system": 1, "not an image": 1, "no class folder": 1}
    assert {Path(item.path).relative_to(tmp_path).as_posix(): item.reason for item in dataset.skipped} == {
        ".DS_Store": "hidden",
        "train/disc/.hidden.jpg": "hidden",
        "train/disc/notes.txt": "not an image",
        "__MACOSX/disc/a.jpg": "left by the system",
        "lonely.jpg": "no class folder",
    }
    assert any("lonely.jpg" in note for note in dataset.notes)


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


def write_empty(root, names):
    """Write empty files: a listing looks at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(dataset):
    """The label and split of each image, by its path below the folder."""
    return {Path(item.path).relative_to(dataset.uri).as_posix(): (item.label, item.split) for item in dataset.items}


def test_a_flat_test_folder_beside_class_folders_is_not_a_class(tmp_path):
    """Kaggle's layout."""
    dataset = open_dataset(write_empty(tmp_path, ["ants/1.jpg", "bees/1.jpg", "test/1.jpg", "test/2.jpg"]))
    assert dataset.classes == ("ants", "bees")
    assert dataset.skip_counts == {"in test, without labels": 2}
    assert "2 images were skipped, in test, without labels" in dataset.notes[0]


def test_a_folder_beside_splits_is_not_a_class(tmp_path):
    names = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in ("ants", "bees")]
    dataset = open_dataset(write_empty(tmp_path, [*names, "figures/plot.png"]))
    assert dataset.classes == ("ants", "bees")
    assert dataset.splits == ("train", "validation")
    assert dataset.skip_counts == {"in figures, beside the splits": 1}


def test_a_class_named_like_a_split_stays_a_class_with_a_note(tmp_path):
    dataset = open_dataset(write_empty(tmp_path, ["bus/1.jpg", "car/1.jpg", "train/1.jpg", "train/2.jpg"]))
    assert dataset.classes == ("bus", "car", "train")
    assert "train was read as a class" in dataset.notes[0]
    nested = open_dataset(write_empty(tmp_path / "n", ["bus/2019/1.jpg", "car/2019/1.jpg", "train/2019/1.jpg"]))
    assert nested.classes == ("bus", "car", "train")
    other = open_dataset(tmp_path / "n", ReadOptions(layout="split/class/image"))
    assert other.classes == ("2019",)
    assert other.splits == ("train",)


def test_splits_inside_class_folders(tmp_path):
    names = [f"{name}/{split}/{i}.jpg" for name in ("ants", "bees") for split in ("train", "test") for i in range(2)]
    dataset = open_dataset(write_empty(tmp_path, names))
    assert dataset.layout == "class/split/image"
    assert found(dataset) == {name: (name.split("/")[0], name.split("/")[1]) for name in names}


def test_two_flat_splits_are_never_classes(tmp_path):
    with pytest.raises(DataError, match="is in a class folder"):
        open_dataset(write_empty(tmp_path, ["train/1.jpg", "val/1.jpg"]))


def test_names_that_look_alike_are_pointed_out(tmp_path):
    dataset = open_dataset(write_empty(tmp_path, ["train/Ants/1.jpg", "val/ants/1.jpg", "train/bees/1.jpg"]))
    assert dataset.classes == ("Ants", "ants", "bees")
    assert "The class names 'Ants' and 'ants' look alike" in dataset.notes[0]


def test_a_given_layout_is_obeyed_and_an_unknown_one_refused(tmp_path):
    root = write_empty(tmp_path, ["train/1.jpg", "val/1.jpg", "val/2.jpg"])
    assert open_dataset(root, ReadOptions(layout="class/image")).classes == ("train", "val")
    assert len(open_dataset(root, ReadOptions(layout="image"))) == 3
    with pytest.raises(OptionError, match="Unknown layout 'tree'; choose one of auto, class/image"):
        open_dataset(root, ReadOptions(layout="tree"))


def test_the_error_for_no_images_names_the_endings_found_and_read(tmp_path):
    with pytest.raises(DataError, match=r"endings found: \.dcm \(2\), none \(1\); endings read: .*\.jpg"):
        open_dataset(write_empty(tmp_path, ["a/1.dcm", "a/2.dcm", "b/notes"]))


@pytest.mark.parametrize("name", ["empty", "linked", "unreadable"])
def test_a_class_folder_that_is_skipped_is_named(tmp_path, name):
    root = write_empty(tmp_path / "data", ["ants/1.jpg", "bees/1.jpg"])
    wasps = root / "wasps"
    if name == "linked":
        write_empty(tmp_path / "elsewhere", ["1.jpg"])
        wasps.symlink_to(tmp_path / "elsewhere")
    else:
        wasps.mkdir()
    if name == "unreadable":
        write_empty(wasps, ["1.jpg"])
        wasps.chmod(0)
        if os.access(wasps, os.R_OK):
            pytest.skip("this user may read everything")
    dataset = open_dataset(root)
    assert dataset.classes == ("ants", "bees")
    assert str(wasps) in dataset.notes[0]
    assert [item.path for item in dataset.skipped] == [str(wasps)]
    if name == "linked":
        assert open_dataset(root, ReadOptions(follow_links=True)).classes == ("ants", "bees", "wasps")


def test_an_archive_for_each_class(tmp_path):
    """What Teachable Machine calls "download samples"; an archive may wrap its images in a folder of its name."""
    for label, folder in (("ants-samples", ""), ("bees", "bees/")):
        with zipfile.ZipFile(tmp_path / f"{label}.zip", "w") as archive:
            for i in range(3):
                archive.writestr(f"{folder}{i}.jpg", f"{label}{i}")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("ants", "bees")
    contents = {(item.label, Path(item.path).name): dataset.read(i) for i, item in enumerate(dataset.items)}
    assert contents[("ants", "2.jpg")] == b"ants-samples2"
    assert contents[("bees", "0.jpg")] == b"bees0"
    assert len(contents) == 6


NAMES = (
    st.text("abcdefghijklmnopqrstuvwxyzäöü馬 0123456789-", min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda name: name and not split_name(name) and not name.startswith("."))
)
SPLITS = {
    "train": ["train", "Training", "train_images"],
    "validation": ["val", "valid", "VALIDATION"],
    "test": ["test"],
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_layout_is_read_as_it_was_written(tmp_path_factory, data):
    """Against what was written: classes, splits, folders that wrap, folders below classes, files of systems."""
    classes = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=lambda name: name.casefold()))
    layout = data.draw(st.sampled_from(["class/image", "split/class/image", "class/split/image"]))
    splits = data.draw(st.sets(st.sampled_from(sorted(SPLITS)), min_size=1).map(sorted))
    split_folders = {split: data.draw(st.sampled_from(SPLITS[split])) for split in splits}
    wrapper = data.draw(st.sampled_from(["", "download/", "download/flower photos/"]))
    below = data.draw(st.sampled_from(["", "2019/", "2019/may/"]))
    expected = {}
    for label in classes:
        for split in splits if layout != "class/image" else ["train"]:
            parts = {"class": label, "split": split_folders.get(split, ""), "image": f"{below}1.jpg"}
            name = wrapper + "/".join(parts[part] for part in layout.split("/"))
            expected[name] = (unicodedata.normalize("NFC", label), split)
    root = tmp_path_factory.mktemp("layout")
    write_empty(root, [*expected, f"{wrapper}Thumbs.db", f"{wrapper}{classes[0]}/._1.jpg", f"{wrapper}notes.txt"])
    dataset = open_dataset(root)
    assert found(dataset) == expected
    assert dataset.layout == layout
    assert len(dataset.skipped) == 3


def test_a_folder_around_a_folder_of_its_name_is_ignored(tmp_path):
    """Unpacking train.zip makes train/train."""
    write_photos(tmp_path / "train" / "train", 2)
    write_photos(tmp_path / "test" / "test", 1)
    dataset = open_dataset(tmp_path)
    assert [(item.split, item.label) for item in dataset.split("test").items] == [("test", "disc"), ("test", "stripes")]
    assert len(dataset.split("train")) == 4
    assert dataset.classes == ("disc", "stripes")


def test_folders_that_hold_the_same_folders_are_named(tmp_path):
    """The names of splits in another language, or folds, were learned as classes without a word."""
    for name, count in (("seg_train", 2), ("seg_test", 1)):
        write_photos(tmp_path / name / name, count)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("seg_test", "seg_train")
    assert dataset.notes == (
        "seg_test, seg_train were read as classes, and hold the same folders (disc, stripes); if those are the "
        "classes, give one folder alone, or call the folders train, validation and test.",
    )
    assert open_dataset(tmp_path, ReadOptions(layout="class/image")).notes == ()


@pytest.mark.parametrize(("root", "of_split"), [("", ""), ("train", "train/")])
def test_class_folders_without_an_image_are_named(tmp_path, root, of_split):
    write_photos(tmp_path / root, 1)
    for name in ("film", "scan"):
        (tmp_path / root / name).mkdir()
        (tmp_path / root / name / "1.dcm").write_bytes(b"x")
    (tmp_path / root / "scan" / "2.mov").write_bytes(b"x")
    (tmp_path / root / "about").mkdir()
    (tmp_path / root / "about" / "README.md").write_bytes(b"x")
    files = "only files that are not read: .dcm (2), .mov (1)."
    assert open_dataset(tmp_path).notes == (f"No image is in {of_split}film, {of_split}scan, {files}",)


@pytest.mark.parametrize("name", ["No_Label", "masks", "unlabelled"])
def test_a_class_that_is_called_like_a_folder_that_is_none_is_named(tmp_path, name):
    notes = open_dataset(write_photos(tmp_path / "all", 1, ("ant", "bee", name))).notes
    assert [note for note in notes if note.startswith(f"Read as a class: {name}; if that is not one")]
    assert not open_dataset(write_photos(tmp_path / "one", 1, ("images",))).notes


def test_where_the_images_may_be_is_said(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"No images in .*; give .*photos\.zip itself\."):
        open_dataset(tmp_path)
    (tmp_path / "photos.zip").unlink()
    (tmp_path / "x.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"No images in .*; of \.npy: load it in Python"):
        open_dataset(tmp_path)
