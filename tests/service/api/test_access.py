"""Deny by default: every route, method, kind of key and spelling of a path, against a checked-in table."""

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match, Route

from service.api.gate import Access, access_of
from service.app import create_app
from service.settings import Settings
from service.web.files import PATHS as PATHS_OF_THE_PAGE
from tests.running import PATIENCE_S, Running, serving
from tests.service.api.access import ADMIN, BAD, CALLERS, KEY, METHODS, expected, guarded, outcomes, routes, table

# Beside those of the document: what it does not list, what there is not, and a model of an odd name.
HIDDEN = ("/docs", "/openapi.json", "/nowhere", "/admin", "/v1", "/v2/repository", "/v2/models/repository/infer")
PATHS = sorted({line.path for line in table()} | set(HIDDEN))
# How a path may be written so that a router, or a list of open paths, could take it for another one.
TRICKS = (
    *("{}/", "//{}", "/{}", "{}//", "/.{}", "{}.", "{}%2e", "{};a=b", "{}%3b", "{}%2f", "{}%00", "{}%0a", "{}%20"),
    *(
        "{}/../livez",
        "/livez/..{}",
        "/livez;{}",
        "/livez%2f..{}",
        "/livez/.{}",
        "/livez%3f{}",
        "/livez%23{}",
        "{}/livez",
    ),
)
CHANGES = [Route(f"/v2/repository/models/{{model}}/{verb}", FastAPI(), methods=["POST"]) for verb in ("load", "unload")]


def filled(path: str) -> str:
    return path.replace("{}", "toy")


@pytest.mark.parametrize("path", PATHS)
def test_the_gate_does_what_the_table_says(path: str) -> None:
    for method in METHODS:
        assert outcomes(guarded(), access_of(method, filled(path))) == expected(method, path), method


def test_the_table_has_every_route_of_the_openapi_document(tmp_path: Path) -> None:
    document = create_app(Settings(models=tmp_path)).api.openapi()
    documented = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, methods in document["paths"].items()
        for method in methods
    }
    files = {("GET", path) for path in PATHS_OF_THE_PAGE}
    assert (documented | files) - set(routes()) == set()
    assert set(routes()) - (documented | files) == set()


@pytest.mark.parametrize("trick", [*TRICKS, "{}\n", "{} ", "{}\x00", "http://x{}"])
def test_no_other_spelling_of_a_path_opens_it(trick: str) -> None:
    for path in PATHS:
        for method in METHODS:
            found = outcomes(guarded(), access_of(method, trick.format(filled(path))))
            assert found[:2] == ("401", "401"), (method, path)
            assert "repository/models" not in path or found[2] == "403", (method, path)


@pytest.mark.parametrize("path", ["/LIVEZ", "/Livez", "/v2/Health/Live", "/livez\u200b", "", "*", "livez", "/metrics?"])
def test_only_the_exact_path_is_open_to_all(path: str) -> None:
    assert access_of("GET", path) is Access.INFER


pieces = st.sampled_from(
    ["", "v2", "repository", "Repository", "models", "index", "load", "unload", ";", "..", "%2f", "\n"]
)
ends = st.sampled_from(["", "\n", "/", " ", "\x00"])
changes = st.sampled_from(["/v2/repository/models/x/load", "/v2/repository/models/\n/unload", "/v2/repository/index"])
paths = st.lists(pieces | st.text(max_size=3), max_size=9).map("/".join) | st.builds(str.__add__, changes, ends)


@given(paths, st.sampled_from(METHODS) | st.text(max_size=5))
def test_whatever_a_router_takes_for_a_change_needs_an_admin_key(path: str, method: str) -> None:
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    if any(route.matches(scope)[0] is not Match.NONE for route in CHANGES):
        assert access_of(method, path) is Access.ADMIN
    if access_of(method, path) is Access.PUBLIC:
        assert expected(method, path)[0] == "pass"


def test_a_change_with_a_line_end_behind_it_is_still_a_change() -> None:
    path = "/v2/repository/models/toy/load\n"  # what %0A becomes; Starlette's patterns end before it
    assert CHANGES[0].matches({"type": "http", "method": "POST", "path": path})[0] is Match.FULL
    assert access_of("POST", path) is Access.ADMIN


@pytest.fixture(scope="module")
def server(toy_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(KEY)
    (folder / "admins").write_text(ADMIN)
    flags = ("--api-keys-file", str(folder / "keys"), "--admin-keys-file", str(folder / "admins"))
    with serving(toy_models, *flags) as running:
        yield running


def status(server: Running, method: str, target: str, headers: dict[str, str]) -> int:
    """Of one request with exactly this target; 400 where the server closes instead of answering."""
    host, port = server.url.removeprefix("http://").split(":")
    with closing(HTTPConnection(host, int(port), timeout=PATIENCE_S)) as connection:
        connection.putrequest(method, target, skip_host=True)
        for name, value in ({"host": "x", "content-length": "0"} | headers).items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


@pytest.mark.parametrize("path", PATHS)
def test_the_server_does_what_the_table_says(server: Running, path: str) -> None:
    for method in METHODS:
        for key, said in zip(CALLERS, expected(method, path), strict=True):
            found = status(server, method, filled(path), {} if key is None else {"x-api-key": key})
            assert found < 500
            if method in ("TRACE", "BREW") and found in (400, 405, 501):
                continue  # refused before anybody asked for a key
            assert (str(found) if found in (401, 403) else "pass") == said, (method, key)


@pytest.mark.parametrize("trick", TRICKS)
def test_the_server_lets_no_other_spelling_in(server: Running, trick: str) -> None:
    for path in PATHS:
        for method in ("GET", "POST"):
            found = status(server, method, trick.format(filled(path)), {})
            assert found in (400, 401), (method, path)


@pytest.mark.parametrize("host", ["x/livez?", "livez", "x/../livez", "127.0.0.1"])
def test_the_host_is_never_asked(server: Running, host: str) -> None:
    for method, path in routes():
        found = status(server, method, filled(path), {"host": host})
        assert found in (400, 401) or expected(method, path)[0] == "pass"
        assert status(server, method, filled(path), {"host": host, "x-api-key": BAD}) in (400, found)
