"""Texts and scores as the tensors of the Open Inference Protocol: their names, types and elements.

It knows what a model says of texts. It knows nothing of requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import dumps
from types import MappingProxyType

from service.api.entities import listed, spans
from service.bundle.passages import Search
from service.bundle.tasks import Choice, Meaning
from service.predictors import Outcome, Predictor

TEXT, TEXT_PAIR = "text", "text_pair"
BINARY = b"inference-header-content-length"
"""The header of the protocol's binary extension: behind so many bytes of JSON come the tensors."""

NO_BINARY = "binary tensors are not offered; send and ask for JSON (Triton's client: binary_data=False everywhere)"

BYTES, FLOATS, BOOL = "BYTES", "FP32", "BOOL"


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that answers can hold: its elements as JSON."""

    name: str
    datatype: str
    wide: bool  # one column a label
    elements: Callable[[Predictor, Sequence[Outcome]], list[str]]
    json: bool = False  # its strings are JSON


def _labels(predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    labels = predictor.labels_json
    return [labels[scores.index(max(scores))] for scores, _, _ in outcomes]


def _chosen(predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    meaning = predictor.bundle.meaning
    return [held for scores, _, _ in outcomes for held in _held(meaning, scores)]


def _held(meaning: Meaning, scores: Sequence[float]) -> list[str]:
    chosen = meaning.chosen(scores)
    return ["true" if place in chosen else "false" for place in range(len(scores))]


def _scores(_predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    return [repr(score) for scores, _, _ in outcomes for score in scores]


def _logits(_predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    return [repr(logit) for _, logits, _ in outcomes for logit in logits]


def _entities(_predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    """Texts have different numbers of them: each text's are one string, which is JSON itself."""
    return [dumps(listed(outcome.entities)) for outcome in outcomes]


def _answers(_predictor: Predictor, outcomes: Sequence[Outcome]) -> list[str]:
    """The best one of each text."""
    return [dumps(spans(outcome.answers(Search()))) for outcome in outcomes]


_NUMBERS = (Given("scores", FLOATS, True, _scores), Given("logits", FLOATS, True, _logits))
GIVEN: MappingProxyType[Choice, tuple[Given, ...]] = MappingProxyType(
    {
        Choice.BEST: (Given("label", BYTES, False, _labels), *_NUMBERS),
        Choice.EACH: (Given("chosen", BOOL, True, _chosen), *_NUMBERS),
        Choice.NONE: _NUMBERS,
        Choice.VECTOR: (Given("vector", FLOATS, True, _scores), Given("logits", FLOATS, True, _logits)),
        Choice.SPANS: (Given("entities", BYTES, False, _entities, json=True),),
        Choice.ANSWER: (Given("answer", BYTES, False, _answers, json=True),),
    }
)
"""What each kind of model gives, in this order where nothing else is asked for."""
