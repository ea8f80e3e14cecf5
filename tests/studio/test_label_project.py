"""Projects of several labels an image: how they begin, states of labels, the table, undo, and what is refused."""

import csv
import json
import shutil

import pytest
from helpers.labels import write_labelled
from helpers.photos import write_photos

from headstart import ReadOptions, open_dataset
from headstart.data.label_cells import LabelCell
from headstart.errors import DataError, OptionError
from headstart.studio.label_sets import state_of
from headstart.studio.project import Project
from headstart.studio.records import ClassExistsError
from headstart.studio.state import NotFoundError, StaleVersionError


@pytest.fixture
def folder(tmp_path):
    """Six images, of which a table beside the folder says the labels."""
    write_labelled(tmp_path / "photos", 6)
    rows = ["000.png,disc;square", "001.png,disc", "002.png,", "003.png,?", "004.png,stripes;?disc", "005.png,disc;?"]
    lines = [f"photos/train_{row}" for row in rows]
    (tmp_path / "photos-labels.csv").write_text("\n".join(["path,labels", *lines]), "utf-8")
    return tmp_path / "photos"


@pytest.fixture
def project(folder):
    opened = Project(folder)
    yield opened
    opened.close()


def ids(project):
    return [id for _, id in sorted((record.path, id) for id, record in project.state.records.items())]


def cells(project):
    return [project.state.records[id].labels for id in ids(project)]


def states(project, number, name):
    return state_of(cells(project)[number], name)


def in_table(project):
    """The cells of the table by the number in the name of the image."""
    with project.table.open(newline="", encoding="utf-8") as file:
        return {row["path"][-7:-4]: row["labels"] for row in csv.DictReader(file)}


def read_by_fit(project):
    dataset = open_dataset(project.table, ReadOptions(multi_label=True))
    return {item.path[-7:-4]: (item.labels, item.unknown, item.is_rest_unknown) for item in dataset.items}


def test_a_table_of_several_labels_beside_the_folder_opens(project):
    assert project.multi_label
    assert project.state.classes == ("disc", "square", "stripes")
    assert cells(project) == [
        LabelCell(("disc", "square")),
        LabelCell(("disc",)),
        LabelCell(()),
        None,
        LabelCell(("stripes",), ("disc",)),
        LabelCell(("disc",), (), True),
    ]
    summary = "3 labels, 1.0 an image, 1 image without any, 3 labels of images not known, 1 not labelled yet"
    assert f"photos is multi-label: {summary}." in project.notes


def test_the_table_that_was_found_is_kept_before_it_is_written_anew(project, folder):
    found = project.table.read_bytes()
    project.set_labels(None, ids(project)[:1], {"disc": "absent"})
    assert project.table.read_bytes() != found
    assert (folder / ".studio" / "labels-as-found.csv").read_bytes() == found
    assert any("labels-as-found.csv" in note for note in project.notes)
    project.close()
    other = b"path,labels\nphotos/train_000.png,disc;square\nphotos/train_001.png,disc\n"
    project.table.write_bytes(other)
    for _ in range(2):  # the second time it is known
        Project(folder).close()
    kept = {path.name: path.read_bytes() for path in (folder / ".studio").glob("labels-as-found*")}
    assert kept == {"labels-as-found.csv": found, "labels-as-found-2.csv": other}


def test_a_table_in_the_folder_opens_and_stays_as_it_is(labelled, tmp_path):
    folder = shutil.copytree(labelled.parent, tmp_path / "photos")
    before = (folder / "labels.csv").read_bytes()
    project = Project(folder)
    expected = {item.path: item for item in open_dataset(labelled).items}
    found = {record.path: record for record in project.state.records.values()}
    assert {path: (item.labels, item.split) for path, item in expected.items()} == {
        path: (record.labels.present, record.split) for path, record in found.items()
    }
    project.set_labels(None, ids(project)[:1], {"disc": "unknown"})
    project.close()
    assert (folder / "labels.csv").read_bytes() == before
    again = Project(folder)
    assert states(again, 0, "disc") == "unknown"
    assert len(again.state.records) == 110
    again.close()


def test_class_folders_begin_with_the_label_of_each_folder(tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    shutil.copy(folder / "disc" / "000.jpg", folder / "loose.jpg")
    project = Project(folder, multi_label=True)
    found = {record.path: record.labels for record in project.state.records.values()}
    assert found == {
        **{f"disc/{i:03}.jpg": LabelCell(("disc",)) for i in range(2)},
        **{f"stripes/{i:03}.jpg": LabelCell(("stripes",)) for i in range(2)},
        "loose.jpg": None,
    }
    project.close()
    again = Project(folder)  # which says by itself that it is one of several labels
    assert again.multi_label
    again.set_labels(None, ids(again)[:1], {"stripes": "present"})
    again.close()
    (folder / "disc" / "new.jpg").write_bytes((folder / "disc" / "001.jpg").read_bytes() + b" ")
    third = Project(folder)
    assert next(r.labels for r in third.state.records.values() if r.path == "disc/new.jpg") is None
    assert "1 images that the table does not name are not labelled yet." in third.notes
    third.close()


def test_an_empty_project_begins_without_labels_and_images_without_any(tmp_path):
    project = Project(tmp_path / "new", multi_label=True)
    assert project.state.classes == ()
    project.add(b"1", ".jpg", (), None)
    project.add_class(None, "disc")
    record, _ = project.add(b"2", ".jpg", ("disc", "dots"), "burst-1")
    assert project.state.classes == ("disc", "dots")
    assert [r.labels for r in project.state.records.values()] == [None, LabelCell(("disc", "dots"))]
    assert record.path == f"{record.id[:16]}.jpg"  # no folder means a label
    assert not (tmp_path / "new" / "disc").exists()
    project.close()
    again = Project(tmp_path / "new")
    assert [(r.labels, r.group) for r in again.state.records.values()] == [
        (None, None),
        (LabelCell(("disc", "dots")), "burst-1"),
    ]
    again.close()


def test_with_the_first_label_the_others_are_absent(project):
    unlabelled = ids(project)[3]
    assert project.set_labels(1, [unlabelled], {"square": "present"}) == 1
    assert project.state.version == 2
    assert cells(project)[3] == LabelCell(("square",))
    project.undo(None)
    assert cells(project)[3] is None
    project.set_labels(None, [unlabelled], {"square": "absent"})  # says nothing of the others
    assert [states(project, 3, name) for name in project.state.classes] == ["unknown", "absent", "unknown"]
    project.set_labels(None, [unlabelled], {}, "absent")
    assert cells(project)[3] == LabelCell(())
    project.set_labels(None, [unlabelled], {}, "unknown")
    assert cells(project)[3] is None


def test_states_of_several_images_are_one_change_that_is_in_the_table(project):
    chosen = ids(project)
    assert project.set_labels(None, [chosen[0], chosen[0], chosen[4], chosen[5]], {"square": "present"}) == 2
    assert project.undo_text == "square present: 2 images"
    assert in_table(project) == {
        "000": "disc;square",
        "001": "disc",
        "002": "",
        "003": "?",
        "004": "square;stripes;?disc",
        "005": "disc;square;?",
    }
    assert read_by_fit(project) == {
        "000": (("disc", "square"), (), False),
        "001": (("disc",), (), False),
        "002": ((), (), False),
        "004": (("square", "stripes"), ("disc",), False),
        "005": (("disc", "square"), (), True),
    }
    project.set_labels(None, [chosen[5]], {"stripes": "absent"})
    assert cells(project)[5] == LabelCell(("disc", "square"))
    assert project.set_labels(None, [chosen[5]], {"stripes": "absent"}) == 0
    assert project.state.version == 3


def test_a_reopened_project_has_the_same_labels(project, folder):
    project.set_labels(None, ids(project)[1:3], {"stripes": "unknown", "square": "present"})
    project.accept(None, ids(project)[:1])
    project.accept(None, ids(project)[1:2], "disc")
    before = {id: (r.labels, r.is_accepted, r.accepted) for id, r in project.state.records.items()}
    assert before[ids(project)[1]] == (LabelCell(("disc", "square"), ("stripes",)), False, ("disc",))
    project.close()
    again = Project(folder)
    assert {id: (r.labels, r.is_accepted, r.accepted) for id, r in again.state.records.items()} == before
    again.close()


def test_a_label_that_is_new_is_not_known_of_the_images_there_are(project, folder):
    project.add_class(None, "dots")
    assert [states(project, i, "dots") for i in range(6)] == ["unknown"] * 6
    assert in_table(project)["000"] == "disc;square;?dots"
    assert in_table(project)["005"] == "disc;?"
    project.set_labels(None, ids(project)[:1], {"dots": "present"})
    assert [states(project, i, "dots") for i in range(6)] == ["present"] + ["unknown"] * 5
    project.undo(None)
    project.undo(None)
    assert project.state.classes == ("disc", "square", "stripes")
    assert cells(project)[0] == LabelCell(("disc", "square"))


def test_a_label_is_renamed_wherever_it_is(project, folder):
    assert project.rename_class(None, "disc", "circle") == 3
    assert cells(project)[0] == LabelCell(("circle", "square"))
    assert cells(project)[4] == LabelCell(("stripes",), ("circle",))
    with pytest.raises(ClassExistsError):
        project.rename_class(None, "circle", "Square")
    project.close()
    again = Project(folder)
    assert again.state.classes == ("circle", "square", "stripes")
    again.close()


def test_what_was_accepted_is_so_until_it_changes(project):
    first = ids(project)[0]
    project.accept(None, [first])
    project.set_labels(None, [first], {"disc": "absent"})
    record = project.state.records[first]
    assert (record.is_accepted, record.accepted) == (False, ("square", "stripes"))
    project.accept(None, [first], "disc")
    assert project.state.records[first].is_accepted
    assert project.accept(None, [first], "disc") == 0
    assert project.accept(None, [ids(project)[3]]) == 0  # nobody has labelled it


def test_labels_with_separators_are_lists_in_the_table_that_fit_reads(tmp_path):
    write_labelled(tmp_path / "photos", 3)
    rows = ["train_000.png", "train_001.png", "train_002.png"]
    lists = ['["black|white","disc"]', '["disc"]', "[]"]
    lines = [json.dumps({"path": f"photos/{a}", "label": json.loads(b)}) for a, b in zip(rows, lists, strict=True)]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines), "utf-8")
    dataset = open_dataset(tmp_path / "labels.jsonl")
    assert dataset.label_names == ("black|white", "disc")
    body = "".join(f'photos/{a},"{b.replace(chr(34), chr(34) * 2)}"\n' for a, b in zip(rows, lists, strict=True))
    (tmp_path / "photos-labels.csv").write_text(f"path,label\n{body}", "utf-8")
    project = Project(tmp_path / "photos")
    project.set_labels(None, ids(project)[2:], {"black|white": "present", "disc": "unknown"})
    assert read_by_fit(project) == {
        "000": (("black|white", "disc"), (), False),
        "001": (("disc",), (), False),
        "002": (("black|white",), ("disc",), False),
    }
    project.close()


def test_a_table_that_was_edited_is_read_as_fit_reads_it(project, folder):
    project.set_labels(None, ids(project)[:1], {"stripes": "present"})
    project.close()
    text = project.table.read_text("utf-8")
    project.table.write_text(text.replace(";", "|"), "utf-8")
    again = Project(folder)
    assert cells(again)[0] == LabelCell(("disc", "square", "stripes"))
    assert cells(again)[4] == LabelCell(("stripes",), ("disc",))
    again.close()
    project.table.write_text(text.replace(";", "|", 1), "utf-8")
    with pytest.raises(DataError, match="seems to separate labels by"):
        Project(folder)


def test_a_fix_list_of_check_opens_as_it_is(labelled, tmp_path, label_fit):
    from headstart.check import write_table

    folder = shutil.copytree(labelled.parent, tmp_path / "photos")
    dataset = open_dataset(folder / "labels.csv")
    beside = open_dataset(folder)
    items = [item.path for item in beside.items]
    rows = write_table(beside, [], {path: i for i, path in enumerate(items)}, tmp_path / "photos-labels.csv")
    assert rows == 110
    (folder / "labels.csv").unlink()
    project = Project(folder)
    assert project.multi_label
    found = {record.path: record.labels.present for record in project.state.records.values()}
    assert found == {item.path: item.labels for item in dataset.items}
    assert len({record.group for record in project.state.records.values()}) == 110
    project.close()


def test_a_project_says_of_which_kind_it_is(project, folder, tmp_path):
    project.close()
    with pytest.raises(OptionError, match="several labels an image; leave --single-label out"):
        Project(folder, multi_label=False)
    single = Project(write_photos(tmp_path / "single", 2))
    single.relabel(None, list(single.state.records)[:1], "stripes")
    single.close()
    with pytest.raises(OptionError, match="project of one class an image"):
        Project(tmp_path / "single", multi_label=True)


def test_what_cannot_be_said_of_labels_is_refused(project):
    chosen = ids(project)[:1]
    with pytest.raises(NotFoundError):
        project.set_labels(None, chosen, {"no such": "present"})
    with pytest.raises(NotFoundError):
        project.set_labels(None, ["0" * 32], {"disc": "present"})
    with pytest.raises(NotFoundError):
        project.accept(None, chosen, "no such")
    with pytest.raises(StaleVersionError):
        project.set_labels(7, chosen, {"disc": "absent"})
    with pytest.raises(OptionError, match="no one folder"):
        project.apply(None)
    assert project.state.version == 1


def test_a_table_that_names_files_elsewhere_is_refused(folder):
    (folder.parent / "photos-labels.csv").write_text("path,labels\nphotos/train_000.png,a;b\nother/x.png,a\n", "utf-8")
    with pytest.raises(DataError, match="which is not in photos/"):
        Project(folder)


def test_rows_whose_files_are_gone_stay_in_the_table_and_do_not_know_new_labels(project, folder):
    project.close()
    (folder / "train_000.png").rename(folder.parent / "gone.png")
    again = Project(folder)
    again.add_class(None, "dots")
    again.close()
    (folder.parent / "gone.png").rename(folder / "train_000.png")
    third = Project(folder)
    assert cells(third)[0] == LabelCell(("disc", "square"), ("dots",))
    third.close()


FIX_LIST = "path,label,split,group,finding,action,why\n"


def known(project):
    """What is known of each label of each image, by path."""
    names = sorted(project.state.classes)
    return {r.path: {name: state_of(r.labels, name) for name in names} for r in project.state.records.values()}


@pytest.fixture
def fix_list(tmp_path):
    """Three images, and their fix list of several labels, as a check writes it."""
    write_labelled(tmp_path / "photos", 3)
    rows = "".join(f"photos/train_00{i}.png,{text},train,,,,\n" for i, text in enumerate(["a;b", "a", "?b"]))
    (tmp_path / "photos-labels.csv").write_text(FIX_LIST + rows, "utf-8")
    return tmp_path / "photos"


def test_a_fix_list_whose_first_opening_was_interrupted_is_of_several_labels(fix_list, monkeypatch):
    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headstart.studio.opening._file_hash", stop)
        with pytest.raises(KeyboardInterrupt):
            Project(fix_list)
    project = Project(fix_list)
    assert (project.multi_label, project.state.classes) == (True, ("a", "b"))
    project.close()


def test_a_project_of_several_labels_is_one_by_its_table_alone(tmp_path):
    folder = write_photos(tmp_path / "photos", 3)
    project = Project(folder, multi_label=True)
    project.set_labels(None, ids(project)[:1], {}, "absent")
    assert project.table.read_text("utf-8").splitlines()[0] == "path,labels,split,group,finding,action,why"
    before = cells(project)
    project.close()
    shutil.rmtree(folder / ".studio")
    with pytest.raises(OptionError, match="has several labels an image; leave --single-label out"):
        Project(folder, multi_label=False)
    again = Project(folder)
    assert (again.multi_label, again.state.classes, cells(again)) == (True, ("disc", "stripes"), before)
    again.close()


def test_where_no_image_has_a_label_the_table_is_of_several_and_has_no_class_of_its_own(tmp_path):
    folder = tmp_path / "photos"
    write_labelled(folder, 2)
    project = Project(folder, multi_label=True)
    project.add_class(None, "dog")
    project.set_labels(None, ids(project)[:1], {}, "absent")
    project.close()
    assert [line.split(",")[1] for line in project.table.read_text("utf-8").splitlines()] == ["labels", "", "?"]
    shutil.rmtree(folder / ".studio")
    again = Project(folder)
    assert (again.multi_label, again.state.classes, cells(again)) == (True, (), [LabelCell(()), None])
    assert sum("names no label, since no image has one" in note for note in again.notes) == 1
    again.close()


def test_a_fix_list_that_no_two_labels_prove_is_of_several(tmp_path):
    from headstart.check import write_table

    folder = tmp_path / "photos"
    write_labelled(folder, 3)
    rows = "photos/train_000.png,2019\nphotos/train_001.png,dog\nphotos/train_002.png,"
    (tmp_path / "given.csv").write_text(f"path,label\n{rows}\n", "utf-8")
    dataset = open_dataset(tmp_path / "given.csv", ReadOptions(multi_label=True))
    write_table(dataset, [], {item.path: i for i, item in enumerate(dataset.items)}, tmp_path / "photos-labels.csv")
    project = Project(folder)
    assert (project.multi_label, project.state.classes) == (True, ("2019", "dog"))
    assert cells(project) == [LabelCell(("2019",)), LabelCell(("dog",)), LabelCell(())]
    project.close()


def test_a_fix_list_that_was_refused_and_corrected_is_of_several_labels(fix_list):
    table = fix_list.parent / "photos-labels.csv"
    good = table.read_text("utf-8")
    table.write_text(good.replace("photos/train_002", "other/train_002"), "utf-8")
    with pytest.raises(DataError):
        Project(fix_list)
    table.write_text(good, "utf-8")
    with pytest.raises(OptionError, match="leave --single-label out"):
        Project(fix_list, multi_label=False)
    project = Project(fix_list, multi_label=True)
    assert project.state.classes == ("a", "b")
    project.close()


def test_what_was_asked_for_holds_after_an_interrupted_opening(tmp_path, monkeypatch):
    folder = write_photos(tmp_path / "photos", 2)

    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headstart.studio.opening._file_hash", stop)
        with pytest.raises(KeyboardInterrupt):
            Project(folder, multi_label=True)
    project = Project(folder)
    assert project.multi_label
    assert known(project)["disc/000.jpg"] == {"disc": "present", "stripes": "absent"}
    project.close()


def test_more_labels_than_a_project_can_have_are_refused_and_a_list_that_cannot_be_read_too(folder):
    names = ";".join(f"label {i}" for i in range(1000))
    table = folder.parent / "photos-labels.csv"
    rows = f"path,labels\nphotos/train_000.png,{names}\nphotos/train_001.png,label 1\n"
    table.write_text(f"{rows}photos/train_002.png,one more\n", "utf-8")
    with pytest.raises(DataError, match="more than 1,000 labels; use headstart fit"):
        Project(folder)
    table.write_text(rows, "utf-8")
    project = Project(folder)
    assert len(project.state.classes) == 1000
    project.close()
    (folder / ".studio" / "classes.json").write_text("{")
    with pytest.raises(DataError, match="cannot be used"):
        Project(folder)


@pytest.mark.parametrize("stage", ["write_labels", "table_hash"])
@pytest.mark.parametrize("change", ["add", "rename"])
def test_a_change_of_labels_that_is_not_written_says_nothing_of_any_image(project, folder, monkeypatch, change, stage):
    before = known(project)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def try_it():
        return project.add_class(None, "dots") if change == "add" else project.rename_class(None, "disc", "dots")

    with monkeypatch.context() as patch:
        patch.setattr(f"headstart.studio.project.{stage}", fail)
        with pytest.raises(OSError, match="No space"):
            try_it()
    assert known(project) == before
    shutil.copytree(folder.parent, folder.parent.parent / f"{folder.parent.name}-killed")
    killed = Project(folder.parent.parent / f"{folder.parent.name}-killed" / "photos")
    assert known(killed) == before
    killed.close()
    project.set_labels(None, ids(project)[:1], {"square": "absent"})  # the list of the labels is that of this table
    after = known(project)
    project.close()
    again = Project(folder)
    assert known(again) == after
    assert sorted(again.state.classes) == ["disc", "square", "stripes"]
    again.close()


def test_a_label_that_every_image_is_without_stays_so(project, folder):
    project.set_labels(None, ids(project), {"square": "absent"})
    before = known(project)
    project.close()
    again = Project(folder)
    assert known(again) == before
    assert {states["square"] for states in before.values()} == {"absent"}
    again.close()


def opened_again(project, folder):
    project.close()
    return Project(folder)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_rows_without_a_label_keep_their_split_and_group(tmp_path, place):
    write_labelled(tmp_path / "photos", 5)
    rows = [
        "train_000.png,disc;square,train,g0",
        "train_001.png,?,test,g1",
        "train_002.png,disc,validation,g2",
        "train_000.png,disc,train,g0",
        "train_002.png,?,train,g2",
    ]
    file, above = (
        (tmp_path / "photos-labels.csv", "photos/") if place == "beside" else (tmp_path / "photos/labels.csv", "")
    )
    file.write_text("\n".join(["path,label,split,group", *(f"{above}{row}" for row in rows)]), "utf-8")
    project = Project(tmp_path / "photos")
    said = f"names {above}train_000.png and 1 more in several rows; the last one with a label counts"
    assert any(said in note for note in project.notes)
    assert not any("no label" in note or "--layout" in note for note in project.notes)
    project.set_labels(None, ids(project)[3:4], {"disc": "present"})
    project = opened_again(project, tmp_path / "photos")
    found = {r.path[-7:-4]: (r.labels, r.split, r.group) for r in project.state.records.values()}
    assert found == {
        "000": (LabelCell(("disc",)), "train", "g0"),
        "001": (None, "test", "g1"),
        "002": (LabelCell(("disc",)), "validation", "g2"),
        "003": (LabelCell(("disc",)), "train", None),
        "004": (None, "train", None),
    }
    assert not any("several rows" in note for note in project.notes)
    project.close()


def test_a_row_of_the_own_table_that_another_row_replaces_is_named(project, folder):
    project.set_labels(None, ids(project)[:1], {"stripes": "present"})
    project.close()
    with project.table.open("a", encoding="utf-8") as file:
        file.write("photos/train_000.png,square,train,,,,\n")
    again = Project(folder)
    assert any("names train_000.png in several rows; the last one counts" in note for note in again.notes)
    assert cells(again)[0] == LabelCell(("square",))
    again.close()


def test_a_column_of_zeros_is_a_label_that_no_image_has(tmp_path):
    write_labelled(tmp_path / "photos", 3)
    rows = ["000.png,1,1,0", "001.png,0,1,0", "002.png,0,0,0"]
    text = "\n".join(["path,dog,cat,zebra", *(f"photos/train_{row}" for row in rows)])
    (tmp_path / "photos-labels.csv").write_text(text, "utf-8")
    project = Project(tmp_path / "photos")
    assert project.state.classes == ("cat", "dog", "zebra")
    project.set_labels(None, ids(project)[2:], {"cat": "present"})
    project = opened_again(project, tmp_path / "photos")
    assert [states(project, i, "zebra") for i in range(3)] == ["absent"] * 3
    project.close()


def test_labels_that_look_alike_are_named_with_what_the_studio_can_do(tmp_path):
    write_labelled(tmp_path / "photos", 2)
    text = "path,labels\nphotos/train_000.png,dog;Dog\nphotos/train_001.png,dog\n"
    (tmp_path / "photos-labels.csv").write_text(text, "utf-8")
    project = Project(tmp_path / "photos")
    project.close()
    (note,) = [note for note in project.notes if "look alike" in note]
    assert note.startswith("The class names 'Dog' and 'dog' look alike")
    assert note.endswith("to merge them, give the images of one the other label instead.")


@pytest.mark.parametrize("name", ["nan", "NULL", "?x", "n/a", "NA"])
def test_a_column_that_no_cell_can_name_is_refused(tmp_path, name):
    from headstart.check import write_table

    write_labelled(tmp_path / "photos", 2)
    table = tmp_path / "photos-labels.csv"
    table.write_text(f"path,dog,{name}\nphotos/train_000.png,1,1\nphotos/train_001.png,0,1\n", "utf-8")
    with pytest.raises(DataError, match=r"has a label called .*rename the column"):
        Project(tmp_path / "photos")
    with pytest.raises(OptionError, match=r"could not name the label .*rename its column"):
        write_table(open_dataset(table), [], {}, tmp_path / "fix.csv")
    assert not (tmp_path / "fix.csv").exists()


def test_rows_whose_files_are_gone_take_part_in_renames_and_undo_and_stay_accepted(project, folder):
    project.accept(None, ids(project)[:1])
    project.accept(None, ids(project)[1:2], "disc")
    project.close()
    for number in (0, 1):
        (folder / f"train_00{number}.png").rename(folder.parent / f"gone{number}.png")
    again = Project(folder)
    assert again.rename_class(None, "disc", "circle") == 1  # of the images that are there
    again.add_class(None, "dots")
    again.undo(None)
    again.add_class(None, "dashes")
    assert again.state.classes == ("circle", "square", "stripes", "dashes")
    again.close()
    for number in (0, 1):
        (folder.parent / f"gone{number}.png").rename(folder / f"train_00{number}.png")
    third = Project(folder)
    assert third.state.classes == ("circle", "square", "stripes", "dashes")
    assert cells(third)[0] == LabelCell(("circle", "square"), ("dashes",))
    found = [third.state.records[id] for id in ids(third)[:2]]
    assert [(record.is_accepted, record.accepted) for record in found] == [(True, ()), (False, ("circle",))]
    assert states(third, 2, "circle") == "absent"
    third.close()


def test_what_is_accepted_of_many_long_labels_is_read_again(tmp_path):
    write_labelled(tmp_path / "photos", 3)
    names = [f"{number:03}" + "\u0434" * 97 for number in range(1000)]
    rows = f"path,labels\nphotos/train_000.png,{';'.join(names)}\nphotos/train_001.png,{names[0]}\n"
    (tmp_path / "photos-labels.csv").write_text(rows, "utf-8")
    project = Project(tmp_path / "photos")
    first = ids(project)[0]
    project.accept(None, [first])
    project.set_labels(None, [first], {names[1]: "unknown"})
    before = project.state.records[first]
    assert before.accepted == (names[0], *names[2:])
    project = opened_again(project, tmp_path / "photos")
    assert project.state.records[first] == before
    assert len(open_dataset(project.table).label_names) == 1000
    project.close()


def test_a_change_whose_cell_could_not_be_read_again_is_refused(tmp_path):
    write_labelled(tmp_path / "photos", 4)
    names = [f"{number:03}" + "x" * 997 for number in range(140)]
    rows = [";".join(names[:70]), ";".join(names[70:]), names[0], names[70]]
    text = "\n".join(["path,labels", *(f"photos/train_00{i}.png,{row}" for i, row in enumerate(rows))])
    (tmp_path / "photos-labels.csv").write_text(text, "utf-8")
    project = Project(tmp_path / "photos")
    before = project.state
    with pytest.raises(OptionError, match=r"A cell of train_000\.png would have 140,139 characters"):
        project.set_labels(None, ids(project)[:1], dict.fromkeys(names, "present"))
    assert project.state is before
    project.set_labels(None, ids(project)[2:], {names[1]: "present"})
    opened_again(project, tmp_path / "photos").close()
