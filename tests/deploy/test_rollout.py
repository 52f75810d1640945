"""A rollout as deploy/kubernetes/base does it, with real processes: a new replica is ready before an old one is asked
to stop, and requests go to whoever is ready. Clients see no failure meanwhile, and of a pinned version one answer.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from service.bundle.manifest import Role
from service.environment import load
from tests.deploy.manifests import read
from tests.running import PATIENCE_S, Running, serving
from tests.toys import toy

LOOK_S = 0.5  # how often readiness is looked at; in a cluster seconds, and settling takes longer there too
SETTLE_S = "1"  # more than that; with 0 this test fails
PINNED, NEWEST, UNNAMED = "toy@1", "toy", None


@dataclass(frozen=True)
class Seen:
    """One answer."""

    asked: str | None
    status: int
    model: str
    digest: str
    scores: tuple[float, ...]


@dataclass
class Balancer:
    """Sends each request to some replica that was ready when it last looked. Connections are kept, as proxies do."""

    replicas: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        with httpx2.Client(timeout=PATIENCE_S) as client:
            while not self.done.wait(LOOK_S):
                self.ready = [url for url in list(self.replicas) if is_ready(client, url)]

    def ask(self, seed: int) -> None:
        chosen = random.Random(seed)
        with httpx2.Client(timeout=PATIENCE_S) as client:
            while not self.done.wait(0.01):
                model = chosen.choice([PINNED, NEWEST, UNNAMED])
                body = {"input": "a good film"} | ({} if model is None else {"model": model})
                answer = client.post(f"{chosen.choice(self.ready)}/v1/classify", json=body)
                self.seen.append(seen(model, answer))


def is_ready(client: httpx2.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def seen(asked: str | None, answer: httpx2.Response) -> Seen:
    body = answer.json()
    scores = tuple(body["data"][0]["scores"].values()) if answer.status_code == 200 else ()
    return Seen(asked, answer.status_code, body.get("model", ""), answer.headers.get("x-model-digest", ""), scores)


@contextmanager
def balanced(first: list[Running]) -> Iterator[Balancer]:
    """Three clients ask all the time, through it. Whatever goes wrong in them fails the test, through the hook."""
    balancer = Balancer([running.url for running in first], [running.url for running in first])
    threads = [threading.Thread(target=balancer.look)]
    threads += [threading.Thread(target=balancer.ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield balancer
    finally:
        balancer.done.set()
        for thread in threads:
            thread.join()


def await_answers(balancer: Balancer, number: int) -> None:
    until, before = time.monotonic() + PATIENCE_S, len(balancer.seen)
    while len(balancer.seen) < before + number:
        assert time.monotonic() < until, "nobody is answered any more"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The models of the old image, and of the new one, which has another version beside those."""
    old, new = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("new")
    for models in (old, new):
        toy.publish(models, "toy", "1", Role.STUDENT)
    toy.publish(new, "toy", "2", Role.STUDENT, labels=toy.LABELS[:2])
    return old, new


@pytest.mark.slow
def test_a_rollout_fails_no_request_and_a_pinned_version_stays_what_it_is(images: tuple[Path, Path]) -> None:
    (generator,) = read("kubernetes/base/kustomization.yaml")["configMapGenerator"]
    base = load({}, dict(line.split("=", 1) for line in generator["literals"])).settings
    flags = ["--default", PINNED, "--settle-seconds", SETTLE_S, "--reload-seconds", f"{base.reload_seconds:g}"]
    flags += ["--versions", str(base.versions), "--max-client-share", f"{base.max_client_share:g}"]
    old, new = images
    with ExitStack() as started:
        leaving = [started.enter_context(serving(old, *flags)) for _ in range(2)]
        with balanced(leaving) as balancer:
            for replica in leaving:
                await_answers(balancer, 30)
                fresh = started.enter_context(serving(new, *flags))
                balancer.replicas.append(fresh.url)
                await_answers(balancer, 30)
                assert replica.stop() == 0
                balancer.replicas.remove(replica.url)
            halfway = len(balancer.seen)
            await_answers(balancer, 30)
    assert {answer.status for answer in balancer.seen} == {200}
    for asked in (PINNED, UNNAMED):
        answers = {(answer.model, answer.digest, answer.scores) for answer in balancer.seen if answer.asked == asked}
        assert [model for model, _, _ in answers] == ["toy@1"]
    newest = [answer.model for answer in balancer.seen if answer.asked == NEWEST]
    assert newest[0] == "toy@1"
    assert {answer.model for answer in balancer.seen[halfway:] if answer.asked == NEWEST} == {"toy@2"}
