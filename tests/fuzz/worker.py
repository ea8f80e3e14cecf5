"""A process that builds and uses inputs one after another, and says what became of each.

It reads the number of an input from standard input and writes two lines of JSON: the memory it holds once the input is
built, and the outcome.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from fuzz.kinds import Kind, kinds
from headstart import Compute, HeadstartError

LAST_RESORT = 12 * 2**30  # bytes of address space, if the watch of resident memory comes late
MAX_MESSAGE = 1_000  # characters of an error
COMMAND_EVERY = 50  # inputs, of which one is used by the command
MUTATIONS = (0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 5, 8, 32)


def main(name: str, seed: str, prepared: str, keep: str) -> None:
    """Serve inputs of the kind ``name``; with ``keep`` they are written there and stay."""
    resource.setrlimit(resource.RLIMIT_AS, (LAST_RESORT, LAST_RESORT))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    kind = kinds(Path(prepared))[name]
    with tempfile.TemporaryDirectory(dir=prepared) as warm:  # libraries load before memory is measured
        os.environ["HEADSTART_CACHE"] = f"{warm}/cache"
        kind.use(kind.build(random.Random(0), Path(warm), 0), Compute("onnxruntime"))
    for line in sys.stdin:
        index = int(line)
        rng = random.Random(f"{seed}/{name}/{index}")
        folder = Path(keep or tempfile.mkdtemp(dir=prepared))  # deleted with that, also if this process is killed
        folder.mkdir(exist_ok=True)
        os.environ["HEADSTART_CACHE"] = str(folder / "cache")
        mutations = rng.choice(MUTATIONS)
        path = kind.build(rng, folder, mutations)
        gc.collect()
        is_command = index % COMMAND_EVERY == 1
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
        print(json.dumps({"memory": memory_now(), "path": str(path)}), file=answers, flush=True)
        outcome, detail = _run_command(kind, path) if is_command else _use(kind, path, rng)
        if mutations == 0 and outcome not in ("answered", "quarantined"):
            outcome, detail = "crashed", f"a valid input: {outcome} {detail}"
        print(json.dumps({"outcome": outcome, "detail": detail}), file=answers, flush=True)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def memory_now() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _use(kind: Kind, path: Path, rng: random.Random) -> tuple[str, str]:
    compute = Compute("openvino" if rng.random() < 0.1 and _has_openvino() else "onnxruntime", workers=2)
    try:
        return kind.use(path, compute), ""
    except HeadstartError as error:
        return _message_outcome(str(error))
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/headstart/" in f.filename]
        place = f"{frames[-1].filename.rpartition('/headstart/')[2]}:{frames[-1].lineno}" if frames else "fuzz"
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "crashed", f"{place} {type(error).__name__}: {str(error)[:200]!r} (in {last.filename}:{last.lineno})"


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def _message_outcome(text: str) -> tuple[str, str]:
    if len(text) > MAX_MESSAGE or "\n" in text:
        return "crashed", f"message of {len(text)} characters, {text.count(chr(10)) + 1} lines: {text[:150]!r}"
    return "refused", text


def _run_command(kind: Kind, path: Path) -> tuple[str, str]:
    """Run the command: its status is 0, 1 or 2, its errors are short lines, its result is JSON or nothing."""
    environment = {**os.environ, "HEADSTART_CACHE": str(path if path.name == "features" else path.parent / "cache")}
    command = kind.command(path)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, cwd=path.parent)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if not line.startswith("note: ")]
    if done.returncode not in (0, 1, 2) or "Traceback" in done.stderr:
        return "crashed", f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-400:]!r}"
    if any(len(line) > MAX_MESSAGE for line in lines) or len(lines) > 20 or (done.returncode == 2 and len(errors) != 1):
        return "crashed", f"{' '.join(command)} printed {len(lines)} lines of errors: {done.stderr[:400]!r}"
    if "--json" in command and done.stdout:
        try:
            json.loads(done.stdout)
        except ValueError:
            return "crashed", f"{' '.join(command)} printed no JSON: {done.stdout[:200]!r}"
    return ("refused" if done.returncode == 2 else "answered"), " ".join(lines)[:300]
