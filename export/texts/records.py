"""Rows as files and the Hugging Face hub give them: cells by the names of their columns, streamed.

It knows formats. It knows nothing of labels, texts or what rows are for: see `export.texts.datasets`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast
from urllib.parse import parse_qs

from export.errors import DataError, first_line
from export.texts import captured

if TYPE_CHECKING:
    from _csv import Reader

HUB = "hub:"
CONLL = ".conll"
_DOCUMENT = "-DOCSTART-"
_COMMENT = re.compile(r"# \w+ = ")  # as in CoNLL-U

LONGEST_CELL = 16 * 2**20
"""Characters of a cell of a table."""

Record = dict[str, object]
"""One row as the file gives it: column name -> value."""


def read_records(source: str, needed: Sequence[str] = (), classes: Sequence[str] = ()) -> Iterator[tuple[int, Record]]:
    """Rows with their lines, counted from 1. `needed` are the columns that will be asked for.

    Where a data set of the hub counts classes, and these are `classes` in any order, its rows have them by name. Raises
    DataError with file and line for whatever can't be read.
    """
    if source.startswith(HUB):
        return _hub_records(source, frozenset(classes))
    if captured.is_store(source):
        return _captured(Path(source), pairs=captured.PAIR in needed)
    return _file_records(Path(source))


def _captured(path: Path, *, pairs: bool) -> Iterator[tuple[int, Record]]:
    if pairs:
        for number, text, second in captured.captured_pairs(path):
            yield number, {captured.TEXT: text, captured.PAIR: second}
    else:
        for number, text in captured.captured_texts(path):
            yield number, {captured.TEXT: text}


def _file_records(path: Path) -> Iterator[tuple[int, Record]]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    reader = READERS.get(suffixes[-1] if suffixes else "")
    if reader is None:
        raise DataError(f"{path}: unknown kind of file; use one of {', '.join(READERS)} (each may be .gz)")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with _open(path) as stream:
            yield from reader(stream, str(path))
    except UnicodeDecodeError as error:
        raise DataError.at(str(path), _line_in_other_encoding(path), "not UTF-8; convert the file first") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _open(path: Path) -> TextIO:
    """As text; a byte order mark, which spreadsheets write, is left out."""
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _line_in_other_encoding(path: Path) -> int:
    """Text is decoded in blocks, so the line is looked for afterwards; a newline is the same byte in all encodings."""
    number = 0
    with _open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return number


def _tsv(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    return _table(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), place)


def _csv(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    return _table(csv.reader(stream, strict=True), place)


def _table(rows: "Reader", place: str) -> Iterator[tuple[int, Record]]:  # a header line, then rows as wide as it
    csv.field_size_limit(LONGEST_CELL)
    try:
        filled = filter(None, rows)  # a blank line has no cells
        header = next(filled, None)
        if header is None:
            raise DataError(f"{place}: empty; the first line must name the columns")
        for name, count in Counter(filter(None, header)).items():
            if count > 1:
                raise DataError.at(place, rows.line_num, f"{count} columns are named {name!r}; rename all but one")
        for cells in filled:
            if len(cells) != len(header):
                raise DataError.at(place, rows.line_num, f"{len(cells)} columns, but the header has {len(header)}")
            yield rows.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError.at(place, rows.line_num, str(error)) from error


def _jsonl(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:  # also of numbers and of brackets without end
            raise DataError.at(place, line, f"not JSON: {getattr(error, 'msg', error)}") from error
        if not isinstance(record, dict):
            raise DataError.at(place, line, "not a JSON object")
        yield line, record


def _squad(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    """SQuAD's form: texts with their questions, each of which is a row; counted from 1, since lines say nothing."""
    try:
        content = json.load(stream)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError.at(place, line, f"not JSON: {getattr(error, 'msg', error)}") from error
    try:
        rows = [
            {"question": asked["question"], "context": part["context"], "answers": asked["answers"]}
            for article in content["data"]
            for part in article["paragraphs"]
            for asked in part["qas"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{place}: not of SQuAD's form (no {error}); write rows as .jsonl instead") from error
    yield from enumerate(rows, start=1)


def _txt(stream: TextIO, _place: str) -> Iterator[tuple[int, Record]]:
    for line, text in enumerate(stream, start=1):
        if text.strip():
            yield line, {"text": text.rstrip("\r\n")}


def _conll(stream: TextIO, place: str) -> Iterator[tuple[int, Record]]:
    """A word a line: the word in the first column, its tag in the last; an empty line ends a sentence."""
    words: list[str] = []
    tags: list[str] = []
    number = width = 0
    for number, line in enumerate(stream, start=1):
        cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == _DOCUMENT:
            if words:
                yield number - len(words), {"text": words, "label": tags}
            words, tags = [], []
        elif words or not _COMMENT.match(line):
            width = width or len(cells)
            if len(cells) < 2 or len(cells) != width:
                wanted = f"the lines before have {width}" if width > 1 else "a word and its tag are wanted"
                raise DataError.at(place, number, f"{len(cells)} column{'s' * (len(cells) > 1)}; {wanted}")
            words.append(cells[0])
            tags.append(cells[-1])
    if words:
        yield number + 1 - len(words), {"text": words, "label": tags}


READERS: dict[str, Callable[[TextIO, str], Iterator[tuple[int, Record]]]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".json": _squad,
    CONLL: _conll,
    ".txt": _txt,
}
"""File ending -> reader. To add a format, add one row."""


def _hub_records(source: str, classes: frozenset[str]) -> Iterator[tuple[int, Record]]:
    import datasets  # the Hugging Face library; here, since only hub sources need it

    name, _, query = source.removeprefix(HUB).partition("?")
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    if "split" not in asked or set(asked) - {"split", "config"}:
        raise DataError(f"{source}: write hub:NAME?split=train, with &config=… where the data set has several")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs of a bad file, the exception says too
    try:
        rows = datasets.load_dataset(name, asked.get("config"), split=asked["split"], streaming=True)
        spelt = _class_names(rows.features or {}, classes)
        for number, row in enumerate(rows, start=1):
            yield number, row | {column: _named(row[column], names) for column, names in spelt.items()}
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: {first_line(error)}") from error


def _class_names(features: Mapping[str, Any], classes: frozenset[str]) -> dict[str, list[str]]:
    """Of columns with lists of class labels, such as tags, and of those with one where it is one of `classes`: each set
    counts them in an order of its own."""
    found: dict[str, list[str]] = {}
    for column, of in features.items():
        each = getattr(of, "feature", None)  # of a list
        names = getattr(each or of, "names", None)
        if names and (each or frozenset(names) == classes):
            found[column] = names
    return found


def _named(cell: object, names: Sequence[str]) -> object:
    """A class label, or a list of them, by name; what is none, such as the -1 of rows without labels, as it is."""
    match cell:
        case list():
            return [_named(part, names) for part in cell]
        case int() if 0 <= cell < len(names):
            return names[cell]
        case _:
            return cell
