"""A real browser without a window, and the playground as people use it: by its labels, headings and keys.

What the page does on the network and writes to its console is kept, so that a test can ask for it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.running import PATIENCE_S

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DRIVER = "chromedriver"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--disable-lcd-text"),
)
WIDE, NARROW = (1280, 1000), (390, 900)


@cache
def found() -> tuple[str, str] | None:
    """The programs of the browser and its driver; None where one is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    folder = os.environ.get("CHROMEWEBDRIVER", "")  # where hosted runners keep theirs
    driver = shutil.which(DRIVER) or shutil.which(DRIVER, path=folder)
    return None if browser is None or driver is None else (browser, driver)


NEEDED = [
    pytest.mark.browser,
    pytest.mark.skipif(found() is None, reason="chromium or its chromedriver is not installed (see CONTRIBUTING.md)"),
]
"""For tests with a browser."""


_SEEN = """return [...document.querySelectorAll(arguments[0])].map((it) =>
  it.tagName === "OPTION" ? it.text : it.checkVisibility() ? it.innerText.trim() : "")"""


class Page:
    """The playground in a browser."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def enter(self, url: str) -> None:
        """As somebody new, with nothing left of what was before but what the browser stores."""
        self.size(*WIDE)
        self.prefer(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
        self.open("about:blank")
        self.console()
        self.requested()
        self.open(url)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """As people see it: nothing of what is hidden."""
        [said] = self.texts(selector)
        return said

    def texts(self, selector: str) -> list[str]:
        """All at one moment, since the page may be drawn anew between two questions."""
        return list(self.run(_SEEN, selector))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def size(self, width: int, height: int) -> None:
        """Of what is seen of the page; a window cannot be as narrow as a telephone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """What the system says of its owner's wishes: prefers_color_scheme="dark" and the like."""
        wishes = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})

    def wait(self, condition: Callable[[], object], what: str) -> None:
        WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(lambda _: condition(), what)

    def focused(self) -> str:
        """The id of the element that has the focus, or its name."""
        found = self.run("const it = document.activeElement; return it.id || it.value || it.tagName")
        return str(found)

    def press(self, *keys: str) -> None:
        """On the keyboard: whatever has the focus gets them."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, wanted: str, most: int = 20) -> None:
        """With the tabulator alone, as those go who use no mouse."""
        for _ in range(most):
            if self.focused() == wanted:
                return
            self.press(Keys.TAB)
        raise AssertionError(f"the tabulator does not lead to {wanted}")

    def ready(self) -> None:
        """The models are known."""
        self.wait(lambda: self.all("#student option"), "no models")

    def ask(self, *texts: str) -> None:
        """Type these lines, send them by keyboard, and wait for the answers."""
        self.type(*texts)
        self.run("document.getElementById('rows').replaceChildren()")  # else those of before could be taken for them
        self.press(Keys.CONTROL, Keys.ENTER)
        self.wait(lambda: len(self.all("#rows tbody tr")) == len(texts), "no answers")

    def type(self, *texts: str) -> None:
        field = self.one("#texts")
        field.clear()
        field.send_keys("\n".join(texts))

    def examined(self) -> Any:
        """What axe-core says of the page."""
        self.run(_axe())
        return self.driver.execute_async_script("axe.run().then(arguments[0])")

    def assert_accessible(self) -> None:
        """axe-core finds nothing, and the page is no wider than the window."""
        found = self.examined()
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
        assert len(found["passes"]) > 20  # it did look
        assert self.run("return document.documentElement.scrollWidth <= innerWidth")

    def console(self) -> list[str]:
        """What was written there since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> list[str]:
        """The addresses that the browser has asked since the last call, whatever came of it."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))  # type: ignore[no-untyped-call]
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


@contextmanager
def visiting(page: Page, url: str) -> Iterator[Page]:
    """The playground with its models. Nothing may go wrong behind it: no errors, nothing asked of others.

    With a path in the address it ends with a slash, and whatever is asked begins with it.
    """
    page.enter(url)
    page.ready()
    yield page
    assert page.console() == []
    assert {address for address in page.requested() if not address.startswith(f"{url.rstrip('/')}/")} == set()


@contextmanager
def browsing() -> Iterator[Page]:
    """A browser with a profile of its own, that knows nothing of the one before."""
    programs = found()
    assert programs is not None
    options = ChromeOptions()
    options.binary_location, driver = programs
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with TemporaryDirectory(prefix="understudy-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDE[0]},{WIDE[1]}"):
            options.add_argument(flag)
        opened = Chrome(options, Service(driver))
        try:
            yield Page(opened)
        finally:
            opened.quit()


def _axe() -> str:
    """The script of axe-core, as the package that we test with brings it."""
    import selenium_axe_python

    return (Path(selenium_axe_python.__file__).parent / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
