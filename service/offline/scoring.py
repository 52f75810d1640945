"""Records in, scores or stretches out, in the same order: in windows, sorted by length within each, on several threads.

It knows texts and batches. It knows nothing of files; whoever has texts of another kind makes records of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from service.bundle.encoder import Row
from service.bundle.errors import TextError
from service.bundle.passages import BEST_ANSWER, Search, answers, of_texts
from service.bundle.rows import Spanned
from service.bundle.runtime import OpenBundle
from service.bundle.spans import Tag, entities
from service.bundle.tasks import Choice, Logits, Scores
from service.offline.errors import InputError
from service.offline.records import Answer, Found, Record, Text


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done at once. A larger window finds more rows of one length, and holds more memory."""

    window_rows: int = 4096
    window_chars: int = 4 * 2**20
    batch_rows: int = 64
    batch_tokens: int = 8192


class Window:
    """Texts whose batches run."""

    def __init__(self, scores: Scores, found: Callable[[], list[Found]], runs: Sequence["Future[None]"]) -> None:
        self._scores = scores
        self._found = found
        self._runs = runs

    def scores(self) -> Scores:
        """Wait. (N, L), in the order in which the texts were given; (N, 0) where stretches are found."""
        for run in self._runs:
            run.result()
        return self._scores

    def found(self) -> list[Found]:
        """Wait. The stretches that were found in each text; of a model that looks for none nothing."""
        for run in self._runs:
            run.result()
        return self._found()


class Scorer:
    """A bundle that scores many texts, on threads of its own; close it, or use it as a context."""

    def __init__(self, bundle: OpenBundle, threads: int, sizes: Sizes = Sizes(), search: Search = BEST_ANSWER) -> None:
        self.bundle = bundle
        self.sizes = sizes
        self.search = search  # for answers to questions
        self._tags = tuple(map(Tag.of, bundle.manifest.labels))  # what they are to a tagger
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="scorer")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def begin(self, texts: Sequence[Text]) -> Window:
        """Tokenise now, and let the batches run while the caller does something else. Raises TextError."""
        rows = self.bundle.encoder.encode(texts)
        batches = self._batches(rows)
        submit = self._threads.submit
        scores = np.empty((len(texts), 0))  # (N, L)
        found: list[Found] = [()] * len(texts)
        match self.bundle.meaning.choice:
            case Choice.SPANS:
                return Window(scores, lambda: found, [submit(self._tag, rows, places, found) for places in batches])
            case Choice.ANSWER:
                logits = [_NOTHING] * len(rows)  # of long texts there are several rows
                runs = [submit(self._read, rows, places, logits) for places in batches]
                return Window(scores, lambda: self._answers(rows, logits), runs)
            case _:
                scores = np.empty((len(texts), len(self.bundle.manifest.labels)))
                return Window(scores, lambda: found, [submit(self._run, rows, places, scores) for places in batches])

    def answers(self, records: Iterable[Record], source: str) -> Iterator[Answer]:
        """Answer all records, while the next window is read; `source` names where they are from. Raises InputError."""
        waiting: deque[tuple[list[Record], Window]] = deque()
        for window in self._windows(records):
            waiting.append((window, self._begin(window, source)))
            if len(waiting) > 1:
                yield from _done(*waiting.popleft())
        while waiting:
            yield from _done(*waiting.popleft())

    def _begin(self, window: list[Record], source: str) -> Window:
        try:
            return self.begin([record.text for record in window])
        except TextError as error:
            if error.place is None:  # the tokenizer does not say which it was: ask it about one after the other
                for record in window:
                    self._begin([record], source)
            line = window[error.place or 0].line
            raise InputError.at(source, line, str(error)) from None  # the cause might hold the text

    def _windows(self, records: Iterable[Record]) -> Iterator[list[Record]]:
        window: list[Record] = []
        chars = 0
        for record in records:
            window.append(record)
            chars += len(record.text) if isinstance(record.text, str) else sum(map(len, record.text))
            if len(window) >= self.sizes.window_rows or chars >= self.sizes.window_chars:
                yield window
                window, chars = [], 0
        if window:
            yield window

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Places of rows that are alike in length, the longest first, so that no long run is left for the end."""
        batch: list[int] = []
        width = 0
        for place in sorted(range(len(rows)), key=lambda place: len(rows[place]), reverse=True):
            width = width or max(1, len(rows[place]))  # the first is the longest of its batch
            if batch and (len(batch) == self.sizes.batch_rows or width * (len(batch) + 1) > self.sizes.batch_tokens):
                yield batch
                batch, width = [], max(1, len(rows[place]))
            batch.append(place)
        if batch:
            yield batch

    def _run(self, rows: Sequence[Row], places: list[int], scores: Scores) -> None:
        logits = self.bundle.run([rows[place] for place in places])  # (B, L)
        _check_finite(logits)
        scores[places] = self.bundle.scores(logits)

    def _apart(self, rows: Sequence[Row]) -> list[Logits]:
        """The logits of each row's own tokens, (T, L)."""
        own = self.bundle.apart(rows, self.bundle.run(rows))  # (B, T, L) -> B x (T, L)
        for logits in own:
            _check_finite(logits)
        return own

    def _read(self, rows: Sequence[Row], places: list[int], logits: list[Logits]) -> None:
        for place, own in zip(places, self._apart([rows[place] for place in places]), strict=True):
            logits[place] = own

    def _answers(self, rows: Sequence[Row], logits: Sequence[Logits]) -> list[Found]:
        return [tuple(answers(*parts, self.search)) for parts in of_texts(rows, logits)]

    def _tag(self, rows: Sequence[Row], places: list[int], found: list[Found]) -> None:
        own = self._apart([rows[place] for place in places])
        for place, scores in zip(places, self.bundle.scores_apart(own), strict=True):
            row = rows[place]
            assert isinstance(row, Spanned)  # a tagger's encoder gives no others
            found[place] = entities(row, scores, self._tags)


_NOTHING = np.empty((0, 0), np.float32)
"""What stands in a list until a run has filled it."""


def _check_finite(logits: Logits) -> None:
    if not np.isfinite(logits).all():
        raise FloatingPointError("the model gave logits that are not numbers")


def _done(window: list[Record], running: Window) -> Iterator[Answer]:
    return map(Answer, window, running.scores().tolist(), running.found())
