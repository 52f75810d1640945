"""What our own dialect says of texts: the models that describe it, and the JSON itself, written directly.

Building the models takes several times as long. It knows nothing of paths or requests.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from types import MappingProxyType

from pydantic import Field

from service.api.entities import listed, spans
from service.api.exchange import Wire
from service.bundle.passages import BEST_ANSWER
from service.bundle.tasks import THRESHOLD, Choice, Meaning
from service.errors import InvalidRequest
from service.predictors import Outcome, Predictor, RowScores
from service.strategy import Fate, Server
from service.telemetry.visits import Stages


class Judgement(Wire):
    """Where an answer comes from. Said where a strategy is asked for or set; else none of these fields is there."""

    served_by: Server | None = Field(None, description="Who answered: the student, or its teacher")
    confidence: float | None = Field(
        None,
        description="The margin of whoever answered, from 0 to 1: the highest probability less the next; "
        "null where no single label is chosen",
    )
    escalated: bool | None = Field(
        None, description="The student's margin was below the threshold, so the teacher was to answer"
    )
    degraded: bool | None = Field(
        None, description="The teacher was to answer and could not: this is the student's answer all the same"
    )


class OneLabel(Judgement):
    """What a single-label model says of one text."""

    index: int = Field(description="Place of the text in the input")
    label: str = Field(description="The label with the highest score")
    score: float = Field(description="The score of that label")
    scores: dict[str, float] = Field(description="The score of every label, in the model's order, or of the best ones")


class SeveralLabels(Judgement):
    """What a multi-label model says of one text."""

    index: int = Field(description="Place of the text in the input")
    labels: tuple[str, ...] = Field(description=f"Every label whose score is {THRESHOLD} or more, the best first")
    scores: dict[str, float] = Field(description="The score of every label, in the model's order, or of the best ones")


class Numbers(Judgement):
    """What a regression says of one text."""

    index: int = Field(description="Place of the text in the input")
    scores: dict[str, float] = Field(description="The numbers by their names")


class EntityFound(Wire):
    """A stretch of a text."""

    label: str = Field(description="What it is, without B- and I-")
    score: float = Field(description="The mean of its words' scores; the first piece of a word speaks for it")
    start: int = Field(description="Its first character in the text, from 0, in Unicode code points")
    end: int = Field(description="The character behind its last")
    text: str = Field(description="As it stands in the text")


class Entities(Judgement):
    """What a tagger finds in one text."""

    index: int = Field(description="Place of the text in the input")
    entities: tuple[EntityFound, ...] = Field(description="In the order of the text, as far as the model reads it")


class Usage(Wire):
    """What the request cost."""

    tokens: int = Field(description="Tokens of all texts, truncated, without padding")


class Timing(Wire):
    """Where the time went, in milliseconds."""

    tokenize: float
    queue: float
    inference: float
    teacher: float | None = Field(None, description="An unsure student's wait for its teacher; only if there was one")
    total: float


def data(predictor: Predictor, outcomes: Sequence[Outcome], top_k: int | None, fates: Sequence[Fate] | None) -> str:
    """The list of rows: OneLabel, SeveralLabels, Numbers, Entities or Answered as the model's task has it.

    Raises InvalidRequest for a `top_k` where there are no scores of labels.
    """
    labels, meaning = predictor.labels_json, predictor.bundle.meaning
    if meaning.choice is Choice.SPANS:
        if top_k is not None:
            raise InvalidRequest.at("top_k", no_labels(predictor))
        rows = [f'{{"index":{index},"entities":{listed(outcome.entities)}}}' for index, outcome in enumerate(outcomes)]
    elif meaning.choice is Choice.ANSWER:
        found = [outcome.answers(BEST_ANSWER) for outcome in outcomes]
        rows = [f'{{"index":{index},"answers":{spans(answers)}}}' for index, answers in enumerate(found)]
    else:
        said = _SAID[meaning.choice]
        rows = [
            f'{{"index":{index},{said(meaning, labels, scores)}"scores":{{{_listed(labels, scores, top_k)}}}}}'
            for index, (scores, _, _) in enumerate(outcomes)
        ]
    if fates is not None:
        rows = [f"{row[:-1]},{_judged(fate)}}}" for row, fate in zip(rows, fates, strict=True)]
    return ",".join(rows)


def no_labels(predictor: Predictor) -> str:
    """Why something that is of scores of labels makes no sense."""
    return f"{predictor.name} marks entities in a text and has no scores of labels; leave it away"


def usage(stages: Stages) -> str:
    """A Usage."""
    return f'{{"tokens":{stages.tokens}}}'


def timing(stages: Stages, total_s: float) -> str:
    """A Timing."""
    teacher = f'"teacher":{stages.teacher_s * 1e3:.3f},' if stages.teacher_s else ""
    return (
        f'{{"tokenize":{stages.tokenize_s * 1e3:.3f},"queue":{stages.queue_s * 1e3:.3f},'
        f'"inference":{stages.inference_s * 1e3:.3f},{teacher}"total":{total_s * 1e3:.3f}}}'
    )


def _judged(fate: Fate) -> str:
    confidence = "null" if fate.confidence is None else repr(fate.confidence)
    escalated, degraded = _SPELT[fate.escalated], _SPELT[fate.degraded]
    return f'"served_by":"{fate.served_by}","confidence":{confidence},"escalated":{escalated},"degraded":{degraded}'


_SPELT = ("false", "true")


def _listed(labels: Sequence[str], scores: RowScores, top_k: int | None) -> str:
    pairs = zip(labels, scores, strict=True)
    listed = pairs if top_k is None else sorted(pairs, key=itemgetter(1), reverse=True)[:top_k]
    return ",".join([f"{label}:{score!r}" for label, score in listed])


def _one(_meaning: Meaning, labels: Sequence[str], scores: RowScores) -> str:
    best = max(scores)
    return f'"label":{labels[scores.index(best)]},"score":{best!r},'


def _several(meaning: Meaning, labels: Sequence[str], scores: RowScores) -> str:
    chosen = sorted(meaning.chosen(scores), key=scores.__getitem__, reverse=True)
    return f'"labels":[{",".join([labels[place] for place in chosen])}],'


def _nothing(_meaning: Meaning, _labels: Sequence[str], _scores: RowScores) -> str:
    return ""


_SAID: MappingProxyType[Choice, Callable[[Meaning, Sequence[str], RowScores], str]] = MappingProxyType(
    {Choice.BEST: _one, Choice.EACH: _several, Choice.NONE: _nothing}
)
