"""Images with several labels: how tables and Python programs say so."""

import json
from unicodedata import normalize

import numpy as np
import pytest
from helpers.photos import write_photos
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from headstart.data import ReadOptions, as_dataset, concatenate, from_images, open_dataset
from headstart.data.class_names import with_class_names
from headstart.data.label_cells import LabelColumns
from headstart.data.label_sets import label_matrix, label_sets
from headstart.errors import DataError


def read(folder, text, name="t.csv", **options):
    (folder / name).write_text(text, "utf-8")
    return open_dataset(folder / name, ReadOptions(**options))


def table(*cells, column="labels"):
    rows = [f'{i}.jpg,"{cell}"' for i, cell in enumerate(cells)]
    return "\n".join([f"path,{column}", *rows])


def labels(dataset):
    return [item.labels for item in dataset.items]


@pytest.mark.parametrize("separator", [";", "|", " | "])
def test_a_cell_holds_several_labels_where_a_part_is_a_label_by_itself(tmp_path, separator):
    dataset = read(tmp_path, table(f"beach{separator}sunset", "beach", "", f"dog{separator}cat{separator}dog"))
    assert labels(dataset) == [("beach", "sunset"), ("beach",), (), ("cat", "dog")]
    assert dataset.label_names == ("beach", "cat", "dog", "sunset")
    assert dataset.is_multi_label
    assert dataset.label_summary == "multi-label: 4 labels, 1.2 an image, 1 image without any"
    assert "several an image" in dataset.layout


def test_it_looks_like_unlabelled_images_to_what_knows_one_label_an_image(tmp_path):
    dataset = read(tmp_path, table("a;b", "a"))
    assert dataset.classes == ()
    assert {item.label for item in dataset.items} == {None}


def test_a_name_with_a_bar_is_one_class_unless_several_labels_are_asked_for(tmp_path):
    text = table("black|white", "grey")
    dataset = read(tmp_path, text)
    assert dataset.classes == ("black|white", "grey")
    assert "'black|white' of" in dataset.notes[0]
    assert "if it is several labels, give --multi-label" in dataset.notes[0]
    assert labels(read(tmp_path, text, multi_label=True)) == [("black", "white"), ("grey",)]
    assert labels(read(tmp_path, text, label_separator="|")) == [("black", "white"), ("grey",)]


def test_commas_separate_labels_only_where_that_is_declared(tmp_path):
    text = table("beach, sunset", "sunset")
    with pytest.raises(DataError, match="'sunset' is a label too; if a comma separates labels, give --label-separator"):
        read(tmp_path, text)
    assert labels(read(tmp_path, text, label_separator=",")) == [("beach", "sunset"), ("sunset",)]


def test_two_separators_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels by ';' in row 2 and '\|' in row 3; say by which: --label-separator"):
        read(tmp_path, table("a;b", "a|c", "a"))
    dataset = read(tmp_path, table("a;b", "a|c", "a"), label_separator=";")
    assert dataset.label_names == ("a", "a|c", "b")


def test_one_label_an_image_can_be_forced_to_be_a_multi_label_set(tmp_path):
    dataset = read(tmp_path, table("a", "b", ""), multi_label=True)
    assert labels(dataset) == [("a",), ("b",), ()]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            table("a;b", "a"),
            {"multi_label": False},
            "is multi-label, row 2 has several, or one that is not known; give each image one",
        ),
        (table("a"), {"multi_label": False, "label_separator": ";"}, "its labels are separated by ';'"),
        ("path\n0.jpg\n", {"multi_label": True}, "has no labels; expected a column of labels"),
        ("path,a,b\n0.jpg,1,\n", {"multi_label": True}, "has no labels; expected a column of labels"),
        ("path,a,b\n0.jpg,1,1\n", {"label_separator": ";"}, "leave the label separator out"),
        (table("a;b"), {"label_separator": ""}, "An empty text separates no labels"),
        (table("", ""), {"multi_label": True}, "no label holds of any image"),
        (table("1;2", "1", "1.0"), {}, "the labels '1' and '1.0' may mean the same"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message) as error_info:
        read(tmp_path, text, **options)
    assert "\n" not in str(error_info.value)


def test_folders_have_one_label_an_image(tmp_path):
    write_photos(tmp_path, 2)
    with pytest.raises(DataError, match="several labels need a table"):
        open_dataset(tmp_path, ReadOptions(multi_label=True))


def test_columns_with_ones_for_several_labels(tmp_path):
    """Roboflow's _classes.csv."""
    dataset = read(tmp_path, "filename, cat, dog\n0.jpg, 1, 1\n1.jpg, 0, 0\n2.jpg, 0, ?\n3.jpg, ?, ?\n")
    assert labels(dataset) == [("cat", "dog"), (), ()]
    assert [item.unknown for item in dataset.items] == [(), (), ("dog",)]
    assert dataset.skip_counts == {"no label": 1}
    assert dataset.label_summary.endswith("2 images without any, 1 label of an image not known")


def test_unknown_labels_in_a_text(tmp_path):
    dataset = read(tmp_path, table("a;b", "a;?", "?b;c", "?", "a;?a;b"))
    assert labels(dataset) == [("a", "b"), ("a",), ("c",), ("a", "b")]
    assert [item.unknown for item in dataset.items] == [(), (), ("b",), ()]
    assert [item.is_rest_unknown for item in dataset.items] == [False, True, False, False]
    _, known = label_matrix(dataset.items, ("a", "b", "d"))  # d is named elsewhere
    assert known.tolist() == [[True] * 3, [True, False, False], [True, False, True], [True] * 3]
    assert dataset.label_summary.endswith("3 labels of images not known")
    assert dataset.skip_counts == {"no label": 1}


def test_a_label_that_is_not_known_is_one_of_several(tmp_path):
    dataset = read(tmp_path, table("cat", "?dog", "cat", "?"))
    assert dataset.is_multi_label
    assert dataset.label_names == ("cat", "dog")


def test_where_a_label_is_not_known_texts_hold_several(tmp_path):
    dataset = read(tmp_path, table("cat;dog", "bird;cat;dog", "?cat"))
    assert dataset.label_names == ("bird", "cat", "dog")
    assert [item.labels for item in dataset.items] == [("cat", "dog"), ("bird", "cat", "dog"), ()]


def test_a_mark_for_not_known_is_no_class(tmp_path):
    dataset = read(tmp_path, table("cat", "?", "dog", "cat"))
    assert not dataset.is_multi_label
    assert dataset.classes == ("cat", "dog")
    assert len(dataset) == 3
    assert "skipped: no label (1.jpg)" in " ".join(dataset.notes)


def test_lists_in_json_lines_and_in_cells_of_csv(tmp_path):
    values = [["cat", "dog"], [], ["dog", "dog"], None, ["?cat"], "dog"]
    text = "\n".join(json.dumps({"file": f"{i}.jpg", "label": value}) for i, value in enumerate(values))
    dataset = read(tmp_path, text, "t.jsonl")
    assert labels(dataset) == [("cat", "dog"), (), ("dog",), (), ("dog",)]
    assert dataset.items[3].unknown == ("cat",)
    assert dataset.skip_counts == {"no label": 1}
    cells = ['["cat", "dog"]', "[]", '["dog"]']
    rows = "\n".join(f"{i}.jpg\t{cell}" for i, cell in enumerate(cells))
    assert labels(read(tmp_path, f"path\tlabel\n{rows}", "t.tsv")) == [("cat", "dog"), (), ("dog",)]


def test_lists_of_one_label_are_one_label_an_image(tmp_path):
    text = "\n".join(json.dumps({"file": f"{i}.jpg", "label": [value]}) for i, value in enumerate(["cat", "dog"]))
    assert read(tmp_path, text, "t.jsonl").classes == ("cat", "dog")


def test_the_table_of_each_split_is_read_alike(tmp_path):
    """Roboflow's export, where no image of the validation split has several labels."""
    for split, text in (("train", "filename,cat,dog\na.jpg,1,1\n"), ("valid", "filename,cat,dog\na.jpg,0,0\n")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(b"")
        (tmp_path / split / "_classes.csv").write_text(text, "utf-8")
    dataset = open_dataset(tmp_path)
    assert [(item.path, item.labels, item.split) for item in dataset.items] == [
        ("train/a.jpg", ("cat", "dog"), "train"),
        ("valid/a.jpg", (), "validation"),
    ]


def test_inputs_of_a_prediction_have_no_labels(tmp_path):
    dataset = read(tmp_path, table("a;b", "a"), layout="image")
    assert labels(dataset) == [None, None]
    assert not dataset.is_multi_label


def test_labels_are_renamed_merged_and_left_out(tmp_path):
    text = table("tabby;dog", "tabby;siamese;?", "noise;?tabby", "?tabby;siamese")
    dataset = read(tmp_path, text, multi_label=True)
    renamed = with_class_names(dataset, {"tabby": "cat", "siamese": "cat", "noise": ""})
    assert renamed.label_names == ("cat", "dog")
    assert labels(renamed) == [("cat", "dog"), ("cat",), (), ("cat",)]
    assert [item.unknown for item in renamed.items] == [(), (), ("cat",), ()]
    assert [item.is_rest_unknown for item in renamed.items] == [False, True, False, False]
    (tmp_path / "names.csv").write_text("noise,\ntabby,cat\nsiamese,cat\n", "utf-8")
    opened = read(tmp_path, text, multi_label=True, classes=str(tmp_path / "names.csv"))
    assert labels(opened) == labels(renamed)
    assert any("leaves out noise (1): 1 labels" in note for note in opened.notes)


def test_datasets_of_several_labels_are_joined(tmp_path):
    first, second = read(tmp_path, table("a;b", "a")), read(tmp_path, table("c;a", "c"), "u.csv")
    joined = concatenate(first, second)
    assert joined.label_names == ("a", "b", "c")
    assert labels(joined) == [("a", "b"), ("a",), ("a", "c"), ("c",)]


def test_lists_of_labels_in_python():
    dataset = from_images(["x.jpg", "y.jpg", "z.jpg"], [[10, 2], [], {2}])
    assert labels(dataset) == [("10", "2"), (), ("2",)]
    assert dataset.label_names == ("2", "10")  # in the order of scikit-learn's MultiLabelBinarizer
    with pytest.raises(DataError, match="Image 1 has 'b', others have lists"):
        from_images(["x.jpg", "y.jpg"], [["a"], "b"])
    with pytest.raises(DataError, match="of two types"):
        from_images(["x.jpg", "y.jpg"], [["a"], [1]])
    with pytest.raises(DataError, match="No label holds of any image"):
        from_images(["x.jpg"], [[]])


def test_a_matrix_of_zeros_and_ones_in_python():
    pandas = pytest.importorskip("pandas")
    matrix = np.array([[1, 0, 1], [0, 0, 0], [1, np.nan, 0]])
    dataset = as_dataset(["x.jpg", "y.jpg", "z.jpg"], matrix)
    assert dataset.label_names == ("0", "1", "2")
    assert labels(dataset) == [("0", "2"), (), ("0",)]
    assert dataset.items[2].unknown == ("1",)
    named = as_dataset(["x.jpg", "y.jpg", "z.jpg"], pandas.DataFrame(matrix, columns=["dog", "cat", "owl"]))
    assert named.label_names == ("dog", "cat", "owl")
    assert labels(named) == [("dog", "owl"), (), ("dog",)]
    with pytest.raises(DataError, match="Image 0 has 2 in the column 1; expected 0 or 1"):
        as_dataset(["x.jpg"], np.array([[1, 2]]))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="?\x00\ud800", exclude_categories=["Cs", "Zs", "Cc"]))
SETS = st.lists(st.sets(NAMES.filter(lambda name: name.strip() == name and name), max_size=4), min_size=1)


@given(SETS.filter(any))
def test_python_lists_are_scikit_learns_indicator_matrix(sets):
    found = label_sets([sorted(names) for names in sets])
    assert found is not None
    binarizer = MultiLabelBinarizer()
    # Names in several forms of Unicode are one label.
    expected = binarizer.fit_transform([sorted({normalize("NFC", name) for name in names}) for names in sets])
    matrix = [[int(name in present) for name in found.names] for present in found.present]
    assert matrix == expected.tolist()


@given(st.lists(st.sampled_from(["a", "b", "c", "?a", "?b", "?", ""]), max_size=5))
def test_a_cell_says_of_each_label_one_thing(parts):
    """The oracle goes through the parts one at a time."""
    columns = LabelColumns("t.csv", "labels", (), None)
    cell = columns.several(2, {"labels": ";".join(parts)}, ";")
    state = dict.fromkeys("abc", "no")
    for part in parts:
        if part.startswith("?") and part != "?" and state[part[1]] != "yes":
            state[part[1]] = "unknown"
        elif part in state:
            state[part] = "yes"
    if "?" in parts:
        state = {name: "unknown" if held == "no" else held for name, held in state.items()}
    if cell is None:
        assert "yes" not in state.values()
        return
    found = dict.fromkeys("abc", "unknown" if cell.rest else "no")
    found |= dict.fromkeys(cell.unknown, "unknown") | dict.fromkeys(cell.present, "yes")
    assert found == state


def test_a_doubted_label_in_a_table_of_one_class_says_what_an_empty_cell_means(tmp_path):
    doubted = table("ant", "?bee", "bee", "", "")
    (note,) = read(tmp_path, doubted).notes
    assert "since a cell has '?bee'" in note
    assert "so an empty cell (2 of 5 rows) says that an image has none of the labels" in note
    assert "write ? alone" in note
    alone = read(tmp_path, table("ant", "?", "bee", "", ""))  # what the note says
    assert [item.label for item in alone.items] == ["ant", "bee"]
    for text, options in (
        (doubted, {"multi_label": True}),
        (table("ant", "?bee", "bee"), {}),
        (table("ant;bee", "?bee", "bee", ""), {}),
    ):
        assert read(tmp_path, text, **options).notes == ()


@pytest.mark.parametrize("missing", ["NA", "nan", "N/A"])
def test_a_text_for_a_missing_value_does_not_say_that_no_label_holds(tmp_path, missing):
    dataset = read(tmp_path, table("beach;sunset", "beach", missing, "", f"sunset;{missing}"))
    assert labels(dataset) == [("beach", "sunset"), ("beach",), (), ("sunset",)]
    assert dataset.skip_counts == {"no label but NA" if missing == "NA" else "no label": 1}
    assert dataset.label_names == ("beach", "sunset")
