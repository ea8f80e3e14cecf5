"""``headstart embed --on``: the same folder of features for any number and kind of workers, whoever dies."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from helpers.photos import ROOT, write_photos
from typer.testing import CliRunner

import headstart.classifier.embed_sharded as driver
from headstart.classifier import FitOptions
from headstart.classifier.embed_sharded import Where, embed_sharded
from headstart.cli import app
from headstart.data import ReadOptions
from headstart.errors import HeadstartError, OptionError
from headstart.features import Compute
from headstart.features.runtime import RuntimeInfo
from headstart.scale.shards import cut

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'headstart[tables]'")
OPTIONS = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> str:
    """Five archives of eight images; in the third one is damaged, and the last is cut off."""
    folder = tmp_path_factory.mktemp("shards")
    photos = sorted(write_photos(tmp_path_factory.mktemp("photos"), 20).rglob("*.jpg"))
    for number in range(5):
        with tarfile.open(folder / f"{number:03}.tar", "w") as archive:
            for path in photos[number::5]:
                data = path.read_bytes() if (number, path.stem) != (2, "007") else b"damaged"
                member = tarfile.TarInfo(f"{path.parent.name}/{path.name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    whole = (folder / "004.tar").read_bytes()
    (folder / "004.tar").write_bytes(whole[:700])
    return f"{folder}/{{000..004}}.tar"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def embed(pattern: str, folder: Path, where: Where, **options):
    return embed_sharded(pattern, folder, OPTIONS, ReadOptions(), where, **options)


@pytest.fixture(scope="module")
def expected(pattern, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    embed(pattern, folder, Where("processes", 1))
    return contents(folder)


def test_what_is_missing_is_named(pattern, expected):
    about = json.loads(expected["features.json"])

    assert (about["images"], len(about["shards"])) == (30, 4)
    unread = {image["path"]: image["reason"] for image in about["unread"]}
    third = pattern.replace("{000..004}", "002")
    assert set(unread) == {f"{third}/disc/007.jpg", f"{third}/stripes/007.jpg", "004.tar"}
    assert "cannot be read as an archive" in unread["004.tar"]
    assert unread["004.tar"].endswith("(tried 3 times)")
    assert [note for note in about["notes"] if "shards are missing" in note] == [
        f"1 of 5 shards are missing (004.tar: {unread['004.tar']}); the same command tries them again."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_files_are_the_same_for_any_number_of_workers_also_where_they_are_killed(count, pattern, expected, tmp_path):
    rng, is_over, kills = random.Random(count), threading.Event(), 0

    def kill_some() -> None:
        nonlocal kills
        while kills < count and not is_over.wait(rng.uniform(1, 4)):
            if (children := active_children()) and (pid := rng.choice(children).pid):
                os.kill(pid, signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_some)
    killer.start()
    embed(pattern, tmp_path, Where("processes", count))
    is_over.set()
    killer.join()
    embed(pattern, tmp_path, Where("processes", count))  # where one shard was hit three times

    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_a_run_goes_on_where_another_was_stopped(pattern, expected, tmp_path):
    first, second, *_ = [name for name in expected if name.endswith(".parquet")]
    for name in (first, second):
        (tmp_path / name).write_bytes(expected[name] if name == first else expected[name][:1000])

    result = embed(pattern, tmp_path, Where("processes", 2))

    assert (result.found, result.shards) == (1, 4)
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_the_model_is_that_of_features_that_one_process_computed(tmp_path):
    data = write_photos(tmp_path / "photos", 12)
    command = ["embed", str(data), "--backbone", "headstart-s", "--runtime", "onnxruntime", "--no-cache", "-o"]
    for name, more in (("one", []), ("two", ["--on", "processes", "--workers", "2"])):
        result = CliRunner().invoke(app, [*command, str(tmp_path / name), *more])
        assert result.exit_code == 0, result.output
        result = CliRunner().invoke(app, ["merge", str(tmp_path / name), "-o", str(tmp_path / f"model-{name}")])
        assert result.exit_code == 0, result.output

    for name in ("model.onnx", "head.safetensors", "config.json"):
        assert (tmp_path / "model-one" / name).read_bytes() == (tmp_path / "model-two" / name).read_bytes()


WORKER = """
import sys
from headstart.classifier.embed_sharded import Where, embed_sharded
import headstart.classifier.embed_sharded as driver
import pickle
kept = {}
def run_shards(shards, work, *_, **__):
    open(sys.argv[3], "wb").write(pickle.dumps((work, shards[0])))
    raise SystemExit
driver.run_shards = run_shards
from headstart.classifier import FitOptions
from headstart.data import ReadOptions
from headstart.features import Compute
from pathlib import Path
options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)
embed_sharded(sys.argv[1], Path(sys.argv[2]), options, ReadOptions(), Where())
"""
LOADED = """
import pickle, sys
from headstart.scale.contract import attempt
work, shard = pickle.load(open(sys.argv[1], "rb"))
print(attempt(work, shard, lambda done: None).images)
wrong = ("sklearn", "scipy", "torch", "headstart.classifier", "headstart.heads.selection", "headstart.model")
print([name for name in wrong if name in sys.modules])
"""


@pytest.mark.slow
def test_a_worker_needs_no_fitting_code(pattern, expected, tmp_path):
    pickled, out = tmp_path / "work", tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", WORKER, pattern, str(out), str(pickled)], env=environment, check=True)

    run = subprocess.run(
        [sys.executable, "-c", LOADED, str(pickled)], env=environment, capture_output=True, text=True, check=True
    )

    assert run.stdout.split("\n") == ["8", "[]", ""]
    (file,) = out.glob("*.parquet")
    assert file.read_bytes() == expected[file.name]


def test_another_kind_of_machine_is_refused(pattern, tmp_path, monkeypatch):
    seen = []

    def work_of(shards, work, *_, **__):
        seen.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "run_shards", work_of)
    with pytest.raises(KeyboardInterrupt):
        embed(pattern, tmp_path, Where())
    (work,) = seen
    machine = replace(work.source.machines[0], runtime=RuntimeInfo("onnxruntime", "0.1", "fp32"))
    other = replace(work, source=replace(work.source, machines=(machine,)))

    with pytest.raises(
        OptionError, match=r"^A worker has onnxruntime .*, not onnxruntime 0\.1 fp32 on .*: use one kind"
    ):
        other.run(cut(pattern).shards[0], lambda done: None)
    assert other.path(cut(pattern).shards[0]) != work.path(cut(pattern).shards[0])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"on": "threads"}, "Unknown kind of workers 'threads'; choose one of processes, ray"),
        ({"workers": 0}, "0 workers cannot be used"),
        ({"address": "auto"}, "--address is that of a Ray cluster; give --on ray too"),
    ],
)
def test_options_that_cannot_be_used(where, message):
    with pytest.raises(OptionError, match=message):
        Where(**where)


def test_without_ray_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HeadstartError, match=r"Ray is not installed; run: pip install 'headstart\[ray\]'"):
        Where("ray").open(None, 1)


def test_without_ray_no_folder_is_left_behind(pattern, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HeadstartError, match="Ray is not installed"):
        embed_sharded(pattern, tmp_path / "features", OPTIONS, ReadOptions(), Where("ray"))
    assert not (tmp_path / "features").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_the_same_files(pattern, expected, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: make scale installs it")
    out = tmp_path / "out"
    code = WORKER.replace("driver.run_shards = run_shards\n", "").replace("Where())", "Where('ray', 2))")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code, pattern, str(out)], env=environment, check=True)

    assert contents(out) == expected
    shutil.rmtree(out)
