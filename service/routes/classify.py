"""`POST /v1/classify`: our own dialect, with the scores of all labels."""

from time import perf_counter

from pydantic import Field

from service.api.answers import Entities, Numbers, OneLabel, SeveralLabels, Timing, Usage, data, timing, usage
from service.api.door import HotRoute
from service.api.exchange import Ask, Desk, Texts, Version, Wire, headers_of
from service.call import Call, Reply
from service.errors import OURS
from service.oversight.cascade import Judged
from service.strategy import Strategy

PATH = "/v1/classify"


class ClassifyRequest(Wire):
    """Texts to classify."""

    model: str | None = Field(None, description="name or name@version; unset: the default model")
    version: Version = Field(None, description="A version of that model; unset: the newest that is served")
    input: Texts = Field(
        description="One text or a list of texts; for a model that reads pairs, one pair or a list of pairs. "
        "A list is always a batch, never a pair."
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="So many labels in `scores`, the best first; unset: all. A model that marks entities has no "
        "scores of labels, and refuses it",
    )
    truncate: bool = Field(True, description="false: refuse a text with more tokens than the model reads (422)")
    strategy: Strategy | None = Field(
        None,
        description="Who answers: the student, its teacher, or in a cascade the student where it is sure "
        "and the teacher where it is not; unset: as the service is set",
    )


class ClassifyResponse(Wire):
    """Answers in the order of the input."""

    model: str = Field(description="name@version of the model that answered")
    teacher: str | None = Field(None, description="name@version of the teacher, if it answered any text in its place")
    data: tuple[OneLabel | SeveralLabels | Numbers | Entities, ...] = Field(
        description="Each as the model's task has it"
    )
    usage: Usage
    timing_ms: Timing


def route(desk: Desk) -> HotRoute:
    """The endpoint with its description."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, ClassifyRequest)
        ask = Ask(asked.input, "input", asked.model, asked.version, asked.truncate, strategy=asked.strategy)
        done = await desk.classify(call, ask)
        return Reply(render(done, asked.top_k, perf_counter() - call.started), headers=headers_of(done))

    endpoint = desk.endpoint(work, OURS, PATH)
    return HotRoute(PATH, endpoint, "Classify texts", ClassifyRequest, ClassifyResponse, of_model=True)


def render(done: Judged, top_k: int | None, total_s: float) -> bytes:
    """The body of a ClassifyResponse."""
    predictor = done.predictor
    teacher = "" if done.teacher is None else f'"teacher":{done.teacher.name_json},'
    rows = data(predictor, done.outcomes, top_k, done.fates)
    return (
        f'{{"model":{predictor.name_json},{teacher}"data":[{rows}],"usage":{usage(done.stages)},'
        f'"timing_ms":{timing(done.stages, total_s)}}}'
    ).encode()
