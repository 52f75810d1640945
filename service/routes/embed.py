"""`POST /v1/embed` and, in OpenAI's shape, `POST /v1/embeddings`: the vectors of texts."""

import base64
from time import perf_counter
from typing import Literal

import numpy as np
from pydantic import Field
from pydantic_core import to_json

from service.api.answers import Timing, Usage, timing, usage
from service.api.door import HotRoute
from service.api.exchange import Ask, Desk, Extensible, PlainTexts, Version, Wants, Wire, headers_of
from service.bundle.tasks import Choice
from service.call import Call, Reply
from service.errors import OPENAI, OURS, InvalidRequest
from service.oversight.cascade import Judged
from service.predictors import Outcome
from service.strategy import Strategy

PATH = "/v1/embed"
OPENAIS = "/v1/embeddings"


class EmbedRequest(Wire):
    """Texts to make vectors of."""

    model: str | None = Field(None, description="name or name@version; unset: the only model that makes vectors")
    version: Version = Field(None, description="A version of that model; unset: the newest that is served")
    input: PlainTexts = Field(description="One text or a list of texts")
    truncate: bool = Field(True, description="false: refuse a text with more tokens than the model reads (422)")
    normalize: bool = Field(True, description="Vectors of length one; false: as the model gives them")


class Embedded(Wire):
    """The vector of one text."""

    index: int = Field(description="Place of the text in the input")
    vector: tuple[float, ...]


class EmbedResponse(Wire):
    """Vectors in the order of the input."""

    model: str = Field(description="name@version of the model")
    dimensions: int = Field(description="Of each vector")
    data: tuple[Embedded, ...]
    usage: Usage
    timing_ms: Timing


class EmbeddingsRequest(Extensible):
    """Texts to make vectors of, as OpenAI's clients ask for them."""

    model: str | None = Field(None, description="name or name@version")
    input: PlainTexts = Field(description="One text or a list of texts; lists of tokens are not offered")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: each vector is one string, of 32-bit floats with the lowest byte first"
    )
    dimensions: int | None = Field(None, description="As many as the model has; no vector is cut")


class Embedding(Wire):
    """The vector of one text."""

    object: Literal["embedding"]
    index: int
    embedding: tuple[float, ...] | str


class TokensUsed(Wire):
    """What the request cost."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Wire):
    """Vectors in the order of the input."""

    object: Literal["list"]
    model: str
    data: tuple[Embedding, ...]
    usage: TokensUsed


def routes(desk: Desk) -> list[HotRoute]:
    """Both endpoints with their descriptions."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, EmbedRequest)
        done = await _vectors(desk, call, Ask(asked.input, "input", asked.model, asked.version, asked.truncate))
        return Reply(render(done, perf_counter() - call.started, raw=not asked.normalize), headers=headers_of(done))

    async def as_openai(call: Call) -> Reply:
        asked = desk.receive(call, EmbeddingsRequest)
        done = await _vectors(desk, call, Ask(asked.input, "input", asked.model))
        there = len(done.predictor.manifest.labels)
        if asked.dimensions not in (None, there):
            raise InvalidRequest.at("dimensions", f"{done.predictor.name} has {there}; leave it away")
        return Reply(render_openai(done, packed=asked.encoding_format == "base64"), headers=headers_of(done))

    own, theirs = desk.endpoint(work, OURS, PATH), desk.endpoint(as_openai, OPENAI, OPENAIS)
    title, shaped = "Make vectors of texts", "Make vectors of texts (OpenAI's shape)"
    return [
        HotRoute(PATH, own, title, EmbedRequest, EmbedResponse, of_model=True),
        HotRoute(OPENAIS, theirs, shaped, EmbeddingsRequest, EmbeddingsResponse, of_model=True),
    ]


async def _vectors(desk: Desk, call: Call, ask: Ask) -> Judged:
    """Those of the model that is named, or of the only one that makes any."""
    named = ask if ask.model is not None else ask._replace(model=desk.only(Choice.VECTOR, "makes vectors"))
    return await desk.classify(call, named._replace(strategy=Strategy.STUDENT, wants=Wants.VECTORS))


def render(done: Judged, total_s: float, *, raw: bool) -> bytes:
    """The body of an EmbedResponse."""
    predictor = done.predictor
    rows = ",".join([f'{{"index":{index},"vector":{_listed(row, raw)}}}' for index, row in enumerate(done.outcomes)])
    return (
        f'{{"model":{predictor.name_json},"dimensions":{len(predictor.manifest.labels)},"data":[{rows}],'
        f'"usage":{usage(done.stages)},"timing_ms":{timing(done.stages, total_s)}}}'
    ).encode()


def render_openai(done: Judged, *, packed: bool) -> bytes:
    """The body of an EmbeddingsResponse."""
    rows = [
        f'{{"object":"embedding","index":{index},"embedding":{_packed(row) if packed else _listed(row, raw=False)}}}'
        for index, row in enumerate(done.outcomes)
    ]
    tokens = done.stages.tokens
    return (
        f'{{"object":"list","model":{done.predictor.name_json},"data":[{",".join(rows)}],'
        f'"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}'
    ).encode()


def _listed(outcome: Outcome, raw: bool) -> str:
    return to_json(outcome.logits if raw else outcome.scores).decode()  # much faster than repr


def _packed(outcome: Outcome) -> str:
    return f'"{base64.b64encode(np.array(outcome.scores, dtype="<f4").tobytes()).decode()}"'
