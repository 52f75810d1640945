"""Keeps some texts to learn from: a queue, and one thread that redacts and writes.

Whoever offers a text never waits. What cannot be kept is counted; a fault of the disk ends this, not the serving.
It knows texts and what was said of them. It knows nothing of how they were chosen.
"""

import errno
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.bundle.encoder import Text
from service.oversight.redaction import NotRedacted, Redaction
from service.oversight.store import Reason, Record, Store, StoreFull, is_busy
from service.settings import SettingProblem, Settings
from service.telemetry.oversight import OversightMetrics

logger = logging.getLogger("understudy")

QUEUED = 2048
"""Texts that may wait to be written."""

MOST_ROWS = 256
"""Of one transaction."""

FLUSH_S = 0.2
"""How long a text may wait for others to be written with it."""

TIDY_S = 60.0
"""How often texts that are too old are looked for."""

MIB = 2**20
DAY_S = 86400.0


class Who(NamedTuple):
    """A model, as it stands in the file."""

    name: str
    digest: str


class Told(NamedTuple):
    """What the teacher says of a text."""

    teacher: Who
    logits: list[float]  # in the order of the student's labels


@dataclass(frozen=True, slots=True)
class Choice:
    """Why a text is kept."""

    at: float
    reason: Reason
    probability: float


class Kept(NamedTuple):
    """A text that was chosen."""

    text: Text
    student: Who
    logits: list[float]
    choice: Choice
    told: Told | None = None


class Capture:
    """Opened with the service, and closed with it."""

    def __init__(self, settings: Settings, metrics: OversightMetrics) -> None:
        """Raises SettingProblem for a file or a redactor that cannot be."""
        assert settings.capture is not None
        self._place = settings.capture
        self._days = settings.capture_days
        self._limit = settings.capture_mb * MIB
        self._redaction = Redaction(settings.capture_redact or ())
        self._metrics = metrics
        self._captured = {reason: metrics.captured.labels(reason) for reason in Reason}
        self._queue: queue.Queue[Kept | None] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self.kept = dict.fromkeys(Reason, 0)
        self._refused = 0  # by `offer`
        self._dropped = 0  # by the thread
        self.bytes = 0
        self.off: str | None = None
        """Why nothing is kept any more."""
        self._store = self._open()

    @property
    def lost(self) -> int:
        """Texts that should have been kept."""
        return self._refused + self._dropped

    def start(self) -> None:
        """Begin to write."""
        if self._store is not None:
            self._thread.start()

    def offer(self, kept: Kept) -> None:
        """Keep this text, if there is room."""
        if self.off is not None:
            self._refuse("off")
            return
        try:
            self._queue.put_nowait(kept)
        except queue.Full:
            self._refuse("busy")

    def stop(self, patience_s: float) -> None:
        """Write what waits, then close the file."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=patience_s)
            except queue.Full:
                return
            self._thread.join(patience_s)

    def _open(self) -> Store | None:
        try:
            return Store(self._place, self._limit)
        except (OSError, sqlite3.Error) as error:
            if not _may_pass(error):
                raise SettingProblem(
                    f"--capture {self._place}: {_said(error)}; name a file that can be written"
                ) from error
            self._give_up(error)  # a full disk must not keep a worker from coming back
            return None

    def _work(self) -> None:
        store, tidied, over = self._store, -TIDY_S, 0
        assert store is not None
        try:
            while True:
                now = time.monotonic()
                if now - tidied > TIDY_S:
                    self._tidy(store)
                    tidied = now
                kept, ends = self._gather(store.fits)
                over = self._over + len(kept)
                self._write(store, [record for each in kept if (record := self._record(each))])
                self.bytes = store.bytes
                self._metrics.capture_bytes.set(self.bytes)
                if ends:
                    return
        except Exception as error:  # the disk's fault, or ours: neither is the business of those who ask
            self._drop("off", over - self._over)
            self._give_up(error)
        finally:
            store.close()

    @property
    def _over(self) -> int:
        """Texts that the thread has kept or dropped so far."""
        return self._dropped + sum(self.kept.values())

    def _gather(self, size: int) -> tuple[list[Kept], bool]:
        """What came in a short while, at most about so many bytes, and whether it is the last."""
        gathered: list[Kept] = []
        until = time.monotonic() + FLUSH_S
        while len(gathered) < MOST_ROWS and size > 0:
            try:
                kept = self._queue.get(timeout=max(0.0, until - time.monotonic()) if gathered else TIDY_S)
            except queue.Empty:
                break
            if kept is None:
                return gathered, True
            gathered.append(kept)
            size -= 4 * sum(map(len, _both(kept.text)))
        return gathered, False

    def _record(self, kept: Kept) -> Record | None:
        try:
            first, second = (None if text is None else self._redaction(text) for text in _both_or_none(kept.text))
        except NotRedacted:
            self._drop("redaction")
            return None
        assert first is not None
        told, choice = kept.told, kept.choice
        return Record(
            choice.at,
            first,
            second,
            kept.student.name,
            kept.student.digest,
            None if told is None else told.teacher.name,
            None if told is None else told.teacher.digest,
            _packed(kept.logits),
            None if told is None else _packed(told.logits),
            choice.reason,
            choice.probability,
        )

    def _write(self, store: Store, records: list[Record]) -> None:
        """In as many transactions as their bytes need."""
        waiting: list[Record] = []
        size = 0
        for record in records:
            if record.bytes > store.fits:
                self._drop("too_long")
                continue
            if size + record.bytes > store.fits:
                self._put(store, waiting)
                waiting, size = [], 0
            waiting.append(record)
            size += record.bytes
        self._put(store, waiting)

    def _put(self, store: Store, records: list[Record]) -> None:
        if not records:
            return
        try:
            store.write(records)
        except (StoreFull, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not is_busy(error):
                raise
            self._drop("busy", len(records))
            return
        for record in records:
            reason = Reason(record.reason)
            self.kept[reason] += 1
            self._captured[reason].inc()

    def _tidy(self, store: Store) -> None:
        try:
            store.drop_before(time.time() - self._days * DAY_S)
        except StoreFull:
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._metrics.lost[reason].inc()

    def _drop(self, reason: str, texts: int = 1) -> None:
        self._dropped += texts
        self._metrics.lost[reason].inc(texts)

    def _give_up(self, error: Exception) -> None:
        said = f": {_said(error)}" if isinstance(error, sqlite3.Error | OSError) else ""  # another might hold a text
        problem = f"{type(error).__name__}{said}"
        self.off = f"it has stopped ({problem}); restart when that is mended"
        logger.error("capture %s has stopped, the service goes on: %s", self._place, problem)
        while True:
            try:
                if self._queue.get_nowait() is not None:
                    self._drop("off")
            except queue.Empty:
                return


def _may_pass(error: OSError | sqlite3.Error) -> bool:
    """Is it of the disk or of others, and not of the setting?"""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return is_busy(error) or code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _said(error: OSError | sqlite3.Error) -> str:
    """Without the path: it may go into an answer."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _packed(logits: Iterable[float]) -> bytes:
    return np.asarray(logits, dtype="<f4").tobytes()


def _both(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _both_or_none(text: Text) -> tuple[str, str | None]:
    return (text, None) if isinstance(text, str) else text
