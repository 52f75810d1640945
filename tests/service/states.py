"""The states in which a service may be when it is told to stop: what its clients do before the signal and after it."""

import signal
import time

from tests.prove.versions import Shelf
from tests.running import PATIENCE_S
from tests.service.endings import DRAIN_S, SPARE_S, Scene, Script, State, request, workers_of
from tests.service.hanging import HANGS, SLOW, SLOW_S, STUCK_VERSION

ARRIVED_S = 0.1  # what was sent has been read
MANY = 100
CROWDED = ("--max-queue-rows", "16", "--max-request-rows", "8", "--max-client-share", "1")
IN_THREADS = ("--inline-ms", "0")
PAIR = ("--workers", "2")
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"


def idle(_: Scene) -> Script:
    yield


def loading(scene: Scene) -> Script:
    scene.wait_for_the_port()
    yield


def loading_both(scene: Scene) -> Script:
    """Workers open the port when they can answer, so it says nothing here."""
    until = time.monotonic() + PATIENCE_S
    while len(workers_of(scene.process.pid)) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(1.0)
    yield


def in_flight(scene: Scene) -> Script:
    scene.ask(SLOW)
    scene.ask(["good"] * 100)
    for _ in range(10):
        scene.ask("good")
    time.sleep(ARRIVED_S)
    yield
    scene.refuses_newcomers()


def half_a_head(scene: Scene) -> Script:
    client = scene.connect()
    client.send(request("good")[:40])
    time.sleep(ARRIVED_S)
    yield
    scene.owe(client, 1, also=[503])


def half_a_body(scene: Scene) -> Script:
    quits, ends = scene.connect(), scene.connect()
    for client in (quits, ends):
        client.send(request("good")[:-5])
    time.sleep(ARRIVED_S)
    yield
    ends.send(request("good")[-5:])
    scene.owe(ends, 1, also=[503])
    scene.owe(quits, 1, also=[503])


def mid_swap(scene: Scene) -> Script:
    Shelf(scene.models / "toy").publish(scene.models / "toy" / "1", 2)
    scene.process.send_signal(signal.SIGHUP)
    scene.ask(SLOW)
    time.sleep(ARRIVED_S / 2)
    yield


def stuck_swap(scene: Scene) -> Script:
    Shelf(scene.models / "toy").publish(scene.models / "toy" / "1", int(STUCK_VERSION))
    scene.process.send_signal(signal.SIGHUP)
    scene.ask(SLOW)
    time.sleep(ARRIVED_S)
    yield


def hung_run(scene: Scene) -> Script:
    scene.ask(HANGS, also=[500, 503])
    time.sleep(ARRIVED_S)
    scene.ask("good", also=[500, 503])
    scene.ask("bad", also=[500, 503])
    time.sleep(ARRIVED_S)
    yield
    scene.refuses_newcomers()


def hung_run_on_the_event_loop(scene: Scene) -> Script:
    """Nobody can answer then: it must only end."""
    client = scene.connect()
    for _ in range(5):
        client.send(request("good"))
        assert client.statuses(1) == [200]
    scene.connect().send(request(HANGS))
    time.sleep(ARRIVED_S)
    yield


def full_queue(scene: Scene) -> Script:
    scene.ask(SLOW)
    time.sleep(ARRIVED_S)
    for _ in range(40):
        scene.ask("good", also=[429])
    time.sleep(ARRIVED_S)
    yield


def slow_reader(scene: Scene) -> Script:
    """One takes its answers late, another one never."""
    late, never = scene.connect(4096), scene.connect(4096)
    for client in (late, never):
        client.send(LARGE * 16)
    time.sleep(ARRIVED_S)
    yield
    time.sleep(SLOW_S)
    if late.statuses(16) != [200] * 16:
        scene.faults.append("a slow reader did not get its answers")


def kept_alive(scene: Scene) -> Script:
    """Idle ones close soon; who asks before that is answered."""
    clients = [scene.connect() for _ in range(MANY)]
    for client in clients[: MANY // 2]:
        client.send(request("good"))
        assert client.statuses(1) == [200]
    yield
    time.sleep(0.3)
    for client in clients[:5]:  # as clients do that have not heard of it yet
        client.send(request("good"))
        scene.owe(client, 1)


def pipelined(scene: Scene) -> Script:
    scene.ask(SLOW, "good", SLOW, *["bad"] * 10)
    scene.ask(*["good"] * 16)
    time.sleep(ARRIVED_S)
    yield


def settling(scene: Scene) -> Script:
    """What comes meanwhile is answered; a second signal ends the waiting."""
    client = scene.connect()
    yield
    time.sleep(SLOW_S)
    client.send(request("good"))
    scene.owe(client, 1)
    scene.ask(SLOW)
    time.sleep(ARRIVED_S)
    scene.signal(signal.SIGTERM)


def settling_shortly(scene: Scene) -> Script:
    """The end of the waiting comes after the second signal, and is no third one."""
    yield
    time.sleep(SLOW_S)
    for _ in range(4):
        scene.ask(SLOW)
    time.sleep(ARRIVED_S)
    scene.signal(signal.SIGTERM)


def draining(scene: Scene) -> Script:
    """Another signal changes nothing for those who wait, but a second SIGINT may cut them, with an answer."""
    scene.ask(SLOW, "good", SLOW)
    time.sleep(ARRIVED_S)
    yield
    for _ in range(2):
        time.sleep(ARRIVED_S)
        scene.process.send_signal(signal.SIGTERM)


def draining_in_a_hurry(scene: Scene) -> Script:
    """A second SIGINT cuts those who wait, with an answer."""
    for _ in range(3):
        scene.ask(HANGS, also=[500, 503])
    time.sleep(ARRIVED_S)
    yield
    time.sleep(SLOW_S)
    scene.signal(signal.SIGINT)
    time.sleep(ARRIVED_S)
    scene.signal(signal.SIGINT)
    if scene.process.wait(DRAIN_S + SPARE_S) is None or time.monotonic() - scene.signalled > DRAIN_S - 1:
        scene.faults.append("a second SIGINT did not hurry it")


def pair(scene: Scene) -> Script:
    for _ in range(8):
        scene.ask(SLOW)
    time.sleep(ARRIVED_S)
    yield
    scene.refuses_newcomers()


def pair_of_which_one_was_killed(scene: Scene) -> Script:
    yield from _with_one_worker(scene, signal.SIGKILL)


def pair_of_which_one_is_stopped(scene: Scene) -> Script:
    """As by a debugger: it cannot end itself."""
    yield from _with_one_worker(scene, signal.SIGSTOP)


def pair_of_which_one_hangs(scene: Scene) -> Script:
    for _ in range(8):
        client = scene.connect()
        for _ in range(4):
            client.send(request("good"))
            assert client.statuses(1) == [200]
    scene.connect().send(request(HANGS))
    time.sleep(ARRIVED_S)
    yield


def nobody_reads_the_log(scene: Scene) -> Script:
    for _ in range(20):
        scene.ask("good")
    assert scene.process.stderr is not None
    scene.process.stderr.read(1)
    time.sleep(ARRIVED_S)
    yield


def nobody_reads_where_it_is(scene: Scene) -> Script:
    scene.wait_for_the_port()
    time.sleep(SLOW_S)
    yield


def the_log_is_closed(scene: Scene) -> Script:
    assert scene.process.stderr is not None
    scene.process.stderr.close()
    for _ in range(20):
        scene.ask("good")
    time.sleep(ARRIVED_S)
    yield


def _with_one_worker(scene: Scene, number: int) -> Script:
    workers_of(scene.process.pid)[0].send_signal(number)
    yield


STATES = (
    State(idle),
    State(loading, loads=False),
    State(loading, planted=True, loads=False, versions=(STUCK_VERSION,)),
    State(loading_both, PAIR, planted=True, loads=False, versions=(STUCK_VERSION,)),
    State(in_flight, planted=True),
    State(in_flight, IN_THREADS, planted=True),
    State(half_a_head),
    State(half_a_body),
    State(mid_swap, planted=True),
    State(stuck_swap, planted=True),
    State(hung_run, IN_THREADS, planted=True),
    State(hung_run_on_the_event_loop, ("--inline-ms", "100"), planted=True),
    State(full_queue, CROWDED, planted=True),
    State(slow_reader),
    State(kept_alive),
    State(pipelined, planted=True),
    State(settling, ("--settle-seconds", "30"), planted=True),
    State(settling_shortly, ("--settle-seconds", "1", "--max-batch-rows", "1"), planted=True, number=signal.SIGINT),
    State(draining, planted=True),
    State(draining_in_a_hurry, IN_THREADS, planted=True),
    State(pair, PAIR, planted=True),
    State(pair_of_which_one_was_killed, PAIR),
    State(pair_of_which_one_is_stopped, PAIR),
    State(pair_of_which_one_hangs, (*PAIR, "--inline-ms", "100"), planted=True),
    State(nobody_reads_the_log, ("--access-log",), deaf=True),
    State(the_log_is_closed, ("--access-log",), deaf=True),
    State(nobody_reads_where_it_is, loads=False, mute=True),
)
"""All of them; a service has `drain_seconds` of `DRAIN_S`, and no more than `DRAIN_S + SPARE_S` to end."""
