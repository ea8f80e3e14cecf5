"""Feature caches: a valid one with bytes, rows or its schema changed, or something else in its place."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

from fuzz.mutate import mutate

NAME = "features-v2.sqlite"
STATEMENTS = (
    "UPDATE entries SET value = zeroblob(100000000)",
    "UPDATE entries SET value = substr(value, 2)",
    "UPDATE entries SET value = 'text', dtype = 7",
    "UPDATE entries SET dtype = 'f8'",
    "UPDATE entries SET checksum = zeroblob(16)",
    "UPDATE OR REPLACE entries SET used = 'x', key = 'text'",
    "UPDATE entries SET used = 9223372036854775807",
    "DROP TABLE entries",
    "ALTER TABLE entries RENAME COLUMN value TO other",
    "ALTER TABLE entries RENAME TO old; CREATE VIEW entries AS SELECT * FROM old",
    "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
    "CREATE TRIGGER t BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no'); END",
    "ALTER TABLE entries RENAME TO old; CREATE VIEW entries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
    "FROM n) SELECT zeroblob(32) key, 'f2' dtype, zeroblob(i) value, '' checksum, i used FROM n",
    "PRAGMA user_version = 99",
    "PRAGMA user_version = -1",
    "PRAGMA application_id = 252006",
    "PRAGMA journal_mode = DELETE",
)


def write(rng: random.Random, folder: Path, mutations: int, seed: Path) -> Path:
    """Write a cache folder like ``seed`` into the folder, and return its path."""
    cache = folder / "features"
    shutil.copytree(seed, cache)
    file, other = cache / NAME, folder / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE places (name TEXT)")
    connection.close()
    kind = rng.randrange(8) if mutations else 8
    if kind < 3:
        file.write_bytes(mutate(rng, file.read_bytes(), mutations))
    elif kind < 5:
        with sqlite3.connect(file) as connection:
            connection.executescript(
                "PRAGMA trusted_schema = ON; PRAGMA writable_schema = OFF;" + rng.choice(STATEMENTS)
            )
        connection.close()
    elif kind == 5:
        ending = rng.choice(("-wal", "-shm", "-journal"))
        (cache / f"{NAME}{ending}").write_bytes(rng.choice((b"", rng.randbytes(5_000), file.read_bytes())))
    elif kind == 6:
        file.unlink()
        file.symlink_to(rng.choice((other, "/dev/zero", NAME, "/nowhere/x", "/etc/passwd")))
    else:
        file.unlink()
        rng.choice((lambda: file.mkdir(), lambda: shutil.copy(other, file), lambda: file.write_bytes(b"")))()
    return cache
