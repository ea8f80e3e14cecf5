"""Downloaded archives: several in one dataset, and hostile or damaged ones, which leave nothing behind."""

import io
import tarfile
import zipfile
from dataclasses import replace

import pytest
from helpers.downloads import GOOD, datasets, fetch, files, zip_of

from headstart.data import download as module
from headstart.data.download import download
from headstart.data.public_datasets import PublicDataset
from headstart.errors import DownloadError


def test_two_archives_fill_one_dataset(faulty_server, tmp_path):
    archive = datasets(faulty_server)["set"].archives[0]
    train = replace(archive, root="wrap/train", subfolder="train")
    validation = replace(archive, root="wrap/val", subfolder="validation")
    download("set", tmp_path / "set", datasets={"set": PublicDataset((train, validation), "", "")})
    assert files(tmp_path / "set") == ["SOURCE.md", "train/ants/1.jpg", "train/bees/2.jpg", "validation/ants/3.jpg"]


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 3), ("MAX_UNPACKED", 100_000)])
def test_archive_bombs_are_refused(faulty_server, tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(DownloadError, match=f"more than {value:,}"):
        fetch(faulty_server, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../up.jpg", "/abs.jpg", "wrap/../../up.jpg", "C:\\x.jpg", "wrap/C:/x.jpg"])
def test_paths_in_a_zip_that_point_outside_are_refused(faulty_server, tmp_path, name):
    faulty_server.data = zip_of(["wrap/train/a/1.jpg", name])
    with pytest.raises(DownloadError, match=r"(?i)refused"):
        fetch(faulty_server, tmp_path, data=faulty_server.data)
    assert files(tmp_path) == []


def test_a_link_in_a_zip_is_refused(faulty_server, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("wrap/train/a/1.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    faulty_server.data = stream.getvalue()
    with pytest.raises(DownloadError, match="It is a link"):
        fetch(faulty_server, tmp_path, data=faulty_server.data)
    assert files(tmp_path) == []


def test_a_damaged_zip_with_the_recorded_hash_is_refused(faulty_server, tmp_path):
    middle = len(GOOD) // 2
    faulty_server.data = GOOD[:middle] + b"\xff" * 10 + GOOD[middle + 10 :]
    with pytest.raises(DownloadError, match="damaged"):
        fetch(faulty_server, tmp_path, data=faulty_server.data)
    assert files(tmp_path) == []


def hostile_tar(name, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member_name, member_kind in (("wrap/a/1.jpg", tarfile.REGTYPE), (name, kind)):
            member = tarfile.TarInfo(member_name)
            member.type, member.linkname = member_kind, "/etc/passwd"
            member.size = 4 if member_kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"evil"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        hostile_tar("../up.jpg"),
        hostile_tar("/abs.jpg"),
        hostile_tar("wrap/../../up.jpg"),
        hostile_tar("C:\\x.jpg"),
        hostile_tar("wrap/link.jpg", tarfile.SYMTYPE),
        hostile_tar("wrap/dev.jpg", tarfile.CHRTYPE),
        b"no archive",
        b"",
    ],
)
def test_hostile_and_broken_archives_leave_nothing_behind(faulty_server, tmp_path, data):
    faulty_server.data = data
    faulty_server.url = faulty_server.url.replace(".zip", ".tgz")
    with pytest.raises(DownloadError):
        fetch(faulty_server, tmp_path, data=data)
    assert not (tmp_path / "out" / "set").exists()
    assert not list(tmp_path.rglob("*.jpg"))
