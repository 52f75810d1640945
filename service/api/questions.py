"""Questions with the texts in which their answers stand, as requests write them, and the answers. It knows nothing of
models."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from service.api.exchange import TextPair, Wire


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
