"""A model that is loaded or unloaded through one of several workers: all of them follow, and those that come later."""

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest

from service.bundle.manifest import Role
from tests.running import PATIENCE_S, Running, serving, until
from tests.service.processes.test_processes import FLAGS, workers
from tests.service.routes.asking import KEY
from tests.toys import toy

ADMIN = {"authorization": f"Bearer {KEY}"}
CONNECTIONS = 12  # so many that both workers get some


@dataclass(frozen=True)
class Pair:
    """Two workers whose folder a test may change."""

    running: Running
    models: Path

    def change(self, what: str, name: str) -> httpx2.Response:
        """On a connection of its own."""
        url = f"{self.running.url}/v2/repository/models/{name}/{what}"
        return httpx2.post(url, headers=ADMIN, timeout=PATIENCE_S, verify=False)

    def statuses(self, name: str) -> set[int]:
        """What both say of a model."""
        url = f"{self.running.url}/v2/models/{name}"
        with ThreadPoolExecutor(4) as threads:
            return set(threads.map(lambda _: _status(url), range(CONNECTIONS)))

    def replaced(self, victim: psutil.Process) -> None:
        """Kill it and wait for its successor."""
        victim.kill()
        until(
            lambda: victim.pid not in (pids := {each.pid for each in workers(self.running)}) and len(pids) == 2,
            self.running.process,
        )
        until(lambda: "understudy_ready 2.0" in self.running.get("/metrics").text, self.running.process)

    def brief(self) -> httpx2.Client:
        """One who does not wait for a worker that has gone."""
        return httpx2.Client(base_url=self.running.url, timeout=0.3, headers=ADMIN, verify=False)

    @contextmanager
    def another(self) -> Iterator[httpx2.Client]:
        """On a connection to the worker that answers, while the other one is stopped."""
        with ExitStack() as stack:
            while True:
                client = stack.enter_context(self.brief())
                try:
                    client.get("/livez")
                except httpx2.TimeoutException:
                    continue
                client.timeout = PATIENCE_S
                yield client
                return


def _status(url: str) -> int:
    return httpx2.get(url, timeout=PATIENCE_S, verify=False).status_code  # which spares reading certificates


@contextmanager
def pair_of(tmp_path: Path, toy_models: Path, *flags: str, launcher: str = "service") -> Iterator[Pair]:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    with serving(models, *FLAGS, "--admin-keys-file", str(keys), *flags, launcher=(launcher,)) as running:
        yield Pair(running, models)


@pytest.fixture
def pair(tmp_path: Path, toy_models: Path) -> Iterator[Pair]:
    with pair_of(tmp_path, toy_models) as pair:
        yield pair


def test_all_load_and_unload_and_so_does_one_that_starts_later(pair: Pair) -> None:
    toy.publish(pair.models, "newcomer", "1", Role.STUDENT)
    assert pair.statuses("newcomer") == {404}
    answer = pair.change("load", "newcomer")
    assert answer.json() == {"name": "newcomer", "opened": ["newcomer@1"], "retired": []}
    assert pair.statuses("newcomer") == {200}
    for _ in range(2):  # whichever it reaches
        assert pair.change("unload", "toy-teacher").status_code == 200
        assert pair.statuses("toy-teacher") == {404}
        assert pair.change("load", "toy-teacher").status_code == 200
        assert pair.statuses("toy-teacher") == {200}
    assert pair.change("unload", "newcomer").status_code == 200
    pair.replaced(workers(pair.running)[0])
    assert pair.statuses("newcomer") == {404}
    assert pair.statuses("toy-teacher") == {200}
    assert pair.change("load", "newcomer").status_code == 200
    assert pair.statuses("newcomer") == {200}


def test_what_one_refuses_none_does(pair: Pair) -> None:
    toy.publish(pair.models, "toy-teacher", "2", Role.TEACHER).joinpath("model.onnx").write_bytes(b"x")
    assert pair.change("unload", "toy").status_code == 400
    assert pair.change("load", "ape").status_code == 404
    assert pair.change("load", "toy-teacher").status_code == 400
    assert pair.statuses("toy") == pair.statuses("toy-teacher") == {200}
    # And what it does all the same, all do: the version before is loaded.
    assert pair.change("unload", "toy-teacher").status_code == 200
    assert pair.change("load", "toy-teacher").status_code == 400
    assert pair.statuses("toy-teacher") == {200}


def test_changes_at_the_same_time_end_in_agreement(pair: Pair) -> None:
    for _ in range(3):
        asked = ("load", "unload") * 4
        with ThreadPoolExecutor(len(asked)) as threads:
            answers = list(threads.map(lambda what: pair.change(what, "toy-teacher"), asked))
        assert {answer.status_code for answer in answers} <= {200, 404}  # unloaded already
        assert len(pair.statuses("toy-teacher")) == 1


def test_one_that_starts_later_has_the_same_default_model(pair: Pair) -> None:
    toy.publish(pair.models, "ape", "1", Role.STUDENT)  # the first by name from now on
    pair.replaced(workers(pair.running)[0])
    answers = [pair.running.post("/v1/classify", {"input": "good"}).json() for _ in range(CONNECTIONS)]
    assert {answer["model"] for answer in answers} == {"toy@1"}


def test_what_another_refuses_is_said(pair: Pair) -> None:
    """The one that started later answers with another model when none is named, since the first is not there."""
    toy.publish(pair.models, "ape", "1", Role.STUDENT)
    shutil.rmtree(pair.models / "toy")
    pair.replaced(workers(pair.running)[0])
    assert pair.change("load", "ape").status_code == 200
    while (answer := pair.change("unload", "ape")).status_code == 400:  # asked of that one itself
        assert "answers when no model is named" in answer.json()["error"]
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("done, but not by all workers: another worker refuses it: ape answers")


def test_one_that_hangs_is_told_of_and_follows_when_it_goes_on(tmp_path: Path, toy_models: Path) -> None:
    with pair_of(tmp_path, toy_models, launcher="tests.service.impatient") as pair:
        victim = workers(pair.running)[0]
        victim.suspend()
        with pair.another() as client:
            answer = client.post("/v2/repository/models/toy-teacher/unload")
            assert (answer.status_code, client.get("/v2/models/toy-teacher").status_code) == (503, 404)
            assert "no answer in time from 1" in answer.json()["error"]
        victim.resume()
        until(lambda: pair.statuses("toy-teacher") == {404}, pair.running.process)


def test_a_stop_in_the_middle_answers_and_ends(tmp_path: Path, toy_models: Path) -> None:
    with pair_of(tmp_path, toy_models, "--drain-seconds", "5", launcher="tests.service.impatient") as pair:
        victim = workers(pair.running)[0]
        victim.suspend()
        with pair.another() as client, pair.another() as witness, ThreadPoolExecutor(1) as thread:
            answer = thread.submit(client.post, "/v2/repository/models/toy-teacher/unload")
            until(lambda: witness.get("/v2/models/toy-teacher").status_code == 404, pair.running.process)
            pair.running.process.send_signal(signal.SIGTERM)
            assert answer.result().status_code == 503
            assert "no answer in time from 1" in answer.result().json()["error"]
        victim.resume()
        assert pair.running.process.wait(PATIENCE_S) == 0
