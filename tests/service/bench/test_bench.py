"""The benchmarks: that they measure what they say, over real toy bundles and real services."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.bench.__main__ import app
from service.bench.engine import Entry, Subject, Workload, prepare, race, ratios
from service.bench.flags import entries_of
from service.bench.process import PROC, usage
from service.bench.served import Meter, between
from service.bench.variants import first_student
from service.bench.worker import WorkerFailed, pinned
from service.bundle.manifest import Precision, Role
from tests.native import natively
from tests.running import ROOT, serving

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
    assert lines["toy-teacher@1:exact"]["times"] == {"toy-teacher@1:exact": 1.0}
    for line in lines.values():
        assert 0 < line["p10_us"] <= line["median_us"] <= line["p90_us"]
    assert (report["workload"]["rows"], report["workload"]["tokens"]) == (3, 6)
    assert report["machine"]["cores"] >= 1


@natively.NEEDED
def test_our_own_engine_is_measured_too_where_it_knows_the_graph() -> None:
    named = {entry.suffix for entry in entries_of(None, ROOT / "models") if entry.folder.parent.name == "sst2-bilstm"}
    assert named == {"exact", "fast", "native"}
    default = first_student(ROOT / "models")
    assert default is not None
    assert (default.folder.parent.name, default.suffix) == ("sst2-bilstm", "native")


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


def test_what_a_text_costs_is_told_beside_the_teacher(toy_models: Path, tmp_path: Path) -> None:
    written, texts = tmp_path / "cost.json", tmp_path / "texts.txt"
    texts.write_text("\n".join(["good", "bad film", "so so"]))
    flags = ["--models", str(toy_models), "--texts", str(texts), "--core-hour", "0.36", "--json", str(written)]
    result = CliRunner().invoke(app, ["cost", *flags, "--rounds", "2"])
    assert result.exit_code == 0, result.output
    report = json.loads(written.read_text())
    lines = {line["subject"]: line for line in report["lines"]}
    assert lines.keys() == {"toy@1:exact", "toy@1:fast", "toy-teacher@1:exact"}
    for line in lines.values():
        assert 0 < line["least_us"] <= line["us"] <= line["greatest_us"]
        assert line["texts_s"] == pytest.approx(1e6 / line["us"])
        assert line["usd_of_a_million"] == pytest.approx(line["us"] * 0.36 / 3600)
    assert lines["toy-teacher@1:exact"]["times"] == {"toy-teacher@1:exact": 1.0}
    assert (report["texts"], report["core_hour_usd"]) == (3, 0.36)


def test_pairs_cost_too_and_answers_need_questions(zoo: Path) -> None:
    result = CliRunner().invoke(app, ["cost", "--bundle", str(zoo / "twins" / "1"), "--rounds", "1"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["cost", "--bundle", str(zoo / "asks" / "1")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "answers questions" in result.stderr


def test_rows_longer_than_the_bundle_takes_are_refused(toy_student: Path) -> None:
    result = CliRunner().invoke(app, ["engine", "--bundle", str(toy_student), "--tokens", "500"])
    assert result.exit_code == 2
    assert "--tokens" in result.stderr


def test_one_call_runs_the_whole_batch(toy_student: Path) -> None:
    subject = prepare(Entry(toy_student, Precision.EXACT), BRIEF)
    assert np.asarray(subject.run()).shape == (BRIEF.rows, 3)
    assert subject.graph_bytes == (toy_student / "model.onnx").stat().st_size


@pytest.mark.parametrize("name", ["same", "twins", "asks", "tags", "vectors"])
def test_models_of_every_kind_of_row_are_measured(name: str, zoo: Path) -> None:
    found = prepare(Entry(zoo / name / "1", Precision.EXACT), BRIEF).run()
    assert isinstance(found, np.ndarray)
    assert len(found) == BRIEF.rows


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


# --- services under load


def http(*arguments: object) -> Result:
    brief = ("--seconds", "0.3", "--warmup", "0.1", "--rounds", "1", "--connections", "2", "--shares", "50")
    return CliRunner().invoke(app, ["http", *brief, *map(str, arguments)])


def test_services_are_compared_with_the_model_alone(toy_student: Path, tmp_path: Path) -> None:
    written = tmp_path / "http.json"
    flags = ("--rows", "1,5", "--serve-args", "--max-batch-rows 8", "--json", written)
    result = http("--bundle", f"{toy_student}:fast", *flags)
    assert result.exit_code == 0, result.output
    assert "toy@1:fast --max-batch-rows 8" in result.stdout
    report = json.loads(written.read_text())
    assert [(line["load"], line["rows"]) for line in report["lines"]] == [
        (load, rows) for rows in (1, 5) for load in ("2 connections", "50 % of peak")
    ]
    for line in report["lines"]:
        found = line["figures"]
        assert found["statuses"].keys() == {"200"}
        assert found["errors"] == {}
        assert found["texts_s"] == found["requests_s"] * line["rows"] > 0
        assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
        assert line["of_alone"] > 0
        assert line["meters_ms"]["queue_seconds"] >= 0
    closed, opened = report["runs"][:2]
    assert opened["step"]["rate"] == pytest.approx(closed["figures"]["requests_s"] / 2)
    assert {rate["rows"] for rate in report["alone"]["toy@1:fast --max-batch-rows 8"]["rates"]} == {1, 5, 256}


def test_a_running_service_is_measured_without_its_key_being_told(toy_models: Path, tmp_path: Path) -> None:
    written = tmp_path / "http.json"
    with serving(toy_models) as running:
        given = ("--url", running.url, "--pid", running.process.pid, "--dialect", "classify")
        result = http(*given, "--header", "authorization: Bearer sesame", "--shares", "", "--json", written)
    assert result.exit_code == 0, result.output
    assert "sesame" not in result.output + written.read_text()
    [line] = json.loads(written.read_text())["lines"]
    assert line["of_alone"] is None
    if PROC.is_dir():
        assert line["rss_after_mib"] > 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--url", "http://127.0.0.1:1"), "127.0.0.1:1: no answer"),
        (("--url", "https://127.0.0.1"), "not an http address"),
        (("--models", "no/such/folder"), "no/such/folder"),
        (("--rows", "1,x", "--url", "http://127.0.0.1:1"), "1,x: not a list of numbers"),
        (("--rows", "1.5", "--url", "http://127.0.0.1:1"), "whole numbers"),
        (("--texts", "no/such/file", "--url", "http://127.0.0.1:1"), "no/such/file"),
    ],
)
def test_a_load_that_cannot_be_sent_is_refused_in_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    result = http(*arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output


def test_requests_that_the_service_refuses_are_not_measured(toy_student: Path) -> None:
    result = http("--bundle", toy_student, "--rows", "4", "--serve-args", "--max-request-rows 3")
    assert result.exit_code == 2
    assert "4 texts a request" in result.stderr
    assert "answers 422" in result.stderr


def test_a_service_that_does_not_start_says_why(toy_student: Path) -> None:
    result = http("--bundle", toy_student, "--serve-args", "--max-batch-rows none")
    assert result.exit_code == 2
    assert "--max-batch-rows" in result.stderr


@pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc")
def test_what_a_process_and_its_children_use_is_seen() -> None:
    command = "import time; block = bytearray(40 << 20); sum(range(10**7)); print(flush=True); time.sleep(60)"
    before = usage(os.getpid())
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone, together = usage(child.pid), usage(os.getpid())
        child.kill()
    assert before is not None
    assert alone is not None
    assert together is not None
    assert alone.rss_mib > 40
    assert alone.cpu_s > 0.05
    assert alone.threads == 1
    assert together.rss_mib > before.rss_mib + 40
    assert usage(child.pid) is None
    assert usage(None) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin processes")
def test_a_process_is_pinned_and_we_are_not() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with pinned((core,)):
        found = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert found.strip() == f"{{{core}}}"
    assert os.sched_getaffinity(0) == before
    with pytest.raises(WorkerFailed, match="core 9999"), pinned((9999,)):
        pass


def test_meters_are_of_what_happened_between_two_looks() -> None:
    before = {"queue_seconds": Meter("queue_seconds", 10, 1.0), "idle": Meter("idle", 3, 3.0)}
    after = {"queue_seconds": Meter("queue_seconds", 30, 2.0), "idle": Meter("idle", 3, 3.0), "new": Meter("new", 1, 1)}
    [grown] = between(before, after)
    assert (grown.name, grown.count, grown.mean) == ("queue_seconds", 20, 0.05)
