"""The playground without a browser: which files there are, how they are sent, and what they may not hold."""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.routes.playground import POLICY
from service.settings import SettingProblem, Settings
from service.web import files
from service.web.files import PAGE, PATHS, read_files
from tests.running import PATIENCE_S, ROOT, Running, serving

WEB = ROOT / "service" / "web"
SOURCES = sorted(path for path in WEB.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))
SCRIPTS = [path for path in SOURCES if path.suffix == ".js"]
LONGEST = 250  # lines of a script
FORBIDDEN = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc",  # text as HTML
    r"\beval\b|new Function|setTimeout\(\s*[\"']",  # text as code
    r"(?<!xmlns=\")(?<!SVG = \")https?://",  # elsewhere
)


@pytest.fixture(scope="module")
def server(toy_models: Path) -> Iterator[Running]:
    with serving(toy_models) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx2.Client]:
    with server.client() as opened:
        yield opened


def name_of(path: str) -> str:
    return "index.html" if path == PAGE else path.rpartition("/")[2]


@pytest.mark.parametrize("path", PATHS)
def test_each_file_is_sent_as_it_is_and_asked_for_only_when_it_changed(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content) == (200, (WEB / name_of(path)).read_bytes())
    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == files._TYPES[name_of(path).rpartition(".")[2]]
    tag = answer.headers["etag"]
    for known in (tag, f'"old", W/{tag}', "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(path, headers={"if-none-match": '"old"'}).status_code == 200


def test_tags_differ_where_bytes_do() -> None:
    tags = {file.tag for file in read_files()}
    assert len(tags) == len(PATHS)
    assert all(re.fullmatch(r'"[0-9a-f]{20}"', tag) for tag in tags)


def test_every_file_of_the_folder_is_listed_and_packed() -> None:
    assert {path.name for path in SOURCES} == {name_of(path) for path in PATHS}
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["service"]
    assert [path.name for path in SOURCES if not any(fnmatch(f"web/{path.name}", pattern) for pattern in packed)] == []


@pytest.mark.parametrize(
    "target",
    [
        *("/playground", "/playground/", "/playground/index.html", "/playground/files.py", "/playground/none.js"),
        *("/playground/../files.py", "/playground/..%2ffiles.py", "/playground/%2e%2e/web/main.js"),
        *("//playground/main.js", "/playground//main.js", "/playground/main.js/", "/playground/main.js%00"),
    ],
)
def test_no_other_path_leads_to_a_file(server: Running, target: str) -> None:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
    connection.request("GET", target)  # as it is: a better client would tidy it up
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"import" not in answer.read()
    connection.close()


def test_it_can_be_switched_off(toy_models: Path) -> None:
    client = TestClient(create_app(Settings(models=toy_models, playground=False)))
    assert {client.get(path).status_code for path in PATHS} == {404}
    assert client.post("/", json={"inputs": "good"}).status_code == 503  # nothing is open: yet it is still a route


def test_a_package_that_lacks_a_file_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "files", lambda _package: tmp_path)
    with pytest.raises(SettingProblem, match=r"index\.html: .*install the package again, or .*--no-playground"):
        list(read_files())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_html_or_code(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert [found for pattern in FORBIDDEN for found in re.findall(pattern, text)] == []


@pytest.mark.parametrize(
    "planted", ["it.innerHTML = text", "eval(text)", 'src="https://cdn.example/x.js"', "import('http://x')"]
)
def test_that_would_be_found(planted: str) -> None:
    assert any(re.search(pattern, planted) for pattern in FORBIDDEN)


def test_the_page_is_whole() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'(?:src|href)="(playground/[^"]+)"', page))
    assert {f"/{path}" for path in linked} <= set(PATHS)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    pointed = re.findall(r'(?:for|aria-labelledby|aria-controls)="([^"]+)"|href="#([^"]+)"', page)
    described = [name for names in re.findall(r'aria-describedby="([^"]+)"', page) for name in names.split()]
    assert {first or second for first, second in pointed} | set(described) <= set(ids)
    wanted = {name for path in SCRIPTS for name in re.findall(r'byId\("([^"]+)"\)', path.read_text(encoding="utf-8"))}
    made = {"agreement-title", "times-title"}  # by scripts
    assert wanted - made <= set(ids)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_says_what_it_is_and_imports_what_there_is(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("// ")
    assert len(lines) < LONGEST
    assert all(len(line) <= 120 for line in lines)
    imported = re.findall(r'from "\./([^"]+)"', "\n".join(lines))
    assert {f"/playground/{name}" for name in imported} <= set(PATHS)
    assert script.name == "theme.js" or '"use strict"' not in lines  # a module is strict by itself


def test_the_live_view_counts_what_was_done(server: Running, client: httpx2.Client) -> None:
    before = {each["model"]: each for each in client.get("/v1/live").json()["data"]}
    assert [(name, each["role"]) for name, each in before.items()] == [
        ("toy@1", "student"),
        ("toy-teacher@1", "teacher"),
    ]
    for texts in (["good"] * 3, ["bad", "a very dull film ."]):
        client.post("/v1/classify", json={"input": texts}).raise_for_status()
    after = client.get("/v1/live").json()
    [student] = [each for each in after["data"] if each["model"] == "toy@1"]
    grown = {
        name: student[name] - before["toy@1"][name] for name in ("requests", "rows", "batched_rows", "queued_rows")
    }
    assert grown == {"requests": 2, "rows": 5, "batched_rows": 5, "queued_rows": 0}
    assert 1 <= student["batches"] - before["toy@1"]["batches"] <= 5
    filled = [each["batched_tokens"] - each["padding_tokens"] for each in (before["toy@1"], student)]
    assert filled[1] - filled[0] == 3 + 1 + 5  # tokens of the texts
    assert student["inference_seconds"] > before["toy@1"]["inference_seconds"]
    assert (student["agreement_alarm"], student["drift_alarm"], student["watched_rows"]) == (False, False, 0)
    [teacher] = [each for each in after["data"] if each["model"] == "toy-teacher@1"]
    assert teacher == before["toy-teacher@1"]


def test_the_live_view_adds_up_all_workers(toy_models: Path) -> None:
    with serving(toy_models, "--workers", "2") as server:
        for _ in range(8):  # each by a connection of its own, so that both workers are asked
            with server.client() as client:
                client.post("/v1/classify", json={"input": ["good", "bad"]}).raise_for_status()
        seen = []
        for _ in range(6):
            with server.client() as client:
                answer = client.get("/v1/live").json()
                seen.append((answer["seconds"], *[(each["requests"], each["rows"]) for each in answer["data"][:1]]))
    assert {counted for _, counted in seen} == {(8, 16)}
    assert [seconds for seconds, _ in seen] == sorted(seconds for seconds, _ in seen)  # one clock for all
