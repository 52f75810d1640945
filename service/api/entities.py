"""Entities and answers as JSON, written directly: in our own shape and in Hugging Face's.

It knows stretches of texts and pieces. It knows nothing of dialects' paths or of requests.
"""

from collections.abc import Collection, Iterable, Sequence
from json import dumps

from service.bundle.encoder import Encoder
from service.bundle.passages import AnswerSpan
from service.bundle.rows import Spanned
from service.bundle.spans import Entity, Tagging


def listed(entities: Iterable[Entity]) -> str:
    """The list of a text's entities, as our own dialect has it."""
    rows = [
        f'{{"label":{dumps(label)},"score":{score!r},"start":{start},"end":{end},"text":{dumps(text)}}}'
        for label, score, start, end, text in entities
    ]
    return f"[{','.join(rows)}]"


def grouped(entities: Iterable[Entity]) -> str:
    """The same as Hugging Face has it."""
    rows = [
        f'{{"entity_group":{dumps(label)},"score":{score!r},"word":{dumps(text)},"start":{start},"end":{end}}}'
        for label, score, start, end, text in entities
    ]
    return f"[{','.join(rows)}]"


def spans(answers: Iterable[AnswerSpan]) -> str:
    """The list of a question's answers, in both."""
    return f"[{','.join([span(answer) for answer in answers])}]"


def span(answer: AnswerSpan) -> str:
    """One of them."""
    text, score, start, end = answer
    return f'{{"answer":{dumps(text)},"score":{score!r},"start":{start},"end":{end}}}'


def apart(encoder: Encoder, row: Spanned, pieces: Tagging, labels: Sequence[str], ignored: Collection[str]) -> str:
    """Pieces for themselves, as Hugging Face has them: each with its tag."""
    rows = []
    for (place, *_), tag, score in zip(*pieces, strict=True):
        if labels[tag] in ignored:
            continue
        start, end = row.places[place]
        rows.append(
            f'{{"entity":{dumps(labels[tag])},"score":{score!r},"index":{place},'
            f'"word":{dumps(encoder.spelt(row, place))},"start":{start},"end":{end}}}'
        )
    return f"[{','.join(rows)}]"
