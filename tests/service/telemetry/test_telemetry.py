"""Log lines: what they hold, what they never hold, and that nobody waits for whoever reads them."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from service.bundle.errors import BundleError
from service.settings import Settings
from service.telemetry.logs import MOST_WAITING, HumanLines, JsonLines, LogPipe, log_visit, on_loop_error, visits
from service.telemetry.visits import SpanIds, Stages, Visit, current_span, server_timing
from service.telemetry.witness import open_witness
from tests.running import PATIENCE_S, ROOT, environment

SECRET = "a text that nobody but its sender may see"
STAGES = Stages("toy@1", 2, 7, 0.0001, 0.002, 0.03)


class Written:
    """A logger of its own with a pipe behind it, and what came out of that."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._end, start = os.pipe()
        self._start: int | None = start
        self.pipe = LogPipe(start)
        self.pipe.setFormatter(formatter)
        self.logger = logging.Logger("understudy.test")
        self.logger.addHandler(self.pipe)

    def text(self) -> str:
        """All of it; nothing can be written after this."""
        self.pipe.flush()
        self.finish()
        with os.fdopen(os.dup(self._end), encoding="utf-8") as opened:
            return opened.read()

    def line(self) -> dict[str, Any]:
        [found] = self.text().splitlines()
        line: dict[str, Any] = json.loads(found)
        return line

    def drain(self) -> None:
        os.read(self._end, 10 * MOST_WAITING)

    def finish(self) -> None:
        if self._start is not None:
            os.close(self._start)
            self._start = None

    def close(self) -> None:
        self.finish()
        os.close(self._end)


@pytest.fixture
def as_json() -> Iterator[Written]:
    written = Written(JsonLines())
    yield written
    written.close()


@pytest.fixture
def as_text() -> Iterator[Written]:
    written = Written(HumanLines())
    yield written
    written.close()


def test_a_json_line_has_a_closed_set_of_fields(as_json: Written) -> None:
    as_json.logger.warning("%s rows", 5, extra={"request_id": "mine", "text": SECRET, "headers": [SECRET]})
    line = as_json.line()
    assert list(line) == ["time", "level", "logger", "message", "request_id"]
    assert (line["level"], line["logger"], line["message"]) == ("warning", "understudy.test", "5 rows")
    assert (line["request_id"], line["time"][-1], len(line["time"])) == ("mine", "Z", len("2026-01-01T00:00:00.000Z"))


def test_a_line_for_people_has_the_same_in_one_line(as_text: Written) -> None:
    as_text.logger.warning("%s rows", 5, extra={"request_id": "mine", "text": SECRET})
    assert as_text.text().partition(" ")[2] == "WARNING understudy.test: 5 rows request_id=mine\n"


HOSTILE = "GET /\r\n2026 INFO fake: all is well\x1b[2J\x00\x7f\x9b \u2028 \u202e \ud800 ✓"


def test_nothing_from_outside_can_end_a_line_or_colour_a_terminal(as_text: Written, as_json: Written) -> None:
    for written in (as_text, as_json):
        written.logger.error("refused: %s", HOSTILE, extra={"request_id": HOSTILE})
    shown = as_text.text()
    assert "\\x0d\\x0a2026 INFO fake" in shown
    assert (shown.count("\n"), shown.isascii() or "✓" in shown) == (1, True)
    assert not any(character in shown for character in "\r\x1b\x00\x7f\x9b\u2028\u202e")
    found = as_json.text()
    assert found.count("\n") == 1
    assert all(" " <= character <= "~" for character in found[:-1])
    assert json.loads(found)["request_id"] == HOSTILE


class Wanted(BaseModel):
    number: int


def refuse() -> None:
    Wanted.model_validate({"number": SECRET})


def look_up() -> None:
    {"a": 1}[SECRET]


def convert() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError("the worker failed") from error


def gather() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET), KeyError(SECRET)])


def fall() -> None:
    class PanicException(BaseException):
        """As the tokenizers raise it when they panic, with the text in its message."""

    raise PanicException(f"byte index 1 is not a boundary of `{SECRET}`")


@pytest.mark.parametrize("fail", [refuse, look_up, convert, gather, fall])
def test_exceptions_say_where_and_never_what(as_json: Written, as_text: Written, fail: Callable[[], None]) -> None:
    for written in (as_json, as_text):
        try:
            fail()
        except BaseException as error:
            written.logger.error("request %s: a fault of ours", "mine", exc_info=error)
    line = as_json.line()
    assert list(line)[-1] == "exception"
    assert f"{Path(__file__).name}:" in line["exception"]
    assert f" {fail.__name__}: " in line["exception"]
    assert SECRET not in json.dumps(line)
    first, *others = as_text.text().splitlines()
    assert first.endswith("request mine: a fault of ours")
    assert all(line.startswith("    ") for line in others)
    assert SECRET not in "".join(others)


def test_messages_about_code_are_shown(as_json: Written) -> None:
    for error in (RuntimeError("the worker failed"), BundleError("no graph"), OSError(2, "No such file", "x")):
        as_json.logger.error("bad", exc_info=error)
    found = as_json.text()
    for said in ("RuntimeError: the worker failed", "BundleError: no graph", "No such file: 'x'"):
        assert said in found


def test_a_cause_comes_before_what_it_led_to(as_json: Written) -> None:
    try:
        convert()
    except RuntimeError as error:
        as_json.logger.error("bad", exc_info=error)
    trace = as_json.line()["exception"]
    assert trace.index("ValueError") < trace.index("which led to") < trace.index("RuntimeError: the worker failed")


def test_an_endless_recursion_gives_a_short_trace(as_json: Written) -> None:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        as_json.logger.error("bad", exc_info=error)
    assert len(as_json.line()["exception"].splitlines()) < 60


def test_a_logger_that_is_called_wrongly_hurts_nobody(as_json: Written) -> None:
    as_json.logger.error("%d rows", "no number")
    assert (as_json.pipe.dropped, as_json.text()) == (1, "")


def test_nobody_waits_for_a_reader_that_does_not_read(as_json: Written) -> None:
    started = time.perf_counter()
    lines = 2 * MOST_WAITING // 1000
    for _ in range(lines):
        as_json.logger.error("a" * 1000)
    as_json.pipe.flush()
    assert time.perf_counter() - started < PATIENCE_S
    missing = as_json.pipe.dropped
    assert lines * 0.4 < missing < lines
    for _ in range(lines):  # the reader is back
        as_json.drain()
        if as_json.pipe._done == as_json.pipe._taken:
            break
    as_json.logger.error("here again")
    told, last = (json.loads(line) for line in as_json.text().splitlines()[-2:])
    assert (told["message"], last["message"]) == (f"{missing} log lines were dropped: nobody read them", "here again")


def test_a_reader_that_has_gone_costs_only_the_lines() -> None:
    end, start = os.pipe()
    os.close(end)
    pipe = LogPipe(start)
    for _ in range(3):
        pipe.handle(logging.makeLogRecord({"msg": "hello"}))
        pipe.flush()
    os.close(start)
    assert pipe.dropped == 3


def test_without_a_stderr_lines_are_only_counted() -> None:
    pipe = LogPipe(None)
    pipe.handle(logging.makeLogRecord({"msg": "hello"}))
    assert pipe.dropped == 1


def test_lines_carry_the_trace_that_they_belong_to(as_json: Written) -> None:
    token = current_span.set(SpanIds("a" * 32, "b" * 16))
    as_json.logger.warning("slow")
    current_span.reset(token)
    line = as_json.line()
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)


def test_the_event_loops_own_complaints_hold_no_arguments(caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_loop_error)
        loop.call_soon(lambda text: 1 / 0, SECRET)
        await asyncio.sleep(0)

    asyncio.run(act())
    [record] = caplog.records
    assert record.name == "understudy"
    assert SECRET not in JsonLines().format(record)
    assert "ZeroDivisionError: division by zero" in JsonLines().format(record)


def test_the_access_log_has_sizes_and_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, visits.name)
    log_visit(Visit("POST", "/v1/classify", 200, 0.0321, "mine", "shop", STAGES))
    log_visit(Visit("GET", "/livez", 200, 0.0001))
    full, bare = caplog.records
    line = json.loads(JsonLines().format(full))
    names = ["request_id", "key", "model", "rows", "tokens", "method", "route", "status", "ms"]
    assert list(line)[4:] == names
    assert [line[name] for name in names] == ["mine", "shop", "toy@1", 2, 7, "POST", "/v1/classify", 200, 32.1]
    shown = HumanLines().format(full).partition(": ")[2]
    assert shown == "POST /v1/classify 200 32.100 ms request_id=mine key=shop model=toy@1 rows=2 tokens=7"
    assert HumanLines().format(bare).endswith("understudy.access: GET /livez 200 0.100 ms")


def test_a_witness_is_there_only_where_something_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, visits.name)
    assert open_witness(Settings(), "1") is None
    witness = open_witness(Settings(access_log=True), "1")
    assert witness is not None
    trace = witness.begin("GET", "/livez", [])
    assert trace is None
    witness.end(trace, Visit("GET", "/livez", 200, 0.0001))
    witness.close(PATIENCE_S)
    assert [record.getMessage() for record in caplog.records] == ["GET /livez 200 0.100 ms"]


def test_server_timing_is_in_milliseconds() -> None:
    header = b"tokenize;dur=0.100, queue;dur=2.000, inference;dur=30.000, total;dur=33.000"
    assert server_timing(STAGES, 0.033) == header


PREPARE = """
import logging, os, sys, threading, time, warnings
from service.settings import Settings
from service.telemetry.logs import *
configure_logs(Settings(**{settings!r}))
"""


def run(script: str, **settings: object) -> "subprocess.CompletedProcess[bytes]":
    """A process that configures its logs and does something."""
    return subprocess.run(
        [sys.executable, "-c", PREPARE.format(settings=settings) + script],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
    )


def lines(finished: "subprocess.CompletedProcess[bytes]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.stderr.splitlines()]


def test_all_loggers_of_a_process_speak_alike() -> None:
    script = """
def fail():
    raise RuntimeError("no luck")
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
warnings.warn("old")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
logging.getLogger("understudy").info("too quiet to be heard")
log_visit(Visit("GET", "/livez", 200, 0.1))
"""
    found = lines(run(script, log_format="json", access_log=True))
    assert [line["logger"] for line in found] == ["uvicorn.error", "py.warnings", "understudy", "understudy.access"]
    assert (found[2]["message"], "no luck" in found[2]["exception"]) == ("worker ended by an error", True)
    assert lines(run(script, log_format="json"))[-1]["logger"] == "understudy"


def test_a_forked_process_writes_its_own_lines() -> None:
    script = """
logging.warning("before")
warnings.simplefilter("ignore")  # newer Pythons warn of threads that the child will not have
child = os.fork()
logging.warning("after, %s", "parent" if child else "child")
logging.shutdown()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
    said = sorted(line["message"] for line in lines(run(script, log_format="json")))
    assert said == ["after, child", "after, parent", "before"]


def test_a_process_ends_though_nobody_reads_its_log() -> None:
    script = "for _ in range(9000): logging.error('a' * 1000)\nprint(dropped_lines() > 0, flush=True)\n"
    end, start = os.pipe()
    command = [sys.executable, "-c", PREPARE.format(settings={}) + script]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=start)
    os.close(start)
    with process:
        assert process.communicate(timeout=PATIENCE_S)[0] == b"True\n"
        assert process.returncode == 0
    os.close(end)


def test_logs_are_for_people_unless_asked_otherwise() -> None:
    settings = Settings()
    assert (settings.log_format, settings.access_log, settings.traces) == ("human", False, False)
