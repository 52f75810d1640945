"""The manifests for Kubernetes: valid for its API, safe by its strictest standard, and in step with the service."""

import copy
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.commands.serve import SPARE_S
from service.environment import load
from service.settings import Settings
from tests.deploy.manifests import (
    DEPLOY,
    NEEDED,
    ROOT,
    VERSIONS,
    Document,
    documents,
    faults_of_schema,
    only,
    pods,
    read,
    rendered,
    unrestricted,
    with_component,
)
from tests.rules.test_repository import PROJECT

KUBERNETES = DEPLOY / "kubernetes"
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
OPERATOR = ("ServiceMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator, for which there is no schema here; what they say is in test_monitoring."""

BASE = sorted(path.name for path in (KUBERNETES / "base").glob("*.yaml") if path.name != "kustomization.yaml")
DEPLOYMENT = read("kubernetes/base/deployment.yaml")
POD: Document = DEPLOYMENT["spec"]["template"]["spec"]


def variables() -> dict[str, str]:
    """The settings as the base gives them."""
    (generator,) = read("kubernetes/base/kustomization.yaml")["configMapGenerator"]
    return dict(line.split("=", 1) for line in generator["literals"])


def faults(found: list[Document], version: str) -> list[str]:
    native = [document for document in found if document["kind"] not in OPERATOR]
    return [fault for document in native if (fault := faults_of_schema(document, version)) is not None]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BASE)
def test_a_file_of_the_base_is_valid_as_it_lies_there(name: str, version: str) -> None:
    assert faults(documents((KUBERNETES / "base" / name).read_text()), version) == []


@NEEDED
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_what_is_rendered_is_valid(folder: str, version: str) -> None:
    assert faults(rendered(KUBERNETES / folder), version) == []


@NEEDED
@pytest.mark.parametrize("name", COMPONENTS)
def test_each_component_fits_the_base_alone(name: str, tmp_path: Path) -> None:
    found = with_component(name, tmp_path)
    assert faults(found, VERSIONS[-1]) == []
    assert found != rendered(KUBERNETES / "base")
    assert [unrestricted(pod) for pod in pods(found)] == [[]]


def test_a_wrong_field_is_noticed() -> None:
    wrong = copy.deepcopy(DEPLOYMENT)
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in str(faults_of_schema(wrong, VERSIONS[-1]))


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    assert unrestricted(POD) == []
    assert POD["automountServiceAccountToken"] is False
    assert read("kubernetes/base/serviceaccount.yaml")["automountServiceAccountToken"] is False


BROKEN: tuple[tuple[str, Any, str], ...] = (
    ("runAsNonRoot", False, "root"),
    ("runAsUser", 0, "root"),
    ("allowPrivilegeEscalation", True, "more rights"),
    ("readOnlyRootFilesystem", False, "a root that can be written"),
    ("seccompProfile", {"type": "Unconfined"}, "system calls"),
    ("capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "capabilities"),
)


@pytest.mark.parametrize(("field", "value", "fault"), BROKEN)
def test_a_right_too_many_is_noticed(field: str, value: object, fault: str) -> None:
    pod = copy.deepcopy(POD)
    pod["containers"][0]["securityContext"][field] = value
    assert unrestricted(pod) == [f"understudy: {fault}"]


def test_the_variables_are_settings() -> None:
    load({}, variables())  # raises on a name or a value that the service would refuse


@NEEDED
def test_the_variables_of_all_components_are_settings_too() -> None:
    settings = load({}, only(rendered(KUBERNETES / "overlays/production"), "ConfigMap")["data"]).settings
    assert settings.public_metrics
    assert settings.api_keys_file is not None


def test_a_pod_has_time_enough_to_stop() -> None:
    settings = load({}, variables()).settings
    before = POD["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + settings.settle_seconds + settings.drain_seconds + SPARE_S
    assert needed <= POD["terminationGracePeriodSeconds"] <= needed + 15


def test_readiness_is_lost_before_the_port_closes() -> None:
    """What settles must see /readyz fail: the probes' patience is no longer than the settling."""
    probe = POD["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= load({}, variables()).settings.settle_seconds


@pytest.mark.parametrize(
    ("probe", "path"), [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
)
def test_a_probe_asks_a_route_that_there_is(probe: str, path: str) -> None:
    asked = POD["containers"][0][probe]["httpGet"]
    assert asked == {"path": path, "port": "http"}
    assert path in create_app(Settings(models=ROOT / "models")).api.openapi()["paths"]


def test_no_replica_leaves_before_another_is_ready() -> None:
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in DEPLOYMENT["spec"]  # the autoscaler's number


def test_the_autoscaler_and_the_budget_leave_a_replica_standing() -> None:
    least = read("kubernetes/base/horizontalpodautoscaler.yaml")["spec"]["minReplicas"]
    assert least > read("kubernetes/base/poddisruptionbudget.yaml")["spec"]["maxUnavailable"]


def test_all_replicas_of_a_rollout_serve_the_same_versions() -> None:
    settings = load({}, variables()).settings
    assert settings.reload_seconds == 0
    assert settings.default is not None
    name, _, version = settings.default.partition("@")
    assert (ROOT / "models" / name / version / "manifest.json").is_file()
    assert settings.versions >= 2


@NEEDED
def test_everything_selects_the_pods_of_the_deployment() -> None:
    found = rendered(KUBERNETES / "overlays/production")
    labels = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        only(found, "Deployment")["spec"]["selector"]["matchLabels"],
        only(found, "Service")["spec"]["selector"],
        only(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for pod in pods(found) for spread in pod["topologySpreadConstraints"]),
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    monitor = only(found, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= only(found, "Service")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in only(found, "Service")["spec"]["ports"]]


@NEEDED
def test_a_changed_setting_is_a_rollout() -> None:
    name = only(rendered(KUBERNETES / "base"), "ConfigMap")["metadata"]["name"]
    assert name != "understudy-settings"  # a digest of the content is appended
    (pod,) = pods(rendered(KUBERNETES / "base"))
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]


def test_the_image_is_this_version() -> None:
    assert POD["containers"][0]["image"] == f"understudy:{PROJECT['project']['version']}"
    (image,) = read("kubernetes/overlays/production/kustomization.yaml")["images"]
    assert image["newTag"] == PROJECT["project"]["version"]
