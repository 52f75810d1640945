"""`POST /predict` and `POST /`: the shape of the Hugging Face inference API for text classification.

The answer is a list of lists even for one text: that is what Hugging Face's own client reads.
"""

from typing import Literal

from fastapi import Request, Response
from pydantic import Field, RootModel

from service.door import HotRoute
from service.errors import NativeError, native
from service.exchange import Classified, Desk, Texts, Wire, classify, guarded, receive
from service.predictors import RowScores

PATHS = ("/predict", "/")


class HubParameters(Wire):
    """What Hugging Face's client may ask for, as far as it makes sense here."""

    top_k: int | None = Field(None, ge=1, description="Return only so many labels, the best ones")
    function_to_apply: Literal["softmax"] | None = Field(None, description="Scores are always softmax")


class HubRequest(Wire):
    """Texts to classify, for the default model."""

    inputs: Texts = Field(description="One text, or a list of texts. A list is always a batch, never a pair.")
    parameters: HubParameters = HubParameters()


class LabelScore(Wire):
    """One label with its score."""

    label: str
    score: float


class HubResponse(RootModel[tuple[tuple[LabelScore, ...], ...]]):
    """For each text its labels, the best first."""


def routes(desk: Desk) -> list[HotRoute]:
    """The endpoint under both of its paths."""

    async def work(request: Request) -> Response:
        asked = await receive(desk, request, HubRequest)
        done = await classify(desk, request, None, asked.inputs, "inputs")
        return Response(render(done, asked.parameters.top_k), media_type="application/json")

    return [
        HotRoute(
            path,
            guarded(work, native, desk.metrics.of_route(path)),
            "Classify texts (Hugging Face shape)",
            HubRequest,
            HubResponse,
            NativeError,
        )
        for path in PATHS
    ]


def render(done: Classified, top_k: int | None) -> bytes:
    """The body of a HubResponse, written directly."""
    labels = done.predictor.labels_json
    return f"[{','.join([_row(labels, scores, top_k) for scores in done.scores])}]".encode()


def _row(labels: tuple[str, ...], scores: RowScores, top_k: int | None) -> str:
    best_first = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])[:top_k]
    listed = ",".join([f'{{"label":{label},"score":{score!r}}}' for score, label in best_first])
    return f"[{listed}]"
