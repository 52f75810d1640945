"""`GET /v1/live`: what each model has done so far, for the playground's live view.

The numbers are those of `/metrics`, in a form that a browser reads without effort.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from pydantic import Field

from service.api.exchange import Desk, Wire
from service.bundle.manifest import Role
from service.predictors import Predictor
from service.telemetry.traffic import Traffic, traffic_of


class ModelTraffic(Wire):
    """Of one model since the start, in all workers together."""

    model: str = Field(description="name@version")
    role: Role
    requests: int
    rows: int = Field(description="Texts that were answered")
    batches: int = Field(description="Runs of the model")
    batched_rows: int = Field(description="Texts in those runs")
    batched_tokens: int = Field(description="Tokens in those runs, with padding")
    padding_tokens: int = Field(description="Those of them that were only padding")
    queue_seconds: float = Field(description="Time that requests waited for their runs, added up")
    inference_seconds: float = Field(description="Time of all runs, added up")
    queued_rows: int = Field(description="Texts that wait now")
    strategy_rows: int = Field(description="Texts for which a strategy was asked or set")
    teacher_rows: int = Field(description="Those of them that a teacher answered")
    watched_rows: int = Field(description="Sampled answers that the teacher scored again; 0 where nobody watches")
    agreed_rows: int = Field(description="Those where it came to the same")
    agreement_alarm: bool = Field(description="It now surely agrees less than was recorded")
    drift_alarm: bool = Field(description="Texts are now unlike those that it was distilled for")


class LiveView(Wire):
    """Counters that only grow; whoever asks twice has rates. After a restart they begin anew."""

    seconds: float = Field(description="A clock: only the difference between two answers means something")
    data: tuple[ModelTraffic, ...]


def router(desk: Desk) -> APIRouter:
    """The route."""
    routes = APIRouter()
    last: LiveView | None = None
    begun = 0.0
    looking = asyncio.Lock()

    @routes.get("/v1/live", summary="What the models have done so far")
    async def live() -> LiveView:
        nonlocal last, begun
        predictors = desk.lifecycle.catalogue.predictors
        asked = monotonic()
        # One look takes as long as a score of texts: aside, one at a time, and all who waited meanwhile share the next.
        async with looking:
            if last is None or begun < asked:
                begun = monotonic()
                last = await asyncio.to_thread(_look, desk.metrics.collected(), predictors)
        return last

    return routes


def _look(collected: CollectorRegistry, predictors: Sequence[Predictor]) -> LiveView:
    """In any thread."""
    found = traffic_of(collected.collect())
    view = tuple(_described(predictor, found.get(predictor.name, Traffic())) for predictor in predictors)
    return LiveView(seconds=monotonic(), data=view)


def _described(predictor: Predictor, traffic: Traffic) -> ModelTraffic:
    return ModelTraffic(
        model=predictor.name,
        role=predictor.manifest.role,
        requests=int(traffic.requests),
        rows=int(traffic.rows),
        batches=int(traffic.batches),
        batched_rows=int(traffic.batched_rows),
        batched_tokens=int(traffic.batched_tokens),
        padding_tokens=int(traffic.padding_tokens),
        queue_seconds=traffic.queue_seconds,
        inference_seconds=traffic.inference_seconds,
        queued_rows=int(traffic.queued_rows),
        strategy_rows=int(traffic.strategy_rows),
        teacher_rows=int(traffic.teacher_rows),
        watched_rows=int(traffic.watched_rows),
        agreed_rows=int(traffic.agreed_rows),
        agreement_alarm=traffic.agreement_alarms > 0,
        drift_alarm=traffic.drift_alarms > 0,
    )
