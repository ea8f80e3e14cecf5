"""Workers as processes: the same files of rows for any number of them, whoever dies on the way."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from helpers.scale_work import HashRows, cut_photos, rows_by_name, rows_of_one_process

from headstart.errors import BackboneError, DataError
from headstart.scale.processes import ProcessWorkers
from headstart.scale.run import TRIES, Outcome, Progress, run_shards
from headstart.scale.shards import Cut


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Cut:
    """40 images, one of which is damaged, in shards of about 5."""
    return cut_photos(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def expected(pieces, tmp_path_factory) -> dict[str, bytes]:
    """The files of rows that one process writes, this one."""
    return rows_of_one_process(pieces, tmp_path_factory.mktemp("expected"))


def run(pieces: Cut, work: HashRows, count: int, **options) -> Outcome:
    return run_shards(pieces.shards, work, partial(_workers, work, count), **options)


def _workers(work: HashRows, count: int, shards: int) -> ProcessWorkers:
    return ProcessWorkers(work, count, shards)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_do_not_depend_on_the_number_of_workers(count, pieces, expected, tmp_path):
    told: list[Progress] = []

    outcome = run(pieces, HashRows(str(tmp_path)), count, progress=told.append)

    assert rows_by_name(tmp_path) == expected
    assert outcome.images == 39
    assert [one.path.endswith("disc/003.jpg") for result in outcome.results for one in result.unread] == [True]
    assert [result.sha256 for result in outcome.results] == sorted(shard.sha256 for shard in pieces.shards)
    assert (outcome.resumed, outcome.retries, outcome.quarantined) == (0, 0, ())
    assert (told[0].share, told[-1].share) == (0, 1)
    assert (told[-1].shards_done, told[-1].images, told[-1].seconds_left) == (len(pieces.shards), 39, 0)
    assert all(result.processor_seconds > 0 and result.seconds > 0 for result in outcome.results)


def test_a_worker_that_dies_is_replaced_and_its_shard_done_again(pieces, expected, tmp_path):
    faults = tuple((shard.sha256, "kill once") for shard in pieces.shards[:3])

    outcome = run(pieces, HashRows(str(tmp_path), faults), 2)

    assert rows_by_name(tmp_path) == expected
    assert (outcome.retries, outcome.quarantined) == (3, ())
    assert len(list((tmp_path / "starts").iterdir())) == len(pieces.shards) + 3


@pytest.mark.slow
def test_a_shard_that_fails_at_each_try_is_quarantined_with_the_reason_and_the_rest_goes_on(pieces, expected, tmp_path):
    killed, raised = pieces.shards[0], pieces.shards[3]
    work = HashRows(str(tmp_path), ((killed.sha256, "kill"), (raised.sha256, "raise")))

    outcome = run(pieces, work, 2)

    assert {one.path: one.reason for one in outcome.quarantined} == {
        killed.name: f"Its worker was ended by SIGKILL, as a lack of memory does it. (tried {TRIES} times)",
        raised.name: f"RuntimeError: a fault of ours (tried {TRIES} times)",
    }
    gone = {f"{killed.sha256}.json", f"{raised.sha256}.json"}
    assert rows_by_name(tmp_path) == {name: rows for name, rows in expected.items() if name not in gone}
    again = run(pieces, HashRows(str(tmp_path)), 2)  # the next run tries them again, and only them
    assert (again.resumed, again.images) == (len(pieces.shards) - 2, 39)
    assert rows_by_name(tmp_path) == expected


def test_an_error_that_every_shard_would_meet_ends_the_run(pieces, tmp_path):
    work = HashRows(str(tmp_path), (("", "fatal"),))

    with pytest.raises(BackboneError, match=r"^The backbone cannot be run\.$"):
        run(pieces, work, 2)

    assert not multiprocessing.active_children()


def test_where_no_shard_can_be_done_the_first_reason_is_told(pieces, tmp_path):
    with pytest.raises(DataError, match=rf"^None of {len(pieces.shards)} shards could be done; of .*: RuntimeError: a"):
        run(pieces, HashRows(str(tmp_path), (("", "raise"),)), 2)


def test_a_slow_shard_does_not_stop_the_rest(pieces, expected, tmp_path):
    work = HashRows(str(tmp_path), ((pieces.shards[0].sha256, f"wait for {len(pieces.shards) - 1}"),))

    outcome = run(pieces, work, 2)  # the first shard ends only when all others have

    assert (rows_by_name(tmp_path), outcome.retries) == (expected, 0)


@pytest.mark.slow
def test_workers_killed_at_random_moments_leave_the_same_rows(pieces, expected, tmp_path):
    rng = random.Random(0)
    kills = 0
    is_over = threading.Event()

    def kill_some() -> None:
        nonlocal kills
        while kills < 10 and not is_over.wait(rng.uniform(0.1, 0.8)):
            children = multiprocessing.active_children()
            if children and (pid := rng.choice(children).pid):
                os.kill(pid, signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_some)
    killer.start()
    quarantined = 1
    while quarantined:  # a shard may be hit three times: the next run does it
        shuffled = rng.sample(pieces.shards, len(pieces.shards))
        work = HashRows(str(tmp_path), seconds=0.05)
        outcome = run_shards(shuffled, work, partial(_workers, work, 3))
        quarantined = len(outcome.quarantined)
        if kills < 10:
            for path in rng.sample(list((tmp_path / "rows").iterdir()), 4):
                path.unlink()
            quarantined = 1
    is_over.set()
    killer.join()

    assert kills == 10
    assert rows_by_name(tmp_path) == expected


DRIVER = """
import sys
from functools import partial
from helpers.scale_work import HashRows
from headstart.scale.processes import ProcessWorkers
from headstart.scale.run import run_shards
from headstart.scale.shards import cut

if __name__ == "__main__":
    work = HashRows(sys.argv[2], seconds=0.05)
    run_shards(cut(sys.argv[1], images=5).shards, work, partial(ProcessWorkers, work, 2))
"""


@pytest.mark.slow
def test_after_the_driver_was_killed_the_next_run_does_the_rest_and_no_worker_stays(pieces, expected, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER, "utf-8")
    tests = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, str(script), pieces.uri, str(out)], env=environment) as driver:
        while not list(out.glob("rows/*.json")):
            assert driver.poll() is None
            time.sleep(0.02)
        driver.kill()
    started = {int(path.name.split("-")[1]) for path in (out / "starts").iterdir()}
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        time.sleep(0.02)
    done = len(rows_by_name(out))

    outcome = run(pieces, HashRows(str(out)), 2)

    assert 0 < done < len(pieces.shards)
    assert (outcome.resumed, outcome.images) == (done, 39)
    assert rows_by_name(out) == expected
