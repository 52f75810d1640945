"""The long proofs' parts: that each would see what it is there to see."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bench.process import PROC, usage
from service.bench.samples import Failure, Figures, Latency
from service.bench.served import started
from service.bench.wire import Caller, Dialect, Target
from service.bundle.runtime import open_bundle
from service.bundle.store import find_bundles
from tests.prove.answers import Exam, examine
from tests.prove.bounds import Bound, conclude
from tests.prove.memory import Reading, memory_slope, theil_sen
from tests.prove.overload import Memory, Overload, bounds_of
from tests.prove.strain import publisher
from tests.prove.versions import Shelf, labels_of
from tests.running import ROOT

# --- promises


@pytest.mark.parametrize(
    ("found", "limit", "at_least", "kept"),
    [(1, 1, False, True), (1.1, 1, False, False), (1, 1, True, True), (0.9, 1, True, False), (None, 1, False, False)],
)
def test_a_bound_is_kept_or_broken(found: float | None, limit: float, at_least: bool, kept: bool) -> None:
    assert Bound("x", found, limit, at_least).kept is kept
    assert not Bound("x", float("nan"), limit, at_least).kept


def test_one_broken_bound_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Bound("good", 1, 2), Bound("bad", 3, 2)
    assert conclude([good], {"seed": 7}, None) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7
    assert conclude([good, bad], {}, tmp_path / "report.json") == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kept"], [bound["kept"] for bound in report["bounds"]]) == (False, [True, False])
    assert "BROKEN bad: 3 (<= 2)" in capsys.readouterr().err


# --- memory


@given(st.lists(st.integers(0, 10**6), min_size=2, unique=True), st.floats(-5, 5), st.floats(-5, 5))
def test_the_slope_of_a_line_is_found(x: list[int], slope: float, start: float) -> None:
    assert theil_sen(x, [start + slope * value for value in x]) == pytest.approx(slope, abs=1e-6)


def test_outliers_do_not_bend_the_slope() -> None:
    x = np.arange(30.0)
    y = 2 * x
    y[[3, 11, 29]] += 1000
    assert theil_sen(x.tolist(), y.tolist()) == pytest.approx(2, rel=0.1)


def readings(pid: int, mib_a_million: float, count: int = 100, since: float = 0, warm_mib: float = 30) -> list[Reading]:
    """A process that grows quickly while it is warming up, then with its requests, and whose readings are noisy."""
    noise = np.random.default_rng(pid).normal(0, 0.2, count)
    return [
        Reading(
            moment_s=since + second,
            requests=int((since + second) * 3000),
            pid=pid,
            serves=True,
            rss_mib=100 + warm_mib * min(second / 10, 1) + mib_a_million * second * 3000 / 1e6 + noise[second],
            threads=4,
            files=20,
        )
        for second in range(count)
    ]


def test_memory_that_does_not_grow_has_no_slope() -> None:
    slope = memory_slope(readings(1, 0, count=1000), settle_s=20)
    assert slope is not None
    assert abs(slope.estimate) < 0.2
    assert slope.low < 0 < slope.high


def test_a_leak_is_found_in_its_size() -> None:
    slope = memory_slope(readings(1, 976), settle_s=20)
    assert slope is not None
    assert slope.estimate == pytest.approx(976, rel=0.05)
    assert slope.low > 900


def test_a_killed_worker_neither_hides_a_leak_nor_makes_one() -> None:
    """Two workers share the requests, and each is killed once: memory falls and is warmed up again."""
    lives = [(1, 0), (2, 0), (3, 100), (4, 100)]
    for planted in (0.0, 50.0):
        seen = [each for pid, since in lives for each in readings(pid, planted / 2, since=since)]
        slope = memory_slope(seen, settle_s=20, processes=2)
        assert slope is not None
        assert slope.estimate == pytest.approx(planted, abs=5)


def test_the_process_that_looks_after_the_workers_does_not_hide_their_leak() -> None:
    keeper = [replace(each, serves=False) for each in readings(3, 0)]
    slope = memory_slope([*readings(1, 100), *readings(2, 100), *keeper], settle_s=20, processes=2)
    assert slope is not None
    assert slope.estimate == pytest.approx(200, rel=0.1)


def test_of_too_few_readings_nothing_follows() -> None:
    assert memory_slope(readings(1, 0, count=10), settle_s=20) is None


# --- answers


@pytest.fixture(scope="module")
def exam(toy_student: Path) -> Exam:
    caller = Caller(Target("127.0.0.1", 1), Dialect.CLASSIFY)
    return examine(open_bundle(toy_student), caller, ["a good film", "the film is dull"], random.Random(0))


def answer(exam: Exam, number: int, version: int = 1) -> dict[str, object]:
    labels = labels_of(exam.labels, version)
    rows = [dict(zip(labels, exam.reference[place], strict=True)) for place in exam.questions[number].texts]
    data = [{"index": index, "scores": scores} for index, scores in enumerate(rows)]
    return {"model": f"toy@{version}", "data": data}


def judged(exam: Exam, number: int, content: object, status: int = 200) -> int:
    return exam.judge(number, status, json.dumps(content).encode())


def test_right_answers_are_right(exam: Exam) -> None:
    kinds = {len(question.texts) for question in exam.questions}
    assert {0, 1, 2} <= kinds
    for number, question in enumerate(exam.questions):
        if question.texts:
            assert judged(exam, number, answer(exam, number)) == 200
        else:
            assert judged(exam, number, {}, question.status) == question.status
    assert exam.farthest == 0


def test_wrong_answers_are_found(exam: Exam) -> None:
    one = next(number for number, question in enumerate(exam.questions) if len(question.texts) == 1)
    many = next(number for number, question in enumerate(exam.questions) if len(question.texts) > 4)
    bad = next(number for number, question in enumerate(exam.questions) if not question.texts)
    other_version, swapped, short = answer(exam, one, 2), answer(exam, many), answer(exam, many)
    other_version["model"] = "toy@1"  # what version 2 says, under the name of version 1
    swapped["data"] = swapped["data"][::-1]  # type: ignore[index]
    short["data"] = short["data"][1:]  # type: ignore[index]
    for number, content in ((one, other_version), (many, swapped), (many, short), (one, {}), (one, [])):
        assert judged(exam, number, content) == Failure.WRONG
    assert exam.judge(one, 200, b"{") == Failure.WRONG
    assert judged(exam, one, {}, 422) == Failure.WRONG  # a good question refused
    assert judged(exam, bad, {}, 200) == Failure.WRONG  # a bad one answered
    assert judged(exam, one, {}, 429) == 429
    assert judged(exam, one, {}, 503) == 503


def test_an_answer_of_a_version_long_gone_is_wrong(exam: Exam) -> None:
    one = next(number for number, question in enumerate(exam.questions) if len(question.texts) == 1)
    assert judged(exam, one, answer(exam, one, 3)) == 200
    assert judged(exam, one, answer(exam, one, 2)) == 200  # of another worker, a moment before it swaps
    assert judged(exam, one, answer(exam, one, 1)) == Failure.WRONG


def test_published_versions_are_bundles_that_differ(toy_student: Path, tmp_path: Path) -> None:
    publish = publisher(Shelf(tmp_path / "toy"), toy_student)
    for version in (1, 2, 3):
        publish(version)
    places = find_bundles(tmp_path)
    assert [place.version for place in places] == ["2", "3"]
    even, odd = (open_bundle(place.folder) for place in places)
    assert even.manifest.labels == odd.manifest.labels[::-1]
    assert np.array_equal(even.classify(["a good film"]), odd.classify(["a good film"]))


# --- overload


def part(rate: float, p99_ms: float, refused: int = 0, lost: int = 0) -> Figures:
    latency = Latency(1, 2, p99_ms, p99_ms, p99_ms)
    errors = {"lost": lost} if lost else {}
    return Figures(rate, rate, latency, latency, latency, {"200": 100, "429": refused}, errors)


def overload(**changes: object) -> Overload:
    good = {
        "factor": 2.0, "peak_s": 1000.0, "offered_s": 2000.0, "calm": part(500, 5), "overload": part(950, 99, 1000),
        "recovered": part(500, 6), "refused_in_time": 1.0, "neither": 0.0, "memory": Memory(100, 110, 111),
    }  # fmt: skip
    return Overload(**(good | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"overload": part(890, 99, 1000)},
        {"overload": part(950, 99, 0)},
        {"refused_in_time": 0.98},
        {"refused_in_time": None},
        {"neither": 0.01},
        {"memory": Memory(100, 110, 119)},
        {"memory": Memory(None, None, None)},
        {"recovered": part(500, 8)},
        {"recovered": part(500, 5, lost=1)},
    ],
)
def test_each_promise_about_overload_can_be_broken(changes: dict[str, object]) -> None:
    assert all(bound.kept for bound in bounds_of(overload()))
    assert sum(not bound.kept for bound in bounds_of(overload(**changes))) == 1


# --- the planted leak


@pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc")
def test_the_planted_leak_leaks(toy_models: Path) -> None:
    command = [sys.executable, "-m", "tests.prove.leaking", str(1 << 16), "serve", "--port", "0"]
    with started([*command, "--models", str(toy_models)]) as service:
        before = usage(service.pid)
        with httpx2.Client(base_url=f"http://{service.target.authority}") as client:
            for _ in range(400):
                assert client.post("/predict", json={"inputs": "good"}).status_code == 200
        after = usage(service.pid)
    assert before is not None
    assert after is not None
    assert 22 < after.rss_mib - before.rss_mib < 45  # 25 MiB, and what a service needs to warm up


def test_a_breakdown_of_a_bundle_that_is_refused_ends_with_one_line(student: Path) -> None:
    (student / "model.onnx").write_bytes(b"spoilt")
    command = [sys.executable, "-m", "tests.prove.breakdown", "--models", str(student.parents[1])]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"error: {student}")
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("proof", ["overload", "soak"])
def test_a_proof_that_cannot_begin_says_why_in_one_line(proof: str) -> None:
    command = [sys.executable, "-m", f"tests.prove.{proof}", "--bundle", "no/such/folder"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: no/such/folder")
    assert len(finished.stderr.splitlines()) == 1
