"""The playground in a real browser: the live view, light and dark, and what those need who see or move otherwise."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from selenium.webdriver.common.keys import Keys

from tests.running import Running, serving
from tests.service.web.browsing import NARROW, NEEDED, WIDE, Page, visiting

SENTENCES = ("a very good film", "the film was dull and long", "not bad , but too long !")

pytestmark = NEEDED


@pytest.fixture(scope="module")
def server(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models) as running:
        yield running


def test_the_live_view_moves_while_others_ask(opened: Page, server: Running) -> None:
    enough = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=server.url) as client:
            while not enough.wait(0.02):
                client.post("/v1/classify", json={"input": list(SENTENCES)})

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        opened.wait(lambda: number(opened, 0) > 5, "no texts a second")
        assert 1 <= number(opened, 1) <= len(SENTENCES)  # in a batch
        assert number(opened, 3) > 0  # ms
        assert len(opened.all(".panel.student .sparkline .line")) >= 4
        opened.one("#pause").click()
        assert (opened.text("#live-said"), opened.one("#pause").get_attribute("aria-pressed")) == ("Paused.", "true")
        opened.requested()
        still = [opened.text("#traffic") for _ in range(2) if not enough.wait(1.2)]
        assert still[0] == still[1]
        assert opened.requested() == []
        opened.one("#pause").click()
        opened.wait(lambda: opened.requested(), "it does not go on")
    finally:
        enough.set()
        asker.join()


def test_agreement_stands_in_the_live_view_where_the_teacher_watches(page: Page, toy_models: Path) -> None:
    page.enter("about:blank")
    with (
        serving(toy_models, "--watch-share", "1", "--no-drift") as server,
        visiting(page, server.url),
        server.client() as client,
    ):
        page.wait(lambda: page.all(".panel"), "the live view did not begin")
        assert "Agreement" not in page.texts(".panel.student dt")
        client.post("/v1/classify", json={"input": ["film and", "good and", "bad"]}).raise_for_status()
        page.wait(lambda: "Agreement" in page.texts(".panel.student dt"), "no agreement")
        page.wait(lambda: client.get("/v1/live").json()["data"][0]["watched_rows"] == 3, "not all were watched")
        page.wait(lambda: page.texts(".panel.student .now")[-1] == "66.7%", "another agreement")
        assert page.texts(".panel .complaint") == ["", ""]  # no alarm


def number(page: Page, place: int) -> float:
    """What a tile of the student says."""
    tiles = page.texts(".panel.student .now")
    digits = tiles[place].split()[0].replace(",", "") if tiles else "–"
    return 0.0 if digits == "–" else float(digits)


def test_rates_are_differences_and_survive_a_restart(opened: Page) -> None:
    first, second, restarted = (
        {"seconds": seconds, "data": [reading(rows, batches)]}
        for seconds, rows, batches in ((10, 100, 10), (12, 160, 30), (13, 7, 1))
    )
    said = opened.driver.execute_async_script(
        """const [first, second, restarted, done] = arguments;
           import("/playground/rates.js").then(({ measures }) => done(
             [measures(first, second), measures(second, restarted), measures(first, first)]
               .map((each) => each.get("toy@1"))))""",
        first,
        second,
        restarted,
    )
    # texts a second, texts in a batch, waiting, ms of a batch, padding, by the teacher, agreement
    assert said[0] == [30, 3, 2, pytest.approx(10), 0.25, None, None]
    assert said[1][:2] == [7, 7]
    assert said[2] == [None] * 7


def reading(rows: int, batches: int) -> dict[str, object]:
    counted = {
        "rows": rows,
        "batched_rows": rows,
        "batches": batches,
        "inference_seconds": batches / 100,
        "queued_rows": 2,
    }
    none = dict.fromkeys(
        ("requests", "strategy_rows", "teacher_rows", "watched_rows", "agreed_rows", "queue_seconds"), 0
    )
    return {"model": "toy@1", "batched_tokens": 4 * rows, "padding_tokens": rows, **counted, **none}


def test_light_and_dark_follow_the_system_until_somebody_chooses(opened: Page) -> None:
    def background() -> str:
        return str(opened.run("return getComputedStyle(document.body).backgroundColor"))

    light = background()
    opened.prefer(prefers_color_scheme="dark")
    dark = background()
    assert dark != light
    opened.one("input[name=theme]:checked").send_keys(Keys.ARROW_RIGHT)
    assert (opened.focused(), background()) == ("light", light)
    opened.run("location.reload()")
    opened.ready()
    assert background() == light
    opened.one("input[name=theme]:checked").send_keys(Keys.ARROW_LEFT)
    assert (opened.focused(), background()) == ("auto", dark)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing(opened: Page, scheme: str, size: tuple[int, int]) -> None:
    opened.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    opened.size(*size)
    opened.ask(*SENTENCES, "good " * 60)
    opened.one("#as-command summary").click()
    opened.one("#key-toggle").click()
    opened.wait(lambda: opened.all(".sparkline .line"), "the live view did not begin")
    opened.assert_accessible()


def test_axe_would_find_something(opened: Page) -> None:
    opened.run("document.querySelector('label[for=student]').remove(); document.documentElement.lang = ''")
    opened.run("document.getElementById('texts-hint').style.color = '#ccc'")
    assert {each["id"] for each in opened.examined()["violations"]} >= {
        "select-name",
        "html-has-lang",
        "color-contrast",
    }


def test_whoever_wants_no_motion_gets_none_and_the_focus_is_seen(opened: Page) -> None:
    opened.ask("good")
    moves = "return getComputedStyle(document.querySelector('.part')).transitionDuration"
    assert opened.run(moves) == "0.2s"
    opened.prefer(prefers_reduced_motion="reduce")
    assert opened.run(moves) == "0s"
    opened.run("location.reload()")
    opened.ready()
    seen = []
    for _ in range(8):
        opened.press(Keys.TAB)
        seen.append(opened.focused())
        outline = opened.run(
            "const it = document.activeElement; const shown = it.type === 'radio' ? it.nextElementSibling : it;"
            "return getComputedStyle(shown).outlineStyle"
        )
        assert outline == "solid", seen
    assert seen[0] == "A"  # the way past the header
    assert seen[1:7] == ["key-toggle", "auto", "texts", "student", "teacher", "ask-button"]
