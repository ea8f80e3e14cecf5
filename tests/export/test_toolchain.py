"""Environments of converters: made whole or not at all, and only if allowed; programs in them that answer images."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import MissingExtraError, ModelError, OptionError
from headstart.export import toolchain as toolchain_module
from headstart.export.toolchain import Toolchain, Worker, install, run_program

HERE = ".".join(map(str, sys.version_info[:2]))
ANSWER = """
import sys
import numpy as np
while line := sys.stdin.buffer.readline():
    for _ in range(int(line)):
        pixels = np.frombuffer(sys.stdin.buffer.read(12), np.uint8)
        if pixels[0] == 255:
            sys.exit(3)
        sys.stdout.buffer.write(np.array([pixels[0], pixels[-1], pixels.sum()], "<f4").tobytes())
    sys.stdout.buffer.flush()
"""


@dataclass(frozen=True)
class Here(Toolchain):
    """A toolchain that is this environment, for the programs of the tests."""

    @property
    def interpreter(self):
        return Path(sys.executable)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A toolchain without requirements, in a cache folder of its own."""
    monkeypatch.setattr(toolchain_module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(Toolchain, "requirements", "# nothing\n")
    return Toolchain("litert", HERE, 1)


def test_nothing_is_installed_that_is_not_allowed(fake, monkeypatch):
    monkeypatch.setattr(toolchain_module.shutil, "which", lambda name: None if name == "uv" else f"/usr/bin/{name}")
    with pytest.raises(OptionError, match=r"Without --no-install .*: .* -m venv .*; .* -m pip install .*litert"):
        install(fake, allowed=False)
    assert not fake.folder.parent.exists()


def test_a_version_of_python_that_is_missing_is_named(fake, monkeypatch):
    monkeypatch.setattr(toolchain_module.shutil, "which", lambda _: None)
    with pytest.raises(OptionError, match=r"needs Python 3\.99, which is not found; install it .* or install uv"):
        install(Toolchain("litert", "3.99", 1))


def test_uv_is_asked_for_a_version_of_python_where_it_is_there(fake, monkeypatch):
    monkeypatch.setattr(toolchain_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(OptionError, match=r"/usr/bin/uv venv --python 3\.99 .*; /usr/bin/uv pip install --python "):
        install(Toolchain("litert", "3.99", 1), allowed=False)


def test_an_environment_is_made_once_whole_or_not_at_all(fake, monkeypatch):
    monkeypatch.setattr(toolchain_module.shutil, "which", lambda _: None)
    commands = []

    def run(command, seconds, *, shown):
        commands.append(command)
        if "venv" in command:
            interpreter = toolchain_module._interpreter(Path(command[-1]))
            interpreter.parent.mkdir(parents=True)
            interpreter.touch()
        elif len(commands) == 2:
            raise ModelError("pip failed: no network")

    monkeypatch.setattr(toolchain_module, "_run", run)
    with pytest.raises(ModelError, match="no network"):
        install(fake)
    assert not fake.is_ready
    assert [*fake.folder.parent.iterdir()] == []
    assert install(fake)
    assert fake.is_ready
    assert [*fake.folder.parent.iterdir()] == [fake.folder]
    assert not install(fake)
    assert len(commands) == 4


def test_a_program_that_fails_is_an_error_with_its_last_words(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint('working')\nsys.exit('LiteRT has no operator ' + sys.argv[1])\n")
    with pytest.raises(ModelError, match=r"failed: LiteRT has no operator NonZero$"):
        run_program(Here("here", HERE, 1), str(program), "NonZero")


def test_a_worker_answers_images_in_order_and_ends_with_an_error_where_its_program_ends(tmp_path):
    program = tmp_path / "answer.py"
    program.write_text(ANSWER)
    pixels = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3)
    worker = Worker(Here("here", HERE, 1), str(program), tmp_path, 2)
    for images in (pixels, pixels[2:3], np.repeat(pixels, 4000, axis=0)):  # the last one fills every pipe
        answers = worker(images)
        flat = images.reshape(len(images), 12)
        assert np.array_equal(answers.probabilities, flat[:, [0, -1]].astype(float))
        assert np.array_equal(answers.ood_scores, flat.sum(axis=1, dtype=float))
    with pytest.raises(ModelError, match="ended, or hung"):
        worker(np.full((1, 2, 2, 3), 255, np.uint8))
    worker.close()


def test_a_worker_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain_module, "ANSWER_SECONDS", 0.5)
    program = tmp_path / "answer.py"
    program.write_text("import time\ntime.sleep(600)\n")
    worker = Worker(Here("here", HERE, 1), str(program), tmp_path, 2)
    with pytest.raises(ModelError, match="ended, or hung"):
        worker(np.zeros((1, 2, 2, 3), np.uint8))
    assert worker._process.poll() is not None


def test_a_missing_toolchain_is_a_missing_extra(fake):
    with pytest.raises(MissingExtraError, match="The runtime of litert is not installed"):
        Worker(fake, "answer_litert.py", Path("model.tflite"), 2)
