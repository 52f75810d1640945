"""`python -m tests.pages.metrics` prints docs/metrics.md: what `/metrics` says of the committed models."""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.running import PATIENCE_S, ROOT, client_of, opened

HEAD = """# Metrics

What `GET /metrics` says, as Prometheus reads it. `python -m tests.pages.metrics > docs/metrics.md` writes this page,
and a test compares both. With several workers any of them answers for all. The alarms of
`deploy/prometheus/alerts.yaml` say when to worry, and the dashboard of `deploy/grafana` shows what matters
([deploy](../deploy/README.md)). Those of agreement, watch and capture have the label `model` once there is
something to count. What begins with `process_` is prometheus_client's, of one process, and not there where several
workers share.

| metric | kind | labels | |
|---|---|---|---|
"""

OF_SAMPLES = {"le"}
"""Labels that are a histogram's own."""


def page() -> str:
    return HEAD + "".join(f"{line}\n" for line in sorted(map(_line, asyncio.run(_families(ROOT / "models")))))


async def _families(models: Path) -> Iterable[Metric]:
    async with opened(Settings(models=models, reload_seconds=0)) as door, client_of(door) as client:
        assert (await client.post("/v1/classify", json={"input": "a fine film"})).status_code == 200
        async with asyncio.timeout(PATIENCE_S):
            # The last to have its labels, behind the answer: the watch over the texts.
            while "understudy_drift_alarm{" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


def _line(family: Metric) -> str:
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label not in OF_SAMPLES)
    suffix = "_total" if family.type == "counter" else ""
    listed = ", ".join(f"`{label}`" for label in labels)
    return f"| `{family.name}{suffix}` | {family.type} | {listed} | {family.documentation.replace('|', '&#124;')} |"


if __name__ == "__main__":
    sys.stdout.write(page())
