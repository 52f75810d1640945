"""Names, labels and buckets of everything that is measured.

Every label set exists from the start, so that a rate over it is right from the first event, and the hot path
only adds to children that it already holds. It knows nothing of requests or models but their names.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.strategy import Ending, Server

MEDIA_TYPE = CONTENT_TYPE_LATEST
CODES = (200, 400, 401, 403, 404, 413, 415, 422, 429, 499, 500, 503, 504)

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
REJECTIONS = ("rows", "tokens", "client", "deadline", "not_ready", "budget")
"""Why a request was turned away though nothing was wrong with it."""

TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where several workers keep their values; prometheus_client's own variable."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series, and nobody asks for them


@contextmanager
def sharing() -> Iterator[Callable[[str], None]]:
    """In the parent: a folder for the values of all workers. Yields what to call when one of them has ended."""
    memory = Path("/dev/shm")  # not on a disk, and writable where nothing else is
    with TemporaryDirectory(prefix="understudy-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        os.environ[SHARED] = folder
        try:
            yield lambda worker: mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]
        finally:
            del os.environ[SHARED]


def share(worker: str) -> None:
    """From now on this process keeps its values beside those of other workers, in the folder that SHARED names.

    By the name of the worker and not of the process: one that is started again goes on with the files that are there,
    so that their number stays the same.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: worker)  # type: ignore[no-untyped-call]


def exposition(registry: CollectorRegistry) -> bytes:
    """All values, as Prometheus reads them."""
    return generate_latest(registry)


class RouteMeter:
    """What is counted of one route."""

    def __init__(self, requests: Counter, seconds: Histogram, route: str) -> None:
        self._requests = {code: requests.labels(route, str(code)) for code in CODES}
        self._other = requests.labels(route, "other")
        self._seconds = seconds.labels(route)

    def count(self, code: int, seconds: float) -> None:
        self._requests.get(code, self._other).inc()
        self._seconds.observe(seconds)


class ModelMeter:
    """What is measured of one model."""

    def __init__(self, metrics: "Metrics", model: str, info: Gauge) -> None:
        self.rows = metrics.rows.labels(model)
        self.tokens = metrics.tokens.labels(model)
        self.padding = metrics.padding.labels(model)
        self.tokenize = metrics.tokenize.labels(model)
        self.queue = metrics.queue.labels(model)
        self.inference = metrics.inference.labels(model)
        self.batch_rows = metrics.batch_rows.labels(model)
        self.batch_tokens = metrics.batch_tokens.labels(model)
        self.by_strategy = {server: metrics.by_strategy.labels(model, server) for server in Server}
        self.escalations = {ending: metrics.escalations.labels(model, ending) for ending in Ending}
        self._metrics = metrics
        self._model = model
        self._watched = tuple(gauge.labels(model) for gauge in (*metrics.queues, metrics.dropped_rows))
        self._info = info
        info.set(1)

    def watch(self, *values: Callable[[], float]) -> None:
        """Of the queue: rows, tokens, and rows dropped so far; asked when somebody reads, not whenever they change."""
        for gauge, value in zip(self._watched, values, strict=True):
            self._metrics.watch(gauge, value)

    def forget(self) -> None:
        """The model has gone: over many swaps its series would pile up."""
        self._metrics.forget_model(self._model, self, (*self._watched, self._info))


class Metrics:
    """One registry; an application has its own, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shared = SHARED in os.environ
        self._watched: dict[Gauge, Callable[[], float]] = {}
        self._models: dict[str, ModelMeter] = {}
        if not self.shared:
            ProcessCollector(registry=self.registry)
        self._requests = self.counter("requests", "Requests by route and status.", "route", "code")
        self._seconds = self._histogram("request_seconds", "Whole requests.", SECONDS, "route")
        self.rows = self.counter("rows", "Texts that were answered.", "model")
        self.tokens = self.counter("tokens", "Tokens that were answered, without padding.", "model")
        self.tokenize = self._histogram("tokenize_seconds", "Tokenising of a request.", SECONDS, "model")
        self.queue = self._histogram("queue_seconds", "Waiting of a request for its batches.", SECONDS, "model")
        self.inference = self._histogram("inference_seconds", "Runs of a batch.", SECONDS, "model")
        self.batch_rows = self._histogram("batch_rows", "Rows of a batch.", ROWS, "model")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch, with padding.", TOKENS, "model")
        self.padding = self.counter("padding_tokens", "Tokens of batches that were only padding.", "model")
        self.by_strategy = self.counter(
            "strategy_rows", "Texts for which a strategy was asked or set, by who answered.", "model", "served_by"
        )
        self.escalations = self.counter(
            "escalated_rows", "Texts of unsure students, by what came of asking the teacher.", "model", "outcome"
        )
        self._budget = self.gauge("escalation_budget_seconds", "Time that teachers may run for unsure students now.")
        loads = self.counter("model_loads", "Bundles that were opened or refused.", "outcome")
        self.loads_done, self.loads_refused = loads.labels("opened"), loads.labels("refused")
        self.queues = (
            self.gauge("queue_rows", "Rows that wait for a batch.", "model"),
            self.gauge("queue_tokens", "Tokens that wait for a batch, without padding.", "model"),
        )
        self.dropped_rows = self.gauge("dropped_rows", "Rows never run: their callers had gone.", "model")
        self._refused = self.counter("refused", "Connections refused or cut before a route saw them.", "reason")
        rejected = self.counter("rejected", "Requests that were turned away, by reason.", "reason")
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}
        self._dropped_lines = self.gauge("dropped_log_lines", "Log lines never written: nobody read them in time.")
        self._ready = self.gauge("ready", "How many workers answer requests: 1, or fewer than were started.")
        about = ("role", "task", "precision", "engine")
        self._info = self.gauge("model_info", "How many workers have it open.", "model", *about)

    def of_route(self, route: str) -> RouteMeter:
        return RouteMeter(self._requests, self._seconds, route)

    def of_model(self, model: str, role: str, task: str, precision: str, engine: str) -> ModelMeter:
        meter = self._models[model] = ModelMeter(self, model, self._info.labels(model, role, task, precision, engine))
        return meter

    def forget_model(self, model: str, meter: ModelMeter, gauges: Iterable[Gauge]) -> None:
        """Drop all series of one model, unless it was loaded again meanwhile."""
        if self._models.get(model) is not meter:
            return
        del self._models[model]
        for gauge in gauges:
            self._watched.pop(gauge, None)
            gauge.set(0)
        if not self.shared:  # values in files cannot be taken back
            for metric in self._of_models():
                metric.remove_by_labels({"model": model})

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let `sample` ask for the value."""
        self._watched[gauge] = value

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self.watch(self._ready, ready)

    def watch_budget(self, left: Callable[[], float]) -> None:
        self.watch(self._budget, left)

    def watch_log(self, dropped: Callable[[], float]) -> None:
        self.watch(self._dropped_lines, dropped)

    def sample(self) -> None:
        """Ask for all watched values; workers that share do so now and then, since any of them may be read."""
        for gauge, value in list(self._watched.items()):
            gauge.set(value())

    def refusals(self, reasons: Iterable[str]) -> Callable[[str], None]:
        """A counter of connections that were refused or cut, by reason; the reasons are a closed set."""
        by_reason = {reason: self._refused.labels(reason) for reason in reasons}
        return lambda reason: by_reason[reason].inc()

    def collected(self) -> CollectorRegistry:
        """All values as of now, those of other workers too. It belongs to the event loop, like all that is watched; any
        thread may read what it gives, which takes longer."""
        self.sample()
        if not self.shared:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry, os.environ[SHARED])  # type: ignore[no-untyped-call]
        return registry

    def _of_models(self) -> tuple[Counter | Gauge | Histogram, ...]:
        counters = (self.rows, self.tokens, self.padding, self.by_strategy, self.escalations)
        histograms = (self.tokenize, self.queue, self.inference, self.batch_rows, self.batch_tokens)
        return (*counters, *histograms, *self.queues, self.dropped_rows, self._info)

    def counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, namespace="understudy", registry=self.registry)

    def gauge(
        self, name: str, what: str, *labels: str, mode: Literal["livesum", "livemin", "livemax"] = "livesum"
    ) -> Gauge:
        """`mode`: what is shown of several workers that live: their sum, the least or the most."""
        return Gauge(name, what, labels, namespace="understudy", registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, what: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(name, what, labels, namespace="understudy", registry=self.registry, buckets=tuple(buckets))
