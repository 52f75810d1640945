"""Names, labels and buckets of everything that is measured.

Every label set exists from the start, so that a rate over it is right from the first event, and the hot path
only adds to children that it already holds. It knows nothing of requests or models but their names.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

MEDIA_TYPE = CONTENT_TYPE_LATEST
CODES = (200, 400, 404, 413, 415, 422, 429, 499, 500, 503)

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class RouteMeter:
    """What is counted of one route."""

    def __init__(self, requests: Counter, seconds: Histogram, route: str) -> None:
        self._by_code = {code: requests.labels(route, str(code)) for code in CODES}
        self._requests = requests
        self._route = route
        self.seconds = seconds.labels(route)

    def count(self, code: int, seconds: float) -> None:
        child = self._by_code.get(code) or self._requests.labels(self._route, str(code))
        child.inc()
        self.seconds.observe(seconds)


class ModelMeter:
    """What is measured of one model."""

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.rows = metrics.rows.labels(model)
        self.tokens = metrics.tokens.labels(model)
        self.tokenize = metrics.tokenize.labels(model)
        self.queue = metrics.queue.labels(model)
        self.inference = metrics.inference.labels(model)
        self.batch_rows = metrics.batch_rows.labels(model)
        self.batch_tokens = metrics.batch_tokens.labels(model)
        self._queue_rows = metrics.queue_rows.labels(model)
        self._dropped_rows = metrics.dropped_rows.labels(model)

    def watch(self, queued: Callable[[], float], dropped: Callable[[], float]) -> None:
        """Ask for the queue's state when somebody reads the metrics, not whenever it changes."""
        self._queue_rows.set_function(queued)
        self._dropped_rows.set_function(dropped)


class Metrics:
    """One registry; an application has its own, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests by route and status.", "route", "code")
        self._seconds = self._histogram("request_seconds", "Whole requests.", SECONDS, "route")
        self.rows = self._counter("rows", "Texts that were answered.", "model")
        self.tokens = self._counter("tokens", "Tokens that were answered, without padding.", "model")
        self.tokenize = self._histogram("tokenize_seconds", "Tokenising of a request.", SECONDS, "model")
        self.queue = self._histogram("queue_seconds", "Waiting of a request for its batches.", SECONDS, "model")
        self.inference = self._histogram("inference_seconds", "Runs of a batch.", SECONDS, "model")
        self.batch_rows = self._histogram("batch_rows", "Rows of a batch.", ROWS, "model")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch, with padding.", TOKENS, "model")
        self.queue_rows = self._gauge("queue_rows", "Rows that wait for a batch.", "model")
        self.dropped_rows = self._gauge("dropped_rows", "Rows never run: their callers had gone.", "model")
        self._ready = self._gauge("ready", "1 if this replica answers requests.")
        self._info = self._gauge("model_info", "1 for each open model.", "model", "role", "task", "precision")

    def of_route(self, route: str) -> RouteMeter:
        return RouteMeter(self._requests, self._seconds, route)

    def of_model(self, model: str, role: str, task: str, precision: str) -> ModelMeter:
        self._info.labels(model, role, task, precision).set(1)
        return ModelMeter(self, model)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def exposition(self) -> bytes:
        """All values, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, namespace="understudy", registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, what, labels, namespace="understudy", registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(name, what, labels, namespace="understudy", registry=self.registry, buckets=tuple(buckets))
