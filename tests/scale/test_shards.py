"""How datasets are cut into shards, and what a worker opens."""

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import write_zip
from helpers.photos import write_photos
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import Dataset, ReadOptions, open_dataset
from headstart.errors import DataError, ImageError, OptionError
from headstart.scale import addresses, shards
from headstart.scale.addresses import common_folder, expand_braces
from headstart.scale.shards import Cut, cut


def opened(pieces: Cut) -> list[Dataset]:
    """The datasets that workers would open, after the way to another process."""
    return [pickle.loads(pickle.dumps(shard)).open() for shard in pieces.shards]


def images(datasets: list[Dataset]) -> set[tuple[str, str | None, str, str | None, bytes]]:
    return {
        (item.path, item.label, item.split, item.group, bytes(dataset.read(i)))
        for dataset in datasets
        for i, item in enumerate(dataset.items)
    }


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("images"), 30)


@pytest.fixture
def photo(folder) -> bytes:
    return (folder / "disc" / "000.jpg").read_bytes()


def test_shards_hold_every_image_of_a_folder_once(folder):
    pieces = cut(folder, images=8)

    assert len(pieces.shards) == 8
    assert (pieces.count, sum(shard.count for shard in pieces.shards)) == (60, 60)
    assert images(opened(pieces)) == images([open_dataset(folder)])
    assert len({shard.sha256 for shard in pieces.shards}) == 8


def test_the_cut_does_not_depend_on_where_the_folder_lies(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")  # with the times of change

    assert [one.sha256 for one in cut(moved, images=8).shards] == [one.sha256 for one in cut(folder, images=8).shards]


def test_one_more_image_changes_one_shard(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {one.sha256 for one in cut(copy, images=8).shards}
    shutil.copy2(copy / "disc" / "000.jpg", copy / "disc" / "one-more.jpg")

    after = {one.sha256 for one in cut(copy, images=8).shards}

    assert (len(after - before), len(before - after)) == (1, 1)


@pytest.mark.parametrize("change", ["content", "label", "time"])
def test_a_changed_image_has_another_shard(change, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {one.sha256 for one in cut(copy, images=8).shards}
    path = copy / "disc" / "007.jpg"
    if change == "content":
        path.write_bytes(path.read_bytes() + b"x")
    elif change == "label":
        shutil.move(path, copy / "stripes" / "moved.jpg")
    else:
        os.utime(path, ns=(1, 1))

    assert {one.sha256 for one in cut(copy, images=8).shards} != before


def test_a_zip_is_cut_in_its_order_and_opened_once_for_each_worker(folder, tmp_path, monkeypatch):
    pieces = cut(write_zip(folder, tmp_path / "photos.zip"), images=25)
    count = 0

    def counted(*arguments):
        nonlocal count
        count += 1
        return open_dataset(*arguments)

    shards._opened.cache_clear()
    monkeypatch.setattr(shards, "open_dataset", counted)

    assert [shard.count for shard in pieces.shards] == [25, 25, 10]
    assert images(opened(pieces)) == images([open_dataset(tmp_path / "photos.zip")])
    assert count == 1


def test_an_archive_that_changed_since_it_was_listed_is_refused(folder, tmp_path, photo):
    path = tmp_path / "photos.tar"
    write_tar(path, {"a/1.jpg": photo, "b/1.jpg": photo})
    (shard,) = cut(path).shards
    write_tar(path, {"a/0.jpg": photo, "a/1.jpg": photo, "b/1.jpg": photo})
    shards._opened.cache_clear()

    with pytest.raises(DataError, match=r"changed since it was listed, at .*a/1\.jpg; run the command again\.$"):
        shard.open()


def test_a_table_of_paths_is_read_by_the_paths_with_its_groups_and_splits(folder):
    rows = [
        f"{path.relative_to(folder).as_posix()},{path.parent.name},{'val' if i % 3 else 'train'},g{i % 4}"
        for i, path in enumerate(sorted(folder.rglob("*.jpg")))
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split,group", *rows]), "utf-8")
    try:
        pieces = cut(folder / "list.csv", images=8)
        assert {shard.kind for shard in pieces.shards} == {"files"}
        assert images(opened(pieces)) == images([open_dataset(folder / "list.csv")])
    finally:
        (folder / "list.csv").unlink()


def test_images_inside_a_parquet_file(folder, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = sorted(folder.rglob("*.jpg"))
    table = pyarrow.table(
        {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
            "label": [path.parent.name for path in paths],
        }
    )
    parquet.write_table(table, tmp_path / "000.parquet", row_group_size=7)
    parquet.write_table(table.slice(0, 9), tmp_path / "001.parquet")

    pieces = cut(tmp_path / "000.parquet", images=25)
    whole = cut(f"{tmp_path}/{{000..001}}.parquet")

    assert [shard.count for shard in pieces.shards] == [25, 25, 10]
    assert images(opened(pieces)) == images([open_dataset(tmp_path / "000.parquet")])
    assert ([shard.count for shard in whole.shards], whole.count) == ([None, None], None)
    assert [len(dataset) for dataset in opened(whole)] == [60, 9]


def test_a_pattern_of_archives_in_the_form_of_webdataset(photo, tmp_path):
    for number in range(3):
        write_tar(
            tmp_path / f"{number:03}.tar",
            {
                f"{number}-0.jpg": photo,
                f"{number}-0.cls": b"7\n",
                f"{number}-1.jpg": photo,
                f"{number}-1.json": json.dumps(
                    {"label": "ant", "group": "g", "split": "val", "caption": ["x"]}
                ).encode(),
                f"{number}-2.jpg": photo,
                f"{number}-2.json": b"{",
            },
        )

    pieces = cut(f"{tmp_path}/{{000..003}}.tar")
    datasets = opened(pieces)

    assert [shard.name for shard in pieces.shards] == ["000.tar", "001.tar", "002.tar"]
    assert [(one.path, one.reason) for one in pieces.quarantined] == [
        (f"{tmp_path}/003.tar", "It cannot be read: there is nothing.")
    ]
    assert [(item.path, item.label, item.split, item.group) for item in datasets[1].items] == [
        (f"{tmp_path}/001.tar/1-0.jpg", "7", "train", None),
        (f"{tmp_path}/001.tar/1-1.jpg", "ant", "validation", "g"),
    ]
    assert [(one.path, one.reason) for one in datasets[1].skipped] == [(f"{tmp_path}/001.tar/1-2.jpg", "no label")]
    assert datasets[1].read(1) == photo


def test_members_that_point_outside_an_archive_are_never_read(photo, tmp_path):
    write_tar(tmp_path / "0.tar", {"../../a.jpg": photo, "/etc/b.jpg": photo, "a/c.jpg": photo, "b/d.jpg": photo})

    (dataset,) = opened(cut(f"{tmp_path}/{{0..0}}.tar"))

    assert [item.path for item in dataset.items] == [f"{tmp_path}/0.tar/a/c.jpg", f"{tmp_path}/0.tar/b/d.jpg"]
    assert {one.reason for one in dataset.quarantined} == {"Its path points outside the archive."}


def test_a_whole_shard_of_too_many_images_is_refused(photo, tmp_path, monkeypatch):
    write_tar(tmp_path / "0.tar", {f"a/{i}.jpg": photo for i in range(4)})
    monkeypatch.setattr(shards, "MAX_WHOLE", 3)

    with pytest.raises(DataError, match=r"has 4 images, more than the limit of 3; split it\.$"):
        cut(f"{tmp_path}/{{0..0}}.tar").shards[0].open()


def test_other_options_of_reading_are_another_shard(photo, tmp_path):
    write_tar(tmp_path / "0.tar", {"train/a/1.jpg": photo})
    pattern = f"{tmp_path}/{{0..0}}.tar"

    hashes = {cut(pattern, ReadOptions(layout=layout)).shards[0].sha256 for layout in ("auto", "image")}

    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("x{3..1}.tar", "counts down; write the smaller number first"),
        ("x{}.tar", r"cannot be read; write \{000\.\.999\} or \{a,b\}"),
        ("x{0..99999}{0..9}.tar", "stands for more than 100,000 files"),
        ("x{0..99999999999999999}.tar", "stands for more than 100,000 files"),
        ("x{0..9}.txt", "x0.txt is no archive and no Parquet file"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(pattern, message):
    with pytest.raises(OptionError, match=message):
        cut(pattern)


def test_a_pattern_of_which_nothing_is_there(tmp_path):
    with pytest.raises(
        DataError, match=r"Nothing of .* can be read \(.*0\.tar: .*there is nothing\.\); check the pattern"
    ):
        cut(f"{tmp_path}/{{0..3}}.tar")


@given(st.integers(0, 300), st.integers(0, 60), st.integers(1, 6))
def test_a_range_has_every_number_once_as_wide_as_its_start(first, more, width):
    names = expand_braces(f"a{{{first:0{width}}..{first + more}}}.tar")

    assert [int(name[1:-4]) for name in names] == list(range(first, first + more + 1))
    assert all(len(name) == 5 + max(width, len(name[1:-4].lstrip("0") or "0")) for name in names)


@given(st.lists(st.text("ab/", min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_common_folder_is_the_start_of_all(names):
    folder = common_folder(names)

    assert all(name.startswith(folder) for name in names)
    assert folder == "" or folder.endswith("/")


@given(st.lists(st.text(min_size=1), min_size=1, max_size=200, unique=True), st.integers(1, 50))
def test_the_cut_of_a_path_depends_on_the_path_and_the_number_of_parts_alone(paths, size):
    paths = [path.encode("utf-8", "ignore").decode() or "x" for path in paths]
    parts = shards._by_hash(paths, size)
    backwards = shards._by_hash(paths[::-1], size)

    assert sorted(i for part in parts for i in part) == list(range(len(paths)))
    assert {frozenset(paths[i] for i in part) for part in parts} == {
        frozenset(paths[::-1][i] for i in part) for part in backwards
    }


def test_the_mean_size_of_a_shard_is_at_most_what_was_asked_for():
    parts = shards._by_hash([f"class/{i}.jpg" for i in range(10_000)], 100)

    assert len(parts) == 128
    assert 40 < min(map(len, parts)) < max(map(len, parts)) < 130
    assert np.mean([len(part) for part in parts]) <= 100


def test_of_shards_with_equal_listings_each_is_one(folder, tmp_path):
    lines = [f"{label}/{i:03}.jpg,{label}" for label in ("disc", "stripes") for i in range(4)]
    photos = shutil.copytree(folder, tmp_path / "photos")
    (photos / "thrice.csv").write_text("\n".join(["path,label", *lines, *lines, *lines]), "utf-8")

    pieces = cut(f"file://{photos}/thrice.csv", images=4)

    assert {shard.kind for shard in pieces.shards} == {"part"}
    assert len({shard.sha256 for shard in pieces.shards}) == len(pieces.shards) == 6
    assert [len(dataset) for dataset in opened(pieces)] == [4] * 6


@pytest.fixture
def memory(photo):
    import fsspec

    files = fsspec.filesystem("memory")
    for label in ("ant", "bee"):
        for i in range(10):
            files.pipe(f"/photos/{label}/{i}.jpg", photo + bytes([i]))
    yield files
    files.rm("/photos", recursive=True)


def test_a_folder_behind_an_address(memory):
    pieces = cut("memory://photos", images=4)

    assert {shard.kind for shard in pieces.shards} == {"part"}
    assert len(pieces.shards) > 4  # by hash of the path, as a local folder
    assert images(opened(pieces)) == images([open_dataset("memory://photos")])
    before = {shard.sha256 for shard in pieces.shards}
    memory.pipe("/photos/ant/3.jpg", b"another one")
    assert len({shard.sha256 for shard in cut("memory://photos", images=4).shards} - before) == 1


def test_s3(tmp_path, photo, monkeypatch):
    """A pattern of archives, and a folder, in a bucket of moto's server."""
    pytest.importorskip("s3fs", reason="needs s3fs: pip install s3fs 'moto[server]'")
    server_module = pytest.importorskip("moto.server", reason="needs moto: pip install s3fs 'moto[server]'")
    import boto3
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        for number in range(2):
            write_tar(tmp_path / "x.tar", {f"{label}/{number}.jpg": photo for label in ("ant", "bee")})
            client.upload_file(str(tmp_path / "x.tar"), "photos", f"shards/{number:06}.tar")
        for label in ("ant", "bee"):
            client.put_object(Bucket="photos", Key=f"folder/{label}/1.jpg", Body=photo)

        pieces = cut("s3://photos/shards/{000000..000002}.tar")
        assert [shard.name for shard in pieces.shards] == ["000000.tar", "000001.tar"]
        assert [one.reason for one in pieces.quarantined] == ["It cannot be read: there is nothing."]
        assert {(item.path, item.label) for dataset in opened(pieces) for item in dataset.items} == {
            (f"s3://photos/shards/{number:06}.tar/{label}/{number}.jpg", label)
            for number in range(2)
            for label in ("ant", "bee")
        }
        before = pieces.shards[0].sha256
        write_tar(tmp_path / "x.tar", {f"{label}/0.jpg": photo[::-1] for label in ("ant", "bee")})  # of the same size
        client.upload_file(str(tmp_path / "x.tar"), "photos", "shards/000000.tar")
        s3fs.S3FileSystem.clear_instance_cache()
        assert cut("s3://photos/shards/{000000..000001}.tar").shards[0].sha256 != before

        in_folder = cut("s3://photos/folder")
        assert images(opened(in_folder)) == images([open_dataset("s3://photos/folder")])
        assert in_folder.count == 2
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_an_unreadable_image_is_an_error_of_that_image_alone(folder, tmp_path, photo):
    pieces = cut(write_photos(tmp_path / "some", 2))
    Path(opened(pieces)[0].items[0].path).unlink()
    (dataset,) = opened(pieces)

    with pytest.raises(ImageError, match="No such file"):
        dataset.read(0)
    assert dataset.read(1)


def test_what_is_known_of_a_file_is_its_surest_version():
    assert addresses._from_info({"size": 3, "mtime": 5, "ETag": '"x"'}) == (3, 'ETag="x"')
    assert addresses._from_info({"size": None}) == (-1, "")
