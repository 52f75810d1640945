"""Random tags and what seqeval 1.2.2 says of them.

`python -m tests.export.measuring.seqeval_cases` rewrites seqeval_cases.json.

seqeval is where the field's entity F1 comes from, and it is no dependency of ours (docs/decisions/0023): its answers
are kept instead, and ours are held against them.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_suffix(".json")
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")

Rows = list[list[str]]


class Case(NamedTuple):
    """Rows of tags as they should be and as they were found, and seqeval's figures."""

    wanted: Rows
    found: Rows
    precision: float
    recall: float
    f1: float


def read_cases() -> list[Case]:
    """Those that were kept."""
    return [Case(*row) for row in json.loads(FILE.read_text())]


def random_rows(rng: random.Random) -> tuple[Rows, Rows]:
    """Some rows of tags, many of them bad IOB2, and the same with some tags changed."""
    wanted = [rng.choices(LABELS, (4, 1, 2, 1, 2, 1, 1), k=rng.randint(1, 9)) for _ in range(rng.randint(1, 4))]
    changed = rng.choice((0.0, 0.2, 0.5))
    return wanted, [[rng.choice(LABELS) if rng.random() < changed else tag for tag in row] for row in wanted]


def main() -> None:
    """Needs seqeval."""
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng, cases = random.Random(2), []
    for _ in range(80):
        rows = random_rows(rng)
        figures = [float(score(*rows, zero_division=0)) for score in (precision_score, recall_score, f1_score)]
        cases.append(Case(*rows, *figures))
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
