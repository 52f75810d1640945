"""`POST /predict` and `POST /`: the shape of the Hugging Face inference API for text classification.

The answer is a list of lists even for one text: that is what Hugging Face's own client reads.
"""

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from pydantic import ConfigDict, Field, RootModel, model_validator

from service.api.door import HotRoute
from service.api.exchange import Ask, Classified, Desk, Texts, Wire
from service.bundle.tasks import FUNCTIONS, Function
from service.errors import HUB
from service.predictors import RowScores
from service.wire.call import Call, Reply

PATHS = ("/predict", "/")


class HubParameters(Wire):
    """What Hugging Face's client may ask for. Whatever else it sends must be null."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "null"}})

    top_k: int | None = Field(None, ge=1, description="So many labels, the best ones; unset: all")
    function_to_apply: Function | None = Field(
        None, description="What makes scores of logits; unset: what the model's task says"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, sent: object) -> object:
        return {name: value for name, value in sent.items() if value is not None} if isinstance(sent, dict) else sent


class HubRequest(Wire):
    """Texts to classify, for the default model."""

    inputs: Texts = Field(
        description="One text or a list of texts; for a model that reads pairs, one pair or a list of pairs. "
        "A list is always a batch, never a pair."
    )
    parameters: HubParameters | None = None
    options: dict[str, bool | None] | None = Field(None, description="Of Hugging Face's own servers; ignored")


class LabelScore(Wire):
    """One label with its score."""

    label: str
    score: float


class HubResponse(RootModel[tuple[tuple[LabelScore, ...], ...]]):
    """For each text its labels, the best first."""


def routes(desk: Desk) -> list[HotRoute]:
    """The endpoint under both of its paths."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, HubRequest)
        done = await desk.classify(call, Ask(asked.inputs, "inputs"))
        return Reply(render(done, asked.parameters or DEFAULTS), headers=done.headers)

    return [
        HotRoute(
            path,
            desk.endpoint(work, HUB, path),
            "Classify texts (Hugging Face shape)",
            HubRequest,
            HubResponse,
            of_model=True,
        )
        for path in PATHS
    ]


DEFAULTS = HubParameters()


def render(done: Classified, wanted: HubParameters) -> bytes:
    """The body of a HubResponse, written directly."""
    labels = done.predictor.labels_json
    return f"[{','.join([_row(labels, scores, wanted.top_k) for scores in _scores(done, wanted)])}]".encode()


def _scores(done: Classified, wanted: HubParameters) -> Sequence[RowScores]:
    function = wanted.function_to_apply
    if function is None or function is done.predictor.bundle.meaning.function:
        return [outcome.scores for outcome in done.outcomes]
    logits = np.array([outcome.logits for outcome in done.outcomes], dtype=np.float32)  # (B, L)
    scores: list[RowScores] = FUNCTIONS[function](logits).tolist()
    return scores


def _row(labels: tuple[str, ...], scores: RowScores, top_k: int | None) -> str:
    best_first = sorted(zip(scores, labels, strict=True), key=itemgetter(0), reverse=True)[:top_k]
    listed = ",".join([f'{{"label":{label},"score":{score!r}}}' for score, label in best_first])
    return f"[{listed}]"
