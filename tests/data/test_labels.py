"""Labels in Python lists and arrays, checked against NumPy and Unicode as oracles."""

import unicodedata
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headstart.data import as_dataset
from headstart.data.labels import as_list, check_labels, class_name, labels_by_class
from headstart.errors import DataError

INT64 = st.integers(-(2**63), 2**63 - 1)
WHOLE_FLOATS = st.integers(-(2**53), 2**53).map(float) | st.just(-0.0)
TEXTS = st.text(max_size=6).filter(lambda text: not text.endswith("\0"))
ACCENTS = st.text("ae\u0301\u0308\u00e9\u00e4\u212b\u00c5\u1e9b\u0323", min_size=1, max_size=4)  # many non-NFC forms
ONE_TYPE = st.one_of(
    *(st.lists(kind, min_size=1, max_size=30) for kind in (INT64, WHOLE_FLOATS, st.booleans(), TEXTS, ACCENTS))
)
MISSING = (None, float("nan"), np.float32("nan"), np.ma.masked)
REFUSED = (0.5, float("inf"), b"cat", 1j, (1, 2), [1], {1}, object(), np.array([1]), np.datetime64("2026-01-01"), "a\0")


def oracle(labels):
    """The classes that ``np.unique`` finds, after texts spelt in several forms of Unicode are given one, NFC."""
    if not isinstance(labels[0], str):
        return np.unique(labels).tolist()
    forms = defaultdict(set)
    for label in labels:
        forms[unicodedata.normalize("NFC", label)].add(label)
    names = [unicodedata.normalize("NFC", label) for label in labels]
    one_form = [name if len(forms[name]) > 1 else label for name, label in zip(names, labels, strict=True)]
    return np.unique(np.array(one_form)).tolist()


@given(ONE_TYPE)
@example(["e\u0301", "\u00e9", "z"])
@example(["\u212b"])
@example(["", " ", "a"])
@example([10, 2, -1])
@example([0.0, -0.0, 1.0])
def test_classes_are_those_of_numpy_in_its_order(labels):
    check_labels(labels)
    found = labels_by_class(labels)
    assert list(found.values()) == oracle(labels)
    assert all(type(label) is type(labels[0]) for label in found.values())
    assert len(set(found)) == len(found)  # names tell classes apart
    assert all(name == unicodedata.normalize("NFC", name) for name in found)


@given(ONE_TYPE)
def test_every_image_has_the_class_of_its_label(labels):
    dataset = as_dataset([b""] * len(labels), labels)
    found = labels_by_class(labels)
    assert dataset.classes == tuple(found)
    for item, label in zip(dataset.items, labels, strict=True):
        of_class = found[item.label]
        same_text = isinstance(label, str) and unicodedata.normalize("NFC", label) == item.label
        assert of_class == label or same_text


@given(ONE_TYPE, st.sampled_from(["list", "array", "objects", "generator", "column"]))
def test_the_container_makes_no_difference(labels, container):
    if container == "generator":
        taken = as_list((label for label in labels), "labels")
    elif container == "column":
        column = np.array(labels)[:, None]
        with pytest.warns(UserWarning, match="A column-vector y was passed"):
            taken = as_list(column, "labels")
    else:
        make = {"list": list, "array": np.array, "objects": lambda values: np.array(values, object)}[container]
        taken = as_list(make(labels), "labels")
    assert [class_name(label) for label in taken] == [class_name(label) for label in labels]
    assert list(labels_by_class(taken)) == list(labels_by_class(labels))


@given(ONE_TYPE, st.data())
def test_a_missing_or_odd_label_is_refused_with_its_row(labels, data):
    row = data.draw(st.integers(0, len(labels)))
    bad = data.draw(st.sampled_from(MISSING + REFUSED))
    if isinstance(bad, str | float) and not isinstance(labels[0], type(bad)) and row > 0:
        row = 0  # else its type is what is wrong first
    is_missing = any(bad is value for value in MISSING)
    words = f"^Image {row} has {'no label' if is_missing else 'the label'}"
    with pytest.raises(DataError, match=words):
        check_labels([*labels[:row], bad, *labels[row:]])


@given(st.tuples(st.integers(), st.booleans(), WHOLE_FLOATS, TEXTS), st.permutations(range(4)), st.integers(2, 4))
def test_labels_of_several_types_are_refused_with_the_first_two(values, order, count):
    mixed = [values[i] for i in order][:count]
    with pytest.raises(DataError) as error:
        check_labels(mixed)
    assert str(error.value).startswith(f"The labels {mixed[0]!r} and {mixed[1]!r} are of two types")


@given(st.lists(st.none() | st.text("ab", min_size=1, max_size=2) | st.just(float("nan")), min_size=1, max_size=8))
def test_groups_keep_their_names_and_missing_ones_are_none(groups):
    dataset = as_dataset([b""] * len(groups), ["x"] * len(groups), groups)
    assert [item.group for item in dataset.items] == [value if isinstance(value, str) else None for value in groups]
