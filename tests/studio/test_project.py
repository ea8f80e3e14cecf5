"""Projects: labels in the table, changes and undo, files that move, what an opened folder says."""

import shutil
from pathlib import Path

import pytest
from helpers.photos import write_photos
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart import ReadOptions, open_dataset
from headstart.data.label_cells import LabelCell
from headstart.errors import DataError, ImageError, OptionError
from headstart.studio.project import Project
from headstart.studio.records import ClassExistsError, check_class_name
from headstart.studio.state import NothingToUndoError, StaleVersionError


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", 4)


@pytest.fixture
def project(folder):
    opened = Project(folder)
    yield opened
    opened.close()


def labels_in_table(project) -> dict[str, str]:
    return {item.path: item.label for item in open_dataset(project.table).items}


def paths(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*.jpg")}


def test_a_folder_is_read_as_its_classes(project):
    records = project.state.records.values()
    assert project.state.classes == ("disc", "stripes")
    assert {(r.path, r.label, r.folder_label, r.split) for r in records} == {
        (f"{name}/{i:03}.jpg", name, name, "train") for name in ("disc", "stripes") for i in range(4)
    }


def test_an_image_is_known_by_its_content_and_copies_have_numbers(folder):
    (folder / "disc" / "copy.jpg").write_bytes((folder / "disc" / "000.jpg").read_bytes())
    project = Project(folder)
    ids = {record.path: id for id, record in project.state.records.items()}
    assert ids["disc/copy.jpg"] == f"{ids['disc/000.jpg']}-2"
    project.close()


def test_a_relabel_is_in_the_table_that_fit_reads_and_the_file_stays(project, folder):
    first = next(iter(project.state.records))
    assert project.relabel(1, [first, first], "stripes") == 1
    assert project.state.version == 2
    assert labels_in_table(project)["photos/disc/000.jpg"] == "stripes"
    assert (folder / "disc" / "000.jpg").is_file()
    project.close()
    assert Project(folder).state.records[first].label == "stripes"


def test_a_table_that_another_program_has_changed_is_not_overwritten(project, folder):
    ids = list(project.state.records)
    project.relabel(1, ids[:1], "stripes")
    text = project.table.read_text("utf-8").replace("photos/disc/003.jpg,disc", "photos/disc/003.jpg,stripes")
    project.table.write_text(text, "utf-8")
    for change in (
        lambda: project.relabel(None, ids[:1], "disc"),
        lambda: project.add_class(None, "new"),
        lambda: project.undo(None),
        lambda: project.add(b"x", ".jpg", "disc", None),
    ):
        with pytest.raises(OptionError, match=r"photos-labels\.csv was changed by another program"):
            change()
    assert project.table.read_text("utf-8") == text
    assert sorted(path.name for path in folder.iterdir()) == [".studio", "disc", "stripes"]
    project.close()
    assert {r.path: r.label for r in Project(folder).state.records.values()}["disc/003.jpg"] == "stripes"


def test_a_table_that_is_removed_meanwhile_is_written_again(project, folder):
    """Only the studio still has its labels; started again, it would read those of the folders."""
    ids = list(project.state.records)
    project.relabel(1, ids[:1], "stripes")
    text = project.table.read_text("utf-8")
    project.table.unlink()
    project.relabel(None, ids[1:2], "stripes")
    project.undo(None)
    assert project.table.read_text("utf-8") == text
    project.close()
    assert Project(folder).state.records[ids[0]].label == "stripes"


def test_a_file_that_has_changed_meanwhile_is_not_taken_for_the_image(project, folder, tmp_path):
    record = next(iter(project.state.records.values()))
    assert project.read(record) == (folder / record.path).read_bytes()
    other = tmp_path / "other.jpg"
    other.write_bytes((folder / "stripes" / "000.jpg").read_bytes())
    (folder / record.path).unlink()
    (folder / record.path).symlink_to(other)
    with pytest.raises(ImageError, match="has changed since the studio was started; start it again"):
        project.read(record)


def test_a_change_by_one_who_has_not_seen_the_last_one_is_refused(project):
    ids = list(project.state.records)
    project.relabel(1, ids[:1], "stripes")
    for change in (
        lambda: project.relabel(1, ids[:1], "disc"),
        lambda: project.delete(1, ids[:1]),
        lambda: project.apply(1),
        lambda: project.undo(1),
    ):
        with pytest.raises(StaleVersionError):
            change()
    assert project.state.records[ids[0]].label == "stripes"


def test_undo_takes_back_every_kind_of_change(project, folder):
    before, before_paths = project.state.records, paths(folder)
    ids = list(before)
    project.relabel(None, ids[:2], "stripes")
    project.apply(None)
    assert paths(folder) == before_paths - {"disc/000.jpg", "disc/001.jpg"} | {
        "stripes/000-2.jpg",
        "stripes/001-2.jpg",
    }
    project.delete(None, ids[1:3])
    project.accept(None, ids[4:])
    project.rename_class(None, "stripes", "lines")
    project.add(b"new", ".jpg", "disc", "burst-1")
    assert project.trash_count == 2
    texts = [project.undo(None) for _ in range(6)]
    assert texts == [
        "Added 1 image to disc",
        "Renamed stripes to lines",
        "Accepted the labels of 4 images",
        "Deleted 2 images",
        "Moved 2 files to the folders of their labels",
        "Relabelled 2 images to stripes",
    ]
    assert project.state.records == before
    assert project.state.classes == ("disc", "stripes")
    assert paths(folder) == before_paths
    assert project.trash_count == 1  # the image that was added: undoing throws nothing away
    with pytest.raises(NothingToUndoError):
        project.undo(None)


def test_a_deleted_image_is_in_the_trash_and_not_in_the_table(project, folder):
    id, record = next(iter(project.state.records.items()))
    data = project.read(record)
    assert project.delete(None, [id]) == 1
    assert "photos/disc/000.jpg" not in labels_in_table(project)
    assert (folder / ".studio" / "trash" / id / "disc" / "000.jpg").read_bytes() == data
    project.close()
    assert id not in Project(folder).state.records


def test_an_added_image_has_a_name_by_its_content_and_its_group(project, folder):
    record, is_new = project.add(b"bytes", ".jpg", "disc", "burst-1")
    assert is_new
    assert record.path == f"disc/{record.id[:16]}.jpg"
    assert project.add(b"bytes", ".jpg", "stripes", None) == (record, False)
    items = {item.path: item for item in open_dataset(project.table).items}
    assert items[f"photos/{record.path}"].group == "burst-1"
    project.close()
    assert Project(folder).state.records[record.id].group == "burst-1"


def test_classes_keep_their_order_and_empty_ones_stay(folder):
    project = Project(folder)
    project.add_class(None, "ants")
    project.relabel(None, list(project.state.records), "ants")
    project.close()
    assert Project(folder).state.classes == ("disc", "stripes", "ants")
    assert (folder / "ants").is_dir()


def test_an_empty_folder_becomes_a_project(tmp_path):
    project = Project(tmp_path / "new")
    project.add_class(None, "ants")
    project.add(b"1", ".jpg", "ants", None)
    project.close()
    again = Project(tmp_path / "new")
    assert again.state.classes == ("ants",)
    assert [record.label for record in again.state.records.values()] == ["ants"]


def test_images_without_a_class_folder_can_be_labelled_and_moved(tmp_path, folder):
    loose = tmp_path / "loose"
    loose.mkdir()
    (folder / "disc" / "000.jpg").rename(loose / "a.jpg")
    project = Project(loose)
    (id,) = project.state.records
    assert project.state.records[id].label is None
    project.add_class(None, "disc")
    project.relabel(None, [id], "disc")
    assert project.apply(None) == (1, [])
    assert (loose / "disc" / "a.jpg").is_file()


def test_folders_of_splits_keep_theirs(tmp_path):
    write_photos(tmp_path / "data" / "train", 3)
    write_photos(tmp_path / "data" / "test", 2, seed=1)
    project = Project(tmp_path / "data")
    splits = {record.path: record.split for record in project.state.records.values()}
    assert splits["train/disc/000.jpg"] == "train"
    assert splits["test/disc/001.jpg"] == "test"
    first = next(id for id, record in project.state.records.items() if record.path == "train/disc/000.jpg")
    project.relabel(None, [first], "stripes")
    project.apply(None)
    assert project.state.records[first].path == "train/stripes/000-2.jpg"
    record, _ = project.add(b"new", ".jpg", "disc", None)
    assert record.path.startswith("train/disc/")


def test_only_one_process_opens_a_project(project, folder):
    with pytest.raises(OptionError, match="open in another studio"):
        Project(folder)
    project.close()
    Project(folder).close()


def test_rows_whose_files_are_gone_stay_in_the_table(project, folder):
    first = next(iter(project.state.records))
    project.relabel(None, [first], "stripes")
    project.close()
    (folder / "disc" / "000.jpg").rename(folder.parent / "elsewhere.jpg")
    again = Project(folder)
    assert first not in again.state.records
    assert any("not there" in note for note in again.notes)
    again.accept(None, list(again.state.records)[:1])
    again.close()
    (folder.parent / "elsewhere.jpg").rename(folder / "disc" / "000.jpg")
    assert Project(folder).state.records[first].label == "stripes"


def test_a_table_with_columns_that_the_studio_does_not_write_is_kept_as_it_was_found(folder):
    table = folder.parent / "photos-labels.csv"
    rows = [f"photos/{path},{path.split('/')[0]},by hand" for path in sorted(paths(folder)) if "/" in path]
    found = "\n".join(["path,label,remark", *rows])
    table.write_text(found, "utf-8")
    project = Project(folder)
    assert (folder / ".studio" / "labels-as-found.csv").read_text("utf-8") == found
    assert sum("labels-as-found.csv" in note for note in project.notes) == 1
    project.accept(None, list(project.state.records)[:1])
    project.close()
    again = Project(folder)  # the table is the studio's now
    assert not any("as-found" in note for note in again.notes)
    assert [path.name for path in (folder / ".studio").glob("labels-as-found*")] == ["labels-as-found.csv"]
    again.close()


@pytest.mark.parametrize("path", ["../x.jpg", "/etc/x.jpg", "photos/../x.jpg", "other/disc/000.jpg", "photos/a\0.jpg"])
def test_a_table_that_names_files_elsewhere_is_refused(folder, path):
    (folder.parent / "photos-labels.csv").write_text(f"path,label\n{path},disc\n")
    with pytest.raises(DataError, match=r"not in photos/|cannot be read"):
        Project(folder)


@pytest.mark.parametrize("label", ["../x", "a/b", ".hidden", "a\\\\b"])
def test_labels_that_would_be_paths_are_refused(folder, label):
    (folder.parent / "photos-labels.csv").write_text(f"path,label\nphotos/disc/000.jpg,{label}\n")
    with pytest.raises(DataError, match="cannot be the name of a folder"):
        Project(folder)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["model", "label_model"])
def test_a_model_is_no_project_and_nothing_is_written_into_it(kind, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(f"{kind}_folder"), tmp_path / "model")
    before = files(tmp_path)
    with pytest.raises(OptionError, match=r"model holds a model, .*; headstart serve .*model tries it\.$"):
        Project(folder)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("name", "what"), [("parity.json", "an export"), ("features.json", "features")])
def test_an_export_and_features_are_no_project(tmp_path, name, what):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(OptionError, match=f"holds {what}, and the studio labels a folder of images"):
        Project(tmp_path / "out")
    assert files(tmp_path) == {"out", f"out/{name}"}


def test_a_class_that_a_fit_of_the_table_takes_for_several_labels_is_refused(folder):
    rows = "photos/disc/000.jpg,disc;stripes,train,,,,\nphotos/disc/001.jpg,disc,train,,,,\n"
    (folder.parent / "photos-labels.csv").write_text(f"path,label,split,group,finding,action,why\n{rows}", "utf-8")
    with pytest.raises(OptionError, match="has several labels an image; leave --single-label out"):
        Project(folder, multi_label=False)  # as a fit refuses it
    (folder / ".studio").mkdir()
    (folder / ".studio" / "classes.json").write_text('{"multi_label": false}')  # by which the studio has been here
    before = files(folder.parent) | {"photos/.studio/lock.sqlite"}
    with pytest.raises(OptionError, match=r"could not name the class 'disc;stripes', .*rename its folder, or correct"):
        Project(folder)
    assert files(folder.parent) == before
    table = folder.parent / "photos-labels.csv"
    table.write_text(table.read_text("utf-8").replace("disc;stripes", "disc or stripes"), "utf-8")
    opened = Project(folder)
    assert not opened.multi_label
    assert {"disc or stripes", "disc", "stripes"} == {record.label for record in opened.state.records.values()}
    opened.close()


ODD = ['["a", "b"]', '["a"]', "[2019]", "?x", "?", "??", "x?", " x", "x ", "a\nb", "\nx", "nan", "NaN", "null", "none"]
ODD += [
    "1",
    "1.0",
    "01",
    "true",
    "0",
    "inf",
    "1_0",
    "10",
    "=x",
    "'=x",
    "''",
    "'x",
    '"',
    '"x"',
    "a\\b",
    "\\xe9",
]
ODD += ["\u2028x", "N.A.", "\ufeffx", "\r", "x\x85", ";"]
ODD += ["a", "b", "a;b", "a|b", "a, b", "a,b", "black|white", "x" * 250, "\u00e9" * 120, "e\u0301"]
FOLDER_NAMES = st.sampled_from(ODD) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: not name.startswith("."))


@settings(deadline=None, max_examples=150)
@given(names=st.lists(FOLDER_NAMES, min_size=1, max_size=4, unique=True), multi_label=st.booleans())
@example(names=['["a", "b"]', "c"], multi_label=False)
@example(names=["?x", "c"], multi_label=False)
@example(names=["?x", "c"], multi_label=True)
@example(names=[" x", "c"], multi_label=False)
@example(names=["a\\b", "c"], multi_label=False)
@example(names=["1", "1.0"], multi_label=True)
def test_a_class_of_a_folder_is_read_by_a_fit_of_the_table_or_refused(tmp_path_factory, names, multi_label):
    parent = tmp_path_factory.mktemp("odd")
    folder = parent / "photos"
    for number, name in enumerate(names):
        (folder / "train" / name).mkdir(parents=True)  # in folders of splits any name is that of a class
        (folder / "train" / name / f"{number}.jpg").write_bytes(str(number).encode())
    before = files(folder)
    try:
        project = Project(folder, multi_label=multi_label)
    except (OptionError, DataError):
        assert files(folder) <= before | {".studio", ".studio/lock.sqlite"}
        assert not (parent / "photos-labels.csv").exists()
        return
    project.accept(None, list(project.state.records))
    known = {f"photos/{r.path}": (r.label, r.labels) for r in project.state.records.values()}
    project.close()
    dataset = open_dataset(project.table, ReadOptions(multi_label=True) if multi_label else ReadOptions())
    found = {
        item.path: (item.label, None if item.labels is None else LabelCell(item.labels, item.unknown))
        for item in dataset.items
    }
    assert found == known
    assert len(known) == len(names)
    again = Project(folder)
    assert {f"photos/{r.path}": (r.label, r.labels) for r in again.state.records.values()} == known
    again.close()


def test_a_class_is_not_begun_beside_one_that_it_makes_several_labels_of(folder):
    (folder / "disc").rename(folder / "ant, bee")
    project = Project(folder)
    project.relabel(None, list(project.state.records)[:1], "stripes")
    text = project.table.read_text("utf-8")
    with pytest.raises(ClassExistsError, match="which a reader of tables takes for several labels beside 'bee'"):
        project.add_class(None, "bee")
    with pytest.raises(ClassExistsError):
        project.rename_class(None, "stripes", "ant")
    with pytest.raises(ClassExistsError):
        project.add(b"bytes", ".jpg", "ant", None)
    assert project.table.read_text("utf-8") == text
    assert {path.name for path in folder.iterdir()} == {"ant, bee", "stripes", ".studio"}
    project.close()


def test_a_class_of_files_that_are_gone_is_not_made_several_labels_either(folder):
    (folder.parent / "photos-labels.csv").write_text('path,label\nphotos/gone.jpg,"ant,bee"\n', "utf-8")
    project = Project(folder)
    assert "ant,bee" not in project.state.classes
    with pytest.raises(OptionError, match="could not name the class 'ant,bee'"):
        project.add(b"bytes", ".jpg", "ant", None)
    assert not list((folder / "ant").glob("*"))
    project.close()


def test_no_class_is_read_from_what_says_in_a_table_that_there_is_none(folder):
    rows = [f"photos/disc/{i:03}.jpg,{text}" for i, text in enumerate(["?", "nan", "NULL", "disc"])]
    (folder.parent / "photos-labels.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    project = Project(folder)
    assert [record.label for record in project.state.records.values()][:4] == [None, None, None, "disc"]
    assert project.state.classes == ("disc", "stripes")
    project.close()


def test_a_table_of_one_class_an_image_is_not_a_folder(tmp_path):
    (tmp_path / "table.csv").write_text("path,label\na.jpg,ants\nb.jpg,bees\n")
    with pytest.raises(OptionError, match="is not a folder; give the folder of the images"):
        Project(tmp_path / "table.csv")


def test_links_out_of_the_project_are_not_followed(project, folder, tmp_path):
    project.accept(None, list(project.state.records))
    project.close()
    (folder / "disc" / "000.jpg").rename(tmp_path / "outside.jpg")
    (folder / "disc" / "000.jpg").symlink_to(tmp_path / "outside.jpg")
    again = Project(folder)
    assert "disc/000.jpg" not in {record.path for record in again.state.records.values()}
    again.close()
    for path in (folder / ".studio").iterdir():
        path.unlink()
    (folder / ".studio").rmdir()
    (folder / ".studio").symlink_to(tmp_path)
    with pytest.raises(OptionError, match="is a link"):
        Project(folder)


def test_a_class_folder_that_is_a_link_out_of_the_project_is_not_written_to(project, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    project.add_class(None, "ants")
    (folder / "ants").rmdir()
    (folder / "ants").symlink_to(outside)
    with pytest.raises(OSError, match="link out of the project"):
        project.add(b"1", ".jpg", "ants", None)
    project.relabel(None, list(project.state.records)[:1], "ants")
    with pytest.raises(OSError, match="link out of the folder"):
        project.apply(None)
    assert list(outside.iterdir()) == []
    assert (folder / "disc" / "000.jpg").is_file()


@pytest.mark.parametrize(
    "name",
    ["", " ", "a/b", "a\\b", "..", ".hidden", "a\nb", "x" * 101, "train", "nan", "NA", "=1", "a,b", "CON:", "\u202ea"],
)
def test_names_that_are_no_class(name, project):
    with pytest.raises(OptionError):
        project.add_class(None, name)
    assert project.state.version == 1


def test_names_of_classes_are_composed_unicode():
    assert check_class_name("cafe\u0301 ") == "caf\u00e9"


def test_a_write_that_fails_changes_nothing(project, folder, monkeypatch):
    before, table = project.state, project.table
    first = next(iter(before.records))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.studio.project.write_labels", fail)
    for change in (lambda: project.delete(None, [first]), lambda: project.relabel(None, [first], "stripes")):
        with pytest.raises(OSError, match="No space"):
            change()
    with pytest.raises(OSError, match="No space"):
        project.add(b"1", ".jpg", "disc", None)
    assert project.state is before
    assert paths(folder) == {record.path for record in before.records.values()}
    assert not table.exists()
    assert project.undo_text is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"classes": 1}',
        '{"classes": ["a/b"]}',
        '{"classes": [""]}',
        '{"multi_label": 1}',
        '{"before": 2}',
        "x" * 99,
    ],
)
def test_a_list_of_classes_that_cannot_be_used_is_no_reason_to_begin_anew(project, folder, text):
    project.add_class(None, "ants")
    project.close()
    file = folder / ".studio" / "classes.json"
    file.write_text(text if "before" not in text else '{"classes": ["a"], "before": 2, "table": ""}')
    table = folder.parent / "photos-labels.csv"
    table.unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"classes.json cannot be used .*or move it away"):
        Project(folder)
    file.unlink()
    Project(folder).close()


def test_more_classes_than_a_project_can_have_are_refused(tmp_path):
    for number in range(1001):
        (tmp_path / "photos" / f"class {number}").mkdir(parents=True)
    shutil.copy(next(iter(write_photos(tmp_path / "made", 1).rglob("*.jpg"))), tmp_path / "photos" / "class 0")
    with pytest.raises(DataError, match="more than 1,000 classes; use headstart fit"):
        Project(tmp_path / "photos")


def test_a_rename_that_is_not_written_leaves_one_name(project, folder, monkeypatch):
    project.add_class(None, "ants")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.studio.project.write_labels", fail)
        with pytest.raises(OSError, match="No space"):
            project.rename_class(None, "disc", "round")
    project.close()
    again = Project(folder)
    assert again.state.classes == ("disc", "stripes", "ants")
    again.close()


def test_rows_whose_files_are_gone_are_renamed_and_stay_accepted(project, folder):
    first = next(iter(project.state.records))
    project.accept(None, [first])
    project.close()
    (folder / "disc" / "000.jpg").rename(folder.parent / "elsewhere.jpg")
    again = Project(folder)
    assert again.rename_class(None, "disc", "round") == 3
    again.close()
    (folder.parent / "elsewhere.jpg").rename(folder / "disc" / "000.jpg")
    third = Project(folder)
    record = third.state.records[first]
    assert (record.label, record.is_accepted, third.state.classes) == ("round", True, ("round", "stripes"))
    third.close()


def test_an_image_that_is_added_again_does_not_take_the_row_of_its_file_that_is_gone(project, folder):
    record, _ = project.add(b"bytes", ".jpg", "disc", "burst-1")
    project.close()
    (folder / record.path).unlink()
    again = Project(folder)
    added, is_new = again.add(b"bytes", ".jpg", "disc", "burst-2")
    assert is_new
    assert added.path != record.path
    again.close()
    assert Project(folder).state.records[record.id].group == "burst-2"


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("first", "second"), [("1", "1.0"), ("true", "1"), ("0.5", "0.50"), ("False", "0.0")])
def test_one_number_in_two_spellings_is_no_second_name(tmp_path, multi_label, first, second):
    project = Project(tmp_path / "new", multi_label=multi_label)
    project.add_class(None, first)
    project.add_class(None, "2")
    with pytest.raises(ClassExistsError, match=r"may mean the same as .* to a reader of tables"):
        project.add_class(None, second)
    with pytest.raises(ClassExistsError):
        project.rename_class(None, "2", second)
    project.rename_class(None, first, second)
    assert project.state.classes == (second, "2")
    project.close()
