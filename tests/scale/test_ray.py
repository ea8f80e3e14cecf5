"""Workers on Ray: the same files of rows as by processes, whoever dies on the way, and nothing open to others."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from helpers.scale_work import HashRows, cut_photos, rows_by_name, rows_of_one_process

from headstart.errors import OptionError
from headstart.scale.run import TRIES, run_shards
from headstart.scale.shards import Cut

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TESTS = str(Path(__file__).parent.parent)
DRIVER = """
import sys
from functools import partial
from helpers.scale_work import HashRows
from headstart.scale.ray import RayWorkers
from headstart.scale.run import run_shards
from headstart.scale.shards import cut

work = HashRows(sys.argv[2], seconds=float(sys.argv[3]))
told = []
def progress(now):
    if not told and now.shards_done:
        told.append(now)
        print("first", flush=True)
        sys.stdin.readline()
outcome = run_shards(cut(sys.argv[1], images=5).shards, work, lambda n: RayWorkers(work, 2, n), progress=progress)
print(outcome.images)
"""

SEVERAL_NODES = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from helpers.scale_work import HashRows
from headstart.scale.ray import RayWorkers
from headstart.scale.run import run_shards
from headstart.scale.shards import cut

node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
others = [cluster.add_node(**node) for _ in range(2)]
work = HashRows(sys.argv[2], seconds=0.2)
nodes = set()
def progress(now):
    for path in (Path(sys.argv[2]) / "starts").glob("*"):
        status = Path(f"/proc/{path.name.split('-')[1]}/stat")
        if status.exists():
            nodes.add(status.read_text().rpartition(")")[2].split()[1])  # the raylet of its node; 1 where that was lost
    if others and now.shards_done > 2 - len(others) and len(nodes - {"1"}) == 3:
        cluster.remove_node(others.pop(), allow_graceful=False)
outcome = run_shards(cut(sys.argv[1], images=5).shards, work, lambda n: RayWorkers(work, 3, n, cluster.address),
    progress=progress)
print(outcome.images, outcome.retries, len(outcome.quarantined), len(nodes - {"1"}), len(others))
cluster.shutdown()
"""


@pytest.fixture(scope="module", autouse=True)
def _has_ray() -> None:
    pytest.importorskip("ray", reason="needs Ray: make scale installs it")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Cut:
    """40 images, one of which is damaged, in shards of about 5."""
    return cut_photos(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def expected(pieces, tmp_path_factory) -> dict[str, bytes]:
    """The files of rows that one process writes, this one."""
    return rows_of_one_process(pieces, tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def cluster(environment) -> Iterator[None]:
    """Ray with three cores, for all tests of this file that do not look at how it is started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment["PYTHONPATH"]  # of its workers
    import ray

    from headstart.scale.ray import RayWorkers

    with RayWorkers(HashRows(""), 3):
        yield
    assert not ray.is_initialized()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_are_those_of_one_process_for_any_number_of_workers_and_any_order(count, pieces, expected, tmp_path):
    from headstart.scale.ray import RayWorkers

    work = HashRows(str(tmp_path))
    shuffled = random.Random(count).sample(pieces.shards, len(pieces.shards))

    outcome = run_shards(shuffled, work, partial(RayWorkers, work, count))

    assert rows_by_name(tmp_path) == expected
    assert (outcome.images, outcome.retries, outcome.quarantined) == (39, 0, ())
    assert [result.sha256 for result in outcome.results] == sorted(shard.sha256 for shard in pieces.shards)


@pytest.mark.usefixtures("cluster")
def test_tasks_that_die_are_done_again_and_at_last_quarantined(pieces, expected, tmp_path):
    from headstart.scale.ray import RayWorkers

    once, killed, raised = pieces.shards[1], pieces.shards[2], pieces.shards[4]
    work = HashRows(str(tmp_path), ((once.sha256, "kill once"), (killed.sha256, "kill"), (raised.sha256, "raise")))

    outcome = run_shards(pieces.shards, work, partial(RayWorkers, work, 2))

    reasons = {one.path: one.reason for one in outcome.quarantined}
    assert set(reasons) == {killed.name, raised.name}
    assert reasons[raised.name] == f"RuntimeError: a fault of ours (tried {TRIES} times)"
    assert reasons[killed.name].startswith("Its worker was lost (WorkerCrashedError: ")
    gone = {f"{killed.sha256}.json", f"{raised.sha256}.json"}
    assert rows_by_name(tmp_path) == {name: rows for name, rows in expected.items() if name not in gone}
    assert outcome.retries == 1 + 2 * TRIES


@pytest.mark.usefixtures("cluster")
def test_workers_killed_at_random_moments_leave_the_same_rows(pieces, expected, tmp_path):
    from headstart.scale.ray import RayWorkers

    rng, kills = random.Random(0), 0
    work = HashRows(str(tmp_path), seconds=0.1)

    def kill_one(_progress: object) -> None:
        nonlocal kills
        pids = {int(path.name.split("-")[1]) for path in (tmp_path / "starts").glob("*")}
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        if alive and kills < 10 and rng.random() < 0.5:
            os.kill(rng.choice(alive), signal.SIGKILL)
            kills += 1

    while True:
        outcome = run_shards(pieces.shards, work, partial(RayWorkers, work, 3), progress=kill_one)
        if kills == 10 and not outcome.quarantined:
            break
        for path in rng.sample(sorted((tmp_path / "rows").iterdir()), 2):
            path.unlink()

    assert rows_by_name(tmp_path) == expected


@pytest.mark.usefixtures("cluster")
def test_another_version_in_the_cluster_is_refused(pieces, tmp_path, monkeypatch):
    from headstart.scale import ray as module

    monkeypatch.setattr(module, "__version__", "0.0.0")
    work = HashRows(str(tmp_path))

    with pytest.raises(OptionError, match=r"A machine of the cluster has Headstart .*, not 0\.0\.0; install the same"):
        run_shards(pieces.shards, work, partial(module.RayWorkers, work, 1))


@pytest.fixture
def own_folder(environment) -> Iterator[Path]:
    """A folder for temporary files of a driver alone, of a short name: paths of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hs-", ignore_cleanup_errors=True) as folder:
        environment["TMPDIR"] = folder
        yield Path(folder)
    del environment["TMPDIR"]


def start(pieces: Cut, out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a driver that does its work on a Ray of its own, and wait until a shard is done."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, pieces.uri, str(out), "0.05"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "first\n"
    return driver


def processes_of(driver: int) -> set[int]:
    """Return the processes below one, from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found, new = set(), {driver}
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in found} - found
    return found


def listeners(pids: set[int]) -> set[str]:
    """Return the addresses, in the hexadecimal of /proc/net, on which processes listen for TCP."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].split(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_a_ray_of_our_own_listens_on_loopback_alone_and_leaves_nothing(
    pieces, expected, environment, own_folder, tmp_path
):
    with start(pieces, tmp_path, environment) as driver:
        assert len(list(own_folder.glob("hs-ray-*"))) == 1
        pids = processes_of(driver.pid)
        addresses = listeners(pids)
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids if Path(f"/proc/{pid}").exists()}
        output, _ = driver.communicate("\n")

    assert output == "39\n"
    assert rows_by_name(tmp_path) == expected
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    dashboards = [command for command in commands.values() if b"dashboard/dashboard.py" in command]
    assert all(b"--disable-frontend" in one and b"--modules-to-load=UsageStatsHead" in one for one in dashboards)
    assert list(own_folder.glob("hs-ray-*")) == []


def test_after_the_driver_was_killed_the_next_run_does_the_rest(pieces, expected, environment, own_folder, tmp_path):
    from headstart.scale.processes import ProcessWorkers

    with start(pieces, tmp_path, environment) as driver:
        pids = processes_of(driver.pid)
        driver.kill()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    done = len(rows_by_name(tmp_path))
    work = HashRows(str(tmp_path))

    outcome = run_shards(pieces.shards, work, partial(ProcessWorkers, work, 2))

    assert 0 < done < len(pieces.shards)
    assert (outcome.resumed, outcome.images) == (done, 39)
    assert rows_by_name(tmp_path) == expected


def test_a_cluster_that_is_not_there(pieces, environment):
    code = "from headstart.scale.ray import RayWorkers; RayWorkers(None, 1, 1, '127.0.0.1:1')"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert "OptionError: There is no Ray cluster at 127.0.0.1:1" in run.stderr


def test_nodes_of_a_cluster_may_be_lost(pieces, expected, environment, own_folder, tmp_path):
    environment = {**environment, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", SEVERAL_NODES, pieces.uri, str(tmp_path)]

    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    images, retries, quarantined, nodes, left = map(int, run.stdout.split()[-5:])
    assert (images, quarantined, nodes, left) == (39, 0, 3, 0)
    assert 1 <= retries <= 6
    assert rows_by_name(tmp_path) == expected
