"""``headstart embed --statistics``: summed shard by shard, and the same bytes whoever is killed, and when."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from helpers.photos import ROOT, write_photos

from headstart.classifier import FitOptions, embed_sharded, embed_statistics
from headstart.classifier.embed_folder import embed_to_folder
from headstart.classifier.embed_sharded import Where
from headstart.classifier.embed_statistics import ROWS, SUMS, sum_dataset, sum_sharded
from headstart.data import ReadOptions, open_dataset
from headstart.errors import DataError, OptionError
from headstart.features import Compute, running_sums
from headstart.features.rows_folder import read_rows
from headstart.features.running_sums import RunningSums
from headstart.features.statistics_folder import statistics_files, taps_to_sum
from headstart.files import TEMPORARY
from headstart.scale.shards import cut

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'headstart[tables]'")
OPTIONS = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """24 images of two classes, one of which is damaged. Read only."""
    folder = write_photos(tmp_path_factory.mktemp("photos") / "photos", 12)
    (folder / "disc" / "003.jpg").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def pattern(data, tmp_path_factory) -> str:
    """The same images in four archives."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(4):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for path in sorted(data.rglob("*.jpg"))[number::4]:
                member = tarfile.TarInfo(f"{path.parent.name}/{path.name}")
                content = path.read_bytes()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return f"{folder}/{{0..3}}.tar"


def by_one(data, folder, **options):
    return sum_dataset(open_dataset(data), folder, OPTIONS, shard_images=5, **options).part


def by_workers(pattern, folder, count=1):
    return sum_sharded(pattern, folder, OPTIONS, ReadOptions(), Where("processes", count))


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    return statistics_files(by_one(data, tmp_path_factory.mktemp("expected") / "unfinished"))


def files(folder):
    """The files in a folder, without what a process that was killed has left half written."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith(TEMPORARY)]


KEPT = [f"{SUMS}/{name}" for name in ("shards.json", "statistics.json", "statistics.safetensors")]


def test_one_process_writes_no_rows(data, tmp_path, monkeypatch):
    monkeypatch.setattr(running_sums, "KEPT_SECONDS", 0)
    seen = []
    by_one(data, tmp_path / "u", progress=lambda done, total: seen.append(files(tmp_path / "u")))
    assert [*map(list, {tuple(names) for names in seen if names})] == [KEPT]
    assert [path.name for path in (tmp_path / "u").iterdir()] == [SUMS]
    assert files(tmp_path / "u") == KEPT


def test_a_run_that_stops_goes_on_and_gives_the_same_bytes(data, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(running_sums, "KEPT_SECONDS", 0)
    computed = []
    compute = embed_statistics.DatasetShards.compute

    def stop(self, index, progress):
        computed.append(index.start)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return compute(self, index, progress)

    monkeypatch.setattr(embed_statistics.DatasetShards, "compute", stop)
    with pytest.raises(KeyboardInterrupt):
        by_one(data, tmp_path / "u")
    part = by_one(data, tmp_path / "u")
    assert computed == [0, 5, 10, 10, 15, 20]  # the first two were not computed again
    assert statistics_files(part) == expected


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CHANGES = {
    "an image": (
        lambda photos: shutil.copy(photos / "stripes" / "000.jpg", photos / "stripes" / "001.jpg"),
        r"of 5 images, the first of them \S*disc/010.jpg, some have changed",
    ),
    "a label": (
        lambda photos: (photos / "stripes" / "001.jpg").rename(photos / "disc" / "another.jpg"),
        r"of 5 summed shards \(of \S+\.jpg\) are not in these data",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_where_images_have_changed_the_sums_stay_and_the_user_is_told(data, tmp_path, monkeypatch, change):
    edit, told = CHANGES[change]
    photos = shutil.copytree(data, tmp_path / "photos")
    by_one(photos, tmp_path / "u")
    before = contents(tmp_path / "u")
    edit(photos)
    monkeypatch.setattr(embed_statistics.DatasetShards, "compute", lambda *_: pytest.fail("computed"))
    with pytest.raises(OptionError, match=f"{tmp_path}/u/{SUMS} cannot be gone on from: .*{told}.* delete that folder"):
        by_one(photos, tmp_path / "u")
    assert contents(tmp_path / "u") == before


def test_images_that_are_read_again_are_told_as_they_are(data, expected, tmp_path, monkeypatch):
    by_one(data, tmp_path / "u")
    seen, read = [], []
    of_now = embed_statistics.DatasetShards.contents
    monkeypatch.setattr(
        embed_statistics.DatasetShards, "contents", lambda self, index: read.append(index.stop) or of_now(self, index)
    )
    part = by_one(data, tmp_path / "u", progress=lambda done, total: seen.append((done, total, [*read])))
    assert seen == [(done, 24, [d for d in (5, 10, 15, 20, 24) if d <= done]) for done in (5, 10, 15, 20, 24)]
    assert statistics_files(part) == expected


@pytest.fixture
def twice(data, tmp_path) -> Path:
    """A table that names twelve images, and then all of them once more."""
    photos = shutil.copytree(data, tmp_path / "photos")
    lines = [f"{label}/{i:03}.jpg,{label}" for label in ("disc", "stripes") for i in range(6, 12)]
    table = photos / "twice.csv"
    table.write_text("\n".join(["path,label", *lines, *lines]), "utf-8")
    return table


@pytest.mark.parametrize("shard_images", [24, 12, 6, 5])
def test_images_that_a_table_names_twice_are_summed_twice_and_kept_twice(twice, tmp_path, shard_images):
    dataset = open_dataset(twice)
    part = sum_dataset(dataset, tmp_path / "u", OPTIONS, shard_images=shard_images).part
    assert part.of_taps.statistics.counts.tolist() == [12, 12]
    embed_to_folder(dataset, tmp_path / "rows", OPTIONS, shard_images=shard_images)
    rows = read_rows(tmp_path / "rows").rows
    assert sorted(rows.paths) == sorted([*{*rows.paths}] * 2)
    assert len(rows) == 24
    again = embed_to_folder(dataset, tmp_path / "rows", OPTIONS, shard_images=shard_images)
    assert (again.found, again.rows) == (again.shards, 24)


def test_a_run_that_was_killed_at_its_first_file_goes_on(twice, tmp_path):
    for folder in (tmp_path / "u" / ROWS, tmp_path / "rows"):
        folder.mkdir(parents=True)
        (folder / f"{TEMPORARY}begun").write_bytes(b"the first half")
    dataset = open_dataset(twice)
    assert sum_dataset(dataset, tmp_path / "u", OPTIONS).part.images == 24
    assert embed_to_folder(dataset, tmp_path / "rows", OPTIONS).rows == 24


@pytest.mark.slow
def test_workers_sum_twice_what_a_table_names_twice(twice, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_sharded, "cut", lambda uri, reading: cut(uri, reading, images=6))
    part = by_workers(f"file://{twice}", tmp_path / "u").part
    assert part.of_taps.statistics.counts.tolist() == [12, 12]


@pytest.mark.slow
def test_one_process_and_workers_do_not_go_on_from_each_other(data, tmp_path):
    by_one(data, tmp_path / "one")
    by_workers(str(data), tmp_path / "workers")
    with pytest.raises(OptionError, match="summed in one process, without --on, where"):
        by_workers(str(data), tmp_path / "one")
    with pytest.raises(OptionError, match="summed by workers, with --on, where"):
        by_one(data, tmp_path / "workers")


def test_images_of_which_none_counts_are_an_error(data, tmp_path):
    folder = shutil.copytree(data / "disc", tmp_path / "images")
    with pytest.raises(DataError, match=r"training images with a label.*11 images without a label"):
        by_one(folder, tmp_path / "u")
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="holds no image that could be read"):
        by_one(folder, tmp_path / "v")


def test_a_cut_that_is_not_there_is_refused_before_the_work(data, tmp_path, monkeypatch):
    found = taps_to_sum
    monkeypatch.setattr(embed_statistics, "taps_to_sum", lambda source, _: found(source, ("x",)))
    monkeypatch.setattr(embed_statistics.DatasetShards, "compute", lambda *_: pytest.fail("computed"))
    with pytest.raises(OptionError, match="Unknown cut 'x'; the features are of "):
        by_one(data, tmp_path / "u")


def test_of_sums_that_are_not_needed_any_more_nothing_else_is_deleted(tmp_path):
    kept = [tmp_path / SUMS / "thesis.txt", tmp_path / ROWS / "thesis.txt", tmp_path / "thesis.txt"]
    for file in kept:
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    (tmp_path / f"{TEMPORARY}x").mkdir()
    embed_statistics.forget_sums(tmp_path)
    assert all(file.is_file() for file in kept)
    assert not (tmp_path / f"{TEMPORARY}x").exists()
    for file in kept:
        file.unlink()
    embed_statistics.forget_sums(tmp_path)
    assert not tmp_path.exists()


def sums_of(files):
    return files["statistics.safetensors"]


@pytest.mark.slow
def test_rows_of_workers_are_deleted_as_they_are_summed(pattern, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(running_sums, "KEPT_SECONDS", 0)
    keep, left = RunningSums.keep, []

    def watched(self, *, at_once=False):
        left.append(len([*(tmp_path / "u" / ROWS).glob("*.parquet")]))
        return keep(self, at_once=at_once)

    monkeypatch.setattr(RunningSums, "keep", watched)
    result = by_workers(pattern, tmp_path / "u")
    assert max(left) <= 2  # the one that is summed, and that which the worker has done in the meantime
    assert files(tmp_path / "u") == KEPT
    assert result.missing == 0
    assert sums_of(statistics_files(result.part)) == sums_of(expected)


KILLED = """
import sys
from pathlib import Path
from headstart.classifier import FitOptions
from headstart.classifier.embed_sharded import Where
from headstart.classifier.embed_statistics import sum_sharded
from headstart.data import ReadOptions
from headstart.features import Compute, running_sums
if __name__ == "__main__":
    running_sums.KEPT_SECONDS = 0
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)
    sum_sharded(sys.argv[1], Path(sys.argv[2]), options, ReadOptions(), Where("processes", 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_killed_at_any_shard_it_goes_on_and_gives_the_same_bytes(pattern, tmp_path, monkeypatch, shards):
    whole = statistics_files(by_workers(pattern, tmp_path / "whole").part)
    (tmp_path / "killed.py").write_text(KILLED)
    folder, environment = tmp_path / "u", {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, str(tmp_path / "killed.py"), pattern, str(folder)], env=environment)
    about = folder / SUMS / "shards.json"
    while process.poll() is None and not (about.exists() and about.read_text("utf-8").count("[") >= shards):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    computed = []
    run = embed_statistics._SumShard.finished
    monkeypatch.setattr(
        embed_statistics._SumShard,
        "finished",
        lambda self, shard: computed.append(shard.sha256 in self.sums.shards) or run(self, shard),
    )
    result = by_workers(pattern, folder, 2)
    assert sum(computed) >= shards
    assert statistics_files(result.part) == whole
    assert files(folder) == KEPT


@pytest.mark.slow
def test_shards_that_are_missing_are_done_later_and_alone(pattern, tmp_path):
    for path in Path(pattern).parent.glob("*.tar"):
        shutil.copy(path, tmp_path)
    here = f"{tmp_path}/{{0..3}}.tar"
    whole = (tmp_path / "2.tar").read_bytes()
    (tmp_path / "2.tar").write_bytes(whole[:700])
    first = by_workers(here, tmp_path / "u")
    assert (first.missing, first.part.images) == (1, 17)
    (tmp_path / "2.tar").write_bytes(whole)
    second = by_workers(here, tmp_path / "u")
    assert (second.missing, second.part.images) == (0, 23)
    assert sums_of(statistics_files(second.part)) == sums_of(statistics_files(by_workers(here, tmp_path / "v").part))


@pytest.mark.slow
def test_an_archive_that_has_changed_is_an_error_and_the_sums_stay(pattern, tmp_path):
    for path in Path(pattern).parent.glob("*.tar"):
        shutil.copy(path, tmp_path)
    here = f"{tmp_path}/{{0..3}}.tar"
    by_workers(here, tmp_path / "u")
    before = contents(tmp_path / "u")
    shutil.copy(tmp_path / "1.tar", tmp_path / "0.tar")
    with pytest.raises(OptionError, match=r"1 of 4 summed shards \(of 0\.tar\) are not in these data"):
        by_workers(here, tmp_path / "u")
    assert contents(tmp_path / "u") == before


@pytest.mark.slow
def test_an_archive_that_is_away_when_the_run_goes_on_has_been_summed(pattern, tmp_path, monkeypatch):
    """As an address that does not answer once: of days of work nothing is deleted, and the result is that of all."""
    for path in Path(pattern).parent.glob("*.tar"):
        shutil.copy(path, tmp_path)
    here = f"{tmp_path}/{{0..3}}.tar"
    whole = by_workers(here, tmp_path / "u")
    (tmp_path / "2.tar").rename(tmp_path / "hidden")
    result = by_workers(here, tmp_path / "u")
    assert result.missing == 0
    assert result.notes == ("Of the pattern 2.tar cannot be read now; what an earlier run summed of it counts.",)
    assert statistics_files(result.part) == statistics_files(whole.part)
