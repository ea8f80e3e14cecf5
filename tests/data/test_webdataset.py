"""Archives in the form of WebDataset, also hostile ones."""

import io
import tarfile

import pytest
from helpers.photos import write_photos

from headstart.data import ReadOptions, open_dataset
from headstart.errors import DataError


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> bytes:
    return (write_photos(tmp_path_factory.mktemp("one"), 1) / "disc" / "000.jpg").read_bytes()


@pytest.fixture
def archive(tmp_path):
    def write(files: dict[str, bytes]) -> str:
        with tarfile.open(tmp_path / "x.tar", "w") as stream:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                stream.addfile(member, io.BytesIO(data))
        return str(tmp_path / "x.tar")

    return write


def test_labels_lie_beside_the_images(archive, photo):
    uri = archive(
        {
            "a/1.jpg": photo,
            "a/1.cls": b"bee \n",
            "a/2.input.jpg": photo,
            "a/2.json": b'{"class_name": "ant", "scene": 5, "split": "test", "more": {"x": [1]}}',
            "readme.txt": b"",
        }
    )

    dataset = open_dataset(uri)

    assert dataset.layout == "WebDataset"
    assert dataset.classes == ("ant", "bee")
    assert [(item.path, item.label, item.split, item.group) for item in dataset.items] == [
        (f"{uri}/a/1.jpg", "bee", "train", None),
        (f"{uri}/a/2.input.jpg", "ant", "test", "5"),
    ]
    assert dataset.read(0) == dataset.read(1) == photo


@pytest.mark.parametrize("bad", [b"[" * 50_000, b"{", b'{"label": null}', b"7", b'{"label":"' + b"x" * 70_000])
def test_an_image_whose_json_says_nothing_is_skipped(bad, archive, photo):
    dataset = open_dataset(archive({"1.jpg": photo, "1.json": bad, "2.jpg": photo, "2.cls": b"ant"}))

    assert [item.label for item in dataset.items] == ["ant"]
    assert [one.reason for one in dataset.skipped] == ["no label"]


def test_a_layout_that_is_asked_for_counts(archive, photo):
    uri = archive({"ants/1.jpg": photo, "ants/1.cls": b"7", "bees/2.jpg": photo, "bees/2.cls": b"8"})

    assert open_dataset(uri).classes == ("7", "8")
    assert open_dataset(uri, ReadOptions(layout="class/image")).classes == ("ants", "bees")


def test_where_no_image_has_a_label_it_is_said(archive, photo):
    with pytest.raises(DataError, match=r"names an image and its label \(1 no label"):
        open_dataset(archive({"1.jpg": photo, "1.json": b"{}"}))


def test_json_beside_the_images_of_class_folders_is_not_their_label(archive, photo):
    """What downloaders note of an image became its class, or one such file left all images without a class."""
    names = [f"{folder}/{i}" for folder in ("ants", "bees") for i in range(2)]
    notes = {f"{name}.json": b'{"name": "seen", "label": "on Monday"}' for name in names}
    dataset = open_dataset(archive({**{f"{name}.jpg": photo for name in names}, **notes}))
    assert dataset.layout == "class/image"
    assert [item.label for item in dataset.items] == ["ants", "ants", "bees", "bees"]
    flat = {
        f"shard/{i}.{kind}": data for i in range(2) for kind, data in (("jpg", photo), ("json", b'{"label": "ant"}'))
    }
    assert open_dataset(archive(flat)).layout == "WebDataset"


@pytest.mark.parametrize("folders", [("00000", "00001"), ("train/00", "train/01")])
def test_folders_that_are_numbered_are_shards_and_no_classes(archive, photo, folders):
    files = {}
    for folder, label in zip(folders, (b"ant", b"bee"), strict=True):
        files |= {f"{folder}/1.jpg": photo + label, f"{folder}/1.json": b'{"label": "%s"}' % label}
    dataset = open_dataset(archive(files))
    assert (dataset.layout, dataset.classes) == ("WebDataset", ("ant", "bee"))


def test_json_beside_the_images_of_class_folders_in_a_folder_is_not_read(archive, photo):
    files = {f"data/{name}/1.{ending}": photo for name in ("ant", "bee") for ending in ("jpg", "json")}
    assert open_dataset(archive(files)).classes == ("ant", "bee")
