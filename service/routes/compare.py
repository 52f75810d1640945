"""`POST /v1/compare`: a student and its teacher on the same texts, side by side."""

from collections.abc import Callable, Sequence
from types import MappingProxyType

from pydantic import Field

from service.api.answers import Entities, Numbers, OneLabel, SeveralLabels, Timing, Usage, data, timing, usage
from service.api.door import HotRoute
from service.api.exchange import Ask, Desk, Wants, Wire
from service.api.questions import PAIRS_BY, UNSAID, Answered, TextsOrQuestions, asks, texts_of, written
from service.bundle.passages import BEST_ANSWER
from service.bundle.tasks import Choice
from service.call import Call, Reply
from service.errors import OURS
from service.oversight.cascade import sureness
from service.oversight.compare import Compared, agreements
from service.predictors import Outcome, Predictor
from service.telemetry.visits import Stages

PATH = "/v1/compare"


class CompareRequest(Wire):
    """Texts that both classify."""

    student: str | None = Field(None, description="name or name@version; unset: the default model")
    teacher: str | None = Field(
        None, description="Any model with the same task and labels; unset: the teacher that belongs to the student"
    )
    input: TextsOrQuestions = Field(
        description="One text or a list of texts; for models that read pairs, one pair or a list of pairs; for those "
        "that answer questions, one question with its context or a list of them. A list is always a batch, never a "
        "pair."
    )
    truncate: bool = Field(True, description="false: refuse a text with more tokens than one of the models reads (422)")


class Side(Wire):
    """What one of the two says, as `/v1/classify` would."""

    model: str = Field(description="name@version")
    digest: str = Field(description="The seal of its bundle")
    data: tuple[OneLabel | SeveralLabels | Numbers | Entities | Answered, ...] = Field(
        description="Scores in the order of the student's labels"
    )
    usage: Usage
    timing_ms: Timing = Field(description="Of this model alone; both wait and run at the same time")


class Agreement(Wire):
    """How far both say the same."""

    rows: int
    agreed: int = Field(description="Rows on which both choose the same labels, or find the same entities or answer")
    share: float = Field(
        description="Share of equal decisions: rows with the same label; where each label holds or not, "
        "labels on which both decide alike; where entities are marked, those that both find of all that either finds; "
        "of answers to questions, characters in both of those in either"
    )


class LabelsBeside(Wire):
    """One text, where one label is chosen."""

    index: int = Field(description="Place of the text in the input")
    agree: bool
    student_label: str
    teacher_label: str
    confidence: float = Field(description="The student's margin, from 0 to 1, as a cascade would look at it")


class SetsBeside(Wire):
    """One text, where each label holds or not, or where entities or answers are found."""

    index: int = Field(description="Place of the text in the input")
    agree: bool
    share: float = Field(
        description="Of labels on which both decide alike, of entities that both find, or of characters in both answers"
    )


class NumbersBeside(Wire):
    """One text of a regression."""

    index: int = Field(description="Place of the text in the input")
    difference: dict[str, float] = Field(description="The student's number less the teacher's")


class CompareResponse(Wire):
    """Both answers, in the order of the input."""

    student: Side
    teacher: Side
    agreement: Agreement | None = Field(description="null for a regression, which decides nothing")
    data: tuple[LabelsBeside | SetsBeside | NumbersBeside, ...] = Field(description="Each as the models' task has it")


def route(desk: Desk) -> HotRoute:
    """The endpoint with its description."""

    async def work(call: Call) -> Reply:
        asked = desk.receive(call, CompareRequest, UNSAID)
        wants = Wants.ANSWERS if asks(asked.input) else Wants.LABELS
        texts = texts_of(asked.input)
        ask = Ask(texts, "input", asked.student, truncate=asked.truncate, pairs_by=PAIRS_BY, wants=wants)
        done = await desk.compare(call, ask, asked.teacher)
        body = await written(lambda: render(done), done.ours, BEST_ANSWER)
        return Reply(body, headers=[done.student.digest])

    endpoint = desk.endpoint(work, OURS, PATH)
    title = "Compare a student with its teacher"
    return HotRoute(PATH, endpoint, title, CompareRequest, CompareResponse, of_model=True)


def render(done: Compared) -> bytes:
    """The body of a CompareResponse, written directly."""
    meaning, student = done.student.bundle.meaning, done.student
    shares = agreements(meaning, done.ours, done.theirs)
    agreement = "null" if meaning.choice is Choice.NONE else _agreement(shares)
    rows = ",".join(f'{{"index":{index},{row}}}' for index, row in enumerate(_BESIDE[meaning.choice](done, shares)))
    return (
        f'{{"student":{_side(student, student, done.ours, done.our_stages)},'
        f'"teacher":{_side(done.teacher, student, done.theirs, done.their_stages)},'
        f'"agreement":{agreement},"data":[{rows}]}}'
    ).encode()


def _side(model: Predictor, student: Predictor, outcomes: Sequence[Outcome], stages: Stages) -> str:
    return (
        f'{{"model":{model.name_json},"digest":"{model.manifest.seal}","data":[{data(student, outcomes, None, None)}],'
        f'"usage":{usage(stages)},"timing_ms":{timing(stages, stages.spent_s)}}}'
    )


def _agreement(shares: Sequence[float]) -> str:
    rows, agreed = len(shares), sum(share == 1 for share in shares)
    return f'{{"rows":{rows},"agreed":{agreed},"share":{sum(shares) / rows!r}}}'


def _labels(done: Compared, shares: Sequence[float]) -> list[str]:
    chosen, labels = done.student.bundle.meaning.chosen, done.student.labels_json
    sides = zip(shares, done.ours, done.theirs, sureness(done.student, done.ours), strict=True)
    return [
        f'"agree":{_SPELT[share == 1]},"student_label":{labels[chosen(ours.scores)[0]]},'
        f'"teacher_label":{labels[chosen(theirs.scores)[0]]},"confidence":{margin!r}'
        for share, ours, theirs, margin in sides
    ]


def _sets(_done: Compared, shares: Sequence[float]) -> list[str]:
    return [f'"agree":{_SPELT[share == 1]},"share":{share!r}' for share in shares]


def _numbers(done: Compared, _shares: Sequence[float]) -> list[str]:
    rows = []
    for ours, theirs in zip(done.ours, done.theirs, strict=True):
        differences = [one - other for one, other in zip(ours.scores, theirs.scores, strict=True)]
        listed = ",".join(
            f"{label}:{value!r}" for label, value in zip(done.student.labels_json, differences, strict=True)
        )
        rows.append(f'"difference":{{{listed}}}')
    return rows


_SPELT = ("false", "true")

_BESIDE: MappingProxyType[Choice, Callable[[Compared, Sequence[float]], list[str]]] = MappingProxyType(
    {Choice.BEST: _labels, Choice.EACH: _sets, Choice.NONE: _numbers, Choice.SPANS: _sets, Choice.ANSWER: _sets}
)
