"""Whatever bytes a client sends: the answers are right, the server is well afterwards, and nothing is logged."""

import json
import logging
from collections.abc import Iterator
from logging.handlers import QueueHandler
from queue import Queue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.heads import Head, Refusal
from service.wire.reader import Incoming, Reader
from tests.service.wire.raw import LIMITS, Answer, Echo, echoing
from tests.service.wire.wire_cases import CASES, NEXT, Case, ask, chunked, post


@pytest.fixture(scope="module")
def server() -> Iterator[Echo]:
    with echoing() as running:
        yield running


@pytest.fixture(autouse=True, scope="module")
def nothing_is_logged() -> Iterator[None]:
    records: Queue[logging.LogRecord] = Queue()
    handler = QueueHandler(records)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    assert [record.getMessage() for record in records.queue] == []


def test_the_cases_are_many_and_have_names_of_their_own() -> None:
    assert len(CASES) >= 190
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answers_are_right_whatever_comes(server: Echo, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with server.connecting() as client:
        client.send(case.sent)
        answers = client.answers(len(case.statuses) if case.stays else None)
        assert tuple(answer.status for answer in answers) == case.statuses
        assert not case.stays or not client.hung_up(within_s=0.002)
    if answers[-1].status != 200:
        assert_explained(answers[-1])
    assert server.is_well()
    assert caplog.records == []


def assert_explained(answer: Answer) -> None:
    problem = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert problem["status"] == answer.status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]
    assert len(answer.body) < 300


def test_the_answers_are_the_same_when_each_byte_comes_alone(server: Echo) -> None:
    for case in CASES:
        if len(case.sent) > 300 or b"Expect" in case.sent:  # whoever waits for our word would get it
            continue
        with server.connecting() as client:
            for byte in case.sent:
                client.send(bytes([byte]))
            assert tuple(client.statuses(len(case.statuses) if case.stays else None)) == case.statuses, case.name


def read(*pieces: bytes) -> tuple[list[tuple[Head, bytes, bool]], str]:
    """What a reader makes of these pieces: whole requests, and how it ends."""
    found: list[tuple[Head, bytes, bool]] = []
    reader = Reader(LIMITS, lambda *request: found.append(request))
    try:
        for piece in pieces:
            reader.feed(piece)
    except Refusal as refusal:
        assert reader.incoming is Incoming.NOISE
        return found, f"{refusal.status}"
    return found, reader.incoming.value


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(
    st.lists(st.sampled_from(CASES), min_size=1, max_size=3),
    st.lists(st.integers(0, 10**6), max_size=12),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=2),
)
def test_it_does_not_matter_where_the_bytes_are_cut(
    cases: list[Case], places: list[int], changes: list[tuple[int, int]]
) -> None:
    sent = bytearray(b"".join(case.sent for case in cases))
    for place, byte in changes:
        sent[place % min(len(sent), 500)] = byte
    assert read(*cut(bytes(sent), places)) == read(bytes(sent))


tokens = st.text("abcdefXYZ0189-", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=20).map(lambda value: bytes(byte for byte in value if 32 < byte < 127))
headers = st.lists(st.tuples(tokens.map(lambda name: b"X-" + name), values), max_size=8)
bodies = st.binary(max_size=200)


def lines(pairs: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [b"%s: %s" % pair for pair in pairs]


@st.composite
def right_requests(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """A request, its headers, and its body: declared or in chunks."""
    pairs, body = draw(headers), draw(bodies)
    if draw(st.booleans()):
        return post(*lines(pairs), b"Content-Length: %d" % len(body), body=body), pairs, body
    ends = sorted({draw(st.integers(0, len(body))) for _ in range(draw(st.integers(0, 4)))})
    parts = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return post(*lines(pairs), b"Transfer-Encoding: chunked", body=framed + b"0\r\n\r\n"), pairs, body


@given(st.lists(right_requests(), min_size=1, max_size=4), st.lists(st.integers(0, 10**6), max_size=20))
def test_right_requests_arrive_as_they_were_sent(
    requests: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]], places: list[int]
) -> None:
    found, end = read(*cut(b"".join(sent for sent, _, _ in requests), places))
    assert end == "nothing"
    assert [body for _, body, _ in found] == [body for _, _, body in requests]
    for (head, _, _), (_, pairs, _) in zip(found, requests, strict=True):
        assert [(name, value) for name, value in head.headers if name.startswith(b"x-")] == [
            (name.lower(), value) for name, value in pairs
        ]


@given(st.lists(st.binary(max_size=60) | st.sampled_from([case.sent[:200] for case in CASES]), max_size=6))
def test_no_bytes_at_all_break_the_reader(pieces: list[bytes]) -> None:
    found, end = read(*pieces)
    assert end in {"nothing", "head", "body", "noise", "400", "413", "414", "415", "417", "431"}
    for head, body, _ in found:
        assert head.path.startswith("/") or head.path == "*"
        assert len(body) <= LIMITS.body_bytes


def test_trailers_never_become_headers(server: Echo) -> None:
    sent = post(
        b"Transfer-Encoding: chunked", body=b"0\r\nAuthorization: Bearer x\r\n\r\n", line=b"POST /headers HTTP/1.1"
    )
    [answer] = server.exchange(sent, 1)
    assert b"transfer-encoding" in answer.body
    assert b"authorization" not in answer.body


def test_a_head_request_gets_no_body(server: Echo) -> None:
    with server.connecting() as client:
        client.send(ask(line=b"HEAD / HTTP/1.1"))
        [head] = client.answers(1, head=True)
        client.send(NEXT)
        [answer] = client.answers(1)
    assert (head.status, head.headers["content-length"], answer.body) == (200, "8", b"GET /next? ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"GET /a%20b?c=%20d HTTP/1.1", b"GET /a b?c=%20d "),
        (b"GET http://a/b?c HTTP/1.1", b"GET /b?c "),
        (b"GET http://a HTTP/1.1", b"GET /? "),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS *? "),
        (b"GET //evil/x HTTP/1.1", b"GET //evil/x? "),
        (b"GET /%C3%A4 HTTP/1.1", "GET /ä? ".encode()),
    ],
)
def test_targets_are_read_alike_in_all_their_forms(server: Echo, line: bytes, said: bytes) -> None:
    [answer] = server.exchange(ask(line=line), 1)
    assert answer.body == said


def test_whoever_waits_for_our_word_gets_it(server: Echo) -> None:
    with server.connecting() as client:
        client.send(post(b"Expect: 100-continue", b"Content-Length: 5", body=b""))
        assert client.statuses(1) == [100]
        client.send(b"hello")
        assert [answer.body for answer in client.answers(1)] == [b"POST /? hello"]


def test_who_would_send_too_much_gets_another_word(server: Echo) -> None:
    assert [answer.status for answer in server.exchange(post(b"Expect: 100-continue", b"Content-Length: 20001"))] == [
        413
    ]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Length: 20001", b""),
        (b"Transfer-Encoding: chunked", b"4000\r\n" + b"a" * 0x4000 + b"\r\n2000\r\n" + b"a" * 0x2000),
    ],
)
def test_a_refusal_speaks_the_dialect_of_its_path(server: Echo, header: bytes, body: bytes) -> None:
    sent = post(b"X-Request-Id: mine-1", header, line=b"POST /predict?a HTTP/1.1", body=body)
    [answer] = server.exchange(sent)
    assert (answer.status, answer.headers["content-type"]) == (413, "application/json")
    assert list(json.loads(answer.body)) == ["error"]
    assert answer.headers["x-request-id"] == "mine-1"


def test_our_word_does_not_come_between_answers(server: Echo) -> None:
    waiting = post(b"Expect: 100-continue", b"Content-Length: 5", body=b"")
    with server.connecting() as client:
        client.send(ask(line=b"GET /wait?0.05 HTTP/1.1") + waiting)
        assert client.statuses(2) == [200, 100]
        client.send(b"hello")
        assert client.statuses(1) == [200]


def test_more_than_is_welcome_is_read_on_so_that_the_answer_arrives(server: Echo) -> None:
    """Closing at once would reset the connection, and the client would never see the 413."""
    [answer] = server.exchange(post(b"Content-Length: 3000000", body=bytes(3_000_000)))
    assert answer.status == 413


def test_chunks_may_be_small_but_not_tiny(server: Echo) -> None:
    body = b"".join(b"40\r\n" + b"a" * 64 + b"\r\n" for _ in range(300)) + b"0\r\n\r\n"
    [answer] = server.exchange(chunked(body), 1)
    assert len(answer.body) == len(b"POST /? ") + 64 * 300
