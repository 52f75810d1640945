"""Which files are asked for, and how they are cut into spans: all that must be known before the first row is scored.

Parquet says in its footers how many rows it has. Files of lines are read through once: that costs a hundredth of
scoring them, and gives a count of rows to hold the result against.
"""

from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from service.offline.bulk.line_files import open_lines
from service.offline.bulk.parts import PARQUET, need_parquet
from service.offline.bulk.plan import InputFile, Plan, Request, Span, spans_of
from service.offline.errors import InputError
from service.offline.lines import SPLITS
from service.offline.reading import kind_of

KINDS = (*SPLITS, PARQUET)


def find_files(asked: Sequence[str], kind: str | None = None) -> tuple[InputFile, ...]:
    """The files of these names, folders and patterns, in this order; those of a folder by name. Raises InputError."""
    found = [path for name in asked for path in _files(name)]
    for place, path in enumerate(found):
        if path in found[:place]:
            raise InputError(f"{path}: named twice; its rows would be scored twice")
    files = tuple(InputFile.of(path, _kind_of(path, kind)) for path in found)
    if PARQUET in {file.kind for file in files}:
        need_parquet(files[0].path)
    return files


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.is_file() and each.name[0] not in "._")
    elif has_magic(name):
        names = glob(name, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        found = sorted(path for path in map(Path, names) if path.is_file())
    else:
        raise InputError(f"{name}: no such file")
    if not found:
        raise InputError(f"{name}: no files there")
    return found


def _kind_of(path: Path, kind: str | None) -> str:
    found = kind or kind_of(path)
    if found not in KINDS:
        known = ", ".join(f".{each}" for each in KINDS)
        raise InputError(f"{path}: unknown kind of file; use one of {known}, or --input-format")
    return found


def make_plan(request: Request) -> Plan:
    """Cut all files. Raises InputError."""
    spans: list[Span] = []
    schemas: list[tuple[str, Any]] = []
    for place, file in enumerate(request.files):
        spans += _spans(request, place, len(spans), schemas)
        _check_alike(schemas, file.path)
    return Plan(request=request, spans=tuple(spans))


def _spans(request: Request, place: int, number: int, schemas: list[tuple[str, Any]]) -> list[Span]:
    file = request.files[place]
    if file.kind != PARQUET:
        with open_lines(file, request.columns) as lines:
            return lines.spans(number, place, request.part_rows)
    from service.offline.bulk.parquet import open_parquet

    with open_parquet(file, request.columns) as table:
        schemas.append((file.path, table.schema))
        return spans_of(place, number, table.rows, request.part_rows)


def _check_alike(schemas: list[tuple[str, Any]], path: str) -> None:
    """Parts must be one table, so what the output repeats must be of one kind in all files."""
    for name, schema in schemas[1:]:
        for first, other in zip(schemas[0][1], schema, strict=True):
            if name == path and first.type != other.type:
                raise InputError(f"{path}: column {other.name} is {other.type}, but {first.type} in {schemas[0][0]}")


def check_unchanged(file: InputFile) -> None:
    """Raises InputError if a file is no longer as it was when the run began."""
    for now in _now(file):
        if now == file:
            return
    raise InputError(f"{file.path}: has changed since the run began; begin anew with --overwrite")


def _now(file: InputFile) -> Iterator[InputFile]:
    path = Path(file.path)
    if path.is_file():
        yield InputFile.of(path, file.kind)
