"""Flag before environment before default; a wrong value is named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.bundle.manifest import Precision
from service.settings import PREFIX, Settings, problem_line


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_the_defaults_are_for_one_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, Path("models"))
    assert settings.precision is Precision.EXACT


def test_the_environment_comes_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_PORT", "9000")
    monkeypatch.setenv("UNDERSTUDY_PRECISION", "fast")
    assert (Settings().port, Settings().precision) == (9000, Precision.FAST)


def test_a_flag_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_PORT", "9000")
    assert Settings(port=9001).port == 9001


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_PORT", "")
    assert Settings().port == 8000


def test_every_field_says_why_to_turn_it() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"port": "high"}, "--port (or UNDERSTUDY_PORT): "),
        ({"port": 70000}, "got 70000"),
        ({"max_batch_rows": 0}, "--max-batch-rows (or UNDERSTUDY_MAX_BATCH_ROWS): "),
        ({"precision": "double"}, "'exact' or 'fast'"),
        ({"max_request_rows": 10, "max_queue_rows": 9}, "max_request_rows must not exceed max_queue_rows"),
        ({"drain_seconds": float("nan")}, "--drain-seconds"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(wrong)
    assert message in problem_line(caught.value)
    assert "\n" not in problem_line(caught.value)
