"""The table of docs/results/pairs.md: pairs of dev and test splits that teachers of pairs have read, without labels.

DATA=data python docs/results/overlap.py
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from export.texts.datasets import read_pairs

READ = ("mrpc/glue_train", "sick/train", "stsb/train")
"""What teachers of pairs are adapted to: `tasks.sh`."""

JUDGED = ("mrpc/tokenised_test", "mrpc/glue_dev", "sick/test", "sick/dev", "stsb/test", "stsb/dev")


def pairs(name: str) -> set[frozenset[str]]:
    """Both texts of each row in either order, whatever their case and punctuation."""
    source = Path(os.environ.get("DATA", "data"), f"{name}.tsv.gz")
    return {frozenset(map(plain, row)) for row in read_pairs(str(source), ("text", "text2"))}


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def table(judged: Iterable[str]) -> Iterable[str]:
    read = {name: pairs(name) for name in READ}
    yield f"| split | pairs | {' | '.join(f'in {name}' for name in READ)} |"
    yield f"|---|--:|{'--:|' * len(READ)}"
    for name in judged:
        own = pairs(name)
        yield f"| {name} | {len(own):,} | {' | '.join(f'{len(own & other):,}' for other in read.values())} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table(JUDGED))
