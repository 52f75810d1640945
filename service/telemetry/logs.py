"""Log lines, which never wait: a thread of its own writes them, and while nobody reads, they are dropped and counted.

It knows nothing of HTTP or models.
"""

import asyncio
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from service.settings import Settings
from service.telemetry.visits import Visit, current_span

logger = logging.getLogger("understudy")
visits = logging.getLogger("understudy.access")

MOST_WAITING = 4 * 1024 * 1024  # bytes of log lines that nobody has read yet
PATIENCE_S = 1.0  # at the end, for whoever reads the log
_END = b""  # after the last line
LONGEST_MESSAGE, LONGEST_REASON = 8 * 1024, 500  # characters
MOST_FRAMES, MOST_CAUSES = 40, 8

EXTRAS = ("request_id", "trace_id", "span_id", "key", "model", "rows", "tokens", "method", "route", "status", "ms")
"""What a line may hold beside its message; nothing else that a logger was given gets in."""

IN_MESSAGE = frozenset({"method", "route", "status", "ms"})  # of the access log, for people

# Left as they are, these could end a line, colour a terminal, or turn the direction of its text.
_CONTROLS = [*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
ESCAPES = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS}

SAID = (
    *(OSError, ArithmeticError, AssertionError, AttributeError, ImportError, IndexError),
    *(MemoryError, NameError, RuntimeError, TypeError),
)
"""Exceptions whose messages are about code. Others may quote what a client sent, as ValueError and KeyError do."""


def log_visit(visit: Visit) -> None:
    """One line of the access log."""
    ms = round(visit.seconds * 1e3, 3)
    extra: dict[str, Any] = {"method": visit.method, "route": visit.route, "status": visit.status, "ms": ms}
    extra |= {"request_id": visit.request_id, "key": visit.key}
    if visit.stages is not None:
        extra |= {"model": visit.stages.model, "rows": visit.stages.rows, "tokens": visit.stages.tokens}
    visits.info("%s %s %d %.3f ms", visit.method, visit.route, visit.status, ms, extra=extra)


def configure_logs(settings: Settings) -> "LogPipe":
    """Send the lines of all loggers to stderr. Once in a process, and again in each one that is forked from it."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    pipe = LogPipe(2 if sys.__stderr__ is not None else None)
    pipe.setFormatter(JsonLines() if settings.log_format == "json" else HumanLines())
    root.addHandler(pipe)
    root.setLevel(settings.log_level.upper())
    visits.setLevel(logging.INFO if settings.access_log else logging.CRITICAL)
    logging.captureWarnings(True)
    threading.excepthook = _on_thread_error
    return pipe


def on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: asyncio's own would write the arguments of callbacks, texts among them."""
    logger.error("event loop: %s", context.get("message"), exc_info=context.get("exception"))


def dropped_lines() -> int:
    """Log lines of this process that were never written."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LogPipe))


class LogPipe(logging.Handler):
    """Writes to a file descriptor, from a thread of its own: a full pipe holds up that thread and nobody else."""

    def __init__(self, fd: int | None) -> None:
        super().__init__()
        self._fd = fd
        self._refused = self._unsaid = 0  # lines that found no room, and those of them that no line tells of yet
        self._lost = 0  # lines that the thread could not write
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._taken = self._done = 0  # bytes; the first is counted under the handler's lock, the other by the thread
        self._thread = threading.Thread()

    @property
    def dropped(self) -> int:
        """Lines that were never written."""
        return self._refused + self._lost

    def emit(self, record: logging.LogRecord) -> None:
        if not self._thread.is_alive():  # the first line, or the first one after a fork
            self._start()
        try:
            line = self.format(record)
        except Exception:  # a logger was called wrongly: no reason to fail a request
            return self._drop()
        if self._fd is None or self._taken - self._done > MOST_WAITING:
            return self._drop()
        if self._unsaid:
            missing, self._unsaid = self._unsaid, 0
            told = {"name": logger.name, "levelno": logging.WARNING, "levelname": "WARNING"}
            told |= {"msg": "%d log lines were dropped: nobody read them", "args": (missing,)}
            self._put(self.format(logging.makeLogRecord(told)))
        return self._put(line)

    def flush(self) -> None:
        """Wait until all is written, but not for a reader that does not read."""
        until = time.monotonic() + PATIENCE_S
        while self._thread.is_alive() and self._done < self._taken and time.monotonic() < until:
            time.sleep(0.005)

    def close(self) -> None:
        self.flush()
        self._lines.put(_END)
        super().close()

    def _put(self, line: str) -> None:
        content = f"{line}\n".encode(errors="backslashreplace")
        self._taken += len(content)
        self._lines.put(content)

    def _drop(self) -> None:
        self._refused += 1
        self._unsaid += 1

    def _start(self) -> None:
        self._lines = SimpleQueue()
        self._taken = self._done = 0
        self._thread = threading.Thread(target=self._write_all, args=(self._lines,), name="log", daemon=True)
        self._thread.start()

    def _write_all(self, lines: "SimpleQueue[bytes]") -> None:
        while content := lines.get():
            # Short ones together, up to what a pipe takes in one piece: other processes may write to it too.
            while len(content) < select.PIPE_BUF // 2 and not lines.empty():
                more = lines.get()
                content += more
                if more == _END:
                    lines.put(_END)
                    break
            try:
                self._write(content)
            except OSError:  # closed
                self._lost += content.count(b"\n")
            self._done += len(content)

    def _write(self, content: bytes) -> None:
        # Not through sys.stderr: a thread that hangs in there would take the interpreter's end with it.
        assert self._fd is not None
        while content:
            try:
                content = content[os.write(self._fd, content) :]
            except BlockingIOError:  # somebody made the pipe non-blocking
                select.select([], [self._fd], [], PATIENCE_S)


class HumanLines(logging.Formatter):
    """For people: time, level, name, message, then what else is known; a trace below it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {_message(record)}"
        line += "".join(f" {name}={value}" for name, value in _extras(record) if name not in IN_MESSAGE)
        parts = [line, *_trace(record).splitlines()]
        return "\n    ".join(part.translate(ESCAPES) for part in parts)


class JsonLines(logging.Formatter):
    """For machines: one object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **dict(_extras(record)),
        }
        if trace := _trace(record):
            line["exception"] = trace
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    return record.getMessage().strip()[:LONGEST_MESSAGE]


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    span = current_span.get()
    known = record.__dict__ if span is None else {"trace_id": span.trace_id, "span_id": span.span_id} | record.__dict__
    return ((name, known[name]) for name in EXTRAS if known.get(name) is not None)


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return "" if error is None else "\n".join(_told(error))


def _told(error: BaseException, depth: int = 0) -> Iterator[str]:
    """The exception that came first, where it was raised, and what followed from it."""
    first = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (*([first] if first else []), *inner[:MOST_CAUSES]) if depth < MOST_CAUSES else ():
        yield from _told(other, depth + 1)
        yield "which led to"
    for frame in traceback.extract_tb(error.__traceback__, -MOST_FRAMES):
        yield f"{frame.filename}:{frame.lineno} {frame.name}: {frame.line}"
    kind = type(error)
    ours = kind.__module__.startswith(("service.", "onnxruntime."))
    reason = str(error)[:LONGEST_REASON] if ours or isinstance(error, SAID) else "(not shown, it may quote a text)"
    yield f"{kind.__module__}.{kind.__qualname__}: {reason}"


def _on_thread_error(details: threading.ExceptHookArgs) -> None:
    name = details.thread.name if details.thread is not None else "a thread"
    logger.critical("%s ended by an error", name, exc_info=details.exc_value)
