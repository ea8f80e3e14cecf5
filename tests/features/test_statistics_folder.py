"""A folder of statistics: summed in bounded memory, written as it can be read, and never over other files."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.memory import peak_of

from headstart.errors import DataError, OptionError
from headstart.features import statistics_folder
from headstart.features.rows import FeatureRows, Machine, Rows, Source
from headstart.features.runtime import RuntimeInfo
from headstart.features.statistics_folder import (
    check_replaceable,
    merge_statistics,
    read_statistics,
    sum_rows,
    write_statistics,
)
from headstart.heads.from_statistics import TapStatistics
from headstart.heads.statistics import Statistics
from headstart.images.preprocess import Preprocess

pytest.importorskip("pyarrow")
BACKBONE = {"id": "headstart-s", "sha256": "ab" * 32, "licence": "", "source": "", "precision": "fp32"}


def make_features(count, channels, *, seed=0, labels=("cat", "dog"), split="train"):
    rng = np.random.default_rng(seed)
    machine = Machine(
        RuntimeInfo("onnxruntime", "1.20", "fp32"), "x86_64 avx2", {"features": np.ones((8, channels), np.float32)}
    )
    rows = Rows(
        rng.integers(0, 256, (count, 32), np.uint8),
        tuple(f"{seed}-{i}.jpg" for i in range(count)),
        tuple(labels[i % len(labels)] for i in range(count)),
        (split,) * count,
        (None,) * count,
        ("",) * count,
        np.zeros((count, 768), np.uint8),
        np.zeros((count, 4), np.float32),
        {"features": rng.integers(-32767, 32768, (count, channels)).astype(np.int16)},
    )
    return FeatureRows(Source(BACKBONE, {"features": (-3,) * channels}, None, Preprocess(96, 96), (machine,)), rows)


def many_classes(count, channels=2):
    """Statistics of one image of each of many classes, whose features are 0."""
    part = sum_rows(make_features(2, channels), ["features"])
    zeros = np.zeros((count, channels), np.int64), np.zeros((channels, channels), np.int64)
    of_taps = TapStatistics(part.of_taps.taps, Statistics(np.ones(count, np.int64), *zeros))
    return replace(part, classes=tuple(f"{i:06}" for i in range(count)), of_taps=of_taps)


def test_memory_does_not_grow_with_the_number_of_parts(tmp_path):
    for i in range(20):
        write_statistics(tmp_path / f"{i}", sum_rows(make_features(4, 300, seed=i), ["features"]))

    def merge_parts(count):
        names = [f"{i}" for i in range(count)]
        return merge_statistics((read_statistics(tmp_path / name) for name in names), names)

    merge_parts(2)
    assert peak_of(lambda: merge_parts(20)) < peak_of(lambda: merge_parts(3)) + 300 * 300 * 8


def test_parts_stay_as_they_are_when_they_are_added(tmp_path):
    parts = [sum_rows(make_features(4, 3, seed=i), ["features"]) for i in range(3)]
    before = [part.of_taps.statistics.gram.copy() for part in parts]
    total = merge_statistics(parts, ["a", "b", "c"])
    np.testing.assert_array_equal(total.of_taps.statistics.gram, sum(before))
    for part, gram in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.of_taps.statistics.gram, gram)
    with pytest.raises(OptionError, match="a and b are of the same images"):
        merge_statistics([parts[0], parts[0]], ["a", "b"])


def test_many_classes_come_back_as_they_were(tmp_path):
    part = many_classes(70_000)
    write_statistics(tmp_path / "s", part)
    again = read_statistics(tmp_path / "s")
    assert again.classes == part.classes
    assert again.images == 70_000


def test_what_cannot_be_read_again_is_not_written(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"100,001 classes are more than 100,000 of 2 channels"):
        write_statistics(tmp_path / "s", many_classes(100_001))
    monkeypatch.setattr(statistics_folder, "MAX_SUMS", 8 * 2 * 10)
    with pytest.raises(OptionError, match=r"11 classes are more than 10 of 2 channels"):
        write_statistics(tmp_path / "s", many_classes(11))
    halves = [
        replace(many_classes(6), classes=tuple(f"{half}{i}" for i in range(6)), fingerprint=half) for half in (1, 2)
    ]
    with pytest.raises(OptionError, match=r"12 classes are more than 10"):
        merge_statistics(halves, ["a", "b"])
    monkeypatch.setattr(statistics_folder, "MAX_CHANNELS", 1)
    with pytest.raises(OptionError, match="sum fewer taps: --cut"):
        write_statistics(tmp_path / "s", many_classes(2))
    monkeypatch.setattr(statistics_folder, "MAX_FILE", 100)
    monkeypatch.setattr(statistics_folder, "MAX_CHANNELS", 2)
    with pytest.raises(OptionError, match="skip fewer files"):
        write_statistics(tmp_path / "s", many_classes(2))
    assert [*tmp_path.iterdir()] == []


def test_statistics_that_would_be_damaged_leave_the_old_ones(tmp_path):
    part = many_classes(3)
    write_statistics(tmp_path / "s", part)
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(DataError):
        write_statistics(tmp_path / "s", replace(part, classes=("b", "a", "c")))
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_foreign_files_are_not_deleted(tmp_path):
    folder, part = tmp_path / "s", many_classes(3)
    check_replaceable(folder)
    folder.mkdir()
    check_replaceable(folder)
    write_statistics(folder, part)
    (folder / ".DS_Store").write_text("x")
    write_statistics(folder, part)
    (folder / "notes.txt").write_text("x")
    for work in (lambda: check_replaceable(folder), lambda: write_statistics(folder, part)):
        with pytest.raises(OptionError, match=r"other files than statistics \(notes\.txt\); give another name"):
            work()
    assert (folder / "notes.txt").read_text() == "x"
    (folder / "notes.txt").unlink()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("x")
    (tmp_path / "deep" / "statistics.json").mkdir(parents=True)
    for name, why in (("link", "it is a link"), ("file", "or no folder"), ("deep", "other files than statistics")):
        with pytest.raises(OptionError, match=why):
            check_replaceable(tmp_path / name)
