"""`cost`: what a million texts cost on cores that are rented by the hour, and how many one core answers."""

import json as json_format
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from service.bench.cost import Worker, Workload, hire, texts_s, turns, usd_of_a_million
from service.bench.engine import Entry, ratios
from service.bench.flags import Against, AtLeastOne, Graphs, Json, Models, Seed, TextsFile, entries_of, places_of
from service.bench.machine import Surroundings
from service.bench.terminal import FAULTS, check_places, complaints, give_up, idle_surroundings, screen, write
from service.bench.texts import SENTENCES, read_texts

CAPTION = (
    "µs: on a core, from text to scores, in windows and batches as of files; the middle of the rounds, the least and "
    "the greatest. USD: of a million texts at {price:g} an hour of a core that is always busy. ×: what the other one "
    "costs, divided by this."
)

Most = Annotated[int, typer.Option(min=1, help="texts at most, drawn from all")]
Price = Annotated[float, typer.Option(min=0, help="USD for an hour of one core")]


@dataclass(frozen=True, slots=True)
class Line:
    """What a text costs one bundle."""

    subject: str
    us: float
    least_us: float
    greatest_us: float
    texts_s: float  # of one core
    usd_of_a_million: float
    times: dict[str, float]  # of each yardstick


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    surroundings: Surroundings
    core_hour_usd: float
    texts: int
    rounds: int
    lines: tuple[Line, ...]

    def to_json(self) -> str:
        return json_format.dumps(asdict(self), indent=2) + "\n"

    def to_table(self) -> Table:
        """One row a bundle, one column a yardstick."""
        title = f"{self.texts:,} texts, one thread, {self.rounds} rounds"
        table = Table(title=title, caption=CAPTION.format(price=self.core_hour_usd), caption_justify="left")
        table.add_column("bundle")
        for heading in ("µs", "", "texts/s a core", "USD", *(f"× {name}" for name in self.lines[0].times)):
            table.add_column(heading, justify="right")
        for line in self.lines:
            spread = f"{line.least_us:,.1f}-{line.greatest_us:,.1f}"
            cells = (f"{line.us:,.1f}", spread, f"{line.texts_s:,.0f}", f"{line.usd_of_a_million:.3g}")
            table.add_row(line.subject, *cells, *(f"{times:,.1f}" for times in line.times.values()))
        return table


def cost(
    bundle: Graphs = None,
    models: Models = Path("models"),
    against: Against = None,
    texts: TextsFile = None,
    most: Most = 1000,
    core_hour: Price = 0.04,
    rounds: AtLeastOne = Workload.rounds,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """What a text costs, from text to scores: time on a core, texts a second of one, USD a million. All in one run."""
    try:
        check_places(json)
        entries = entries_of(bundle, models)
        found = read_texts(texts) if texts else SENTENCES
        drawn = np.random.default_rng(seed).permutation(len(found))[:most]
        workload = Workload(tuple(found[place] for place in drawn), rounds)
        report = _measure(entries, workload, against or [], core_hour)
    except FAULTS as error:
        give_up(error)
    screen.print(report.to_table())
    screen.print(str(report.surroundings))
    write(json, report.to_json())


def _measure(entries: list[Entry], workload: Workload, against: list[str], core_hour: float) -> Report:
    with ExitStack() as stack:
        workers = [hire(entry, workload.texts, stack) for entry in entries]
        yardsticks, surroundings = places_of(against, workers), idle_surroundings()
        rounds = track(turns(workers, workload), "measuring", workload.rounds, console=complaints, transient=True)
        found = np.array(list(rounds))  # (rounds, workers)
    lines = _lines(workers, found, yardsticks, core_hour)
    return Report(surroundings, core_hour, len(workload.texts), workload.rounds, lines)


def _lines(
    workers: list[Worker], found: NDArray[np.float64], yardsticks: list[int], core_hour: float
) -> tuple[Line, ...]:
    times = {workers[place].title: ratios(found, place) for place in yardsticks}
    return tuple(
        Line(
            subject=worker.title,
            us=(us := float(np.median(mine))),
            least_us=float(mine.min()),
            greatest_us=float(mine.max()),
            texts_s=texts_s(us),
            usd_of_a_million=usd_of_a_million(us, core_hour),
            times={name: float(cheaper[place]) for name, cheaper in times.items()},
        )
        for place, (worker, mine) in enumerate(zip(workers, found.T, strict=True))
    )
