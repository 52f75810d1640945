"""`python -m tests.prove.wordpiece`: random and real texts through the quick way and through `tokenizers`.

Every text that is plain must get the same ids from both; one that does not is a mismatch, and the exit status is 1.
"""

import gzip
import json
import random
import string
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from tokenizers import Tokenizer

from service.bundle.wordpiece import PlainWords, plain_words
from tests.toys import toy_tokenizers

BLOCK = 5_000
"""So many texts in turn for one tokenizer and one limit, at most."""

LIMITS = (512, 128, 48, 16, 5, 3, None)
MOST_WORDS = (32_768, 1_024, 64, 1)
SHOWN = 5
LONGEST_LINE = 4_000
SEPARATORS = (*" \t\n-'/_\x00\x7f\v", "  ", " \r\n", ", ", ". ", "!?", "", " [", "] ")
SPECIALS = ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[ SEP ]", "<s>", "[Film]", "[film]", "lol")
INSERTS = (*SPECIALS, "[", "]", "##", "##s", "\x1c")
FOREIGN = (
    "éÉñß\u0131\u0130\u017f\u212a\u0301\u0345\u200b\xa0\xad\u2019\u201c\u2026\u2014·好。日 😂\ufe0f\ufffd\u1680\ufb01Σς"
)

Rng = random.Random


@dataclass(frozen=True, slots=True)
class Source:
    """What texts are made of: words of a vocabulary, and real lines, if there are any."""

    words: Sequence[str]
    lines: Sequence[str]


def soup(rng: Rng, _: Source) -> str:
    """ASCII of any kind, control characters too."""
    return "".join(map(chr, rng.choices(range(128), k=rng.randint(0, 60))))


def printable(rng: Rng, _: Source) -> str:
    """Letters, digits, marks and a lot of white space."""
    return "".join(rng.choices(string.ascii_letters * 3 + string.printable + " " * 40, k=rng.randint(0, 80)))


def sentence(rng: Rng, source: Source) -> str:
    """Words of the vocabulary in any case, some run together, between spaces or whatever else."""
    plain = rng.random() < 0.6
    words = [_in_some_case(rng, word) for word in rng.choices(source.words, k=rng.randint(0, 30))]
    return "".join(word + (" " if plain else rng.choice(SEPARATORS)) for word in words)


def _in_some_case(rng: Rng, word: str) -> str:
    return rng.choice((word, word, word.lower(), word.title(), word.upper(), word.removeprefix("##")))


def with_inserts(rng: Rng, source: Source) -> str:
    """A sentence with special tokens, or what looks like them."""
    words = sentence(rng, source).split(" ")
    for _ in range(rng.randint(1, 3)):
        words.insert(rng.randint(0, len(words)), rng.choice(INSERTS))
    return rng.choice((" ", "")).join(words)


def long_words(rng: Rng, source: Source) -> str:
    """Words about as long as a tokenizer and the dictionary care for, and far longer."""
    sizes = [rng.choice((3, 5, 6, 23, 24, 25, 99, 100, 101, 150)) for _ in range(rng.randint(1, 4))]
    made = ["".join(rng.choices(source.words, k=size))[:size] if rng.random() < 0.7 else "q" * size for size in sizes]
    return rng.choice((" ", ".", " , ")).join(made)


def blank(rng: Rng, _: Source) -> str:
    """White space, or next to nothing else."""
    return "".join(rng.choices(" \t\n\r\v\f\x1c\x85a.", weights=(20, 3, 3, 2, 1, 1, 1, 1, 1, 1), k=rng.randint(0, 12)))


def foreign(rng: Rng, source: Source) -> str:
    """A sentence with letters and signs of other scripts, now and then only after many plain words."""
    text = list(sentence(rng, source))
    for _ in range(rng.randint(1, 4)):
        text.insert(rng.randint(len(text) // rng.choice((1, 4)), len(text)), rng.choice(FOREIGN))
    return "".join(text)


def real(rng: Rng, source: Source) -> str:
    """A line of a file as it is, or with a few characters changed."""
    if not source.lines:
        return sentence(rng, source)
    text = list(rng.choice(source.lines))
    for _ in range(rng.choice((0, 0, 1, 3)) if text else 0):
        text[rng.randrange(len(text))] = rng.choice(string.printable + " [é\x00")
    return "".join(text)


KINDS: tuple[Callable[[Rng, Source], str], ...] = (
    *(soup, printable, sentence, sentence, with_inserts, long_words, blank, foreign, real, real),
)


@dataclass(slots=True)
class Tally:
    """What was compared so far."""

    texts: int = 0
    quick: int = 0
    mismatches: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.texts += other.texts
        self.quick += other.quick
        self.mismatches += other.mismatches
        self.shown = (self.shown + other.shown)[:SHOWN]


def compare(name: str, words: PlainWords, tokenizer: Tokenizer, texts: Iterator[str]) -> Tally:
    """The quick way beside the tokenizer."""
    tally = Tally()
    for text in texts:
        row = words.row(text)
        tally.texts += 1
        tally.quick += row is not None
        if row is not None and row != tokenizer.encode(text).ids:
            tally.mismatches += 1
            tally.shown.append(f"{name}: {text!r}"[:LONGEST_LINE])
    return tally


def texts_of(rng: Rng, source: Source) -> Iterator[str]:
    """Texts of every kind, without end."""
    while True:
        yield rng.choice(KINDS)(rng, source)


def subjects(models: Path) -> dict[str, Tokenizer]:
    """The tokenizers of the bundles and of toys."""
    files = sorted(models.glob("*/*/tokenizer.json"))
    return {str(file): Tokenizer.from_file(str(file)) for file in files} | dict(toy_tokenizers.known())


def ascii_words(tokenizer: Tokenizer) -> list[str]:
    """Sorted, so that the same seed makes the same texts."""
    return sorted(filter(str.isascii, tokenizer.get_vocab()))


def prove(models: Path, lines: Sequence[str], texts: int, seed: str) -> Tally:
    """Compare so many texts, block after block, each block for the next tokenizer and some limit."""
    rng, total, tokenizers = Rng(seed), Tally(), subjects(models)
    sources = {name: Source(ascii_words(tokenizer), lines) for name, tokenizer in tokenizers.items()}
    size = min(BLOCK, 1 + texts // len(tokenizers))  # each has a turn at least
    for name, tokenizer in cycle(tokenizers.items()):
        limit = rng.choice(LIMITS)
        tokenizer.no_truncation() if limit is None else tokenizer.enable_truncation(limit)
        words = plain_words(tokenizer, rng.choice(MOST_WORDS))
        if words is None:
            raise typer.BadParameter(f"{name} has no quick way")
        block = islice(texts_of(rng, sources[name]), min(size, texts - total.texts))
        total.add(compare(f"{name} cut at {limit}", words, tokenizer, block))
        if total.texts >= texts:
            break
    return total


def read_lines(files: Sequence[Path]) -> list[str]:
    """The first column of each line; a .gz is unpacked."""
    contents = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files)
    lines = (line for content in contents for line in content.decode("utf-8").splitlines())
    return [line.split("\t")[0][:LONGEST_LINE] for line in lines]


def main(
    texts: Annotated[int, typer.Option(min=1, help="how many to compare")] = 200_000,
    seed: Annotated[int, typer.Option(help="the same seed makes the same texts")] = 1,
    files: Annotated[list[Path] | None, typer.Option(help="real texts, one a line; several times")] = None,
    models: Annotated[Path, typer.Option(help="where the bundles lie")] = Path("models"),
    processes: Annotated[int, typer.Option(min=1, help="each takes a share of the texts")] = 1,
) -> None:
    """Compare the quick way of every tokenizer that has one with the tokenizer itself; print the count as JSON."""
    started, total = time.monotonic(), Tally()
    lines = read_lines(files or [])
    shares = [(texts + place) // processes for place in range(processes)]
    seeds = [f"{seed}/{place}" for place in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # a process for each, even for one
        for tally in pool.map(prove, [models] * processes, [lines] * processes, shares, seeds):
            total.add(tally)
    report = {
        "texts": total.texts,
        "mismatches": total.mismatches,
        "share_on_fast_path": round(total.quick / total.texts, 4),
        "seconds": round(time.monotonic() - started, 1),
        "examples": total.shown,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    if total.mismatches:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
