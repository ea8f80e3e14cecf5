"""Tables in local files."""

import csv
import json

import pytest
from helpers.photos import write_photos

from headstart.data import open_dataset
from headstart.errors import DataError

ROWS = [
    {"path": "disc/000.jpg", "label": "disc", "split": "train", "scene": "a"},
    {"path": "disc/001.jpg", "label": "disc", "split": "val", "scene": "b"},
    {"path": "stripes/000.jpg", "label": "stripes", "split": "train", "scene": "a"},
]


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path, 2)


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def assert_rows(dataset, folder):
    assert [(i.path, i.label, i.split, i.group) for i in dataset.items] == [
        ("disc/000.jpg", "disc", "train", "a"),
        ("disc/001.jpg", "disc", "validation", "b"),
        ("stripes/000.jpg", "stripes", "train", "a"),
    ]
    assert [dataset.read(i) for i in range(3)] == [(folder / i.path).read_bytes() for i in dataset.items]


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_csv(folder, delimiter, encoding):
    assert_rows(open_dataset(write_csv(folder / "t.csv", ROWS, delimiter, encoding)), folder)


def test_json_lines(folder):
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", "utf-8")
    assert_rows(open_dataset(folder / "t.jsonl"), folder)


def test_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "t.parquet")
    assert_rows(open_dataset(folder / "t.parquet"), folder)
    (folder / "bad.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(folder / "bad.parquet")


def test_other_column_names_in_any_case_and_a_named_group_column(folder):
    rows = [{"FileName": r["path"], "Category": r["label"], "patient": i} for i, r in enumerate(ROWS)]
    dataset = open_dataset(write_csv(folder / "t.csv", rows), group_column="patient")
    assert [i.group for i in dataset.items] == ["0", "1", "2"]
    assert [i.label for i in dataset.items] == ["disc", "disc", "stripes"]
    with pytest.raises(DataError, match="no column 'site'; it has FileName"):
        open_dataset(folder / "t.csv", group_column="site")


def test_a_table_without_labels_is_unlabelled(folder):
    dataset = open_dataset(write_csv(folder / "t.csv", [{"image": "disc/000.jpg"}]))
    assert dataset.items[0].label is None


def test_rows_without_a_label_or_an_image_are_counted(folder):
    rows = [*ROWS, {**ROWS[0], "label": ""}, {**ROWS[0], "path": "notes.txt"}, {**ROWS[0], "path": ""}]
    assert open_dataset(write_csv(folder / "t.csv", rows)).skipped == {"no label": 1, "not an image": 2}


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/secret.jpg", "disc/../../secret.jpg", "C:\\secret.jpg", "..\\secret.jpg"]
)
def test_paths_outside_the_folder_are_refused(folder, path):
    with pytest.raises(DataError, match="outside the table's folder"):
        open_dataset(write_csv(folder / "t.csv", [*ROWS, {**ROWS[0], "path": path}]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "no rows"),
        ("t.csv", b"path,label\n", "no rows"),
        ("t.csv", b"a,b\n1,2\n", "no path column"),
        ("t.csv", b"path,label,split\na.jpg,x,someday\n", "unknown split 'someday'"),
        ("t.csv", b"\xff\xfe\x00\x01", "UTF-8"),
        ("t.jsonl", b"[1]\n", "not an object"),
        ("t.jsonl", b"{", "cannot be read"),
        ("t.jsonl", b"[" * 100_000, "cannot be read"),
        ("t.csv", b"path,label\nnotes.txt,x\n", "No row"),
        ("t.csv", b'path,label\n"a.jpg,x\n', "cannot be read"),
    ],
)
def test_tables_that_cannot_be_used_are_errors_of_one_line(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error_info:
        open_dataset(folder / name)
    assert "\n" not in str(error_info.value)


def test_a_missing_table_suggests_a_similar_name(folder):
    write_csv(folder / "table.csv", ROWS)
    with pytest.raises(DataError, match="did you mean"):
        open_dataset(folder / "tables.csv")


def test_a_group_column_needs_a_table(folder):
    with pytest.raises(DataError, match="not a table"):
        open_dataset(folder, group_column="scene")
