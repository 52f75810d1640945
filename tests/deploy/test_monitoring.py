"""What Prometheus and Grafana ask for is what the service measures: each query is read as PromQL, and each metric,
label and value in it looked up in the answer of a real service.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.manifests import DEPLOY, Document, read
from tests.running import PATIENCE_S, serving
from tests.toys.watching import TEXTS

ALERTS: list[Document] = [rule for group in read("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]
DASHBOARD: Document = json.loads((DEPLOY / "grafana/dashboards/understudy.json").read_text(encoding="utf-8"))
PANELS: list[Document] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
GIVEN = {"instance", "job", "le"}
"""Labels that Prometheus itself sets, or that are of a histogram's series."""


@dataclass(frozen=True)
class Query:
    """One expression, and who asks it."""

    who: str
    text: str


Series = dict[str, list[dict[str, str]]]
"""Name of a metric -> the labels of each of its series."""


def asked() -> Iterator[Query]:
    yield from (Query(rule["alert"], rule["expr"]) for rule in ALERTS)
    for panel in PANELS:
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"].replace("$__rate_interval", "5m"))
    yield Query("the autoscaler", scaled_by())


def scaled_by() -> str:
    """What the autoscaler looks at, in kustomize's patch."""
    (patch,) = read("kubernetes/components/queue-depth/kustomization.yaml")["patches"]
    change = yaml.safe_load(patch["patch"])[0]
    return str(change["value"]["pods"]["metric"]["name"])


def parts(query: Query) -> list[object]:
    """Of its syntax tree, all nodes. Raises where it is not PromQL."""
    found: list[object] = []
    promql_parser.walk(promql_parser.parse(query.text), lambda node: found.append(node))
    return found


def faults(query: Query, series: Series) -> list[str]:
    """What it asks for and the service does not have."""
    found: list[str] = []
    for node in parts(query):
        selector = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(selector, promql_parser.VectorSelector):
            found += _selector_faults(selector, series)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            known = GIVEN | {label for name in names(query) for labels in series.get(name, []) for label in labels}
            found += [f"label {label}" for label in node.modifier.labels if label not in known]
    return found


def names(query: Query) -> set[str]:
    return set(re.findall(r"\b(?:understudy|process)_\w+", query.text))


def _selector_faults(selector: promql_parser.VectorSelector, series: Series) -> Iterator[str]:
    name = str(selector.name)
    if name not in series:
        yield f"metric {name}"
        return
    for matcher in selector.matchers.matchers:
        values = {labels[matcher.name] for labels in series[name] if matcher.name in labels}
        if not values:
            yield f"label {matcher.name} of {name}"
        for wanted in matcher.value.split("|"):
            if not any(re.fullmatch(wanted, value) for value in values):
                yield f"{matcher.name}={wanted} of {name}"


@pytest.fixture(scope="module")
def measured(watched: Path, tmp_path_factory: pytest.TempPathFactory) -> Series:
    """The metrics of a service with a student, its teacher and everything switched on."""
    kept = tmp_path_factory.mktemp("kept") / "texts.db"
    with serving(watched, "--watch-share", "1", "--capture", str(kept)) as running, running.client() as client:
        client.post("/v1/classify", json={"input": TEXTS[0]})
        until = time.monotonic() + PATIENCE_S
        while "understudy_agreement_alarm{" not in (text := client.get("/metrics").text):
            assert time.monotonic() < until, "the teacher never re-scored the text"
            time.sleep(0.05)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {name: [one.labels for one in samples if one.name == name] for name in {one.name for one in samples}}


@pytest.mark.parametrize("query", [*asked()], ids=lambda query: query.who)
def test_what_is_asked_for_is_measured(query: Query, measured: Series) -> None:
    assert names(query)
    assert faults(query, measured) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("understudy_no_such_total", "metric understudy_no_such_total"),
        ("rate(understudy_requests[5m])", "metric understudy_requests"),
        ('understudy_requests_total{status="200"}', "label status of understudy_requests_total"),
        ('understudy_requests_total{code=~"7.."}', "code=7.. of understudy_requests_total"),
        ("sum by (modell) (understudy_queue_rows)", "label modell"),
    ],
)
def test_a_query_for_what_is_not_there_is_noticed(text: str, fault: str, measured: Series) -> None:
    assert fault in faults(Query("broken", text), measured)


def test_what_is_not_promql_is_noticed() -> None:
    with pytest.raises(ValueError):
        parts(Query("broken", "sum(rate(understudy_requests_total[5m])"))


def test_the_operator_gets_the_same_alarms() -> None:
    rule = read("kubernetes/components/monitoring/prometheusrule.yaml")
    assert rule["spec"] == read("prometheus/alerts.yaml")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alarm_says_who_and_what(rule: Document, measured: Series) -> None:
    """And names only labels that its series still have."""
    said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    query = Query(rule["alert"], rule["expr"])
    sums = [node for node in parts(query) if isinstance(node, promql_parser.AggregateExpr)]
    kept = {label for node in sums if node.modifier is not None for label in node.modifier.labels}
    all_labels = GIVEN | {label for name in names(query) for one in measured[name] for label in one}
    assert said <= (kept if sums else all_labels)
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_every_alarm_of_the_service_rings_somewhere() -> None:
    asked_for = {name for rule in ALERTS for name in names(Query(rule["alert"], rule["expr"]))}
    assert {"understudy_ready", "understudy_drift_alarm", "understudy_agreement_alarm"} <= asked_for


def test_every_panel_has_a_place_of_its_own() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_asks_the_data_source_that_is_chosen() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {"${" + variable["name"] + "}"}
