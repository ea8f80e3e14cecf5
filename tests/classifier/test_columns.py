"""Columns of pandas and polars as images, labels and groups."""

import numpy as np
import pytest
from helpers.photos import paths_and_labels

import headstart as hs
from headstart.data import as_dataset
from headstart.errors import DataError


def pandas_column(values, dtype=None):
    pandas = pytest.importorskip("pandas")
    return pandas.Series(values, index=range(7, 7 + len(values)), dtype=dtype, name="column")  # no index from 0


def polars_column(values, dtype=None):
    polars = pytest.importorskip("polars")
    return polars.Series("column", values, dtype=None if dtype is None else getattr(polars, dtype))


COLUMNS = [
    (pandas_column, None, ["b", "a"]),
    (pandas_column, "string", ["b", "a"]),
    (pandas_column, "category", ["b", "a"]),
    (pandas_column, "category", [10, 2]),
    (pandas_column, "int8", [10, 2]),
    (pandas_column, "Int64", [10, 2]),
    (pandas_column, "Float64", [10.0, 2.0]),
    (pandas_column, "boolean", [True, False]),
    (pandas_column, "bool", [True, False]),
    (polars_column, "String", ["b", "a"]),
    (polars_column, "Categorical", ["b", "a"]),
    (polars_column, "Int16", [10, 2]),
    (polars_column, "Float32", [10.0, 2.0]),
    (polars_column, "Boolean", [True, False]),
]


@pytest.mark.parametrize(("column", "dtype", "values"), COLUMNS)
def test_labels_keep_their_type_and_classes_are_sorted(photos, column, dtype, values):
    paths, names = paths_and_labels(photos / "train")
    labels = [values[name == "disc"] for name in names]
    classifier = hs.ImageClassifier(cut="features", head="lda", group_by="none", runtime="onnxruntime")
    classifier.fit(column(paths), column(labels, dtype))
    assert classifier.classes_.tolist() == sorted(values)
    assert type(classifier.classes_.tolist()[0]) is type(values[0])
    assert (classifier.predict(column(paths)) == np.array(labels)).mean() > 0.9
    assert classifier.score(column(paths), column(labels, dtype)) > 0.9


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (pandas_column, "object", ["a", "b", None]),
        (pandas_column, None, ["a", "b", None]),
        (pandas_column, "string", ["a", "b", None]),
        (pandas_column, "category", ["a", "b", None]),
        (pandas_column, "Int64", [1, 2, None]),
        (pandas_column, "float64", [1.0, 2.0, None]),
        (pandas_column, "boolean", [True, False, None]),
        (pandas_column, "datetime64[ns]", [None, None, None]),
        (polars_column, "String", ["a", "b", None]),
        (polars_column, "Categorical", ["a", "b", None]),
        (polars_column, "Int64", [1, 2, None]),
        (polars_column, "Boolean", [True, False, None]),
    ],
)
def test_a_missing_label_is_an_error_that_names_its_row(column, dtype, values):
    row = values.index(None)
    with pytest.raises(DataError, match=rf"^Image {row} has no label \(.*\); leave unlabelled images out\.$"):
        as_dataset(["a.jpg", "b.jpg", "c.jpg"], column(values, dtype))


@pytest.mark.parametrize("column", [pandas_column, polars_column])
def test_an_image_without_a_group_is_a_group_of_its_own(column):
    dataset = as_dataset(["a.jpg", "b.jpg", "c.jpg"], ["x", "y", "x"], column(["one", None, "one"]))
    assert [item.group for item in dataset.items] == ["one", None, "one"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_of_one_column_is_that_column_and_one_of_several_has_zeros_and_ones(library):
    module = pytest.importorskip(library)
    images = module.DataFrame({"path": ["a.jpg", "b.jpg"]})
    assert [item.path for item in as_dataset(images, ["x", "y"]).items] == ["a.jpg", "b.jpg"]
    with pytest.raises(DataError, match="The images are a table of 2 columns; give the column that holds them"):
        as_dataset(module.DataFrame({"path": ["a.jpg"], "label": ["x"]}), ["x"])
    with pytest.raises(DataError, match="Image 0 has 'x' in the column a; expected 0 or 1"):
        as_dataset(["a.jpg"], module.DataFrame({"a": ["x"], "b": ["y"]}))
    several = as_dataset(["a.jpg"], module.DataFrame({"a": [1], "b": [0]}))
    assert (several.label_names, several.items[0].labels) == (("a", "b"), ("a",))
    with pytest.warns(UserWarning, match=r"A column-vector y was passed .* of shape \(2, 1\)"):
        dataset = as_dataset(images, module.DataFrame({"label": ["x", "y"]}))
    assert [item.label for item in dataset.items] == ["x", "y"]


def test_dates_and_other_objects_are_no_labels():
    dates = pandas_column(["2026-01-02", "2026-01-03"], "datetime64[ns]")
    with pytest.raises(DataError, match=r"Image 0 has the label Timestamp\(.*\); expected one name or number"):
        as_dataset(["a.jpg", "b.jpg"], dates)


def test_a_path_that_is_missing_is_quarantined_by_its_row(photos):
    paths, labels = paths_and_labels(photos / "train")
    column = pandas_column([*paths, None])
    classifier = hs.ImageClassifier(cut="features", head="lda", group_by="none", runtime="onnxruntime")
    result = classifier.fit(column, [*labels, "disc"]).result_
    (left_out,) = result.left_out
    assert left_out[0] == f"image {len(paths)}"
    assert "is not an image; expected a path" in left_out[1]
