"""The table of findings: it can be edited and fitted on."""

import csv
import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.faults import edit, image_path, mirror

import headstart as hs
from headstart.check import check_dataset, write_table
from headstart.data import Item, open_dataset
from headstart.data.dataset import Dataset
from headstart.data.reading import ReadOptions
from headstart.errors import OptionError
from headstart.features import Compute


def test_the_table_can_be_edited_and_fitted_on(photos, tmp_path):
    original = image_path(photos, number=6)
    copy = edit(original, mirror, original.with_name("copy.jpg"))
    broken = image_path(photos, label="humans")
    broken.write_bytes(b"")
    dataset = open_dataset(photos)
    result = check_dataset(dataset, Compute("onnxruntime"))
    table = photos.parent / "fixed.csv"
    assert write_table(dataset, result.findings, result.groups, table) == 120
    assert [path.name for path in table.parent.iterdir() if path.is_file()] == ["fixed.csv"]
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert {row["path"] for row in rows[:2]} <= {
        Path(f).relative_to(table.parent).as_posix() for f in [original, copy]
    } | {row["path"] for row in rows if row["finding"]}
    by_path = {row["path"]: row for row in rows}
    original_row, copy_row = (by_path[Path(path).relative_to(table.parent).as_posix()] for path in (original, copy))
    assert original_row["group"] == copy_row["group"]
    assert original_row["finding"] == "near_duplicate"
    assert broken.relative_to(table.parent).as_posix() not in by_path
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(row for row in rows if row is not copy_row)
    assert len(open_dataset(table)) == 119
    fitted = hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(table)
    assert fitted.run_["groups"]["method"] == "column"
    with pytest.raises(OptionError, match="folder of the images or one above"):
        write_table(dataset, result.findings, result.groups, tmp_path / "photos" / "train" / "inner.csv")
    with pytest.raises(OptionError, match=r"must end in \.csv"):
        write_table(dataset, result.findings, result.groups, tmp_path / "fixed.txt")


def test_a_table_of_a_table_is_made_from_any_working_folder(photos, tmp_path, monkeypatch):
    table = photos.parent / "labels.csv"
    images = sorted(photos.glob("train/*/*.jpg"))
    rows = [f"{image.relative_to(table.parent).as_posix()},{image.parent.name}" for image in images]
    table.write_text("\n".join(["path,label", *rows]), "utf-8")
    monkeypatch.chdir(tmp_path.parent)
    dataset = open_dataset(os.path.relpath(table))
    groups = {item.path: number for number, item in enumerate(dataset.items)}
    assert write_table(dataset, [], groups, table.with_name("fixed.csv")) == len(images)
    fixed = open_dataset(table.with_name("fixed.csv"))
    assert [(item.path, item.label) for item in fixed.items] == [(item.path, item.label) for item in dataset.items]


@pytest.mark.parametrize(
    "content", [b"path,label,patient\na.jpg,cat,12\n", b"path,label,split,group,finding,action\n", b""]
)
def test_a_file_that_is_there_is_not_replaced(photos, content):
    table = photos.parent / "labels.csv"
    table.write_bytes(content)
    dataset = open_dataset(photos)
    with pytest.raises(OptionError, match="exists, and may hold your corrections"):
        write_table(dataset, [], {}, table)
    assert table.read_bytes() == content


def test_names_that_spreadsheets_take_for_formulas_come_back_as_they_were(tmp_path):
    names = ("=1+1", "-x", "@a", "+b", "a=b")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    (tmp_path / "back\\slash").mkdir()
    (tmp_path / "back\\slash" / "1.jpg").write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    table = tmp_path / "fixed.csv"
    write_table(dataset, [], {item.path: number for number, item in enumerate(dataset.items)}, table)
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert not [value for row in rows for value in row.values() if value[:1] in ("=", "+", "-", "@")]
    again = open_dataset(table)
    expected = {Path(item.path).relative_to(tmp_path).as_posix(): item.label for item in dataset.items}
    assert {item.path: item.label for item in again.items} == expected
    assert len(again) == 6


@pytest.mark.parametrize(
    "classes",
    [
        ("cat", "nan"),
        ("cat", "NULL"),
        ("cat", "NA"),
        ("cat", "?x"),
        ("cat", "cat;dog"),
        ("a,b", "a"),
        ('["a", "b"]', "a"),
        ("1", "01"),
    ],
)
def test_classes_that_mean_something_else_in_a_table_are_refused(tmp_path, classes):
    """Folders may be called so; of the table ``fit`` would read no label, several, or nothing at all."""
    for name in classes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert {*dataset.classes} == {*classes}
    groups = {item.path: number for number, item in enumerate(dataset.items)}
    with pytest.raises(OptionError, match=r"could not name the class .*by --classes|may mean the same"):
        write_table(dataset, [], groups, tmp_path / "fixed.csv")
    assert not (tmp_path / "fixed.csv").exists()


def test_classes_that_only_look_like_several_labels_come_back_as_they_were(tmp_path):
    names = ("black|white", "nans", "a, b", "[x]", "x?")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    table = tmp_path / "fixed.csv"
    write_table(dataset, [], {item.path: number for number, item in enumerate(dataset.items)}, table)
    assert {item.label for item in open_dataset(table).items} == {*names}


def test_a_cell_longer_than_readers_of_tables_take_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    names = tuple(f"{number:03}" + "x" * 997 for number in range(140))
    item = Item("a.png", None, "train", key=0, labels=names)
    dataset = Dataset("x", (item,), (), (), (), lambda key: b"", str(tmp_path), label_names=names)
    with pytest.raises(OptionError, match=r"A cell of a\.png would have 140,139 characters, more than the 131,072"):
        write_table(dataset, [], {"a.png": 0}, tmp_path / "fixed.csv")
    assert not (tmp_path / "fixed.csv").exists()
    shorter = Dataset(
        "x", (replace(item, labels=names[:130]),), *((),) * 3, dataset.reader, str(tmp_path), label_names=names
    )
    write_table(shorter, [], {"a.png": 0}, tmp_path / "fixed.csv")
    again = open_dataset(tmp_path / "fixed.csv", ReadOptions(multi_label=True))
    assert again.items[0].labels == names[:130]
