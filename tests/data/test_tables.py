"""Tables in local files."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart.data import ReadOptions, open_dataset
from headstart.errors import DataError, ImageError

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
    dataset = open_dataset(write_csv(folder / "t.csv", rows), ReadOptions(group_column="patient"))
    assert [i.group for i in dataset.items] == ["0", "1", "2"]
    assert [i.label for i in dataset.items] == ["disc", "disc", "stripes"]
    with pytest.raises(DataError, match="no column 'site'; it has FileName"):
        open_dataset(folder / "t.csv", ReadOptions(group_column="site"))


def test_a_table_without_labels_is_unlabelled(folder):
    dataset = open_dataset(write_csv(folder / "t.csv", [{"image": "disc/000.jpg"}]))
    assert dataset.items[0].label is None


def test_rows_without_a_label_or_an_image_are_counted(folder):
    rows = [*ROWS, {**ROWS[0], "label": ""}, {**ROWS[0], "path": "notes.txt"}, {**ROWS[0], "path": ""}]
    assert open_dataset(write_csv(folder / "t.csv", rows)).skip_counts == {
        "no label": 1,
        "not an image": 1,
        "no path": 1,
    }


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
        ("t.csv", b"\xff\xfe\x00\x01", "no rows"),
        ("t.csv", b"path,label,label\na.jpg,x,y\n", "'label' occurs more than once"),
        ("t.csv", b"path,is_valid\na.jpg,perhaps\n", "neither true nor false"),
        ("t.csv", "path,label\na.jpg,x\n".encode("utf-16-le"), "holds NUL characters"),
        ("t.csv", b"path,label," + b",".join(b"%d" % i for i in range(20_000)) + b"\na.jpg,x\n", "20,002 columns"),
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


@pytest.mark.parametrize("path", ["/a\0b.jpg", "a\0b.jpg"])
def test_a_path_with_a_nul_character_is_refused(folder, path):
    rows = [{"path": path, "label": "disc"}, ROWS[2]]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(DataError, match=r"row 2: .* is outside the table's folder"):
        open_dataset(folder / "t.jsonl")


def test_a_path_that_is_too_long_for_the_system_is_an_image_that_cannot_be_read(folder):
    rows = [{"path": f"{'a' * 5000}.jpg", "label": "disc"}, {"path": "disc/000.jpg", "label": "stripes"}]
    dataset = open_dataset(write_csv(folder / "t.csv", rows))
    with pytest.raises(ImageError, match="File name too long"):
        dataset.read(0)
    assert dataset.read(1) == (folder / "disc/000.jpg").read_bytes()


@pytest.mark.parametrize(
    ("on_disk", "in_table"), [("cafe\u0301.jpg", "caf\u00e9.jpg"), ("caf\u00e9.jpg", "cafe\u0301.jpg")]
)
def test_an_accent_in_another_form_of_unicode_is_the_same_name(folder, on_disk, in_table):
    (folder / "disc" / "000.jpg").rename(folder / "disc" / on_disk)
    rows = [{"path": f"disc/{in_table}", "label": "disc"}, {"path": "stripes/000.jpg", "label": "stripes"}]
    dataset = open_dataset(write_csv(folder / "t.csv", rows))
    assert [item.path for item in dataset.items] == [f"disc/{on_disk}", "stripes/000.jpg"]
    assert dataset.read(0) == (folder / "disc" / on_disk).read_bytes()


def test_cells_beyond_the_header_are_not_dropped_in_silence(folder):
    (folder / "t.csv").write_text(
        "path,label\ndisc/000.jpg,disc,\ndisc/001.jpg,a,b\nstripes/000.jpg,stripes\nstripes/001.jpg,c,d,e\n", "utf-8"
    )
    dataset = open_dataset(folder / "t.csv")
    assert [item.label for item in dataset.items] == ["disc", "a", "stripes", "c"]
    assert [note for note in dataset.notes if "more cells" in note] == [
        f"Row 3 and 1 more of {folder / 't.csv'} have more cells than the header, which are not read; put a cell "
        "that holds a separator in quotes."
    ]


def test_lines_end_where_the_format_says(folder):
    text = "path,label\rdisc/000.jpg,a;b;c\rstripes/000.jpg,d\r"
    (folder / "t.csv").write_text(text, "utf-8", newline="")
    assert [item.label for item in open_dataset(folder / "t.csv").items] == ["a;b;c", "d"]
    rows = [{"path": "disc/000.jpg", "label": "a\u2028b"}, {"path": "stripes/000.jpg", "label": "c\x85d"}]
    (folder / "t.jsonl").write_text(
        "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8", newline=""
    )
    assert [item.label for item in open_dataset(folder / "t.jsonl").items] == ["a\u2028b", "c\x85d"]


def test_columns_that_differ_in_case_alone_are_chosen_by_their_name(folder):
    rows = [{"path": row["path"], "Label": row["label"], "label": "x"} for row in ROWS]
    with pytest.raises(DataError, match="'Label' and 'label'; rename one of them, or say which it is with --label-"):
        open_dataset(write_csv(folder / "t.csv", rows))
    dataset = open_dataset(folder / "t.csv", ReadOptions(label_column="Label"))
    assert [item.label for item in dataset.items] == [row["label"] for row in ROWS]
    rows = [{**row, "Group": "a", "group": "b", "y": "1", "Y": "2"} for row in ROWS]
    with pytest.raises(DataError, match="'Group' and 'group'; rename one of them, or say which it is with --group-by"):
        open_dataset(write_csv(folder / "t.csv", rows))
    assert len(open_dataset(folder / "t.csv", ReadOptions(layout="image"))) == len(ROWS)  # labels are not looked at


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc7f.jpg"])
@pytest.mark.parametrize("column", ["path", "label", "scene"])
def test_half_a_character_is_refused_and_a_byte_of_a_name_is_not(folder, column, text):
    named = f"{text}.jpg" if column == "path" else text
    rows = [{**ROWS[0], column: named}, *ROWS[1:]]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(DataError, match=r"row 2: .* holds half a character"):
        open_dataset(folder / "t.jsonl", ReadOptions(group_column="scene"))
    (folder / "t.jsonl").write_text("\n".join(json.dumps({**row, "label": "caf\udce9"}) for row in ROWS), "utf-8")
    assert open_dataset(folder / "t.jsonl").classes == ("caf\udce9",)


@pytest.mark.parametrize("label", [{"a": 1}, [["disc"]], [{"a": 1}]])
def test_a_label_that_is_a_structure_is_refused(folder, label):
    (folder / "t.jsonl").write_text("\n".join(json.dumps({**row, "label": label}) for row in ROWS), "utf-8")
    with pytest.raises(DataError, match="row 2: a label is a structure; expected a text or a number"):
        open_dataset(folder / "t.jsonl")


def test_a_missing_table_suggests_a_similar_name(folder):
    write_csv(folder / "table.csv", ROWS)
    with pytest.raises(DataError, match="did you mean"):
        open_dataset(folder / "tables.csv")


def test_a_group_column_needs_a_table(folder):
    with pytest.raises(DataError, match="not a table"):
        open_dataset(folder, ReadOptions(group_column="scene"))


def read(folder, text, name="t.csv", **options):
    (folder / name).write_text(text, "utf-8")
    return open_dataset(folder / name, ReadOptions(**options))


def labels(dataset):
    return [(item.path, item.label, item.split) for item in dataset.items]


@pytest.mark.parametrize("column", ["is_valid", "IS_VALID", "is_validation"])
@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no")])
def test_a_column_that_says_which_rows_validate(folder, column, yes, no):
    """fastai's labels.csv."""
    dataset = read(folder, f"name,label,{column}\ndisc/000.jpg,disc,{no}\nstripes/000.jpg,stripes,{yes}\n")
    assert labels(dataset) == [("disc/000.jpg", "disc", "train"), ("stripes/000.jpg", "stripes", "validation")]
    assert column in dataset.layout


def test_one_hot_columns(folder):
    """Roboflow's _classes.csv, with a space behind each comma."""
    dataset = read(folder, "filename, disc, stripes\ndisc/000.jpg, 1, 0\nstripes/000.jpg, 0, 1\ndisc/001.jpg, 0, 0\n")
    assert labels(dataset) == [("disc/000.jpg", "disc", "train"), ("stripes/000.jpg", "stripes", "train")]
    assert dataset.skip_counts == {"no label": 1}
    with pytest.raises(
        DataError, match="is multi-label, row 2 has several, or one that is not known; give each image one"
    ):
        read(folder, "filename,disc,stripes\ndisc/000.jpg,1,1\nstripes/000.jpg,0,1\n", multi_label=False)


def test_ids_without_an_ending_and_files_in_another_folder_are_found(folder):
    """Kaggle's train.csv beside train/ID.jpg."""
    (folder / "train").mkdir()
    for name in ("a1", "a2"):
        shutil.copy(folder / "disc" / "000.jpg", folder / "train" / f"{name}.jpg")
    dataset = read(folder, "id,species\na1,x\nA2,y\n")
    assert labels(dataset) == [("train/a1.jpg", "x", "train"), ("train/a2.jpg", "y", "train")]
    assert dataset.read(0)
    elsewhere = read(folder, "file,label\na1.jpg,x\ntrain/a2.jpg,y\n")
    assert [item.path for item in elsewhere.items] == ["train/a1.jpg", "train/a2.jpg"]
    twice = read(folder, "file,label\n000.jpg,x\na2.jpg,y\n")  # in disc/ and in stripes/
    assert [item.path for item in twice.items] == ["000.jpg", "train/a2.jpg"]
    with pytest.raises(ImageError, match=r"Several images have this name \(disc/000\.jpg, stripes/000\.jpg\)"):
        twice.read(0)


def test_columns_can_be_named(folder):
    text = "photo_of,what_it_is,part\ndisc/000.jpg,d,val\nstripes/000.jpg,s,train\n"
    with pytest.raises(DataError, match=r"no path column; expected one of .*; give its name with --path-column"):
        read(folder, text)
    dataset = read(folder, text, path_column="photo_of", label_column="what_it_is", split_column="part")
    assert labels(dataset) == [("disc/000.jpg", "d", "validation"), ("stripes/000.jpg", "s", "train")]
    unlabelled = read(folder, text.replace("photo_of", "path"))
    assert "give it with --label-column: what_it_is, part" in unlabelled.notes[0]
    with pytest.raises(DataError, match="no column 'nothing'"):
        read(folder, text, path_column="nothing")


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "<NA>", "null", "N/A", "NA"])
def test_missing_labels_are_no_class(folder, missing):
    dataset = read(folder, f"path,label\ndisc/000.jpg,disc\nstripes/000.jpg,{missing}\n")
    assert dataset.classes == ("disc",)
    assert dataset.skip_counts == {"no label but NA" if missing == "NA" else "no label": 1}
    assert "stripes/000.jpg" in dataset.notes[0]
    assert ("give it another name than NA" in dataset.notes[0]) == (missing == "NA")


@pytest.mark.parametrize("missing", ["", "nan", "NA", "N/A"])
def test_images_with_a_missing_group_are_no_group(folder, missing):
    """R writes NA for an unknown specimen; two unknown ones are not the same."""
    text = f"path,label,group\ndisc/000.jpg,disc,{missing}\ndisc/001.jpg,disc,{missing}\nstripes/000.jpg,na,A1\n"
    dataset = read(folder, text)
    assert [item.group for item in dataset.items] == [None, None, "A1"]
    assert dataset.classes == ("disc", "na")  # sodium, in lower case by whoever likes it so


def test_missing_labels_in_json_lines(folder):
    rows = [
        {"file": "disc/000.jpg", "label": "disc"},
        {"file": "disc/001.jpg"},
        {"file": "stripes/000.jpg", "label": None},
        {"file": "stripes/001.jpg", "label": float("nan")},
    ]
    dataset = read(folder, "\n".join(map(json.dumps, rows)), "t.jsonl")
    assert dataset.classes == ("disc",)
    assert dataset.skip_counts == {"no label": 3}


def test_whole_numbers_are_labels_without_a_fraction_and_numbers_in_two_forms_are_refused(folder):
    text = "\n".join(json.dumps({"file": f"disc/00{i}.jpg", "label": label}) for i, label in enumerate([1, 2.0]))
    assert read(folder, text, "t.jsonl").classes == ("1", "2")
    for first, second in (("1", "1.0"), ("True", "1"), ("01", "1")):
        with pytest.raises(DataError, match="may mean the same; write them alike"):
            read(folder, f"path,label\ndisc/000.jpg,{first}\ndisc/001.jpg,{second}\n")


def test_several_labels_in_a_cell_can_be_refused_and_a_name_with_a_comma_is_not(folder):
    for text in ("cat|dog", "cat; dog"):
        with pytest.raises(
            DataError, match="is multi-label, row 2 has several, or one that is not known; give each image one"
        ):
            read(folder, f"path,label\ndisc/000.jpg,{text}\ndisc/001.jpg,cat\n", multi_label=False)
    dataset = read(folder, 'path,label\ndisc/000.jpg,"black, white"\ndisc/001.jpg,grey\n')
    assert dataset.classes == ("black, white", "grey")
    with pytest.raises(DataError, match="'cat' is a label too; if a comma separates labels, give --label-separator"):
        read(folder, 'path,label\ndisc/000.jpg,"cat, dog"\ndisc/001.jpg,cat\n')


@pytest.mark.parametrize(("encoding", "has_note"), [("utf-8", False), ("utf-16", False), ("cp1252", True)])
def test_other_encodings(folder, encoding, has_note):
    (folder / "t.csv").write_bytes("path;label\ndisc/000.jpg;Käfer\nstripes/000.jpg;Bär\n".encode(encoding))
    dataset = open_dataset(folder / "t.csv")
    assert dataset.classes == ("Bär", "Käfer")
    assert any("Windows-1252" in note for note in dataset.notes) == has_note


def test_absolute_paths_and_links_must_stay_in_the_folder(folder, tmp_path_factory, monkeypatch):
    inside = read(folder, f"path,label\n{folder}/disc/000.jpg,a\n")
    assert inside.items[0].path == "disc/000.jpg"
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    outside.write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(outside)
    with pytest.raises(DataError, match="is a link out of the table's folder; give --follow-links"):
        read(folder, "path,label\nlink.jpg,a\n")
    assert read(folder, "path,label\nlink.jpg,a\n", follow_links=True).read(0) == b"secret"
    (folder / "link.jpg").unlink()
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    Path("here.jpg").symlink_to(outside)
    with pytest.raises(DataError, match="is a link out of"):
        read(folder, "path,label\nhere.jpg,a\n")
    Path("here.jpg").unlink()
    Path("here.jpg").write_bytes(b"here")
    assert read(folder, "path,label\nhere.jpg,a\n").read(0) == b"here"
    web = read(folder, "path,label\nhttp://127.0.0.1/a.jpg,a\ndisc/000.jpg,b\n")
    assert web.skip_counts == {"address of a file elsewhere": 1}


def test_a_parquet_table_of_the_hub_with_images_inside(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": f"image {i}".encode(), "path": f"{i}.jpg" if i else None} for i in range(4)]
    table = pyarrow.table({"image": images, "label": [0, 1, 1, -1]})
    features = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(metadata), folder / "train-00000-of-00001.parquet")
    dataset = open_dataset(folder / "train-00000-of-00001.parquet")
    contents = {item.path: (item.label, dataset.read(i)) for i, item in enumerate(dataset.items)}
    assert contents == {"row 1": ("ant", b"image 0"), "1.jpg": ("bee", b"image 1"), "2.jpg": ("bee", b"image 2")}
    assert dataset.skip_counts == {"no label": 1}


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "train.csv", "anything.csv"])
def test_a_folder_of_images_with_a_table_is_read_by_the_table(tmp_path, name):
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(str(i).encode())
    (tmp_path / name).write_text("file_name,label\nimages/0.jpg,ant\nimages/1.jpg,bee\n2.jpg,bee\n", "utf-8")
    dataset = open_dataset(tmp_path)
    assert [(item.path, item.label) for item in dataset.items] == [
        ("images/0.jpg", "ant"),
        ("images/1.jpg", "bee"),
        ("images/2.jpg", "bee"),
    ]
    assert name in dataset.notes[0]
    assert dataset.read(2) == b"2"


def test_a_table_in_the_folder_of_each_split(tmp_path):
    """Hugging Face's image folder with metadata, and Roboflow's export."""
    for split, rows in (("train", ("ant", "bee")), ("valid", ("bee",))):
        (tmp_path / split).mkdir()
        for label in rows:
            (tmp_path / split / f"{label}.jpg").write_bytes(f"{split} {label}".encode())
        table = "\n".join(["file_name,label", *(f"{label}.jpg,{label}" for label in rows)])
        (tmp_path / split / "metadata.csv").write_text(table, "utf-8")
    dataset = open_dataset(tmp_path)
    contents = {(item.path, item.label, item.split): dataset.read(i) for i, item in enumerate(dataset.items)}
    assert contents == {
        ("train/ant.jpg", "ant", "train"): b"train ant",
        ("train/bee.jpg", "bee", "train"): b"train bee",
        ("valid/bee.jpg", "bee", "validation"): b"valid bee",
    }


def test_rows_that_are_skipped_in_the_table_of_each_split_are_all_named(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(b"a")
        (tmp_path / split / "metadata.csv").write_text("file_name,label\na.jpg,ant\nb.jpg,\nb.jpg,\n,bee\n", "utf-8")
    dataset = open_dataset(tmp_path)
    assert sorted((row.path, row.reason) for row in dataset.skipped) == [
        (f"{tmp_path}/train/metadata.csv, row 5", "no path"),
        (f"{tmp_path}/valid/metadata.csv, row 5", "no path"),
        *[("train/b.jpg", "no label")] * 2,
        *[("valid/b.jpg", "no label")] * 2,
    ]


def test_an_image_in_several_rows_is_named(folder):
    rows = [
        "disc/000.jpg,disc",
        "disc/001.jpg,disc",
        "disc/000.jpg,disc",
        "stripes/000.jpg,disc",
        "stripes/000.jpg,stripes",
    ]
    dataset = read(folder, "\n".join(["path,label", *rows]))
    assert len(dataset) == 5
    assert dataset.notes == (
        f"2 images stand in several rows of {dataset.uri}, 1 of them with different labels (stripes/000.jpg); each "
        "row counts as an image: keep one of each.",
    )
    assert read(folder, "\n".join(["path,label", *rows[1:4]])).notes == ()
    (note,) = read(folder, "\n".join(["path,label", *rows[:3]])).notes
    assert note.startswith(f"1 image stands in several rows of {folder / 't.csv'} (disc/000.jpg); each row")
    (note,) = read(folder, "\n".join(["path,label", *rows[3:], *rows[:1]])).notes
    assert note.startswith(f"1 image stands in several rows of {folder / 't.csv'} with different labels (stripes/000.")
    assert (
        read(folder, "\n".join(["path,label", *rows]), layout="image").notes == ()
    )  # to predict on, in the order given


def test_a_table_without_a_header_says_so(folder):
    with pytest.raises(DataError, match=r"has no header: its first row is disc/000\.jpg, disc; write one above"):
        read(folder, "disc/000.jpg,disc\nstripes/000.jpg,stripes\n")


def test_of_two_files_of_one_name_the_table_means_that_of_its_split(folder):
    """Kaggle's train.csv beside train/1.jpg and test/1.jpg; any other table means neither."""
    for split, source in (("train", "disc"), ("test", "stripes")):
        (folder / split).mkdir()
        for name in ("1", "2"):
            shutil.copy(folder / source / "000.jpg", folder / split / f"{name}.jpg")
    rows = "id,label\n1,x\n2.jpg,y\n"
    dataset = open_dataset(write_text(folder / "train.csv", rows))
    assert [item.path for item in dataset.items] == ["train/1.jpg", "train/2.jpg"]
    assert dataset.read(1) == (folder / "disc" / "000.jpg").read_bytes()
    with pytest.raises(DataError, match=r"1 several images have this name; the first is 1\)"):
        open_dataset(write_text(folder / "answers.csv", "id,label\n1,x\n"))
    with pytest.raises(DataError, match=r"1 no image has this name; the first is 7\)"):
        open_dataset(write_text(folder / "answers.csv", "id,label\n7,x\n"))


def write_text(path, text):
    path.write_text(text, "utf-8")
    return path


def copied(folder, *names):
    """Copy an image into a new folder, once under each name, and return the folder."""
    flat = folder / "flat"
    flat.mkdir()
    for name in names:
        shutil.copy(folder / "disc" / "000.jpg", flat / f"{name}.jpg")
    return flat


@pytest.mark.parametrize("header", ["Image Name,Class Label", "imageName,class-label", "FNAME,CHOICE"])
def test_names_of_columns_in_other_spellings(folder, header):
    dataset = read(folder, f"{header}\ndisc/000.jpg,x\ndisc/001.jpg,y\n")
    assert [(item.path, item.label) for item in dataset.items] == [("disc/000.jpg", "x"), ("disc/001.jpg", "y")]


def test_other_columns_that_may_hold_labels_or_splits_are_named(folder):
    rows = "path,label,species,phase,fold\ndisc/000.jpg,0,x,train,1\nstripes/000.jpg,1,y,,2\ndisc/001.jpg,0,x,Test,1\n"
    notes = read(folder, rows).notes
    assert any("labels are read from the column 'label'; if 'species' holds them" in note for note in notes)
    assert any("the column 'phase' seems to hold splits, and is not read" in note for note in notes)
    assert not any("'fold'" in note for note in notes)
    options = ReadOptions(label_column="species", split_column="phase")
    dataset = open_dataset(folder / "t.csv", options)
    assert [(item.label, item.split) for item in dataset.items] == [("x", "train"), ("y", "train"), ("x", "test")]
    assert not any("column" in note for note in dataset.notes)


def test_columns_without_a_name_may_be_several(folder):
    """A spreadsheet writes a separator for each column that was ever used."""
    dataset = read(folder, "path,label,,\ndisc/000.jpg,x,,\nstripes/000.jpg,y,,\n")
    assert [item.label for item in dataset.items] == ["x", "y"]


def test_labels_that_spaces_may_separate_are_named(folder):
    rows = "path,label\ndisc/000.jpg,ant\ndisc/001.jpg,ant car\nstripes/000.jpg,bee car\nstripes/001.jpg,sea lion\n"
    notes = read(folder, rows).notes
    assert any("'ant car' of" in note and "give --label-separator ' '" in note for note in notes)
    one = read(folder, "path,label\ndisc/000.jpg,lion\ndisc/001.jpg,sea lion\nstripes/000.jpg,mountain goat\n")
    assert not any("--label-separator" in note for note in one.notes)


def test_images_that_the_table_of_a_folder_does_not_name_are_skipped_by_name(folder):
    flat = copied(folder, *"abc")
    write_text(flat / "labels.csv", "path,label\na.jpg,x\nb.jpg,y\n")
    dataset = open_dataset(flat)
    assert [item.path for item in dataset.items] == ["a.jpg", "b.jpg"]
    assert [(row.path, row.reason) for row in dataset.skipped] == [("c.jpg", "not in labels.csv")]


def test_the_example_of_an_answer_to_a_competition_is_no_table_of_labels(folder):
    """sample_submission.csv names the images of test/ with made-up labels: they were learned."""
    flat = folder / "competition"
    for split in ("train", "test"):
        (flat / split).mkdir(parents=True)
        for name in "ab":
            shutil.copy(folder / "disc" / "000.jpg", flat / split / f"{split}-{name}.jpg")
    write_text(flat / "sample_submission.csv", "id,label\ntest-a,0\ntest-b,1\n")
    with pytest.raises(DataError, match="in a class folder"):
        open_dataset(flat)
    write_text(flat / "train.csv", "id,label\ntrain-a,x\ntrain-b,y\n")
    dataset = open_dataset(flat)
    assert [(item.path, item.label) for item in dataset.items] == [
        ("train/train-a.jpg", "x"),
        ("train/train-b.jpg", "y"),
    ]
    assert dataset.skip_counts == {"not in train.csv": 2}


@pytest.mark.parametrize("separator", [";", "|"])
def test_the_line_of_excel_says_what_separates_cells(folder, separator):
    rows = ["path,label", "disc/000.jpg,x", "stripes/000.jpg,y"]
    text = "\r\n".join(row.replace(",", separator) for row in rows)
    (folder / "t.csv").write_bytes(f"sep={separator}\r\n{text}\r\n".encode())
    assert labels(open_dataset(folder / "t.csv")) == [("disc/000.jpg", "x", "train"), ("stripes/000.jpg", "y", "train")]


@pytest.mark.parametrize("first", ["# made by hand", "path|label", ""])
def test_a_table_of_one_column_is_said_to_need_a_line_of_names(folder, first):
    with pytest.raises(
        DataError, match=r"has (one column, .*|an empty first line); expected a first line that names the columns"
    ):
        read(folder, f"{first}\npath,label\ndisc/000.jpg,x\n" if first != "path|label" else f"{first}\na.jpg|x\n")


def test_the_tables_of_all_splits_are_read_where_they_have_labels(folder):
    """train.csv, val.csv and test.csv beside images/: val.csv was left aside without a word."""
    data = folder / "data"
    shutil.copytree(folder / "disc", data / "images")
    shutil.copy(folder / "stripes" / "000.jpg", data / "images" / "002.jpg")
    write_text(data / "train.csv", "id,label\n000,x\n001,y\n")
    write_text(data / "val.csv", "id,label\n002,x\n")
    write_text(data / "test.csv", "id\n001\n")
    dataset = open_dataset(data)
    assert [(item.path, item.label, item.split) for item in dataset.items] == [
        ("images/000.jpg", "x", "train"),
        ("images/001.jpg", "y", "train"),
        ("images/002.jpg", "x", "validation"),
    ]
    assert dataset.read(2) == (folder / "stripes" / "000.jpg").read_bytes()
    assert "test.csv was not read: it has none of the labels of train.csv." in dataset.notes
    write_text(data / "test.csv", "id,blurred,dark\n001,1,1\n")  # not one column for each class
    assert open_dataset(data).items == dataset.items
    write_text(data / "test.csv", "a,b\n1,2\n")
    assert any(
        note.startswith("test.csv was not read: ") and "no path column" in note for note in open_dataset(data).notes
    )
    write_text(data / "test.csv", "id,label\n002,y\n")
    assert [item.split for item in open_dataset(data).items] == ["train", "train", "test", "validation"]


def test_a_table_with_submission_in_its_name_is_one_unless_it_is_an_example(folder):
    flat = copied(folder, *"ab")
    write_text(flat / "submission_labels.csv", "path,label\na.jpg,x\nb.jpg,y\n")
    assert open_dataset(flat).classes == ("x", "y")


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("is_train", "1,0", ["train", "validation"]),
        ("is_test", "yes,no", ["test", "train"]),
        ("isolate", "train,test", ["train", "test"]),
    ],
)
def test_columns_of_yes_and_no_are_those_of_a_split_alone(folder, column, values, expected):
    first, second = values.split(",")
    rows = [f"path,label,{column}", f"disc/000.jpg,x,{first}", f"stripes/000.jpg,y,{second}"]
    write_text(folder / "t.csv", "\n".join(rows) + "\n")
    dataset = open_dataset(folder / "t.csv", ReadOptions(split_column=column))
    assert [item.split for item in dataset.items] == expected


def test_of_two_spellings_of_a_column_the_usual_one_is_read(folder):
    rows = ["file_name,filename,name,label,choice"]
    rows += ["disc/000.jpg,disc/000.jpg,Ann,x,p", "stripes/000.jpg,stripes/000.jpg,Bob,y,q"]
    write_text(folder / "t.csv", "\n".join(rows) + "\n")
    assert labels(open_dataset(folder / "t.csv")) == [("disc/000.jpg", "x", "train"), ("stripes/000.jpg", "y", "train")]


def test_a_table_beside_folders_of_images_and_masks_says_the_labels(folder):
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
        for image in "ab":
            shutil.copy(folder / "disc" / "000.jpg", folder / "data" / name / f"{image}.jpg")
    write_text(folder / "data" / "labels.csv", "path,label\nimages/a.jpg,x\nimages/b.jpg,y\n")
    assert open_dataset(folder / "data").classes == ("x", "y")


def test_a_test_table_of_one_label_that_stands_for_all_is_not_read(folder):
    flat = copied(folder, *"abcd")
    write_text(flat / "train.csv", "path,label\na.jpg,0\nb.jpg,1\n")
    write_text(flat / "test.csv", "path,label\nc.jpg,0\nd.jpg,0\n")
    dataset = open_dataset(flat)
    assert [item.path for item in dataset.items] == ["a.jpg", "b.jpg"]
    assert "test.csv was not read: all its rows have one label, '0'." in dataset.notes
