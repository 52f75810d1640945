"""The load that the HTTP benchmark sends: its parts alone, and its connections against servers that misbehave."""

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httptools
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bench.arrivals import Phase, poisson
from service.bench.client import ClosedLoop, Load, NoService, OpenLoop, Order, Pool
from service.bench.samples import Failure, Latency, Samples, Window, figures, histogram
from service.bench.texts import FEWEST_REQUESTS, SENTENCES, UnfitTexts, read_texts, requests_of
from service.bench.wire import Caller, Dialect, MalformedResponse, ResponseReader, Target, UnfitUrl

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Answer = Callable[[Reader, Writer], Awaitable[None]]


# --- answers out of fragments


@st.composite
def responses(draw: st.DrawFn) -> tuple[int, bytes, bytes]:
    """(status, body, all bytes) of one answer, as servers like to write them."""
    status = draw(st.sampled_from([200, 201, 404, 429, 500]))
    body = draw(st.binary(max_size=300))
    name = draw(st.sampled_from(["content-length", "Content-Length", "CONTENT-LENGTH"]))
    lines = [f"HTTP/1.1 {status} any reason", *draw(st.permutations(["server: x", f"{name}:  {len(body)} ", "a: "]))]
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" if draw(st.booleans()) else b""
    return status, body, interim + "\r\n".join([*lines, "", ""]).encode() + body


@given(st.lists(responses(), min_size=1, max_size=4), st.data())
def test_answers_are_read_whatever_their_fragments(
    answers: list[tuple[int, bytes, bytes]], data: st.DataObject
) -> None:
    reader = ResponseReader()
    for status, body, content in answers:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=8)))
        parts = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
        assert [reader.feed(part) for part in parts] == [0] * len(cuts) + [status]
        assert reader.body == body
        assert not reader.closes


def test_a_header_of_an_answer_is_found() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nx-b: 2\r\ncontent-length: 0\r\nx-a: 1 1\r\n\r\n") == 200
    assert [reader.header(name) for name in (b"x-a", b"x-b", b"b", b"none")] == [b"1 1", b"2", b"", b""]


def test_an_answer_that_ends_its_connection_says_so() -> None:
    reader = ResponseReader()
    assert reader.feed(LAST) == 200
    assert reader.closes


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2\r\n\r\n",
        b"HTTP/1.1 099 x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        HELLO + b"!",
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedResponse):
        ResponseReader().feed(content)


# --- requests


class Parsed:
    """What httptools makes of a request."""

    def __init__(self, content: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body, self.url, self.whole = b"", b"", False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(content)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


@pytest.mark.parametrize(
    ("dialect", "texts", "path", "body"),
    [
        (Dialect.PREDICT, ["grüß dich"], b"/at/predict", {"inputs": "grüß dich"}),
        (Dialect.PREDICT, ["a", "b"], b"/at/predict", {"inputs": ["a", "b"]}),
        (Dialect.CLASSIFY, ["a"], b"/at/v1/classify", {"input": "a"}),
    ],
)
def test_a_request_is_what_a_parser_reads(dialect: Dialect, texts: list[str], path: bytes, body: object) -> None:
    caller = Caller(Target.of("http://localhost:81/at/"), dialect, ("x-key: k",))
    parsed = Parsed(caller.request(texts))
    assert (parsed.method, parsed.url, parsed.whole) == (b"POST", path, True)
    assert json.loads(parsed.body) == body
    assert parsed.headers[b"host"] == b"localhost:81"
    assert parsed.headers[b"x-key"] == b"k"


@pytest.mark.parametrize("url", ["https://a.example", "localhost:8000", "http://", "http://h:port", "http://h:99999"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UnfitUrl, match="looks like"):
        Target.of(url)


def test_an_ipv6_address_keeps_its_brackets() -> None:
    assert Target.of("http://[::1]:8000").authority == "[::1]:8000"


@given(st.integers(1, 300), st.integers(0, 5))
def test_every_text_is_sent_and_requests_are_of_one_size(rows: int, seed: int) -> None:
    requests = requests_of(SENTENCES, rows, seed)
    assert len(requests) >= FEWEST_REQUESTS
    assert {len(request) for request in requests} == {rows}
    assert {text for request in requests for text in request} == set(SENTENCES)
    assert requests == requests_of(SENTENCES, rows, seed)


def test_texts_are_read_from_lines_and_from_columns(tmp_path: Path) -> None:
    plain, table = tmp_path / "some.txt", tmp_path / "some.tsv.gz"
    plain.write_text('one "quoted\n\ntwo\n', encoding="utf-8")
    table.write_bytes(gzip.compress(b'label\ttext\n1\tfirst "\n0\tsecond\n'))
    assert read_texts(plain) == ['one "quoted', "two"]
    assert read_texts(table) == ['first "', "second"]


@pytest.mark.parametrize(("name", "content"), [("empty.txt", b"\n"), ("broken.txt.gz", b"no gzip"), ("x.txt", b"\xff")])
def test_a_file_without_texts_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnfitTexts, match=name):
        read_texts(tmp_path / name)


# --- arithmetic


def test_arrivals_are_a_poisson_process_whose_rate_changes() -> None:
    moments = poisson([Phase(1000, 20), Phase(50, 20), Phase(0, 5)], seed=1)
    first, second = (moments < 20).sum(), (moments >= 20).sum()
    assert abs(first - 20_000) < 5 * 20_000**0.5
    assert abs(second - 1000) < 5 * 1000**0.5
    assert (np.diff(moments) >= 0).all()
    assert moments.max() < 40
    gaps = np.diff(moments[:first])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of an exponential distribution
    assert np.array_equal(moments, poisson([Phase(1000, 20), Phase(50, 20), Phase(0, 5)], seed=1))
    assert not np.array_equal(moments, poisson([Phase(1000, 20), Phase(50, 20), Phase(0, 5)], seed=2)[: len(moments)])


@given(st.lists(st.floats(1e-5, 10), min_size=1, max_size=300))
def test_a_percentile_is_a_value_that_so_large_a_share_does_not_exceed(seconds: list[float]) -> None:
    found = Latency.of(np.array(seconds))
    assert found is not None
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99), (0.999, found.p999), (1, found.max)):
        within = [second for second in seconds if second * 1000 <= value]
        assert value in [second * 1000 for second in seconds]
        assert len(within) / len(seconds) >= share
        below = [second for second in seconds if second * 1000 < value]
        assert len(below) / len(seconds) < share


@given(st.lists(st.floats(1e-5, 10), max_size=100))
def test_a_histogram_keeps_each_value_to_a_tenth(seconds: list[float]) -> None:
    bounds = [bound for bound, count in histogram(np.array(seconds)) for _ in range(count)]
    for bound, second in zip(bounds, sorted(seconds), strict=True):
        assert 1 / 1.101 <= second * 1000 / bound <= 1.0001


def test_figures_count_what_was_answered_within_the_window() -> None:
    planned = np.array([0.0, 1.0, 1.5, 2.0, 2.5, 3.5])
    samples = Samples(
        planned, planned + 0.1, planned + 0.5, np.array([200, 200, 200, 429, Failure.LOST, 200], np.int16)
    )
    window = Window(1, 3)
    found = figures(samples, samples.planned_in(window), window, rows=8)
    assert (found.requests_s, found.texts_s) == (1.0, 8.0)  # two answers in two seconds
    assert found.statuses == {"200": 2, "429": 1}
    assert found.errors == {"lost": 1}
    assert found.latency_ms is not None
    assert found.latency_ms.max == pytest.approx(500)
    assert found.lateness_ms is not None
    assert found.lateness_ms.p50 == pytest.approx(100)


def test_there_is_no_latency_of_nothing() -> None:
    assert Latency.of(np.empty(0)) is None


# --- connections


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[Order]:
    """A server that does as it is told after each request; what to send there."""

    async def serve(reader: Reader, writer: Writer) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n") and await reader.readexactly(2):
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    caller = Caller(Target("127.0.0.1", port))
    yield Order(caller.target, [caller.post("/", b"{}")], timeout_s=0.3)
    listening.close()


def says(content: bytes) -> Answer:
    async def answer(_: Reader, writer: Writer) -> None:
        writer.write(content)

    return answer


async def hangs_up(_: Reader, writer: Writer) -> None:
    writer.transport.abort()


async def sleeps(_: Reader, writer: Writer) -> None:
    await asyncio.sleep(5)


def outcome(answer: Answer, load: Callable[[Order], Load]) -> Samples:
    async def run() -> Samples:
        async with server(answer) as order, asyncio.timeout(20):
            return await load(order).run()

    return asyncio.run(run())


def closed(order: Order) -> Load:
    return ClosedLoop(order, connections=3, seconds=0.15)


def arriving(count: int, every: float, pool: Pool) -> Callable[[Order], Load]:
    return lambda order: OpenLoop(order, np.arange(count, dtype=np.float64) * every, pool)


@pytest.mark.parametrize(
    "load", [closed, arriving(30, 0.01, Pool(most=4)), arriving(30, 0.01, Pool(most=4, spin=False))]
)
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (says(HELLO), 200),
        (says(BUSY), 429),
        (says(LAST), 200),  # each over a new connection
        (says(b"what?\r\n\r\n"), Failure.GARBLED),
        (hangs_up, Failure.LOST),
    ],
)
def test_every_request_is_noted_with_what_became_of_it(
    load: Callable[[Order], Load], answer: Answer, status: int
) -> None:
    samples = outcome(answer, load)
    assert len(samples.status) >= 3
    assert set(samples.status.tolist()) == {status}
    assert (samples.planned <= samples.sent).all()
    assert (samples.sent <= samples.done).all()


def test_a_request_that_is_not_answered_is_given_up() -> None:
    samples = outcome(sleeps, closed)
    assert set(samples.status.tolist()) == {Failure.TIMEOUT}
    assert samples.latency.min() >= 0.3


def test_an_open_loop_sends_what_was_planned_whatever_the_answers() -> None:
    samples = outcome(says(BUSY), arriving(50, 0.004, Pool(most=2)))
    assert samples.planned == pytest.approx(np.arange(50) * 0.004, abs=1e-6)
    assert np.median(samples.sent - samples.planned) < 0.02


def test_who_waits_for_a_connection_waits_as_well() -> None:
    """The server stalls once for 0.2 s. A closed loop notes one slow request, an open one all that came meanwhile."""

    def stalling() -> Answer:
        seen: list[None] = []

        async def answer(_: Reader, writer: Writer) -> None:
            seen.append(None)
            await asyncio.sleep(0.2 if len(seen) == 10 else 0)
            writer.write(HELLO)

        return answer

    waited = outcome(stalling(), lambda order: ClosedLoop(order, connections=1, seconds=0.4)).latency
    arrived = outcome(stalling(), arriving(80, 0.005, Pool(most=1))).latency
    assert (waited > 0.1).sum() == 1
    assert (arrived > 0.1).sum() >= 15


def test_an_arrival_without_a_connection_is_noted_in_the_end() -> None:
    pool = Pool(most=1, backlog_s=0.05)
    samples = outcome(sleeps, arriving(20, 0.01, pool))
    assert set(samples.status.tolist()) == {Failure.UNSENT, Failure.TIMEOUT}
    assert (samples.status == Failure.UNSENT).sum() >= 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_one_machine_can_be_many_clients() -> None:
    peers: set[str] = set()

    async def answer(_: Reader, writer: Writer) -> None:
        peers.add(writer.get_extra_info("peername")[0])
        writer.write(HELLO)

    outcome(answer, lambda order: ClosedLoop(replace(order, peers=3), connections=6, seconds=0.2))
    assert len(peers) == 3


def test_a_judge_decides_what_an_answer_is_worth() -> None:
    heard: list[tuple[int, int, bytes]] = []

    def judge(number: int, status: int, body: bytes) -> int:
        heard.append((number, status, body))
        return Failure.WRONG

    samples = outcome(says(HELLO), lambda order: ClosedLoop(replace(order, judge=judge), 1, 0.1))
    assert set(heard) == {(0, 200, b"hello")}
    assert set(samples.status.tolist()) == {Failure.WRONG}


def test_where_nobody_listens_there_is_no_load() -> None:
    async def run(targets: Sequence[Target]) -> None:
        for target in targets:
            with pytest.raises(NoService, match=target.authority):
                await ClosedLoop(Order(target, [b"x"]), 2, 0.1).run()

    asyncio.run(run([Target("127.0.0.1", 1), Target("no-such-host.invalid", 80)]))
