"""Does the watch notice traffic that has changed, and is it quiet while it has not? Real files, the real student.

    python -m tests.prove.drift --student models/NAME/VERSION --profile-texts dev.tsv.gz --unshifted dev.tsv.gz \
        --shifted reviews.tsv.gz --sentences --seeds 50

The profile is recorded on --profile-texts. Each run draws texts from a file, with repetition, and shows the student's
answers to the watch in requests of 1 to 32 texts. With --halves each run records its profile on a random half of
--profile-texts and draws its unshifted texts from the other half: texts that the profile has not seen.
Shifted texts come after --before unshifted ones, so that the window is full of these.
"""

import argparse
import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.measuring.profiles import Seen
from export.texts.sentences import TextSource, shaped_texts
from service.bench.texts import read_texts
from service.bundle.encoder import Row
from service.bundle.manifest import Profile
from service.bundle.runtime import OpenBundle, open_bundle
from service.oversight.drift import Feature
from service.oversight.student import Noted, Student
from service.predictors import Outcome, Predictor
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.oversight import OversightMetrics
from tests.prove.bounds import Bound, conclude, run

BATCH = 64
LARGEST_REQUEST = 32
NOTICED_WITHIN = 2_000


@dataclass(frozen=True)
class Texts:
    """A file's texts, as the student has read and answered them."""

    bundle: OpenBundle
    noted: Noted
    logits: NDArray[np.float32]  # (N, L)

    @property
    def places(self) -> list[int]:
        return list(range(len(self.noted.rows)))

    def profile(self, places: Sequence[int]) -> Profile:
        """Of some of them."""
        rows = [self.noted.rows[place] for place in places]
        return Seen("profile texts", rows, self.bundle.encoder.unknown_id).profile(self.logits[places], 1.0, None)

    def some(self, places: Sequence[int]) -> Noted:
        texts, rows, outcomes = self.noted.texts, self.noted.rows, self.noted.outcomes
        return Noted([texts[at] for at in places], [rows[at] for at in places], [outcomes[at] for at in places])


@dataclass(frozen=True)
class Found:
    """What one run of traffic led to."""

    noticed_after: int | None  # answers
    features: tuple[Feature, ...]  # with an alarm then
    largest: float  # effect of any feature in any look


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)  # every alarm of every run
    bundle = open_bundle(options.student)
    known = _answered(bundle, read_texts(options.profile_texts))
    unshifted = known if options.halves else _answered(bundle, read_texts(options.unshifted))
    bounds: list[Bound] = []
    details: dict[str, Any] = {}
    for path in options.shifted:
        other = _answered(bundle, list(_shifted(path, options)))
        runs = [_shift(known, unshifted, other, seed, options.before) for seed in range(options.seeds)]
        late = sum(found.noticed_after is None or found.noticed_after > NOTICED_WITHIN for found in runs)
        bounds.append(Bound(f"{path.name}: runs not noticed within {NOTICED_WITHIN}", late, 0))
        details[path.name] = _summary(other, runs)
    quiet = [_calm(known, unshifted, seed, options) for seed in range(options.seeds)]
    raised = sum(found.noticed_after is not None for found in quiet)
    bounds.append(Bound(f"unshifted: runs with an alarm in {options.answers} answers", raised, 0))
    details["unshifted"] = _summary(unshifted, quiet)
    said = {"student": bundle.manifest.name, "profile_rows": len(known.places), "seeds": options.seeds}
    return conclude(bounds, {**said, "files": details}, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True, help="folder of its bundle")
    parser.add_argument("--profile-texts", type=Path, required=True, help="TXT or TSV, .gz too")
    unshifted = parser.add_mutually_exclusive_group(required=True)
    unshifted.add_argument("--unshifted", type=Path)
    unshifted.add_argument("--halves", action="store_true", help="a profile of one half, texts of the other")
    parser.add_argument("--shifted", type=Path, action="append", default=[])
    parser.add_argument("--sentences", action="store_true", help="cut the shifted files' texts into sentences")
    parser.add_argument("--texts", type=int, default=3000, help="of each shifted file, from all over it")
    parser.add_argument("--before", type=int, default=3000, help="unshifted answers before the shift")
    parser.add_argument("--answers", type=int, default=20_000, help="unshifted answers of a quiet run")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


def _shifted(path: Path, options: argparse.Namespace) -> Iterator[str]:
    """Texts from all over a file: reviews are often sorted by label."""
    source = TextSource(source=str(path), sentences=options.sentences, max_words=10_000)
    texts = list(shaped_texts(source))
    return islice(texts, 0, None, max(1, len(texts) // options.texts))


def _answered(bundle: OpenBundle, texts: Sequence[str]) -> Texts:
    """The real student's answers; the exact graph gives a text the same one whatever it is batched with."""
    rows: list[Row] = [*bundle.encoder.encode(texts)]
    logits = np.concatenate([bundle.run(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)])  # (N, L)
    outcomes = list(map(Outcome, bundle.scores(logits).tolist(), logits.tolist()))
    return Texts(bundle, Noted([*texts], rows, outcomes), logits)


def _calm(known: Texts, unshifted: Texts, seed: int, options: argparse.Namespace) -> Found:
    rng = np.random.default_rng(seed)
    if options.halves:
        places = rng.permutation(known.places)
        half = len(places) // 2
        return _show(_student(known, places[:half].tolist()), known, places[half:].tolist(), options.answers, rng)
    return _show(_student(known, known.places), unshifted, unshifted.places, options.answers, rng)


def _shift(known: Texts, before: Texts, after: Texts, seed: int, answers: int) -> Found:
    rng = np.random.default_rng(seed)
    student = _student(known, known.places)
    _show(student, before, before.places, answers, rng)
    if student.drift_since:  # a false alarm is not a shift that was noticed
        return Found(None, (), float("nan"))
    return _show(student, after, after.places, 2 * NOTICED_WITHIN, rng)


def _student(known: Texts, places: Sequence[int]) -> Student:
    """What the watch has of a student that was just opened, with a profile of these texts in its bundle."""
    bundle = known.bundle
    profiled = bundle.manifest.model_copy(update={"profile": {bundle.precision: known.profile(places)}})
    predictor = Predictor(replace(bundle, manifest=profiled), Settings(), Metrics())
    student = Student(predictor, Settings(), OversightMetrics(Metrics()))
    asyncio.run(predictor.close(1))
    return student


def _show(student: Student, texts: Texts, places: Sequence[int], answers: int, rng: np.random.Generator) -> Found:
    """Let the watch see so many answers, and remember the first alarm."""
    assert student.drift is not None
    shown, noticed, features, largest = 0, None, tuple[Feature, ...](), 0.0
    while shown < answers:
        rows = int(rng.integers(1, LARGEST_REQUEST, endpoint=True))
        student.take_in(texts.some(rng.choice(places, rows).tolist()))
        shown += rows
        effects = [verdict.comparison.effect for verdict in student.drift.verdicts() if verdict.comparison]
        largest = max(largest, *effects) if effects else largest
        if noticed is None and student.drift_since:
            noticed, features = shown, tuple(student.drift_since)
    return Found(noticed, features, largest)


def _summary(texts: Texts, runs: Sequence[Found]) -> dict[str, Any]:
    delays = [found.noticed_after for found in runs if found.noticed_after is not None]
    return {
        "texts": len(texts.places),
        "runs": len(runs),
        "alarms": len(delays),
        "first_alarm_after": {"median": median(delays), "most": max(delays)} if delays else None,
        "by": {feature: sum(feature in found.features for found in runs) for feature in Feature},
        "largest_effect": max(found.largest for found in runs),
    }


if __name__ == "__main__":
    run(main)
