"""Folders, archives and lists: the right items, the right bytes, and nothing believed."""

import io
import os
import tarfile
import threading
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_photos

from headstart.data import concatenate, from_images, open_dataset, sources
from headstart.errors import DataError, ImageError


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "data" / "train", 3)
    write_photos(tmp_path / "data" / "validation", 2, seed=1)
    return tmp_path / "data"


def items(dataset, root=""):
    return [(i.path.removeprefix(str(root)), i.label, i.split) for i in dataset.items]


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as archive:
        for p in sorted(folder.rglob("*")):
            if p.is_file():
                archive.write(p, prefix + str(p.relative_to(folder)))
    return target


def tarred(folder, target, mode):
    with tarfile.open(target, mode) as archive:
        archive.add(folder, "wrapped")
    return target


def test_class_folders(tmp_path):
    found = open_dataset(write_photos(tmp_path / "d", 3))
    assert len(found) == 6
    assert found.classes == ("disc", "stripes")
    assert found.splits == ("train",)
    assert found.read(0) == Path(found.items[0].path).read_bytes()


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Training", "train"), ("val", "validation"), ("valid", "validation"),
     ("VALIDATION", "validation"), ("test", "test"), ("testing", "test")],
)  # fmt: skip
def test_split_folders_in_any_case(tmp_path, name, split):
    write_photos(tmp_path / "d" / name, 1)
    assert open_dataset(tmp_path / "d").splits == (split,)


def test_splits_and_classes_that_a_split_lacks(tmp_path):
    write_photos(tmp_path / "train", 2, ("ant", "bee", "cat"))
    write_photos(tmp_path / "val", 2, ("bee", "cat"))
    found = open_dataset(tmp_path)
    assert found.classes == ("ant", "bee", "cat")
    assert found.split("validation").classes == found.classes
    assert {i.label for i in found.split("validation").items} == {"bee", "cat"}


def test_wrapping_folders_are_looked_through_and_nested_ones_belong_to_their_class(tmp_path):
    write_photos(tmp_path / "download" / "flower_photos", 2)
    deep = tmp_path / "download" / "flower_photos" / "disc" / "2019" / "may"
    deep.mkdir(parents=True)
    (tmp_path / "download" / "flower_photos" / "disc" / "000.jpg").rename(deep / "000.jpg")
    found = open_dataset(tmp_path / "download")
    assert found.classes == ("disc", "stripes")
    assert len(found) == 4


def test_hidden_files_and_non_pictures_are_counted(folder):
    for name in (".DS_Store", "train/disc/.hidden.jpg", "train/disc/notes.txt", "__MACOSX/disc/a.jpg", "lonely.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    found = open_dataset(folder)
    assert len(found) == 10
    assert found.skipped == {"hidden": 3, "not a picture": 1, "no class folder": 1}


def test_names_in_two_unicode_forms_are_one_class(tmp_path):
    write_photos(tmp_path / "train", 1, (unicodedata.normalize("NFC", "é"), "馬"))
    write_photos(tmp_path / "val", 1, (unicodedata.normalize("NFD", "é"), "馬"))
    assert open_dataset(tmp_path).classes == ("é", "馬")


def test_pictures_without_class_folders_are_unlabelled(tmp_path):
    write_photos(tmp_path, 2)
    found = open_dataset(tmp_path / "disc")
    assert len(found) == 2
    assert found.classes == ()
    assert found.items[0].label is None


def test_nothing_usable_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="it is empty"):
        open_dataset(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="1 not a picture"):
        open_dataset(tmp_path)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"did you mean .*pictures"):
        open_dataset(tmp_path / "picture")
    with pytest.raises(DataError, match="no data set"):
        open_dataset(tmp_path / "a.txt")


def test_links_stay_in_the_folder(folder, tmp_path):
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    (folder / "train" / "disc" / "stolen.jpg").symlink_to(outside)
    (folder / "train" / "disc" / "up").symlink_to(tmp_path)
    (folder / "train" / "disc" / "round").symlink_to(folder / "train" / "disc")
    (folder / "train" / "disc" / "inside.jpg").symlink_to(folder / "train" / "disc" / "000.jpg")
    (folder / "train" / "disc" / "broken.jpg").symlink_to(folder / "nothing.jpg")
    found = open_dataset(folder)
    names = [Path(i.path).name for i in found.items]
    assert "stolen.jpg" not in names
    assert "inside.jpg" in names
    assert "secret.jpg" not in names
    assert len(found) == 11
    assert found.skipped["link that leaves the folder"] == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "train" / "disc" / "pipe.jpg")
    assert open_dataset(folder).skipped["not a file"] == 1


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_archives_hold_what_the_folder_holds_and_nothing_is_unpacked(folder, tmp_path, kind, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    target = tmp_path / f"data.{kind}"
    if kind == "zip":
        zipped(folder, target, "wrapped/")
    else:
        tarred(folder, target, {"tar": "w", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.get(kind, "w:gz"))
    monkeypatch.chdir(work)
    before = sorted(tmp_path.rglob("*"))
    plain, packed = open_dataset(folder), open_dataset(target)
    assert [(i.label, i.split) for i in packed.items] == [(i.label, i.split) for i in plain.items]
    assert [packed.read(i) for i in range(10)] == [plain.read(i) for i in range(10)]
    assert packed.items[0].path == f"{target}/wrapped/train/disc/000.jpg"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_threads_read_the_right_bytes_at_once(folder, tmp_path, kind):
    uri = folder
    if kind == "zip":
        uri = zipped(folder, tmp_path / "d.zip")
    elif kind != "folder":
        uri = tarred(folder, tmp_path / f"d.{kind}", "w" if kind == "tar" else "w:gz")
    dataset, wrong = open_dataset(uri), []
    expected = [Path(folder, *Path(i.path).parts[-3:]).read_bytes() for i in dataset.items]

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 10, 60):
            if dataset.read(int(i)) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


EVIL = ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg", "C:/up.jpg", "..\\up.jpg", "C:\\up.jpg", "\\\\host\\up.jpg"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_archive_are_quarantined(tmp_path, name, kind):
    jpeg = next(write_photos(tmp_path / "d", 1).rglob("*.jpg")).read_bytes()
    target = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("disc/good.jpg", jpeg)
            archive.writestr("x", jpeg)
            archive.filelist[-1].filename = name  # as an attacker would write it
    else:
        with tarfile.open(target, "w") as archive:
            for member_name in ("disc/good.jpg", name):
                member = tarfile.TarInfo(member_name)
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg))
    found = open_dataset(target)
    assert [i.label for i in found.items] == ["disc"]
    assert [q.reason for q in found.quarantined] == ["Its path leaves the archive."]


def test_links_and_devices_in_a_tar_are_quarantined(tmp_path):
    jpeg = next(write_photos(tmp_path / "d", 1).rglob("*.jpg")).read_bytes()
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        good = tarfile.TarInfo("disc/a.jpg")
        good.size = len(jpeg)
        archive.addfile(good, io.BytesIO(jpeg))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            bad = tarfile.TarInfo(f"disc/bad{number}.jpg")
            bad.type, bad.linkname = kind, "/etc/passwd"
            archive.addfile(bad)
    found = open_dataset(tmp_path / "t.tar")
    assert len(found) == 1
    assert {q.reason for q in found.quarantined} == {"It is a link or a device, not a file."}
    assert len(found.quarantined) == 4


def test_encrypted_linked_and_doubled_members_of_a_zip_are_quarantined(folder, tmp_path):
    target = zipped(folder / "train", tmp_path / "d.zip")
    with zipfile.ZipFile(target, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("disc/000.jpg", b"second of the name")
        link = zipfile.ZipInfo("disc/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    data = bytearray(target.read_bytes())
    place = data.rfind(b"PK\x01\x02", 0, data.rfind(b"stripes/002.jpg"))
    data[place + 8] |= 1
    target.write_bytes(data)
    found = open_dataset(target)
    reasons = sorted(q.reason for q in found.quarantined)
    assert reasons == ["It is a link.", "It is encrypted.", "Its name comes twice."]
    assert len(found) == 5
    assert found.read(0) == (folder / "train" / "disc" / "000.jpg").read_bytes()


def test_members_larger_than_they_say_or_than_the_limit(folder, tmp_path, monkeypatch):
    zipped(folder, tmp_path / "d.zip")
    tarred(folder, tmp_path / "d.tar", "w")
    monkeypatch.setattr(sources, "MAX_BYTES", 100)
    for name in ("d.zip", "d.tar"):
        with pytest.raises(DataError, match="No pictures"):
            open_dataset(tmp_path / name)
    with pytest.raises(ImageError, match="more bytes"):
        open_dataset(folder).read(0)


def test_a_compressed_tar_that_unpacks_to_too_much(folder, tmp_path, monkeypatch):
    tarred(folder, tmp_path / "d.tgz", "w:gz")
    monkeypatch.setattr(sources, "MAX_UNPACKED", 1000)
    with pytest.raises(DataError, match="unpacks to more"):
        open_dataset(tmp_path / "d.tgz")


def test_too_many_members(folder, tmp_path, monkeypatch):
    zipped(folder, tmp_path / "d.zip")
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="members"):
        open_dataset(tmp_path / "d.zip")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
def test_archives_cut_off_anywhere_end_in_a_clear_error_or_a_quarantine(folder, tmp_path, kind, share):
    whole = tmp_path / f"whole.{kind}"
    if kind == "zip":
        zipped(folder, whole)
    else:
        tarred(folder, whole, {"tar": "w", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.get(kind, "w:gz"))
    data = whole.read_bytes()
    target = tmp_path / f"cut.{kind}"
    target.write_bytes(data[: int(len(data) * share)])
    try:
        found = open_dataset(target)
    except DataError:
        return
    for i in range(len(found)):
        with suppress(ImageError):
            assert found.read(i)[:2] == b"\xff\xd8"


def test_damaged_bytes_in_a_zip_are_noticed(folder, tmp_path):
    target = zipped(folder, tmp_path / "d.zip")
    data = bytearray(target.read_bytes())
    data[200] ^= 0xFF
    target.write_bytes(data)
    dataset = open_dataset(target)
    with pytest.raises(ImageError, match="Cannot be read from the archive"):
        dataset.read(0)


def test_lists_of_paths_bytes_and_arrays(folder):
    path = next((folder / "train").rglob("*.jpg"))
    array = np.zeros((4, 5, 3), np.uint8)
    found = from_images([str(path), path, path.read_bytes(), array], ["a", "b", 3, "a"], [1, 1, 2, 2])
    assert found.classes == ("3", "a", "b")
    assert [i.group for i in found.items] == ["1", "1", "2", "2"]
    assert found.read(0) == found.read(1) == found.read(2) == path.read_bytes()
    assert found.read(3) is array


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)],
)
def test_arrays_that_are_no_pictures_are_refused_when_read(array):
    with pytest.raises(ImageError, match="no picture"):
        from_images([array]).read(0)


def test_lists_of_other_lengths_and_single_pictures_are_refused():
    with pytest.raises(DataError, match="2 pictures but 1 labels"):
        from_images(["a", "b"], ["x"])
    with pytest.raises(DataError, match="2 pictures but 3 groups"):
        from_images(["a", "b"], ["x", "y"], [1, 2, 3])
    with pytest.raises(DataError, match="list of pictures"):
        from_images("a.jpg")


@pytest.mark.parametrize("path", ["missing.jpg", "/dev/zero", "."])
def test_paths_that_cannot_be_read_are_refused_when_read(path):
    with pytest.raises(ImageError):
        from_images([path]).read(0)


def test_join_reads_both_and_select_keeps_order(folder):
    dataset = open_dataset(folder)
    train, validation = dataset.split("train"), dataset.split("validation")
    both = concatenate(validation, train)
    assert [both.read(i) for i in range(10)] == [
        *(validation.read(i) for i in range(4)), *(train.read(i) for i in range(6)),
    ]  # fmt: skip
    chosen = both.select([9, 0, 4])
    assert [chosen.read(i) for i in range(3)] == [both.read(9), both.read(0), both.read(4)]
    assert chosen.classes == dataset.classes


@pytest.mark.parametrize("expected", [0, 1, 9, 10, 11, 10**9])
def test_all_bytes_are_read_whatever_the_system_says_a_file_has(expected, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 20)
    assert sources._limited(io.BytesIO(b"0123456789"), "a", expected) == b"0123456789"
    with pytest.raises(ImageError, match="more bytes than the limit"):
        sources._limited(io.BytesIO(bytes(21)), "a", expected)
