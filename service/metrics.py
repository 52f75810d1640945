"""Names, labels and buckets of everything that is measured.

Every label set exists from the start, so that a rate over it is right from the first event. The hot path adds to plain
numbers; the library's objects take them over when somebody reads. It knows nothing of requests or models but names.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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

MEDIA_TYPE = CONTENT_TYPE_LATEST
CODES = (200, 400, 401, 403, 404, 413, 415, 422, 429, 499, 500, 503, 504)

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
REJECTIONS = ("rows", "tokens", "client", "deadline", "not_ready")
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


class Tally:
    """Observations of one histogram that wait to be taken over: a tenth of what `observe` costs."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: "SummedHistogram", bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def settle(self) -> None:
        """Take them over."""
        self._histogram.add(self._counts, self._total)
        self._counts, self._total = [0] * len(self._counts), 0.0


class SummedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """So many observations in each bucket, +Inf last, and their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class RouteMeter:
    """What is counted of one route."""

    def __init__(self, requests: Counter, seconds: Tally, route: str) -> None:
        self._requests = {code: requests.labels(route, str(code)) for code in CODES}
        self._other = requests.labels(route, "other")
        self._seconds = seconds
        self._counts: dict[int, int] = {}

    def count(self, code: int, seconds: float) -> None:
        self._counts[code] = self._counts.get(code, 0) + 1
        self._seconds.add(seconds)

    def settle(self) -> None:
        """Take over what was counted since the last time."""
        counts, self._counts = self._counts, {}
        for code, count in counts.items():
            self._requests.get(code, self._other).inc(count)
        self._seconds.settle()


class ModelMeter:
    """What is measured of one model."""

    def __init__(self, metrics: "Metrics", model: str) -> None:
        self.rows = self.tokens = self.padding = 0
        self.tokenize = metrics.tally(metrics.tokenize, SECONDS, model)
        self.queue = metrics.tally(metrics.queue, SECONDS, model)
        self.inference = metrics.tally(metrics.inference, SECONDS, model)
        self.batch_rows = metrics.tally(metrics.batch_rows, ROWS, model)
        self.batch_tokens = metrics.tally(metrics.batch_tokens, TOKENS, model)
        self._rows = metrics.rows.labels(model)
        self._tokens = metrics.tokens.labels(model)
        self._padding = metrics.padding.labels(model)
        self._metrics = metrics
        self._model = model
        self._queue_rows = metrics.queue_rows.labels(model)
        self._dropped_rows = metrics.dropped_rows.labels(model)

    def watch(self, queued: Callable[[], float], dropped: Callable[[], float]) -> None:
        """Ask for the queue's state when somebody reads the metrics, not whenever it changes."""
        self._metrics.watch(self._queue_rows, queued)
        self._metrics.watch(self._dropped_rows, dropped)

    def settle(self) -> None:
        """Take over what was measured since the last time."""
        self._rows.inc(self.rows)
        self._tokens.inc(self.tokens)
        self._padding.inc(self.padding)
        self.rows = self.tokens = self.padding = 0
        for tally in (self.tokenize, self.queue, self.inference, self.batch_rows, self.batch_tokens):
            tally.settle()

    def forget(self) -> None:
        """The model has gone: over many swaps its series would pile up."""
        self._metrics.forget_model(self._model, self, (self._queue_rows, self._dropped_rows))


class Metrics:
    """One registry; an application has its own, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shared = SHARED in os.environ
        self._watched: dict[Gauge, Callable[[], float]] = {}
        self._meters: list[RouteMeter | ModelMeter] = []
        if not self._shared:
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
        self.padding = self._counter("padding_tokens", "Tokens of batches that were only padding.", "model")
        loads = self._counter("model_loads", "Bundles that were opened or refused.", "outcome")
        self.loads_done, self.loads_refused = loads.labels("opened"), loads.labels("refused")
        self.queue_rows = self._gauge("queue_rows", "Rows that wait for a batch.", "model")
        self.dropped_rows = self._gauge("dropped_rows", "Rows never run: their callers had gone.", "model")
        self._refused = self._counter("refused", "Connections refused or cut before a route saw them.", "reason")
        rejected = self._counter("rejected", "Requests that were turned away, by reason.", "reason")
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}
        self._dropped_lines = self._gauge("dropped_log_lines", "Log lines never written: nobody read them in time.")
        self._ready = self._gauge("ready", "How many workers answer requests: 1, or fewer than were started.")
        self._info = self._gauge("model_info", "1 for each open model.", "model", "role", "task", "precision")

    def of_route(self, route: str) -> RouteMeter:
        meter = RouteMeter(self._requests, self.tally(self._seconds, SECONDS, route), route)
        self._meters.append(meter)
        return meter

    def of_model(self, model: str, role: str, task: str, precision: str) -> ModelMeter:
        self._info.labels(model, role, task, precision).set(1)
        meter = ModelMeter(self, model)
        self._meters.append(meter)
        return meter

    @staticmethod
    def tally(histogram: SummedHistogram, bounds: Sequence[float], label: str) -> Tally:
        child = histogram.labels(label)
        assert isinstance(child, SummedHistogram)  # `labels` gives an object of the same class
        return Tally(child, bounds)

    def forget_model(self, model: str, meter: ModelMeter, watched: Iterable[Gauge]) -> None:
        """Drop all series of one model."""
        if meter not in self._meters:
            return
        meter.settle()
        self._meters.remove(meter)
        for gauge in watched:
            self._watched.pop(gauge, None)
            gauge.set(0)
        if not self._shared:  # values in files cannot be taken back
            for metric in self._of_models():
                metric.remove_by_labels({"model": model})

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let `sample` ask for the value."""
        self._watched[gauge] = value

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self.watch(self._ready, ready)

    def watch_log(self, dropped: Callable[[], float]) -> None:
        self.watch(self._dropped_lines, dropped)

    def sample(self) -> None:
        """Bring everything up to date; workers that share do so now and then, since any of them may be read."""
        for meter in self._meters:
            meter.settle()
        for gauge, value in list(self._watched.items()):
            gauge.set(value())

    def refusals(self, reasons: Iterable[str]) -> Callable[[str], None]:
        """A counter of connections that were refused or cut, by reason; the reasons are a closed set."""
        by_reason = {reason: self._refused.labels(reason) for reason in reasons}
        return lambda reason: by_reason[reason].inc()

    def exposition(self) -> bytes:
        """All values, as Prometheus reads them."""
        self.sample()
        if not self._shared:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, os.environ[SHARED])  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _of_models(self) -> tuple[Counter | Gauge | Histogram, ...]:
        counters = (self.rows, self.tokens, self.padding)
        histograms = (self.tokenize, self.queue, self.inference, self.batch_rows, self.batch_tokens)
        return (*counters, *histograms, self.queue_rows, self.dropped_rows, self._info)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, namespace="understudy", registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        # "livesum": of several workers those that live, added up.
        return Gauge(name, what, labels, namespace="understudy", registry=self.registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, what: str, buckets: Iterable[float], *labels: str) -> SummedHistogram:
        return SummedHistogram(
            name, what, labels, namespace="understudy", registry=self.registry, buckets=tuple(buckets)
        )
