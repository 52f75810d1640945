"""`python -m tests.prove.guided TARGET RUNS SECONDS SEED REPORT`: fuzz one target in this process; see `fuzz`.

Guided by coverage where atheris is installed; else mutations by chance. The report is one line of JSON.
"""

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from traceback import format_exception
from typing import Any

try:
    import atheris
except ImportError:  # only some systems have it
    atheris = None

HUNG_S = 1.0
LONGEST = 4096  # bytes of an input

TryOut = Callable[[bytes], None]


@dataclass(slots=True)
class Found:
    """What one target showed."""

    target: str
    guided: bool
    runs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    hangs: int = 0
    crash: str = ""  # the first one: it ends the run
    crash_input: str = ""  # in hexadecimal digits
    hang_input: str = ""


class Over(Exception):
    """Enough was tried."""


class Trial:
    """One input after the other, counted and timed."""

    def __init__(self, try_out: TryOut, found: Found, runs: int, seconds: float) -> None:
        self._try_out = try_out
        self._runs = runs
        self._seconds = seconds
        self._started = perf_counter()
        self.found = found

    def __call__(self, data: bytes) -> None:
        found, started = self.found, perf_counter()
        try:
            self._try_out(data)
        except BaseException as error:  # a panic of Rust code is no Exception
            found.crash, found.crash_input = "".join(format_exception(error))[-3000:], data.hex()
        ended = perf_counter()
        found.runs += 1
        found.slowest_s = max(found.slowest_s, ended - started)
        if ended - started > HUNG_S:
            found.hangs, found.hang_input = found.hangs + 1, data.hex()
        found.seconds = ended - self._started
        if found.crash or found.runs >= self._runs or found.seconds > self._seconds:
            raise Over


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds, changed in a few places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randint(0, len(data))
        size = rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(6):
            case 0 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                data[place : place + size] = rng.randbytes(size)
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size] * rng.choice((1, 2, 20))
            case 4 if words:
                data[place:place] = rng.choice(words)
            case _:
                other = rng.choice(seeds)
                data[place:] = other[rng.randint(0, len(other)) :]
    return bytes(data[:LONGEST])


def by_chance(trial: Trial, seeds: Sequence[bytes], words: Sequence[bytes], dice: int) -> None:
    """The seeds, and then mutations of them until it is over."""
    rng = random.Random(dice)
    try:
        for seed in seeds:
            trial(seed)
        while True:
            trial(mutated(seeds, words, rng))
    except Over:
        return


def by_coverage(
    trial: Trial, seeds: Sequence[bytes], words: Sequence[bytes], dice: int, end: Callable[[], None]
) -> None:
    """As atheris and libFuzzer do it, which end the process: hence `end`."""
    folder = Path(tempfile.mkdtemp())
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)
    dictionary = folder.with_suffix(".dict")
    quoted = ("".join(rf"\x{byte:02x}" for byte in word[:60]) for word in words)
    dictionary.write_text("".join(f'"{word}"\n' for word in quoted))

    def one_input(data: bytes) -> None:
        try:
            trial(data)
        except Over:
            end()

    options = [f"-max_len={LONGEST}", f"-seed={dice + 1}", "-timeout=30", "-verbosity=0"]
    options += [f"-dict={dictionary}"] if words else []
    atheris.Setup([sys.argv[0], *options, str(folder)], one_input)
    atheris.Fuzz()


def main() -> None:
    name, runs, seconds, dice, report = sys.argv[1:]
    guided: Any = atheris.instrument_imports(include=["service"]) if atheris else nullcontext()
    with guided:
        from tests.prove.targets import TARGETS, listen

    listen()
    target = TARGETS[name](Path(tempfile.mkdtemp()))
    trial = Trial(target.try_out, Found(name, atheris is not None), int(runs), float(seconds))

    def end() -> None:
        Path(report).write_text(json.dumps(asdict(trial.found)) + "\n", encoding="utf-8")
        os._exit(0)  # libFuzzer would take an exception for a find

    if atheris is None:
        by_chance(trial, target.seeds, target.words, int(dice))
    else:
        by_coverage(trial, target.seeds, target.words, int(dice), end)
    end()


if __name__ == "__main__":
    main()
