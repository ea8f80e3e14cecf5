"""Folders, tables and archives behind URLs: queries, missing files, and every kind of table by HTTP."""

import json
import tarfile

import fsspec
import pytest
from helpers.archives import write_zip
from helpers.photos import write_photos
from helpers.servers import serving_folder

from headstart.data import open_dataset
from headstart.data.inputs import open_inputs
from headstart.errors import DataError, ImageError

ROWS = [
    {"path": "disc/000.jpg", "label": "disc", "split": "train", "scene": "a"},
    {"path": "disc/001.jpg", "label": "disc", "split": "val", "scene": "b"},
    {"path": "stripes/001.jpg", "label": "stripes", "split": "test", "scene": "b"},
]


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path, 2)
    columns = list(ROWS[0])
    lines = [columns, *([row[c] for c in columns] for row in ROWS)]
    (tmp_path / "t.csv").write_text("\n".join(",".join(line) for line in lines), "utf-8")
    (tmp_path / "t.tsv").write_text("\n".join("\t".join(line) for line in lines), "utf-8")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return tmp_path


@pytest.fixture
def server(folder):
    with serving_folder(folder) as address:
        yield address


@pytest.fixture
def memory():
    """The file system behind memory://, empty before and after a test."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def assert_rows(dataset, folder):
    assert [(i.path, i.label, i.split, i.group) for i in dataset.items] == [
        ("disc/000.jpg", "disc", "train", "a"),
        ("disc/001.jpg", "disc", "validation", "b"),
        ("stripes/001.jpg", "stripes", "test", "b"),
    ]
    assert [dataset.read(i) for i in range(3)] == [(folder / i.path).read_bytes() for i in dataset.items]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("query", ["", "?version=3", "?next=a/b.csv"])
def test_tables_by_http_with_and_without_a_query(folder, server, name, query):
    assert_rows(open_dataset(f"{server}/{name}{query}"), folder)


def test_parquet_by_http_with_a_query(folder, server):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), folder / "t.parquet")
    assert_rows(open_dataset(f"{server}/t.parquet?version=3"), folder)


def test_a_zip_by_http(folder, server):
    write_zip(folder, folder / "d.zip")
    dataset = open_dataset(f"{server}/d.zip")
    assert dataset.read(3) == (folder / "stripes" / "001.jpg").read_bytes()


def test_an_image_missing_on_the_server_is_refused_when_read(folder, server):
    (folder / "disc" / "000.jpg").unlink()
    dataset = open_dataset(f"{server}/t.csv")
    with pytest.raises(ImageError, match="Cannot be read"):
        dataset.read(0)
    assert dataset.read(2) == (folder / "stripes" / "001.jpg").read_bytes()


@pytest.mark.parametrize(
    "name", ["missing.zip", "missing.csv", "missing.tsv", "missing.jsonl", "missing.tgz", "missing.zip?x=1"]
)
def test_files_missing_on_the_server_are_errors_of_one_line(server, name):
    with pytest.raises(DataError, match="cannot be read") as error_info:
        open_dataset(f"{server}/{name}")
    assert "\n" not in str(error_info.value)


def test_a_folder_a_zip_and_a_table_in_memory(folder, memory):
    for path in folder.rglob("*.jpg"):
        memory.pipe(f"/photos/{path.parent.name}/{path.name}", path.read_bytes())
    memory.pipe("/d.zip", write_zip(folder, folder / "d.zip").read_bytes())
    for uri in ("memory://photos", "memory://d.zip"):
        dataset = open_dataset(uri)
        assert dataset.classes == ("disc", "stripes")
        assert dataset.read(0) == (folder / "disc" / "000.jpg").read_bytes()
    memory.pipe("/photos/t.csv", (folder / "t.csv").read_bytes())
    assert_rows(open_dataset("memory://photos/t.csv"), folder)


def test_a_tar_in_memory(folder, memory):
    with tarfile.open(folder / "d.tgz", "w:gz") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.add(path, f"{path.parent.name}/{path.name}")
    memory.pipe("/d.tgz", (folder / "d.tgz").read_bytes())
    dataset = open_dataset("memory://d.tgz")
    assert dataset.classes == ("disc", "stripes")
    assert dataset.read(3) == (folder / "stripes" / "001.jpg").read_bytes()


def test_unknown_protocols_are_refused():
    with pytest.raises(DataError, match="gopher"):
        open_dataset("gopher://example/photos")


def test_folders_and_archives_behind_an_address_are_opened_and_images_are_not_asked_for(
    folder, memory, server, monkeypatch
):
    for path in folder.rglob("*.jpg"):
        memory.pipe(f"/photos/{path.parent.name}/{path.name}", path.read_bytes())
    memory.pipe("/without-an-ending", (folder / "disc" / "000.jpg").read_bytes())
    found = open_inputs(["memory://photos", "memory://without-an-ending", f"{server}/disc/", "memory://photos/disc"])
    names = [f"memory://photos/{label}/00{i}.jpg" for label in ("disc", "stripes") for i in range(2)]
    names += ["memory://without-an-ending", *(f"{server}/disc/00{i}.jpg" for i in range(2)), *names[:2]]
    assert [item.path for item in found.items] == names
    assert all(found.read(i) for i in range(len(found)))
    write_zip(folder, folder / "d.zip")
    assert len(open_inputs([f"{server}/d.zip?version=3"])) == 4

    def ask(uri):
        raise AssertionError(f"{uri} was asked for")

    monkeypatch.setattr("headstart.data.inputs.is_remote_folder", ask)
    assert len(open_inputs(["memory://photos/disc/000.jpg", "s3://bucket/a.JPG?versionId=3"])) == 2


def test_storage_that_cannot_be_asked_leaves_an_input_that_cannot_be_read(memory):
    found = open_inputs(["memory://missing", "no-such-scheme://bucket/folder"])
    assert len(found) == 2
    for i in range(2):
        with pytest.raises(ImageError, match="Cannot be read"):
            found.read(i)


def test_an_address_without_anything_is_said_to_be_unreachable(server):
    """fsspec lists nothing for a page that is not there, which was called an empty folder."""
    for name in ("missing/", "missing.csv"):
        with pytest.raises(DataError, match="cannot be read: there is nothing, or no way to it; check the address"):
            open_dataset(f"{server}/{name}")
