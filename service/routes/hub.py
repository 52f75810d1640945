"""`POST /predict`, `POST /` and `POST /models/{name}`: the shape of the Hugging Face inference API for text and token
classification, feature extraction and question answering. The first two ask the default model.

Of text classification the answer is a list of lists even for one text, and of token classification it is not: that is
what Hugging Face's own client reads.
"""

import re
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Annotated, Literal, NoReturn

import numpy as np
from pydantic import ConfigDict, Field, RootModel, model_validator
from pydantic_core import to_json

from service.api.door import HotRoute
from service.api.entities import apart, grouped, span, spans
from service.api.exchange import Ask, Desk, TextPair, Wants, Wire, headers_of
from service.api.questions import PAIRS_BY, UNSAID, Question, SpanFound, TextsOrQuestions, texts_of, written
from service.bundle.manifest import OUTSIDE
from service.bundle.passages import MOST_TOKENS, NO_ANSWER, AnswerSpan, Search
from service.bundle.spans import Aggregation, entities, tagged
from service.bundle.tasks import FUNCTIONS, Choice, Function
from service.call import Call, Reply
from service.errors import HUB, InvalidRequest
from service.oversight.cascade import Judged
from service.predictors import Outcome, RowScores

PATHS = ("/predict", "/")
OF_MODEL = "/models/{name}"
_OF_MODEL = re.compile(r"/models/(?P<name>[^/]+)")
LONGEST = 15
"""Tokens of an answer where nothing is said of it, as Hugging Face has it."""


class HubParameters(Wire):
    """What Hugging Face's client may ask for. Whatever else it sends must be null."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    top_k: int | None = Field(None, ge=1, description="So many labels, the best ones; unset: all")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="What makes scores of logits; unset: what the model's task says"
    )
    aggregation_strategy: Aggregation | None = Field(
        None, description="Of a model that marks entities: how pieces become words and entities; unset: first"
    )
    ignore_labels: Annotated[tuple[str, ...], Field(strict=False)] | None = Field(  # a list, once nulls are away
        None, description=f"Of such a model: entities (or, of single pieces, tags) to leave out; unset: {OUTSIDE}"
    )
    max_answer_len: int | None = Field(
        None,
        ge=1,
        le=MOST_TOKENS,
        description=f"Of a model that answers questions: tokens of an answer; unset: {LONGEST}",
    )
    align_to_words: bool | None = Field(None, description="Of such a model: answers are whole words; unset: true")
    handle_impossible_answer: bool | None = Field(
        None, description="Of such a model: that the text has no answer is one too, an empty one; unset: false"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, sent: object) -> object:
        return {name: value for name, value in sent.items() if value is not None} if isinstance(sent, dict) else sent


class HubRequest(Wire):
    """Texts to classify."""

    inputs: TextsOrQuestions = Field(
        description="One text or a list of texts; for a model that reads pairs, one pair or a list of pairs; for one "
        "that answers questions, one question with its context or a list of them. A list is always a batch, never a "
        "pair."
    )
    parameters: HubParameters | None = None
    options: dict[str, bool | None] | None = Field(None, description="Of Hugging Face's own servers; ignored")


class LabelScore(Wire):
    """One label with its score."""

    label: str
    score: float


class EntityGroup(Wire):
    """A stretch of a text, where pieces are grouped."""

    entity_group: str = Field(description="What it is, without B- and I-")
    score: float
    word: str = Field(description="As it stands in the text")
    start: int = Field(description="Its first character in the text, from 0, in Unicode code points")
    end: int = Field(description="The character behind its last")


class PieceTag(Wire):
    """A piece with its tag, where pieces are not grouped."""

    entity: str
    score: float
    index: int = Field(description="Place of the piece in what the model reads")
    word: str = Field(description="The piece as the vocabulary spells it, such as ##s; an unknown one as in the text")
    start: int
    end: int


class HubLabels(RootModel[tuple[tuple[LabelScore, ...], ...]]):
    """For each text its labels, the best first."""


class HubEntities(RootModel[tuple[EntityGroup, ...] | tuple[PieceTag, ...]]):
    """The entities of a text."""


class HubVectors(RootModel[tuple[tuple[float, ...], ...]]):
    """For each text its vector, of length one."""


class HubAnswers(RootModel[SpanFound | tuple[SpanFound, ...]]):
    """Of a question the best answer, or with `top_k` above 1 the best ones."""


class HubResponse(
    RootModel[HubLabels | HubEntities | tuple[HubEntities, ...] | HubVectors | HubAnswers | tuple[HubAnswers, ...]]
):
    """As the model's task has it: labels; entities or answers, without a list around those of a text alone; vectors."""


def routes(desk: Desk) -> list[HotRoute]:
    """The endpoint under all of its paths."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, HubRequest, UNSAID)
        alone = isinstance(asked.inputs, str | TextPair | Question)
        place = _OF_MODEL.fullmatch(call.path)
        name = None if place is None else place["name"]
        ask = Ask(texts_of(asked.inputs), "inputs", name, wants=Wants.ANY, pairs_by=PAIRS_BY)
        done = await desk.classify(call, ask)
        wanted = asked.parameters or DEFAULTS
        if done.predictor.bundle.meaning.choice is Choice.ANSWER:
            search = _search(wanted)
            write = partial(render_answers, done, wanted, search, alone=alone)
            return Reply(await written(write, done.outcomes, search), headers=headers_of(done))
        if done.predictor.bundle.meaning.choice is Choice.SPANS:
            return Reply(render_entities(done, wanted, alone=alone), headers=headers_of(done))
        if done.predictor.bundle.meaning.choice is Choice.VECTOR:
            return Reply(render_vectors(done, wanted), headers=headers_of(done))
        return Reply(render(done, wanted), headers=headers_of(done))

    return [
        HotRoute(
            path,
            desk.endpoint(work, HUB, path),
            "Classify texts (Hugging Face shape)",
            HubRequest,
            HubResponse,
            _OF_MODEL if path == OF_MODEL else None,
            of_model=True,
        )
        for path in (*PATHS, OF_MODEL)
    ]


def speaks(path: str) -> bool:
    """Is an error on this path told in this shape?"""
    return path in PATHS or path.startswith("/models/")


DEFAULTS = HubParameters()


def render(done: Judged, wanted: HubParameters) -> bytes:
    """The body of a HubResponse, written directly."""
    if any(getattr(wanted, name) is not None for name in (*OF_ENTITIES, *OF_ANSWERS)):
        _refuse(done, wanted, (*OF_ENTITIES, *OF_ANSWERS), "classifies whole texts and marks nothing in them")
    labels = done.predictor.labels_json
    return f"[{','.join([_row(labels, scores, wanted.top_k) for scores in _scores(done, wanted)])}]".encode()


def render_entities(done: Judged, wanted: HubParameters, *, alone: bool) -> bytes:
    """The same of a model that marks entities; `alone`: the text was no list."""
    unfit = ("top_k", "function_to_apply", *OF_ANSWERS)
    if any(getattr(wanted, name) is not None for name in unfit):
        _refuse(done, wanted, unfit, "marks entities and has no scores of labels")
    rows = ",".join([_found(done, outcome, wanted) for outcome in done.outcomes])
    return (rows if alone else f"[{rows}]").encode()


OF_ENTITIES = ("aggregation_strategy", "ignore_labels")
OF_ANSWERS = ("max_answer_len", "align_to_words", "handle_impossible_answer")


def render_answers(done: Judged, wanted: HubParameters, search: Search, *, alone: bool) -> bytes:
    """The same of a model that answers questions."""
    unfit = ("function_to_apply", *OF_ENTITIES)
    if any(getattr(wanted, name) is not None for name in unfit):
        _refuse(done, wanted, unfit, "answers questions and has no labels")
    found = [outcome.answers(search) or [AnswerSpan(NO_ANSWER, 0.0, 0, 0)] for outcome in done.outcomes]
    rows = ",".join([spans(best) if search.top_k > 1 else span(best[0]) for best in found])
    return (rows if alone else f"[{rows}]").encode()


def _search(wanted: HubParameters) -> Search:
    return Search(
        top_k=wanted.top_k or 1,
        longest=wanted.max_answer_len or LONGEST,
        whole_words=wanted.align_to_words is not False,
        perhaps_none=bool(wanted.handle_impossible_answer),
    )


def render_vectors(done: Judged, wanted: HubParameters) -> bytes:
    """The same of a model that makes vectors: a list of them even for one text, as `feature_extraction` reads it."""
    unfit = [name for name in HubParameters.model_fields if getattr(wanted, name) is not None]
    if unfit:
        _refuse(done, wanted, unfit, "makes vectors of texts and has no labels")
    return to_json([outcome.scores for outcome in done.outcomes])


def _found(done: Judged, outcome: Outcome, wanted: HubParameters) -> str:
    how = wanted.aggregation_strategy or Aggregation.FIRST
    ignored = (OUTSIDE,) if wanted.ignore_labels is None else wanted.ignore_labels
    if how is Aggregation.FIRST and wanted.ignore_labels is None:  # what it has found in any case
        return grouped(outcome.entities)
    row, labels = outcome.tagged.row, done.predictor.manifest.labels
    scores = np.array(outcome.scores).reshape(len(row), len(labels))  # (T, L)
    if how is Aggregation.NONE:
        reader = done.teacher or done.predictor  # its pieces, in the order of the model's labels
        return apart(reader.bundle.encoder, row, tagged(row, scores, how), labels, ignored)
    return grouped(entities(row, scores, done.predictor.tags, how, ignored))


def _refuse(done: Judged, wanted: HubParameters, fields: Sequence[str], why: str) -> NoReturn:
    field = next(field for field in fields if getattr(wanted, field) is not None)
    raise InvalidRequest.at(f"parameters.{field}", f"{done.predictor.name} {why}; leave it away")


def _scores(done: Judged, wanted: HubParameters) -> Sequence[RowScores]:
    function = None if wanted.function_to_apply is None else Function(wanted.function_to_apply)
    if function is None or function is done.predictor.bundle.meaning.function:
        return [outcome.scores for outcome in done.outcomes]
    logits = np.array([outcome.logits for outcome in done.outcomes], dtype=np.float32)  # (B, L)
    scores: list[RowScores] = FUNCTIONS[function](logits).tolist()
    return scores


def _row(labels: tuple[str, ...], scores: RowScores, top_k: int | None) -> str:
    best_first = sorted(zip(scores, labels, strict=True), key=itemgetter(0), reverse=True)[:top_k]
    listed = ",".join([f'{{"label":{label},"score":{score!r}}}' for score, label in best_first])
    return f"[{listed}]"
