"""Flag before environment before default; a wrong value is named, an unknown variable stops, a secret is never said."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from service.bundle.manifest import Precision
from service.commands.flags import group_of, text_of
from service.environment import Origin, load, variable_of
from service.settings import PREFIX, SettingProblem, Settings, problem_line

KEY = "a-canary-of-a-key-that-nobody-may-see"


def loaded(**variables: str) -> Settings:
    return load({}, {f"{PREFIX}{name}": value for name, value in variables.items()}).settings


def problem_of(**variables: str) -> str:
    with pytest.raises(SettingProblem) as caught:
        loaded(**variables)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_for_one_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, Path("models"))
    assert settings.precision is Precision.EXACT


def test_settings_alone_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_PORT", "9000")
    assert Settings().port == 8000


def test_the_environment_comes_before_the_default() -> None:
    settings = loaded(PORT="9000", PRECISION="fast", MODELS="/srv/models")
    assert (settings.port, settings.precision, settings.models) == (9000, Precision.FAST, Path("/srv/models"))


def test_a_flag_comes_before_the_environment() -> None:
    assert load({"port": "9001"}, {"UNDERSTUDY_PORT": "9000"}).settings.port == 9001


def test_an_empty_variable_is_as_good_as_none() -> None:
    resolved = load({"host": None}, {"UNDERSTUDY_PORT": ""})
    assert (resolved.settings.port, resolved.origins["port"]) == (8000, Origin.DEFAULT)


def test_each_value_says_where_it_came_from() -> None:
    origins = load({"host": "::1"}, {"UNDERSTUDY_HOST": "0.0.0.0", "UNDERSTUDY_PORT": "0"}).origins
    assert (origins["host"], origins["port"], origins["models"]) == (Origin.FLAG, Origin.VARIABLE, Origin.DEFAULT)
    assert list(origins) == list(Settings.model_fields)


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("on", True), ("no", False), ("0", False)])
def test_a_switch_can_be_spelled_as_people_do(text: str, meant: bool) -> None:
    assert loaded(ACCESS_LOG=text).access_log is meant


def test_a_list_is_separated_by_commas() -> None:
    settings = loaded(CORS_ORIGINS="https://a.example, https://b.example,")
    assert settings.cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("MAX_BATCH_ROW", "did you mean UNDERSTUDY_MAX_BATCH_ROWS?"),
        ("max_batch_rows", "did you mean UNDERSTUDY_MAX_BATCH_ROWS?"),
        ("PROT", "did you mean UNDERSTUDY_PORT?"),
        ("LOGLEVEL", "did you mean UNDERSTUDY_LOG_LEVEL?"),
        ("COLOUR_OF_THE_CURTAIN", "`python -m service config` lists"),
    ],
)
def test_an_unknown_variable_stops_with_the_nearest_known_name(variable: str, meant: str) -> None:
    problem = problem_of(**{variable: "1"})
    assert problem.startswith(f"UNDERSTUDY_{variable}: no such setting; ")
    assert meant in problem


def test_a_prefix_in_small_letters_is_not_passed_over() -> None:
    with pytest.raises(SettingProblem, match="understudy_port: no such setting; did you mean UNDERSTUDY_PORT"):
        load({}, {"understudy_port": "1"})


def test_what_kubernetes_tells_of_a_service_of_our_name_is_no_setting() -> None:
    links = {
        "UNDERSTUDY_SERVICE_HOST": "10.0.0.7",
        "UNDERSTUDY_SERVICE_PORT": "80",
        "UNDERSTUDY_SERVICE_PORT_HTTP": "80",
        "UNDERSTUDY_PORT": "tcp://10.0.0.7:80",
        "UNDERSTUDY_PORT_80_TCP": "tcp://10.0.0.7:80",
        "UNDERSTUDY_PORT_80_TCP_PROTO": "tcp",
        "UNDERSTUDY_PORT_80_TCP_PORT": "80",
        "UNDERSTUDY_PORT_80_TCP_ADDR": "10.0.0.7",
        "UNDERSTUDY_CANARY_PORT": "tcp://[fd00::7]:80",
    }
    assert load({}, links).settings == Settings()


def test_variables_of_others_are_not_our_business() -> None:
    assert load({}, {"UNDERSTUDYING": "1", "PORT": "1", "PATH": "/bin"}).settings == Settings()


def test_every_field_says_why_to_turn_it() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_field_belongs_to_a_group() -> None:
    assert [name for name, field in Settings.model_fields.items() if group_of(field) is None] == []


def test_a_variable_can_spell_every_default() -> None:
    variables = {variable_of(name): text_of(field.default) for name, field in Settings.model_fields.items()}
    assert load({}, variables).settings == Settings()


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
        ({"access_log": "perhaps"}, "--access-log (or UNDERSTUDY_ACCESS_LOG): "),
        ({"cors_origins": "https://a.example/path"}, "--cors-origins (or UNDERSTUDY_CORS_ORIGINS): "),
    ],
)
def test_a_wrong_value_is_named_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(wrong)
    assert message in problem_line(caught.value)
    assert "\n" not in problem_line(caught.value)


SECRETS = [name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_never_said(name: str) -> None:
    settings = Settings.model_validate({name: SecretStr(KEY)})
    assert KEY not in f"{settings!r} {settings} {settings.model_dump_json()} {text_of(getattr(settings, name))}"
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({name: [KEY]})
    assert KEY not in problem_line(caught.value) + str(caught.value)


def test_keys_are_secrets() -> None:
    assert {"api_keys", "admin_keys"} <= set(SECRETS)


@given(st.dictionaries(st.text(max_size=20).map(lambda name: PREFIX + name), st.text(max_size=20), max_size=4))
def test_whatever_the_environment_holds_it_is_settings_or_one_problem(variables: dict[str, str]) -> None:
    try:
        assert load({}, variables).settings.model_fields_set <= set(Settings.model_fields)
    except SettingProblem as problem:
        assert PREFIX in str(problem)


@given(st.sampled_from(list(Settings.model_fields)), st.text(max_size=20))
def test_any_text_for_a_setting_is_taken_or_refused_by_its_name(name: str, text: str) -> None:
    try:
        load({name: text}, {})
    except SettingProblem as problem:
        assert name in str(problem) or variable_of(name) in str(problem)
