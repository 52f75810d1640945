"""While it serves, the service runs no code from data, no other program, opens no connection and writes no file."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from service.bundle.manifest import Role
from tests.running import PATIENCE_S, ROOT, Running, serving
from tests.service.api.access import ADMIN, KEY
from tests.toys import toy

# What each must be heard as; all in one process, whose own files lie in the folder `allowed`.
ACTS = {
    "pickle.find_class": "import pickle; pickle.loads(pickle.dumps(Path))",
    "subprocess.Popen": "import subprocess; subprocess.run(['true'])",
    "os.exec": "os.execv('/nowhere/at/all', ['x'])",
    "os.fork": "os.fork() or os._exit(0)",
    "os.posix_spawn": "os.posix_spawn('/nowhere/at/all', ['x'], {})",
    "os.system": "os.system('true')",
    "socket.connect": "import socket; socket.socket().connect(('127.0.0.1', 9))",
    "socket.getaddrinfo": "import socket; socket.getaddrinfo('localhost', 9)",
    "socket.sendto": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
    "ctypes.dlopen": "import ctypes; ctypes.CDLL('libm.so.6')",
    "open": "Path(outside, 'file').write_text('x')",
    "os.mkdir": "Path(outside, 'folder').mkdir()",
    "os.rename": "Path(outside, 'file').rename(Path(outside, 'other'))",
    "os.symlink": "Path(outside, 'link').symlink_to('x')",
    "os.remove": "Path(outside, 'other').unlink()",
    "compile": "compile('1', '<a string>', 'eval')",
    "exec": "eval(code)",
}
FINE = (
    "Path(allowed, 'file').write_text('x'); Path(outside, 'file').exists(); import colorsys; list(Path('.').iterdir())"
)
ACTOR = """
import os, sys
from pathlib import Path
from tests.service.audit import Audit
report, allowed, outside, *acts = sys.argv[1:]
ready = [compile(act, "<act>", "exec") for act in acts]
code = compile("1", "<code>", "eval")
audit = Audit(Path(report), (Path(allowed),))
names = {"os": os, "Path": Path, "allowed": allowed, "outside": outside, "code": code}

def run(act):
    exec(act, names)
audit.arm()
for act in ready:
    os.write(audit._out, b"---\\n")
    try:
        run(act)
    except OSError:
        pass
"""


def heard(tmp_path: Path, *acts: str) -> list[set[str]]:
    """The events of each act, but for running it."""
    for folder in ("allowed", "outside"):
        (tmp_path / folder).mkdir()
    report = tmp_path / "report"
    places = [str(report), str(tmp_path / "allowed"), str(tmp_path / "outside")]
    command = [sys.executable, "-c", ACTOR, *places, *acts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    parts = [part.splitlines() for part in report.read_text().split("---\n")[1:]]
    return [{line.split()[0] for line in lines if "<act>" not in line.partition(" from ")[0]} for lines in parts]


@contextmanager
def audited(models: Path, folder: Path, *flags: str, plant: str = "nothing") -> Iterator[tuple[Running, Path]]:
    """The server, and where its violations stand."""
    report, scratch = folder / "report", folder / "scratch"
    scratch.mkdir()
    keys = ("--api-keys", KEY, "--admin-keys", ADMIN, "--log-level", "error", "--versions", "2")
    launcher = ("tests.service.audited", str(report), str(scratch), plant)
    with serving(models, *keys, *flags, launcher=launcher, TMPDIR=str(scratch), HOME=str(scratch)) as running:
        yield running, report


def test_every_forbidden_thing_is_heard(tmp_path: Path) -> None:
    events = heard(tmp_path, *ACTS.values())
    missed = [act for act, found in zip(ACTS, events, strict=True) if act not in found]
    assert missed == []


def test_what_is_allowed_is_not(tmp_path: Path) -> None:
    assert heard(tmp_path, FINE) == [set()]


def visit(client: httpx2.Client, key: str) -> None:
    """Everything once."""
    client.headers["authorization"] = f"Bearer {key}"
    paths = [
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/models",
        "/v1/models/toy/oversight",
        "/v2",
        "/v2/models/toy",
        "/v2/models/toy/ready",
    ]
    for path in [*paths, "/docs", "/openapi.json", "/nowhere", "/v2/health/ready", "/v2/health/live"]:
        client.get(path)
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
    for path, body in (
        ("/v1/classify", {"input": ["good", "bad " * 500]}),
        ("/predict", {"inputs": "good", "parameters": {"function_to_apply": "none"}}),
        ("/v2/models/toy/infer", {"inputs": [tensor]}),
        ("/v2/repository/index", {}),
    ):
        assert client.post(path, json=body).status_code == 200
        assert client.post(path, content=b"no JSON").status_code == 400
    client.post("/v2/repository/models/toy-teacher/unload")
    client.post("/v2/repository/models/toy-teacher/load")


def versions(client: httpx2.Client) -> list[str]:
    listed = client.get("/v1/models").json()["data"]
    return [model["version"] for model in listed if model["name"] == "toy"]


def swap(client: httpx2.Client, models: Path) -> None:
    """A new version appears, and is served."""
    toy.publish(models, "toy", "2", Role.STUDENT)
    until = time.monotonic() + PATIENCE_S
    while "2" not in versions(client):
        assert time.monotonic() < until
        time.sleep(0.05)


def published(folder: Path) -> Path:
    toy.publish(folder, "toy", "1", Role.STUDENT)
    toy.publish(folder, "toy-teacher", "1", Role.TEACHER)
    return folder


def test_serving_does_none_of_it(tmp_path: Path) -> None:
    models = published(tmp_path / "models")
    with audited(models, tmp_path, "--default", "toy", "--reload-seconds", "0.2") as (running, report):
        with running.client() as client:
            for key in (KEY, ADMIN):
                visit(client, key)
            swap(client, models)
            visit(client, ADMIN)
        assert running.stop() == 0
        assert report.read_text() == ""
    # What C code leaves, such as the files of ONNX Runtime's own telemetry, no audit would hear of.
    assert list((tmp_path / "scratch").iterdir()) == []


def test_with_texts_being_kept_it_writes_their_file_alone(tmp_path: Path) -> None:
    models, kept = published(tmp_path / "models"), tmp_path / "scratch" / "texts.db"
    flags = ("--default", "toy", "--capture", str(kept), "--capture-share", "1", "--watch-share", "1")
    with audited(models, tmp_path, *flags) as (running, report):
        with running.client() as client:
            visit(client, KEY)
            time.sleep(0.5)  # so that some are written, some re-scored
            visit(client, KEY)
        assert running.stop() == 0
        assert report.read_text() == ""
    assert list((tmp_path / "scratch").iterdir()) == [kept]


def test_nor_do_workers(tmp_path: Path) -> None:
    models = published(tmp_path / "models")
    with audited(models, tmp_path, "--default", "toy", "--workers", "2") as (running, report):
        for _ in range(6):  # so that each is asked
            with running.client() as client:
                visit(client, KEY)
        assert running.stop() == 0
        assert report.read_text() == ""
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_does_is_heard(workers: str, toy_models: Path, tmp_path: Path) -> None:
    with audited(toy_models, tmp_path, "--workers", workers, plant="fault") as (running, report):
        with running.client() as client:
            client.headers["authorization"] = f"Bearer {KEY}"
            assert client.post("/v1/classify", json={"input": "good"}).status_code == 200
        lines = report.read_text().splitlines()
        assert {line.split()[0] for line in lines} == {"compile", "exec"}
        assert all("audited.py" in line for line in lines)
