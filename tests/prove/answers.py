"""Questions whose answers are known: the model's own, computed here for every text, and for each version of it."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from service.bench.samples import OK, Failure
from service.bench.wire import Caller
from service.bundle.runtime import OpenBundle
from tests.prove.versions import labels_of

ROWS = (1,) * 14 + (2, 3, 5, 8, 16, 48)
"""Texts in a request: mostly one, seldom many."""

ODDITIES = (
    "",
    " ",
    "?",
    "naïve café — déjà vu",
    "ein Satz auf Deutsch, mit Umlauten: äöü",
    "これは短い文です。",
    "🙂🙃",
    "word " * 400,
    "a" * 300,
    "tab\tand\nnewline",
    "\u0000 and \u202e",
)

Scores = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `texts` are places in the corpus; without any, it is a bad one that wants this status."""

    request: bytes
    texts: tuple[int, ...]
    status: int = OK


@dataclass(slots=True)
class Exam:
    """The questions of a load, and what their answers showed."""

    questions: Sequence[Question]
    reference: Sequence[Scores]  # of each text of the corpus, in the bundle's own order of labels
    labels: tuple[str, ...]
    tolerance: float
    farthest: float = 0.0
    judged: int = 0
    newest: int = 0  # version in any answer so far
    faults: list[str] = field(default_factory=list)  # the first few

    @property
    def requests(self) -> list[bytes]:
        return [question.request for question in self.questions]

    def judge(self, number: int, status: int, body: bytes) -> int:
        """The status if the answer is right, or is an honest refusal."""
        self.judged += 1
        question = self.questions[number]
        if status != question.status:
            return Failure.WRONG if status < 500 and (status, question.status) != (429, OK) else status
        if not question.texts:
            return status
        fault = self._fault(question, body)
        if fault is None:
            return status
        if len(self.faults) < 20:
            self.faults.append(fault)
        return Failure.WRONG

    def _fault(self, question: Question, body: bytes) -> str | None:
        try:
            answer = json.loads(body)
            version = int(answer["model"].rpartition("@")[2])
            return self._compare(question, version, answer["data"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{type(error).__name__}: {error} in {body[:200]!r}"

    def _compare(self, question: Question, version: int, rows: list[dict[str, Any]]) -> str | None:
        self.newest = max(self.newest, version)
        if version < self.newest - 1:
            return f"version {version} answered after version {self.newest}"
        if len(rows) != len(question.texts):
            return f"{len(rows)} answers to {len(question.texts)} texts"
        labels = labels_of(self.labels, version)
        for place, row in zip(question.texts, rows, strict=True):
            wanted = dict(zip(labels, self.reference[place], strict=True))
            distance = max(abs(row["scores"][label] - score) for label, score in wanted.items())
            self.farthest = max(self.farthest, distance)
            if not distance <= self.tolerance:
                return f"version {version}: off by {distance:.3g} for text {place}"
        return None


def corpus(texts: Sequence[str], chance: random.Random) -> list[str]:
    """Short, ordinary, long and odd ones."""
    long = [" ".join(chance.choices(texts, k=chance.randint(2, 12))) for _ in range(len(texts) // 4)]
    short = [text.split()[0] for text in texts[:50] if text.split()]
    return [*texts, *long, *short, *ODDITIES]


def examine(bundle: OpenBundle, caller: Caller, texts: Sequence[str], chance: random.Random) -> Exam:
    """Some thousand questions, one in a hundred of them bad."""
    chosen = corpus(texts, chance)
    reference = [tuple(bundle.scores(bundle.classify([text]))[0].tolist()) for text in chosen]
    good = [_good(caller, chosen, chance) for _ in range(1980)]
    questions = good + list(islice(cycle(_bad(caller)), 20))
    chance.shuffle(questions)
    return Exam(questions, reference, bundle.manifest.labels, tolerance=1e-5)


def _good(caller: Caller, texts: Sequence[str], chance: random.Random) -> Question:
    places = tuple(chance.randrange(len(texts)) for _ in range(chance.choice(ROWS)))
    return Question(caller.request([texts[place] for place in places]), places)


def _bad(caller: Caller) -> list[Question]:
    path, body = caller.question(["a text"])
    bodies = (
        (400, b'{"input": '),
        (400, b"\xff\xfe"),
        (404, b'{"input": "a text", "model": "no-such-model"}'),
        (422, b'{"input": 7}'),
        (422, b'{"input": []}'),
        (422, b'{"input": "a text", "unknown": 1}'),
        (422, json.dumps({"input": "long " * 4000}).encode()),
    )
    bad = [Question(caller.post(path, content), (), status) for status, content in bodies]
    plain = caller.post(path, body).replace(b"application/json", b"text/plain")
    return [*bad, Question(plain, (), 415), Question(caller.post("/no/such/path", body), (), 404)]
