"""Traces with OpenTelemetry's real packages: spans in memory, and a real collector's endpoint over HTTP."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.settings import SettingProblem, Settings
from service.telemetry.tracing import Tracing, export_traces
from service.telemetry.visits import Headers, SpanIds, Stages, Visit, current_span
from service.telemetry.witness import open_witness
from tests.running import PATIENCE_S, ROOT, environment

STAGES = Stages("toy@1", 2, 7, 0.001, 0.02, 0.3)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "a-text-that-nobody-may-see"
CALL: Headers = [
    (b"user-agent", SECRET.encode()),
    (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()),
    (b"tracestate", f"vendor={SECRET}".encode()),
    (b"baggage", f"user={SECRET}".encode()),
]


class Kept:
    """Traces, and the spans that came out of them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_request_is_a_span_with_its_stages_below_it(kept: Kept) -> None:
    before = time.time_ns()
    kept.tracing.begin("POST", "/v1/classify", CALL).end(200, STAGES)
    spans = kept.spans()
    request = spans.pop("POST /v1/classify")
    assert (request.kind, request.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
    assert request.start_time is not None
    assert request.end_time is not None
    assert before <= request.start_time <= request.end_time
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "understudy.model": "toy@1",
        "understudy.rows": 2,
        "understudy.tokens": 7,
    }
    assert list(spans) == ["tokenize", "queue", "inference"]
    end = request.end_time - 321_000_000
    for span, length in zip(spans.values(), (1_000_000, 20_000_000, 300_000_000), strict=True):
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert (span.start_time, span.end_time) == (end, end + length)
        end += length


def test_the_callers_trace_goes_on(kept: Kept) -> None:
    trace = kept.tracing.begin("POST", "/predict", CALL)
    trace.end(200, None)
    [request] = kept.spans().values()
    assert request.parent is not None
    assert (request.context.trace_id, request.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
    assert trace.traceparent == f"00-{TRACE}-{request.context.span_id:016x}-01".encode()


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [(b"traceparent", b"")],
        [(b"traceparent", b"\xff" * 55)],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")],
        [(b"traceparent", b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
        [(b"traceparent", b"0" * 5000)],
        [(b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")] * 2,
    ],
)
def test_without_a_sound_parent_a_trace_begins_anew(kept: Kept, sent: Headers) -> None:
    trace = kept.tracing.begin("GET", "/v1/models", sent)
    trace.end(200, None)
    [request] = kept.spans().values()
    assert request.parent is None
    assert trace.traceparent is not None
    assert request.context.trace_id != int(TRACE, 16)


def test_nothing_of_what_was_sent_gets_into_a_span(kept: Kept) -> None:
    kept.tracing.begin("POST", "/v1/classify", CALL).end(422, None)
    assert SECRET not in "".join(span.to_json() for span in kept.spans().values())


def test_a_caller_that_takes_no_trace_is_heeded_and_passed_on(kept: Kept) -> None:
    trace = kept.tracing.begin("POST", "/predict", [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())])
    trace.end(200, STAGES)
    assert kept.spans() == {}
    assert trace.traceparent is not None
    assert trace.traceparent.startswith(f"00-{TRACE}-".encode())
    assert trace.traceparent.endswith(b"-00")


@pytest.mark.parametrize(
    ("status", "code"), [(429, StatusCode.UNSET), (500, StatusCode.ERROR), (504, StatusCode.ERROR)]
)
def test_only_our_own_failures_are_errors(kept: Kept, status: int, code: StatusCode) -> None:
    kept.tracing.begin("POST", "/predict", []).end(status, None)
    [request] = kept.spans().values()
    assert request.status.status_code is code


def test_log_lines_belong_to_the_trace_until_it_ends(kept: Kept) -> None:
    trace = kept.tracing.begin("POST", "/predict", CALL)
    assert trace.traceparent is not None
    _, trace_id, span_id, _ = trace.traceparent.decode().split("-")
    assert current_span.get() == SpanIds(trace_id, span_id)
    trace.end(200, None)
    assert current_span.get() is None


class Collector(ThreadingHTTPServer):
    """Takes what a real exporter posts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Take)
        self.posts: list[tuple[str, ExportTraceServiceRequest]] = []


class Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        self.server.posts.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_traces_reach_a_collector(collector: Collector) -> None:
    witness = open_witness(Settings(traces=True), "1.2.3")
    assert witness is not None
    for _ in range(3):
        witness.end(witness.begin("POST", "/v1/classify", CALL), Visit("POST", "/v1/classify", 200, 0.4, stages=STAGES))
    witness.close(PATIENCE_S)
    [(path, request)] = collector.posts
    assert path == "/v1/traces"
    [batch] = request.resource_spans
    who = {item.key: item.value.string_value for item in batch.resource.attributes}
    assert (who["service.name"], who["service.version"]) == ("understudy", "1.2.3")
    [scope] = batch.scope_spans
    assert sorted(span.name for span in scope.spans) == sorted(
        ["POST /v1/classify", "tokenize", "queue", "inference"] * 3
    )
    assert {span.trace_id.hex() for span in scope.spans} == {TRACE}
    assert SECRET not in str(request)


def test_the_standard_variables_name_the_service_and_take_samples(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "reviews")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracing = export_traces("1")
    tracing.begin("POST", "/predict", []).end(200, STAGES)
    tracing.begin("POST", "/predict", CALL).end(200, None)
    tracing.close(PATIENCE_S)
    [(_, request)] = collector.posts
    assert len(request.resource_spans[0].scope_spans[0].spans) == 1
    who = {item.key: item.value.string_value for item in request.resource_spans[0].resource.attributes}
    assert who["service.name"] == "reviews"


def test_a_collector_that_never_answers_is_not_waited_for() -> None:
    script = """
import time
from service.telemetry.visits import Stages
from service.telemetry.tracing import export_traces
tracing = export_traces("1")
for _ in range(5000):  # more than its queue holds
    tracing.begin("GET", "/readyz", []).end(200, None)
started = time.perf_counter()
tracing.close(0.2)
assert time.perf_counter() - started < 5
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = [sys.executable, "-c", script]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment() | where, timeout=PATIENCE_S, check=True)
        assert time.perf_counter() - started < 10  # the exporter would wait as long for each post


def test_variables_that_make_no_sense_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
    with pytest.raises(SettingProblem, match=r"OTEL_\* variables") as caught:
        export_traces("1")
    assert "\n" not in str(caught.value)


def test_switched_off_by_opentelemetrys_own_variable_there_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    trace = export_traces("1").begin("POST", "/predict", [])
    trace.end(200, STAGES)
    assert (trace.traceparent, current_span.get()) == (None, None)


# The API comes with FastAPI; the extra brings the rest.
BLOCKED = "import sys\nsys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.exporter'] = None\n"


def test_without_the_packages_it_says_what_to_install() -> None:
    script = BLOCKED + "from service.settings import Settings\nfrom service.telemetry.witness import open_witness\n"
    command = [sys.executable, "-c", script + "open_witness(Settings(traces=True), '1')"]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment(), timeout=PATIENCE_S, check=False, capture_output=True, text=True
    )
    said = finished.stderr.splitlines()[-1]
    assert said.startswith("service.settings.SettingProblem: traces: opentelemetry.")
    assert said.endswith("is not installed; install understudy[traces], or leave traces off")


def test_off_they_are_not_even_imported() -> None:
    script = (
        BLOCKED + "import service.app\nfrom service.settings import Settings\n"
        "from service.telemetry.witness import open_witness\nassert open_witness(Settings(), '1') is None\n"
        "assert 'requests' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(), timeout=PATIENCE_S, check=True)
