"""Generated tables: every common name of a column, delimiter and form of a value, against what they must hold."""

import csv
import io
import json
import zipfile
from importlib.util import find_spec

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data import open_dataset

FILES = ["deep/a1.jpg", "deep/b2.jpg", "deep/c3.jpg", "x.jpg", "y z.jpg"]
PATH_COLUMNS = ["path", "file", "filename", "file_name", "image", "image_id", "img", "id", "name"]
LABEL_COLUMNS = ["label", "labels", "class", "class_name", "category", "target", "species", "y"]
SPLITS = {"train": "train", "Training": "train", "val": "validation", "VALID": "validation", "dev": "validation"}
SPLITS |= {"test": "test", "": "train"}
IS_VALID = {"True": "validation", "1": "validation", "yes": "validation", "False": "train", "0": "train", "no": "train"}
MISSING = ["", "nan", "NaN", "<NA>", "null", "N/A", "NA"]
CLASSES = ["ant", "bee", "black, white", "été", "7"]
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
CASES = st.sampled_from([str.lower, str.upper, str.title])


@st.composite
def tables(draw):
    """Return a table as columns and rows, and what a dataset of it must hold: items, and skipped rows by reason."""
    case = draw(CASES)
    by_id = draw(st.booleans())
    kind = draw(st.sampled_from(["label", "one-hot"]))
    split_kind = draw(st.sampled_from(["none", "split", "is_valid"]))
    has_group = draw(st.booleans())
    columns = [case(draw(st.sampled_from(PATH_COLUMNS)))]
    columns += [case(draw(st.sampled_from(LABEL_COLUMNS)))] if kind == "label" else CLASSES
    columns += {"none": [], "split": [case("split")], "is_valid": [case("is_valid")]}[split_kind]
    columns += ["group"] if has_group else []
    order = draw(st.permutations(range(len(columns))))
    rows, items, skipped = [], [], []
    for number in range(draw(st.integers(1, 8))):
        path = draw(st.sampled_from([*FILES, ""]))
        label = draw(st.sampled_from([*CLASSES, None]))
        written = path.rsplit("/", 1)[-1].removesuffix(".jpg") if by_id else path
        row = [written]
        if kind == "label":
            row.append(draw(st.sampled_from(MISSING)) if label is None else label)
        else:
            row += ["1" if label == name else "0" for name in CLASSES]
        split = "train"
        if split_kind != "none":
            text = draw(st.sampled_from([*(SPLITS if split_kind == "split" else IS_VALID)]))
            split = (SPLITS if split_kind == "split" else IS_VALID)[text]
            row.append(text)
        group = draw(st.sampled_from(["", "one", "two"])) if has_group else ""
        row += [group] if has_group else []
        rows.append([row[i] for i in order])
        if not path:
            skipped.append((f"row {number + 2}", "no path"))
        elif label is None:
            skipped.append((written, "no label"))
        else:
            items.append((path, label, split, group or None))
    return [columns[i] for i in order], rows, items, skipped


def as_csv(columns, rows, delimiter):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([columns, *rows])
    return stream.getvalue()


def as_parquet(columns, rows):
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    table = pyarrow.table({name: [row[i] for row in rows] for i, name in enumerate(columns)})
    pyarrow.parquet.write_table(table, stream, row_group_size=3)
    return stream.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    tables(),
    st.sampled_from([",", ";", "\t", "json", *(["parquet"] if find_spec("pyarrow") else [])]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_generated_table_is_read_as_what_it_says(tmp_path_factory, generated, form, archived, encoding):
    columns, rows, items, skipped = generated
    root = tmp_path_factory.mktemp("table")
    if form == "parquet":
        text, name = "", "metadata.parquet"
    elif form == "json":
        text = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
        name = "metadata.jsonl"
    else:
        text, name = as_csv(columns, rows, form), "metadata.csv"
    files = {name: text.encode(encoding)}
    files |= {path: path.encode() for path in FILES}
    if form == "parquet":
        files[name] = as_parquet(columns, rows)
    for path, content in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(content)
    uri, prefix = root / name, ""
    if archived:
        uri = root / "d.zip"
        prefix = f"{uri}/"
        with zipfile.ZipFile(uri, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
    if not items:
        return
    dataset = open_dataset(uri)
    found = [(item.path.removeprefix(prefix), item.label, item.split, item.group) for item in dataset.items]
    assert found == items
    assert [dataset.read(i) for i in range(len(dataset))] == [path.encode() for path, *_ in items]
    assert list(dataset.classes) == sorted({label for _, label, *_ in items})
    unlabelled = [item.path.removeprefix(prefix) for item in dataset.skipped if item.reason.startswith("no label")]
    assert unlabelled == [written for written, reason in skipped if reason == "no label"]
    assert dataset.skip_counts.get("no path", 0) == sum(reason == "no path" for _, reason in skipped)
