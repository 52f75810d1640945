"""The figures of a comparison as SVG that stands in a page: text stays text, and takes the page's colours.

The only module that knows matplotlib, which the extra `report` brings.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from service.bench.http_report import Line
from service.bench.pair.report import PairReport, Speed
from service.bench.pair.sheets import batches_of, cost_of, lengths_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's own colour of text until the drawing is done."""

COLOURS = ("#2a7fbf", "#d2622a", "#23936b", "#b0649b", "#a87a00", "#6d7fd1")
MARKERS, DASHES = "osD^vP", ("-", "--", "-.", ":")
"""Nothing is told by its colour alone."""

BATCH = "batch"
PANEL = (4.6, 3.1)  # inches


class NoPlots(Exception):
    """The extra that draws is not installed."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing, and what it shows in words."""

    name: str
    title: str
    said: str
    svg: str


def check() -> None:
    """Raises NoPlots where matplotlib is missing, before anything is measured in vain."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NoPlots("--html needs matplotlib: pip install 'understudy[report]', or leave --html out") from error


def plots_of(report: PairReport) -> list[Plot]:
    """Those for which there are figures."""
    found = []
    if report.served.spreads:
        found += [latencies(report), throughput(report)]
    if report.speeds:
        found += [accuracy(report), speedups(report)]
    return found


def latencies(report: PairReport) -> Plot:
    """The share of answers that came within a time, one panel a load."""
    spreads = [each for each in report.served.spreads if each.answers]
    loads = list(dict.fromkeys(each.load for each in spreads))
    figure, panels = _panels(len(loads))
    for load, panel in zip(loads, panels, strict=False):
        for each in (spread for spread in spreads if spread.load == load):
            seen, shares = 0, []
            for _, count in each.histogram_ms:
                seen += count
                shares.append(seen / each.answers * 100)
            panel.step([bound for bound, _ in each.histogram_ms], shares, where="post", **_line(report, each.variant))
        panel.set(title=load, xlabel="ms", ylabel="% of answers", xscale="log", ylim=(0, 101))
    said = "For each load, the share of answers that came within so many milliseconds."
    return _drawn(figure, "latency", "Distribution of latencies", said)


def throughput(report: PairReport) -> Plot:
    """p99 against answers a second."""
    figure, (panel, *_) = _panels(1, wide=1.6)
    for each in report.contenders:
        lines = [line for line in report.served.lines if line.variant == each.title and _is_drawn(line)]
        points = sorted(
            (line.figures.requests_s, line.figures.latency_ms.p99) for line in lines if line.figures.latency_ms
        )
        if points:
            panel.plot(*zip(*points, strict=True), **_line(report, each.title, marked=True))
    panel.set(xlabel="answers a second", ylabel="p99, ms", xscale="log", yscale="log")
    every = [line for line in report.served.lines if _is_drawn(line)]
    if every:
        panel.set_xlim(_room([line.figures.requests_s for line in every]))
        panel.set_ylim(_room([line.figures.latency_ms.p99 for line in every if line.figures.latency_ms]))
    said = "The 99th percentile of the latency at each rate of Poisson arrivals."
    return _drawn(figure, "throughput", "Throughput against p99", said)


def accuracy(report: PairReport) -> Plot:
    """Accuracy against the cost of a row."""
    figure, (panel, *_) = _panels(1, wide=1.6)
    for each in report.contenders:
        cost, share = cost_of(report, each.title), report.quality(each.title).accuracy
        style = _line(report, each.title, marked=True)
        if cost is None:
            continue
        if share is None:
            panel.axvline(cost.median_us, **{**style, "marker": "", "label": f"{each.title} (random weights)"})
            continue
        reach = [[share.value - share.low], [share.high - share.value]]
        panel.errorbar([cost.median_us], [share.value], yerr=reach, capsize=3, **{**style, "linestyle": "none"})
    panel.set(xlabel="µs a row", ylabel="accuracy", xscale="log")
    panel.set_xlim(_room([cost.median_us for each in report.contenders if (cost := cost_of(report, each.title))]))
    said = "Accuracy with its interval of 95 % against microseconds a row; models with random weights as lines."
    return _drawn(figure, "accuracy", "Accuracy against cost", said)


def speedups(report: PairReport) -> Plot:
    """How many times faster, by batch and length: one panel for each pair and number of threads."""
    students = [each.title for each in report.contenders if not each.teacher]
    sought = [
        (student, teacher.title, threads)
        for teacher in report.teachers
        for student in students
        for threads in sorted({speed.threads for speed in report.speeds})
    ]
    figure, panels = _panels(len(sought))
    for (student, teacher, threads), panel in zip(sought, panels, strict=False):
        mine = [each for each in report.speeds if (each.subject, each.threads) == (student, threads)]
        for place, lengths in enumerate(lengths_of(report)):
            _speedup(
                panel, [each for each in mine if each.lengths == lengths and teacher in each.times], teacher, place
            )
        panel.set(title=f"{student}\nagainst {teacher}, threads {threads}", xlabel=BATCH, ylabel="times faster")
        panel.set_xscale("log", base=2)
        panel.set_xticks(batches_of(report), [str(batch) for batch in batches_of(report)])
        panel.set_ylim(bottom=0)
    said = "How many times faster than the teacher the student runs, for each batch size and length of text."
    return _drawn(figure, "speedup", "Speed-up by length and batch", said)


def _speedup(panel: "Axes", speeds: Sequence[Speed], teacher: str, place: int) -> None:
    if speeds:
        found = sorted((each.batch, each.times[teacher]) for each in speeds)
        panel.plot(*zip(*found, strict=True), label=speeds[0].lengths, **_style(place, marked=True))


def _panels(count: int, wide: float = 1.0) -> "tuple[Figure, list[Axes]]":
    """So many panels, two in a row."""
    from matplotlib.figure import Figure

    _set_up()
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL[0] * columns * wide, PANEL[1] * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


@cache
def _set_up() -> None:
    """For this process: text as text, no background, and no colour that one of the page's two looks would hide."""
    import matplotlib

    matplotlib.rcParams.update(
        {
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "svg.fonttype": "none",
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "legend.framealpha": 0,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
        }
    )


def _line(report: PairReport, title: str, *, marked: bool = False) -> dict[str, Any]:
    """A contender looks the same in every drawing."""
    place = [each.title for each in report.contenders].index(title)
    return {"label": title, **_style(place, marked=marked)}


def _style(place: int, *, marked: bool) -> dict[str, Any]:
    style = {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)], "linewidth": 1.6}
    return style | ({"marker": MARKERS[place % len(MARKERS)], "markersize": 5} if marked else {})


def _drawn(figure: "Figure", name: str, title: str, said: str) -> Plot:
    """The figure as an `svg` element that several of can stand in one page."""
    for panel in figure.axes:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7.5)
        _plain_numbers(panel)
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return Plot(
        name, title, said, _inlined(content.getvalue(), name, f"{title}. {said} The figures stand in the tables.")
    )


def _plain_numbers(panel: "Axes") -> None:
    """0.5, 1, 2, … 2000 along logarithmic axes, and not 2 × 10³."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (panel.xaxis, panel.yaxis):
        if axis.get_scale() == "log" and axis.get_label_text() != BATCH:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _is_drawn(line: Line) -> bool:
    """Of a rate at which something was answered: a logarithmic axis has no zero."""
    return line.offered_s is not None and line.figures.latency_ms is not None and line.figures.requests_s > 0


def _room(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of a logarithmic axis on which at least two numbers stand."""
    return min(values) / 2, max(values) * 2


def _inlined(svg: str, name: str, said: str) -> str:
    """Without a head of its own, with ids that no other drawing has, and in the page's ink."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(
        r'<svg ([^>]*?)width="[^"]+" height="[^"]+"|<svg height="[^"]+" ([^>]*?)width="[^"]+"',
        r"<svg \1\2",
        svg,
        count=1,
    )
    return svg.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1).replace(INK, "currentColor")
