"""Kill -9 at random moments of writing: afterwards the old or the new is there, whole.

    python benchmarks/kill.py [--kills 1000] [--seed 0]

Nine of ten kills hit a process that only writes (a model, its replacement, a fix list, a report, the cache), at a
random moment of the time that this takes; the others hit whole commands, in the second half of their time. Everything
is made of small generated images.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from measure import COMMAND, ROOT, Scratch, print_table

from headstart import Compute, FitOptions, Predictor, fit_dataset, open_dataset
from headstart.check import write_table
from headstart.errors import HeadstartError
from headstart.features import FeatureCache
from headstart.files import TEMPORARY, replace_folder
from headstart.model.folder import read_model, write_model
from headstart.model.folder_files import check_output_folder
from headstart.report import write_report
from headstart.report.storage import read_data, write_file

COMPUTE = Compute("onnxruntime")
State = dict[str, str]  # names of files, and the hashes of what is in them


@dataclass(frozen=True)
class Case:
    """Something that is written: ``before`` makes the old state, ``write`` is killed, ``state`` names what is there."""

    name: str
    before: Callable[[], None]
    write: Callable[[], None]
    state: Callable[[], str]  # "old", "new", or what is wrong
    window: tuple[float, float] = (0.0, 1.0)  # when it is killed, in parts of the time that it takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.path / "cache")
        _in_child(lambda: _prepare(scratch.path))
        cases = _cases(scratch.path)
        rows = [_row(case, max(options.kills * 9 // 10 // len(cases), 1), rng, scratch.path) for case in cases]
        commands = _commands(scratch.path)
        rows += [_row(case, max(options.kills // 10 // len(commands), 1), rng, scratch.path) for case in commands]
    names = [name for name in rows[0] if name != "what is written"]
    rows.append({"what is written": "all", **{name: sum(row[name] for row in rows) for name in names}})
    print_table(rows)
    sys.exit(bool(rows[-1]["damaged"] or rows[-1]["left after a sweep"]))


def _prepare(folder: Path) -> None:
    """Write images of two datasets, a model with a report of each, and the table of one."""
    sys.path.append(str(ROOT / "tests"))
    from helpers.photos import write_photos

    for name, classes in (("first", ("disc", "stripes")), ("second", ("disc", "dots"))):
        dataset = open_dataset(write_photos(folder / name, 12, classes))
        result = fit_dataset(dataset, FitOptions(compute=COMPUTE))
        write_model(result.model, folder / f"{name}-model")
        write_report(result, folder / f"{name}-model")


def _in_child(function: Callable[[], object]) -> None:
    """Call a function in a process of its own, so that this one stays without threads and can fork."""
    process = os.fork()
    if not process:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(process, 0)[1]:
        sys.exit("The preparation failed.")


def _content(path: Path) -> State:
    """Return the hash of every file at a path or below it."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _cases(folder: Path) -> list[Case]:
    """Return what is written by functions of the library alone."""
    first, second = (read_model(folder / f"{name}-model") for name in ("first", "second"))
    model, page, table = folder / "models" / "model", folder / "pages" / "page.html", folder / "fixed.csv"
    page.parent.mkdir()
    dataset = open_dataset(folder / "first")
    groups = {item.path: i for i, item in enumerate(dataset.items)}
    caches = folder / "caches"
    vectors = {hashlib.sha256(b"%d" % i).digest(): np.full(1_000, i % 256, np.uint8) for i in range(2_000)}
    keys = list(vectors)

    def known(path: Path, old: Callable[[], object] | None, new: Callable[[], object]) -> Callable[[], str]:
        """Write the old and the new once, and return what tells which of them is there."""
        states = {"new": (new(), _content(path))[1]}
        _delete(path)
        states["old"] = {} if old is None else (old(), _content(path))[1]
        return lambda: next((name for name, state in states.items() if _content(path) == state), "neither")

    def fill_cache() -> None:
        with FeatureCache(caches) as cache:
            for start in range(0, len(keys), 50):
                cache.put_many({key: vectors[key] for key in keys[start : start + 50]})

    def cache_state() -> str:
        with FeatureCache(caches) as cache:
            found = cache.get_many(keys)
            if cache.notes:
                return cache.notes[0]
        wrong = sum(
            value is not None and value.tobytes() != vectors[key].tobytes()
            for key, value in zip(keys, found, strict=True)
        )
        count = sum(value is not None for value in found)
        if wrong or count % 50:
            return f"{wrong} wrong vectors, {count} found"
        return "new" if count == len(keys) else "old"

    def save_first() -> object:
        return write_model(first, model, overwrite=True)

    def save_second() -> object:
        return write_model(second, model, overwrite=True)

    pages = [(folder / f"{name}-model" / "report.html").read_text("utf-8") for name in ("first", "second")]

    def first_page() -> object:
        return write_file(page, pages[0])

    def second_page() -> object:
        return write_file(page, pages[1])

    def save_table() -> object:
        return write_table(dataset, (), groups, table)

    def forget(path: Path) -> Callable[[], object]:
        return lambda: _delete(path)

    return [
        Case("a model, saved", forget(model), save_first, known(model, None, save_first)),
        Case("a model, replaced", save_first, save_second, known(model, save_first, save_second)),
        Case("fix list", forget(table), save_table, known(table, None, save_table)),
        Case("report, replaced", first_page, second_page, known(page, first_page, second_page)),
        Case("feature cache", forget(caches), fill_cache, cache_state),
    ]


def _delete(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    path.unlink(missing_ok=True)


def _kill(case: Case, seconds: float | None, rng: random.Random) -> tuple[bool, float]:
    """Let a process write, and kill it within ``seconds``; return whether that was in time, and how long it ran."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.write(writer, b"1")
            case.write()
        finally:
            os._exit(0)
    os.read(reader, 1)
    start = time.perf_counter()
    if seconds is not None:
        deadline = start + seconds * rng.uniform(*case.window)
        while time.perf_counter() < deadline:  # to sleep takes longer than some of the writing
            pass
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    os.close(reader)
    os.close(writer)
    return os.WIFSIGNALED(status), time.perf_counter() - start


def _row(case: Case, kills: int, rng: random.Random, folder: Path) -> dict[str, object]:
    """Kill so often, and count what was found afterwards."""
    durations = []
    for _ in range(5):
        case.before()
        durations.append(_kill(case, None, rng)[1])
    found: Counter[str] = Counter()
    for _ in range(kills):
        case.before()
        hit, _ = _kill(case, median(durations), rng)
        state = case.state()
        found["killed while writing"] += hit
        found[state if state in ("old", "new") else "damaged"] += 1
        if state not in ("old", "new"):
            print(f"{case.name}: {state}", file=sys.stderr)
    left = _leftovers(folder)
    for path in left:  # as if they were of the day before yesterday: what is written next deletes them
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    case.before()
    _kill(case, None, rng)
    remaining = _leftovers(folder)
    for path in remaining:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    names = ("killed while writing", "old", "new", "damaged")
    return {
        "what is written": case.name,
        "kills": kills,
        **{name: found[name] for name in names},
        "left unfinished": len(left),
        "left after a sweep": len(remaining),
    }


def _leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{TEMPORARY}*"))


def _commands(folder: Path) -> list[Case]:
    """Return what whole commands write. Every image is in the cache, so that a large part of their time is writing."""
    model, table = folder / "models" / "fitted", folder / "checked.csv"
    flags = ["--runtime", "onnxruntime", "--quiet"]
    fit = [COMMAND, "fit", folder / "second", "-o", model, "--overwrite", *flags]
    check = [COMMAND, "check", folder / "first", "--fix-list", table, *flags]

    def restore() -> None:
        replace_folder(
            model, lambda new: [(new / f.name).write_bytes(f.read_bytes()) for f in (folder / "first-model").iterdir()]
        )

    def model_state() -> str:
        try:
            predictor = Predictor.load(model, COMPUTE)
            predictor.verify()
            check_output_folder(model)  # the next fit may replace it
            if (model / "report.json").exists():
                read_data(model)
        except HeadstartError as error:
            return str(error)
        return "old" if "stripes" in predictor.model.classes else "new"

    def table_state() -> str:
        if not table.exists():
            return "old"
        text = table.read_text("utf-8")
        return "new" if text.endswith("\n") and text.count("\n") == 25 else f"{len(text)} characters"

    late = (0.5, 1.3)  # what they write comes last
    return [
        Case("headstart fit --overwrite", restore, lambda: _execute(fit), model_state, late),
        Case("headstart check --fix-list", lambda: _delete(table), lambda: _execute(check), table_state, late),
    ]


def _execute(command: list[object]) -> None:
    """Become a command, which prints to nowhere."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.execv(COMMAND, [str(part) for part in command])


if __name__ == "__main__":
    main()
