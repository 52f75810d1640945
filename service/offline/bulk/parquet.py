"""Parquet files: how many rows they have, and the rows of a span, column by column and only those that are needed.

With `arrow_parts` the only module that knows pyarrow. It knows nothing of models.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.offline.bulk.blocks import BLOCK_ROWS, Block, Column, Reject, picked
from service.offline.bulk.plan import InputFile, Span
from service.offline.errors import InputError
from service.offline.records import Columns, Text, no_column

BATCH_BYTES = 8 * 2**20
"""What a batch may come to, by the mean length of a row group's rows."""

READ_BYTES = 2**20
"""Read at once of each column: else all of a row group's column would be."""


class ParquetPart:
    """An open Parquet file, with the columns that are wanted of it."""

    def __init__(self, open_file: Any, file: InputFile, columns: Columns) -> None:
        self._open = open_file
        self._file = file
        self._columns = columns
        self._check()

    @property
    def rows(self) -> int:
        """As its footer says."""
        return int(self._open.metadata.num_rows)

    @property
    def schema(self) -> Any:
        """Of the columns that the output repeats, in its order."""
        there = self._open.schema_arrow
        fields = (there.field(name) for name in self._columns.all)
        # Views are how strings lie in memory, no type of Parquet's, and pyarrow can do little with them.
        return pa.schema([field.with_type(pa.string()) if _is_view(field.type) else field for field in fields])

    def blocks(self, span: Span, *, plain: bool) -> Iterator[Block]:
        """The rows of a span, some at a time; `plain`: the output is not Parquet, so values are to be Python's."""
        number = span.first
        for table in self._tables(span):
            yield self._block(table, number, plain=plain)
            number += table.num_rows

    def _check(self) -> None:
        there = self._open.schema_arrow
        for column in self._columns.all:
            if there.get_field_index(column) < 0:
                raise InputError(f"{self._file.path}: {no_column(column, there.names)}")
        for column in self._columns.texts:
            kind = there.field(column).type
            of = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(of) or pa.types.is_large_string(of) or _is_view(of)):
                raise InputError(f"{self._file.path}: column {column} is {kind}, not strings")

    def _tables(self, span: Span) -> Iterator[Any]:
        """Tables of BLOCK_ROWS, however small or large the row groups are."""
        groups, before = self._groups(span)
        batches = self._open.iter_batches(
            self._batch_rows(groups), row_groups=groups, columns=list(self._columns.all), use_threads=False
        )
        waiting: list[Any] = []
        size, left = 0, span.rows
        for batch in batches:
            skipped = min(before, batch.num_rows)
            before -= skipped
            part = batch.slice(skipped, left)
            left -= part.num_rows
            waiting += [part] if part.num_rows else []
            size += part.num_rows
            if size >= BLOCK_ROWS or (waiting and sum(each.nbytes for each in waiting) > BATCH_BYTES):
                yield self._table(waiting)
                waiting, size = [], 0
            if not left:
                break
        if waiting:
            yield self._table(waiting)

    def _table(self, batches: list[Any]) -> Any:
        table = pa.Table.from_batches(batches).select(list(self._columns.all))
        return table.cast(self.schema) if any(map(_is_view, table.schema.types)) else table

    def _groups(self, span: Span) -> tuple[list[int], int]:
        """The row groups that hold a span, and how many rows of the first come before it."""
        found: list[int] = []
        before = start = 0
        for group in range(self._open.metadata.num_row_groups):
            rows = self._open.metadata.row_group(group).num_rows
            if start < span.first + span.rows and start + rows > span.first:
                before = before if found else span.first - start
                found.append(group)
            start += rows
        return found, before

    def _batch_rows(self, groups: Sequence[int]) -> int:
        wanted = set(self._columns.all)
        largest = 1.0
        for group in map(self._open.metadata.row_group, groups):
            columns = map(group.column, range(group.num_columns))
            size = sum(
                each.total_uncompressed_size for each in columns if each.path_in_schema.partition(".")[0] in wanted
            )
            largest = max(largest, size / max(1, group.num_rows))
        return max(1, min(BLOCK_ROWS, int(BATCH_BYTES / largest)))

    def _block(self, table: Any, first: int, *, plain: bool) -> Block:
        problems: dict[int, str] = {}
        columns = [self._texts(table.column(name), name, problems) for name in self._columns.texts]
        texts: list[Text] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        rows = range(first + 1, first + 1 + table.num_rows)
        good = [place not in problems for place in range(table.num_rows)]
        if problems:
            table = table.filter(pa.array(good))
        own = [self._plain(column, name) if plain else column for name, column in zip(*_named(table), strict=True)]
        rejects = tuple(Reject(rows[place], None, problem) for place, problem in sorted(problems.items()))
        return Block(picked(texts, good), tuple(own), picked(rows, good), None, rejects)

    def _texts(self, column: Any, name: str, problems: dict[int, str]) -> list[Any]:
        """Its values, and what is wrong with those that are none."""
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            nulls = pc.indices_nonzero(pc.is_null(column)).to_pylist()
            problems |= dict.fromkeys(nulls, f"{name} is null")
        try:
            texts: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            texts = [_decoded(value, place, problems) for place, value in enumerate(column.cast(pa.large_binary()))]
        return texts

    def _plain(self, column: Any, name: str) -> Column:
        """As JSON can say it: numbers, strings, lists and objects; times and the like as strings."""
        kind = column.type
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
            column = column.cast(pa.string())
        try:
            values: list[object] = column.to_pylist()
            json.dumps(values)
        except (UnicodeDecodeError, TypeError) as error:
            problem = f"column {name} ({kind}) cannot be written as text; use --format parquet, or leave --keep away"
            raise InputError(f"{self._file.path}: {problem}") from error
        return values


def _decoded(value: Any, place: int, problems: dict[int, str]) -> str | None:
    """Of a file whose strings are not all UTF-8, at which pyarrow does not look."""
    content = value.as_py()
    try:
        return None if content is None else str(content, "utf-8")
    except UnicodeDecodeError:
        problems[place] = "not UTF-8; convert the file first"
        return None


def _is_view(kind: Any) -> bool:
    return bool(pa.types.is_string_view(kind))


def _named(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


@contextmanager
def open_parquet(file: InputFile, columns: Columns) -> Iterator[ParquetPart]:
    """Open a Parquet file. Raises InputError for what is none, and for one without the columns."""
    with Path(file.path).open("rb") as raw:
        try:
            with pq.ParquetFile(raw, buffer_size=READ_BYTES, pre_buffer=False) as found:
                yield ParquetPart(found, file, columns)
        except pa.ArrowException as error:
            said = " ".join(str(error).split())[:300]
            raise InputError(f"{file.path}: not a whole Parquet file ({said})") from error
