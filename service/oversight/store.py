"""A bounded file of texts to learn from: SQLite, so that it is whole after a crash and several workers may share it.

All methods belong to one thread. It knows rows and bytes. It knows nothing of models, sampling or redaction.
"""

import math
import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from service.settings import SettingProblem

PRIVATE = 0o600
VERSION = 1
"""Of the table; stands in the file as user_version."""

BUSY_MS = 5000
"""How long another worker's writing is waited for."""

WAL_PART = 4
"""One in so many bytes of the limit is left to the write-ahead log and its index; the rest is the database's."""

AT_ONCE = 16
"""One in so many bytes of the limit may be written or dropped at once, since all that goes through the log."""

CHECKPOINT_MS = 100
"""How long the log's shortening waits for others; it is tried again with the next rows."""

OF_A_ROW = 256
"""Bytes that a row takes beside its text, about."""

_TABLE = """
CREATE TABLE texts (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,                -- seconds since 1970
    text TEXT NOT NULL,
    text_pair TEXT,                  -- the second one, where the model reads pairs
    student TEXT NOT NULL,           -- name@version
    student_digest TEXT NOT NULL,    -- the seal of its bundle
    teacher TEXT,
    teacher_digest TEXT,
    student_logits BLOB NOT NULL,    -- float32, little-endian, in the order of the student's labels
    teacher_logits BLOB,             -- the same, in the student's order too
    reason TEXT NOT NULL,            -- sampled, low-margin
    probability REAL NOT NULL        -- with which such a text was chosen: weights of 1 / probability undo the choice
)
"""

_INSERT = """
INSERT INTO texts (at, text, text_pair, student, student_digest, teacher, teacher_digest, student_logits,
                   teacher_logits, reason, probability) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_SIZES = """
SELECT id, at, length(CAST(text AS BLOB)) + coalesce(length(CAST(text_pair AS BLOB)), 0) FROM texts ORDER BY id
"""


class Reason(StrEnum):
    """Why a text was kept."""

    SAMPLED = "sampled"
    LOW_MARGIN = "low-margin"


class Record(NamedTuple):
    """One row of the table, but for its number, in the order of its columns."""

    at: float
    text: str
    text_pair: str | None
    student: str
    student_digest: str
    teacher: str | None
    teacher_digest: str | None
    student_logits: bytes
    teacher_logits: bytes | None
    reason: str
    probability: float

    @property
    def bytes(self) -> int:
        """About what it takes in the file."""
        logits = len(self.student_logits) + len(self.teacher_logits or b"")
        return len(self.text.encode()) + len((self.text_pair or "").encode()) + logits + OF_A_ROW


class StoreFull(Exception):
    """There is no room for these rows now, though the oldest may go: while somebody reads the log cannot shrink."""


class Store:
    """The file, open for writing."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Raises SettingProblem for a file that is no store; OSError, sqlite3.Error where it cannot be opened."""
        self._path = path
        self._limit = limit_bytes
        self._log_room = limit_bytes // WAL_PART
        self._at_once = limit_bytes // AT_ONCE
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))  # SQLite's other files follow it
        # Opened where settings are judged, used by the one thread that writes.
        self._database = sqlite3.connect(path, BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            self._set_up()
            self._page = self._pragma("page_size")
            self._opened = path.stat()
        except BaseException:
            self._database.close()
            raise

    @property
    def fits(self) -> int:
        """Bytes of records that may be written at once."""
        return (self._at_once - 2 * self._page) * 4 // 5

    @property
    def bytes(self) -> int:
        """On the disk, with the log and its index."""
        return self._size("") + self._size("-wal") + self._size("-shm")

    @property
    def rows(self) -> int:
        """How many there are now."""
        found: int = self._database.execute("SELECT count(*) FROM texts").fetchone()[0]
        return found

    def write(self, records: Sequence[Record]) -> None:
        """Add rows in one transaction, after the oldest have made room. Raises StoreFull, sqlite3.Error or OSError."""
        self._require_file()
        size = sum(record.bytes for record in records)
        if size > self.fits:
            raise StoreFull("too many bytes at once")
        self._make_room(size * 5 // 4 + 2 * self._page)  # pages are seldom full
        with _Transaction(self._database):
            self._database.executemany(_INSERT, records)
        self._shorten_log()

    def drop_before(self, at: float) -> None:
        """Forget the rows from before that time, and give the room back to the disk."""
        dropped = False
        while self._drop_oldest(self._at_once, at):
            dropped = True
        if dropped:
            self._database.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page only
            self._shorten_log(longest=0)  # the file itself shrinks with this

    def close(self) -> None:
        """SQLite empties the log if no other worker has the file open."""
        self._database.close()

    def _set_up(self) -> None:
        try:
            self._check()
            if stat.S_IMODE(self._path.stat().st_mode) != PRIVATE:
                self._path.chmod(PRIVATE)
            run = self._database.execute
            run("PRAGMA auto_vacuum = INCREMENTAL")  # before there is a table
            self._use_log()
            run("PRAGMA synchronous = NORMAL")  # a lost machine may cost the last rows, a lost process none
            run("PRAGMA secure_delete = ON")  # a text that was dropped is nowhere in the file
            run(f"PRAGMA journal_size_limit = {self._log_room}")
            with _Transaction(self._database):
                if not self._check():  # another worker may have been quicker
                    run(_TABLE)
                    run(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            raise SettingProblem(f"--capture {self._path}: not an SQLite database; name another file") from error

    def _check(self) -> bool:
        """Is the table there? Raises SettingProblem where something else is."""
        found = self._database.execute(  # in one statement: another worker may be at it
            "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master),"
            " (SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'texts')"
        ).fetchone()
        if found not in ((0, 0, 0), (VERSION, 1, 1)):
            raise SettingProblem(f"--capture {self._path}: not a store of this version; name another file")
        return bool(found[0])

    def _use_log(self) -> None:
        """Switch to WAL. While another worker does it SQLite refuses at once, whatever the patience."""
        until = time.monotonic() + BUSY_MS / 1000
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _require_file(self) -> None:
        """SQLite itself would go on with a file that has no name any more, and all would be lost at the end."""
        if not (self._path.exists() and os.path.samestat(self._path.stat(), self._opened)):
            raise OSError("the file was moved or deleted while it was open")

    def _make_room(self, size: int) -> None:
        room = self._limit - self._log_room
        while (excess := self._used() + size - room) > 0:
            if not self._drop_oldest(min(excess, self._at_once)):
                raise StoreFull("too small even when it is empty")
        if self._size("-wal") + size > self._log_room:
            raise StoreFull("the log cannot be shortened while somebody reads")

    def _drop_oldest(self, size: int, before: float = math.inf) -> bool:
        """Drop the oldest rows from before that time, about so many bytes of them. Were there any?"""
        if self._size("-wal") + size > self._log_room:
            raise StoreFull("the log cannot be shortened while somebody reads")
        last = self._last_of(size, before)
        if last is None:
            return False
        with _Transaction(self._database):
            self._database.execute("DELETE FROM texts WHERE id <= ?", (last,))
        self._shorten_log()
        return True

    def _last_of(self, size: int, before: float) -> int | None:
        last, found = None, 0
        with closing(self._database.execute(_SIZES)) as rows:  # closed early: an open one would keep the log as it is
            for number, at, length in rows:
                if at >= before or (found and found + length > size):
                    break
                last, found = int(number), found + length + OF_A_ROW
        return last

    def _shorten_log(self, longest: int | None = None) -> None:
        if self._size("-wal") <= (self._log_room // 4 if longest is None else longest):
            return
        run = self._database.execute
        run(f"PRAGMA busy_timeout = {CHECKPOINT_MS}")
        with suppress(sqlite3.OperationalError):  # somebody is at it
            run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        run(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _used(self) -> int:
        """Bytes of pages that hold something; the others are written to before the file grows."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._page

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _size(self, suffix: str) -> int:
        try:
            return Path(f"{self._path}{suffix}").stat().st_size
        except FileNotFoundError:
            return 0


def is_busy(error: sqlite3.Error) -> bool:
    """Has another worker only been in the way?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class _Transaction:
    """Takes the right to write at once: to read first and write later fails where another worker came between."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._database.execute("COMMIT")
        elif self._database.in_transaction:  # a full disk has ended it already
            self._database.execute("ROLLBACK")
