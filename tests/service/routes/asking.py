"""What tests of the dialects share: a server with the whole zoo, and what the bundles themselves say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.api.answers import Entities, Numbers, OneLabel, SeveralLabels
from service.api.questions import Answered
from service.bundle.encoder import Text
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.tasks import FUNCTIONS, Function
from tests.running import Running, serving

KEY = "the-admin-key-of-these-tests"
VERSIONS = {"toy": ("1", "2"), "tags": ("1",), "stars": ("1",), "same": ("1",), "twins": ("1",)}
SINGLE: tuple[str, ...] = ("good", "a very dull film .", "")
PAIRS: tuple[tuple[str, str], ...] = (("good", "a film"), ("", ""), ("is it good ?", "it is not , it is dull"))


def texts_of(model: str) -> tuple[Text, ...]:
    return PAIRS if model in ("same", "twins") else SINGLE


def spoken(text: Text) -> str | dict[str, str]:
    """As JSON has it in our dialect and in Hugging Face's."""
    return text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}


@contextmanager
def serving_zoo(zoo: Path, *flags: str) -> Iterator[Running]:
    with serving(zoo, "--versions", "2", "--default", "toy", *flags) as server:
        yield server


def scores_of(row: OneLabel | SeveralLabels | Numbers | Entities | Answered) -> dict[str, float]:
    """Of a row that has scores of labels."""
    assert not isinstance(row, Entities | Answered)
    return row.scores


def bundle(zoo: Path, model: str, version: str | None = None) -> OpenBundle:
    return open_bundle(zoo / model / (version or VERSIONS[model][-1]))


def expected(zoo: Path, model: str, text: Text, function: Function | None = None) -> dict[str, float]:
    """Label -> score, as the bundle itself has it."""
    opened = bundle(zoo, model)
    logits = opened.classify([text])
    scores = opened.scores(logits) if function is None else FUNCTIONS[function](logits)
    return dict(zip(opened.manifest.labels, scores[0].tolist(), strict=True))
