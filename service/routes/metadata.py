"""`GET /v2…`: what the Open Inference Protocol v2 tells of the server and its models."""

from fastapi import APIRouter, Request
from pydantic import Field

from service.api.exchange import Desk, Wire
from service.api.tensors import BYTES, GIVEN, TEXT, TEXT_PAIR
from service.bundle.manifest import Role, Task
from service.errors import NotReady
from service.predictors import Predictor


class ServerMetadata(Wire):
    """Who we are."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ServerLive(Wire):
    """The process runs."""

    live: bool = True


class ServerReady(Wire):
    """Requests are answered."""

    ready: bool = True


class ModelReady(Wire):
    """Requests for this model are answered."""

    name: str
    ready: bool = True


class Tensor(Wire):
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: tuple[int, ...] = Field(description="-1: as many as there are texts")


class Properties(Wire):
    """What the protocol has no words for."""

    role: Role
    task: Task
    labels: tuple[str, ...] = Field(description="In the order of the columns of `scores`; of a tagger its tags")
    max_tokens: int
    json_outputs: tuple[str, ...] = Field(
        description="Outputs whose strings are JSON: a tagger's `entities` has for each text a list of objects with "
        "label, score, start, end (in Unicode code points) and text; `answer` a list of answer, score, start and end"
    )
    digest: str = Field(description="The seal of its bundle; answers bear the first digits as x-model-digest")


class ModelMetadata(Wire):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: Properties


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/v2", summary="What server is this?")
    async def server(request: Request) -> ServerMetadata:
        ours: str = request.app.version
        return ServerMetadata(name="understudy", version=ours, extensions=("classification", "model_repository"))

    @routes.get("/v2/health/live", summary="Is the process alive?")
    async def live() -> ServerLive:
        return ServerLive()

    @routes.get("/v2/health/ready", summary="Should it get requests?")
    async def ready() -> ServerReady:
        why_not = desk.lifecycle.unready()
        if why_not is not None:
            raise NotReady(why_not)
        return ServerReady()

    @routes.get("/v2/models/{name}", summary="What does a model take and give?", responses=_REFUSALS)
    async def model(name: str) -> ModelMetadata:
        return _described(desk, desk.find(name))

    @routes.get("/v2/models/{name}/versions/{version}", summary="The same of one version", responses=_REFUSALS)
    async def model_version(name: str, version: str) -> ModelMetadata:
        return _described(desk, desk.find(name, version))

    @routes.get("/v2/models/{name}/ready", summary="Does a model answer?", responses=_REFUSALS)
    async def model_ready(name: str) -> ModelReady:
        return _ready(desk.find(name))

    @routes.get("/v2/models/{name}/versions/{version}/ready", summary="The same of one version", responses=_REFUSALS)
    async def model_version_ready(name: str, version: str) -> ModelReady:
        return _ready(desk.find(name, version))

    return routes


_REFUSALS: dict[int | str, dict[str, object]] = {404: {"description": "No model of that name is served"}}


def _ready(predictor: Predictor) -> ModelReady:
    if not predictor.alive:
        raise NotReady(f"a worker of {predictor.name} is missing")
    return ModelReady(name=predictor.manifest.name)


def _described(desk: Desk, predictor: Predictor) -> ModelMetadata:
    manifest, labels = predictor.manifest, len(predictor.manifest.labels)
    given = GIVEN[predictor.bundle.meaning.choice]
    names = (TEXT, TEXT_PAIR)[: manifest.texts]
    served = desk.lifecycle.catalogue.shelf.of(manifest.name)
    return ModelMetadata(
        name=manifest.name,
        versions=tuple(other.manifest.version for other in served),
        platform="onnxruntime_onnx",
        inputs=tuple(Tensor(name=name, datatype=BYTES, shape=(-1,)) for name in names),
        outputs=tuple(
            Tensor(name=tensor.name, datatype=tensor.datatype, shape=(-1, labels) if tensor.wide else (-1,))
            for tensor in given
        ),
        parameters=Properties(
            role=manifest.role,
            task=manifest.task,
            labels=manifest.labels,
            max_tokens=manifest.max_tokens,
            json_outputs=tuple(tensor.name for tensor in given if tensor.json),
            digest=manifest.seal,
        ),
    )
