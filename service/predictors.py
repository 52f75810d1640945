"""Predictor = bundle + queue + threads; Catalogue = predictors by name.

A teacher is one more predictor, with a queue and threads of its own, so that it never delays a student.
It knows texts and scores. It knows nothing of HTTP.
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from service.batching import Answer, Batcher, BatchRun, Limits
from service.bundle.encoder import Row
from service.bundle.errors import MissingFile
from service.bundle.manifest import Manifest, Role
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.bundle.store import BundlePath, check_place, find_bundles, read_manifest
from service.metrics import Metrics
from service.settings import Settings

INLINE_CHARS = 1000
"""Longest single text that is tokenised on the event loop: handing it to a thread would take longer."""

RowScores = list[float]


class NoSuchModel(Exception):
    """No model of that name; the message lists those that there are."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Texts that were tokenised and entered the queue."""

    future: "asyncio.Future[Answer[RowScores]]"
    tokens: int
    tokenize_s: float


class Predictor:
    """One model that answers: texts -> scores in the order of its labels."""

    def __init__(self, bundle: OpenBundle, limits: Limits, workers: int, metrics: Metrics) -> None:
        self.bundle = bundle
        self.manifest = manifest = bundle.manifest
        self.name = f"{manifest.name}@{manifest.version}"
        self.name_json = json.dumps(self.name)
        self.labels_json = tuple(json.dumps(label) for label in manifest.labels)
        self._meter = metrics.of_model(self.name, manifest.role, manifest.task, bundle.precision)
        self._batcher: Batcher[Row, RowScores] = Batcher(
            self._run, limits, workers=workers, name=self.name, observe=self._observe
        )
        self._meter.watch(lambda: self.queued_rows, lambda: self._batcher.dropped_rows)
        self._tokenizer = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self.name}-tokenizer")
        self._tokenizing = 0

    @property
    def alive(self) -> bool:
        """Do its workers run?"""
        return self._batcher.alive

    @property
    def queued_rows(self) -> int:
        """Texts that wait to be tokenised or to be run."""
        return self._tokenizing + self._batcher.queued_rows

    async def admit(self, texts: Sequence[str]) -> Pending:
        """Tokenise and queue all texts or none. Raises QueueFull or Closed."""
        started = perf_counter()
        if len(texts) == 1 and len(texts[0]) <= INLINE_CHARS:
            rows = self.bundle.encoder.encode(texts)
        else:
            rows = await self._encode_aside(texts)
        elapsed = perf_counter() - started
        return Pending(self._batcher.submit(rows), sum(map(len, rows)), elapsed)

    def record(self, pending: Pending, answer: Answer[RowScores]) -> None:
        """Count an answered request."""
        meter = self._meter
        meter.rows.inc(len(answer.results))
        meter.tokens.inc(pending.tokens)
        meter.tokenize.observe(pending.tokenize_s)
        meter.queue.observe(answer.queue_s)

    async def close(self, patience_s: float) -> None:
        """Run what waits, then end the threads."""
        await self._batcher.close(patience_s)
        self._tokenizer.shutdown(wait=False, cancel_futures=True)

    async def _encode_aside(self, texts: Sequence[str]) -> list[Row]:
        """Many or long texts would hold up everyone else on the event loop."""
        self._batcher.require_room(self._tokenizing + len(texts))
        self._tokenizing += len(texts)
        try:
            encode = partial(self.bundle.encoder.encode, texts)
            return await asyncio.get_running_loop().run_in_executor(self._tokenizer, encode)
        finally:
            self._tokenizing -= len(texts)

    def _run(self, rows: Sequence[Row]) -> list[RowScores]:
        logits = self.bundle.run(rows)  # (B, L)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gave logits that are not numbers")
        scores: list[RowScores] = self.bundle.scores(logits).tolist()
        return scores

    def _observe(self, run: BatchRun) -> None:
        self._meter.inference.observe(run.seconds)
        self._meter.batch_rows.observe(run.rows)
        self._meter.batch_tokens.observe(run.tokens)


class Catalogue:
    """The models that are served, by `name` and by `name@version`."""

    def __init__(self, predictors: Sequence[Predictor], default: str) -> None:
        self.predictors = tuple(predictors)
        self.default = default
        self._by_name = {predictor.manifest.name: predictor for predictor in predictors}
        self._by_name |= {predictor.name: predictor for predictor in predictors}
        self._default = self._by_name[default]

    def resolve(self, name: str | None) -> Predictor:
        """The model of that name; the default one for None."""
        if name is None:
            return self._default
        try:
            return self._by_name[name]
        except KeyError:
            raise NoSuchModel(f"no such model; there are {', '.join(sorted(self._by_name))}") from None

    @property
    def dead(self) -> list[str]:
        """Models whose workers do not run."""
        return [predictor.name for predictor in self.predictors if not predictor.alive]

    async def close(self, patience_s: float) -> None:
        """Close all predictors at the same time."""
        await asyncio.gather(*(predictor.close(patience_s) for predictor in self.predictors))


def newest_bundles(models: Path) -> dict[str, BundlePath]:
    """Name -> its newest version."""
    return {place.name: place for place in find_bundles(models)}  # sorted: the newest comes last


def choose_default(models: Path, manifests: Sequence[Manifest], wanted: str | None) -> str:
    """The model that answers when none is named: the wanted one, or the first student."""
    if not manifests:
        raise MissingFile(f"{models}: no bundles; publish one there, or name another folder with --models")
    names = {name: manifest.name for manifest in manifests for name in (manifest.name, _full(manifest))}
    if wanted is not None:
        if wanted not in names:
            raise NoSuchModel(f"{models}: no model {wanted}; there are {', '.join(sorted(names))}")
        return names[wanted]
    students = [manifest.name for manifest in manifests if manifest.role is Role.STUDENT]
    return (students or [manifest.name for manifest in manifests])[0]


def open_catalogue(settings: Settings, metrics: Metrics) -> Catalogue:
    """Open the newest version of every model, all at once in threads."""
    places = list(newest_bundles(settings.models).values())
    manifests = [read_manifest(place.folder) for place in places]
    default = choose_default(settings.models, manifests, settings.default)
    with ThreadPoolExecutor(max_workers=len(places), thread_name_prefix="open") as threads:
        opened = list(threads.map(partial(_open, settings), places, manifests))
    limits = Limits(rows=settings.max_batch_rows, tokens=settings.max_batch_tokens, queued=settings.max_queue_rows)
    return Catalogue([Predictor(bundle, limits, _workers(settings, bundle), metrics) for bundle in opened], default)


def _open(settings: Settings, place: BundlePath, manifest: Manifest) -> OpenBundle:
    check_place(place.folder, manifest)
    student = manifest.role is Role.STUDENT
    threads = settings.student_threads if student else settings.teacher_threads
    return open_bundle(place.folder, settings.precision, EngineOptions(threads=threads))


def _workers(settings: Settings, bundle: OpenBundle) -> int:
    return settings.student_workers if bundle.manifest.role is Role.STUDENT else 1


def _full(manifest: Manifest) -> str:
    return f"{manifest.name}@{manifest.version}"
