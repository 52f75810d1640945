"""One span into one part: read, score, write, publish. What an engine runs, in whatever process.

It knows the bundle and the ledger. It knows nothing of who else works on the same plan.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.bundle.errors import TextError
from service.bundle.passages import Search
from service.bundle.runtime import EngineOptions, OpenBundle, open_bundle
from service.offline.bulk.blocks import Block, Reject
from service.offline.bulk.ledger import Ledger
from service.offline.bulk.line_files import LineFile, open_lines
from service.offline.bulk.parts import PARQUET, Part, open_part
from service.offline.bulk.plan import Job, Receipt, Span
from service.offline.bulk.survey import check_unchanged
from service.offline.errors import InputError, OutputError
from service.offline.scoring import Scorer
from service.offline.writing import Shape

Wanted = Callable[[], bool]


class Abandoned(Exception):
    """Nobody waits for the part any more."""


class Labourer:
    """An open bundle that scores spans of one job, one after the other; use it as a context."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = job.plan.request
        self._bundle = _open(job)
        self._scorer = Scorer(self._bundle, 1, search=Search(self._request.top_k or 1))
        self._ledger = Ledger(job.folder, self._request.format)
        manifest = self._bundle.manifest
        self._shape = Shape(self._request.columns.all, manifest.labels, self._bundle.meaning, self._request.top_k)
        self._files = ExitStack()
        self._last: tuple[int, Any] | None = None  # the file that the last span was of, and it opened

    def __enter__(self) -> Self:
        self._scorer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        self._scorer.__exit__(kind, error, trace)

    def score(self, number: int, wanted: Wanted = lambda: True) -> Receipt:
        """Make the part of this number, unless it is there. Raises InputError, and Abandoned if it is not wanted."""
        span = self._job.plan.spans[number]
        if (receipt := self._ledger.receipt(span)) is not None:
            return receipt
        staged = self._ledger.staging()
        try:
            rejects = self._write(span, staged, wanted)
            receipt = Receipt(
                number=number,
                file=self._job.plan.file_of(span).path,
                first=span.first,
                read=span.rows,
                scored=span.rows - len(rejects),
                rejected=len(rejects),
                bytes=staged.stat().st_size,
            )
            self._ledger.publish(staged, rejects, receipt)
        finally:
            staged.unlink(missing_ok=True)
        return receipt

    def _write(self, span: Span, staged: Path, wanted: Wanted) -> list[Reject]:
        """Fill the part, and give back what does not stand in it."""
        file = self._job.plan.file_of(span)
        check_unchanged(file)
        rejects: list[Reject] = []
        read = written = 0
        source = self._source(span.file)
        with _part(staged, self._request.format, self._shape, getattr(source, "schema", None)) as part:
            for block in self._blocks(source, span):
                if not wanted():
                    raise Abandoned
                scored = self._score(block, part)
                read, written = read + block.read, written + len(scored.texts)
                rejects += scored.rejects
                if rejects and not self._job.rejects:
                    raise InputError(rejects[0].at(file.path))
        check_unchanged(file)
        if (read, written) != (span.rows, span.rows - len(rejects)):
            raise OutputError(f"{file.path}: {read} rows where {span.rows} were counted; begin anew with --overwrite")
        return rejects

    def _source(self, place: int) -> Any:
        """The file, opened: a .gz goes on from where the span before it ended."""
        if self._last is None or self._last[0] != place:
            self._files.close()
            self._last = None
            file, columns = self._request.files[place], self._request.columns
            if file.kind == PARQUET:
                from service.offline.bulk.parquet import open_parquet

                self._last = place, self._files.enter_context(open_parquet(file, columns))
            else:
                self._last = place, self._files.enter_context(open_lines(file, columns))
        return self._last[1]

    def _blocks(self, source: Any, span: Span) -> Iterator[Block]:
        if isinstance(source, LineFile):
            return source.blocks(span)
        blocks: Iterator[Block] = source.blocks(span, plain=self._request.format != PARQUET)
        return blocks

    def _score(self, block: Block, part: Part) -> Block:
        """Those of its rows that could be scored are written; the others are among its rejects."""
        try:
            window = self._scorer.begin(block.texts)
        except TextError:
            block = block.without(self._unreadable(block))
            window = self._scorer.begin(block.texts)
        part.write(block, window.scores(), window.found())
        return block

    def _unreadable(self, block: Block) -> dict[int, str]:
        """The tokenizer does not always say which text it was: ask it about one after the other."""
        found = {}
        for place, text in enumerate(block.texts):
            try:
                self._bundle.encoder.encode([text])
            except TextError as error:
                found[place] = str(error)
        return found


def _open(job: Job) -> OpenBundle:
    # Several processes of one thread each are quicker than one of many.
    request = job.plan.request
    options = EngineOptions(threads=1, device=job.device, engine=request.engine, isa=job.isa)
    bundle = open_bundle(job.bundle, request.precision, options)
    if bundle.manifest.seal != request.seal:
        raise OutputError(f"{job.bundle}: not the bundle that the run began with; begin anew with --overwrite")
    return bundle


@contextmanager
def _part(path: Path, kind: str, shape: Shape, own: Any) -> Iterator[Part]:
    part = open_part(path, kind, shape, own)
    try:
        yield part
    finally:
        part.close()
