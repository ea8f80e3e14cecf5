"""The cache never returns a wrong value, even after a kill, a full disk, damage, or with two processes writing."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headstart.features import cache as module
from headstart.features.cache import FeatureCache, entry_key

# The value of an entry is computed from its key, so that any reader can check it.
MAKE_ENTRY = """
import hashlib, sys
import numpy as np
from pathlib import Path
from headstart.features.cache import FeatureCache

def make_entry(i):
    key = hashlib.sha256(str(i).encode()).digest()
    return key, np.frombuffer(hashlib.shake_256(key).digest(400), np.float16)
"""


def make_entry(i):
    key = hashlib.sha256(str(i).encode()).digest()
    return key, np.frombuffer(hashlib.shake_256(key).digest(400), np.float16)


def count_valid(folder, count):
    """Check the values of the first ``count`` entries, as far as they are in the cache, and return how many are."""
    with FeatureCache(folder) as cache:
        values = cache.get_many([make_entry(i)[0] for i in range(count)])
    stored = [(i, value) for i, value in enumerate(values) if value is not None]
    for i, value in stored:
        assert value.tobytes() == make_entry(i)[1].tobytes()
    return len(stored)


def fill(folder, count):
    with FeatureCache(folder) as cache:
        cache.put_many(dict(make_entry(i) for i in range(count)))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([np.uint8, np.float16, np.float32]).flatmap(lambda d: arrays.arrays(d, st.integers(0, 50))))
def test_values_are_returned_as_they_were_stored(tmp_path_factory, value):
    with FeatureCache(tmp_path_factory.mktemp("c")) as cache:
        cache.put_many({b"k" * 32: value})
        stored, missing = cache.get_many([b"k" * 32, b"n" * 32])
    assert missing is None
    assert stored.dtype == value.dtype
    assert stored.tobytes() == value.tobytes()


def test_every_part_of_a_key_counts():
    base = (b"c" * 32, "sha", "prep", "ort-fp32", "0", "tap")
    keys = {entry_key(*base)}
    for position, part in enumerate((b"d" * 32, "shb", "prfp", "ov-bf16", "1", "tap2")):
        changed = list(base)
        changed[position] = part
        keys.add(entry_key(*changed))
    keys.add(entry_key(b"c" * 32, "shaprep", "", "ort-fp32", "0", "tap"))  # the same text, divided otherwise
    assert len(keys) == 8
    assert all(len(key) == 32 for key in keys)


def test_values_are_in_the_order_of_the_keys_which_may_repeat(tmp_path):
    fill(tmp_path, 1500)
    with FeatureCache(tmp_path) as cache:
        order = [7, 7, 1499, 0, 5000, 3]
        values = cache.get_many([make_entry(i)[0] for i in order])
    for i, value in zip(order, values, strict=True):
        assert (value is None) == (i == 5000)
        if value is not None:
            assert value.tobytes() == make_entry(i)[1].tobytes()
    assert count_valid(tmp_path, 1500) == 1500


@pytest.mark.parametrize("column", ["value", "checksum", "dtype"])
def test_a_damaged_entry_is_dropped_and_the_others_remain(tmp_path, column):
    fill(tmp_path, 20)
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    damaged = {"value": bytes(400), "checksum": bytes(16), "dtype": "f4"}[column]
    with connection:
        connection.execute(f"UPDATE entries SET {column} = ? WHERE key = ?", (damaged, make_entry(3)[0]))
    connection.close()
    assert count_valid(tmp_path, 20) == 19
    fill(tmp_path, 20)
    assert count_valid(tmp_path, 20) == 20


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.3, 0.6, 0.99])
def test_a_truncated_file_returns_no_wrong_value_and_can_be_filled_again(tmp_path, share):
    fill(tmp_path, 300)
    file = tmp_path / "features-v2.sqlite"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    count_valid(tmp_path, 300)
    fill(tmp_path, 300)
    assert count_valid(tmp_path, 300) == 300


@pytest.mark.parametrize("seed", range(8))
def test_overwritten_bytes_return_no_wrong_value(tmp_path, seed):
    fill(tmp_path, 300)
    file = tmp_path / "features-v2.sqlite"
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    for _ in range(3):
        position = int(rng.integers(0, len(data) - 600)) if seed else 0
        data[position : position + 600] = rng.bytes(600)
    file.write_bytes(data)
    count_valid(tmp_path, 300)
    fill(tmp_path, 300)
    count_valid(tmp_path, 300)  # values may be lost, but none is wrong


def test_a_file_that_is_not_a_database_is_moved_aside_with_a_note(tmp_path):
    (tmp_path / "features-v2.sqlite").write_bytes(b"my thesis" * 1000)
    with FeatureCache(tmp_path) as cache:
        assert "was damaged" in cache.notes[0]
        cache.put_many(dict([make_entry(1)]))
    assert count_valid(tmp_path, 2) == 1
    moved = [p for p in tmp_path.iterdir() if "damaged" in p.name]
    assert moved[0].read_bytes() == b"my thesis" * 1000


def test_entries_of_a_newer_format_are_not_read(tmp_path):
    fill(tmp_path, 5)
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert count_valid(tmp_path, 5) == 0


def test_a_folder_that_cannot_be_written_turns_the_cache_off(tmp_path):
    (tmp_path / "file").write_text("x")
    with FeatureCache(tmp_path / "file") as cache:
        assert "is not used" in cache.notes[0]
        cache.put_many(dict([make_entry(1)]))
        assert cache.get_many([make_entry(1)[0]]) == [None]


def test_the_least_recently_used_entries_are_deleted_first(tmp_path):
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        cache.put_many(dict(make_entry(i) for i in range(400)))
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    long_ago = int(time.time()) - 10 * 86_400
    with connection:
        connection.execute("UPDATE entries SET used = ?", (long_ago,))
    count_before = connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
    connection.close()
    assert 100 < count_before < 400
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        recently_used = [i for i in range(400) if cache.get_many([make_entry(i)[0]])[0] is not None][:30]
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:  # only those thirty were used recently, so that the others are more than what has to go
        for i in set(range(400)) - set(recently_used):
            connection.execute("UPDATE entries SET used = ? WHERE key = ?", (long_ago, make_entry(i)[0]))
    connection.close()
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        cache.put_many(dict(make_entry(i) for i in range(1000, 1200)))
    with FeatureCache(tmp_path) as cache:
        assert all(v is not None for v in cache.get_many([make_entry(i)[0] for i in recently_used]))
    assert (tmp_path / "features-v2.sqlite").stat().st_size <= 150_000


def test_a_use_is_recorded_once_a_day(tmp_path):
    now = int(time.time())
    keys = [make_entry(i)[0] for i in range(3)]
    with FeatureCache(tmp_path) as cache:
        cache.put_many(dict(make_entry(i) for i in range(3)))
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:
        for key, age in zip(keys, (2 * 86_400, 3_600, 2 * 86_400), strict=True):
            connection.execute("UPDATE entries SET used = ? WHERE key = ?", (now - age, key))
    with FeatureCache(tmp_path) as cache:
        assert all(value is not None for value in cache.get_many(keys[:2]))
    used = dict(connection.execute("SELECT key, used FROM entries"))
    connection.close()
    assert used[keys[0]] >= now
    assert (used[keys[1]], used[keys[2]]) == (now - 3_600, now - 2 * 86_400)


@pytest.mark.parametrize("held_before_it_is_opened", [True, False])
def test_a_file_that_another_process_holds_is_not_waited_for(tmp_path, monkeypatch, held_before_it_is_opened):
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    fill(tmp_path, 5)
    other = sqlite3.connect(tmp_path / "features-v2.sqlite", isolation_level=None)
    opened = None if held_before_it_is_opened else FeatureCache(tmp_path)
    other.execute("PRAGMA locking_mode=EXCLUSIVE" if held_before_it_is_opened else "BEGIN IMMEDIATE")
    if held_before_it_is_opened:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
    with opened or FeatureCache(tmp_path) as cache:
        cache.put_many(dict([make_entry(7)]))
        assert len(cache.notes) == 1
        assert "is not used: another process has held it for" in cache.notes[0]
        assert cache.get_many([make_entry(1)[0]]) == [None]
    other.execute("ROLLBACK")
    other.close()
    assert count_valid(tmp_path, 10) == 5  # nothing was moved aside


def test_it_waits_a_short_time_only():
    assert 1 <= module.BUSY_SECONDS <= 3


def other_program(path):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE bookmarks (title TEXT)")
        connection.execute("INSERT INTO bookmarks VALUES ('thesis')")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "linked journal"])
def test_the_database_of_another_program_is_left_alone(tmp_path, kind):
    other, path = tmp_path / "places.sqlite", tmp_path / "cache" / "features-v2.sqlite"
    path.parent.mkdir()
    data = other_program(path if kind == "file" else other)
    if kind == "linked journal":
        fill(path.parent, 3)
        path.with_name(f"{path.name}-wal").symlink_to(other)
    elif kind != "file":
        path.symlink_to(other if kind == "link" else tmp_path / "nothing")
    with FeatureCache(path.parent) as cache:
        assert "is not used" in cache.notes[0]
        assert ("database of another program" if kind == "file" else "is a link") in cache.notes[0]
        cache.put_many(dict([make_entry(1)]))
        assert cache.get_many([make_entry(1)[0]]) == [None]
    assert (path if kind == "file" else other).read_bytes() == data
    assert not (tmp_path / "nothing").exists()
    assert not list(path.parent.glob("*damaged*"))


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_a_database_that_holds_more_than_the_cache_is_not_used(tmp_path, change):
    fill(tmp_path, 3)
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:
        connection.execute(change)
    connection.close()
    with FeatureCache(tmp_path) as cache:
        assert "another program" in cache.notes[0]
        assert cache.get_many([make_entry(1)[0]]) == [None]


@pytest.mark.parametrize(
    "changes",
    [
        ["ALTER TABLE entries RENAME TO old", "CREATE VIEW entries AS SELECT * FROM old"],
        [
            "DROP TABLE entries",
            "CREATE VIEW entries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT zeroblob(i) AS key, 'f4' AS dtype, zeroblob(i) AS value, x'00' AS checksum, i AS used FROM n",
        ],
    ],
)
def test_a_view_that_is_called_like_the_table_is_not_read(tmp_path, changes):
    """The second one has endless rows."""
    fill(tmp_path, 3)
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:
        for change in changes:
            connection.execute(change)
    connection.close()
    with FeatureCache(tmp_path) as cache:
        assert "another program" in cache.notes[0]
        assert cache.get_many([make_entry(1)[0]]) == [None]


def test_a_cache_with_an_entry_that_is_far_too_large_is_not_used(tmp_path):
    fill(tmp_path, 3)
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:
        connection.execute("UPDATE entries SET value = zeroblob(50000000) WHERE key = ?", [make_entry(1)[0]])
    connection.close()
    keys = [make_entry(i)[0] for i in range(3)]
    with FeatureCache(tmp_path) as cache:
        tracemalloc.start()
        assert cache.get_many(keys) == [None] * 3
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20
        assert "it holds an entry of more than 33,554,432 bytes" in cache.notes[0]  # a new one was started
        cache.put_many(dict([make_entry(1)]))
        assert [value is None for value in cache.get_many(keys)] == [True, False, True]


def test_a_cache_whose_making_was_interrupted_is_used(tmp_path):
    connection = sqlite3.connect(tmp_path / "features-v2.sqlite")
    with connection:
        connection.execute(module.SCHEMA)
    connection.close()
    fill(tmp_path, 3)
    assert count_valid(tmp_path, 3) == 3


def run(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", MAKE_ENTRY + code, *map(str, arguments)], stdout=subprocess.PIPE)


WRITE = """
with FeatureCache(Path(sys.argv[1])) as cache:
    for start in range(int(sys.argv[2]), int(sys.argv[3]), 20):
        cache.put_many(dict(make_entry(i) for i in range(start, start + 20)))
        print(start, flush=True)
"""


def test_two_processes_write_at_once(tmp_path):
    processes = [run(WRITE, tmp_path, 0, 2000), run(WRITE, tmp_path, 1000, 3000)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert count_valid(tmp_path, 3000) == 3000


@pytest.mark.slow
def test_kills_in_the_middle_lose_at_most_the_last_batch(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(8):
        process = run(WRITE, tmp_path, 0, 100_000)
        last_start = 0
        for line in process.stdout:
            last_start = int(line)
            if last_start >= 200 * int(rng.integers(1, 10)):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert count_valid(tmp_path, 4000) >= min(last_start + 20, 4000)


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with FeatureCache(Path(sys.argv[1])) as cache:
    for start in range(0, 2000, 20):
        cache.put_many(dict(make_entry(i) for i in range(start, start + 20)))
    for i in range(2000):
        value = cache.get_many([make_entry(i)[0]])[0]
        assert value is None or value.tobytes() == make_entry(i)[1].tobytes()
    print(cache.notes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_full_disk_turns_the_cache_off_and_the_run_continues(tmp_path):
    process = run(FULL, tmp_path)
    out = process.communicate()[0].decode()
    assert process.returncode == 0
    assert "is not used" in out or "was damaged" in out
    count_valid(tmp_path, 2000)
