"""The cache never gives back a wrong number: not after a kill, a full disk, a flipped bit or a rival."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headstart.features.cache import FeatureCache, entry_key

# Every value follows from its key, so any reader can tell whether it is right.
MAKE = """
import hashlib, sys
import numpy as np
from pathlib import Path
from headstart.features.cache import FeatureCache

def pair(i):
    key = hashlib.sha256(str(i).encode()).digest()
    return key, np.frombuffer(hashlib.shake_256(key).digest(400), np.float16)
"""


def pair(i):
    key = hashlib.sha256(str(i).encode()).digest()
    return key, np.frombuffer(hashlib.shake_256(key).digest(400), np.float16)


def check(folder, count):
    """Whatever is there is right; how many are there."""
    with FeatureCache(folder) as cache:
        keys = [pair(i)[0] for i in range(count)]
        found = cache.get_many(keys)
    there = [(i, value) for i, value in enumerate(found) if value is not None]
    for i, value in there:
        assert value.tobytes() == pair(i)[1].tobytes()
    return len(there)


def fill(folder, count):
    with FeatureCache(folder) as cache:
        cache.put_many(dict(pair(i) for i in range(count)))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([np.uint8, np.float16, np.float32]).flatmap(lambda d: arrays.arrays(d, st.integers(0, 50))))
def test_what_is_put_is_got(tmp_path_factory, value):
    with FeatureCache(tmp_path_factory.mktemp("c")) as cache:
        cache.put_many({b"k" * 32: value})
        got, none = cache.get_many([b"k" * 32, b"n" * 32])
    assert none is None
    assert got.dtype == value.dtype
    assert got.tobytes() == value.tobytes()


def test_every_ingredient_counts_in_the_key():
    base = (b"c" * 32, "sha", "prep", "ort-fp32", "0", "tap")
    keys = {entry_key(*base)}
    for place, other in enumerate((b"d" * 32, "shb", "prfp", "ov-bf16", "1", "tap2")):
        changed = list(base)
        changed[place] = other
        keys.add(entry_key(*changed))
    keys.add(entry_key(b"c" * 32, "shaprep", "", "ort-fp32", "0", "tap"))  # no way to slide between fields
    assert len(keys) == 8
    assert all(len(key) == 32 for key in keys)


def test_order_doubles_and_many(tmp_path):
    fill(tmp_path, 1500)
    with FeatureCache(tmp_path) as cache:
        order = [7, 7, 1499, 0, 5000, 3]
        found = cache.get_many([pair(i)[0] for i in order])
    for i, value in zip(order, found, strict=True):
        assert (value is None) == (i == 5000)
        if value is not None:
            assert value.tobytes() == pair(i)[1].tobytes()
    assert check(tmp_path, 1500) == 1500


@pytest.mark.parametrize("column", ["value", "checksum", "dtype"])
def test_an_entry_that_was_changed_is_dropped_and_the_others_stay(tmp_path, column):
    fill(tmp_path, 20)
    connection = sqlite3.connect(tmp_path / "features.sqlite")
    spoiled = {"value": bytes(400), "checksum": bytes(16), "dtype": "f4"}[column]
    with connection:
        connection.execute(f"UPDATE entries SET {column} = ? WHERE key = ?", (spoiled, pair(3)[0]))
    connection.close()
    assert check(tmp_path, 20) == 19
    fill(tmp_path, 20)
    assert check(tmp_path, 20) == 20


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.3, 0.6, 0.99])
def test_a_file_cut_off_anywhere(tmp_path, share):
    fill(tmp_path, 300)
    file = tmp_path / "features.sqlite"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    check(tmp_path, 300)
    fill(tmp_path, 300)
    assert check(tmp_path, 300) == 300


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_anywhere(tmp_path, seed):
    fill(tmp_path, 300)
    file = tmp_path / "features.sqlite"
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    for _ in range(3):
        place = int(rng.integers(0, len(data) - 600)) if seed else 0
        data[place : place + 600] = rng.bytes(600)
    file.write_bytes(data)
    check(tmp_path, 300)
    fill(tmp_path, 300)
    check(tmp_path, 300)  # what is given back is right, whatever is lost


def test_a_file_that_is_no_database_is_moved_aside_and_said_so(tmp_path):
    (tmp_path / "features.sqlite").write_bytes(b"my thesis" * 1000)
    with FeatureCache(tmp_path) as cache:
        assert "was damaged" in cache.notes[0]
        cache.put_many(dict([pair(1)]))
    assert check(tmp_path, 2) == 1
    aside = [p for p in tmp_path.iterdir() if "damaged" in p.name]
    assert aside[0].read_bytes() == b"my thesis" * 1000


def test_a_newer_format_is_not_believed(tmp_path):
    fill(tmp_path, 5)
    connection = sqlite3.connect(tmp_path / "features.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert check(tmp_path, 5) == 0


def test_a_place_that_cannot_be_written_turns_the_cache_off(tmp_path):
    (tmp_path / "file").write_text("x")
    with FeatureCache(tmp_path / "file") as cache:
        assert "is not used" in cache.notes[0]
        cache.put_many(dict([pair(1)]))
        assert cache.get_many([pair(1)[0]]) == [None]


def test_the_least_recently_used_go_first(tmp_path):
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        cache.put_many(dict(pair(i) for i in range(400)))
    connection = sqlite3.connect(tmp_path / "features.sqlite")
    long_ago = int(time.time()) - 10 * 86_400
    with connection:
        connection.execute("UPDATE entries SET used = ?", (long_ago,))
    kept_before = connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
    connection.close()
    assert 100 < kept_before < 400
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        survivors = [i for i in range(400) if cache.get_many([pair(i)[0]])[0] is not None][:50]
    connection = sqlite3.connect(tmp_path / "features.sqlite")
    with connection:  # only those fifty were used of late
        for i in set(range(400)) - set(survivors):
            connection.execute("UPDATE entries SET used = ? WHERE key = ?", (long_ago, pair(i)[0]))
    connection.close()
    with FeatureCache(tmp_path, max_bytes=150_000) as cache:
        cache.put_many(dict(pair(i) for i in range(1000, 1200)))
    with FeatureCache(tmp_path) as cache:
        assert all(v is not None for v in cache.get_many([pair(i)[0] for i in survivors]))
    assert (tmp_path / "features.sqlite").stat().st_size <= 150_000


def run(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", MAKE + code, *map(str, arguments)], stdout=subprocess.PIPE)


WRITE = """
with FeatureCache(Path(sys.argv[1])) as cache:
    for start in range(int(sys.argv[2]), int(sys.argv[3]), 20):
        cache.put_many(dict(pair(i) for i in range(start, start + 20)))
        print(start, flush=True)
"""


def test_two_processes_write_at_once(tmp_path):
    both = [run(WRITE, tmp_path, 0, 2000), run(WRITE, tmp_path, 1000, 3000)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert check(tmp_path, 3000) == 3000


@pytest.mark.slow
def test_kills_in_the_middle_lose_at_most_the_last_batch(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(8):
        process = run(WRITE, tmp_path, 0, 100_000)
        told = 0
        for line in process.stdout:
            told = int(line)
            if told >= 200 * int(rng.integers(1, 10)):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert check(tmp_path, 4000) >= min(told + 20, 4000)


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with FeatureCache(Path(sys.argv[1])) as cache:
    for start in range(0, 2000, 20):
        cache.put_many(dict(pair(i) for i in range(start, start + 20)))
    for i in range(2000):
        value = cache.get_many([pair(i)[0]])[0]
        assert value is None or value.tobytes() == pair(i)[1].tobytes()
    print(cache.notes)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_full_disk_turns_the_cache_off_and_the_run_goes_on(tmp_path):
    process = run(FULL, tmp_path)
    out = process.communicate()[0].decode()
    assert process.returncode == 0
    assert "is not used" in out or "was damaged" in out
    check(tmp_path, 2000)
