"""Groups that people name: folders, file names, EXIF times and columns; copies join them."""

import io
import re
import struct
from datetime import datetime, timedelta

import numpy as np
import pytest
from helpers.photos import write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import headstart as hs
from headstart.classifier.preview import _groups
from headstart.data import as_dataset
from headstart.errors import OptionError
from headstart.images.capture import Capture, read_capture
from headstart.splits.named import burst_names, compile_pattern, group_names, parse_group_by


def named(pattern, name):
    """The group that a pattern gives a name, None where it does not fit."""
    match = compile_pattern(pattern).fullmatch(name)
    return match and name[match.start(1) : match.start(2)]


@pytest.mark.parametrize(
    ("pattern", "name", "group"),
    [
        ("{*}-#", "horse01-0", "horse01"),
        ("{horse#}-*", "horse01-0", "horse01"),
        ("{*}-#", "a-b-c-12", "a-b-c"),
        ("{*}-*", "a-b-c-12", "a"),
        ("*_{*}_*", "IMG_20240102_0007", "20240102"),
        ("*_{#}_#", "IMG_20240102_0007", "20240102"),
        ("{*} (#)", "cat (3)", "cat"),
        ("{*}.[#]", "x.[3]", "x"),
        ("site{#}*", "site12_a", "12"),
        ("{*}-#", "horse01", None),
        ("{*}-#", "horse01-b", None),
        ("{*}", "a\nb", "a\nb"),
    ],
)
def test_patterns(pattern, name, group):
    assert named(pattern, name) == group


@settings(deadline=None, max_examples=300)
@given(st.text("ab-1", max_size=8), st.lists(st.sampled_from(["*", "a", "b", "-"]), max_size=6), st.data())
def test_a_pattern_fits_what_a_regular_expression_fits(name, parts, data):
    """Against a backtracking expression without digits: whether it fits, and the first of its shortest matches."""
    first = data.draw(st.integers(0, len(parts)))
    second = data.draw(st.integers(first, len(parts)))
    pattern = "".join(parts[:first]) + "{" + "".join(parts[first:second]) + "}" + "".join(parts[second:])
    lazy = "".join({"*": ".*?", "{": "(", "}": ")"}.get(c, re.escape(c)) for c in pattern)
    expected = re.fullmatch(lazy, name, re.DOTALL)
    assert named(pattern, name) == (expected and expected[1])


def test_a_pattern_takes_no_time_on_a_hostile_name():
    """Forty stars on 255 letters: backtracking would try more ways than there are atoms."""
    assert named("*a" * 40 + "{b}", "a" * 255) is None
    assert named("*#" * 40 + "{b}", "1a" * 127) is None


@pytest.mark.parametrize(
    "text",
    [
        *("name:", "name:*-#", "name:{*}{*}", "name:}*{", "name:{{*}}", "name:{*}" + "a" * 200, ""),
        *("exif:", "exif:0", "exif:-1", "exif:x", "exif:nan", "exif:inf"),
    ],
)
def test_what_cannot_be_grouped_by_is_an_error(text):
    with pytest.raises(OptionError):
        parse_group_by(text)
    with pytest.raises(OptionError):
        hs.FitOptions(group_by=text)


def test_forms():
    assert parse_group_by("patient").column == "patient"
    assert [parse_group_by(text).column for text in ("auto", "none", "folder", "exif", "name:{*}-#")] == [None] * 5
    assert parse_group_by("exif").seconds == 10
    assert parse_group_by("exif:2.5").seconds == 2.5


def exif_jpeg(time=None, camera="A", subsecond=None, big_endian=False):
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x010F], exif[0x0110] = "Maker", camera
    if time is not None:
        exif.get_ifd(0x8769)[0x9003] = time.strftime("%Y:%m:%d %H:%M:%S") if isinstance(time, datetime) else time
    if subsecond is not None:
        exif.get_ifd(0x8769)[0x9291] = subsecond
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_time_and_the_camera_are_those_of_the_file(big_endian):
    time = datetime(2024, 5, 6, 7, 8, 9)
    first = read_capture(exif_jpeg(time, "Camera 1", big_endian=big_endian))
    second = read_capture(exif_jpeg(time + timedelta(days=1), "Camera 1", "25", big_endian))
    assert second.seconds - first.seconds == pytest.approx(86_400.25)
    assert first.camera == second.camera == "Maker Camera 1 "


def test_png_and_webp_tell_their_time():
    exif = Image.open(io.BytesIO(exif_jpeg(datetime(2024, 1, 1)))).getexif()
    expected = read_capture(exif_jpeg(datetime(2024, 1, 1)))
    for form in ("PNG", "WEBP"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, form, exif=exif)
        assert read_capture(stream.getvalue()) == expected


def test_heic_tells_its_time():
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.open(io.BytesIO(exif_jpeg(datetime(2024, 1, 1)))).getexif()
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64))).save(stream, exif=exif.tobytes())
    assert read_capture(stream.getvalue()) == read_capture(exif_jpeg(datetime(2024, 1, 1)))


@pytest.mark.parametrize(
    "time", [None, "0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "2024:13:01 00:00:00"]
)
def test_without_a_time_there_is_no_capture(time):
    assert read_capture(exif_jpeg(time)) is None


def test_what_is_no_image_has_no_capture():
    assert read_capture(b"") is read_capture(b"not an image") is read_capture(np.zeros((4, 4, 3), np.uint8)) is None


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_damaged_exif_data_raise_nothing(seed, changes):
    data = bytearray(exif_jpeg(datetime(2024, 5, 6, 7, 8, 9), subsecond="5"))
    rng = np.random.default_rng(seed)
    for place in rng.integers(20, 200, changes):
        data[place] = rng.integers(256)
    capture = read_capture(bytes(data))
    assert capture is None or (np.isfinite(capture.seconds) and len(capture.camera) <= 400)


def test_a_directory_of_many_tags_is_read_within_limits():
    """65,535 tags of which each claims 4 GB."""
    tags = struct.pack("<HHII", 0x010F, 2, 2**32 - 1, 0) * 65_535
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65_535) + tags
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "WEBP", exif=exif)
    assert read_capture(stream.getvalue()) is None


def test_a_burst_ends_where_the_next_image_is_later_or_of_another_camera():
    times = [("A", 100), ("A", 0), ("A", 8), ("B", 5), ("A", 18), ("A", 29), None, ("B", 5)]
    names = burst_names([time and Capture(time[1], time[0]) for time in times], 10)
    assert names[1] == names[2] == names[4]
    assert names[3] == names[7]
    assert names[6] is None
    assert len({names[0], names[1], names[3], names[5]}) == 4


def write_in_folders(root, photos):
    """Twelve photographs a class: six in the folders 1 and 2 of each class, the others right in it."""
    for label in ("disc", "stripes"):
        for i, path in enumerate(sorted((photos / label).iterdir())[:12]):
            folder = root / label / ("" if i >= 6 else str(1 + i % 2))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{label}{i // 3}-{i % 3}.jpg").write_bytes(path.read_bytes())
    return root


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return write_in_folders(root / "data", write_photos(root / "photos", 12))


def fitted(data, **options):
    options = hs.FitOptions(head="ridge", cut="features", cache=False, **options)
    return hs.fit_dataset(data if isinstance(data, hs.Dataset) else hs.open_dataset(data), options)


def members(result):
    """The file names of the images of each group."""
    split = result.data.split
    names = [result.data.dataset.items[i].path.rsplit("/", 1)[1] for i in result.data.features.index[split.train]]
    return [{names[i] for i in np.flatnonzero(split.groups.index == g)} for g in range(split.groups.count)]


def test_file_names_name_the_groups(in_folders):
    result = fitted(in_folders, group_by="name:{*}-#")
    assert {frozenset(group) for group in members(result)} == {
        frozenset(f"{label}{scene}-{i}.jpg" for i in range(3)) for label in ("disc", "stripes") for scene in range(4)
    }
    assert result.model.run["groups"] == {"count": 8, "largest": 3, "method": "file names {*}-#"}


def test_folders_name_the_groups_and_the_rest_is_found_and_said(in_folders):
    result = fitted(in_folders, group_by="folder")
    groups = members(result)
    for number in range(2):  # one folder of that name in each class: one group
        assert {f"{c}{i // 3}-{i % 3}.jpg" for c in ("disc", "stripes") for i in range(6) if i % 2 == number} in groups
    assert any(
        note.startswith("12 of 24 images to group lie in no folder below that of the class") for note in result.notes
    )
    assert result.data.split.groups.method.startswith("folder; others pixels and features")
    items = result.data.dataset.items
    assert {item.folder for item in items} == {"", "1", "2"}


def test_names_are_known_before_images_are_read(in_folders):
    dataset = hs.open_dataset(in_folders)
    by_name = _groups(dataset, "name:{*}-#")
    assert by_name == {"count": 8, "largest": 3, "method": "file names {*}-#"}
    inside = dataset.select(i for i, item in enumerate(dataset.items) if item.folder)
    assert _groups(inside, "folder") == {"count": 2, "largest": 6, "method": "folder"}
    assert _groups(dataset, "folder") is _groups(dataset, "exif") is _groups(dataset, "auto") is None
    assert _groups(dataset, "none") == {"count": 24, "largest": 1, "method": "none"}


def test_folders_are_below_those_of_classes_in_every_layout(tmp_path, photos):
    image = next((photos / "train").rglob("*.jpg")).read_bytes()
    for path in ("a/train/cat/x/1.jpg", "a/val/dog/y/z/1.jpg", "b/cat/train/x/1.jpg", "b/dog/val/1.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(image)
    assert [item.folder for item in hs.open_dataset(tmp_path / "a").items] == ["x", "y/z"]
    assert [item.folder for item in hs.open_dataset(tmp_path / "b").items] == ["x", ""]
    (tmp_path / "t.csv").write_text("path,label\na/train/cat/x/1.jpg,cat\nb/dog/val/1.jpg,dog\n")
    folders = [item.folder for item in hs.open_dataset(tmp_path / "t.csv").items]
    assert folders == ["a/train/cat/x", "b/dog/val"]


def group_of_images(result):
    """Return the group of each image of the dataset, in its order."""
    data = result.data
    return data.split.groups.index[np.argsort(data.features.index)]


def test_copies_join_named_groups(in_folders):
    dataset = hs.open_dataset(in_folders)
    copy = dataset.items[0].path
    images = [item.path for item in dataset.items] + [copy]
    labels = [item.label for item in dataset.items] + [dataset.items[0].label]
    groups = [f"scene {i // 3}" for i in range(24)] + ["elsewhere"]
    result = fitted(as_dataset(images, labels, groups))
    index = group_of_images(result)
    assert index[0] == index[1] == index[2] == index[24]
    assert result.data.split.groups.count == 8


def test_exif_times_name_bursts_and_images_without_are_said(tmp_path, in_folders):
    dataset = hs.open_dataset(in_folders)
    start = datetime(2024, 5, 6, 7, 8, 9)
    images = []
    for i, item in enumerate(dataset.items):
        exif = Image.Exif()
        if i >= 4:
            exif.get_ifd(0x8769)[0x9003] = (start + timedelta(seconds=100 * (i // 4) + 3 * (i % 4))).strftime(
                "%Y:%m:%d %H:%M:%S"
            )
        path = tmp_path / f"{i}.jpg"
        Image.open(item.path).save(path, exif=exif)
        images.append(str(path))
    labels = [item.label for item in dataset.items]
    result = fitted(as_dataset(images, labels), group_by="exif:5")
    index = group_of_images(result)
    assert all(len(set(index[i : i + 4])) == 1 for i in range(4, 24, 4))
    assert len(set(index[4::4])) == 5
    assert "4 of 24 images to group have no EXIF time" in " ".join(result.notes)
    assert fitted(as_dataset(images, labels), group_by="exif:1").data.split.groups.count > 15


def test_without_any_exif_time_groups_are_found(in_folders):
    result = fitted(in_folders, group_by="exif")
    assert result.model.run["groups"]["method"].startswith("pixels and features")
    assert "24 of 24 images to group have no EXIF time" in " ".join(result.notes)


@pytest.mark.parametrize(
    ("group_by", "message"), [("name:{x}y", "fits the pattern"), ("folder", "lies in a folder"), ("scene", "no column")]
)
def test_where_no_image_has_a_name_it_is_an_error(photos, group_by, message):
    dataset = hs.open_dataset(photos)
    with pytest.raises(OptionError, match=message):
        fitted(dataset, group_by=group_by)


def test_a_name_that_is_too_long_is_not_looked_at(in_folders):
    dataset = hs.open_dataset(in_folders)
    long = dataset.select([0]).items[0].__class__(path="a" * 300 + "-1.jpg", label="disc", split="train")
    changed = hs.Dataset("x", (long, *dataset.items[1:]), dataset.classes, (), (), dataset.reader)
    names = group_names(changed, range(2), parse_group_by("name:{*}-#"))
    assert names[0] is None
    assert names[1] == "disc0"
