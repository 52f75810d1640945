"""OpenTelemetry traces: one span a request, with its tokenising, waiting and running below it.

The only module that needs the extra `traces`. Spans hold names, sizes and times, never a text, a header or a raw path.
Where they go and which are taken is said by OpenTelemetry's own variables, which its packages read themselves.
It knows nothing of HTTP servers or models.
"""

import threading
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.settings import SettingProblem
from service.telemetry.visits import Headers, SpanIds, Stages, current_span

PARENT = b"traceparent"


class Tracing:
    """Begins traces, and sends off what is done."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("understudy")

    def begin(self, method: str, route: str, headers: Headers) -> "Trace":
        """A request arrived. The route is the registered one; the trace goes on from the caller's, if it sent one."""
        parent = _PROPAGATOR.extract(headers, Context(), _GETTER)
        attributes = {"http.request.method": method, "http.route": route}
        return Trace(
            self._tracer,
            self._tracer.start_span(f"{method} {route}", parent, SpanKind.SERVER, attributes),
        )

    def close(self, patience_s: float) -> None:
        """Send what is left; a collector that does not answer is not waited for much longer."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(patience_s)


class Trace:
    """One request that is traced. Begun and ended in the same task."""

    __slots__ = ("_span", "_tracer", "traceparent")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        known = span.get_span_context()
        self.traceparent: bytes | None = None
        """For the header of the same name in the answer."""
        if known != INVALID_SPAN_CONTEXT:
            ids = SpanIds(format_trace_id(known.trace_id), format_span_id(known.span_id))
            self.traceparent = f"00-{ids.trace_id}-{ids.span_id}-{known.trace_flags:02x}".encode()
            current_span.set(ids)

    def end(self, status: int, stages: Stages | None) -> None:
        """The answer is ready."""
        current_span.set(None)
        span = self._span
        if not span.is_recording():
            return
        now = time_ns()
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        if stages is not None:
            span.set_attribute("understudy.model", stages.model)
            span.set_attribute("understudy.rows", stages.rows)
            span.set_attribute("understudy.tokens", stages.tokens)
            self._add_children(stages, now)
        span.end(now)

    def _add_children(self, stages: Stages, now: int) -> None:
        """Reckoned back from the end: what comes after a run is short, while a body before it may have come slowly."""
        context = set_span_in_context(self._span, Context())
        parts = [("tokenize", stages.tokenize_s), ("queue", stages.queue_s), ("inference", stages.inference_s)]
        if stages.teacher_s:
            parts.append(("teacher", stages.teacher_s))
        begin = now - sum(int(seconds * 1e9) for _, seconds in parts)
        for name, seconds in parts:
            end = begin + int(seconds * 1e9)
            self._tracer.start_span(name, context, start_time=begin).end(end)
            begin = end


def export_traces(version: str) -> Tracing:
    """Traces that go to a collector over OTLP/HTTP. Raises SettingProblem where an OTEL_* variable makes no sense."""
    try:
        resource = Resource.create({"service.version": version})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # no OTEL_* variable names it
            resource = resource.merge(Resource({"service.name": "understudy"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `close` does, and in time
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise SettingProblem(f"traces: {error}; look at the OTEL_* variables") from error
    return Tracing(provider)


class _ParentOnly(Getter[Headers]):
    """The caller's `traceparent`. Its `tracestate` and `baggage` are free text of a stranger, and stay outside."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        found = [value.decode("latin-1") for name, value in carrier if name == PARENT] if key == "traceparent" else []
        return found if len(found) == 1 else None

    def keys(self, carrier: Headers) -> list[str]:
        return ["traceparent"]


_GETTER = _ParentOnly()
_PROPAGATOR = TraceContextTextMapPropagator()
