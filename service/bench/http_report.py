"""What services showed under load: tables for people, JSON for later. Measures nothing."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.table import Table

from service.bench.http import BATCH, Baseline, Course, Run, Variant
from service.bench.inprocess import Alone, Rate
from service.bench.machine import Surroundings
from service.bench.samples import OK, Figures, Latency

QUEUE, RUN, BATCH_ROWS = "queue_seconds", "inference_seconds", "batch_rows"  # as service.telemetry.metrics calls them

LOADS = ("offered/s", "req/s", "texts/s", "p50", "p95", "p99", "p99.9", "max", "429 p99", "late p99")
LOADS_CAPTION = (
    "Medians of the rounds, the greatest max. Milliseconds from the planned moment, of answers with 200. "
    "late: from the planned moment to sending, which is the client's and its connections' part."
)
COSTS = ("CPU µs", "CPU", "client CPU", "RSS before", "after", "queue ms", "run ms", "rows", "of alone", "× p50")
COSTS_CAPTION = (
    "CPU of the service, a request and as a share of one core; its memory in MiB; its own meters: means of waiting, "
    "of a run, of a batch's rows. of alone: texts/s divided by those of the model without HTTP, in requests of as many "
    f"texts, {BATCH} for one. × p50: p50 divided by the model's own."
)


@dataclass(frozen=True, slots=True)
class Line:
    """One load on one service, over all rounds."""

    variant: str
    load: str
    rows: int
    offered_s: float | None
    figures: Figures
    worst_p99_ms: float | None  # of a round
    cpu_us: float | None  # of the service, a request
    cpu_share: float | None  # of one core
    rss_before_mib: float | None
    rss_after_mib: float | None
    client_cpu_share: float
    meters_ms: dict[str, float]  # means of what the service measured in seconds
    meters: dict[str, float]  # and of everything else
    of_alone: float | None
    times_p50: float | None


@dataclass(frozen=True, slots=True)
class HttpReport:
    """A whole run."""

    surroundings: Surroundings
    course: Course
    variants: tuple[Variant, ...]
    alone: dict[str, Alone]  # variant -> medians of its rounds
    lines: tuple[Line, ...]
    runs: tuple[Run, ...]

    def to_json(self) -> str:
        content = asdict(self)
        for variant in content["variants"]:  # a header may hold a key
            headers = variant["caller"]["headers"]
            variant["caller"]["headers"] = [line.partition(":")[0] for line in headers]
        return json.dumps(content, indent=1, default=str) + "\n"

    def to_tables(self) -> Iterator[Table | str]:
        """Two a service: what its callers saw, and what that cost."""
        for variant in self.variants:
            lines = [line for line in self.lines if line.variant == variant.title]
            loads = Table(title=self._title(variant), caption=LOADS_CAPTION, caption_justify="left")
            _fill(loads, (*LOADS, "besides 200"), [(line, _loads(line)) for line in lines])
            yield loads
            costs = Table(caption=COSTS_CAPTION, caption_justify="left")
            _fill(costs, COSTS, [(line, _costs(line)) for line in lines])
            yield costs
        yield str(self.surroundings)

    def _title(self, variant: Variant) -> str:
        ready = variant.service.ready_s
        parts = [variant.title, f"{self.course.pace.rounds} × {self.course.pace.seconds:g} s"]
        parts += [f"ready in {ready:.2f} s"] if ready is not None else []
        if variant.title in self.alone:
            one, many = self.alone[variant.title].of(1), self.alone[variant.title].of(BATCH)
            parts.append(f"alone: 1 text {one.p50_us:.0f} µs, {BATCH} texts {many.texts_s:,.0f} texts/s")
        return "; ".join(parts)


def summarise(
    surroundings: Surroundings, course: Course, variants: Sequence[Variant], results: Sequence[Run | Baseline]
) -> HttpReport:
    """All rounds -> the figures."""
    runs = tuple(result for result in results if isinstance(result, Run))
    baselines = [result for result in results if isinstance(result, Baseline)]
    alone = {
        variant.title: _middle_alone([each.alone for each in baselines if each.variant == variant.title])
        for variant in variants
        if variant.entry is not None
    }
    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.variant, run.step.title, run.step.rows), []).append(run)
    lines = tuple(_line(group, alone.get(variant)) for (variant, _, _), group in groups.items())
    return HttpReport(surroundings, course, tuple(variants), alone, lines, runs)


def _line(runs: Sequence[Run], alone: Alone | None) -> Line:
    first, found = runs[0], _middle_figures([run.figures for run in runs])
    rows = first.step.rows
    meters = {meter.name: median(_means(runs, meter.name)) for meter in first.meters}
    usages = [(run, run.before, run.after) for run in runs if run.before is not None and run.after is not None]
    cpu = [(run, after.cpu_s - before.cpu_s) for run, before, after in usages]
    return Line(
        variant=first.variant,
        load=first.step.title,
        rows=rows,
        offered_s=None if first.step.rate is None else median(run.step.rate or 0 for run in runs),
        figures=found,
        worst_p99_ms=max((run.figures.latency_ms.p99 for run in runs if run.figures.latency_ms), default=None),
        cpu_us=_median([spent / max(run.answered, 1) * 1e6 for run, spent in cpu]),
        cpu_share=_median([spent / run.spent.wall_s for run, spent in cpu]),
        rss_before_mib=_median([before.rss_mib for _, before, _ in usages]),
        rss_after_mib=_median([after.rss_mib for _, _, after in usages]),
        client_cpu_share=median(run.spent.cpu_s / run.spent.wall_s for run in runs),
        meters_ms={name: mean * 1000 for name, mean in meters.items() if name.endswith("_seconds")},
        meters={name: mean for name, mean in meters.items() if not name.endswith("_seconds")},
        of_alone=None if alone is None else found.texts_s / alone.of(BATCH if rows == 1 else rows).texts_s,
        times_p50=_times_p50(found, rows, alone),
    )


def _times_p50(found: Figures, rows: int, alone: Alone | None) -> float | None:
    if alone is None or found.latency_ms is None:
        return None
    return found.latency_ms.p50 * 1000 / alone.of(rows).p50_us


def _means(runs: Sequence[Run], name: str) -> list[float]:
    return [meter.mean for run in runs for meter in run.meters if meter.name == name]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _middle_figures(rounds: Sequence[Figures]) -> Figures:
    """Medians of what was measured, sums of what was counted."""
    return Figures(
        requests_s=median(each.requests_s for each in rounds),
        texts_s=median(each.texts_s for each in rounds),
        latency_ms=_middle_latency([each.latency_ms for each in rounds]),
        refused_ms=_middle_latency([each.refused_ms for each in rounds]),
        lateness_ms=_middle_latency([each.lateness_ms for each in rounds]),
        statuses=_added([each.statuses for each in rounds]),
        errors=_added([each.errors for each in rounds]),
    )


def _middle_latency(rounds: Sequence[Latency | None]) -> Latency | None:
    """Of the rounds in which there was any."""
    found = [each for each in rounds if each is not None]
    if not found:
        return None
    return Latency(
        p50=median(each.p50 for each in found),
        p95=median(each.p95 for each in found),
        p99=median(each.p99 for each in found),
        p999=median(each.p999 for each in found),
        max=max(each.max for each in found),
    )


def _middle_alone(rounds: Sequence[Alone]) -> Alone:
    sizes = [rate.rows for rate in rounds[0].rates]
    return Alone(
        tuple(
            Rate(
                rows,
                p50_us=median(each.of(rows).p50_us for each in rounds),
                texts_s=median(each.of(rows).texts_s for each in rounds),
            )
            for rows in sizes
        )
    )


def _added(rounds: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in rounds:
        total.update(each)
    return dict(total)


def _fill(table: Table, headings: Sequence[str], rows: Sequence[tuple[Line, list[str]]]) -> None:
    table.add_column("load", no_wrap=True)
    for heading in ("texts", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for line, cells in rows:
        table.add_row(line.load, str(line.rows), *cells)


def _loads(line: Line) -> list[str]:
    found = line.figures
    good, refused, late = found.latency_ms, found.refused_ms, found.lateness_ms
    return [
        *map(_count, (line.offered_s, found.requests_s, found.texts_s)),
        *(_ms(part) for part in ((good.p50, good.p95, good.p99, good.p999, good.max) if good else [None] * 5)),
        _ms(refused.p99 if refused else None),
        _ms(late.p99 if late else None),
        _rest(found),
    ]


def _costs(line: Line) -> list[str]:
    return [
        _count(line.cpu_us),
        *map(_percent, (line.cpu_share, line.client_cpu_share)),
        *map(_count, (line.rss_before_mib, line.rss_after_mib)),
        *(_ms(line.meters_ms.get(name)) for name in (QUEUE, RUN)),
        _number(line.meters.get(BATCH_ROWS), 1),
        _percent(line.of_alone),
        _number(line.times_p50, 2),
    ]


def _rest(found: Figures) -> str:
    """What was not answered with 200."""
    parts = {name: count for name, count in (found.statuses | found.errors).items() if name != str(OK)}
    return ", ".join(f"{name}: {count:,}" for name, count in parts.items())


def _count(value: float | None) -> str:
    return _number(value, 0)


def _ms(value: float | None) -> str:
    return _number(value, 2)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
