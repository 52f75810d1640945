"""Texts, keys, headers and paths appear in no log, no metric and no trace, whatever goes wrong."""

import base64
from pathlib import Path

import pytest

from tests.service import canary


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canary.poisoned(tmp_path_factory.mktemp("poisoned"))


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_nothing_of_a_request_is_ever_seen_again(models: Path, tmp_path: Path, log_format: str) -> None:
    seen = canary.visited(models, tmp_path / "log", log_format=log_format)
    assert seen.leaks() == {}
    assert {200, 400, 404, 405, 413, 415, 422, 500} <= set(seen.statuses)  # so that there was something to leak
    assert b"understudy_requests_total" in seen.metrics
    assert b"a fault of ours" not in seen.log
    assert {401, 403} <= set(seen.statuses)
    assert b"/v1/classify" in seen.log  # the access log
    assert b"failed on text" in seen.log
    assert any(b"POST /v1/classify" in post for post in seen.traces)
    assert all(post.startswith(b"/v1/traces") for post in seen.traces)  # ours only


def test_texts_that_are_kept_are_in_their_file_alone(models: Path, tmp_path: Path) -> None:
    kept = tmp_path / "texts.db"
    seen = canary.visited(models, tmp_path / "log", capture=str(kept), capture_share="1")
    assert seen.leaks() == {}
    assert b"understudy_captured_texts_total" in seen.metrics
    assert canary.found_in(kept.read_bytes()) == [canary.TEXT]


@pytest.mark.parametrize("word", canary.CANARIES)
def test_a_leak_would_be_found(word: str) -> None:
    for shown in (word, word.upper(), f'{{"text":"a\\n{word}\\u2713"}}', f"/x?q={word}&y=%20"):
        assert canary.found_in(shown.encode()) == [word]
    for before in ("", "a", "ab", "abc"):
        assert word in canary.found_in(base64.b64encode(f"{before}{word}".encode()))
    assert canary.found_in(b"nothing here") == []
    found = canary.Seen(word.encode(), word.encode(), word.encode(), [b"", word.encode()]).leaks()
    assert found == {place: [word] for place in ("metrics", "stdout", "log", "traces")}
