"""The store of backbones: whole or not at all, by name, checked when read."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers.graphs import saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart import backbones
from headstart.backbones import InputOptions, store
from headstart.cli import main
from headstart.errors import BackboneError, OptionError
from headstart.features import Compute
from headstart.features.runtime import load_graph
from headstart.machine import cache_folder


@pytest.fixture
def small(tmp_path):
    return backbones.load(f"onnx:{saved(tmp_path)}")


def test_what_was_put_comes_back_and_runs_alike(small):
    store.put("birds", small)
    stored = backbones.load("birds")
    assert replace(stored, graph=b"") == replace(small, graph=b"", assumption=None)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    before, after = (load_graph(b.graph, Compute("onnxruntime")).run(pixels) for b in (small, stored))
    for tap in before:
        np.testing.assert_array_equal(before[tap], after[tap])


def test_entries_have_names_or_are_prepared_by_providers(small):
    store.put("birds", small)
    named, prepared = store.entries()
    assert (named.name, named.id, prepared.name) == ("birds", "onnx:net.onnx", "")
    assert named.bytes == small.graph.stat().st_size
    assert named.sha256 == small.sha256


def test_remove_frees_the_name_alone(small):
    store.put("a", small)
    store.put("b", small)
    assert store.remove("a") == small.graph.stat().st_size
    assert store.get("a") is None
    assert store.get("b") is not None
    with pytest.raises(OptionError, match=r"no backbone 'a'; it holds b, onnx:net\.onnx"):
        store.remove("a")
    store.remove("onnx:net.onnx")
    assert [entry.name for entry in store.entries()] == ["b"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.one_of(st.text(min_size=1), st.sampled_from(["../../x", "/etc/passwd", "a\0b", "..", "C:\\x", "con"])))
def test_no_name_leaves_the_folder(small, name):
    def files_outside():
        folder = cache_folder() / "backbones"
        return {path for path in cache_folder().parent.rglob("*") if folder not in path.parents}

    before = files_outside()
    try:
        store.put(name, small)
    except UnicodeEncodeError:  # half a surrogate pair is not text
        return
    assert store.get(name).sha256 == small.sha256
    assert files_outside() == before
    store.remove(name)


@pytest.mark.parametrize("name", ["", "a/b", "..", "onnx", "headstart-s", "a b", "x" * 65, ".hidden", "é"])
def test_names_that_cannot_be_imported_under_are_refused(name):
    with pytest.raises(OptionError, match="cannot name a backbone"):
        store.check_name(name)


def damage_graph(folder):
    graph = folder / "backbone.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")


def rename(folder):
    path = folder / "backbone.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "other"}))


@pytest.mark.parametrize(
    "harm",
    [
        damage_graph,
        rename,
        lambda folder: (folder / "backbone.onnx").unlink(),
        lambda folder: (folder / "backbone.json").unlink(),
        lambda folder: (folder / "backbone.json").write_text("["),
        lambda folder: (folder / "backbone.json").write_text("[]"),
        lambda folder: (folder / "backbone.json").write_text("[" * 100_000),
        lambda folder: (folder / "backbone.json").write_text("{}"),
    ],
)
def test_a_damaged_entry_counts_as_missing(small, harm):
    store.put("birds", small)
    harm(next(e.folder for e in store.entries() if e.name == "birds"))
    assert store.get("birds") is None
    with pytest.raises(OptionError, match="Unknown backbone 'birds'"):
        backbones.load("birds")
    store.put("birds", small)
    assert store.get("birds") is not None


def test_a_backbone_whose_graph_changed_is_not_stored(small):
    with pytest.raises(BackboneError, match="not the one that was loaded"):
        store.put("birds", replace(small, sha256="0" * 64))
    assert [entry.name for entry in store.entries()] == [""]


def test_several_threads_can_put_the_same(small):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.put(f"n{i % 2}", small), range(16)))
    assert {entry.name for entry in store.entries()} == {"", "n0", "n1"}
    assert store.get("n0").sha256 == small.sha256


def test_a_stored_backbone_refuses_options_and_unknown_cuts(small):
    store.put("birds", small)
    with pytest.raises(OptionError, match="leave those options out"):
        backbones.load("birds", options=InputOptions(crop=0.5))
    with pytest.raises(BackboneError, match="Unknown cut 'nowhere'"):
        backbones.load("birds", taps=["nowhere"])
    assert backbones.load("birds", taps=["early"]).sha256 == small.sha256


def test_a_speed_is_recorded_beside_the_graph_it_was_measured_on(small):
    speed = store.Speed(12.5, "onnxruntime", "1.0", "fp32")
    store.record_speed(small, speed)
    (entry,) = store.entries()
    assert entry.speed == speed
    written = json.loads((entry.folder / "speed.json").read_text())
    assert written == {"sha256": small.sha256, **speed.to_dict()}
    (entry.folder / "speed.json").write_text(json.dumps({**written, "sha256": "0" * 64}))
    assert store.entries()[0].speed is None


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["headstart", "backbones", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


def test_what_killed_processes_left_is_swept_and_nothing_else(small, tmp_path, monkeypatch, capsys):
    folder = small.graph.parent.parent
    left, recent, other = folder / ".headstart-abc", folder / ".headstart-def", folder / ".git"
    for path in (left, recent, other):
        path.mkdir()
    for path in (left, other):
        os.utime(path, (0, 0))
    assert command(monkeypatch, capsys, "import", saved(tmp_path), "--name", "again")[0] == 0
    assert not left.exists()
    assert recent.exists()
    assert other.exists()
    assert small.graph.exists()


def test_import_list_show_remove(tmp_path, monkeypatch, capsys):
    file = saved(tmp_path)
    status, out, err = command(monkeypatch, capsys, "import", file, "--name", "mine")
    assert (status, out.split(";")[0]) == (0, "Stored as mine")
    assert "does not say how its input is scaled" in err
    file.unlink()
    listed = {entry["id"]: entry for entry in json.loads(command(monkeypatch, capsys, "list", "--json")[1])}
    assert listed["mine"]["kept"]
    assert not listed["onnx:net.onnx"]["kept"]
    assert "mine" in command(monkeypatch, capsys, "list")[1]
    shown = json.loads(command(monkeypatch, capsys, "show", "mine", "--json")[1])
    assert shown["sha256"] == listed["mine"]["sha256"]
    assert command(monkeypatch, capsys, "remove", "mine")[0] == 0
    status, _, err = command(monkeypatch, capsys, "show", "mine")
    assert (status, err.count("\n")) == (2, 1)
    assert command(monkeypatch, capsys, "remove", "mine")[0] == 2


def test_import_keeps_what_the_options_say(tmp_path, monkeypatch, capsys):
    file = saved(tmp_path)
    flags = ["--mean", "0.5", "--std", "0.25,0.5,1", "--channels", "BGR", "--crop", "0.5", "--resize", "squash"]
    status, _, err = command(monkeypatch, capsys, "import", file, "--name", "mine", *flags)
    assert (status, err) == (0, "")
    options = InputOptions(mean=(0.5,) * 3, std=(0.25, 0.5, 1.0), channels="BGR", crop=0.5, resize="squash")
    expected = backbones.load(f"onnx:{file}", options=options)
    stored = backbones.load("mine")
    assert stored.sha256 == expected.sha256 != backbones.load(f"onnx:{file}").sha256
    assert stored.preprocess == expected.preprocess
    assert command(monkeypatch, capsys, "import", file, "--name", "mine", "--mean", "a,b")[0] == 2


@pytest.mark.parametrize("name", ["../x", "onnx", "a b"])
def test_import_refuses_names(tmp_path, monkeypatch, capsys, name):
    assert command(monkeypatch, capsys, "import", saved(tmp_path), "--name", name)[0] == 2
    assert all(not entry.name for entry in store.entries())
