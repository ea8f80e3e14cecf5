"""Parquet: shards of one dataset, images inside, and files of a few kilobytes that claim gigabytes."""

import json
import random
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from helpers.archives import write_zip

from headstart.data import ReadOptions, open_dataset
from headstart.data.table_files import read_table
from headstart.errors import DataError, ImageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "wasp"], "_type": "ClassLabel"}}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def write_shard(path, numbers, row_group_size=3):
    """Write images whose bytes and names hold their number, with the label number % 3."""
    images = [{"bytes": f"image {i}".encode(), "path": f"{i}.jpg"} for i in numbers]
    table = pyarrow.table({"image": images, "label": [i % 3 for i in numbers]}).replace_schema_metadata(METADATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=row_group_size)


def contents(dataset):
    return [
        (item.path.rsplit("/", 1)[-1], item.label, item.split, dataset.read(i)) for i, item in enumerate(dataset.items)
    ]


def expected(numbers, split):
    return [(f"{i}.jpg", ("ant", "bee", "wasp")[i % 3], split, f"image {i}".encode()) for i in numbers]


@pytest.mark.parametrize(
    "form", ["data/{}-0000{}-of-00002.parquet", "{}-{}-of-2.parquet", "plain_text/{}/000{}.parquet"]
)
@pytest.mark.parametrize("archived", [False, True])
def test_shards_are_read_as_one_dataset(tmp_path, form, archived):
    root = tmp_path / "d"
    write_shard(root / form.format("train", 0), range(7))
    write_shard(root / form.format("train", 1), range(7, 10))
    write_shard(root / form.format("test", 0), range(10, 14))
    dataset = open_dataset(write_zip(root, tmp_path / "d.zip") if archived else root)
    assert sorted(contents(dataset)) == sorted(expected(range(10), "train") + expected(range(10, 14), "test"))
    assert dataset.classes == ("ant", "bee", "wasp")
    assert [item.path.rsplit("/")[-1] for item in dataset.split("train").items] == [f"{i}.jpg" for i in range(10)]


def test_a_thousand_shards_are_joined(tmp_path):
    for i in range(1000):
        write_shard(tmp_path / f"train-{i:05}-of-01000.parquet", [i])
    assert contents(open_dataset(tmp_path)) == expected(range(1000), "train")


def test_several_datasets_in_one_folder_are_refused(tmp_path):
    for name in ("small", "large"):
        write_shard(tmp_path / name / "train-00000-of-00001.parquet", range(3))
    with pytest.raises(DataError, match=r"Parquet files of several datasets \(large, small\)"):
        open_dataset(tmp_path)


def test_images_are_read_in_any_order_and_by_several_threads(tmp_path):
    write_shard(tmp_path / "t.parquet", range(100), row_group_size=7)
    dataset = open_dataset(tmp_path / "t.parquet")
    order = random.Random(0).choices(range(100), k=300)
    assert [dataset.read(i) for i in order] == [f"image {i}".encode() for i in order]
    wrong = []

    def check(seed):
        rows = random.Random(seed).choices(range(100), k=100)
        wrong.extend(i for i in rows if dataset.read(i) != f"image {i}".encode())

    threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_missing_images_and_a_file_that_was_cut_off(tmp_path):
    table = pyarrow.table(
        {"image": [{"bytes": None, "path": "a.jpg"}, None, {"bytes": b"c", "path": None}], "y": [0, 1, 1]}
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = open_dataset(tmp_path / "t.parquet")
    assert [item.path for item in dataset.items] == ["a.jpg", "row 2", "row 3"]
    assert dataset.read(2) == b"c"
    for i in range(2):
        with pytest.raises(ImageError, match="holds no bytes"):
            dataset.read(i)
    write_shard(tmp_path / "cut.parquet", range(50))
    dataset = open_dataset(tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:300])
    with pytest.raises(ImageError, match="Cannot be read from the table"):
        dataset.read(40)


def test_columns_of_lists_are_not_read_and_named(tmp_path):
    parquet.write_table(pyarrow.table({"path": ["a.jpg"], "label": ["x"], "boxes": [[1, 2]]}), tmp_path / "t.parquet")
    table = read_table(str(tmp_path / "t.parquet"))
    assert list(table.rows) == [{"path": "a.jpg", "label": "x"}]
    assert table.notes == ("Columns that hold lists, structures or bytes are not read: boxes.",)


def one_value(value, count):
    """Return a column with the same text in each row, which Parquet stores once."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, pyarrow.int32()), pyarrow.array([value]))


def long_cells():
    return pyarrow.table({"path": one_value("x" * 50_000_000, 100), "label": ["a"] * 100})


def many_cells():
    return pyarrow.table({"path": one_value("x" * 30_000, 500_000), "label": [1] * 500_000})


def many_rows():
    return pyarrow.table({"path": one_value("a.jpg", 5_000_000), "label": pyarrow.array([1] * 5_000_000)})


def one_large_cell():
    return pyarrow.table({"path": ["x" * 600_000_000], "label": ["a"]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (long_cells, "a cell has 50,000,000 bytes, more than the limit of 32,768"),
        (many_cells, "cells of more than 268,435,456 bytes"),
        (many_rows, "it has 5,000,000 rows, more than the limit of 1,000,000"),
        (one_large_cell, "its cells have 600,000,"),
    ],
)
def test_a_small_file_that_claims_gigabytes_is_refused_in_little_memory(tmp_path, table, message):
    path = tmp_path / "t.parquet"
    parquet.write_table(table(), path, compression="zstd", dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 100_000
    code = (
        "import resource, sys, pyarrow.parquet, headstart.data as data\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: data.open_dataset(sys.argv[1])\n"
        "except Exception as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)\n"
    )
    completed = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    error, mebibytes = completed.stdout.strip().rsplit("\n", 1)
    assert message in error
    assert int(mebibytes) < 400


def test_an_image_that_repeats_takes_the_memory_of_a_few(tmp_path):
    images = pyarrow.StructArray.from_arrays(
        [pyarrow.array([b"\0" * 1_000_000] * 500), pyarrow.array(["a.jpg"] * 500)], ["bytes", "path"]
    )
    parquet.write_table(
        pyarrow.table({"image": images, "label": [0] * 500}), tmp_path / "t.parquet", compression="zstd"
    )
    assert (tmp_path / "t.parquet").stat().st_size < 10_000
    dataset = open_dataset(tmp_path / "t.parquet")
    before = pyarrow.total_allocated_bytes()
    for i in range(0, 500, 7):
        assert len(dataset.read(i)) == 1_000_000
        assert pyarrow.total_allocated_bytes() - before < 100_000_000


def test_damaged_files_are_errors_of_ours(tmp_path):
    write_shard(tmp_path / "good.parquet", range(20))
    good = (tmp_path / "good.parquet").read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "t.parquet").write_bytes(data)
        with suppress(DataError):
            dataset = open_dataset(tmp_path / "t.parquet")
            for i in range(len(dataset)):
                with suppress(ImageError):
                    dataset.read(i)


def test_a_table_without_rows(tmp_path):
    parquet.write_table(pyarrow.table({"path": pyarrow.array([], pyarrow.string())}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="has no rows"):
        open_dataset(tmp_path / "t.parquet")


def test_a_column_of_structures_of_labels_is_an_error(tmp_path):
    table = pyarrow.table({"file_name": ["a.jpg", "b.jpg"], "labels": [[{"name": "cat"}], []]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'labels' holds structures; expected texts, numbers or lists"):
        open_dataset(tmp_path / "t.parquet")


def test_lists_of_the_hub_have_the_names_of_their_classes(tmp_path):
    """Sequence(ClassLabel) of Hugging Face's datasets; a list of an unknown class is an unlabelled image."""
    table = pyarrow.table({"file_name": [f"{i}.jpg" for i in range(5)], "objects": [[0, 2], [1], [], [-1], None]})
    for kind in ("Sequence", "List"):
        features = {"objects": {"feature": {"names": ["ant", "bee", "wasp"], "_type": "ClassLabel"}, "_type": kind}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
        dataset = open_dataset(tmp_path / "t.parquet", ReadOptions(label_column="objects"))
        assert {item.path: item.labels for item in dataset.items} == {
            "0.jpg": ("ant", "wasp"),
            "1.jpg": ("bee",),
            "2.jpg": (),
        }
        assert dataset.skip_counts == {"no label": 2}


@pytest.mark.parametrize("kind", [pyarrow.list_, pyarrow.large_list])
def test_lists_of_texts(tmp_path, kind):
    column = pyarrow.array([["cat", "dog"], None, [], ["cat"]], kind(pyarrow.string()))
    table = pyarrow.table({"file_name": [f"{i}.jpg" for i in range(4)], "labels": column})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    dataset = open_dataset(tmp_path / "t.parquet")
    assert [item.labels for item in dataset.items] == [("cat", "dog"), (), ("cat",)]


def test_lists_of_other_columns_are_left_alone(tmp_path):
    table = pyarrow.table({"file_name": ["a.jpg"], "label": ["cat"], "embedding": [[0.5] * 1000]})
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = open_dataset(tmp_path / "t.parquet")
    assert dataset.items[0].label == "cat"
    assert "embedding" in dataset.notes[0]


def test_lists_that_unpack_to_too_much_are_refused(tmp_path):
    """A text of 30 KB that is repeated in lists takes a few bytes in the file each time."""
    table = pyarrow.table({"file_name": ["a.jpg"], "labels": [["x" * 30_000] * 10_000]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    with pytest.raises(DataError, match="all lists 300,000,000 bytes"):
        open_dataset(tmp_path / "t.parquet")
    table = pyarrow.table({"file_name": ["a.jpg"], "labels": [[1] * 5_000_000]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="5,000,000 values, more than the limit of 4,000,000"):
        open_dataset(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["label", ""])
def test_a_column_that_occurs_twice_is_an_error(tmp_path, name):
    columns = [pyarrow.array(["a.jpg"]), pyarrow.array(["x"]), pyarrow.array(["y"])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, ["path", name, name]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=f"the column '{name}' occurs more than once"):
        open_dataset(tmp_path / "t.parquet")


def test_images_in_a_column_of_bytes_alone_are_refused_with_what_is_expected(tmp_path):
    pyarrow_table = pyarrow.table({"image": [b"x", b"y"], "label": [0, 1]})
    parquet.write_table(pyarrow_table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"the column 'image' holds bytes or numbers; .* a column of bytes and path"):
        open_dataset(tmp_path / "t.parquet")
