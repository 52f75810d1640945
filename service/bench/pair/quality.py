"""How good the answers are: accuracy and agreement on a labelled file. Knows nothing of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.bench.pair.contenders import Contender
from service.host.cores import cores
from service.offline.reading import open_file
from service.offline.records import Columns
from service.oversight.intervals import wilson

TOGETHER = 32
"""Rows of like lengths in a run."""


class UnfitData(Exception):
    """The labelled file does not fit the models."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with the labels that are right, by name."""

    source: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the rows, with Wilson's interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """None: random weights, whose answers mean nothing."""

    subject: str
    accuracy: Share | None
    agreement: dict[str, Share]  # teacher -> share of the rows with the same label


def read_labelled(path: Path, labels: Sequence[str], text: str = "text", label: str = "label") -> Labelled:
    """A table with a column of texts and one of labels, by name or by number from 0. Raises UnfitData, OfflineError."""
    numbered = {str(number): name for number, name in enumerate(labels)} | {name: name for name in labels}
    texts, right = [], []
    with open_file(path) as source:
        for record in source.records(Columns(text, kept=(label,))):
            name = numbered.get(str(record.kept[0]))
            if name is None:
                raise UnfitData(f"{path}:{record.line}: label {record.kept[0]!r}; the models know {', '.join(labels)}")
            texts.append(str(record.text))
            right.append(name)
    if not texts:
        raise UnfitData(f"{path}: has no rows; name another file with --data")
    return Labelled(str(path), tuple(texts), tuple(right))


def judge(contenders: Sequence[Contender], data: Labelled) -> tuple[Quality, ...]:
    """Each model with weights that were trained, on every row."""
    said = {each.title: _answers(each, data.texts) for each in contenders if not each.random}
    right = np.array(data.labels)
    return tuple(
        Quality(
            each.title,
            None if each.random else _share(said[each.title] == right),
            {
                other.title: _share(said[each.title] == said[other.title])
                for other in contenders
                if other.teacher and other is not each and not (each.random or other.random)
            },
        )
        for each in contenders
    )


def _answers(contender: Contender, texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
    """The best label of each text, by name: models may have them in another order."""
    bundle = contender.entry.open(cores())
    rows = bundle.encoder.encode(texts)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    best = np.zeros(len(rows), np.int64)
    for start in range(0, len(order), TOGETHER):
        places = order[start : start + TOGETHER]
        best[places] = bundle.run([rows[place] for place in places]).argmax(axis=1)
    return np.array(contender.labels)[best]


def _share(same: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Share:
    interval = wilson(int(same.sum()), len(same))
    return Share(float(same.mean()), interval.low, interval.high)
