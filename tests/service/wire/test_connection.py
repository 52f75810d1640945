"""Clients that are slow, silent or gone: real sockets, and limits of tenths of seconds."""

import socket
import threading
import time

import pytest

from service.wire import connection
from tests.running import until
from tests.service.wire.raw import (
    BUSY,
    GONE,
    HALF_BODY,
    HALF_HEAD,
    LARGE,
    SHORT_S,
    SLACK_S,
    Client,
    echoing,
)
from tests.service.wire.wire_cases import NEXT, ask, post


def drip(client: Client, pause_s: float = 0.05) -> float:
    """A byte now and then until the server says something; how long that took."""
    started = time.monotonic()
    client.socket.settimeout(pause_s)
    while time.monotonic() - started < 10:
        client.send(b"a")
        try:
            client.received += client.socket.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            pass
        break
    client.socket.settimeout(10)
    return time.monotonic() - started


def test_a_silent_client_is_let_go_without_a_word() -> None:
    with echoing(first_byte_s=SHORT_S) as server, server.connecting() as client:
        started = time.monotonic()
        assert client.answers() == []
        assert SHORT_S * 0.9 < time.monotonic() - started < SHORT_S + SLACK_S
        assert server.refused == {"silent": 1}


@pytest.mark.parametrize("before", [0, 1], ids=["silent until then", "idle until then"])
def test_who_speaks_while_the_event_loop_is_busy_is_answered_though_its_time_is_over(before: int) -> None:
    with echoing() as server, server.connecting() as client:
        for _ in range(before):
            client.send(NEXT)
            assert client.statuses(1) == [200]
        until(lambda: len(server.crowd) == 1)
        [guest] = server.crowd._guests
        looking, sent = threading.Event(), threading.Event()

        def look_late() -> None:
            looking.set()
            sent.wait()
            guest.look(float("inf"))

        assert isinstance(guest, connection.Connection)
        guest.loop.call_soon_threadsafe(look_late)
        looking.wait()
        client.send(NEXT)
        sent.set()
        assert client.statuses(1) == [200]
        assert server.refused == {}


def test_a_client_that_drips_its_head_is_told_in_time() -> None:
    with echoing(head_s=SHORT_S) as server, server.connecting() as client:
        client.send(HALF_HEAD)
        assert SHORT_S * 0.9 < drip(client) < SHORT_S + SLACK_S
        assert client.statuses() == [408]
        assert server.refused == {"slow_head": 1}


def test_a_client_that_drips_its_body_is_told_in_time() -> None:
    with echoing(body_s=SHORT_S) as server, server.connecting() as client:
        client.send(post(b"Content-Length: 500", body=b"hello"))
        assert SHORT_S * 0.9 < drip(client) < SHORT_S + SLACK_S
        assert client.statuses() == [408]
        assert server.refused == {"slow_body": 1}


def test_a_body_must_come_at_a_rate_long_before_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RATE_GRACE_S", SHORT_S)
    with echoing(body_s=10, head_s=SHORT_S) as server, server.connecting() as client:
        client.send(post(b"Content-Length: 500", body=b"hello"))
        assert drip(client) < SHORT_S + SLACK_S
        assert client.statuses() == [408]


def test_a_slow_body_that_keeps_its_rate_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RATE_GRACE_S", 0.1)
    with echoing(body_s=5, head_s=SHORT_S) as server, server.connecting() as client:
        client.send(post(b"Content-Length: 5000", body=b""))
        for _ in range(10):
            client.send(b"a" * 500)
            time.sleep(0.05)
        assert client.statuses(1) == [200]


def test_an_idle_connection_is_closed_after_its_time_and_not_before() -> None:
    with echoing(keep_alive_s=0.5, first_byte_s=0.1, head_s=SHORT_S) as server, server.connecting() as client:
        client.send(NEXT)
        assert client.statuses(1) == [200]
        started = time.monotonic()
        assert client.hung_up()
        assert 0.3 < time.monotonic() - started < 0.5 + SLACK_S
        assert server.refused == {}


def test_every_request_of_a_connection_has_the_limits_of_the_first() -> None:
    with echoing(head_s=SHORT_S, first_byte_s=SHORT_S) as server, server.connecting() as client:
        for half in (len(NEXT) // 2, len(NEXT)):
            client.send(NEXT[:half])
            time.sleep(SHORT_S / 3)
            client.send(NEXT[half:])
            assert client.statuses(1) == [200]
            time.sleep(SHORT_S * 1.5)  # idle is not silent
        client.send(HALF_HEAD)
        assert client.statuses() == [408]


@pytest.mark.parametrize(
    ("waiting", "half", "rest"),
    [(0, b"", NEXT), (connection.MAX_PIPELINED, HALF_HEAD, b"x\r\n\r\n"), (0, LARGE[:9000], LARGE[9000:])],
    ids=["nothing more", "many and half a head", "much of a body"],
)
def test_our_own_time_is_not_the_clients(waiting: int, half: bytes, rest: bytes) -> None:
    """With so much at hand we do not read on while we work, and so the client cannot send on."""
    with echoing(first_byte_s=SHORT_S, head_s=SHORT_S, body_s=SHORT_S) as server, server.connecting() as client:
        client.send(ask(line=b"GET /wait?0.9 HTTP/1.1") + NEXT * waiting + half)
        assert client.statuses(1 + waiting) == [200] * (1 + waiting)
        time.sleep(SHORT_S / 2)
        client.send(rest)
        assert client.statuses(1) == [200]
        assert server.refused == {}


def test_a_client_that_does_not_take_its_answer_is_cut() -> None:
    with echoing(answer_s=SHORT_S) as server:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", server.port))
        narrow.sendall(ask(line=b"GET /big HTTP/1.1"))
        until(lambda: server.refused == {"slow_reader": 1}, within_s=SHORT_S + SLACK_S)
        until(lambda: len(server.crowd) == 0)
        narrow.close()


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it() -> None:
    with echoing(answer_s=SHORT_S) as server, server.connecting() as client:
        client.send(ask(b"Connection: close", line=b"GET /big HTTP/1.1"))
        got = 0
        while part := client.socket.recv(50_000):
            got += len(part)
            time.sleep(0.01)
        assert got > 2 << 20
        assert server.refused == {}


def test_a_client_that_asks_on_and_on_and_never_reads_is_cut() -> None:
    with echoing(answer_s=SHORT_S) as server, server.connecting() as client:
        client.socket.settimeout(0.2)
        while not client.ended:
            client.send(ask(line=b"GET /big HTTP/1.1") * 4)
        until(lambda: len(server.crowd) == 0)
        assert server.is_well()


def test_some_requests_may_wait_on_a_connection_and_more_are_refused() -> None:
    with echoing() as server:
        most = connection.MAX_PIPELINED + 1  # one is being answered
        assert [answer.status for answer in server.exchange(NEXT * most, most)] == [200] * most
        assert [answer.status for answer in server.exchange(NEXT * 500)] == [200] * most + [400]
        assert server.refused == {"pipeline_too_long": 1}


def test_requests_that_are_answered_at_once_are_bounded_too() -> None:
    hot = ask(line=b"GET /hot HTTP/1.1")
    with echoing() as server:
        most = connection.MAX_PIPELINED + 1
        assert [answer.status for answer in server.exchange(hot * 500)] == [200] * most + [400]
        with server.connecting() as client:
            for _ in range(3 * most):
                client.send(hot)
                assert client.statuses(1) == [200]


def test_whoever_was_refused_and_stays_is_let_go() -> None:
    with echoing(head_s=SHORT_S) as server, server.connecting() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.statuses() == [400]
        until(lambda: len(server.crowd) == 0, within_s=connection.LINGER_S + SLACK_S)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY, BUSY, NEXT * 9], ids=repr)
@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_leave_are_forgotten_in_silence(
    sent: bytes, reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with echoing() as server:
        for _ in range(20):
            with server.connecting() as client:
                client.send(sent)
                if reset:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        until(lambda: len(server.crowd) == 0)
        assert server.is_well()
        assert server.crowd.unfinished_bytes == 0
        assert server.refused == {}
        assert caplog.records == []


def test_the_application_hears_that_its_client_left_even_with_others_behind() -> None:
    GONE.clear()
    with echoing() as server:
        with server.connecting() as client:
            client.send(ask(line=b"GET /watch?1 HTTP/1.1") + NEXT * 2)
            time.sleep(0.05)
        until(lambda: GONE == [b"1"])


def test_work_for_a_client_that_left_is_cancelled() -> None:
    GONE.clear()
    with echoing() as server:
        with server.connecting() as client:
            client.send(ask(line=b"GET /hot/hang HTTP/1.1"))
            time.sleep(0.05)
            assert not GONE
        until(lambda: GONE == [b"hot"])


def test_a_fault_of_ours_is_logged_and_answered_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    with echoing() as server:
        [answer] = server.exchange(ask(line=b"GET /fault HTTP/1.1"))
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert b"secret" not in answer.body
    assert len(caplog.records) == 1


def test_clients_do_not_pay_for_a_pause_of_ours() -> None:
    with echoing(head_s=SHORT_S) as server, server.connecting() as slow, server.connecting() as blocking:
        slow.send(HALF_HEAD)
        time.sleep(0.1)
        blocking.send(ask(line=b"GET /block?0.8 HTTP/1.1"))
        time.sleep(0.1)
        slow.send(b"x\r\n\r\n")
        assert slow.statuses(1) == [200]


def test_whoever_could_not_send_on_during_our_pause_may_do_so_after_it() -> None:
    size = 8_000_000  # more than the kernel keeps for us
    with (
        echoing(body_s=SHORT_S, body_bytes=size, unfinished_bytes=size) as server,
        server.connecting() as large,
        server.connecting() as blocking,
    ):
        large.send(post(b"Content-Length: %d" % size, body=b"a"))
        until(lambda: server.crowd.unfinished_bytes == 1)
        blocking.send(ask(line=b"GET /block?0.9 HTTP/1.1"))
        time.sleep(0.05)
        sender = threading.Thread(target=large.send, args=(bytes(size - 1),))
        sender.start()
        assert large.statuses(1) == [200]
        sender.join()


def test_a_client_that_reads_nothing_and_leaves_says_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with echoing(body_bytes=300_000) as server:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", server.port))
        body = bytes(200_000)  # an answer is more than the kernel keeps for us
        narrow.sendall(post(b"Content-Length: %d" % len(body), body=body, line=b"POST /hot HTTP/1.1") * 3)
        time.sleep(0.3)
        narrow.close()
        until(lambda: len(server.crowd) == 0)
        assert server.is_well()
    assert caplog.records == []
