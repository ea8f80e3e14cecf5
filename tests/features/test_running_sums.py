"""Sums that grow a shard at a time: those of all rows, in bounded memory, and on the disk as they were."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.memory import peak_of

from headstart.errors import DataError, OptionError
from headstart.features import running_sums
from headstart.features.rows import FeatureRows, Machine, Rows, Source, Unread
from headstart.features.rows_folder import Shard
from headstart.features.running_sums import RunningSums, read_sums
from headstart.features.runtime import RuntimeInfo
from headstart.features.statistics_folder import sum_rows
from headstart.images.preprocess import Preprocess

BACKBONE = {"id": "headstart-s", "sha256": "ab" * 32, "licence": "", "source": "", "precision": "fp32"}
UNREAD = Unread("b.jpg", "It is damaged.", "ant", "train", "ab" * 32)


def make_rows(labels, channels=5, *, seed=0, split="train"):
    rng, count = np.random.default_rng(seed), len(labels)
    return Rows(
        rng.integers(0, 256, (count, 32), np.uint8),
        tuple(f"{seed}-{i}.jpg" for i in range(count)),
        tuple(labels),
        (split,) * count,
        (None,) * count,
        ("",) * count,
        np.zeros((count, 768), np.uint8),
        np.zeros((count, 4), np.float32),
        {"features": rng.integers(-32767, 32768, (count, channels)).astype(np.int16)},
    )


def make_source(channels=5):
    machine = Machine(
        RuntimeInfo("onnxruntime", "1.20", "fp32"), "x86_64 avx2", {"features": np.ones((8, channels), np.float32)}
    )
    return Source(BACKBONE, {"features": (-3,) * channels}, None, Preprocess(96, 96), (machine,))


def new_sums(folder, channels=5):
    return RunningSums(folder, make_source(channels), ("features",))


@pytest.fixture
def kept(tmp_path):
    """Sums of two shards, on the disk."""
    sums = new_sums(tmp_path / "sums")
    sums.add("one", Shard(make_rows(["dog", None, "ant"]), (UNREAD,), {"{count} are grey.": 2}), "c1")
    sums.add("two", Shard(make_rows(["bee"], seed=1), (), {"{count} are grey.": 1}), "c2", "caf\udce9/0.tar")
    assert sums.keep(at_once=True)
    return sums


def test_sums_of_shards_with_different_classes_are_those_of_all_rows(tmp_path):
    rows = make_rows(("dog", "ant", "dog", None, "cat", "ant", "bee", "bee", "ant", None, "cat"))
    sums = new_sums(tmp_path / "sums")
    for start in range(0, 11, 3):
        sums.add(f"{start}", Shard(rows.select(range(start, min(start + 3, 11)))))
    summed, whole = sums.part, sum_rows(FeatureRows(make_source(), rows), ["features"])
    assert summed.classes == whole.classes == ("ant", "bee", "cat", "dog")
    assert (summed.left_out, summed.fingerprint) == ({"without a label": 2}, whole.fingerprint)
    for name in ("counts", "sums", "gram"):
        values = [getattr(part.of_taps.statistics, name) for part in (summed, whole)]
        np.testing.assert_array_equal(*values)


def test_what_was_kept_is_read_as_it_was(kept):
    again = read_sums(kept.folder, kept.source, ("features",))
    assert (again.shards, again.unread, again.remarks) == (kept.shards, [UNREAD], {"{count} are grey.": 3})
    assert (again.part.classes, again.part.left_out) == (("ant", "bee", "dog"), {"without a label": 1})
    assert again.part.fingerprint == kept.part.fingerprint
    for name in ("counts", "sums", "gram"):
        values = [getattr(sums.part.of_taps.statistics, name) for sums in (kept, again)]
        np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("rows", [make_rows([]), make_rows([None, None]), make_rows(["a"], split="test")])
def test_shards_of_which_nothing_counts_are_kept(tmp_path, rows):
    sums = new_sums(tmp_path / "sums")
    assert not sums.keep(at_once=True)  # there is nothing yet
    sums.add("one", Shard(rows))
    assert sums.keep(at_once=True)
    again = read_sums(sums.folder, sums.source, ("features",))
    assert (again.shards, again.part.images, again.part.left_out) == (sums.shards, 0, sums.part.left_out)


def test_they_are_written_at_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(running_sums, "KEPT_SECONDS", 1000)
    sums = new_sums(tmp_path / "sums")
    sums.add("one", Shard(make_rows(["a"])))
    assert not sums.keep()
    sums._last -= 1000
    assert sums.keep()
    assert not sums.keep()


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path):
    def add(count):
        sums = new_sums(tmp_path / "sums", 300)
        for i in range(count):
            sums.add(f"{i}", Shard(make_rows(["a", "b"] * 200, 300, seed=i)))

    add(1)
    rows = 400 * (300 * 2 + 768)  # of one shard of the 17 more; less than a Gram matrix
    assert rows < 300 * 300 * 8
    assert peak_of(lambda: add(20)) < peak_of(lambda: add(3)) + rows


@pytest.mark.parametrize(("limit", "value"), [("MAX_SHARDS", 2), ("MAX_FILE", 120)])
def test_more_shards_than_can_be_read_again_are_refused_and_the_sums_from_before_stay(kept, monkeypatch, limit, value):
    before = {path.name: path.read_bytes() for path in kept.folder.iterdir()}
    assert len(before["shards.json"]) < 120
    kept.add("three", Shard(make_rows(["cat"], seed=2)), "c" * 50)
    monkeypatch.setattr(running_sums, limit, value)
    with pytest.raises(OptionError, match=r"shards\.json would name 3 shards in \d+ bytes, more than .* sum parts"):
        kept.keep(at_once=True)
    assert {path.name: path.read_bytes() for path in kept.folder.iterdir()} == before


def change(folder, edit):
    path = folder / "shards.json"
    about = json.loads(path.read_text("utf-8"))
    edit(about)
    path.write_text(json.dumps(about), "utf-8")


HOSTILE = {
    "no shards": lambda f: (f / "shards.json").unlink(),
    "none": lambda f: change(f, lambda about: about.update(shards={})),
    "a list": lambda f: change(f, lambda about: about.update(shards=[])),
    "a number": lambda f: change(f, lambda about: about["shards"].update(one=3)),
    "fewer images than none": lambda f: change(f, lambda about: about["shards"].update(one=[-1, "", ""])),
    "contents of a number": lambda f: change(f, lambda about: about["shards"].update(one=[1, 2, ""])),
    "half a character": lambda f: change(f, lambda about: about["shards"].update({"s\ud800": [1, "", ""]})),
    "a title of a number": lambda f: change(f, lambda about: about["shards"].update(one=[1, "", 2])),
    "no title": lambda f: change(f, lambda about: about["shards"].update(one=[1, ""])),
    "no remarks": lambda f: change(f, lambda about: about.pop("remarks")),
    "cut off": lambda f: (f / "statistics.safetensors").write_bytes(b"cut off"),
    "not JSON": lambda f: (f / "shards.json").write_bytes(b"{"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_damaged_is_not_gone_on_from(kept, name):
    HOSTILE[name](kept.folder)
    with pytest.raises(DataError, match=r"cannot be gone on from: .*(statistics|shards)\.(json|safetensors)") as error:
        read_sums(kept.folder, kept.source, ("features",))
    assert "delete that folder, and all images are summed anew" in str(error.value)


MACHINE = make_source().machines[0]
OTHERWISE = {
    "backbone headstart-s in fp32 (abababababab), now headstart-s in fp32 (cdcdcdcdcdcd).": {
        "backbone": {**BACKBONE, "sha256": "cd" * 32}
    },
    "height 96, now 128; width 96, now 64.": {"preprocess": Preprocess(128, 64)},
    "sample_range None, now (0.0, 4095.0).": {"preprocess": Preprocess(96, 96, sample_range=(0.0, 4095.0))},
    "runtime onnxruntime 1.20 fp32 on x86_64 avx2, now onnxruntime 1.20 fp32 on aarch64.": {
        "machines": (replace(MACHINE, instruction_set="aarch64"),)
    },
    "has other values for the same images.": {
        "machines": (replace(MACHINE, golden={"features": np.zeros((8, 5), np.float32)}),)
    },
}


@pytest.mark.parametrize("told", OTHERWISE)
def test_what_differs_from_sums_that_are_there_is_named(kept, told):
    before = {path.name: path.read_bytes() for path in kept.folder.iterdir()}
    with pytest.raises(OptionError, match=re.escape(told)) as error:
        read_sums(kept.folder, replace(kept.source, **OTHERWISE[told]), ("features",))
    assert str(kept.folder) in str(error.value)
    assert {path.name: path.read_bytes() for path in kept.folder.iterdir()} == before


def test_sums_of_other_taps_are_not_gone_on_from(kept, tmp_path):
    with pytest.raises(OptionError, match="summed features, now stage4"):
        read_sums(kept.folder, kept.source, ("stage4",))
    assert read_sums(tmp_path / "nothing", kept.source, ("features",)) is None
