"""A server that stops: whoever asked is answered, and nobody who is idle, halfway, slow or hung holds it up."""

import time
from contextlib import ExitStack

import pytest

from service.wire import connection
from service.wire.crowd import PARTING_S
from tests.running import until
from tests.service.wire.raw import HALF_BODY, HALF_HEAD, HANG, SHORT_S, SLACK_S, echoing
from tests.service.wire.wire_cases import NEXT, ask, post


@pytest.mark.parametrize("sent", [b"", NEXT, HALF_HEAD, HALF_BODY, NEXT + HALF_BODY], ids=repr)
def test_nobody_who_is_idle_or_halfway_holds_up_a_stop(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    halfway = sent.endswith((HALF_HEAD, HALF_BODY))
    with echoing() as server, server.connecting() as client:
        client.send(sent)
        until(lambda: len(server.crowd) == 1)
        assert client.statuses(sent.count(NEXT)) == [200] * sent.count(NEXT)
        assert server.stop() < PARTING_S + SLACK_S + connection.LINGER_S
        assert client.statuses() == [503] * halfway
        assert caplog.records == []


def test_what_is_under_way_is_answered_and_then_closed() -> None:
    with echoing() as server, ExitStack() as stack:
        client, alone, busy = (stack.enter_context(server.connecting()) for _ in range(3))
        client.send(ask(line=b"GET /wait?0.4 HTTP/1.1") + NEXT)
        alone.send(ask(line=b"GET /wait?0.4 HTTP/1.1"))
        busy.send(NEXT)
        assert busy.statuses(1) == [200]
        time.sleep(0.1)
        server.server.should_exit = True
        until(lambda: server.crowd.stopping)
        busy.send(NEXT)  # as a client does that has not heard of it yet
        [last] = busy.answers()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert client.statuses() == [200, 200]
        assert [answer.headers["connection"] for answer in alone.answers()] == ["close"]
        assert server.stop() < SLACK_S


def test_a_body_that_is_nearly_here_is_still_taken() -> None:
    with echoing() as server, server.connecting() as client:
        client.send(post(b"Content-Length: 10", body=b"hello"))
        until(lambda: len(server.crowd) == 1)
        server.server.should_exit = True
        until(lambda: server.crowd.stopping)
        client.send(b"world")
        assert client.answers()[0].body == b"POST /? helloworld"


def test_what_does_not_end_is_cut_with_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    with echoing(drain_s=1) as server, ExitStack() as stack:
        hung, hot, half = (stack.enter_context(server.connecting()) for _ in range(3))
        hung.send(HANG)
        hot.send(ask(line=b"GET /hot/hang HTTP/1.1"))
        half.send(ask(line=b"GET /half HTTP/1.1"))
        assert half.socket.recv(4096).startswith(b"HTTP/1.1 200")
        assert server.stop() < 1 + SLACK_S
        for client in (hung, hot):
            [answer] = client.answers()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["content-type"] == "application/problem+json"
        assert half.hung_up()
    assert [record.levelname for record in caplog.records if record.exc_info] == []


def test_before_it_stops_it_asks_clients_to_leave() -> None:
    with echoing() as server, server.connecting() as client:
        client.send(NEXT)
        assert "connection" not in client.answers(1)[0].headers
        server.crowd.leaving = True
        client.send(NEXT)
        assert [answer.headers["connection"] for answer in client.answers()] == ["close"]


def test_who_asks_more_than_once_at_the_end_is_answered_once() -> None:
    with echoing() as server, server.connecting() as client:
        client.send(NEXT)
        assert client.statuses(1) == [200]
        server.crowd.leaving = True
        client.send(ask(line=b"GET /hot HTTP/1.1") * 3)
        assert [answer.headers.get("connection") for answer in client.answers()] == ["close"]


def test_a_slow_reader_does_not_hold_up_a_stop() -> None:
    with echoing(answer_s=SHORT_S) as server, server.connecting() as client:
        client.send(ask(line=b"GET /big HTTP/1.1"))
        time.sleep(0.1)
        assert server.stop() < SHORT_S + SLACK_S
