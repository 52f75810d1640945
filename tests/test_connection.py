"""Clients that are slow, silent, many, or gone; and a server that stops. Real sockets, limits of tenths of seconds."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from service import connection
from service.connection import limits_of
from service.crowd import PARTING_S, peer_of
from service.heads import Reason
from service.metrics import Metrics
from service.settings import Settings
from tests.raw import GONE, Client, echoing, until
from tests.wire_cases import NEXT, ask, post

SHORT_S = 0.3
SLACK_S = 1.5  # the machine may be busy; without the limit, a client would wait for ten seconds or more
BUSY = ask(line=b"GET /watch HTTP/1.1")  # until its client leaves
HANG = ask(line=b"GET /hang HTTP/1.1")  # for ever
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
HALF_BODY = post(b"Content-Length: 50", body=b"hello")


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
        for _ in range(3):
            client.send(NEXT)
            assert client.statuses(1) == [200]
            time.sleep(SHORT_S * 1.5)  # idle is not silent
        client.send(HALF_HEAD)
        assert client.statuses() == [408]


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


def test_whoever_was_refused_and_stays_is_let_go() -> None:
    with echoing(head_s=SHORT_S) as server, server.connecting() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.statuses() == [400]
        until(lambda: len(server.crowd) == 0, within_s=connection.LINGER_S + SLACK_S)


def test_silent_clients_make_room_for_those_who_ask() -> None:
    with echoing(connections=8) as server, ExitStack() as stack:
        silent = [stack.enter_context(server.connecting()) for _ in range(8)]
        until(lambda: len(server.crowd) == 8)
        assert server.is_well()
        assert silent[0].hung_up()
        assert not silent[-1].hung_up(within_s=0.05)
        assert server.refused == {"made_room": 1}


def test_idle_clients_make_room_and_busy_ones_do_not() -> None:
    with echoing(connections=4) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connecting()) for _ in range(4)]
        for client in clients[:3]:
            client.send(BUSY)
        clients[3].send(NEXT)
        assert clients[3].statuses(1) == [200]
        newcomer = stack.enter_context(server.connecting())
        assert clients[3].hung_up()
        newcomer.send(BUSY)
        until(lambda: sum(guest.standing() is None for guest in list(server.crowd._guests)) == 4)
        [answer] = server.exchange(NEXT)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert not clients[0].hung_up(within_s=0.05)
        assert server.refused == {"made_room": 1, "too_many_connections": 1}


def test_one_address_cannot_have_all_connections() -> None:
    with echoing(peer_connections=3) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connecting("127.0.0.2")).send(BUSY)
        with server.connecting("127.0.0.2") as fourth:
            fourth.send(NEXT)
            assert fourth.statuses() == [503]
        assert server.is_well()  # from another address
        assert server.refused == {"too_many_of_one_peer": 1}


def test_a_peer_is_an_address_or_the_network_that_comes_with_one() -> None:
    assert peer_of("192.0.2.1") == peer_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_of("2001:db8:1:2::1") == peer_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::"
    assert peer_of("2001:db8:1:3::1") != peer_of("2001:db8:1:2::1")
    assert peer_of("fe80::1%eth0") == "fe80::"


def test_unfinished_bodies_are_bounded_all_together() -> None:
    with echoing(unfinished_bytes=40_000) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connecting()) for _ in range(5)]
        for number, client in enumerate(clients, 1):
            client.send(post(b"Content-Length: 20000", body=b"a" * 10_000))
            until(lambda: server.crowd.unfinished_bytes == min(number, 4) * 10_000)  # noqa: B023
        assert clients[0].statuses() == [503]
        clients[4].send(b"a" * 10_000)
        assert clients[4].statuses(1) == [200]
        until(lambda: server.crowd.unfinished_bytes == 30_000)
    assert server.refused == {"too_much_unfinished": 1}
    assert server.crowd.unfinished_bytes == 0


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
    with echoing() as server, server.connecting() as client, server.connecting() as busy:
        client.send(ask(line=b"GET /wait?0.4 HTTP/1.1") + NEXT)
        busy.send(NEXT)
        assert busy.statuses(1) == [200]
        time.sleep(0.1)
        server.server.should_exit = True
        until(lambda: server.crowd.stopping)
        busy.send(NEXT)  # as a client does that has not heard of it yet
        [last] = busy.answers()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert client.statuses() == [200, 200]
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
    with echoing(drain_s=1) as server, server.connecting() as hung, server.connecting() as half:
        hung.send(HANG)
        half.send(ask(line=b"GET /half HTTP/1.1"))
        assert half.socket.recv(4096).startswith(b"HTTP/1.1 200")
        assert server.stop() < 1 + SLACK_S
        [answer] = hung.answers()
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


def test_a_slow_reader_does_not_hold_up_a_stop() -> None:
    with echoing(answer_s=SHORT_S) as server, server.connecting() as client:
        client.send(ask(line=b"GET /big HTTP/1.1"))
        time.sleep(0.1)
        assert server.stop() < SHORT_S + SLACK_S


def refusals(metrics: Metrics) -> dict[str, float]:
    lines = metrics.exposition().decode().splitlines()
    return {
        line.split('"')[1]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("understudy_refused_total{")
    }


def test_refusals_are_counted_by_reasons_that_are_there_from_the_start() -> None:
    metrics = Metrics()
    count = metrics.refusals(Reason)
    assert refusals(metrics) == dict.fromkeys(Reason, 0)
    count(Reason.SILENT)
    assert refusals(metrics)["silent"] == 1


def test_every_limit_is_a_setting() -> None:
    settings = Settings(max_connections=7, max_headers=9, head_seconds=0.5, max_body_bytes=100)
    limits = limits_of(settings)
    assert (limits.connections, limits.headers, limits.head_s, limits.body_bytes) == (7, 9, 0.5, 100)


def test_there_are_never_more_connections_than_descriptors() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (200, {hard})); "
        "from service.connection import limits_of; from service.settings import Settings; "
        "print(limits_of(Settings()).connections)"
    )
    root = Path(__file__).resolve().parent.parent
    found = [
        int(subprocess.check_output([sys.executable, "-c", code.format(hard=hard)], cwd=root)) for hard in (200, 4096)
    ]
    assert found == [100, 1024]
