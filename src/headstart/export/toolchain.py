"""Toolchains of formats: environments of their own, made once from locked versions and kept in the cache folder.

A converter wants versions of Python, NumPy and onnx that Headstart must not be bound to. Programs in ``toolchains/``
run there: one converts, one answers images. The latter reads requests from its standard input: a line with a count of
images, then so many images of [height, width, 3] bytes; for each it writes float32 numbers, the probabilities and the
OOD score.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Thread

import numpy as np

from headstart.errors import MissingExtraError, ModelError, OptionError
from headstart.export.answers import Answers
from headstart.export.formats import Pixels
from headstart.files import TEMPORARY, sweep_unfinished
from headstart.machine import cache_folder

INSTALL_SECONDS = 3600
CONVERT_SECONDS = 900
ANSWER_SECONDS = 300  # for a batch of images
LAST_WORDS_SECONDS = 30
MAX_MESSAGE = 2000  # characters of what a program printed


@dataclass(frozen=True)
class Toolchain:
    """An environment: its name, the version of Python that it needs, and about how many MB it takes."""

    name: str
    python: str
    megabytes: int

    @property
    def requirements(self) -> str:
        """The locked versions, as a requirements file."""
        return (resources.files("headstart.export") / "toolchains" / f"{self.name}.txt").read_text("utf-8")

    def version(self, package: str) -> str:
        """Return the locked version of a package."""
        versions: list[str] = re.findall(rf"^{package}==(\S+)$", self.requirements, re.MULTILINE)
        return versions[0]

    @property
    def folder(self) -> Path:
        """Where it is kept: other versions are another folder."""
        key = hashlib.sha256(f"{self.python}\n{self.requirements}".encode()).hexdigest()[:16]
        return cache_folder() / "toolchains" / f"{self.name}-{key}"

    @property
    def interpreter(self) -> Path:
        """The Python of the environment."""
        return _interpreter(self.folder)

    @property
    def is_ready(self) -> bool:
        """Whether the environment is there and complete."""
        return self.interpreter.exists()


def install(toolchain: Toolchain, *, allowed: bool = True) -> bool:
    """Make the environment where it is missing; return whether it was made now.

    On a terminal pip shows its progress there. Raises OptionError where it is missing and not ``allowed``, or where the
    version of Python is; ModelError where a command fails.
    """
    if toolchain.is_ready:
        return False
    parent = toolchain.folder.parent
    if not allowed:
        shown = "; ".join(" ".join(command) for command in _commands(toolchain, toolchain.folder))
        raise OptionError(
            f"The converter ({toolchain.name}, about {toolchain.megabytes} MB) is not installed. Without --no-install "
            f"this is run: {shown}"
        )
    parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=TEMPORARY) as temporary:
        new = Path(temporary) / "new"
        for command in _commands(toolchain, new):
            _run(command, INSTALL_SECONDS, shown=sys.stderr.isatty())
        with suppress(OSError):  # another process was faster
            new.replace(toolchain.folder)  # an environment may be moved: only the scripts beside Python name its place
    return True


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _commands(toolchain: Toolchain, folder: Path) -> list[list[str]]:
    """Return the commands that make the environment in a folder. Raises OptionError."""
    requirements = str(resources.files("headstart.export") / "toolchains" / f"{toolchain.name}.txt")
    interpreter = str(_interpreter(folder))
    uv = shutil.which("uv")
    if uv:  # it fetches the version of Python where it is missing
        return [
            [uv, "venv", "--python", toolchain.python, str(folder)],
            [uv, "pip", "install", "--python", interpreter, "--no-deps", "-r", requirements],
        ]
    python = _find_python(toolchain.python)
    if python is None:
        raise OptionError(
            f"The converter ({toolchain.name}) needs Python {toolchain.python}, which is not found; install it so that "
            f"python{toolchain.python} is on the PATH, or install uv, which fetches it."
        )
    install = [interpreter, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "-r", requirements]
    return [[python, "-m", "venv", str(folder)], install]


def _find_python(version: str) -> str | None:
    """Return an interpreter of this version that starts, None where there is none."""
    if ".".join(map(str, sys.version_info[:2])) == version:
        return sys.executable
    candidates = [shutil.which(f"python{version}"), shutil.which("python3"), shutil.which("python")]
    for python in filter(None, candidates):
        program = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        with suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=30, check=False)
            if found.stdout.strip() == version:
                return python
    return None


def run_program(toolchain: Toolchain, program: str, *arguments: str | os.PathLike[str]) -> None:
    """Run a program of ``toolchains/`` to its end. Raises ModelError with what it said."""
    _run(_command(toolchain, program, arguments), CONVERT_SECONDS, shown=False)


def _command(toolchain: Toolchain, program: str, arguments: Sequence[str | os.PathLike[str]]) -> list[str]:
    path = resources.files("headstart.export") / "toolchains" / program
    # The folder of a program is on its path, for onnx_tools; that of the user and variables of the environment are not.
    return [str(toolchain.interpreter), "-E", "-s", str(path), *(os.fspath(argument) for argument in arguments)]


def _run(command: Sequence[str], seconds: float, *, shown: bool) -> None:
    try:
        output = None if shown else subprocess.PIPE
        completed = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr if shown else output, stderr=output, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{' '.join(command)} did not end well: {error}.") from None
    if completed.returncode:
        said = b"\n".join(filter(None, (completed.stdout, completed.stderr))).decode("utf-8", "replace").strip()
        last = said.splitlines()[-1][:MAX_MESSAGE] if said else f"status {completed.returncode}"
        raise ModelError(f"{' '.join(command)} failed: {last}")


class Worker:
    """A program that answers images, in its toolchain, until it is closed."""

    def __init__(self, toolchain: Toolchain, program: str, model: Path, classes: int, first_line: bytes = b"") -> None:
        """Start it; ``first_line`` is what it reads before all requests. Raises MissingExtraError without toolchain."""
        if not toolchain.is_ready:
            raise MissingExtraError(f"The runtime of {toolchain.name} is not installed.")
        self._numbers = classes + 1
        command = _command(toolchain, program, [model])
        pipe = subprocess.PIPE
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close; a pipe could fill
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._messages)
        self._first_line = first_line

    def __call__(self, pixels: Pixels) -> Answers:
        """Answer images [n, height, width, 3] uint8. Raises ModelError where the program ends or hangs."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        reading = _Reading(process, 4 * self._numbers * len(pixels))
        reading.start()
        with suppress(OSError):  # it ended: then too little is read
            request = b"%d\n" % len(pixels) + np.ascontiguousarray(pixels, np.uint8).tobytes()
            process.stdin.write(self._first_line + request)
            process.stdin.flush()
            self._first_line = b""
        reading.join(ANSWER_SECONDS)
        if reading.data is None or len(reading.data) != reading.size:
            if not reading.is_alive():  # it ends, and may still be saying why
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LAST_WORDS_SECONDS)
            self._messages.seek(max(0, self._messages.seek(0, os.SEEK_END) - MAX_MESSAGE))
            said = self._messages.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.close()
            raise ModelError(
                f"The runtime of this format ended, or hung, on an image ({said or 'no message'}); export it again."
            )
        values = np.frombuffer(reading.data, "<f4").reshape(len(pixels), self._numbers).astype(np.float64)
        return Answers(values[:, :-1], values[:, -1])

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


class _Reading(Thread):
    """Reads from a process beside what writes to it, so that neither waits for the other."""

    def __init__(self, process: subprocess.Popen[bytes], size: int) -> None:
        super().__init__(daemon=True)
        self.process, self.size = process, size
        self.data: bytes | None = None

    def run(self) -> None:
        """Read all of the answer."""
        assert self.process.stdout is not None
        with suppress(OSError, ValueError):
            self.data = self.process.stdout.read(self.size)
