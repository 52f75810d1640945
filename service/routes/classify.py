"""`POST /v1/classify`: our own dialect, with the scores of all labels."""

from time import perf_counter

from fastapi import Request, Response
from pydantic import Field

from service.door import HotRoute
from service.errors import Problem, problem
from service.exchange import Classified, Desk, Texts, Wire, classify, guarded, receive
from service.predictors import Predictor, RowScores

PATH = "/v1/classify"


class ClassifyRequest(Wire):
    """Texts to classify."""

    model: str | None = Field(None, description="name or name@version; unset: the default model")
    input: Texts = Field(description="One text, or a list of texts. A list is always a batch, never a pair.")


class Classification(Wire):
    """The answer to one text."""

    index: int = Field(description="Place of the text in the input")
    label: str = Field(description="The label with the highest score")
    score: float = Field(description="The score of that label")
    scores: dict[str, float] = Field(description="The score of every label")


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
    data: tuple[Classification, ...]
    usage: Usage
    timing_ms: Timing


def route(desk: Desk) -> HotRoute:
    """The endpoint with its description."""

    async def work(request: Request) -> Response:
        started = perf_counter()
        asked = await receive(desk, request, ClassifyRequest)
        done = await classify(desk, request, asked.model, asked.input, "input")
        return Response(render(done, perf_counter() - started), media_type="application/json")

    endpoint = guarded(work, problem, desk.metrics.of_route(PATH))
    return HotRoute(PATH, endpoint, "Classify texts", ClassifyRequest, ClassifyResponse, Problem)


def render(done: Classified, total_s: float) -> bytes:
    """The body of a ClassifyResponse, written directly: building the models takes several times as long."""
    predictor = done.predictor
    data = ",".join([_row(predictor, index, scores) for index, scores in enumerate(done.scores)])
    return (
        f'{{"model":{predictor.name_json},"data":[{data}],"usage":{{"tokens":{done.tokens}}},'
        f'"timing_ms":{{"tokenize":{done.tokenize_s * 1e3:.3f},"queue":{done.queue_s * 1e3:.3f},'
        f'"inference":{done.inference_s * 1e3:.3f},"total":{total_s * 1e3:.3f}}}}}'
    ).encode()


def _row(predictor: Predictor, index: int, scores: RowScores) -> str:
    labels = predictor.labels_json
    best = max(scores)
    listed = ",".join([f"{label}:{score!r}" for label, score in zip(labels, scores, strict=True)])
    label = labels[scores.index(best)]
    return f'{{"index":{index},"label":{label},"score":{best!r},"scores":{{{listed}}}}}'
