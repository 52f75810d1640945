"""The table of docs/results/pairs.md: pairs of dev and test splits that teachers of pairs have read, without labels.

DATA=data python docs/results/overlap.py            the table
DATA=data python docs/results/overlap.py SPLIT      the rows of a split that none of them has read
"""

import gzip
import itertools
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
    return {key(row) for row in read_pairs(str(file_of(name)), ("text", "text2"))}


def file_of(name: str) -> Path:
    return Path(os.environ.get("DATA", "data"), f"{name}.tsv.gz")


def key(row: Iterable[str]) -> frozenset[str]:
    return frozenset(map(plain, row))


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def table(judged: Iterable[str]) -> Iterable[str]:
    read = {name: pairs(name) for name in READ}
    yield f"| split | pairs | {' | '.join(f'in {name}' for name in READ)} |"
    yield f"|---|--:|{'--:|' * len(READ)}"
    for name in judged:
        own = pairs(name)
        yield f"| {name} | {len(own):,} | {' | '.join(f'{len(own & other):,}' for other in read.values())} |"


def unread(name: str) -> Iterable[str]:
    """Lines of the file, with its header."""
    read = set().union(*map(pairs, READ))
    with gzip.open(file_of(name), "rt", encoding="utf-8") as lines:
        yield next(lines)
        rows = read_pairs(str(file_of(name)), ("text", "text2"))
        yield from (line for line, row in zip(lines, rows, strict=True) if key(row) not in read)


if __name__ == "__main__":
    chosen = sys.argv[1:]
    sys.stdout.writelines(itertools.chain(*map(unread, chosen)) if chosen else (f"{line}\n" for line in table(JUDGED)))
