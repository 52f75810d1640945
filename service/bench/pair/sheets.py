"""The figures of a comparison as tables of words, which a terminal and a page show alike. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich.table import Table

from service.bench.http_report import Line
from service.bench.pair.contenders import Contender
from service.bench.pair.quality import Share
from service.bench.pair.report import PERCENTILES, PairReport, Speed, answers_of
from service.bench.samples import OK

NONE, RANDOM = "–", "random weights"
FEW = 100
"""A 99th percentile of fewer answers is the slowest of them."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. The first `names` columns name a row, all others are figures."""

    title: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1

    def to_table(self) -> Table:
        table = Table(title=self.title, caption=self.caption, caption_justify="left")
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if place < self.names else "right", no_wrap=place < self.names)
        for row in self.rows:
            table.add_row(*row)
        return table


def sheets_of(report: PairReport) -> list[Sheet]:
    """Every figure that is plotted stands in one of them too."""
    found = [models_sheet(report)]
    for threads in sorted({speed.threads for speed in report.speeds}):
        found += [engine_sheet(report, threads), speedup_sheet(report, threads)]
    if report.served.lines:
        found += [loads_sheet(report), latency_sheet(report)]
    return found


def models_sheet(report: PairReport) -> Sheet:
    teachers = [each for each in report.teachers if not each.random]
    data = report.conditions.data
    agreement = tuple(f"agrees with {each.title}" for each in teachers)
    return Sheet(
        title="Models: accuracy beside cost",
        caption=f"{data.rows} rows of {data.source}, with Wilson's interval of 95 %. {_cost_caption(report)}"
        "Peak: texts a second of one service over HTTP. Resident: that whole service after its loads.",
        headings=("model", "accuracy", *agreement, "µs a row", "peak/s", "graph MB", "resident MiB", "ready s"),
        rows=tuple(_model_row(report, each, teachers) for each in report.contenders),
    )


def _model_row(report: PairReport, each: Contender, teachers: Sequence[Contender]) -> tuple[str, ...]:
    quality, served = report.quality(each.title), report.served
    cost = cost_of(report, each.title)
    return (
        each.title,
        share_text(quality.accuracy),
        *(share_text(quality.agreement.get(other.title), NONE if not each.random else RANDOM) for other in teachers),
        NONE if cost is None else number(cost.median_us),
        number(served.peak_s.get(each.title)),
        f"{each.graph_bytes / 1e6:.1f}",
        number(served.memory_mib.get(each.title)),
        NONE if each.title not in served.ready_s else f"{served.ready_s[each.title]:.2f}",
    )


def cost_of(report: PairReport, title: str) -> Speed | None:
    """The case that stands for a model's cost: the fewest threads, the smallest batch, all lengths."""
    found = [speed for speed in report.speeds if speed.subject == title and speed.lengths == "as in the data"]
    return min(found, key=lambda speed: (speed.threads, speed.batch), default=None)


def _cost_caption(report: PairReport) -> str:
    cost = next((found for each in report.contenders if (found := cost_of(report, each.title))), None)
    if cost is None:
        return ""
    return f"µs a row: the engine alone, batch {cost.batch}, {_threads(cost.threads)}, lengths as in the data. "


def engine_sheet(report: PairReport, threads: int) -> Sheet:
    """µs a row by length and batch."""
    named = {each.title: _cells(report, threads, each.title, _us) for each in report.contenders}
    return Sheet(
        title=f"Engine: µs a row, {_threads(threads)}",
        caption="Medians of the rounds (least–most) of the engine alone, texts tokenised before. "
        f"{NONE}: a pass would have taken too long.",
        headings=("lengths", "model", *(f"batch {batch}" for batch in batches_of(report))),
        rows=_rows(report, named),
        names=2,
    )


def speedup_sheet(report: PairReport, threads: int) -> Sheet:
    """How many times faster than each teacher."""
    named = {
        f"{each.title} against {teacher.title}": _cells(report, threads, each.title, partial(_times, teacher.title))
        for teacher in report.teachers
        for each in report.contenders
        if not each.teacher
    }
    return Sheet(
        title=f"Engine: times faster than the teacher, {_threads(threads)}",
        caption="Medians of the ratios within a round.",
        headings=("lengths", "pair", *(f"batch {batch}" for batch in batches_of(report))),
        rows=_rows(report, named),
        names=2,
    )


def loads_sheet(report: PairReport) -> Sheet:
    """What each load over HTTP showed."""
    pace = report.conditions.course
    seconds = "" if pace is None else f"{pace.pace.rounds} rounds of {pace.pace.seconds:g} s. "
    return Sheet(
        title="Over HTTP: one text a request",
        caption=f"{seconds}Closed loops by connections, then Poisson arrivals at shares of the service's own peak. "
        f"Medians of the rounds; milliseconds from the planned moment. ≈: of fewer than {FEW} answers.",
        headings=("load", "service", "offered/s", "answered/s", "p50", "p95", "p99", "answers", "errors"),
        rows=tuple(_load_row(line) for line in sorted(report.served.lines, key=_load_order(report))),
        names=2,
    )


def _load_row(line: Line) -> tuple[str, ...]:
    good, answers = line.figures.latency_ms, answers_of(line)
    times = (NONE,) * 3 if good is None else tuple(f"{part:.2f}" for part in (good.p50, good.p95, good.p99))
    if answers < FEW and good is not None:
        times = (*times[:2], f"≈ {times[2]}")
    return (
        line.load,
        line.variant,
        number(line.offered_s),
        number(line.figures.requests_s),
        *times,
        str(answers),
        lost(line),
    )


def lost(line: Line) -> str:
    """What was not answered with 200."""
    every = line.figures.statuses | line.figures.errors
    return ", ".join(f"{name}: {count}" for name, count in every.items() if name != str(OK)) or "0"


def latency_sheet(report: PairReport) -> Sheet:
    """The distributions that the plot shows."""
    order = _load_order(report)
    loads = {(line.load, line.variant): order(line) for line in report.served.lines}
    spreads = sorted(report.served.spreads, key=lambda spread: loads[spread.load, spread.variant])
    shares = [f"{share:g}" for share in PERCENTILES]
    return Sheet(
        title="Over HTTP: distribution of latencies, ms",
        caption="All rounds together, from a histogram whose buckets are a tenth wide.",
        headings=("load", "service", "answers", *(f"p{share}" for share in shares)),
        rows=tuple(
            (each.load, each.variant, str(each.answers), *(number(each.percentiles_ms.get(share)) for share in shares))
            for each in spreads
        ),
        names=2,
    )


def share_text(share: Share | None, otherwise: str = RANDOM) -> str:
    return otherwise if share is None else f"{share.value:.4f} ({share.low:.3f}–{share.high:.3f})"


def number(value: float | None) -> str:
    """With three or so figures that mean something."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def batches_of(report: PairReport) -> list[int]:
    return sorted({speed.batch for speed in report.speeds})


def lengths_of(report: PairReport) -> list[str]:
    return list(dict.fromkeys(speed.lengths for speed in report.speeds))


Cells = dict[tuple[str, int], str]
"""(lengths, batch) -> what stands there."""


def _cells(report: PairReport, threads: int, subject: str, shown: Callable[[Speed], str]) -> Cells:
    found = [each for each in report.speeds if (each.threads, each.subject) == (threads, subject)]
    return {(each.lengths, each.batch): shown(each) for each in found}


def _rows(report: PairReport, named: Mapping[str, Cells]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (lengths, name, *(cells.get((lengths, batch), NONE) for batch in batches_of(report)))
        for lengths in lengths_of(report)
        for name, cells in named.items()
    )


def _times(teacher: str, speed: Speed) -> str:
    return f"{speed.times[teacher]:.1f} ×" if teacher in speed.times else NONE


def _us(speed: Speed) -> str:
    return f"{number(speed.median_us)} ({number(speed.least_us)}–{number(speed.most_us)})"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _load_order(report: PairReport) -> Callable[[Line], tuple[int, int]]:
    """Loads in the order in which they came, and the services in theirs within each."""
    loads = list(dict.fromkeys(line.load for line in report.served.lines))
    titles = [each.title for each in report.contenders]
    return lambda line: (loads.index(line.load), titles.index(line.variant))
