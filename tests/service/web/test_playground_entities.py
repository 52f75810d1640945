"""What a tagger finds, marked in the texts of the playground, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from service.bundle.runtime import open_bundle
from tests.running import Running, serving
from tests.service.web.browsing import NARROW, NEEDED, WIDE, Page
from tests.toys.tagging import expected

TEXTS = ("😀😀 too goodness <b> very", "zyx", "Too was and bright GOODNESS very dullest goodness but")

pytestmark = NEEDED


@pytest.fixture(scope="module")
def server(taggers: Path) -> Iterator[Running]:
    with serving(taggers, "--default", "ner") as running:
        yield running


def ask(page: Page) -> None:
    page.type("x")
    page.run("document.getElementById('texts').value = arguments[0]", "\n".join(TEXTS))  # the driver types no emoji
    page.run("document.getElementById('rows').replaceChildren()")  # else those of before could be taken for them
    page.press(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: len(page.all("#rows tbody tr")) == len(TEXTS), "no answers")


def test_entities_are_marked_in_the_text(opened: Page, taggers: Path) -> None:
    ask(opened)
    for who, model in (("student", "ner"), ("teacher", "ner-teacher")):
        rows = expected(open_bundle(taggers / model / "1"), TEXTS)
        assert any(rows)
        marks = [f"{entity.text} {entity.label} {entity.score:.1%}" for entities in rows for entity in entities]
        assert opened.texts(f"#rows td.{who} mark") == marks
        counts = [f"{len(found) or 'no'} {'entity' if len(found) == 1 else 'entities'}" for found in rows]
        assert opened.texts(f"#rows td.{who} .said") == counts
        opened.run("document.querySelectorAll('.kind').forEach((kind) => kind.remove())")
        plain = opened.run(
            f"return [...document.querySelectorAll('#rows td.{who} .marked')].map((it) => it.textContent)"
        )
        assert plain == list(TEXTS)
        ask(opened)


def test_both_are_held_against_each_other(opened: Page, taggers: Path) -> None:
    ask(opened)
    ours, theirs = (expected(open_bundle(taggers / model / "1"), TEXTS) for model in ("ner", "ner-teacher"))
    same = [
        {entity.place for entity in one} == {entity.place for entity in other}
        for one, other in zip(ours, theirs, strict=True)
    ]
    assert opened.texts("#rows .mark") == ["✓ agree" if agrees else "≠ differ" for agrees in same]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing(opened: Page, scheme: str, size: tuple[int, int]) -> None:
    opened.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    opened.size(*size)
    ask(opened)
    opened.assert_accessible()
