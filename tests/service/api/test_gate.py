"""Keys: where they come from, how they are sent and compared, how they rotate, and that nothing ever shows one."""

import ast
import asyncio
import hmac
import logging
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from service.api import gate as module
from service.api.gate import Access, Gate, read_keys, with_cors
from service.errors import Forbidden, Unauthorized
from service.settings import SettingProblem, Settings, problem_line
from tests.running import client_of
from tests.service.api.access import ADMIN, BAD, CALLERS, KEY, OTHER, guarded, outcome, outcomes


def headers(key: str | None) -> list[tuple[bytes, bytes]]:
    return [] if key is None else [(b"x-api-key", key.encode())]


def test_without_keys_all_may_ask_and_nobody_may_change() -> None:
    gate = Gate(Settings())
    assert gate.admit(Access.INFER, headers(None)) is gate.admit(Access.METRICS, headers(BAD)) is None
    for key in CALLERS:
        with pytest.raises(Forbidden, match="admin_keys or admin_keys_file"):
            gate.admit(Access.ADMIN, headers(key))


def test_an_admin_key_alone_closes_nothing_else() -> None:
    gate = Gate(Settings.model_validate({"admin_keys": ADMIN}))
    assert gate.admit(Access.INFER, headers(None)) is gate.admit(Access.METRICS, headers(None)) is None
    assert outcomes(gate, Access.ADMIN) == ("401", "401", "401", "pass")


def test_without_an_admin_key_a_stranger_still_gets_401_first() -> None:
    gate = Gate(Settings.model_validate({"api_keys": KEY}))
    assert outcomes(gate, Access.ADMIN) == ("401", "401", "403", "401")


def test_metrics_can_be_left_open() -> None:
    gate = guarded(public_metrics=True)
    assert outcomes(gate, Access.METRICS) == ("pass",) * 4
    assert outcome(gate, Access.INFER, None) == "401"


@pytest.mark.parametrize(
    "sent",
    [
        [(b"authorization", f"Bearer {KEY}".encode())],
        [(b"authorization", f"bearer   {KEY} ".encode())],
        [(b"x-api-key", KEY.encode())],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", KEY.encode())],
        [(b"x-api-key", KEY.encode()), (b"authorization", f"Bearer {KEY}".encode())],
    ],
)
def test_a_key_may_come_in_either_header(sent: list[tuple[bytes, bytes]]) -> None:
    assert guarded().admit(Access.INFER, sent) == "key-" + module._digest(KEY.encode()).hex()[:8]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([], "an API key is needed"),
        ([(b"authorization", KEY.encode())], "an API key is needed"),
        ([(b"authorization", b"Bearer")], "not known"),
        ([(b"authorization", b"Bearer ")], "not known"),
        ([(b"x-api-key", b"")], "not known"),
        ([(b"x-api-key", KEY[:-1].encode())], "not known"),
        ([(b"x-api-key", KEY.upper().encode())], "not known"),
        ([(b"x-api-key", b"\xff" * 20)], "not known"),
        ([(b"x-api-key", KEY.encode()), (b"x-api-key", BAD.encode())], "two different"),
        ([(b"x-api-key", KEY.encode()), (b"authorization", f"Bearer {ADMIN}".encode())], "two different"),
        ([(b"cookie", f"x-api-key={KEY}".encode())], "an API key is needed"),
    ],
)
def test_anything_else_is_no_key(sent: list[tuple[bytes, bytes]], said: str) -> None:
    with pytest.raises(Unauthorized, match=said) as caught:
        guarded().admit(Access.INFER, sent)
    assert (caught.value.status, caught.value.headers["www-authenticate"]) == (401, "Bearer")


def test_every_key_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    real = hmac.compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append(len(second))
        return real(first, second)

    gate = Gate(Settings.model_validate({"api_keys": f"{KEY},{OTHER}", "admin_keys": ADMIN}))
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (KEY, OTHER, ADMIN, BAD, KEY[:-1]):
        outcome(gate, Access.INFER, key)
    assert compared == [32] * 5 * 3


def test_digests_are_compared_by_compare_digest_alone() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert [text for text in compared if re.search(r"digest (==|!=)|(==|!=) \S*digest", text)] == []


def test_keys_have_names_for_logs_and_queues() -> None:
    settings = Settings.model_validate({"api_keys": f"shop:{KEY}, shop:{OTHER}", "admin_keys": f":{ADMIN}"})
    names = [(key.name, key.admin) for key in read_keys(settings)]
    assert names == [("shop", False), ("shop", False), (f"key-{module._digest(ADMIN.encode()).hex()[:8]}", True)]
    assert str(Gate(settings)) == "2 API keys, 1 admin key"
    assert str(Gate(Settings())) == "no API keys, no admin keys"


def test_nothing_that_can_be_printed_holds_a_key() -> None:
    settings = Settings.model_validate({"api_keys": f"shop:{KEY},{OTHER}", "admin_keys": ADMIN})
    gate = Gate(settings)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {gate} {gate._ring!r}"
    assert not any(key in shown for key in (KEY, OTHER, ADMIN))


def test_not_even_the_line_about_a_wrong_secret_shows_it() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"api_keys": 1234567890})
    assert problem_line(caught.value).startswith("--api-keys (or UNDERSTUDY_API_KEYS): ")
    assert "1234567890" not in f"{problem_line(caught.value)} {caught.value}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def with_file(file: Path) -> Settings:
    return Settings.model_validate({"api_keys_file": file})


def test_a_file_may_have_comments_names_and_any_line_ends(file: Path) -> None:
    file.write_bytes(f"\ufeff# for the shop ✓\r\n\r\nshop:{KEY}\r\n  {OTHER}\n".encode())
    assert [key.name.partition("-")[0] for key in read_keys(with_file(file))] == ["shop", "key"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no key in it"),
        (b"# only a comment\n\n", "no key in it"),
        (b"short\n", "line 1: a key has 16 to 512 printable"),
        (f"{KEY}\n{'a' * 513}\n".encode(), "line 2: a key has 16 to 512"),
        (f"{KEY} # mine\n".encode(), "line 1: a key has"),
        ("schlüsselschlüsselschlüssel\n".encode(), "line 1: a key has"),
        (f"{KEY}\x07\n".encode(), "line 1: a key has"),
        (f"a name:{KEY}\n".encode(), "line 1: the name before the colon"),
        (f"{KEY}:\n".encode(), "line 1: a key has"),
        (f"{KEY}\n# again\n{KEY}\n".encode(), "line 3: this key was given before"),
        (b"\xff\xfe" * 20, "not UTF-8"),
        (b"a" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_bad_file_is_named_in_one_line_that_shows_no_key(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingProblem) as caught:
        Gate(with_file(file))
    line = str(caught.value)
    assert line.startswith(str(file))
    assert said in line
    assert "\n" not in line
    assert KEY not in line
    assert "schl" not in line


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path, Path("/dev/zero")):
        with pytest.raises(SettingProblem, match=f"{place}: no such file"):
            Gate(with_file(place))


@pytest.mark.parametrize("keys", [",", " , ", "short", f"{KEY},short"])
def test_a_bad_variable_is_named_too(keys: str) -> None:
    with pytest.raises(SettingProblem, match=r"^api_keys") as caught:
        Gate(Settings.model_validate({"api_keys": keys}))
    assert "short" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_is_either_an_inference_key_or_an_admin_key(file: Path) -> None:
    file.write_text(KEY)
    with pytest.raises(SettingProblem, match="given before"):
        Gate(Settings.model_validate({"api_keys_file": file, "admin_keys": KEY}))


def test_keys_rotate_by_reload(file: Path) -> None:
    file.write_text(KEY)
    gate = Gate(with_file(file))
    for content, passing in ((f"{KEY}\n{OTHER}", {KEY, OTHER}), (OTHER, {OTHER})):
        file.write_text(content)
        gate.reload()
        assert {key for key in (KEY, OTHER, BAD) if outcome(gate, Access.INFER, key) == "pass"} == passing


def test_a_bad_file_keeps_the_old_keys_and_says_so_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(KEY)
    gate = Gate(with_file(file))
    changes: list[Callable[[], object]] = [lambda: file.write_text(""), lambda: file.write_text("short"), file.unlink]
    for change in changes:
        change()
        gate.reload()
        gate.reload()
        assert [outcome(gate, Access.INFER, key) for key in (None, KEY, BAD)] == ["401", "pass", "401"]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert all("the keys stay as they are" in record.getMessage() for record in caplog.records)
    caplog.clear()
    file.write_text(OTHER)
    gate.reload()
    gate.reload()
    assert [record.getMessage() for record in caplog.records] == ["the keys changed: 1 API key, no admin keys"]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_web_pages_may_ask_only_where_they_were_let_in() -> None:
    async def visit(origins: tuple[str, ...] | None, origin: str) -> tuple[httpx2.Response, httpx2.Response]:
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        async with client_of(with_cors(hello, origins)) as client:
            return await client.options("/", headers=asked), await client.post("/", headers={"origin": origin})

    name = "access-control-allow-origin"
    preflight, answer = asyncio.run(visit(("https://a.example",), "https://a.example"))
    assert (preflight.status_code, preflight.headers[name], answer.status_code) == (200, "https://a.example", 401)
    assert answer.headers[name] == "https://a.example"
    assert "access-control-allow-credentials" not in answer.headers
    preflight, answer = asyncio.run(visit(("https://a.example",), "https://b.example"))
    assert (preflight.status_code, name in preflight.headers, name in answer.headers) == (400, False, False)
    preflight, answer = asyncio.run(visit(None, "https://a.example"))
    assert (preflight.status_code, name in preflight.headers, name in answer.headers) == (401, False, False)


@pytest.mark.parametrize(
    "origin", ["a.example", "https://a.example/", "https://A.example", "null", "https://*.a", "* "]
)
def test_an_origin_is_written_as_browsers_write_it(origin: str) -> None:
    if origin.strip() == "*":
        assert Settings.model_validate({"cors_origins": origin}).cors_origins == ("*",)
        return
    with pytest.raises(ValueError, match="scheme://host"):
        Settings.model_validate({"cors_origins": f"https://a.example:8443,{origin}"})
