"""Zip and tar archives: the same images as the folder; hostile and damaged members are refused."""

import io
import struct
import tarfile
import threading
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import write_archive, write_zip
from helpers.photos import write_photos

from headstart.data import archives, open_dataset
from headstart.errors import DataError, ImageError


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "data" / "train", 3)
    write_photos(tmp_path / "data" / "validation", 2, seed=1)
    return tmp_path / "data"


@pytest.fixture
def jpeg(tmp_path):
    return next(write_photos(tmp_path / "d", 1).rglob("*.jpg")).read_bytes()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_archives_hold_what_the_folder_holds_and_nothing_is_unpacked(folder, tmp_path, kind, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    target = write_archive(folder, tmp_path / f"data.{kind}", kind)
    monkeypatch.chdir(work)
    before = sorted(tmp_path.rglob("*"))
    plain, packed = open_dataset(folder), open_dataset(target)
    assert [(i.label, i.split) for i in packed.items] == [(i.label, i.split) for i in plain.items]
    assert [packed.read(i) for i in range(10)] == [plain.read(i) for i in range(10)]
    assert packed.items[0].path == f"{target}/wrapped/train/disc/000.jpg"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_threads_read_the_right_bytes_at_once(folder, tmp_path, kind):
    uri = folder if kind == "folder" else write_archive(folder, tmp_path / f"d.{kind}", kind)
    dataset, mismatches = open_dataset(uri), []
    expected = [Path(folder, *Path(item.path).parts[-3:]).read_bytes() for item in dataset.items]

    def read_at_random(seed):
        for i in np.random.default_rng(seed).integers(0, 10, 60):
            if dataset.read(int(i)) != expected[i]:
                mismatches.append(i)

    threads = [threading.Thread(target=read_at_random, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mismatches == []


OUTSIDE = ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg", "C:/up.jpg", "..\\up.jpg", "C:\\up.jpg", "\\\\host\\up.jpg"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_point_outside_the_archive_are_quarantined(tmp_path, jpeg, name, kind):
    target = tmp_path / f"hostile.{kind}"
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
    dataset = open_dataset(target)
    assert [item.label for item in dataset.items] == ["disc"]
    assert [q.reason for q in dataset.quarantined] == ["Its path points outside the archive."]


def test_links_and_devices_in_a_tar_are_quarantined(tmp_path, jpeg):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        good = tarfile.TarInfo("disc/a.jpg")
        good.size = len(jpeg)
        archive.addfile(good, io.BytesIO(jpeg))
        for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            bad = tarfile.TarInfo(f"disc/bad{i}.jpg")
            bad.type, bad.linkname = kind, "/etc/passwd"
            archive.addfile(bad)
    dataset = open_dataset(tmp_path / "t.tar")
    assert len(dataset) == 1
    assert {q.reason for q in dataset.quarantined} == {"It is a link or a device, not a file."}
    assert len(dataset.quarantined) == 4


def test_encrypted_linked_and_duplicate_members_of_a_zip_are_quarantined(folder, tmp_path):
    target = write_zip(folder / "train", tmp_path / "d.zip")
    with zipfile.ZipFile(target, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("disc/000.jpg", b"second of the name")
        link = zipfile.ZipInfo("disc/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    data = bytearray(target.read_bytes())
    header = data.rfind(b"PK\x01\x02", 0, data.rfind(b"stripes/002.jpg"))
    data[header + 8] |= 1  # the flag of encryption
    target.write_bytes(data)
    dataset = open_dataset(target)
    reasons = sorted(q.reason for q in dataset.quarantined)
    assert reasons == ["It is a link.", "It is encrypted.", "Its name occurs more than once."]
    assert len(dataset) == 5
    assert dataset.read(0) == (folder / "train" / "disc" / "000.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_larger_than_the_limit_are_refused(folder, tmp_path, kind, monkeypatch):
    target = write_archive(folder, tmp_path / f"d.{kind}", kind)
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="No images"):
        open_dataset(target)


def test_a_compressed_tar_that_unpacks_to_too_much_is_refused(folder, tmp_path, monkeypatch):
    target = write_archive(folder, tmp_path / "d.tgz", "tgz")
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1000)
    with pytest.raises(DataError, match="unpacks to more"):
        open_dataset(target)


def test_too_many_members_are_refused(folder, tmp_path, monkeypatch):
    target = write_zip(folder, tmp_path / "d.zip")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="members"):
        open_dataset(target)


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
def test_truncated_archives_end_in_a_data_error_or_in_quarantine(folder, tmp_path, kind, share):
    data = write_archive(folder, tmp_path / f"whole.{kind}", kind).read_bytes()
    target = tmp_path / f"cut.{kind}"
    target.write_bytes(data[: int(len(data) * share)])
    try:
        dataset = open_dataset(target)
    except DataError:
        return
    for i in range(len(dataset)):
        with suppress(ImageError):
            assert dataset.read(i)[:2] == b"\xff\xd8"


def test_damaged_bytes_in_a_zip_are_detected(folder, tmp_path):
    target = write_zip(folder, tmp_path / "d.zip")
    data = bytearray(target.read_bytes())
    data[200] ^= 0xFF
    target.write_bytes(data)
    dataset = open_dataset(target)
    with pytest.raises(ImageError, match="Cannot be read from the archive"):
        dataset.read(0)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_member_that_unpacks_to_more_than_it_claims_is_cut(tmp_path, kind):
    """The headers claim 1,000 bytes of 100 MB."""
    target = tmp_path / "bomb.zip"
    with zipfile.ZipFile(target, "w", kind) as archive, archive.open("a/0.jpg", "w") as stream:
        for _ in range(100):
            stream.write(bytes(10**6))
    size = struct.pack("<I", 100 * 10**6)
    data = target.read_bytes()
    assert size in data
    target.write_bytes(data.replace(size, struct.pack("<I", 1000)))
    tracemalloc.start()
    with suppress(ImageError):
        assert len(open_dataset(target).read(0)) <= 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


def test_a_member_without_a_name_is_told(folder, tmp_path):
    target = write_zip(folder, tmp_path / "d.zip")
    before = open_dataset(target)
    with zipfile.ZipFile(target, "a") as archive:
        info = zipfile.ZipInfo("x")
        archive.writestr(info, b"nothing")
        info.filename = ""
    after = open_dataset(target)
    assert [item.path for item in after.items] == [item.path for item in before.items]


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_give_the_same_bytes(folder, tmp_path, kind):
    stored, packed = tmp_path / "s.zip", tmp_path / "p.zip"
    for target, compression in ((stored, zipfile.ZIP_STORED), (packed, kind)):
        with zipfile.ZipFile(target, "w", compression) as archive:
            for path in sorted(folder.rglob("*.*")):
                archive.write(path, path.relative_to(folder).as_posix())
    expected, dataset = open_dataset(stored), open_dataset(packed)
    assert [dataset.read(i) for i in range(len(dataset))] == [expected.read(i) for i in range(len(expected))]


@pytest.mark.parametrize(("name", "expected"), [("fourmi-é", "fourmi-é"), ("蜂", "蜂")])
def test_names_of_a_zip_that_macos_made_are_utf_8(tmp_path, jpeg, name, expected):
    """Its Finder writes UTF-8 without the flag, by which zipfile reads the names as CP437."""
    dataset = open_dataset(write_without_flag(tmp_path / "d.zip", [f"{name}/1.jpg", "bee/1.jpg"], jpeg, "utf-8"))
    assert dataset.classes == tuple(sorted((expected, "bee")))
    assert dataset.notes == ()
    assert dataset.read(0) == jpeg


def test_names_of_a_zip_in_an_unknown_encoding_are_named(tmp_path, jpeg):
    target = write_without_flag(tmp_path / "d.zip", ["fourmi-é/1.jpg", "bee/1.jpg"], jpeg, "cp1252")
    (note,) = open_dataset(target).notes
    assert note.endswith("d.zip are not UTF-8, and were read as CP437: check names with accents (fourmi-Θ/1.jpg).")


def write_without_flag(target, names, data, encoding):
    """Write a zip whose names are in an encoding that nothing declares."""
    places = {name: name.encode(encoding) for name in names}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, raw in enumerate(places.values()):
            archive.writestr(f"{number}{'#' * (len(raw) - 1)}", data)
    packed = stream.getvalue()
    for number, raw in enumerate(places.values()):
        packed = packed.replace(f"{number}{'#' * (len(raw) - 1)}".encode(), raw)
    target.write_bytes(packed)
    return target


@pytest.mark.parametrize(("kind", "ending"), [("zip", "tar.gz"), ("tar.gz", "zip"), ("tar", "zip")])
def test_an_archive_with_the_ending_of_another_kind_is_read(folder, tmp_path, kind, ending):
    write_archive(folder, tmp_path / f"made.{kind}", kind).rename(tmp_path / f"d.{ending}")
    assert len(open_dataset(tmp_path / f"d.{ending}")) == 10


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"d\.zip is empty; expected an archive\."),
        (b"\n<!DOCTYPE html><html>Sign in", r"d\.zip is a web page, not an archive; .* if need be\.$"),
        (b"7z\xbc\xaf'\x1c rest", r"d\.zip is a 7z, rar or zstd archive, whatever its name"),
    ],
)
def test_what_is_no_archive_is_called_by_its_name(tmp_path, data, reason):
    (tmp_path / "d.zip").write_bytes(data)
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path / "d.zip")


def test_files_beside_the_archives_of_a_folder_are_not_lost(tmp_path, jpeg):
    """A table beside train.zip is that of its images, and what is not read is named."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name in ("train", "test"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for i in range(2):
                archive.writestr(f"{i}.jpg", jpeg)
    (folder / "wasps.7z").write_bytes(b"7z")
    (folder / "train.csv").write_text("id,label\n0,x\n1,y\n")
    dataset = open_dataset(folder)
    assert [(item.path, item.label) for item in dataset.items] == [
        (f"{folder}/train/0.jpg", "x"),
        (f"{folder}/train/1.jpg", "y"),
    ]
    assert dataset.read(1) == jpeg
    assert dataset.skip_counts == {"not in train.csv": 2}
    (folder / "train.csv").unlink()
    with zipfile.ZipFile(folder / "bees.zip", "w") as archive:
        archive.writestr("0.jpg", jpeg)
    (folder / "train.zip").rename(folder / "ants.zip")
    (folder / "test.zip").unlink()
    dataset = open_dataset(folder)
    assert dataset.classes == ("ants", "bees")
    assert [(one.path, one.reason) for one in dataset.skipped] == [(f"{folder}/wasps.7z", "not an image")]


def test_a_file_that_two_archives_hold_is_named(tmp_path, jpeg):
    folder = tmp_path / "download"
    folder.mkdir()
    for name in ("ants.zip", "ants-samples.zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("0.jpg", jpeg)
    dataset = open_dataset(folder)
    assert len(dataset) == 1
    (lost,) = dataset.quarantined
    assert (lost.path, lost.reason) == (f"{folder}/ants.zip/0.jpg", "Another archive holds a file of its name.")


def test_a_tar_whose_first_name_begins_as_a_zip_is_a_tar(tmp_path):
    photos = write_photos(tmp_path / "photos", 1)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(photos, "PKD")
    assert open_dataset(tmp_path / "a.tar").classes == ("disc", "stripes")
