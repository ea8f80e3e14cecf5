"""Tables and archives behind addresses: queries, what a server lacks, and every kind of table by HTTP."""

import json
import tarfile

import fsspec
import pytest
from helpers.photos import write_photos
from helpers.servers import serving_folder

from headstart.data import open_dataset
from headstart.errors import DataError, ImageError

ROWS = [
    {"path": "disc/000.jpg", "label": "disc", "split": "train", "scene": "a"},
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


def check(found, folder):
    assert [(i.path, i.label, i.split, i.group) for i in found.items] == [
        ("disc/000.jpg", "disc", "train", "a"), ("stripes/001.jpg", "stripes", "test", "b"),
    ]  # fmt: skip
    assert [found.read(i) for i in range(2)] == [(folder / i.path).read_bytes() for i in found.items]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("query", ["", "?version=3", "?next=a/b.csv"])
def test_tables_by_http_with_and_without_a_query(folder, server, name, query):
    check(open_dataset(f"{server}/{name}{query}"), folder)


def test_parquet_by_http_with_a_query(folder, server):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), folder / "t.parquet")
    check(open_dataset(f"{server}/t.parquet?version=3"), folder)


def test_a_picture_the_server_lacks_is_refused_when_read(folder, server):
    (folder / "disc" / "000.jpg").unlink()
    found = open_dataset(f"{server}/t.csv")
    with pytest.raises(ImageError, match="Cannot be read"):
        found.read(0)
    assert found.read(1) == (folder / "stripes" / "001.jpg").read_bytes()


@pytest.mark.parametrize("name", ["missing.tsv", "missing.jsonl", "missing.tgz", "missing.zip?x=1"])
def test_what_the_server_lacks_is_one_line(server, name):
    with pytest.raises(DataError, match="cannot be read") as caught:
        open_dataset(f"{server}/{name}")
    assert "\n" not in str(caught.value)


def test_a_tar_in_memory(folder):
    with tarfile.open(folder / "d.tgz", "w:gz") as archive:
        for p in sorted(folder.rglob("*.jpg")):
            archive.add(p, f"{p.parent.name}/{p.name}")
    system = fsspec.filesystem("memory")
    system.pipe("/d.tgz", (folder / "d.tgz").read_bytes())
    try:
        found = open_dataset("memory://d.tgz")
        assert found.classes == ("disc", "stripes")
        assert found.read(3) == (folder / "stripes" / "001.jpg").read_bytes()
    finally:
        system.rm("/d.tgz")
