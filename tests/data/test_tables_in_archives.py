"""A table inside an archive is read as in the folder of the same files."""

import tarfile

import fsspec
import pytest
from helpers.archives import write_zip

from headstart.data import ReadOptions, open_dataset
from headstart.errors import DataError, ImageError

LAYOUTS = {
    "a table beside a folder": {
        "train.csv": "id,species,fold\nb,ant,1\na,bee,2\nc,,3\nnone,bee,4\n",
        **{f"images/{name}.jpg": name for name in "abc"},
    },
    "the Hub's metadata": {
        "metadata.csv": "file_name,label\nb.jpg,ant\na.jpg,bee\n",
        **{f"{name}.jpg": name for name in "ab"},
    },
    "metadata of each split": {
        "train/metadata.jsonl": '{"file_name": "b.jpg", "label": "ant"}\n{"file_name": "a.jpg", "label": "bee"}\n',
        "test/metadata.jsonl": '{"file_name": "a.jpg", "label": "bee"}\n',
        "train/a.jpg": "train a",
        "train/b.jpg": "train b",
        "test/a.jpg": "test a",
    },
    "a wrapping folder, and what systems leave": {
        "photos/labels.csv": "path;label;split\nx\\b.jpg;ant;train\nx/a.jpg;bee;val\n",
        "photos/x/a.jpg": "a",
        "photos/x/b.jpg": "b",
        "__MACOSX/photos/x/._a.jpg": "left",
        ".DS_Store": "left",
    },
    "one-hot columns and names in another case": {
        "_classes.csv": "filename, ant, bee\nA.JPG, 1, 0\nsub/b.jpg, 0, 1\n",
        "a.jpg": "a",
        "sub/b.jpg": "b",
    },
    "class folders, and a table that does not count": {
        "metadata.csv": "file_name,label\nants/a.jpg,x\n",
        "ants/a.jpg": "a",
        "bees/b.jpg": "b",
    },
}


@pytest.fixture(params=LAYOUTS)
def folder(request, tmp_path):
    for name, content in LAYOUTS[request.param].items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return tmp_path / "data"


def archived(folder, kind):
    path = folder.parent / f"data.{kind}"
    if kind == "zip":
        return write_zip(folder, path)
    with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as archive:
        archive.add(folder, ".")
    return path


def facts(dataset):
    def inner(path):
        return path.removeprefix(dataset.uri).removeprefix("/")

    def content(i):
        try:
            return dataset.read(i)
        except ImageError:
            return "missing"

    items = [(inner(item.path), item.label, item.split, item.group, content(i)) for i, item in enumerate(dataset.items)]
    return items, dataset.classes, dataset.layout


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_an_archive_is_read_as_its_folder(folder, kind):
    assert facts(open_dataset(archived(folder, kind))) == facts(open_dataset(folder))


def test_a_folder_behind_an_address_is_read_as_well(folder):
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/data/{path.relative_to(folder).as_posix()}", path.read_bytes())
    assert facts(open_dataset("memory://data")) == facts(open_dataset(folder))
    memory.store.clear()


def write_data(folder, table):
    (folder / "data").mkdir()
    (folder / "data" / "a.jpg").write_text("a")
    (folder / "data" / "metadata.csv").write_text(table)
    return write_zip(folder / "data", folder / "data.zip")


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd.jpg", "x/../../a.jpg", "C:\\a.jpg", "..\\a.jpg"])
def test_paths_outside_the_archive_are_refused(tmp_path, path):
    with pytest.raises(DataError, match=r"data\.zip/metadata\.csv, row 2: .* is outside the table's folder"):
        open_dataset(write_data(tmp_path, f"path,label\n{path},x\n"))


def test_files_beside_the_archive_are_not_members(tmp_path, monkeypatch):
    (tmp_path / "b.jpg").write_text("secret")
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(write_data(tmp_path, "path,label\nb.jpg,x\na.jpg,y\n"))
    with pytest.raises(ImageError, match="No such file in the archive"):
        dataset.read(0)
    assert dataset.read(1) == b"a"


def test_columns_are_named_and_a_bad_table_is_an_error_that_names_it(tmp_path):
    path = write_data(tmp_path, "photo_of,what\na.jpg,x\n")
    dataset = open_dataset(path, ReadOptions(path_column="photo_of", label_column="what"))
    assert [(item.path, item.label) for item in dataset.items] == [(f"{path}/a.jpg", "x")]
    (tmp_path / "more").mkdir()
    with pytest.raises(DataError, match=r"data\.zip/metadata\.csv cannot be read"):
        open_dataset(write_data(tmp_path / "more", 'path,label\n"a.jpg,x\n'))


def test_an_archive_for_each_split_with_a_table_in_it(tmp_path):
    for split, label in (("train", "ant"), ("validation", "bee")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_text(split)
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\na.jpg,{label}\n")
        (tmp_path / "archives").mkdir(exist_ok=True)
        write_zip(tmp_path / split, tmp_path / "archives" / f"{split}.zip")
    dataset = open_dataset(tmp_path / "archives")
    assert [(item.label, item.split, dataset.read(i)) for i, item in enumerate(dataset.items)] == [
        ("ant", "train", b"train"),
        ("bee", "validation", b"validation"),
    ]
