"""A short fuzzing of whatever reads bytes of strangers, and what it would find if it were there."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.routes import oip
from service.settings import SettingProblem, Settings
from tests.prove import targets
from tests.prove.fuzz import SHARES, bounds_of, fuzz
from tests.prove.guided import Found, Trial, TryOut, by_chance
from tests.prove.targets import PLACES, TARGETS, Broken, Counter, Target, body, fragments, listen

RUNS = 2500
SECONDS = 20.0  # never reached where the machine is not busy


@contextmanager
def listening() -> Iterator[None]:
    listener = listen()
    yield
    logging.getLogger("understudy").removeHandler(listener)


@pytest.fixture(scope="module")
def counter(zoo: Path) -> Iterator[Counter]:
    counter = Counter(zoo)
    yield counter
    counter.close()


def tried(target: Target, runs: int = RUNS) -> Found:
    found = Found("a test", guided=False)
    with listening():
        by_chance(Trial(target.try_out, found, runs, SECONDS), target.seeds, target.words, 0)
    return found


def found_in(try_out: TryOut) -> Found:
    return tried(Target(try_out, [b"seed"]), runs=3)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bytes_break_it(name: str, counter: Counter, tmp_path: Path) -> None:
    target = body(name, counter) if name in PLACES else TARGETS[name](tmp_path)
    found = tried(target)
    assert found.crash == ""
    assert found.hangs == 0
    assert found.runs > len(target.seeds)


def test_every_target_has_a_share() -> None:
    assert SHARES.keys() == TARGETS.keys()


def test_a_process_of_its_own_reports() -> None:
    found = fuzz("keys", 300, 20, 0)
    assert found.crash == ""
    assert found.runs == 300
    assert all(bound.kept for bound in bounds_of([found], 300))


def test_what_kills_the_process_is_a_find() -> None:
    assert "KeyError" in fuzz("nowhere", 1, 5, 0).crash


def test_a_slow_input_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.prove.guided.HUNG_S", 0.01)
    found = found_in(lambda _: time.sleep(0.02))
    assert found.hangs == 3
    assert found.hang_input
    assert not bounds_of([found], 3)[1].kept


def test_a_panic_and_an_error_in_the_log_are_finds() -> None:
    def panic(_: bytes) -> None:
        raise BaseException("a panic")

    assert "a panic" in found_in(panic).crash
    assert "a fault" in found_in(lambda _: logging.getLogger("understudy").error("a fault")).crash


def test_a_fault_of_a_route_is_a_find(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    target = body("oip", counter)
    monkeypatch.setattr(oip, "_best", lambda _: 1 // 0)
    assert "ZeroDivisionError" in tried(target).crash


def test_an_undocumented_status_is_a_find(counter: Counter) -> None:
    with pytest.raises(Broken, match="415"):
        documented = counter._described["/v1/classify"]["post"]["responses"]
        kept = documented.pop("415")
        try:
            counter.ask("/v1/classify", "/v1/classify", [(b"content-type", b"text/plain")], b"{}")
        finally:
            documented["415"] = kept


def test_a_hidden_wish_for_data_from_outside_is_a_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets, "wants_outside_data", lambda _: False)
    assert "onnx finds data" in tried(TARGETS["graph"](tmp_path)).crash


def test_a_key_that_is_shown_is_a_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def telling(settings: Settings) -> None:
        assert settings.api_keys_file is not None
        raise SettingProblem(settings.api_keys_file.read_text(encoding="latin-1"))

    monkeypatch.setattr(targets, "read_keys", telling)
    assert tried(TARGETS["keys"](tmp_path)).crash


@pytest.mark.parametrize("dice", range(5))
def test_fragments_are_the_same_bytes(dice: int) -> None:
    data = bytes(range(256)) * 2
    assert b"".join(fragments(data, dice)) == data
