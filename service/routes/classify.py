"""`POST /v1/classify`: our own dialect, with the scores of all labels."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from time import perf_counter
from types import MappingProxyType

from pydantic import Field

from service.api.door import HotRoute
from service.api.exchange import Ask, Classified, Desk, Texts, Wire
from service.bundle.tasks import THRESHOLD, Choice, Meaning
from service.errors import OURS
from service.predictors import RowScores
from service.wire.call import Call, Reply

PATH = "/v1/classify"


class ClassifyRequest(Wire):
    """Texts to classify."""

    model: str | None = Field(None, description="name or name@version; unset: the default model")
    version: str | int | None = Field(None, description="A version of that model; unset: the newest that is served")
    input: Texts = Field(
        description="One text or a list of texts; for a model that reads pairs, one pair or a list of pairs. "
        "A list is always a batch, never a pair."
    )
    top_k: int | None = Field(None, ge=1, description="So many labels in `scores`, the best first; unset: all")
    truncate: bool = Field(True, description="false: refuse a text with more tokens than the model reads (422)")


class OneLabel(Wire):
    """What a single-label model says of one text."""

    index: int = Field(description="Place of the text in the input")
    label: str = Field(description="The label with the highest score")
    score: float = Field(description="The score of that label")
    scores: dict[str, float] = Field(description="The score of every label, in the model's order, or of the best ones")


class SeveralLabels(Wire):
    """What a multi-label model says of one text."""

    index: int = Field(description="Place of the text in the input")
    labels: tuple[str, ...] = Field(description=f"Every label whose score is {THRESHOLD} or more, the best first")
    scores: dict[str, float] = Field(description="The score of every label, in the model's order, or of the best ones")


class Numbers(Wire):
    """What a regression says of one text."""

    index: int = Field(description="Place of the text in the input")
    scores: dict[str, float] = Field(description="The numbers by their names")


class Usage(Wire):
    """What the request cost."""

    tokens: int = Field(description="Tokens of all texts, truncated, without padding")


class Timing(Wire):
    """Where the time went, in milliseconds."""

    tokenize: float
    queue: float
    inference: float
    total: float


class ClassifyResponse(Wire):
    """Answers in the order of the input."""

    model: str = Field(description="name@version of the model that answered")
    data: tuple[OneLabel | SeveralLabels | Numbers, ...] = Field(description="Each as the model's task has it")
    usage: Usage
    timing_ms: Timing


def route(desk: Desk) -> HotRoute:
    """The endpoint with its description."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, ClassifyRequest)
        version = asked.version if asked.version is None else str(asked.version)
        done = await desk.classify(call, Ask(asked.input, "input", asked.model, version, asked.truncate))
        return Reply(render(done, asked.top_k, perf_counter() - call.started))

    return HotRoute(PATH, desk.endpoint(work, OURS, PATH), "Classify texts", ClassifyRequest, ClassifyResponse)


def render(done: Classified, top_k: int | None, total_s: float) -> bytes:
    """The body of a ClassifyResponse, written directly: building the models takes several times as long."""
    predictor, stages = done.predictor, done.stages
    labels, meaning = predictor.labels_json, predictor.bundle.meaning
    said = _SAID[meaning.choice]
    rows = [
        f'{{"index":{index},{said(meaning, labels, scores)}"scores":{{{_listed(labels, scores, top_k)}}}}}'
        for index, (scores, _) in enumerate(done.outcomes)
    ]
    return (
        f'{{"model":{predictor.name_json},"data":[{",".join(rows)}],"usage":{{"tokens":{stages.tokens}}},'
        f'"timing_ms":{{"tokenize":{stages.tokenize_s * 1e3:.3f},"queue":{stages.queue_s * 1e3:.3f},'
        f'"inference":{stages.inference_s * 1e3:.3f},"total":{total_s * 1e3:.3f}}}}}'
    ).encode()


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
