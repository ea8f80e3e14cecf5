"""Archives of images: Teachable Machine's projects and samples, zips of class folders, and hostile ones."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from helpers.photos import write_photos
from PIL import Image

from headstart.errors import DataError, ImageError
from headstart.studio.image_files import small_copy, suffix_of
from headstart.studio.imports import import_archive
from headstart.studio.project import Project


@pytest.fixture
def images(tmp_path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(write_photos(tmp_path / "made", 3).rglob("*.jpg"))]


@pytest.fixture
def project(tmp_path):
    opened = Project(tmp_path / "new")
    yield opened
    opened.close()


def write_zip(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def labels(project) -> list[str]:
    return sorted(record.label for record in project.state.records.values())


@pytest.mark.parametrize("names", [("Class 1/0.jpg", "Class 2/0.jpg"), ("Class 1-0.jpg", "Class 2-!-17.jpg")])
def test_a_teachable_machine_project(project, images, tmp_path, names):
    file = write_zip(
        tmp_path / "project.tm",
        {"manifest.json": json.dumps({"type": "image"}).encode(), **dict(zip(names, images, strict=False))},
    )
    result = import_archive(project, file)
    assert (result.added, result.already, result.classes) == (2, 0, ("Class 1", "Class 2"))
    assert labels(project) == ["Class 1", "Class 2"]
    assert import_archive(project, file).already == 2
    assert project.undo(None) == "Imported the images of an archive"
    assert not project.state.records


def test_samples_of_one_class(project, images, tmp_path):
    file = write_zip(tmp_path / "samples.zip", {f"{i}.jpg": data for i, data in enumerate(images)})
    result = import_archive(project, file, "ants")
    assert result.added == len(images)
    assert labels(project) == ["ants"] * len(images)
    assert all((project.folder / record.path).is_file() for record in project.state.records.values())


def test_hostile_members_are_named_and_nothing_is_written_outside(project, images, tmp_path):
    bomb = io.BytesIO()
    Image.new("L", (9000, 9000)).save(bomb, "PNG")
    file = write_zip(
        tmp_path / "x.zip",
        {
            "ants/good.jpg": images[0],
            "../../evil.jpg": images[1],
            "/abs/evil.jpg": images[1],
            "ants/no image.jpg": b"MZ",
            "ants/bomb.png": bomb.getvalue(),
            "nan/1.jpg": images[2],
        },
    )
    before = {path for path in tmp_path.rglob("*") if "new" not in path.parts}
    result = import_archive(project, file)
    assert result.added == 1
    reasons = dict(result.refused)
    assert set(reasons) == {
        *("../../evil.jpg", "/abs/evil.jpg", "ants/no image.jpg", "ants/bomb.png", "nan/1.jpg"),
    }
    assert "outside the archive" in reasons["../../evil.jpg"]
    assert "40,000,000 pixels" in reasons["ants/bomb.png"]
    written = {path for path in tmp_path.rglob("*") if "new" not in path.parts} - before
    assert {path.name for path in written} == {"new-labels.csv"}


def test_what_is_no_zip_is_refused(project, tmp_path):
    (tmp_path / "x.tm").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        import_archive(project, tmp_path / "x.tm")
    assert project.state.version == 1


def test_endings_follow_the_bytes(images):
    assert suffix_of(images[0]) == ".jpg"
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), (255, 0, 0)).save(stream, "PNG")
    assert suffix_of(stream.getvalue()) == ".png"
    for data in (b"", b"<svg onload=alert(1)>", images[0][:200]):
        with pytest.raises(ImageError):
            suffix_of(data)


def test_small_copies_are_jpegs_within_the_side(images):
    with Image.open(io.BytesIO(small_copy(images[0], 64))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 48))
