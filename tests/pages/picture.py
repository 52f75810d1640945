"""`python -m tests.pages.picture docs/playground.png`: the playground as README shows it, with the committed models.

The sentences are our own. Others ask meanwhile, so that the live view has something to show.
"""

import argparse
import random
import threading
import time
from pathlib import Path

import httpx2

from tests.running import PATIENCE_S, ROOT, serving
from tests.service.web.browsing import NARROW, WIDE, Page, browsing

SENTENCES = (
    "A quiet, generous film that trusts its audience and earns every tear.",
    "Clumsy, loud and strangely moving.",
    "The lead is wonderful; the script does not deserve her.",
)
OTHERS = (
    *SENTENCES,
    "Two hours of noise in search of a single idea.",
    "It is not as bad as the trailer made me fear, and not as good as the book.",
    "I laughed once, at the wrong moment.",
    "Sharp, funny and over far too soon.",
    "The jokes arrive on time and leave no trace.",
    "You could do worse, but why would you?",
    "A beautiful bore.",
    "Not a single scene rings false.",
    "It wants to be a thriller and settles for being long.",
    "The cast deserves a better film; so do we.",
    "Ambitious to a fault, and the fault is hard to forgive.",
    "A small wonder.",
    "I wish I could say that I hated it.",
    "Nothing here is new, and none of it needs to be.",
    "The plot creaks, yet I never looked at my watch.",
    "It made me miss the first film, which I did not like.",
    "Funny for ten minutes, and then it remembers its message.",
    "Hardly the disaster that everybody promised.",
)
# A few sentences again and again are unlike what a student was distilled for, and the service would say so.
FLAGS = ("--watch-share", "0.2", "--no-drift", "--log-level", "error")
MINUTE_S = 61.0
ASKERS = 3


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("out", type=Path)
    asked.add_argument("--theme", choices=("light", "dark"), default="light")
    asked.add_argument("--narrow", action="store_true")
    asked.add_argument("--seconds", type=float, default=MINUTE_S, help="how long others ask before the picture")
    given = asked.parse_args()
    with serving(ROOT / "models", *FLAGS) as server, browsing() as page:
        enough = threading.Event()
        askers = [threading.Thread(target=ask, args=(server.url, seed, enough)) for seed in range(ASKERS)]
        for asker in askers:
            asker.start()
        try:
            page.open(server.url)
            page.ready()
            page.run("arguments[0].click()", page.one(f"input[value={given.theme}]"))
            time.sleep(given.seconds)
            page.ask(*SENTENCES)
            given.out.write_bytes(picture(page, *(NARROW if given.narrow else WIDE)))
        finally:
            enough.set()
            for asker in askers:
                asker.join()


def ask(url: str, seed: int, enough: threading.Event) -> None:
    """Requests of a few texts at uneven times, now and then to the teacher."""
    dice = random.Random(seed)
    with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
        while not enough.wait(dice.expovariate(12)):
            model = "sst2-minilm" if dice.random() < 0.1 else "sst2-bilstm"
            client.post("/v1/classify", json={"model": model, "input": dice.choices(OTHERS, k=dice.randint(1, 24))})


def picture(page: Page, width: int, height: int) -> bytes:
    """The whole page as PNG, also what would need scrolling."""
    page.size(width, height)
    page.run("document.activeElement.blur()")
    page.size(width, int(page.run("return document.documentElement.scrollHeight")))
    return page.driver.get_screenshot_as_png()


if __name__ == "__main__":
    main()
