"""Files of weights and costs: every form that is read, and dozens that are refused with a line that says why."""

import pytest

from headstart.data.class_values import read_costs, read_weights
from headstart.errors import DataError

WEIGHTS = {
    "plain.csv": "cat,1\ndog,2.5\n",
    "header.csv": "class,weight\ncat,1\ndog,2.5\n",
    "semicolons.csv": "Class;Weight\ncat;1\ndog;2.5\n",
    "tabs.tsv": "cat\t1\ndog\t2.5\n",
    "spaces.csv": "cat, 1\n\n  dog ,2.5\n,\n",
    "mark.csv": "\ufeffcat,1\ndog,2.5",
    "json.json": '{"cat": 1, "dog": 2.5}',
}


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_read(tmp_path, name):
    assert read_weights(written(tmp_path, name, WEIGHTS[name])) == {"cat": 1, "dog": 2.5}


def test_names_of_classes_are_read_as_they_are_written_to_tables(tmp_path):
    path = written(tmp_path, "w.csv", '"\'=cmd()",1\n"a,b",2\ncafe\u0301,3\n')
    assert read_weights(path) == {"=cmd()": 1, "a,b": 2, "caf\u00e9": 3}


COSTS = {
    "costs.csv": "truth,cat,dog\ncat,0,1\ndog,5,0\n",
    "corner.csv": ",cat,dog\ncat,0,1\ndog,5,0",
    "order.csv": ",dog,cat\ndog,0,5\ncat,1,0\n",
    "costs.json": '{"cat": {"cat": 0, "dog": 1}, "dog": {"cat": 5, "dog": 0}}',
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_read(tmp_path, name):
    expected = {"cat": {"cat": 0, "dog": 1}, "dog": {"cat": 5, "dog": 0}}
    assert read_costs(written(tmp_path, name, COSTS[name])) == expected


BAD_WEIGHTS = {
    "empty.csv": ("", "names no class"),
    "only-header.csv": ("class,weight\n", "names no class"),
    "one-cell.csv": ("cat\n", "row 1: expected rows of class,weight"),
    "three.csv": ("cat,1\ndog,2,3\n", "row 2: expected rows of class,weight"),
    "no-name.csv": ("cat,1\n,2\n", "row 2: expected rows"),
    "twice.csv": ("cat,1\ncat,2\n", "row 2: the class 'cat' has a weight already"),
    "text.csv": ("cat,many\n", "the weight of 'cat' is 'many', which is no number"),
    "formula.csv": ("cat,=1+1\n", "the weight of 'cat' is '=1\\+1', which is no number"),
    "comma.csv": ("class;weight\ncat;0,5\n", "is '0,5', which is no number; write it like 2.5"),
    "quote.csv": ('cat,"1\n', "cannot be read"),
    "nul.csv": (b"cat,\x001\n", "no number|cannot be read"),
    "image.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "cannot be read|expected"),
    "list.json": ("[1, 2]", "is no JSON object"),
    "empty.json": ("{}", "is no JSON object"),
    "cut.json": ('{"cat": 1', "cannot be read as JSON"),
    "twice.json": ('{"cat": 1, "cat": 2}', "a name occurs twice"),
    "deep.json": ("[" * 100_000, "nested too deeply|cannot be read"),
    "text.json": ('{"cat": "1"}', "'cat' has '1', which is no number"),
    "true.json": ('{"cat": true}', "'cat' has 'True', which is no number"),
    "nested.json": ('{"cat": {"dog": 1}}', "which is no number"),
    "huge.json": ('{"cat": 1' + "0" * 400 + "}", "too large"),
    "digits.json": ('{"cat": ' + "9" * 5000 + "}", "cannot be read|too large"),
    "large.csv": ("cat,1\n" * 800_000, "more than 4,194,304 bytes"),
    "large.json": (" " * (2**22 + 1), "more than 4,194,304 bytes"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_other_weights_are_refused(tmp_path, name):
    text, message = BAD_WEIGHTS[name]
    with pytest.raises(DataError, match=message) as info:
        read_weights(written(tmp_path, name, text))
    assert "\n" not in str(info.value)


BAD_COSTS = {
    "empty.csv": ("", "has no costs"),
    "header.csv": (",cat,dog\n", "has no costs"),
    "short.csv": (",cat,dog\ncat,0\ndog,1,0\n", "row 2 has 2 cells, the first row 3"),
    "long.csv": (",cat,dog\ncat,0,1,2\n", "row 2 has 4 cells, the first row 3"),
    "twice.csv": (",cat,cat\ncat,0,1\n", "row 1: a class is named twice"),
    "rows.csv": (",cat,dog\ncat,0,1\ncat,0,1\n", "row 3: the class 'cat' has a row already"),
    "text.csv": (",cat,dog\ncat,0,dear\n", "row 2: the cost of predicting 'dog' for 'cat' is 'dear'"),
    "formula.csv": (",cat,dog\ncat,0,=A1\n", "is '=A1', which is no number"),
    "list.json": ("[[0, 1], [1, 0]]", "is no JSON object"),
    "flat.json": ('{"cat": 1}', "expected a first row"),
    "rows.json": ('{"cat": [0, 1]}', "expected a first row"),
    "text.json": ('{"cat": {"dog": "x"}}', "'dog' has 'x', which is no number"),
    "twice.json": ('{"cat": {"dog": 1, "dog": 2}}', "a name occurs twice"),
}


@pytest.mark.parametrize("name", BAD_COSTS)
def test_other_costs_are_refused(tmp_path, name):
    text, message = BAD_COSTS[name]
    with pytest.raises(DataError, match=message):
        read_costs(written(tmp_path, name, text))


@pytest.mark.parametrize("read", [read_weights, read_costs])
def test_a_missing_file_and_a_folder_are_refused(tmp_path, read):
    with pytest.raises(DataError, match=r"^There is no .*w\.csv; give a file with .*[^.]\.$"):
        read(str(tmp_path / "w.csv"))
    with pytest.raises(DataError, match="cannot be read"):
        read(str(tmp_path))
