"""Parts as Parquet: scores go from numpy into Arrow columns, and what the output repeats stays as it was read.

With `parquet` the only module that knows pyarrow. Columns are those of a table of answers (`service.offline.writing`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.bundle.passages import AnswerSpan
from service.bundle.spans import Entity
from service.bundle.tasks import THRESHOLD, Choice, Scores
from service.offline.bulk.blocks import Block, Column
from service.offline.records import Found
from service.offline.writing import ANSWERS, ENTITIES, Shape

GROUP_ROWS = 65_536
GROUP_BYTES = 32 * 2**20
"""A row group is written when it has so many rows or bytes, whichever comes first."""

_KINDS = {str: pa.string(), float: pa.float64(), int: pa.int64()}


def _struct(stretch: type[Entity] | type[AnswerSpan]) -> Any:
    return pa.struct([pa.field(name, _KINDS[kind]) for name, kind in get_type_hints(stretch).items()])


_STRETCHES = {ENTITIES: _struct(Entity), ANSWERS: _struct(AnswerSpan)}


class ArrowPart:
    """A Parquet file that is being written. `own` is the schema of what the rows themselves have: None for strings."""

    def __init__(self, path: Path, shape: Shape, own: Any | None) -> None:
        self._shape = shape
        self._own = own or pa.schema([pa.field(name, pa.string()) for name in shape.columns])
        self._schema = pa.schema([*self._own, *_answer_fields(shape)])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def write(self, block: Block, scores: Scores, found: Sequence[Found]) -> None:
        """Some rows, and what the model says of them."""
        own = [_arrow(column, field.type) for column, field in zip(block.own, self._own, strict=True)]
        said = [_stretches(self._shape, found)] if self._shape.found else _answers(self._shape, scores)
        self._waiting.append(pa.Table.from_arrays([*own, *said], schema=self._schema))
        rows, size = (sum(getattr(table, name) for table in self._waiting) for name in ("num_rows", "nbytes"))
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self._waiting = []


def rows_of(path: Path) -> int:
    """Of a part, as its footer says."""
    return int(pq.read_metadata(path).num_rows)


def _arrow(column: Column, kind: Any) -> Any:
    """Values of files of lines have no types in common, so they become strings: those of JSON as JSON."""
    if not isinstance(column, list):
        return column
    return pa.array([cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for cell in column], kind)


def _answer_fields(shape: Shape) -> list[Any]:
    if shape.found:
        return [pa.field(shape.found, pa.list_(_STRETCHES[shape.found]))]
    number, name = pa.float64(), pa.string()
    fields = {
        Choice.BEST: [pa.field("label", name), pa.field("score", number)],
        Choice.EACH: [pa.field("labels", pa.list_(name))],
    }.get(shape.meaning.choice, [])
    if shape.top_k is None:
        return [*fields, *(pa.field(f"score_{label}", number) for label in shape.labels)]
    ranks = ((pa.field(f"label_{rank}", name), pa.field(f"score_{rank}", number)) for rank in shape.ranks)
    return [*fields, *(field for both in ranks for field in both)]


def _answers(shape: Shape, scores: Scores) -> list[Any]:
    """(N, L) -> the columns of these fields."""
    found: list[Any] = []
    if shape.meaning.choice is Choice.BEST:
        found += _ranked(shape, scores, np.argmax(scores, axis=1))
    elif shape.meaning.choice is Choice.EACH:
        found.append(_each(shape, scores))
    if shape.top_k is None:
        return [*found, *(pa.array(scores[:, place]) for place in range(len(shape.labels)))]
    order = np.argsort(-scores, axis=1, kind="stable")  # (N, L)
    return [*found, *(array for rank in shape.ranks for array in _ranked(shape, scores, order[:, rank - 1]))]


def _ranked(shape: Shape, scores: Scores, places: Any) -> list[Any]:
    """(N, L) scores, and of each row one label by its place (N,) -> the names, and their scores."""
    return [pa.array(shape.labels).take(pa.array(places)), pa.array(scores[np.arange(len(scores)), places])]


def _each(shape: Shape, scores: Scores) -> Any:
    holds = scores >= THRESHOLD  # (N, L)
    ends = np.concatenate([[0], np.cumsum(holds.sum(axis=1))]).astype(np.int32)
    names = pa.array(shape.labels).take(pa.array(np.nonzero(holds)[1]))
    return pa.ListArray.from_arrays(pa.array(ends), names)


def _stretches(shape: Shape, found: Sequence[Found]) -> Any:
    (field,) = _answer_fields(shape)
    return pa.array([[stretch._asdict() for stretch in each] for each in found], field.type)
