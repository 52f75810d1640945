"""A student beside its teacher: the command for real over toy bundles and real services, and what it writes."""

import json
import random
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.bench.__main__ import app
from service.bundle.manifest import UNTRAINED, Precision, Role, Task
from service.bundle.runtime import open_bundle
from service.bundle.store import write_bundle
from tests.running import command
from tests.toys import toy

STUDENTS, TEACHER, SHAPED = ("toy@1:fast", "toy@1:exact"), "toy-teacher@1:exact", "random-toy@1:exact"
LOADS = ("2 connections", "50 % of peak")


@dataclass(frozen=True)
class Written:
    """What one run left."""

    output: str
    report: dict[str, Any]
    page: str


@dataclass
class Page(HTMLParser):
    """What a browser would find: tables by their headings, addresses, ids, drawings."""

    tables: list[list[list[str]]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.addresses += [value for name, value in found.items() if name in ("src", "href", "xlink:href", "action")]
        self.addresses += re.findall(r"url\(([^)]*)\)", " ".join(found.values()))
        self.ids += [found["id"]] if "id" in found else []
        self.labels += [found["aria-label"]] if tag == "svg" else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.lasttag in ("td", "th") and self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    def table(self, *headings: str) -> list[dict[str, str]]:
        """The rows of the tables with these headings among others."""
        fitting = [table for table in self.tables if set(headings) <= set(table[0])]
        assert fitting, headings
        return [dict(zip(table[0], map(str.strip, row), strict=True)) for table in fitting for row in table[1:]]


def figure(cell: str) -> float:
    """The first number of a cell."""
    return float(cell.removeprefix("≈ ").split()[0].replace(",", ""))


def near(value: float) -> Any:
    """As a table shows it: three figures."""
    return pytest.approx(value, rel=0.006, abs=0.006)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["pair", *map(str, arguments)])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rows of 1 to 24 words, labels by name and by number."""
    file, rng = tmp_path_factory.mktemp("data") / "dev.tsv", random.Random(1)
    rows = [(" ".join(rng.choices(toy.WORDS, k=1 + n % 24)), rng.choice((toy.LABELS[0], "2"))) for n in range(40)]
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher that says of itself that it learned nothing."""
    folder = tmp_path_factory.mktemp("shapes")
    files = toy.teacher_files()
    made = toy.draft("random-toy", "1", Role.TEACHER, files, toy.PROOF_TEXTS, task=Task.SINGLE_LABEL, labels=toy.LABELS)
    untrained = made.model_copy(update={"lineage": made.lineage.model_copy(update={"method": UNTRAINED})})
    write_bundle(folder / "random-toy/1", untrained, files, card=None)
    return folder


@pytest.fixture(scope="module")
def written(toy_models: Path, labelled: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One run of everything, as short as can be."""
    out = tmp_path_factory.mktemp("out")
    result = bench(
        *("--student", f"{toy_models}/toy/1:fast", "--student", toy_models / "toy/1"),
        *("--teacher", toy_models / "toy-teacher/1", "--shape", "toy", "--shape-models", shapes, "--data", labelled),
        *("--batches", "1,8", "--threads", "1", "--rounds", "1", "--seconds", "0.2", "--warmup", "0.1"),
        *("--connections", "2", "--shares", "50", "--json", out / "pair.json", "--html", out / "pair.html"),
    )
    assert result.exit_code == 0, result.output
    return Written(result.output, json.loads((out / "pair.json").read_text()), (out / "pair.html").read_text())


@pytest.fixture(scope="module")
def page(written: Written) -> Page:
    found = Page()
    found.feed(written.page)
    return found


def test_the_json_says_where_how_and_what(written: Written) -> None:
    said = written.report["conditions"]
    assert said["surroundings"]["machine"]["cores"] >= 1
    assert {"uvicorn", "tokenizers", "numpy"} <= said["surroundings"]["versions"].keys()
    assert said["command"].startswith("python -m service bench")
    assert said["sweep"]["threads"] == [1]
    assert said["data"]["rows"] == 40
    assert [each["title"] for each in written.report["contenders"]] == [*STUDENTS, TEACHER, SHAPED]


def test_every_engine_ran_every_batch_at_every_length(written: Written) -> None:
    speeds = {(each["subject"], each["batch"], each["lengths"]): each for each in written.report["speeds"]}
    lengths = {each["lengths"] for each in written.report["speeds"]}
    assert lengths == {"as in the data", "1–8 tokens", "9–16 tokens", "17–32 tokens"}
    assert speeds.keys() == {
        (subject, batch, length) for subject in (*STUDENTS, TEACHER, SHAPED) for batch in (1, 8) for length in lengths
    }
    for (_, batch, length), speed in speeds.items():
        assert 0 < speed["least_us"] <= speed["median_us"] <= speed["most_us"]
        theirs = speeds[TEACHER, batch, length]["median_us"]
        assert speed["times"][TEACHER] == pytest.approx(theirs / speed["median_us"])


def test_every_service_had_its_own_peak_and_shares_of_it(written: Written) -> None:
    lines = {(each["variant"], each["load"]): each for each in written.report["served"]["lines"]}
    assert lines.keys() == {(title, load) for title in (*STUDENTS, TEACHER, SHAPED) for load in LOADS}
    for title in (*STUDENTS, TEACHER, SHAPED):
        closed, opened = (lines[title, load] for load in LOADS)
        assert closed["offered_s"] is None
        assert opened["offered_s"] == pytest.approx(closed["figures"]["requests_s"] / 2)
        assert written.report["served"]["peak_s"][title] == closed["figures"]["requests_s"] > 0
        assert opened["figures"]["errors"] == {}
    spreads = written.report["served"]["spreads"]
    assert all(sum(count for _, count in each["histogram_ms"]) == each["answers"] for each in spreads)


def test_accuracy_and_agreement_are_those_of_the_answers(written: Written, toy_models: Path, labelled: Path) -> None:
    rows = [line.split("\t") for line in labelled.read_text().splitlines()[1:]]
    texts = [text for text, _ in rows]
    right = [0 if label == toy.LABELS[0] else 2 for _, label in rows]
    fast = open_bundle(toy_models / "toy/1", Precision.FAST).classify(texts).argmax(axis=1).tolist()
    teacher = open_bundle(toy_models / "toy-teacher/1").classify(texts).argmax(axis=1).tolist()
    found = {each["subject"]: each for each in written.report["qualities"]}
    for title, answers in ((STUDENTS[0], fast), (TEACHER, teacher)):
        share = sum(map(int.__eq__, answers, right)) / len(right)
        assert found[title]["accuracy"]["value"] == pytest.approx(share)
        assert found[title]["accuracy"]["low"] < share < found[title]["accuracy"]["high"]
    same = sum(map(int.__eq__, fast, teacher)) / len(right)
    assert found[STUDENTS[0]]["agreement"] == {TEACHER: pytest.approx(found[STUDENTS[0]]["agreement"][TEACHER])}
    assert found[STUDENTS[0]]["agreement"][TEACHER]["value"] == pytest.approx(same)


def test_random_weights_are_timed_and_not_judged(written: Written, page: Page) -> None:
    found = {each["subject"]: each for each in written.report["qualities"]}
    assert found[SHAPED] == {"subject": SHAPED, "accuracy": None, "agreement": {}}
    [row] = [row for row in page.table("model", "accuracy") if row["model"] == SHAPED]
    assert row["accuracy"] == row[f"agrees with {TEACHER}"] == "random weights"
    assert figure(row["µs a row"]) > 0
    assert any(SHAPED in line and "random weights" in line for line in written.output.splitlines())


def test_the_page_asks_nobody_for_anything(written: Written, page: Page) -> None:
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "<script" not in written.page
    assert "@import" not in written.page
    assert "default-src 'none'" in written.page


def test_the_page_has_four_drawings_that_stand_alone_and_say_what_they_show(written: Written, page: Page) -> None:
    drawings = re.findall(r"<svg.*?</svg>", written.page, flags=re.DOTALL)
    assert [label.split(".")[0] for label in page.labels] == [
        "Distribution of latencies",
        "Throughput against p99",
        "Accuracy against cost",
        "Speed-up by length and batch",
    ]
    for drawing in drawings:
        assert ET.fromstring(drawing).attrib["role"] == "img"
        assert "currentColor" in drawing
        assert "#010203" not in drawing
    assert all(load in drawings[0] for load in LOADS)
    assert all(f"toy@1:{name}" in drawings[2] for name in ("exact", "fast"))


def test_the_figures_of_the_json_stand_in_the_tables(written: Written, page: Page) -> None:
    engine = {(row["lengths"], row["model"]): row for row in page.table("lengths", "model")}
    pairs = {(row["lengths"], row["pair"]): row for row in page.table("lengths", "pair")}
    for each in written.report["speeds"]:
        cell = f"batch {each['batch']}"
        assert figure(engine[each["lengths"], each["subject"]][cell]) == near(each["median_us"])
        if each["subject"] in STUDENTS:
            row = pairs[each["lengths"], f"{each['subject']} against {SHAPED}"]
            assert figure(row[cell]) == pytest.approx(each["times"][SHAPED], abs=0.051)
    loads = {(row["load"], row["service"]): row for row in page.table("offered/s")}
    for line in written.report["served"]["lines"]:
        row = loads[line["load"], line["variant"]]
        assert figure(row["answered/s"]) == near(line["figures"]["requests_s"])
        for share in ("p50", "p95", "p99"):
            assert figure(row[share]) == near(line["figures"]["latency_ms"][share])
        assert row["errors"] == "0"
    latencies = {(row["load"], row["service"]): row for row in page.table("load", "p99.9")}
    for spread in written.report["served"]["spreads"]:
        for share, value in spread["percentiles_ms"].items():
            assert figure(latencies[spread["load"], spread["variant"]][f"p{share}"]) == near(value)
    models = {row["model"]: row for row in page.table("model", "accuracy")}
    for each in written.report["qualities"]:
        if each["accuracy"]:
            assert figure(models[each["subject"]]["accuracy"]) == pytest.approx(each["accuracy"]["value"], abs=1e-4)
    assert written.report["conditions"]["surroundings"]["machine"]["cpu"] in page.text


def test_the_engines_alone_need_no_service_and_no_labels_of_an_untrained_pair(
    toy_student: Path, toy_teacher: Path, labelled: Path
) -> None:
    named = ("--student", toy_student, "--teacher", toy_teacher, "--data", labelled)
    result = bench(*named, "--no-http", "--batches", "4", "--threads", "1", "--rounds", "1")
    assert result.exit_code == 0, result.output
    assert "batch 4" in result.stdout
    assert "Over HTTP" not in result.stdout


def refused(*arguments: object) -> str:
    result = bench(*arguments, "--no-http", "--rounds", 1)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.replace("│", " ").split())


def test_a_shape_that_is_not_there_says_how_to_make_it(
    toy_student: Path, toy_teacher: Path, labelled: Path, tmp_path: Path
) -> None:
    named = ("--student", toy_student, "--teacher", toy_teacher, "--data", labelled)
    said = refused(*named, "--shape", "bert-base", "--shape-models", tmp_path)
    assert f"--shape bert-base: {tmp_path} holds no random-bert-base" in said
    assert f"make it with: python -m export shape bert-base --like {toy_teacher} --models {tmp_path}" in said


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("text\tlabel\ngood\tnobody\n", "dev.tsv:2: label 'nobody'; the models know bad"),
        ("text\tlabel\n", "has no rows"),
        ("words\tlabel\ngood\t0\n", "no column 'text'"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    toy_student: Path, toy_teacher: Path, tmp_path: Path, content: str, complaint: str
) -> None:
    (tmp_path / "dev.tsv").write_text(content)
    assert complaint in refused("--student", toy_student, "--teacher", toy_teacher, "--data", tmp_path / "dev.tsv")


def test_models_of_two_tasks_are_refused(toy_student: Path, zoo: Path, labelled: Path, tmp_path: Path) -> None:
    two = toy.publish(tmp_path, "other", "1", Role.TEACHER, task=Task.SINGLE_LABEL, labels=("x", "y"))
    assert "its labels are x, y" in refused("--student", toy_student, "--teacher", two, "--data", labelled)
    stars = zoo / "stars/1"
    assert "single labels of single texts" in refused("--student", toy_student, "--teacher", stars, "--data", labelled)
    assert "named twice" in refused("--student", toy_student, "--teacher", toy_student, "--data", labelled)
    assert "name a --teacher or a --shape" in refused("--student", toy_student, "--data", labelled)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--json", "no/such/folder/x.json"), "no file can be written there"),
        (("--threads", "0"), "name at least one thread"),
        (("--batches", "1,x"), "not a list of numbers"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    toy_student: Path, toy_teacher: Path, labelled: Path, flags: tuple[str, ...], complaint: str
) -> None:
    named = ("--student", toy_student, "--teacher", toy_teacher, "--data", labelled)
    assert complaint in refused(*named, *flags)


def test_without_matplotlib_a_page_is_refused_and_everything_else_works(
    toy_student: Path, toy_teacher: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    named = ("--student", toy_student, "--teacher", toy_teacher, "--data", labelled)
    assert "pip install 'understudy[report]'" in refused(*named, "--html", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
    brief = ("--no-http", "--batches", "1", "--threads", "1", "--rounds", "1", "--json", tmp_path / "x.json")
    assert bench(*named, *brief).exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["speeds"]


def test_it_is_a_command_of_the_service(toy_student: Path, toy_teacher: Path, labelled: Path, tmp_path: Path) -> None:
    helped = command("bench", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    for name in ("engine", "http", "pair", "papers"):
        assert re.search(rf"│ {name} ", helped.stdout)
    out = tmp_path / "pair.json"
    named = ("--student", str(toy_student), "--teacher", str(toy_teacher), "--data", str(labelled))
    done = command("bench", "pair", *named, "--no-http", "--batches", "1", "--threads", "1", "--json", str(out))
    assert done.returncode == 0, done.stderr
    said = json.loads(out.read_text())["conditions"]["command"]
    assert said == f"python -m service bench pair {' '.join(named)} --no-http --batches 1 --threads 1 --json {out}"
