"""The model card: a bundle's README.md, for people. Everything in it comes from the manifest."""

from collections.abc import Mapping, Sequence

from service.bundle.manifest import UNTRAINED, Manifest, Measured, Role, Task

LIMITS = {
    Role.STUDENT: (
        "Made for texts like those that it was distilled on. It reads {max_tokens} word pieces and leaves out "
        "the rest. It repeats its teacher's mistakes and biases, and adds some of its own."
    ),
    Role.TEACHER: (
        "Served for comparison with its student. It reads {max_tokens} word pieces and leaves out the rest. "
        "Its weights are stored as int8 and computed in fp32."
    ),
}


TASKS = {
    Task.SINGLE_LABEL: "single-label classification",
    Task.MULTI_LABEL: "multi-label classification",
    Task.REGRESSION: "regression",
    Task.TAGGING: "token classification",
    Task.EMBEDDING: "vectors of sentences",
    Task.ANSWERING: "question answering from a text",
}


NO_TEACHER = {Role.TEACHER: "none, it is one", Role.STUDENT: "none, it learned from labels"}
CALIBRATION = "Calibration"
SELECTED = "The dev split selected the best of several evaluations, so its figures flatter a little."
MANY = 20
"""More labels than this are not listed: the recipe has them all."""


def model_card(manifest: Manifest, files: Mapping[str, bytes], command: str) -> str:
    """Markdown: labels, data, results, graphs, sizes, limits, command and recipe."""
    lineage = manifest.lineage
    parts = {
        "Results": [
            *(_results(manifest.results) if manifest.results else ["None were measured."]),
            *([] if manifest.task is Task.EMBEDDING else ["", SELECTED]),
        ],
        "Graphs": [
            *_graphs(manifest, files),
            "",
            "Measured on dev, on 2,000 rows at most: logits alone against logits in shuffled batches of 32.",
        ],
        **({CALIBRATION: _calibration(manifest)} if manifest.calibration else {}),
        "Limits": [_limits(manifest)],
        "How it was made": [
            f"    {command}",
            "",
            ", ".join(f"{name} {number}" for name, number in lineage.versions.items()),
            "",
            *("```toml", lineage.recipe.strip(), "```"),
        ],
    }
    head = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        f"A {manifest.role} for {TASKS[manifest.task]}: {_labels(manifest)}.",
        f"Method: {lineage.method}. Teacher: {lineage.teacher or NO_TEACHER[manifest.role]}.",
    ]
    body = [line for title, lines in parts.items() for line in ("", f"## {title}", "", *lines)]
    return "\n".join([*head, *body, ""])


def recalibrated(card: str, manifest: Manifest) -> str:
    """The same card for a manifest with another version and calibration; whatever else people wrote in it stays."""
    head, _, body = card.partition("\n")
    start, _, sections = body.partition("\n## ")
    kept = [part for part in sections.split("\n## ") if part and not part.startswith(f"{CALIBRATION}\n")]
    place = next((i for i, part in enumerate(kept) if part.startswith("Limits\n")), len(kept))
    if manifest.calibration:
        kept.insert(place, "\n".join([CALIBRATION, "", *_calibration(manifest), ""]))
    title = (
        f"# {manifest.name}, version {manifest.version}" if head.startswith(f"# {manifest.name}, version ") else head
    )
    return "\n## ".join([f"{title}\n{start}", *kept]).rstrip("\n") + "\n"


def _calibration(manifest: Manifest) -> list[str]:
    first = next(iter(manifest.calibration.values()))
    return [
        f"Against {first.teacher} on {first.rows:,} texts of {first.dataset}: of the answers whose margin reaches the",
        f"threshold, at least {first.target:.1%} are the teacher's (one-sided Clopper-Pearson bound, confidence "
        f"{first.confidence:g}), on texts like these.",
        "",
        "| graph | temperature | threshold | agreement of accepted | bound | to the teacher |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {precision} | {found.temperature:.4g} | {found.threshold:g} | {found.agreement:.4f} "
            f"| {found.bound:.4f} | {found.escalation:.1%} |"
            for precision, found in manifest.calibration.items()
        ),
    ]


def _limits(manifest: Manifest) -> str:
    if manifest.lineage.method == UNTRAINED:
        return "Its weights are random: the time that it takes means something, its answers do not."
    return LIMITS[manifest.role].format(max_tokens=manifest.max_tokens)


def _graphs(manifest: Manifest, files: Mapping[str, bytes]) -> list[str]:
    return [
        "| graph | size | largest distance to torch | largest change by neighbours | labels changed by neighbours |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| `{graph.file}` ({precision}) | {len(files[graph.file]) / 1e6:.1f} MB | {graph.parity:.2g} "
            f"| {graph.wander:.2g} | {graph.flips:.2%} |"
            for precision, graph in manifest.graphs.items()
        ),
    ]


def results_table(manifests: Sequence[Manifest]) -> list[str]:
    """The results of several bundles as one Markdown table."""
    results = [
        row.model_copy(update={"what": f"{manifest.name} {manifest.version}: {row.what}"})
        for manifest in manifests
        for row in manifest.results
    ]
    return _results(tuple(results))


def _labels(manifest: Manifest) -> str:
    labels = manifest.labels
    if manifest.task is Task.EMBEDDING:
        return f"of {len(labels)} dimensions"
    return ", ".join(labels) if len(labels) <= MANY else f"{len(labels)} labels, from {labels[0]} to {labels[-1]}"


def _results(results: tuple[Measured, ...]) -> list[str]:
    metrics = list(dict.fromkeys(row.metric for row in results))
    lines = [f"| | data | rows | {' | '.join(metrics)} |", "|---|---|--:|" + "--:|" * len(metrics)]
    for what in dict.fromkeys(row.what for row in results):
        rows = {row.metric: row for row in results if row.what == what}
        first = next(iter(rows.values()))
        values = [f"{rows[metric].value:.4f}" if metric in rows else "" for metric in metrics]
        lines.append(f"| {what} | {first.dataset}, {first.split} | {first.rows} | {' | '.join(values)} |")
    return lines
