"""`python -m tests.prove.schema --examples 500`: does the service do what its OpenAPI document says?

Schemathesis makes requests from the document, good ones and bad ones, and sends them to a real server: as a stranger,
with a key, and as an admin. No answer may have a status, a media type or a body that the document does not describe,
bad data must be refused, and no answer but the documented 503 may be a fault of the server.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, CheckContext, GenerationMode, Response
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tests.prove.bounds import Bound, conclude, run
from tests.running import PATIENCE_S, serving
from tests.service.api.access import ADMIN, KEY
from tests.toys import toy

AnyCase = Case[Any]
AnyOperation = APIOperation[Any, Any, Any, Any]

CALLERS: Mapping[str, str | None] = {"stranger": None, "key": KEY, "admin": ADMIN}
FLAGS = (
    *("--versions", "2", "--default", "toy", "--max-peer-connections", "0", "--log-level", "error"),
    *("--api-keys", KEY, "--admin-keys", ADMIN),
)
# Names and versions that there are: those that are made up are hardly ever found.
KNOWN = ({"name": "toy"}, {"name": "tags"}, {"name": "stars"}, {"name": "same"})
TENSORS = st.lists(st.text(max_size=50), min_size=1, max_size=5).map(
    lambda texts: [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]
)
FITTING: Mapping[str, dict[str, object]] = {
    "/predict": {"inputs": "good"},
    "/": {"inputs": "good"},
    "/v1/compare": {"input": "good"},
    "/v1/answer": {"input": {"question": "good ?", "context": "a film"}},
}
LISTED = 20  # failures in the report


def faultless(_context: CheckContext, response: Response, _case: AnyCase) -> None:
    """No status of 500 or more but 503."""
    if response.status_code >= 500 and response.status_code != requests.codes.unavailable:
        raise AssertionError(f"status {response.status_code}")


CHECKS = [
    faultless,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
"""Not among them: that good data is always taken. A document cannot say which names there are, nor who reads pairs."""


@dataclass(slots=True)
class Found:
    """What one operation showed."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


def document(url: str) -> Any:
    """As the server itself gives it."""
    answer = requests.get(f"{url}/openapi.json", headers=bearer(ADMIN), timeout=PATIENCE_S)
    answer.raise_for_status()
    return answer.json()


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def explore(
    url: str, described: Any, examples: int, dice: int = 0, known: Sequence[dict[str, str]] = KNOWN
) -> dict[str, Found]:
    """So many requests for each operation, caller, kind of data, and each of the known names and a made-up one."""
    found: dict[str, Found] = {}
    api = schemathesis.openapi.from_dict(described)
    api.config.update(base_url=url)
    api.config.generation.update(with_security_parameters=False)  # we send keys ourselves
    with requests.Session() as session:
        for operation in sorted(_operations(api), key=lambda each: each.path.endswith("/unload")):  # others ask before
            record = found.setdefault(operation.label, Found())
            for caller, names, mode in _ways(operation.path, known):
                strategy = operation.as_strategy(generation_mode=mode, path_parameters=names)
                if names and mode is GenerationMode.POSITIVE and operation.path.endswith("/infer"):
                    strategy = st.builds(_whole, strategy, TENSORS)
                if caller == "admin" and mode is GenerationMode.POSITIVE and operation.path in FITTING:
                    strategy = st.builds(_fitting, strategy)
                _ask(strategy, examples, dice, session, bearer(CALLERS[caller]), record)
    return found


def _operations(api: schemathesis.BaseSchema) -> Iterator[AnyOperation]:
    for result in api.get_all_operations():
        assert isinstance(result, Ok), result  # else the document itself is broken
        yield result.ok()


def _ways(path: str, known: Sequence[dict[str, str]]) -> Iterator[tuple[str, dict[str, str] | None, GenerationMode]]:
    for caller in CALLERS:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            yield caller, None, mode
            if "{name}" in path and caller != "stranger":
                for name in known:
                    yield caller, name | ({"version": "1"} if "{version}" in path else {}), mode


def _whole(case: Any, tensors: list[dict[str, object]]) -> Any:
    """With tensors whose shapes are true, which chance never makes."""
    case.body = case.body | {"inputs": tensors, "outputs": None, "parameters": None}
    return case


def _fitting(case: Any) -> Any:
    """With texts that the model reads which is asked, and nothing else: what a text is to it no document says."""
    case.body = FITTING[case.path]
    return case


def _ask(
    strategy: Any, examples: int, dice: int, session: requests.Session, headers: dict[str, str], record: Found
) -> None:
    @seed(dice)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def asking(case: AnyCase) -> None:
        response = case.call(session=session, headers=headers, timeout=PATIENCE_S)
        record.requests += 1
        record.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS, headers=headers)
        except FailureGroup as group:
            record.failures.update(_line(failure, response) for failure in group.exceptions)

    try:
        asking()
    except Unsatisfiable:  # nothing can be wrong where nothing is asked for
        return


def _line(failure: BaseException, response: Response) -> str:
    said = failure.title if isinstance(failure, Failure) else type(failure).__name__
    asked = response.request.body
    body = asked[:200] if isinstance(asked, bytes | str) else asked
    return f"{said}: {str(failure)[:300]!r} for {response.request.url} {body!r}: {response.status_code}"


def bounds_of(found: Mapping[str, Found], least: int) -> list[Bound]:
    """What is promised."""
    answered = sum(200 in each.statuses for each in found.values())
    return [
        Bound("answers that the document does not describe", sum(each.failures.total() for each in found.values()), 0),
        Bound("requests", sum(each.requests for each in found.values()), least, at_least=True),
        Bound("operations that answered with 200 at least once", answered, len(found), at_least=True),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="for each operation, caller and kind of data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    asked = parser.parse_args()
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        toy.publish_zoo(Path(folder))
        with serving(Path(folder), *FLAGS) as server:
            found = explore(server.url, document(server.url), asked.examples, asked.seed)
    details = {
        "examples": asked.examples,
        "seed": asked.seed,
        "schemathesis": schemathesis.__version__,
        "seconds": round(perf_counter() - started, 1),
        "operations": {label: _shown(each) for label, each in found.items()},
    }
    return conclude(bounds_of(found, asked.examples * len(found)), details, asked.json)


def _shown(found: Found) -> dict[str, Any]:
    return asdict(found) | {
        "statuses": {str(status): count for status, count in sorted(found.statuses.items())},
        "failures": dict(found.failures.most_common(LISTED)),
    }


if __name__ == "__main__":
    run(main)
