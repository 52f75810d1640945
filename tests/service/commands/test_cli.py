"""`python -m service`: answers on stdout, one line on stderr when something is wrong, and exit codes."""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

from service.bundle.manifest import Role, SealedManifest
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from service.commands.config import grouped, page
from service.commands.flags import flag_of
from service.commands.serve import serve
from service.commands.terminal import Code
from service.environment import variable_of
from service.release import release
from service.settings import Settings
from tests.running import PATIENCE_S, ROOT, command, environment, serving
from tests.toys import toy
from tests.toys.pairing import calibration, publish_student

KEY = "a-canary-of-a-key-that-nobody-may-see"


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


def test_the_release_is_said() -> None:
    said = command("--version")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip() == metadata.version("understudy") == release()


def test_lines_of_stdin_are_classified_with_empty_ones(toy_models: Path) -> None:
    flags = ("--model", "toy-teacher", "--precision", "fast")
    done = command("classify", "--models", str(toy_models), *flags, text="good\n\nbad ✓\n")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good", "", "bad ✓"]


def test_bytes_that_are_no_utf8_are_classified_as_far_as_they_can_be(toy_models: Path) -> None:
    done = command("classify", "--models", str(toy_models), "good \udcff")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["good \ufffd"]


def test_every_setting_is_a_flag_and_a_variable_in_the_panel_of_its_group() -> None:
    panels = command("serve", "--help").stdout.split("╭─ ")
    for title, names in grouped():
        panel = next(panel for panel in panels if panel.startswith(title))
        for name in names:
            for flag in flag_of(name).split("/"):
                assert re.search(rf"│ {flag}\b", panel)
            assert re.search(rf"\b{variable_of(name)}, default:\W", panel)


def test_the_settings_are_the_flags_the_variables_and_the_rows_of_the_table() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)`.*? \| `(\w+)` \| .* \| (.+) \|$", "\n".join(page()), flags=re.MULTILINE)
    names = list(chain.from_iterable(names for _, names in grouped()))
    taken = list(inspect.signature(serve).parameters)
    assert sorted(names) == sorted(taken) == sorted(Settings.model_fields)
    assert [flag.replace("-", "_") for flag, _, _ in rows] == names
    assert [variable for _, variable, _ in rows] == [variable_of(name) for name in names]
    assert [reason.replace("\\", "") for _, _, reason in rows] == [
        Settings.model_fields[name].description for name in names
    ]


def test_config_says_each_value_and_where_it_came_from() -> None:
    done = command("config", "--json", "--port", "9000", "--access-log", UNDERSTUDY_HOST="::1", UNDERSTUDY_TRACES="no")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert list(said) == list(Settings.model_fields)
    assert said["port"] == {"value": 9000, "from": "flag"}
    assert said["access_log"] == {"value": True, "from": "flag"}
    assert said["host"] == {"value": "::1", "from": "environment"}
    assert said["traces"] == {"value": False, "from": "environment"}
    assert said["models"] == {"value": "models", "from": "default"}


def test_config_for_people_names_every_setting() -> None:
    shown = command("config", UNDERSTUDY_CORS_ORIGINS="https://a.example,https://b.example").stdout
    assert re.search(r"cors_origins\W+https://a.example,https://b.example\W+environment\W+UNDERSTUDY_CORS", shown)
    assert all(variable_of(name) in shown for name in Settings.model_fields)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_shows_no_secret(form: tuple[str, ...]) -> None:
    done = command("config", *form, "--admin-keys", f"admin:{KEY}", UNDERSTUDY_API_KEYS=KEY)
    assert done.returncode == 0
    assert KEY not in done.stdout + done.stderr
    assert "*****" in done.stdout


@pytest.mark.parametrize("name", ["serve", "config", "classify", "models"])
def test_an_unknown_variable_stops_every_command_with_the_nearest_name(name: str) -> None:
    done = command(name, UNDERSTUDY_MAX_BATCH_ROW="8")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "understudy: UNDERSTUDY_MAX_BATCH_ROW: no such setting; did you mean UNDERSTUDY_MAX_BATCH_ROWS?\n"
    )


@pytest.mark.parametrize("arguments", [("models",), ("models", "list")])
def test_models_are_listed(toy_models: Path, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, "--models", str(toy_models))
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("toy-teacher@1", "student", "teacher", "exact, fast", "accuracy 0.5 (exact)"):
        assert word in done.stdout


def test_models_are_listed_for_machines(toy_models: Path) -> None:
    listed = json.loads(command("models", "--json", "--models", str(toy_models)).stdout)
    assert [(each["name"], each["version"], list(each["graphs"])) for each in listed] == [
        ("toy", "1", ["exact", "fast"]),
        ("toy-teacher", "1", ["exact"]),
    ]


@pytest.mark.parametrize("name", ["toy", "toy@1"])
def test_a_model_is_shown_with_its_files_and_figures(toy_models: Path, name: str) -> None:
    done = command("models", "show", name, "--models", str(toy_models))
    manifest = read_manifest(toy_models / "toy" / "1")
    assert (done.returncode, done.stderr) == (0, "")
    for digest in manifest.files.values():
        assert digest in done.stdout
    for word in ("toy@1", manifest.seal, "random weights", "4 texts with logits for exact, fast", "gut ✓", "accuracy"):
        assert word in done.stdout
    assert f"{(toy_models / 'toy' / '1' / 'model.onnx').stat().st_size:,}" in done.stdout


def test_how_sure_a_student_must_be_is_shown(tmp_path: Path) -> None:
    publish_student(tmp_path, calibrated=calibration(0.4))
    done = command("models", "show", "toy", "--models", str(tmp_path))
    assert re.search(r"exact +│ +toy-teacher@1 .* 0\.4 ", done.stdout)


def test_a_model_is_shown_for_machines(toy_models: Path) -> None:
    done = command("models", "show", "toy", "--json", "--models", str(toy_models))
    assert SealedManifest.model_validate_json(done.stdout) == read_manifest(toy_models / "toy" / "1")


def test_a_name_alone_is_its_newest_version(tmp_path: Path) -> None:
    for version in ("9", "10"):
        toy.publish(tmp_path, "toy", version, Role.STUDENT)
    shown = command("models", "show", "toy", "--json", "--models", str(tmp_path))
    assert json.loads(shown.stdout)["version"] == "10"


def test_good_bundles_are_verified_graph_by_graph(toy_models: Path) -> None:
    done = command("models", "verify", "--models", str(toy_models))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ok   toy@1 exact\nok   toy@1 fast\nok   toy-teacher@1 exact\n"


def test_verify_goes_on_after_a_bad_bundle_and_ends_with_3(toy_models: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(toy_models, tmp_path / "models"))
    (models / "toy" / "1" / "model.onnx").write_bytes(b"other")
    shutil.copytree(toy_models / "toy", models / "renamed")
    done = command("models", "verify", "--models", str(models))
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (3, "")
    assert [line.split(":")[0] for line in lines] == [
        "bad  renamed@1",
        "bad  toy@1 exact",
        "bad  toy@1 fast",
        "ok   toy-teacher@1 exact",
    ]
    assert "model.onnx: not what the manifest describes" in lines[1]
    assert command("models", "verify", "toy-teacher", "--models", str(models)).returncode == 0
    checks = json.loads(command("models", "verify", "toy@1", "--json", "--models", str(models)).stdout)
    assert [(check["precision"], check["problem"] is None) for check in checks] == [("exact", False), ("fast", False)]


def test_benchmarks_are_a_command_too(toy_models: Path) -> None:
    done = command("bench", "engine", "--rows", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--rows" in done.stderr
    assert "engine" in command("bench", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("serve", "--port", "high"), 2, "--port (or UNDERSTUDY_PORT)"),
        (("serve", "--models", "MODELS", "--default", "other"), 2, "there are toy, toy-teacher"),
        (("serve", "--models", "MODELS/nowhere"), 3, "nowhere"),
        (("classify", "--models", "MODELS", "--model", "other", "a"), 2, "there are toy, toy-teacher"),
        (("classify", "--models", "MODELS/nowhere", "a"), 3, "nowhere"),
        (("models", "--models", "MODELS/toy"), 3, "not a place for a bundle"),
        (("models", "show", "other", "--models", "MODELS"), 2, "there are toy@1, toy-teacher@1"),
        (("models", "verify", "toy@2", "--models", "MODELS"), 2, "there are toy@1, toy-teacher@1"),
        (("serve", "--prot", "1"), 2, "--port"),
        (("serve", "extra"), 2, "extra"),
        (("serv",), 2, "Did you mean 'serve'?"),
        (("config", "--json", "--markdown"), 2, "choose one of them"),
        (("config", "--precision", "double"), 2, "--precision (or UNDERSTUDY_PRECISION)"),
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


def test_the_help_documents_every_exit_code() -> None:
    done = command("--help")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert all(f"{code.value} {code.meaning}" in words for code in Code)


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("serve", "--help"), ("models", "list"), ("models", "verify"), ("config",), ("classify",)],
)
def test_a_reader_that_goes_away_is_no_fault(toy_models: Path, arguments: tuple[str, ...]) -> None:
    if arguments[-1] != "--help":
        arguments = (*arguments, "--models", str(toy_models))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            cwd=ROOT,
            env=environment(),
            input=b"good\n" * 10_000,
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_streams_are_no_fault(toy_models: Path) -> None:
    line = f"{sys.executable} -m service models --models {toy_models} <&- >&- 2>&-"
    assert (
        subprocess.run(["sh", "-c", line], cwd=ROOT, env=environment(), timeout=PATIENCE_S, check=False).returncode == 0
    )


@contextmanager
def importing(tmp_path: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is in the middle of its imports, for as long as one likes."""
    slow = tmp_path / "typer.py"
    # In short naps: a signal that comes just before a long one would be seen only after it.
    slow.write_text(
        "import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n", encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "importing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("serve", signal.SIGTERM, Code.DONE),
        ("serve", signal.SIGINT, Code.DONE),
        ("classify", signal.SIGTERM, Code.TERMINATED),
        ("classify", signal.SIGINT, Code.INTERRUPTED),
    ],
)
def test_a_signal_during_the_imports_ends_quietly(tmp_path: Path, name: str, number: int, code: Code) -> None:
    with importing(tmp_path, name) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""
