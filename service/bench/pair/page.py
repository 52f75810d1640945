"""Tables and drawings as one HTML file that asks nobody for anything, readable by day and night. Measures nothing."""

from collections.abc import Iterator, Sequence
from html import escape

from service.bench.pair.plots import Plot
from service.bench.pair.report import Conditions
from service.bench.pair.sheets import Sheet

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for this page: nothing."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1b1b; --soft: #595959; --line: #d4d4d4; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e8e8e8; --soft: #a9adb3; --line: #3a3e44; } }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
p, dd { margin: .3rem 0; } .soft, caption, figcaption, dt { color: var(--soft); }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid currentColor; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; font-size: .85rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th.name { text-align: left; font-weight: 500; } thead th { font-weight: 600; }
figure { margin: 1rem 0; } svg { width: 100%; max-width: 62rem; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
"""


def page_of(title: str, conditions: Conditions, sheets: Sequence[Sheet], plots: Sequence[Plot]) -> str:
    """The whole file; the first table stands before the drawings."""
    tables = [list(_table(sheet, f"table-{place}")) for place, sheet in enumerate(sheets)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{escape(title)}</h1>",
            *_facts(conditions),
            *tables[0],  # what most people come for
            *(line for plot in plots for line in _figure(plot)),
            *(line for table in tables[1:] for line in table),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def facts_of(conditions: Conditions) -> dict[str, str]:
    """Where and how it was measured, in words."""
    around, data = conditions.surroundings, conditions.data
    versions = {"Python": around.machine.python, "onnxruntime": around.machine.onnxruntime, **around.versions}
    return {
        "Command": conditions.command,
        "Machine": f"{around.machine.cpu}, {around.machine.cores} cores, kernel {around.kernel}, load {around.load}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Commit": around.commit or "unknown",
        "When": around.when,
        "Data": f"{data.source}: {data.rows} rows of {data.shortest}–{data.longest} tokens, median {data.median:g}, "
        f"95 % of at most {data.p95:g}",
    }


def _facts(conditions: Conditions) -> Iterator[str]:
    yield "<dl>"
    for name, value in facts_of(conditions).items():
        shown = f"<code>{escape(value)}</code>" if name == "Command" else escape(value)
        yield f"<dt>{escape(name)}</dt><dd>{shown}</dd>"
    yield "</dl>"
    if not conditions.surroundings.idle:
        yield "<p><strong>The machine was not idle when this began: do not trust these figures.</strong></p>"


def _figure(plot: Plot) -> Iterator[str]:
    yield f'<h2 id="{plot.name}">{escape(plot.title)}</h2>'
    yield f"<figure>{plot.svg}<figcaption>{escape(plot.said)}</figcaption></figure>"


def _table(sheet: Sheet, name: str) -> Iterator[str]:
    yield f'<h2 id="{name}">{escape(sheet.title)}</h2>'
    # It can be scrolled, so it must be reachable by keyboard.
    yield f'<div class="wide" tabindex="0" role="region" aria-labelledby="{name}"><table>'
    yield f"<caption>{escape(sheet.caption)}</caption>"
    names = sheet.names
    heads = "".join(
        f"<th scope=col{_named(place < names)}>{escape(each)}</th>" for place, each in enumerate(sheet.headings)
    )
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for row in sheet.rows:
        begun = "".join(f"<th scope=row{_named(True)}>{escape(cell)}</th>" for cell in row[:names])
        yield f"<tr>{begun}{''.join(f'<td>{escape(cell)}</td>' for cell in row[names:])}</tr>"
    yield "</tbody></table></div>"


def _named(yes: bool) -> str:
    return " class=name" if yes else ""
