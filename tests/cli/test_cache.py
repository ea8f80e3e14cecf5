"""``headstart cache``: what the cache folder holds, and clearing it without touching what is not ours."""

import json
import os
import re
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import store
from headstart.backbones.providers.hub import _hub_folder
from headstart.export.toolchain import Toolchain
from headstart.features import cache_contents as cache
from headstart.features.cache import FeatureCache
from headstart.model.graph_check import _mark

DAY = 86_400


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def put(folder, path, content=b"12345", *, age=0):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    for changed in (target, target.parent):
        if changed != folder:
            os.utime(changed, (time.time() - age, time.time() - age))
    return target


def fill(folder):
    """Put something of each kind there; return the paths by kind."""
    with FeatureCache() as features:
        features.put_many({bytes([i]) * 32: np.arange(8, dtype=np.float16) for i in range(5)})
    return {
        "old-features": put(folder, "features-v1.sqlite"),
        "hub": put(folder, f"hub/{'a' * 32}.json"),
        "toolchains": put(folder, f"toolchains/litert-{'0' * 16}/bin/python"),
        "web": put(folder, "onnxruntime-web-1.30.0/ort.mjs"),
        "speeds": put(folder, "speeds/abc-openvino.json"),
        "checks": put(folder, f"checked_graphs/1-{'b' * 64}", b""),
        "backbones": put(folder, f"backbones/{'c' * 32}/backbone.onnx"),
    }


def by_kind(found):
    return {one.kind.name: one for one in found}


def test_contents_count_entries_and_bytes_of_each_kind(folder):
    fill(folder)
    found = by_kind(cache.contents())
    assert found["features"].entries == 5
    assert found["features"].bytes == sum(path.stat().st_size for path in folder.glob("features-v2.sqlite*"))
    assert {name: one.bytes for name, one in found.items() if name not in ("features", "checks")} == dict.fromkeys(
        ("old-features", "hub", "toolchains", "web", "speeds", "backbones"), 5
    )
    assert all(found[name].entries == 1 for name in ("hub", "toolchains", "web", "speeds", "checks", "backbones"))


def test_every_path_in_the_cache_folder_is_of_a_kind(folder, monkeypatch):
    paths = [
        FeatureCache().path,
        store.named_folder("mine"),
        store.settings_folder(["x"]),
        _hub_folder("org/name@main"),
        _hub_folder("org/name@main").with_suffix(".json"),
        Toolchain("litert", "3.12", 1).folder,
        _mark("0" * 64),
    ]
    for path in paths:
        parent = path.parent.relative_to(folder).as_posix()
        kinds = [
            kind.name
            for kind in cache.KINDS
            if kind.folder == ("" if parent == "." else parent) and re.fullmatch(kind.pattern, path.name)
        ]
        assert len(kinds) == 1, path


def test_clearing_a_kind_leaves_the_others(folder):
    paths = fill(folder)
    (cleared,) = cache.clear(["toolchains"])
    assert (cleared.entries, cleared.bytes, cleared.failed) == (1, 5, ())
    assert not paths.pop("toolchains").parent.exists()
    assert all(path.exists() for path in paths.values())
    assert by_kind(cache.contents())["features"].entries == 5


def test_clearing_all_leaves_what_headstart_did_not_write(folder, tmp_path):
    fill(folder)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "only-copy.jpg").write_bytes(b"jpg")
    foreign = [
        put(folder, "thesis.docx"),
        put(folder, "speeds/notes.txt"),
        put(folder, f"hub/{'A' * 32}"),
        put(folder, "toolchains/mine/bin/python"),
        put(folder, "photos/1.jpg"),
    ]
    (folder / "hub" / ("d" * 32)).symlink_to(photos)
    (folder / "onnxruntime-web-9.9").symlink_to(photos)
    cleared = cache.clear(["all"])
    assert {one.kind.name: one.entries for one in cleared} == {
        **dict.fromkeys((kind.name for kind in cache.KINDS), 1),
        "features": 5,
    }
    assert all(path.read_bytes() == b"12345" for path in foreign)
    assert (photos / "only-copy.jpg").read_bytes() == b"jpg"
    assert not list(folder.rglob(".headstart*"))


def test_a_folder_that_is_a_link_is_left_alone(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, f"{'a' * 32}.json")
    (folder / "hub").symlink_to(elsewhere)
    assert by_kind(cache.contents())["hub"].entries == 0
    cache.clear(["all"])
    assert (elsewhere / f"{'a' * 32}.json").exists()


def test_a_folder_that_is_a_link_is_not_swept(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    names = ("a.zip", "b/c.bin")
    kept = [put(elsewhere, f".headstart-{name}", age=40 * DAY) for name in names]
    swept = [put(folder, f"toolchains/.headstart-{name}", age=40 * DAY) for name in names]
    for path in ("hub", "speeds"):
        (folder / path).symlink_to(elsewhere)
    cache.clear(["all"])
    assert [path.exists() for path in (*kept, *swept)] == [True, True, False, False]


def test_a_damaged_database_is_named_and_what_is_left_is_counted(folder, run):
    path = folder / FeatureCache.file_name()
    path.write_bytes(b"no database at all" * 1000)
    status, out, err = run("cache")
    assert status == 0
    assert re.fullmatch(
        r"note: The feature cache was damaged \(.+\); it was moved to (\S+) and a new one was started\.\n", err
    )
    (moved,) = folder.glob(f"{path.name}.damaged-*")
    assert moved.name in err
    assert moved.read_bytes() == b"no database at all" * 1000
    assert out.startswith(f"Folder      {folder}: {size(folder)}\n")
    path.write_bytes(b"no database again" * 2000)
    values = json.loads(run("cache", "--json")[1])
    features = values["kinds"][0]
    assert (features["kind"], features["entries"]) == ("features", 0)
    assert [note[:30] for note in features["notes"]] == ["The feature cache was damaged "]
    assert values["bytes"] == features["bytes"] == sum(path.stat().st_size for path in folder.glob("features*"))
    assert features["bytes"] > 2000 * len(b"no database again")  # and the new one
    assert run("cache")[2] == ""
    assert by_kind(cache.contents())["features"].notes == ()


@pytest.mark.parametrize("delete", ["clear", "forget"])
def test_a_database_that_turns_out_to_be_damaged_is_deleted_with_what_it_held(folder, run, delete):
    path = folder / FeatureCache.file_name()
    path.write_bytes(b"secret " * 1000)
    if delete == "clear":
        status, _, err = run("cache", "--clear", "features")
        assert (status, err) == (0, "")
    else:
        assert cache.forget([bytes(32)]) == (0, ())
    assert not list(folder.glob("*.damaged-*"))
    assert not any(b"secret" in path.read_bytes() for path in folder.iterdir())


def test_a_copy_of_a_damaged_database_that_cannot_be_deleted_is_named(folder, monkeypatch):
    (folder / FeatureCache.file_name()).write_bytes(b"secret " * 1000)
    monkeypatch.setattr(cache, "_delete", lambda path: [f"{path.name} could not be deleted: no"])
    (result,) = cache.clear(["features"])
    assert len(result.failed) == 2
    assert "it was moved to" in result.failed[0]
    assert "could not be deleted: no" in result.failed[1]


def test_a_database_of_another_program_is_neither_counted_nor_changed(folder):
    path = folder / "features-v2.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE patients (name TEXT)")
        other.execute("INSERT INTO patients VALUES ('Ada')")
    other.close()
    before = path.read_bytes()
    counted = by_kind(cache.contents())["features"]
    assert counted.entries == 0
    assert "another program" in counted.notes[0]
    (cleared,) = cache.clear(["features"])
    assert cleared.entries == 0
    assert "another program" in cleared.failed[0]
    assert path.read_bytes() == before


def test_unused_days_spare_what_was_used(folder):
    now = int(time.time())
    with FeatureCache() as features:
        features.put_many({bytes([i]) * 32: np.arange(8, dtype=np.float16) for i in range(5)})
        features._connection.execute("UPDATE entries SET used = ? WHERE key < ?", (now - 40 * DAY, bytes([2]) * 32))
        features._connection.commit()
    old, new = put(folder, "speeds/a.json", age=40 * DAY), put(folder, "speeds/b.json", age=20 * DAY)
    cleared = by_kind(cache.clear(["features", "speeds"], unused_days=30))
    assert (cleared["features"].entries, cleared["speeds"].entries) == (2, 1)
    assert (old.exists(), new.exists()) == (False, True)
    with FeatureCache() as features:
        assert [vector is None for vector in features.get_many([bytes([i]) * 32 for i in range(5)])] == [
            True,
            True,
            False,
            False,
            False,
        ]


@pytest.mark.parametrize("days", [36_500, 10**20])
def test_more_days_than_there_were_spare_all(folder, days):
    paths = fill(folder)
    for path in (*paths.values(), paths["toolchains"].parent.parent):
        os.utime(path, (0, 0))
    cleared = cache.clear(["all"], unused_days=days)
    assert [(one.entries, one.failed) for one in cleared] == [(0, ())] * len(cache.KINDS)
    assert all(path.exists() for path in paths.values())
    assert by_kind(cache.contents())["features"].entries == 5


def test_cleared_features_give_their_space_back(folder):
    with FeatureCache() as features:
        features.put_many({bytes([i]) * 32: np.full(50_000, i, np.float32) for i in range(20)})
    before = sum(path.stat().st_size for path in folder.glob("features*"))
    (cleared,) = cache.clear(["features"])
    left = sum(path.stat().st_size for path in folder.glob("features*"))
    assert before > 4_000_000 > 100_000 > left
    assert cleared.bytes == before - left


def test_imported_backbones_stay(folder, run):
    assert run("backbones", "import", "headstart-s", "--name", "mine")[0] == 0
    put(folder, f"backbones/{'c' * 32}/backbone.onnx")
    status, out, _ = run("cache", "--clear", "backbones")
    assert status == 0
    assert re.search(r"^backbones +5 B +deleted, prepared backbones: 1; 1 imported backbone kept", out, re.MULTILINE)
    assert store.get("mine") is not None
    assert "1 of them imported by name" in run("cache")[1]


def test_the_command_prints_sizes_and_json(folder, run):
    fill(folder)
    status, out, err = run("cache")
    assert (status, err) == (0, "")
    assert out.startswith(f"Folder      {folder}: ")
    assert re.search(r"^toolchains +5 B  converters of headstart export: 1$", out, re.MULTILINE)
    assert "headstart cache --clear KIND" in out
    values = json.loads(run("cache", "--json")[1])
    assert {kind["kind"]: kind["entries"] for kind in values["kinds"]}["features"] == 5
    assert values["bytes"] == sum(kind["bytes"] for kind in values["kinds"])
    cleared = json.loads(run("cache", "--clear", "all", "--json")[1])["cleared"]
    assert {one["kind"]: one["entries"] for one in cleared}["features"] == 5
    assert run("cache")[1] == f"Folder      {folder}: {size(folder)}\n" + run("cache")[1].split("\n", 1)[1]


def size(folder):
    count = sum(path.stat().st_size for path in folder.glob("features*"))
    return f"{count / 1e3:.1f} kB" if count < 10_000 else f"{count / 1e3:.0f} kB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clear", "photos"], "Unknown kind 'photos'; expected features, old-features,"),
        (["--unused-days", "3"], "--unused-days says what --clear deletes"),
        (["--clear", "all", "--unused-days", "-1"], "-1"),
        (["--clear", "all", "--unused-days", "99999999999999999999"], "0<=x<=36500"),
    ],
)
def test_a_wrong_option_deletes_nothing(folder, run, arguments, message):
    paths = fill(folder)
    status, out, err = run("cache", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert all(path.exists() for path in paths.values())


def test_what_cannot_be_deleted_is_named(folder, run, monkeypatch):
    fill(folder)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    status, out, err = run("cache", "--clear", "speeds")
    assert status == 1
    assert "note: abc-openvino.json could not be deleted: Permission denied" in err
    assert "deleted, speeds measured on this machine: 0" in out


def test_no_cache_folder_is_an_empty_one(tmp_path, monkeypatch, run):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "none"))
    assert run("cache") == (0, f"Folder      {tmp_path / 'none'}: 0 B\n", "")
    assert run("cache", "--clear", "all")[0] == 0
    assert not (tmp_path / "none").exists()
