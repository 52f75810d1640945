"""Threads that give way: they and what they start are nicer than the process, and nobody else is."""

import os
import sys
import threading
from pathlib import Path

import pytest

from service.host.priority import NICEST, give_way, giving_way
from tests.running import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of threads")


def niceness(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def base() -> int:
    """Of this process; where it is as nice as can be, nobody can be told from it."""
    own = niceness(os.getpid())
    if own == NICEST:
        pytest.skip("this process is as nice as can be already")
    return own


def niceness_of_threads(process: int) -> list[int]:
    return [niceness(int(entry.name)) for entry in Path(f"/proc/{process}/task").iterdir()]


def test_a_thread_gives_way_with_those_that_it_starts_and_the_others_stay_as_they_are() -> None:
    own, found = base(), dict[str, int]()

    def note(name: str) -> None:
        found[name] = niceness(threading.get_native_id())

    def work() -> str:
        note("first")
        started = threading.Thread(target=note, args=("second",))
        started.start()
        started.join()
        return "done"

    assert giving_way(5, work) == "done"
    wanted = min(NICEST, own + 5)
    assert found == {"first": wanted, "second": wanted}
    assert niceness(threading.get_native_id()) == own


def test_nobody_gives_way_by_nothing() -> None:
    own = niceness(os.getpid())
    give_way(0)
    assert niceness(threading.get_native_id()) == own


def test_a_fault_of_the_work_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        giving_way(1, lambda: 1 // 0)


@pytest.mark.parametrize("nice", [0, 7])
def test_a_teachers_threads_give_way_and_a_students_do_not(toy_models: Path, nice: int) -> None:
    """Of a real process: the teacher's worker, and the pool that ONNX Runtime started for its session."""
    wanted = min(NICEST, base() + nice)
    with serving(toy_models, "--teacher-nice", str(nice), "--teacher-threads", "2") as server:
        found = niceness_of_threads(server.process.pid)
        with server.client() as client:  # many texts: the teacher's tokenizer has a thread as well
            body = {"input": ["good", "bad"], "model": "toy-teacher"}
            assert client.post("/v1/classify", json=body).status_code == 200
        later = niceness_of_threads(server.process.pid)
    nicer = [found.count(wanted), later.count(wanted)] if nice else [len(set(found)), len(set(later))]
    assert nicer == ([2, 3] if nice else [1, 1])
