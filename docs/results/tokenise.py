"""The tokeniser's figures in docs/results/engine.md: a bundle's own way and `tokenizers`, in turns within one run.

python docs/results/tokenise.py BUNDLE FILE [--text COLUMN]; FILE is TSV, gz or not.
Times are this process's processor time on one thread.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from tokenizers import Tokenizer

from service.bundle.manifest import TOKENIZER_FILE
from service.bundle.runtime import open_bundle
from service.offline.reading import open_file
from service.offline.records import Columns

ROUNDS = 31

Tokenise = Callable[[list[str]], list[list[int]]]


def read(file: Path, column: str) -> list[str]:
    with open_file(file) as source:
        return [str(record.text) for record in source.records(Columns(column))]


def by_tokenizers(bundle: Path, most: int) -> Tokenise:
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER_FILE))
    tokenizer.enable_truncation(most)
    return lambda texts: [found.ids for found in tokenizer.encode_batch_fast(texts)]


def seconds(run: Tokenise, texts: list[str]) -> float:
    started = process_time()
    run(texts)
    return process_time() - started


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("bundle", type=Path)
    flags.add_argument("file", type=Path)
    flags.add_argument("--text", default="text")
    told = flags.parse_args()
    bundle, texts = open_bundle(told.bundle), read(told.file, told.text)
    runs: dict[str, Tokenise] = {
        "ours": bundle.encoder.encode,
        "tokenizers": by_tokenizers(told.bundle, bundle.manifest.max_tokens),
    }
    ours, theirs = (run(texts) for run in runs.values())  # ours has met the words afterwards, as in a running service
    differ = sum(one != other for one, other in zip(ours, theirs, strict=True))
    times = np.array([[seconds(run, texts) for run in runs.values()] for _ in range(ROUNDS)]) / len(texts) * 1e6
    characters, tokens = sum(map(len, texts)) / len(texts), sum(map(len, ours)) / len(texts)
    lines = [
        f"{len(texts):,} texts of {characters:.0f} characters and {tokens:.0f} tokens; {differ} of other ids",
        *(
            f"{name}: {np.median(times[:, place]):.1f} µs a text, least {times[:, place].min():.1f}"
            for place, name in enumerate(runs)
        ),
        f"{np.median(times[:, 1] / times[:, 0]):.1f} times as quick",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
