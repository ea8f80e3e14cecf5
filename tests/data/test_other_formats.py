"""What people bring that is not read: each is told what to do, and where the classes may be if there is one alone."""

import pytest
from helpers.photos import write_photos

from headstart.data import open_dataset
from headstart.data.other_formats import why_one_class
from headstart.errors import DataError


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("labels.xlsx", "save the sheet as CSV."),
        ("annotations.json", "write the labels as a CSV or JSON Lines table with a path and a label in each row"),
        ("photos.tar.zst", "unpack it, or pack it as zip or tar."),
        ("Photos.RAR", "unpack it, or pack it as zip or tar."),
        ("train.npz", r"give its images and labels to ImageClassifier\(\)\.fit\(images, labels\)\."),
        ("train-images-idx3-ubyte.gz", r"ImageClassifier\(\)\.fit"),
        ("cifar.pkl", "nothing is unpickled here"),
        ("brain.nii.gz", "in a window that shows the finding"),
        ("1.jpg", "it is an image: give the folder that it is in, or in Python a list of images"),
        ("notes.doc", "give a folder, a zip or tar archive, a table"),
    ],
)
def test_a_file_of_another_format_is_refused_with_what_to_do(tmp_path, name, mend):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"is not a dataset; .*{mend}"):
        open_dataset(tmp_path / name)


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    """A shell gives it for a variable that was never set."""
    monkeypatch.chdir(write_photos(tmp_path, 1))
    with pytest.raises(DataError, match="The name of the data is empty"):
        open_dataset("")


def test_of_one_class_it_is_said_where_the_classes_may_be(tmp_path):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "photos" / "disc" / "000.jpg").rename(tmp_path / "logo.jpg")  # so that photos/ does not wrap all images
    write_photos(tmp_path / "photos", 1)
    found = "it holds the folders disc, stripes: if these are the classes, give the folder above them"
    assert why_one_class(open_dataset(tmp_path)) == f"; {found}"


def test_of_one_class_files_that_may_hold_labels_are_named(tmp_path):
    write_photos(tmp_path, 2, ("images",))
    assert why_one_class(open_dataset(tmp_path)) == ""
    (tmp_path / "annotations").mkdir()
    for name in ("000", "001"):
        (tmp_path / "annotations" / f"{name}.xml").write_bytes(b"<annotation/>")
    why = why_one_class(open_dataset(tmp_path))
    assert why.startswith(f"; {tmp_path}/annotations/000.xml and 1 more like it may hold labels, which are not read")


def test_where_no_image_is_in_a_class_folder_what_may_hold_labels_is_named(tmp_path):
    write_photos(tmp_path / "images", 2, ("train", "val"))
    (tmp_path / "a.csv").write_text("id,label\n")
    (tmp_path / "b.csv").write_text("id,label\n")
    with pytest.raises(
        DataError, match=r"in a class folder; .*; if .*a\.csv says the labels, give that table itself\."
    ):
        open_dataset(tmp_path)
