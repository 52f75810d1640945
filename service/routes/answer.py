"""`POST /v1/answer`: where in a text the answer to a question stands."""

from time import perf_counter

from pydantic import Field

from service.api.answers import Timing, Usage, timing, usage
from service.api.door import HotRoute
from service.api.entities import spans
from service.api.exchange import Ask, Desk, Version, Wants, Wire, headers_of
from service.api.questions import ASKED, Answered, Question, Questions, written
from service.bundle.passages import MOST_TOKENS, Search
from service.bundle.tasks import Choice
from service.call import Call, Reply
from service.errors import OURS
from service.oversight.cascade import Judged
from service.strategy import Strategy

PATH = "/v1/answer"


class AnswerRequest(Wire):
    """Questions to answer from texts."""

    model: str | None = Field(None, description="name or name@version; unset: the only model that answers questions")
    version: Version = Field(None, description="A version of that model; unset: the newest that is served")
    input: Questions = Field(description="One question with its context, or a list of them")
    top_k: int = Field(1, ge=1, le=100, description="So many answers, the best first")
    max_answer_tokens: int = Field(Search().longest, ge=1, le=MOST_TOKENS, description="Tokens of an answer")
    no_answer: bool = Field(False, description="That the context has no answer is one too: an empty one")
    truncate: bool = Field(True, description="false: refuse a question that would be cut (422)")


class AnswerResponse(Wire):
    """Answers in the order of the input."""

    model: str = Field(description="name@version of the model")
    data: tuple[Answered, ...]
    usage: Usage
    timing_ms: Timing


def route(desk: Desk) -> HotRoute:
    """The endpoint with its description."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, AnswerRequest, ASKED)
        name = asked.model or desk.only(Choice.ANSWER, "answers questions")
        pairs = asked.input.pair if isinstance(asked.input, Question) else tuple(each.pair for each in asked.input)
        ask = Ask(pairs, "input", name, asked.version, asked.truncate, strategy=Strategy.STUDENT)
        done = await desk.classify(call, ask._replace(wants=Wants.ANSWERS))
        search = Search(asked.top_k, asked.max_answer_tokens, perhaps_none=asked.no_answer)
        body = await written(lambda: render(done, search, perf_counter() - call.started), done.outcomes, search)
        return Reply(body, headers=headers_of(done))

    endpoint = desk.endpoint(work, OURS, PATH)
    return HotRoute(PATH, endpoint, "Answer questions from texts", AnswerRequest, AnswerResponse, of_model=True)


def render(done: Judged, search: Search, total_s: float) -> bytes:
    """The body of an AnswerResponse."""
    rows = ",".join(
        [f'{{"index":{index},"answers":{spans(row.answers(search))}}}' for index, row in enumerate(done.outcomes)]
    )
    return (
        f'{{"model":{done.predictor.name_json},"data":[{rows}],"usage":{usage(done.stages)},'
        f'"timing_ms":{timing(done.stages, total_s)}}}'
    ).encode()
