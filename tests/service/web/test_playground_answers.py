"""Questions and their answers in the playground, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.support.select import Select

from service.bundle.passages import AnswerSpan, Search
from service.bundle.runtime import open_bundle
from tests.running import Running, serving
from tests.service.web.browsing import NARROW, NEEDED, WIDE, Page
from tests.toys.answering import alone, publish_both

QUESTIONS = (
    ("good ?", "a very dull film . goodness"),
    ("so", "it was good <b> and bright"),
    ("bad", "the film is not bad"),
)

pytestmark = NEEDED


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_both(tmp_path_factory.mktemp("asking"))


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Running]:
    with serving(models, "--default", "asks") as running:
        yield running


def ask(page: Page) -> None:
    page.ask(*(" ||| ".join(each) for each in QUESTIONS))


def wanted(models: Path, model: str) -> list[AnswerSpan]:
    bundle = open_bundle(models / model / "1")
    return [alone(bundle, question, context, Search())[0] for question, context in QUESTIONS]


def test_both_answer_and_their_answers_are_marked_in_the_context(opened: Page, models: Path) -> None:
    assert "question with its context" in opened.text("#texts-hint")
    ask(opened)
    found = {who: wanted(models, model) for who, model in (("student", "asks"), ("teacher", "asks-teacher"))}
    for who, answers in found.items():
        assert opened.texts(f"#rows td.{who} .said") == [answer.answer for answer in answers]
        marks = [f"{answer.answer} answer {answer.score:.1%}" for answer in answers]
        assert opened.texts(f"#rows td.{who} mark") == marks
    same = [(one.start, one.end) == (other.start, other.end) for one, other in zip(*found.values(), strict=True)]
    assert opened.texts("#rows .mark") == ["✓ agree" if agrees else "≠ differ" for agrees in same]


def test_the_student_alone_answers_and_says_how_to_ask_it_by_hand(opened: Page, models: Path) -> None:
    Select(opened.one("#teacher")).select_by_value("")
    assert opened.text("#ask-button") == "Answer"
    ask(opened)
    assert opened.texts("#rows td.student .said") == [answer.answer for answer in wanted(models, "asks")]
    assert "v1/answer" in opened.run("return document.getElementById('command').textContent")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing(opened: Page, size: tuple[int, int]) -> None:
    opened.size(*size)
    ask(opened)
    opened.assert_accessible()
