"""Classes renamed, merged and left out by a file, and names that look alike."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data import Dataset, Item, ReadOptions, open_dataset
from headstart.data.class_names import read_class_names, similar_names_notes, with_class_names
from headstart.errors import DataError
from headstart.files import unescape_name

NAMES = ("ants", "bees", "wasps")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "data" / name / f"{i}.jpg").write_bytes(f"{name} {i}".encode())
    return tmp_path / "data"


def renamed(folder, text, encoding="utf-8"):
    path = folder.parent / "names.csv"
    path.write_bytes(text.encode(encoding))
    return open_dataset(folder, ReadOptions(classes=str(path)))


def labels(dataset):
    return {dataset.read(i).decode(): item.label for i, item in enumerate(dataset.items)}


def test_classes_are_renamed_merged_and_left_out(folder):
    dataset = renamed(folder, "class,name\nbees,stinging\nwasps,stinging\nants,\n")
    assert dataset.classes == ("stinging",)
    assert labels(dataset) == {f"{name} {i}": "stinging" for name in ("bees", "wasps") for i in range(2)}
    assert dataset.skip_counts == {"class left out by --classes": 2}
    assert dataset.class_names == (("bees", "stinging"), ("wasps", "stinging"), ("ants", ""))
    assert any("leaves out ants (2): 2 images" in note for note in dataset.notes)
    assert any("merges classes: bees, wasps as stinging" in note for note in dataset.notes)


def test_classes_that_are_not_in_the_file_keep_their_names(folder):
    dataset = renamed(folder, "ants;Ameisen\n")
    assert dataset.classes == ("Ameisen", "bees", "wasps")
    assert any("so named as before: bees, wasps" in note for note in dataset.notes)
    swapped = renamed(folder, "ants,bees\nbees,ants\nwasps,wasps")
    assert labels(swapped)["ants 0"] == "bees"
    assert labels(swapped)["bees 0"] == "ants"
    assert swapped.notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,name\nant,x\n", r"has no class 'ant'; did you mean 'ants'\?"),
        ("class,name\nzebra,x\n", "has no class 'zebra'; it has ants, bees, wasps"),
        ("class,name\nants,x\nants,y\n", "row 3: the class 'ants' has a name already"),
        ("class,name\nants\n", "row 2: expected a class and its new name.*got 'ants'"),
        ("ants,x,y\n", "row 1: expected a class"),
        ("class,name\n,x\n", "row 2: expected a class"),
        ("", "names no class"),
        ("class,name\n", "names no class"),
        ('ants,"x\n', "cannot be read"),
        ("ants,\nbees,\nwasps,\n", "leaves out every class"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_of_one_line(folder, text, message):
    with pytest.raises(DataError, match=message) as error_info:
        renamed(folder, text)
    assert "\n" not in str(error_info.value)


def test_a_missing_or_endless_file_and_data_without_classes(folder, tmp_path):
    with pytest.raises(DataError, match=r"^There is no .*name\.csv; give a file with rows of class,name\.$"):
        open_dataset(folder, ReadOptions(classes=str(tmp_path / "name.csv")))
    with pytest.raises(DataError, match="more than 4,194,304 bytes"):
        renamed(folder, "ants,x\n" * 2**20)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(folder, ReadOptions(classes="/dev/zero"))
    (tmp_path / "names.csv").write_text("ants,x\n")
    with pytest.raises(DataError, match="has no classes"):
        open_dataset(folder, ReadOptions(layout="image", classes=str(tmp_path / "names.csv")))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_and_composed_names(folder, encoding):
    assert renamed(folder, "class;name\nants;Käfer\n", encoding).classes == ("Käfer", "bees", "wasps")
    assert renamed(folder, "ants,Ka\u0308fer\n").classes == ("Käfer", "bees", "wasps")


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "S", "P", "Zs"]), min_size=1, max_size=6).filter(
    lambda text: unescape_name(text) == text  # two backslashes are one: tables write names of bytes that way
)


@settings(max_examples=60, deadline=None)
@given(
    mapping=st.dictionaries(
        WORDS.map(str.strip).filter(lambda name: name and not name.startswith(("'", '"'))),
        WORDS.map(str.strip).filter(lambda name: not name.startswith(("'", '"'))),
        min_size=1,
        max_size=6,
    )
)
def test_any_names_are_read_as_the_csv_module_writes_them(mapping, tmp_path_factory):
    import csv
    import unicodedata

    composed = {unicodedata.normalize("NFC", old): unicodedata.normalize("NFC", new) for old, new in mapping.items()}
    if len(composed) < len(mapping):
        return
    path = tmp_path_factory.mktemp("names") / "names.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("class", "name"), *mapping.items()])
    assert read_class_names(str(path)) == composed


@given(
    items=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30),
    mapping=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "a", "b", "x", "y"])),
)
def test_each_image_gets_the_new_name_of_its_class_or_is_skipped(items, mapping):
    dataset = Dataset(
        "d",
        tuple(Item(str(i), name, "train", key=i) for i, name in enumerate(items)),
        tuple(sorted(set(items))),
        (),
        (),
        str,
    )
    result = with_class_names(dataset, mapping)
    kept = {i: mapping.get(name, name) for i, name in enumerate(items) if mapping.get(name, name)}
    assert {item.key: item.label for item in result.items} == kept
    assert list(result.classes) == sorted(set(kept.values()))
    assert [int(skipped.path) for skipped in result.skipped] == [i for i in range(len(items)) if i not in kept]


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("Ants", "ants"), "'Ants' and 'ants' look alike"),
        (("ant eater", "anteater"), "look alike"),
        (("ａnts", "ants"), "look alike"),
        (("cat", "с\u0430t"), "CYRILLIC SMALL LETTER A, с is CYRILLIC SMALL LETTER ES"),
        (("BAT", "\u0392AT"), "β is GREEK SMALL LETTER BETA"),
        (("Кот", "кот"), "look alike"),
        (("ants", "ants\u200b"), "'ants' and 'ants\\u200b' look alike"),
    ],
)
def test_names_that_look_alike_are_noted(names, part):
    (note,) = similar_names_notes(names)
    assert part in note


@pytest.mark.parametrize("names", [("ants", "bees"), ("кот", "рысь"), ("α", "β"), ("1", "01")])
def test_other_names_are_not(names):
    assert similar_names_notes(names) == []


def test_merged_names_are_no_longer_noted(folder):
    (folder / "Ants").mkdir()
    (folder / "Ants" / "0.jpg").write_bytes(b"Ants 0")
    assert any("look alike" in note for note in open_dataset(folder).notes)
    assert not any("look alike" in note for note in renamed(folder, "Ants,ants").notes)
