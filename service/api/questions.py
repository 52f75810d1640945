"""Questions with the texts in which their answers stand, as requests write them, and the answers. It knows what was
found, and nothing of models."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from service.api.exchange import TAGS, TextPair, Texts, Wire
from service.bundle.passages import Parts, Search
from service.predictors import Outcome


class Question(Wire):
    """A question, and the text in which its answer stands."""

    question: str
    context: str

    @property
    def pair(self) -> TextPair:
        """As a model reads them."""
        return TextPair(text=self.question, text_pair=self.context)


class SpanFound(Wire):
    """A stretch of the context."""

    answer: str = Field(description="As it stands there; empty where there is none")
    score: float = Field(description="The probability that it starts there, times that it ends there")
    start: int = Field(description="Its first character in the context, from 0, in Unicode code points")
    end: int = Field(description="The character behind its last")


class Answered(Wire):
    """What was found for one question."""

    index: int = Field(description="Place of the question in the input")
    answers: tuple[SpanFound, ...] = Field(description="The best first; none where the context is empty")


QUESTION, QUESTIONS = ASKED = ("one question", "many questions")


def _kind(value: object) -> str:
    return QUESTIONS if isinstance(value, list | tuple) else QUESTION


# With the tags an error is one message, not two.
Questions = Annotated[
    Annotated[Question, Tag(QUESTION)] | Annotated[tuple[Question, ...], Tag(QUESTIONS)], Discriminator(_kind)
]


def asks(value: object) -> bool:
    """Is this a question, or a list of them, and no text?"""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Question) or (isinstance(first, dict) and "question" in first)


TEXTS, ASKING = "texts", "questions"
UNSAID = (*TAGS, *ASKED, TEXTS, ASKING)
"""Parts of a place in a request that are ours and not the client's."""

TextsOrQuestions = Annotated[
    Annotated[Texts, Tag(TEXTS)] | Annotated[Questions, Tag(ASKING)],
    Discriminator(lambda value: ASKING if asks(value) else TEXTS),
]
PAIRS_BY = '; write {"text": ..., "text_pair": ...}, or {"question": ..., "context": ...}, for each'


def texts_of(
    inputs: Question | Sequence[Question] | str | TextPair | Sequence[str] | Sequence[TextPair],
) -> str | TextPair | Sequence[str] | Sequence[TextPair]:
    """As a model reads them."""
    if isinstance(inputs, Question):
        return inputs.pair
    if not isinstance(inputs, str | TextPair):
        return [each.pair if isinstance(each, Question) else each for each in inputs]  # type: ignore[return-value]
    return inputs


QUICKLY = 300
"""Parts x tokens of an answer x answers: for so much of it no answer takes more than a few milliseconds to be found."""


async def written(write: Callable[[], bytes], outcomes: Sequence[Outcome], search: Search) -> bytes:
    """The body that `write` makes of what models found; in a thread where others would have to wait for it."""
    parts = sum(len(outcome.read.rows) for outcome in outcomes if isinstance(outcome.read, Parts))
    if parts * search.longest * search.top_k <= QUICKLY:
        return write()
    return await asyncio.to_thread(write)
