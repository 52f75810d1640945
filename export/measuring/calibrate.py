"""Calibrate a student against its teacher on texts without labels: from margin to whether the teacher must be asked.

Both run as they are served, from their bundles. The arithmetic stands in `export.measuring.thresholds`; this module
knows nothing of labels or training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import DataError
from export.measuring.evaluation import run_by_length
from export.measuring.pair import name_of, teacher_columns
from export.measuring.profiles import Seen
from export.measuring.thresholds import Found, Promise, calibrate
from export.progress import console, progress_bar
from export.texts import captured
from export.texts.datasets import read_pairs
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Calibration, Manifest, Precision, Profile
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.store import check_place

Logits = NDArray[np.float32]


SECOND = "text2"
"""The column of second texts, where nothing else is said."""


@dataclass(frozen=True)
class Source:
    """Unlabelled texts, or pairs of them: a source (see `export.texts.datasets`) and its columns."""

    place: str
    column: str = "text"
    pair: str | None = None  # the column of the second text, where the student reads pairs

    @property
    def second(self) -> str:
        """A store of captured texts has a column of its own for it."""
        return self.pair or (captured.PAIR if captured.is_store(self.place) else SECOND)

    def read(self, texts: int) -> list[Text]:
        """All texts (or pairs, if `texts` is 2), none twice. Raises DataError, also when there are none."""
        found = list(read_pairs(self.place, (self.column, self.second)[:texts]))
        if not found:
            raise DataError(f"{self.place}: has no rows, so there is nothing to measure")
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Calibrated:
    """What a manifest says of a student beside its teacher, by graph."""

    calibration: dict[Precision, Calibration]
    profile: dict[Precision, Profile]


@dataclass(frozen=True)
class _Asked:
    """Texts as the student reads them, with the teacher's logits (N, L) in the order of the student's labels."""

    seen: Seen
    wanted: Logits


def measure(folder: Path, teacher: Path, source: Source, promise: Promise, traffic: Source | None = None) -> Calibrated:
    """Calibrate each graph of the student in this folder; nothing is written.

    The profile is of `traffic`, texts like those to come; if there are none, of the texts that calibrate.
    Raises Unmet where no threshold keeps the promise, ModelError for a pair that doesn't fit.
    """
    beside = open_bundle(teacher)
    check_place(teacher, beside.manifest)
    student = open_bundle(folder)
    columns = teacher_columns(student.manifest, beside.manifest)

    def ask(of: Source) -> _Asked:
        texts = of.read(student.manifest.texts)
        wanted = answers(beside, beside.encoder.encode(texts))[:, columns]
        return _Asked(Seen(of.place, student.encoder.encode(texts), student.encoder.unknown_id), wanted)

    asked = ask(source)
    like_those_to_come = asked if traffic is None else ask(traffic)
    calibration, profile = {}, {}
    for precision in student.manifest.graphs:
        graph = student if precision is student.precision else open_bundle(folder, precision)
        logits = answers(graph, asked.seen.rows)
        found = calibrate(logits, asked.wanted, promise, f"{folder} ({precision})")
        calibration[precision] = declared(found, promise, beside.manifest, source.place)
        if traffic is not None:
            logits = answers(graph, like_those_to_come.seen.rows)
        profile[precision] = like_those_to_come.seen.profile(logits, found.temperature, like_those_to_come.wanted)
    return Calibrated(calibration, profile)


def answers(bundle: OpenBundle, rows: Sequence[Row]) -> Logits:
    """Logits (N, L) of rows in their order, run in batches of similar length as a busy server does."""
    with progress_bar(f"{name_of(bundle.manifest)} ({bundle.precision})", len(rows), "rows") as bar:

        def run(batch: Sequence[Row]) -> Logits:
            logits = bundle.run(batch)
            bar.advance(len(batch))
            return logits

        return run_by_length(run, rows)


def declared(found: Found, promise: Promise, teacher: Manifest, dataset: str) -> Calibration:
    """As the manifest has it. Its rows are those that the threshold was tested on: not the fifth that set it up."""
    tried = found.tried
    console.log(
        f"threshold {tried.threshold:g} at temperature {found.temperature:g}: {tried.agreement:.4f} of "
        f"{tried.accepted:,} accepted rows agree, {tried.escalation:.1%} go to the teacher"
    )
    return Calibration(
        teacher=name_of(teacher),
        dataset=dataset,
        rows=tried.rows,
        temperature=found.temperature,
        threshold=tried.threshold,
        target=promise.target,
        bound=tried.bound(promise.confidence),
        confidence=promise.confidence,
        agreement=tried.agreement,
        escalation=tried.escalation,
    )
