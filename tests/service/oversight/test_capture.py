"""Texts that are kept to learn from: bounded, private, redacted, whole after a crash, and shared by workers."""

import logging
import multiprocessing
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.oversight.capture import DAY_S, MIB, Capture, Choice, Kept, Told, Who
from service.oversight.redaction import NotRedacted, Redaction
from service.oversight.store import Reason, Record, Store, StoreFull
from service.settings import SettingProblem, Settings
from service.telemetry.metrics import Metrics
from service.telemetry.oversight import OversightMetrics
from tests.running import PATIENCE_S, ROOT, until

STUDENT, TEACHER = Who("toy@1", "a" * 64), Who("toy-teacher@1", "b" * 64)
COLUMNS = (
    "at, text, text_pair, student, student_digest, teacher, teacher_digest, student_logits, teacher_logits, reason, "
    "probability"
)


def record(text: str, at: float = 1.0) -> Record:
    return Record(at, text, None, *STUDENT, None, None, b"\0" * 8, None, Reason.SAMPLED, 0.5)


def rows_in(path: Path) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(f"SELECT {COLUMNS} FROM texts ORDER BY id").fetchall()


def bytes_of(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


@contextmanager
def capturing(path: Path, **knobs: Any) -> Iterator[Capture]:
    settings = Settings.model_validate({"capture": path, **knobs})
    capture = Capture(settings, OversightMetrics(Metrics()))
    capture.start()
    yield capture
    capture.stop(PATIENCE_S)


def kept(text: str | tuple[str, str], **more: Any) -> Kept:
    return Kept(text, STUDENT, [1.5, -2.0], Choice(7.0, Reason.LOW_MARGIN, 1.0), **more)


# --- the file


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    written = [
        record("naïve ✓ 😀", at=12.5),
        Record(13.0, "one", "two", *STUDENT, *TEACHER, b"\1" * 8, b"\2" * 8, Reason.LOW_MARGIN, 1.0),
    ]
    with closing(Store(path, MIB)) as store:
        store.write(written[:1])
        store.write(written[1:])
        assert store.rows == 2
    assert rows_in(path) == [tuple(each) for each in written]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    path.touch(0o644)
    with closing(Store(path, MIB)) as store:
        store.write([record("x")])
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
        assert len(list(tmp_path.iterdir())) == 3


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), longest=st.sampled_from([200, 3000, 40_000]))
def test_it_never_outgrows_its_limit_and_the_oldest_go_first(
    tmp_path_factory: pytest.TempPathFactory, seed: int, longest: int
) -> None:
    path, rng = tmp_path_factory.mktemp("bounded") / "texts.db", np.random.default_rng(seed)
    numbers, largest = count(), 0
    with closing(Store(path, MIB)) as store:
        for _ in range(150):
            batch: list[Record] = []
            while sum(each.bytes for each in batch) + longest + 1000 < store.fits:
                batch.append(record(f"{next(numbers)} {'x' * int(rng.integers(longest))}"))
            if not batch:
                batch = [record(f"{next(numbers)} {'x' * int(rng.integers(store.fits // 2))}")]
            store.write(batch)
            largest = max(largest, bytes_of(path))
        assert store.bytes == bytes_of(path)
        left = store.rows
    assert largest <= MIB
    written = next(numbers)
    assert [int(row[1].split()[0]) for row in rows_in(path)] == list(range(written - left, written))
    assert left < written
    assert largest > MIB // 2  # of what may be used, much is


def test_a_reader_that_stays_costs_rows_and_never_room(tmp_path: Path) -> None:
    path, refused = tmp_path / "texts.db", 0
    with closing(Store(path, MIB)) as store, closing(sqlite3.connect(path)) as reader:
        store.write([record("the first")])
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM texts").fetchone() == (1,)
        for _ in range(60):
            try:
                store.write([record("x" * 20_000)])
            except StoreFull:
                refused += 1
            assert bytes_of(path) <= MIB
        assert refused
        reader.execute("COMMIT")
        store.write([record("the last")])
    assert rows_in(path)[-1][1] == "the last"


def test_what_was_dropped_is_nowhere_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    with closing(Store(path, MIB)) as store:
        for _ in range(20):
            store.write([record("secretword " * 2000, at=1.0)])
        store.write([record("kept", at=50.0)])
        before = bytes_of(path)
        store.drop_before(50.0)
        assert store.rows == 1
        assert bytes_of(path) < before / 4
        assert all(b"secretword" not in each.read_bytes() for each in tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"not a database at all " * 100, "CREATE TABLE other (x)", "PRAGMA user_version = 9"]
)
def test_another_file_is_left_alone(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "texts.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE texts (x)")
            database.execute(content)
            database.commit()
    before = path.read_bytes()
    with pytest.raises(SettingProblem, match="name another file"):
        Store(path, MIB)
    assert path.read_bytes() == before


WRITER = """
import sys
from itertools import count
from pathlib import Path
from service.oversight.store import Store
from tests.service.oversight.test_capture import record
store = Store(Path(sys.argv[1]), int(sys.argv[2]))
for number in count():
    store.write([record(f"{number} " + "x" * 500) for _ in range(4)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40, 400])  # before the first room is made, and while it is
def test_a_killed_process_leaves_whole_rows(tmp_path: Path, after: int) -> None:
    path = tmp_path / "texts.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(MIB)], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        last = 0
        while last < after:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
    last = int(said[-1]) if said else last
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        numbers = [int(text.split()[0]) for (text,) in database.execute("SELECT text FROM texts ORDER BY id")]
    assert numbers[-1] in (last, last + 1)  # what was said to be written is there
    assert numbers[-4:] == [numbers[-1]] * 4  # and none is there in part
    with closing(Store(path, MIB)) as store:
        store.write([record("and on")])
    assert bytes_of(path) <= MIB


def _write_many(path: Path, name: int) -> None:
    with closing(Store(path, MIB)) as store:
        for number in range(150):
            while True:
                try:
                    store.write([record(f"{name} {number} {'x' * 400}", at=time.time())])
                    break
                except StoreFull:  # the other's log
                    time.sleep(0.01)


def test_workers_share_it(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, name)) for name in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE_S)
        assert writer.exitcode == 0
    found = [tuple(map(int, row[1].split()[:2])) for row in rows_in(path)]
    assert sorted(found) == [(name, number) for name in range(3) for number in range(150)]


# --- the queue


def test_texts_come_with_all_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    with capturing(path) as capture:
        capture.offer(kept("alone"))
        capture.offer(kept(("one", "two"), told=Told(TEACHER, [0.5, 0.25])))
    ours, theirs = (np.array(logits, "<f4").tobytes() for logits in ([1.5, -2.0], [0.5, 0.25]))
    assert rows_in(path) == [
        (7.0, "alone", None, *STUDENT, None, None, ours, None, "low-margin", 1.0),
        (7.0, "one", "two", *STUDENT, *TEACHER, ours, theirs, "low-margin", 1.0),
    ]
    assert (capture.kept, capture.lost) == ({Reason.SAMPLED: 0, Reason.LOW_MARGIN: 2}, 0)


def test_texts_are_kept_for_some_days(tmp_path: Path) -> None:
    path, now = tmp_path / "texts.db", time.time()
    with closing(Store(path, MIB)) as store:
        store.write([record("old", now - 3 * DAY_S), record("young", now - DAY_S)])
    with capturing(path, capture_days=2):
        until(lambda: len(rows_in(path)) == 1)
    assert [row[1] for row in rows_in(path)] == ["young"]


def test_too_many_at_once_are_counted_and_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    with capturing(path, capture_mb=1) as capture:
        started = time.perf_counter()
        for _ in range(20_000):
            capture.offer(kept("x" * 300))
        assert time.perf_counter() - started < 5
    assert capture.lost > 0
    assert capture.kept[Reason.LOW_MARGIN] + capture.lost == 20_000
    assert bytes_of(path) <= MIB


def test_a_text_larger_than_the_file_allows_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    with capturing(path, capture_mb=1) as capture:
        capture.offer(kept("x" * 100_000))
        capture.offer(kept("small"))
    assert [row[1] for row in rows_in(path)] == ["small"]
    assert capture.lost == 1


def test_a_disk_that_fails_ends_it_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "texts.db"
    with caplog.at_level(logging.WARNING), capturing(path) as capture:
        capture.offer(kept("first"))
        until(lambda: bool(capture.kept[Reason.LOW_MARGIN]))
        # No page more than there are: SQLite says what it says of a full disk.
        assert capture._store is not None
        capture._store._database.execute("PRAGMA max_page_count = 1")
        for _ in range(50):
            capture.offer(kept("secretword " * 100))
        until(lambda: capture.off is not None)
        capture.offer(kept("late"))
    assert "disk is full" in str(capture.off)
    assert len(caplog.records) == 1
    assert "secretword" not in caplog.text
    assert capture.lost == 51
    assert [row[1] for row in rows_in(path)] == ["first"]


def test_a_file_that_was_moved_away_ends_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite would go on writing to a file that nobody finds again."""
    path = tmp_path / "texts.db"
    with caplog.at_level(logging.WARNING), capturing(path) as capture:
        capture.offer(kept("first"))
        until(lambda: bool(capture.kept[Reason.LOW_MARGIN]))
        path.rename(tmp_path / "moved.db")
        capture.offer(kept("second"))
        until(lambda: capture.off is not None)
    assert "was moved or deleted" in str(capture.off)
    assert len(caplog.records) == capture.lost == 1


@pytest.mark.parametrize(("place", "said"), [("nowhere/texts.db", "No such file"), (".", "unable to open")])
def test_a_file_that_cannot_be_is_said_at_the_start(tmp_path: Path, place: str, said: str) -> None:
    with pytest.raises(SettingProblem, match=re.escape(said)):
        Capture(Settings(capture=tmp_path / place), OversightMetrics(Metrics()))


# --- redaction


@pytest.mark.parametrize(
    ("names", "text", "wanted"),
    [
        (["emails"], "ask joe.o'neil+x@mail.example.org, or <a@b.c>!", "ask EMAIL, or <EMAIL>!"),
        (["urls"], "see https://a.example/x?y=z and www.b.example.", "see URL and URL"),
        (["numbers"], "call 030-123 45 at 17:30 on 1.2.2026, a1", "call 0 at 0 on 0, a0"),
        (["emails", "numbers"], "4711@mail.example 4711", "EMAIL 0"),
        ([], "joe@mail.example 1", "joe@mail.example 1"),
        (["tests.service.oversight.test_capture:shout"], "quiet", "QUIET"),
    ],
)
def test_redactors_replace_what_they_name(names: Sequence[str], text: str, wanted: str) -> None:
    assert Redaction(names)(text) == wanted


def shout(text: str) -> str:
    return text.upper()


def fail(text: str) -> str:
    if "bad" in text:
        raise ValueError(text)
    return text


def nothing(_text: str) -> Any:
    return None


@given(st.text())
def test_built_in_redactors_leave_no_digit_and_no_address(text: str) -> None:
    found = Redaction(["emails", "urls", "numbers"])(f"{text} joe@mail.example 12")
    assert not re.search(r"[1-9]|mail\.example", re.sub(r"[^\x00-\x7f]", "", found.replace(text, "")))


@pytest.mark.parametrize("name", ["emails", "urls", "numbers"])
def test_redaction_takes_time_in_proportion(name: str) -> None:
    redact = Redaction([name])
    started = time.perf_counter()
    for unit in ("a", "a@", "a.", "1", "1.", "http://", "www.", "@", "a@b.", "@a"):
        redact(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("names", "no redactor names; there are emails, urls, numbers"),
        ("tests.nowhere:f", "cannot be imported (ModuleNotFoundError"),
        ("tests.service.oversight.test_capture:nowhere", "cannot be imported (AttributeError"),
        ("tests.service.oversight.test_capture:COLUMNS", "is not a function"),
    ],
)
def test_a_redactor_that_is_not_there_is_said_at_the_start(name: str, said: str) -> None:
    with pytest.raises(SettingProblem, match=re.escape(said)):
        Redaction([name])


@pytest.mark.parametrize("name", ["fail", "nothing"])
def test_a_redactor_that_fails_lets_nothing_through(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotRedacted) as caught:
        Redaction([f"tests.service.oversight.test_capture:{name}"])("bad secretword")
    assert "secretword" not in str(caught.value)
    assert caught.value.__cause__ is None
    path = tmp_path / "texts.db"
    with capturing(path, capture_redact=f"tests.service.oversight.test_capture:{name}") as capture:
        capture.offer(kept(("good", "bad secretword")))
    assert rows_in(path) == []
    assert capture.lost == 1
    assert all(b"secretword" not in each.read_bytes() for each in tmp_path.iterdir())
