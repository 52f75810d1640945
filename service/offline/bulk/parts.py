"""Parts as lines of JSON or CSV, and the one place that knows which kinds of parts there are.

It knows what an answer looks like. It knows nothing of models, nor of when a part is complete.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from service.bundle.tasks import Scores
from service.offline.bulk.blocks import Block, listed
from service.offline.errors import OfflineError
from service.offline.records import Answer, Found, Record
from service.offline.writing import FORMATS, Shape

PARQUET = "parquet"
KINDS = (*FORMATS, PARQUET)


class Part(Protocol):
    """A file that is being written."""

    def write(self, block: Block, scores: Scores, found: Sequence[Found]) -> None: ...
    def close(self) -> None: ...


class LinePart:
    """A file of lines that is being written."""

    def __init__(self, path: Path, shape: Shape, kind: str) -> None:
        head, self._render = FORMATS[kind](shape)
        self._stream = path.open("x", encoding="utf-8", newline="")
        self._stream.write(head)

    def write(self, block: Block, scores: Scores, found: Sequence[Found]) -> None:
        """Some rows, and what the model says of them."""
        kept = map(tuple, zip(*map(listed, block.own), strict=True))
        records = (Record(row, own[0], own[1:]) for row, own in zip(block.rows, kept, strict=True))
        answers = map(Answer, records, scores.tolist(), found)
        self._stream.writelines(map(self._render, answers))

    def close(self) -> None:
        """All is written."""
        self._stream.close()


def open_part(path: Path, kind: str, shape: Shape, own: Any | None) -> Part:
    """A new file of that kind; `own` is the Arrow schema of the input's columns, where it has one."""
    if kind != PARQUET:
        return LinePart(path, shape, kind)
    from service.offline.bulk.arrow_parts import ArrowPart

    return ArrowPart(path, shape, own)


def need_parquet(what: str) -> None:
    """Parquet is an extra. Raises OfflineError where it is not installed."""
    if find_spec("pyarrow") is None:
        raise OfflineError(f"{what}: Parquet needs pyarrow: pip install 'understudy[parquet]'")
