"""Words that nobody may ever see again: sent in texts, keys, headers and paths, through good requests and bad ones.

A server runs as an operator would run it to find a fault: every log line, every metric, every trace.
"""

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
from onnx import numpy_helper

from service.bundle.manifest import Role
from service.bundle.store import write_bundle
from tests.running import PATIENCE_S, ROOT, environment
from tests.toys import toy

TEXT, KEY, OTHER, ADMIN, BAD = (
    "qztextzq",
    "qzkeyzq-0123456789",
    "qzotherzq-012345678",
    "qzadminzq-01234567",
    "qzbadzq-0123456789",
)
HEADER, PATH, MODEL = "qzheaderzq", "qzpathzq", "qzmodelzq"
CANARIES = (TEXT, KEY, OTHER, ADMIN, BAD, HEADER, PATH, MODEL)
POISON = "goodness"  # the model of `poisoned` fails on it
MAX_BODY = 4000

HEADERS = {
    "user-agent": HEADER,
    "cookie": f"session={HEADER}",
    "referer": f"http://{HEADER}/",
    "origin": f"http://{HEADER}",
    "x-forwarded-for": HEADER,
    "x-secret": HEADER,
    "traceparent": HEADER,
    "tracestate": f"vendor={HEADER}",
    "baggage": f"user={HEADER}",
    "proxy-authorization": f"Basic {HEADER}",
}


def found_in(content: bytes) -> list[str]:
    """The canaries in there, in any capitals, or as base64."""
    lower = content.lower()
    return [
        canary
        for canary in CANARIES
        if canary.encode() in lower or any(part in content for part in _in_base64(canary.encode()))
    ]


def _in_base64(canary: bytes) -> list[bytes]:
    """As it looks at each of the three places where base64 may begin to spell it, without its ends."""
    return [base64.b64encode(b" " * shift + canary)[4:-4] for shift in range(3)]


def poisoned(models: Path) -> Path:
    """A folder with one student, whose embedding table lacks the last word."""
    files = {name: content for name, content in toy.student_files().items() if "quantized" not in name}
    graph = onnx.load_from_string(files["model.onnx"])
    [table] = [tensor for tensor in graph.graph.initializer if tensor.name == "table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:-1], "table"))
    files["model.onnx"] = graph.SerializeToString()
    write_bundle(models / "toy" / "1", toy.draft("toy", "1", Role.STUDENT, files), files, card="# A toy\n")
    return models


class Collector(ThreadingHTTPServer):
    """Keeps every byte that anybody sends to OpenTelemetry's port: traces, metrics or logs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keep)
        self.posts: list[bytes] = []


class _Keep(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.posts.append(self.path.encode() + self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@dataclass
class Seen:
    """What an operator gets to see, and how the requests were answered."""

    metrics: bytes = b""
    said: bytes = b""  # stdout
    log: bytes = b""  # stderr
    traces: list[bytes] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def leaks(self) -> dict[str, list[str]]:
        places = {"metrics": self.metrics, "stdout": self.said, "log": self.log, "traces": b"\n".join(self.traces)}
        return {place: found for place, content in places.items() if (found := found_in(content))}


def visited(models: Path, log: Path, **settings: str) -> Seen:
    """Start a server, send everything, read everything, stop it. Settings are variables, without the prefix."""
    seen = Seen()
    with collecting() as collector:
        variables = {
            "UNDERSTUDY_LOG_LEVEL": "debug",
            "UNDERSTUDY_ACCESS_LOG": "true",
            "UNDERSTUDY_TRACES": "true",
            "UNDERSTUDY_API_KEYS": f"shop:{KEY},{OTHER}",
            "UNDERSTUDY_ADMIN_KEYS": ADMIN,
            "UNDERSTUDY_MAX_BODY_BYTES": str(MAX_BODY),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            # With it FastAPI, left to itself, sends paths and messages of its own to that collector.
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        } | {f"UNDERSTUDY_{name.upper()}": value for name, value in settings.items()}
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--port", "0", "--models", str(models)],
                cwd=ROOT,
                env=environment() | variables,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
            assert process.stdout is not None
            with process:
                try:
                    line = process.stdout.readline()
                    assert b"ready" in line, log.read_text()
                    host, port = line.split()[0].decode().removeprefix("http://").split(":")
                    seen.statuses.update(_send_all(host, int(port)))
                    seen.metrics = _metrics(host, int(port))
                finally:
                    process.send_signal(signal.SIGTERM)
                seen.said = line + process.stdout.read()
                assert process.wait(PATIENCE_S) == 0
        seen.log, seen.traces = log.read_bytes(), collector.posts
    return seen


@dataclass(frozen=True)
class Sent:
    """One request."""

    path: str
    body: bytes
    method: str = "POST"
    key: str | None = KEY
    media_type: str = "application/json"


def everything() -> Iterator[Sent]:
    """Good requests, and every way to be refused that does not need luck."""
    bodies = [
        json.dumps({field: value}).encode()
        for field in ("input", "inputs")
        for value in (TEXT, [TEXT, f"good {TEXT}"], [[TEXT]], [TEXT, 5], {TEXT: TEXT}, f"{TEXT} {POISON}", TEXT * 2000)
    ]
    bodies += [
        f'{{"input": "{TEXT}"'.encode(),  # cut off
        f'{{"input": "{TEXT} \\ud800"}}'.encode(),
        f'{{"input": "{TEXT}'.encode() + b'\xff"}',
        b"[" * 2000 + TEXT.encode(),
        TEXT.encode(),
        json.dumps({"input": TEXT, "inputs": TEXT, TEXT: TEXT}).encode(),
        json.dumps({"input": TEXT, "model": MODEL}).encode(),
        json.dumps({"input": TEXT, "strategy": "cascade"}).encode(),
        json.dumps({"input": TEXT, "student": MODEL, "teacher": MODEL, "strategy": TEXT}).encode(),
        json.dumps({"input": TEXT, "top_k": TEXT, "truncate": TEXT, "version": MODEL}).encode(),
        json.dumps({"inputs": TEXT, "parameters": {"function_to_apply": TEXT, "top_k": TEXT}}).encode(),
        json.dumps({"inputs": [{"name": TEXT, "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}).encode(),
        json.dumps({"inputs": [{"name": TEXT, "shape": TEXT, "datatype": TEXT, "data": {TEXT: 1}}], "id": 5}).encode(),
    ]
    for path in ("/v1/classify", "/v1/compare", "/predict", "/", "/v2/models/toy/infer", f"/v2/models/{MODEL}/infer"):
        yield from (Sent(path, body) for body in bodies)
        yield from (
            Sent(path, bodies[0], media_type=kind) for kind in ("text/plain", f"x/{TEXT}", "application/x+json")
        )
        yield from (Sent(path, bodies[0], key=key) for key in (None, BAD, OTHER, ADMIN, f"{KEY}x"))
        yield Sent(path, bodies[0], method="PUT")
        yield Sent(f"{path}?{PATH}={TEXT}", bodies[0])
    for path in (f"/{PATH}", f"/v1/{PATH}", "/v1/models", f"/v2/models/{PATH}", "/v2", "/readyz", "/docs", "/metrics"):
        yield from (Sent(f"{path}?q={PATH}", b"", method="GET", key=key) for key in (KEY, BAD, None))
    for verb in ("load", "unload"):
        for key in (KEY, BAD, ADMIN):
            yield Sent(
                f"/v2/repository/models/{PATH}/{verb}", json.dumps({"parameters": {TEXT: TEXT}}).encode(), key=key
            )


BROKEN = (
    f"GET /{PATH} HTTP/9.9\r\nhost: x\r\n\r\n",
    f"GET /{PATH}\r\n\r\n",
    f"{PATH} / HTTP/1.1\r\nhost: x\r\n\r\n",
    f"POST /predict HTTP/1.1\r\nhost: {HEADER} {HEADER}\r\n\r\n",
    f"POST /predict HTTP/1.1\r\nhost: x\r\n{HEADER}\r\n\r\n",
    f"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\x01\r\n\r\n",
    f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {HEADER}\r\n\r\n",
    f"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{TEXT}\r\n",
    f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 900\r\n\r\n{TEXT}",
    f'POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 22\r\n\r\n{{"inputs": "{TEXT}"}}',
    f"GET / HTTP/1.1\r\nhost: x\r\nx: {HEADER * 9000}\r\n\r\n",
    f"{TEXT}\r\n\r\n",
)


def _send_all(host: str, port: int) -> Iterator[int]:
    for sent in everything():
        with closing(HTTPConnection(host, port, timeout=PATIENCE_S)) as connection:
            headers = HEADERS | {"content-type": sent.media_type}
            if sent.key is not None:
                headers["authorization"] = f"Bearer {sent.key}"
            connection.request(sent.method, sent.path, sent.body, headers)
            response = connection.getresponse()
            response.read()
            yield response.status
    for content in BROKEN:  # and gone at once
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            connection.sendall(content.encode("latin-1"))


def _metrics(host: str, port: int) -> bytes:
    with closing(HTTPConnection(host, port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/metrics", headers={"x-api-key": ADMIN})
        return connection.getresponse().read()
