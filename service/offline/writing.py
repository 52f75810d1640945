"""Answers -> lines of JSON or CSV, and a file that is there whole or not at all.

It knows what an answer looks like. It knows nothing of models or of where records came from.
"""

import csv
import gzip
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TextIO, cast

from service.bundle.store import sync
from service.bundle.tasks import Choice, Meaning
from service.offline.errors import OutputError
from service.offline.records import Answer, Record


@dataclass(frozen=True, slots=True)
class Shape:
    """What is said of each row: its own columns, what the scores speak for, and some or all of the scores; or the
    stretches of the text that were found."""

    columns: tuple[str, ...]  # names of the text, the pair if there is one, and what is kept
    labels: tuple[str, ...]
    meaning: Meaning
    top_k: int | None = None  # None: all, in the order of the labels; else so many of the best, the best first

    def __post_init__(self) -> None:
        said = {"label", "labels", "score", "scores", *(f"score_{label}" for label in self.labels)}
        if self.found:
            said = {self.found}
        for place, name in enumerate(self.columns):
            if name in said:
                raise OutputError(f"{name}: the answer has a column of that name; rename that of the input")
            if name in self.columns[:place]:
                raise OutputError(f"{name}: named twice among --text-column, --pair-column and --keep")

    def shown(self, scores: Sequence[float]) -> list[int]:
        """The labels whose scores are shown, by their places."""
        places = list(range(len(scores)))
        if self.top_k is None:
            return places
        return sorted(places, key=lambda place: -scores[place])[: self.top_k]

    @property
    def found(self) -> str | None:
        """The name of the column where stretches of the text are all that is said."""
        return {Choice.SPANS: ENTITIES, Choice.ANSWER: ANSWERS}.get(self.meaning.choice)

    @property
    def ranks(self) -> range:
        """Which of the best have columns of their own in a table; the first has `label` and `score` if it is chosen."""
        first = 2 if self.meaning.choice is Choice.BEST else 1
        return range(first, min(self.top_k or 0, len(self.labels)) + 1)


ENTITIES, ANSWERS = "entities", "answers"
"""What the columns of stretches are called."""

Render = Callable[[Answer], str]
"""One answer as one line, with its end."""


def as_jsonl(shape: Shape) -> tuple[str, Render]:
    """The head of the file, which is empty, and what makes its lines."""
    encode = json.JSONEncoder(ensure_ascii=False).encode  # made once: that takes longer than a line
    labels = shape.labels

    def render(answer: Answer) -> str:
        scores = answer.scores
        said: dict[str, object] = dict(zip(shape.columns, _own(answer.record), strict=True))
        if shape.found:
            return encode(said | {shape.found: _found(answer)}) + "\n"
        chosen = shape.meaning.chosen(scores)
        if shape.meaning.choice is Choice.BEST:
            said |= {"label": labels[chosen[0]], "score": scores[chosen[0]]}
        elif shape.meaning.choice is Choice.EACH:
            said["labels"] = [labels[place] for place in chosen]
        said["scores"] = {labels[place]: scores[place] for place in shape.shown(scores)}
        return encode(said) + "\n"

    return "", render


def as_csv(shape: Shape) -> tuple[str, Render]:
    """The header line, and what makes the other lines. Labels of a multi-label task are a JSON list in one cell, and so
    are stretches of texts."""
    write = csv.writer(cast(TextIO, _Echo()), lineterminator="\n").writerow
    labels = shape.labels

    def render(answer: Answer) -> str:
        scores = answer.scores
        chosen = shape.meaning.chosen(scores)
        shown = shape.shown(scores)
        cells = [cell if isinstance(cell, str) else json.dumps(cell) for cell in _own(answer.record)]
        if shape.found:
            return cast(str, write([*cells, json.dumps(_found(answer), ensure_ascii=False)]))
        if shape.meaning.choice is Choice.BEST:
            cells += [labels[chosen[0]], repr(scores[chosen[0]])]
        elif shape.meaning.choice is Choice.EACH:
            cells.append(json.dumps([labels[place] for place in chosen], ensure_ascii=False))
        if shape.top_k is None:
            cells += map(repr, scores)
        else:
            cells += chain.from_iterable(
                (labels[shown[rank - 1]], repr(scores[shown[rank - 1]])) for rank in shape.ranks
            )
        return cast(str, write(cells))

    return cast(str, write(_header(shape))), render


FORMATS: MappingProxyType[str, Callable[[Shape], tuple[str, Render]]] = MappingProxyType(
    {"jsonl": as_jsonl, "csv": as_csv}
)


def format_of(path: Path | None) -> str:
    """What a file of that name should hold; JSON lines, where the name does not say."""
    endings = {ending.lower().removeprefix(".") for ending in path.suffixes[-2:]} if path else set()
    return next((name for name in FORMATS if name in endings), "jsonl")


def check_new(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where no file may be written, before any work is done."""
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: not a plain file; leave --out away to write to stdout")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: already there; choose another name, or --overwrite")
    if not path.resolve().parent.is_dir():
        raise OutputError(f"{path}: no such folder; make it first")


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[TextIO]:
    """A file that gets its name when it is complete; .gz is compressed. However this ends, nothing half is left."""
    check_new(path, overwrite=overwrite)
    target = path.resolve()  # what a link leads to is replaced, not the link
    staging = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        with _open_text(staging, zipped=target.suffix.lower() == ".gz") as stream:
            yield stream
        sync(staging)
        check_new(path, overwrite=overwrite)  # somebody may have been quicker
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def _open_text(path: Path, *, zipped: bool) -> TextIO:
    if zipped:
        return cast(TextIO, gzip.open(path, "xt", encoding="utf-8", newline=""))
    return path.open("x", encoding="utf-8", newline="")


def _own(record: Record) -> tuple[object, ...]:
    """What the columns of the record hold."""
    texts = (record.text,) if isinstance(record.text, str) else record.text
    return (*texts, *record.kept)


def _found(answer: Answer) -> list[dict[str, object]]:
    return [stretch._asdict() for stretch in answer.found]


def _header(shape: Shape) -> list[str]:
    names = list(shape.columns)
    if shape.found:
        return [*names, shape.found]
    names += {Choice.BEST: ["label", "score"], Choice.EACH: ["labels"]}.get(shape.meaning.choice, [])
    if shape.top_k is None:
        return [*names, *(f"score_{label}" for label in shape.labels)]
    return [*names, *chain.from_iterable((f"label_{rank}", f"score_{rank}") for rank in shape.ranks)]


class _Echo:
    """Makes `csv.writer` hand back the line that it would write."""

    def write(self, line: str) -> str:
        return line
