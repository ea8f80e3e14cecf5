"""The feature cache: vectors on disk by the content of the image, never by its name.

One SQLite file. Writers of several processes take turns, a kill or a full disk loses at most the last batch, and every
entry has a checksum: what does not match is dropped and computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.machine import cache_folder

logger = logging.getLogger(__name__)

VERSION = 2
DTYPES = {"u1": np.uint8, "f2": np.float16, "f4": np.float32}
MAX_BYTES = 4 * 2**30
MAX_VALUE_BYTES = 2**25  # of an entry; a larger one is not ours, and takes long to read and to replace
A_DAY = 86_400  # seconds: a use is recorded once a day, so that a run that computes nothing mostly writes nothing
BUSY_SECONDS = 2.0  # others write for milliseconds; one that holds the file for longer is not waited for
COLUMNS = ("key", "dtype", "value", "checksum", "used")
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key BLOB PRIMARY KEY, dtype TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID
"""


def entry_key(content: bytes, backbone_sha256: str, preprocess: str, runtime: str, view: str, tap: str) -> bytes:
    """Return the key [32 bytes] of a tap of a view of an image with hash ``content``; view "0" is the image itself.

    Everything that can change the numbers is part of it, the runtime's precision too. Keys of one image begin alike, so
    that all its entries can be found.
    """
    text = "\0".join([backbone_sha256, preprocess, runtime, view, tap]).encode()
    return _prefix(content) + hashlib.sha256(content + text).digest()[:16]


def _prefix(content: bytes) -> bytes:
    """Return how the keys of an image begin [16 bytes], from which nobody can tell its hash."""
    return hashlib.sha256(content).digest()[:16]


class FeatureCache:
    """Vectors on disk. Use it as a context manager; safe with several threads and processes.

    An error of the disk never stops a run, nor does another process that holds the file: the cache turns itself off,
    and ``notes`` says why. A link, and a database of another program, are neither read nor written. With ``thumbnails``
    it keeps, of each image that ``embed`` decodes, the small square that a report shows.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES, *, thumbnails: bool = False) -> None:
        self.thumbnails = thumbnails
        self.path = Path(self.file_name())
        self.max_bytes = max_bytes
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._stale: set[bytes] = set()  # keys that were read, and whose use was not recorded for a day
        self._connection: sqlite3.Connection | None = None
        try:
            self.path = (folder or cache_folder()) / self.path
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damaged(error):
                self._turn_off(error)
            else:
                self._start_over(error)
        except OSError as error:
            self._turn_off(error)

    @staticmethod
    def file_name() -> str:
        """Return the name of the file in the cache folder."""
        return f"features-v{VERSION}.sqlite"

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_many(self, keys: Sequence[bytes]) -> list[NDArray[Any] | None]:
        """Return the vectors under ``keys``, None where there is none or its checksum fails."""
        vectors: dict[bytes, NDArray[Any]] = {}
        with self._lock:
            try:
                for batch in _batched(keys, 500):
                    vectors |= self._read(batch)
            except sqlite3.DatabaseError as error:
                self._handle(error)
        return [vectors.get(key) for key in keys]

    def put_many(self, values: Mapping[bytes, NDArray[Any]]) -> None:
        """Store vectors (uint8, float16 or float32, one-dimensional), all of them or none."""
        now = int(time.time())
        rows = []
        for key, value in values.items():
            dtype, data = value.dtype.str[1:], np.ascontiguousarray(value).tobytes()
            rows.append((key, dtype, data, _checksum(key, dtype, data), now))
        with self._lock:
            if self._connection is None:
                return
            try:
                with self._connection:
                    self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", rows)
            except sqlite3.DatabaseError as error:
                self._handle(error)

    def count(self) -> int:
        """Return how many entries there are, 0 where the cache is not used."""
        with self._lock:
            try:
                found = self._connection and self._connection.execute("SELECT COUNT(*) FROM entries").fetchone()
            except sqlite3.DatabaseError as error:
                self._handle(error)
                found = None
            return int(found[0]) if found else 0

    def clear(self, unused_since: int) -> int:
        """Delete the entries last used at ``unused_since`` (Unix time) or before, give the space back, and count them.

        A use is recorded once a day. Where the file cannot be changed ``notes`` says why.
        """
        with self._lock:
            if self._connection is None:
                return 0
            try:
                with self._connection:
                    deleted = self._connection.execute("DELETE FROM entries WHERE used <= ?", (unused_since,)).rowcount
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return deleted
            except sqlite3.DatabaseError as error:
                self._handle(error)
                return 0

    def forget(self, contents: Iterable[bytes]) -> int:
        """Delete all entries of images with these hashes, of whatever network, and count them.

        Nothing of them stays in the file: what is deleted is overwritten, and the file written anew. Where that is not
        possible ``notes`` says why.
        """
        with self._lock:
            if self._connection is None:
                return 0
            try:
                self._connection.execute("PRAGMA secure_delete=ON")
                deleted = 0
                with self._connection:
                    for prefix in map(_prefix, contents):
                        query = "DELETE FROM entries WHERE key BETWEEN ? AND ?"
                        deleted += self._connection.execute(query, (prefix, prefix + b"\xff" * 16)).rowcount
                self._connection.execute("VACUUM")
                if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    self._note(f"Another process has {self.path} open, which may still hold deleted entries beside it.")
                return deleted
            except sqlite3.DatabaseError as error:
                self._handle(error)
                return 0

    def close(self) -> None:
        """Record what was used, drop the least recently used entries beyond ``max_bytes``, and close."""
        with self._lock:
            if self._connection is None:
                return
            try:
                self._record_use()
                self._shrink()
            except sqlite3.DatabaseError:
                pass  # only maintenance: the next run does it
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None

    def _open(self) -> sqlite3.Connection:
        for path in (self.path, *self._companions()):
            if path.is_symlink():
                raise OSError(f"{path.name} is a link, which may lead to a file of another program")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level="IMMEDIATE"
        )
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            _refuse_foreign(connection)
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"it is of format {version}, not {VERSION}")
            # Where the file system does not allow it, the old journal is used.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            if version == 0:
                with connection:
                    connection.execute(SCHEMA)
                    connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("SELECT key, dtype, value, checksum, used FROM entries LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[Any]]:
        if self._connection is None:
            return {}
        placeholders = ",".join("?" * len(keys))
        vectors: dict[bytes, NDArray[Any]] = {}
        damaged = []
        a_day_ago = int(time.time()) - A_DAY
        for key, dtype, data, checksum, is_stale in self._connection.execute(
            f"SELECT key, dtype, CASE WHEN length(value) <= {MAX_VALUE_BYTES} THEN value END, checksum, used < ? "
            f"FROM entries WHERE key IN ({placeholders})",
            [a_day_ago, *keys],
        ):
            if data is None:
                raise sqlite3.DatabaseError(f"it holds an entry of more than {MAX_VALUE_BYTES:,} bytes")
            if isinstance(data, bytes) and dtype in DTYPES and checksum == _checksum(key, dtype, data):
                vectors[key] = np.frombuffer(data, DTYPES[dtype])
                if is_stale:
                    self._stale.add(key)
            else:
                damaged.append((key,))
        if damaged:
            with self._connection:
                self._connection.executemany("DELETE FROM entries WHERE key = ?", damaged)
        return vectors

    def _handle(self, error: sqlite3.DatabaseError) -> None:
        if isinstance(error, sqlite3.OperationalError) and not _is_damaged(error):
            self._turn_off(error)
        else:
            self._start_over(error)

    def _turn_off(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        reason = str(error)
        if "locked" in reason:
            reason = f"another process has held it for {BUSY_SECONDS:.0f} seconds"
        self._note(f"The feature cache {self.path} is not used: {reason}; features are computed and not stored.")

    def _start_over(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        backup = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}-{os.getpid()}")
        try:
            for earlier in self.path.parent.glob(f"{self.path.name}.damaged-*"):
                earlier.unlink()
            self.path.replace(backup)
            for companion in self._companions():
                companion.unlink(missing_ok=True)
            self._connection = self._open()
            self._note(
                f"The feature cache was damaged ({error}); it was moved to {backup.name} and a new one was started."
            )
        except (OSError, sqlite3.DatabaseError) as second_error:
            self._turn_off(second_error)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        logger.info("%s", text)

    def _companions(self) -> tuple[Path, ...]:
        """Return the files that SQLite keeps beside the database."""
        return tuple(Path(f"{self.path}{ending}") for ending in ("-wal", "-shm", "-journal"))

    def _record_use(self) -> None:
        if self._connection is not None and self._stale:
            now = int(time.time())
            with self._connection:
                self._connection.executemany(
                    "UPDATE entries SET used = ? WHERE key = ?", ((now, key) for key in self._stale)
                )

    def _shrink(self) -> None:
        if self._connection is None:
            return
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]  # the file itself lags behind its log
        if pages * self._connection.execute("PRAGMA page_size").fetchone()[0] <= self.max_bytes:
            return
        total = self._connection.execute("SELECT COALESCE(SUM(LENGTH(value) + 100), 0) FROM entries").fetchone()[0]
        excess = total - int(self.max_bytes * 0.8)
        least_recent = []
        for key, size in self._connection.execute("SELECT key, LENGTH(value) + 100 FROM entries ORDER BY used"):
            if excess <= 0:
                break
            least_recent.append((key,))
            excess -= size
        with self._connection:
            self._connection.executemany("DELETE FROM entries WHERE key = ?", least_recent)
        self._connection.execute("VACUUM")


def _batched(keys: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (keys[i : i + size] for i in range(0, len(keys), size))


def _checksum(key: bytes, dtype: str, data: bytes) -> bytes:
    return hashlib.blake2b(key + dtype.encode() + data, digest_size=16).digest()


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise OSError for a database that is neither empty nor ours; nothing is written into it."""
    # A view could be called like our table, and a virtual table as well: their SQL begins otherwise.
    query = "SELECT name, substr(sql, 1, 13) FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'"
    found = set(connection.execute(query))
    columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(entries)"))
    if found and (found != {("entries", "CREATE TABLE ")} or columns != COLUMNS):
        raise OSError("it is a database of another program; move it, or set HEADSTART_CACHE to another folder")


def _is_damaged(error: sqlite3.Error) -> bool:
    text = str(error)
    return "malformed" in text or "not a database" in text or "no such" in text
