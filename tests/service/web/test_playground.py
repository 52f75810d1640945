"""The playground in a real browser, before a real server: asked by keyboard, read as people read it.

How it looks, moves and sounds stands in test_playground_looks.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from service.bundle.manifest import Role, Task
from tests.running import Running, serving
from tests.service.prefixed import PREFIX
from tests.service.web.browsing import NEEDED, Page, visiting
from tests.toys import toy

KEY, WRONG = "a-key-for-the-playground", "a-key-that-nobody-knows"
MARKUP = '<img src=x onerror="window.hurt = 1"> & <b>bold</b>'
HURTFUL = ("<img src=x onerror='window.hurt = 2'>", "<script>window.hurt = 3</script>", "javascript:window.hurt=4")
SENTENCES = ("a very good film", "the film was dull and long", "not bad , but too long !")
MAX_CHARS = 300

pytestmark = NEEDED


@pytest.fixture(scope="module")
def server(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models, "--max-text-chars", str(MAX_CHARS)) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models, "--api-keys", KEY) as running:
        yield running


def shares(page: Page, who: str) -> list[dict[str, float]]:
    """The widths of the bars of each text, by label, from 0 to 1."""
    found: list[dict[str, float]] = page.run(
        """return [...document.querySelectorAll(`#rows td.${arguments[0]}`)].map((cell) =>
           Object.fromEntries([...cell.querySelectorAll(".scores li")].map((bar) =>
             [bar.querySelector(".label").textContent, parseFloat(bar.querySelector(".part").style.width) / 100])))""",
        who,
    )
    return found


def scores(server: Running, model: str, texts: tuple[str, ...]) -> list[dict[str, float]]:
    with server.client() as client:
        answer = client.post("/v1/classify", json={"model": model, "input": texts}).json()
    return [row["scores"] for row in answer["data"]]


def test_by_keyboard_alone_both_answers_stand_side_by_side(opened: Page, server: Running) -> None:
    opened.tab_to("texts")
    opened.press(Keys.ENTER.join(SENTENCES))
    assert opened.text("#count") == "3 texts"
    opened.tab_to("ask-button")
    opened.press(Keys.ENTER)
    opened.wait(lambda: opened.all("#rows tbody tr"), "no answers")
    assert opened.texts("#rows tbody th") == list(SENTENCES)
    for who, model in (("student", "toy"), ("teacher", "toy-teacher")):
        expected = scores(server, model, SENTENCES)
        assert shares(opened, who) == [pytest.approx(row, abs=1e-4) for row in expected]
        assert opened.texts(f"#rows td.{who} .said") == [max(row, key=row.__getitem__) for row in expected]
    assert opened.focused() == "ask-button"  # nothing moved the focus away


def test_agreement_is_shown_for_each_text_and_for_all(opened: Page, server: Running) -> None:
    texts = ("film and", "good and", "and very", "bad", "a dull film")
    opened.ask(*texts)
    ours, theirs = (scores(server, model, texts) for model in ("toy", "toy-teacher"))
    same = [
        max(one, key=one.__getitem__) == max(other, key=other.__getitem__)
        for one, other in zip(ours, theirs, strict=True)
    ]
    assert 0 < sum(same) < len(texts)  # else this would show little
    assert opened.texts("#rows .mark") == ["✓ agree" if agrees else "≠ differ" for agrees in same]
    assert opened.text("#agreement") == f"{sum(same) / len(texts):.1%}"
    said = opened.run("return document.getElementById('status').textContent")
    assert said == f"5 texts answered. Student and teacher agree on {sum(same)} of 5."
    opened.one("#only-different").click()
    assert len([row for row in opened.all("#rows tbody tr") if row.is_displayed()]) == same.count(False)


def half_unit(number: str) -> float:
    """Of its last digit."""
    return 0.5 * 0.1 ** len(number.partition(".")[2])


def test_the_time_of_each_stage_is_shown_in_words_and_as_bars(opened: Page) -> None:
    opened.ask("good", "bad")
    assert opened.texts(".times thead th") == ["model", "tokenise", "queue", "run", "total"]
    for who in ("student", "teacher"):
        shown = [text.removesuffix(" ms") for text in opened.texts(f".times tr.{who} td:not(.bar)")]
        times = list(map(float, shown))
        assert len(times) == 4
        assert sum(times[:3]) <= times[3] + sum(map(half_unit, shown)) + 1e-9  # each is rounded as it is shown
        assert times[3] > 0
    widths = opened.run(
        "return [...document.querySelectorAll('.times .track')].map((track) =>"
        " [...track.children].reduce((sum, part) => sum + parseFloat(part.style.width), 0))"
    )
    assert max(widths) == pytest.approx(100, abs=0.1)  # the slower one fills its track
    assert "times as fast" in opened.text(".times .small")


def test_what_the_service_refuses_is_said_beside_the_texts(opened: Page) -> None:
    opened.type("good" * MAX_CHARS)
    opened.press(Keys.CONTROL, Keys.ENTER)
    opened.wait(lambda: opened.text("#problem"), "no complaint")
    assert f"at most {MAX_CHARS} characters" in opened.text("#problem")
    assert opened.one("#problem").get_attribute("role") == "alert"
    assert opened.one("#texts").get_attribute("aria-invalid") == "true"
    assert [line for line in opened.console() if "422" not in line] == []  # browsers log each refusal
    opened.ask("good")
    assert (opened.text("#problem"), opened.one("#texts").get_attribute("aria-invalid")) == ("", "false")


def test_nothing_is_asked_where_nothing_was_typed(opened: Page) -> None:
    opened.type("", "  ")
    opened.press(Keys.CONTROL, Keys.ENTER)
    assert opened.text("#problem") == "Type at least one text."
    assert not [address for address in opened.requested() if "/v1/c" in address]


def test_texts_that_look_like_html_are_texts(opened: Page) -> None:
    opened.ask(MARKUP, *HURTFUL)
    assert opened.texts("#rows tbody th") == [MARKUP, *HURTFUL]
    assert opened.all("main img, main b, main script") == []
    opened.one("#as-command summary").click()
    assert "<script>" in opened.text("#command")
    assert opened.run("return window.hurt") is None


def test_labels_that_look_like_html_are_labels(page: Page, tmp_path: Path) -> None:
    labels = (*HURTFUL, "plain")
    toy.publish(tmp_path, "odd", "1", Role.STUDENT, labels=labels)
    toy.publish(tmp_path, "odd-teacher", "1", Role.TEACHER, labels=labels)
    with serving(tmp_path) as server:
        page.enter(server.url)
        page.ready()
        page.ask("good", "bad")
        for who in ("student", "teacher"):
            assert list(shares(page, who)[0]) == list(labels)
        assert page.all("main img, main b, main script") == []
        assert (page.run("return window.hurt"), page.console()) == (None, [])


def test_even_html_that_got_in_could_do_nothing(page: Page, server: Running) -> None:
    page.enter(server.url)
    page.ready()
    page.run("document.body.insertAdjacentHTML('beforeend', arguments[0])", MARKUP)
    page.run(
        "const it = document.createElement('script'); it.textContent = 'window.hurt = 5'; document.body.append(it)"
    )
    page.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/elsewhere.png'}))")
    page.wait(lambda: len(said := page.console()) and "Content Security Policy" in str(said), "nothing was refused")
    assert page.run("return window.hurt") is None
    fetched = page.driver.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('refused'))"
    )
    assert fetched == "refused"


def test_a_key_is_asked_for_and_kept_in_memory_alone(page: Page, keyed: Running) -> None:
    page.enter(keyed.url)
    page.wait(lambda: page.one("#key").is_displayed(), "no field for the key")
    assert "wants an API key" in page.text("#key-said")
    page.tab_to("key")
    page.press(WRONG, Keys.ENTER)
    page.wait(lambda: "not known" in page.text("#key-said"), "a wrong key was taken")
    assert (page.focused(), page.one("#key").get_attribute("aria-invalid")) == ("key", "true")
    page.press(Keys.CONTROL, "a")
    page.press(KEY, Keys.ENTER)
    page.ready()
    page.ask("good")
    assert page.text("#key-said") == ""
    page.wait(lambda: page.all("#traffic .panel"), "the live view did not begin")
    assert [line for line in page.console() if "401" not in line] == []
    assert page.run(
        "return [...Object.values({...sessionStorage}), ...Object.values({...localStorage}), document.cookie]"
    ) == [""]
    page.open(keyed.url)
    page.wait(lambda: "wants an API key" in page.text("#key-said"), "the key outlived the page")


def test_a_key_is_kept_for_the_tab_by_a_tick(page: Page, keyed: Running) -> None:
    page.enter(keyed.url)
    page.wait(lambda: page.one("#key").is_displayed(), "no field for the key")
    page.one("#key-keep").click()
    page.one("#key").send_keys(KEY, Keys.ENTER)
    page.ready()
    page.open(keyed.url)
    page.ready()
    page.one("#key-toggle").click()
    page.one("#key-keep").click()
    assert page.run("return sessionStorage.length") == 0


def test_without_a_teacher_the_student_answers_alone(page: Page, student: Path) -> None:
    with serving(student.parent.parent) as server:
        page.enter(server.url)
        page.ready()
        assert "No teacher of toy is served" in page.text("#no-teacher")
        assert "export adopt" in page.text("#no-teacher")
        assert page.text("#ask-button") == "Classify"
        page.ask("good", "bad")
        assert len(shares(page, "student")) == 2
        assert page.all("td.teacher, #agreement, .mark") == []
        assert page.console() == []


def test_a_student_is_offered_the_teachers_that_fit(page: Page, zoo: Path) -> None:
    with serving(zoo) as server:
        page.enter(server.url)
        page.ready()
        assert set(page.texts("#student option")) == {"toy@2", "tags@1", "twins@1"}
        choose(page, "#student", "tags@1")
        page.ask("good", "bad film")
        expected = scores(server, "tags", ("good", "bad film"))
        chosen = [
            ", ".join(sorted((label for label in row if row[label] >= 0.5), key=lambda label: -row[label]))
            for row in expected
        ]
        assert page.texts("#rows td.student .said") == [labels or "no label" for labels in chosen]
        choose(page, "#student", "twins@1")
        page.type("good")
        page.press(Keys.CONTROL, Keys.ENTER)
        assert page.text("#problem").startswith("Line 1: write both texts of a pair")
        page.ask("good ||| a film", "bad ||| a dull film")
        assert page.texts("#rows tbody th p") == ["good", "a film", "bad", "a dull film"]
        assert page.texts("#rows td.student dt") == ["near", "far"] * 2
        assert page.console() == []


def choose(page: Page, selector: str, value: str) -> None:
    page.one(f"{selector} option[value='{value}']").click()


def test_a_model_that_is_swapped_in_is_offered(page: Page, student: Path, toy_teacher: Path) -> None:
    models = student.parent.parent
    with serving(models, "--reload-seconds", "0.2", "--log-level", "error") as server:
        page.enter(server.url)
        page.ready()
        page.wait(lambda: page.all("#traffic .panel"), "the live view did not begin")
        toy.publish(models, "toy", "2", Role.STUDENT)
        toy.publish(models, "lead", "1", Role.TEACHER, task=Task.SINGLE_LABEL)
        page.wait(lambda: page.texts("#student option") == ["toy@2"], "the new version is not offered")
        page.wait(lambda: "lead@1" in page.texts("#teacher option"), "the new teacher is not offered")
        page.ask("good")
        assert len(page.all("#rows td.teacher")) == 1


def test_it_works_behind_the_prefix_of_a_proxy(page: Page, toy_models: Path) -> None:
    with serving(toy_models, launcher=("tests.service.prefixed",)) as server, visiting(page, f"{server.url}{PREFIX}/"):
        page.wait(lambda: page.all("#traffic .panel"), "the live view did not begin")
        page.ask("good")
        assert len(shares(page, "teacher")) == 1
        command = page.run("return document.getElementById('command').textContent")
        assert command.startswith(f"curl {server.url}{PREFIX}/v1/compare ")
