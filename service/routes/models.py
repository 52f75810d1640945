"""`GET /v1/models`: what is served, and how well it was measured to do."""

from fastapi import APIRouter
from pydantic import Field

from service.api.exchange import Desk, Wire
from service.bundle.engines import Engine
from service.bundle.manifest import Measured, Precision, Role, Task
from service.catalogue import Catalogue
from service.predictors import Predictor


class Model(Wire):
    """One model that can be asked by `name` or `name@version`."""

    name: str
    version: str
    digest: str = Field(description="The seal of its bundle; answers bear the first digits as x-model-digest")
    role: Role
    task: Task
    default: bool
    labels: tuple[str, ...]
    texts: int = Field(description="Texts in a row: 2 where the model reads pairs")
    precision: Precision
    engine: Engine = Field(description="What runs its graph")
    engine_reason: str = Field(description="Why this one does")
    isa: str | None = Field(description="The instructions that the native engine uses")
    max_tokens: int
    teacher: str | None
    results: tuple[Measured, ...]


class Models(Wire):
    """All models that are served."""

    data: tuple[Model, ...]


def router(desk: Desk) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get("/v1/models", summary="Which models are served")
    async def models() -> Models:
        catalogue = desk.lifecycle.catalogue
        return Models(data=tuple(_described(catalogue, predictor) for predictor in catalogue.predictors))

    return routes


def _described(catalogue: Catalogue, predictor: Predictor) -> Model:
    manifest = predictor.manifest
    return Model(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.seal,
        role=manifest.role,
        task=manifest.task,
        default=predictor is catalogue.default,
        labels=manifest.labels,
        texts=manifest.texts,
        precision=predictor.bundle.precision,
        engine=predictor.bundle.chosen.engine,
        engine_reason=predictor.bundle.chosen.reason,
        isa=predictor.bundle.chosen.isa,
        max_tokens=manifest.max_tokens,
        teacher=manifest.lineage.teacher,
        results=manifest.results,
    )
