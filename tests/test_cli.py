"""`python -m service`: answers on stdout, one line on stderr when something is wrong, and exit codes."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from service.bundle.manifest import Precision, Role
from service.bundle.runtime import open_bundle
from service.settings import PREFIX, Settings
from tests import toy
from tests.running import command, serving


def test_texts_of_the_command_line_are_classified(toy_models: Path, toy_student: Path) -> None:
    done = command("classify", "--models", str(toy_models), "a good film", "bad")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["text"] for line in lines] == ["a good film", "bad"]
    bundle = open_bundle(toy_student)
    for line in lines:
        expected = bundle.scores(bundle.classify([line["text"]]))[0].tolist()
        assert list(line["scores"].values()) == pytest.approx(expected, abs=1e-6)
        assert line["score"] == max(line["scores"].values()) == line["scores"][line["label"]]


def test_lines_of_stdin_are_classified_with_empty_ones(toy_models: Path) -> None:
    flags = ("--model", "toy-teacher", "--precision", "fast")
    done = command("classify", "--models", str(toy_models), *flags, text="good\n\nbad ✓\n")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good", "", "bad ✓"]


def test_bytes_that_are_no_utf8_are_classified_as_far_as_they_can_be(toy_models: Path) -> None:
    done = command("classify", "--models", str(toy_models), "good \udcff")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good \ufffd"]


def test_models_are_listed(toy_models: Path) -> None:
    done = command("models", "--models", str(toy_models))
    assert done.returncode == 0
    for word in ("toy-teacher@1", "student", "teacher", "exact, fast", "accuracy 0.5"):
        assert word in done.stdout


def test_every_setting_is_a_flag_with_its_variable() -> None:
    shown = command("serve", "--help").stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in shown
        assert f"{PREFIX}{name.upper()}" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("serve", "--port", "high"), 2, "--port (or UNDERSTUDY_PORT)"),
        (("serve", "--models", "MODELS", "--default", "other"), 2, "there are toy, toy-teacher"),
        (("serve", "--models", "MODELS/nowhere"), 3, "nowhere"),
        (("classify", "--models", "MODELS", "--model", "other", "a"), 2, "there are toy, toy-teacher"),
        (("classify", "--models", "MODELS/nowhere", "a"), 3, "nowhere"),
        (("models", "--models", "MODELS/toy"), 3, "not a place for a bundle"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    toy_models: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = command(*(argument.replace("MODELS", str(toy_models)) for argument in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("understudy: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_an_unknown_flag_is_wrong_usage() -> None:
    assert command("serve", "--prot", "1").returncode == 2


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("classify", "a")])
def test_a_bundle_that_is_not_valid_stops_the_command_with_3(
    toy_models: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    (models / "toy" / "1" / "model.onnx").write_bytes(b"other")
    done = command(arguments[0], "--models", str(models), *arguments[1:])
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "model.onnx: not what the manifest describes" in done.stderr


def test_a_bundle_under_another_name_is_not_served(toy_models: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_models / "toy" / "1", tmp_path / "other" / "1")
    done = command("serve", "--port", "0", "--models", str(tmp_path))
    assert (done.returncode, "toy/1" in done.stderr) == (3, True)


def test_a_port_that_is_taken_is_said_before_models_are_opened(toy_models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("serve", "--port", port, "--models", str(toy_models))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"127.0.0.1:{port}: cannot listen there" in done.stderr


def test_the_newest_version_is_served_and_the_first_student_answers(tmp_path: Path) -> None:
    for name, version, role in (
        ("a-teacher", "1", Role.TEACHER),
        ("student", "9", Role.STUDENT),
        ("student", "10", Role.STUDENT),
    ):
        toy.publish(tmp_path, name, version, role)
    with serving(tmp_path) as running, running.client() as client:
        assert "default student" in running.line
        assert client.post("/v1/classify", json={"input": "a"}).json()["model"] == "student@10"
        old = client.post("/v1/classify", json={"input": "a", "model": "student@9"})
        assert old.status_code == 404


def test_the_environment_sets_what_flags_set(toy_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(models=toy_models, precision=Precision.FAST)
    monkeypatch.setenv("UNDERSTUDY_MODELS", str(toy_models))
    monkeypatch.setenv("UNDERSTUDY_PRECISION", "fast")
    assert Settings() == settings
