"""The service does what its OpenAPI document says, and a document that lies is found out."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prove.schema import FLAGS, KNOWN, Found, bounds_of, document, explore
from tests.running import Running, serving

EXAMPLES = 2

Spoil = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def server(zoo: Path) -> Iterator[Running]:
    with serving(zoo, *FLAGS) as server:
        yield server


@pytest.fixture(scope="module")
def described(server: Running) -> Any:
    return document(server.url)


def of(described: Any, path: str) -> Any:
    """A copy of the document with one path."""
    return copy.deepcopy(described) | {"paths": {path: copy.deepcopy(described["paths"][path])}}


def failures(found: dict[str, Found]) -> list[str]:
    return [failure for each in found.values() for failure in each.failures]


def test_the_service_does_what_the_document_says(server: Running, described: Any) -> None:
    found = explore(server.url, described, EXAMPLES, known=KNOWN[1:2])
    assert failures(found) == []
    assert [str(bound) for bound in bounds_of(found, EXAMPLES * len(found)) if not bound.kept] == []


LIES: tuple[tuple[str, Spoil], ...] = (
    ("Undocumented status code", lambda paths: paths["get"]["responses"].pop("401")),
    ("Undocumented Content-Type", lambda paths: paths["get"]["responses"]["200"].update(content={"text/csv": {}})),
    ("Response violates schema", lambda paths: _schema(paths).update(required=["nowhere"], type="object")),
)


def _schema(paths: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = paths["get"]["responses"]["200"]["content"]["application/json"]
    content["schema"] = {}
    return content["schema"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("told", "spoil"), LIES, ids=[told for told, _ in LIES])
def test_a_document_that_lies_is_found_out(server: Running, described: Any, told: str, spoil: Spoil) -> None:
    lying = of(described, "/v1/models")
    spoil(lying["paths"]["/v1/models"])
    assert any(told in failure for failure in failures(explore(server.url, lying, 1)))


def test_bad_data_that_is_taken_is_found_out(server: Running, described: Any) -> None:
    lying = of(described, "/v2/repository/index")
    lying["paths"]["/v2/repository/index"]["post"]["requestBody"]["required"] = True
    lying["components"]["schemas"]["IndexRequest"].update(required=["ready"])
    assert failures(explore(server.url, lying, 10))


def test_every_route_says_who_needs_a_key(described: Any) -> None:
    needed = {
        (method, path): operation.get("security")
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    public = {path for (_, path), security in needed.items() if security is None}
    admins = {path for (_, path), security in needed.items() if security is not None and {} not in security}
    assert public == {"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
    assert admins == {f"/v2/repository/models/{{name}}/{verb}" for verb in ("load", "unload")}
