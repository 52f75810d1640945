"""Many clients: how many may come in, who makes room for whom, and what all of them may take together."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from service.call import peer_of
from service.settings import Settings
from service.telemetry.metrics import Metrics, exposition
from service.wire.connection import limits_of
from service.wire.heads import Reason
from tests.running import until
from tests.service.wire.raw import BUSY, LARGE, echoing
from tests.service.wire.wire_cases import NEXT, ask, post


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
        assert set(server.crowd._of_peer) <= {"127.0.0.1", "127.0.0.2"}
        until(lambda: set(server.crowd._of_peer) == {"127.0.0.2"})  # who has gone is forgotten
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


def test_bodies_that_wait_for_their_turn_count_as_well() -> None:
    with echoing(unfinished_bytes=40_000) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connecting()) for _ in range(4)]
        for number, client in enumerate(clients, 1):
            client.send(ask(line=b"GET /wait?0.5 HTTP/1.1") + LARGE)
            until(lambda: server.crowd.unfinished_bytes == min(number, 2) * 15_000)  # noqa: B023
        assert [client.statuses(2) for client in clients] == [[200, 503], [200, 503], [200, 200], [200, 200]]
        until(lambda: server.crowd.unfinished_bytes == 0)


def test_whoever_leaves_gives_back_what_was_held() -> None:
    with echoing() as server:
        with server.connecting() as waiting, server.connecting() as halfway:
            waiting.send(BUSY + post(b"Content-Length: 5"))
            halfway.send(LARGE[:-1])
            until(lambda: server.crowd.unfinished_bytes == 5 + 14_999)
        until(lambda: server.crowd.unfinished_bytes == 0)


def test_whoever_makes_room_is_really_gone_though_it_never_reads() -> None:
    with echoing(connections=1) as server, server.connecting() as greedy:
        greedy.send(ask(line=b"GET /big HTTP/1.1"))
        until(lambda: server.server.server_state.total_requests == 1)
        assert server.is_well()
        until(lambda: not server.server.server_state.connections)


def refusals(metrics: Metrics) -> dict[str, float]:
    lines = exposition(metrics.collected()).decode().splitlines()
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
        "from service.wire.connection import limits_of; from service.settings import Settings; "
        "print(limits_of(Settings()).connections)"
    )
    root = Path(__file__).resolve().parents[3]
    found = [
        int(subprocess.check_output([sys.executable, "-c", code.format(hard=hard)], cwd=root)) for hard in (200, 4096)
    ]
    assert found == [100, 1024]
