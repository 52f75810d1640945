"""`POST /v2/models/{name}[/versions/{version}]/infer`: the Open Inference Protocol v2 over REST.

Texts are BYTES tensors named `text` and, for a model that reads pairs, `text_pair`; data is row-major or nested.
The binary tensor extension is refused: texts are JSON strings already, so that it would gain nothing.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, NoReturn

from pydantic import Discriminator, Field, Tag

from service.api.door import HotRoute
from service.api.exchange import Ask, Desk, Extensible, TextPair, Wants, headers_of
from service.api.tensors import BINARY, BYTES, GIVEN, NO_BINARY, TEXT, TEXT_PAIR, Given
from service.call import Call, Reply
from service.errors import OIP, InvalidRequest
from service.oversight.cascade import Judged

PATHS = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
_PATTERNS = tuple(re.compile(path.replace("{", "(?P<").replace("}", ">[^/]+)")) for path in PATHS)

FLAT, NESTED = TAGS = ("row-major", "nested")


def _kind(value: object) -> str:
    return NESTED if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple) else FLAT


Data = Annotated[
    Annotated[tuple[str, ...], Tag(FLAT)] | Annotated[tuple[tuple[str, ...], ...], Tag(NESTED)], Discriminator(_kind)
]


class InferInput(Extensible):
    """One tensor of texts."""

    name: str = Field(description=f"`{TEXT}`, or `{TEXT_PAIR}` for the second texts of pairs")
    shape: tuple[int, ...] = Field(description="[n] or [n, 1]")
    datatype: str = Field(description=f"`{BYTES}`")
    data: Data = Field(description="The texts, row-major or nested")
    parameters: dict[str, Any] | None = None


class WantedOutput(Extensible):
    """One tensor of the answer."""

    name: str
    parameters: dict[str, Any] | None = Field(
        None, description="`classification: k` gives the k best labels of `scores`, as `score:index:label`"
    )


class InferRequest(Extensible):
    """Texts to classify."""

    id: str | None = Field(None, description="Comes back with the answer")
    inputs: tuple[InferInput, ...]
    outputs: tuple[WantedOutput, ...] | None = Field(None, description="Unset: all that the model gives")
    parameters: dict[str, Any] | None = Field(
        None, description="`truncate: false` refuses texts with more tokens than the model reads"
    )


class InferOutput(Extensible):
    """One tensor, row-major."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: tuple[str, ...] | tuple[float, ...] | tuple[bool, ...]


class InferResponse(Extensible):
    """Answers in the order of the input."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[InferOutput, ...]


def hot(desk: Desk) -> list[HotRoute]:
    """`…/infer`, with and without a version."""
    return [
        HotRoute(
            path,
            desk.endpoint(_infer(desk, pattern), OIP, path),
            "Classify texts (Open Inference Protocol)",
            InferRequest,
            InferResponse,
            pattern,
            of_model=True,
        )
        for path, pattern in zip(PATHS, _PATTERNS, strict=True)
    ]


def _infer(desk: Desk, pattern: re.Pattern[str]) -> Callable[[Call], Awaitable[Reply]]:
    async def work(call: Call) -> Reply:
        if call.header(BINARY) is not None:
            _refuse(BINARY.decode(), NO_BINARY)
        asked = desk.receive(call, InferRequest, TAGS)
        wanted = _wanted(asked)
        place = pattern.fullmatch(call.path)
        assert place is not None  # it led us here
        named = place.groupdict()
        done = await desk.classify(
            call,
            Ask(
                _texts(asked.inputs),
                TEXT,
                named["name"],
                named.get("version"),
                _truncate(asked.parameters),
                pairs_by=f"; give the tensors {TEXT} and {TEXT_PAIR}",
                wants=Wants.ANY,
            ),
        )
        return Reply(render(done, asked.id, wanted), headers=headers_of(done))

    return work


def render(done: Judged, request_id: str | None, wanted: Sequence[WantedOutput]) -> bytes:
    """The body of an InferResponse, written directly."""
    manifest, given = done.predictor.manifest, GIVEN[done.predictor.bundle.meaning.choice]
    if wanted:
        offered = {tensor.name: tensor for tensor in given}
        unknown = [output.name for output in wanted if output.name not in offered]
        if unknown:
            _refuse("outputs", f"{manifest.name} does not give {unknown[0]}; it gives {', '.join(offered)}")
        outputs = [_tensor(done, offered[output.name], _best(output)) for output in wanted]
    else:
        outputs = [_tensor(done, tensor, None) for tensor in given]
    given_id = "" if request_id is None else f'"id":{json.dumps(request_id)},'
    # The format allows nothing in names and versions that JSON would have to escape.
    return (
        f'{{"model_name":"{manifest.name}","model_version":"{manifest.version}",{given_id}'
        f'"outputs":[{",".join(outputs)}]}}'
    ).encode()


def _tensor(done: Judged, given: Given, best: int | None) -> str:
    rows, labels = len(done.outcomes), len(done.predictor.manifest.labels)
    if best is not None:
        if given.name != "scores":
            _refuse("outputs", "classification is for scores alone")
        columns, datatype, elements = min(best, labels), BYTES, _ranked(done, best)
    else:
        columns, datatype, elements = labels, given.datatype, given.elements(done.predictor, done.outcomes)
    shape = f"{rows},{columns}" if given.wide else str(rows)
    return f'{{"name":"{given.name}","datatype":"{datatype}","shape":[{shape}],"data":[{",".join(elements)}]}}'


def _ranked(done: Judged, best: int) -> list[str]:
    """Triton's classification extension: `score:index:label`, the best first."""
    labels = done.predictor.manifest.labels
    ranked = [
        (score, place)
        for scores, _, _ in done.outcomes
        for place, score in sorted(enumerate(scores), key=lambda pair: -pair[1])[:best]
    ]
    return [json.dumps(f"{score:f}:{place}:{labels[place]}") for score, place in ranked]


def _wanted(asked: InferRequest) -> Sequence[WantedOutput]:
    """The outputs that were asked for. Raises InvalidRequest for what none of our models gives."""
    wanted = asked.outputs or ()
    names = [output.name for output in wanted]
    if len(set(names)) < len(names):
        _refuse("outputs", "each output once")
    for parameters in (asked.parameters, *(output.parameters for output in wanted)):
        if parameters and (parameters.get("binary_data") or parameters.get("binary_data_output")):
            _refuse("outputs", NO_BINARY)
    return wanted


def _best(output: WantedOutput) -> int | None:
    best = (output.parameters or {}).get("classification")
    if best is not None and (type(best) is not int or best < 1):
        _refuse("outputs", "classification is a number from 1 on")
    return best


def _truncate(parameters: Mapping[str, Any] | None) -> bool:
    truncate = (parameters or {}).get("truncate", True)
    if not isinstance(truncate, bool):
        _refuse("parameters", "truncate is true or false")
    return bool(truncate)


def _texts(inputs: Sequence[InferInput]) -> Sequence[str] | Sequence[TextPair]:
    named = {tensor.name: tensor for tensor in inputs}
    if len(named) < len(inputs):
        _refuse("inputs", "each input once")
    if named.keys() == {TEXT}:
        return _elements(named[TEXT])
    if named.keys() != {TEXT, TEXT_PAIR}:
        _refuse("inputs", f"the inputs are {TEXT}, or {TEXT} and {TEXT_PAIR}")
    first, second = _elements(named[TEXT]), _elements(named[TEXT_PAIR])
    if len(first) != len(second):
        _refuse("inputs", f"{TEXT} and {TEXT_PAIR} must have the same shape")
    return [TextPair(text=text, text_pair=other) for text, other in zip(first, second, strict=True)]


def _elements(tensor: InferInput) -> Sequence[str]:
    """The texts of a tensor whose shape is true."""
    shape, parameters = tensor.shape, tensor.parameters or {}
    if "binary_data_size" in parameters or "shared_memory_region" in parameters:
        _refuse(tensor.name, NO_BINARY)
    if parameters.get("content_type", "str") != "str":
        _refuse(tensor.name, "the content type is str: texts as they are")
    if tensor.datatype != BYTES:
        _refuse(tensor.name, f"the datatype is {BYTES}")
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or shape[0] < 0:
        _refuse(tensor.name, "the shape is [n] or [n, 1]")
    if len(tensor.data) != prod(shape):
        _refuse(tensor.name, f"the shape has {prod(shape)} elements and the data {len(tensor.data)}")
    if all(isinstance(element, str) for element in tensor.data):
        return [str(element) for element in tensor.data]
    if len(shape) == 1 or any(len(row) != 1 for row in tensor.data):
        _refuse(tensor.name, "the data is nested otherwise than the shape says")
    return [row[0] for row in tensor.data]


def _refuse(field: str, why: str) -> NoReturn:
    raise InvalidRequest.at(field, why)
