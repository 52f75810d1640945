"""The engine benchmark: that it measures what it says, over real toy bundles."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.bench.__main__ import app
from service.bench.engine import Entry, Subject, Workload, prepare, race, ratios
from service.bundle.manifest import Precision, Role

BRIEF = Workload(rows=4, tokens=6, rounds=3, turn_ms=0)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["engine", *map(str, arguments), "--rounds", "2", "--tokens", "6"])


def test_the_report_compares_every_graph_with_the_teacher(toy_models: Path, tmp_path: Path) -> None:
    written = tmp_path / "engine.json"
    result = bench("--models", toy_models, "--rows", "3", "--json", written)
    assert result.exit_code == 0, result.output
    report = json.loads(written.read_text())
    lines = {line["subject"]: line for line in report["lines"]}
    assert lines.keys() == {"toy@1:exact", "toy@1:fast", "toy-teacher@1:exact"}
    assert lines["toy-teacher@1:exact"]["speedup"] == {"toy-teacher@1:exact": 1.0}
    for line in lines.values():
        assert 0 < line["p10_us"] <= line["median_us"] <= line["p90_us"]
    assert (report["workload"]["rows"], report["workload"]["tokens"]) == (3, 6)
    assert report["machine"]["cores"] >= 1


def test_bundles_and_yardsticks_can_be_named(toy_student: Path, toy_teacher: Path) -> None:
    named = ("--bundle", f"{toy_student}:fast", "--bundle", toy_teacher, "--against", "toy")
    result = bench(*named)
    assert result.exit_code == 0, result.output
    assert "toy@1:fast" in result.stdout
    assert "toy@1:exact" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--bundle", "no/such/folder"), "no/such/folder"),
        (("--models", "no/such/folder"), "no/such/folder"),
    ],
)
def test_what_is_not_there_gives_one_line_and_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_yardstick_is_refused(toy_models: Path) -> None:
    result = bench("--models", toy_models, "--against", "nobody")
    assert result.exit_code == 2
    assert "nobody" in result.stderr


def test_rows_longer_than_the_bundle_takes_are_refused(toy_student: Path) -> None:
    result = CliRunner().invoke(app, ["engine", "--bundle", str(toy_student), "--tokens", "500"])
    assert result.exit_code == 2
    assert "--tokens" in result.stderr


def test_one_call_runs_the_whole_batch(toy_student: Path) -> None:
    subject = prepare(Entry(toy_student, Precision.EXACT), BRIEF)
    assert np.asarray(subject.run()).shape == (BRIEF.rows, 3)
    assert subject.graph_bytes == (toy_student / "model.onnx").stat().st_size


def test_the_bundles_take_turns() -> None:
    calls: list[str] = []

    def named(name: str) -> Subject:
        return Subject(name, Precision.EXACT, Role.STUDENT, 0, lambda: calls.append(name))

    rounds = race([named("a"), named("b")], BRIEF)
    next(rounds)
    warm_up = len(calls)
    next(rounds)
    assert "".join(calls[warm_up:]) == "aabb"  # one call to warm the caches, one that counts


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    timings = np.array([[1.0, 10.0], [1.0, 10.0], [9.0, 30.0]])  # the machine was busy in the third round
    assert ratios(timings, 1).tolist() == [10.0, 1.0]
