"""The manifests for KServe. There is no schema of its own at hand that is light enough, so its fields are written down
here, after KServe 0.21; the pods and containers in them are checked against those of Kubernetes.
"""

import shutil
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

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
    faults_of_schema,
    read,
    rendered,
    unrestricted,
)
from tests.running import serving

RUNTIME = read("kserve/servingruntime.yaml")
SERVICE = read("kserve/inferenceservice.yaml")
CONTAINER: Document = RUNTIME["spec"]["containers"][0]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class Strict(BaseModel):
    """Unknown fields are faults, as for the API server."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Format(Strict):
    name: str
    version: str
    auto_select: bool | None = Field(None, alias="autoSelect")


class RuntimeSpec(Strict):
    """Of a ServingRuntime, what we use of it."""

    annotations: dict[str, str]
    formats: list[Format] = Field(alias="supportedModelFormats", min_length=1)
    protocols: list[Literal["v1", "v2", "grpc-v1", "grpc-v2"]] = Field(alias="protocolVersions")
    containers: list[Document] = Field(min_length=1, max_length=1)


class Model(Strict):
    format: Format = Field(alias="modelFormat")
    protocol: Literal["v1", "v2", "grpc-v1", "grpc-v2"] = Field(alias="protocolVersion")
    runtime: str
    storage: str = Field(alias="storageUri")


class Predictor(Strict):
    least: int = Field(alias="minReplicas")
    most: int = Field(alias="maxReplicas")
    metric: Literal["cpu", "memory", "concurrency", "rps"] = Field(alias="scaleMetric")
    target: int = Field(alias="scaleTarget")
    model: Model
    token: bool = Field(alias="automountServiceAccountToken")
    links: bool = Field(alias="enableServiceLinks")
    grace: int = Field(alias="terminationGracePeriodSeconds")


def variables() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in CONTAINER["env"]}


def predictor() -> Predictor:
    return Predictor.model_validate(SERVICE["spec"]["predictor"])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_container_is_one_of_kubernetes(version: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [CONTAINER]}}
    assert faults_of_schema(pod, version) is None


def test_the_runtime_serves_what_the_service_asks_for() -> None:
    runtime = RuntimeSpec.model_validate(RUNTIME["spec"])
    model = predictor().model
    assert (RUNTIME["apiVersion"], RUNTIME["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert model.runtime == RUNTIME["metadata"]["name"]
    assert (model.format.name, model.format.version) in [(known.name, known.version) for known in runtime.formats]
    assert model.protocol in runtime.protocols


def test_its_pods_have_no_rights_that_they_do_not_need() -> None:
    assert unrestricted(RUNTIME["spec"]) == []
    assert not predictor().token


def test_kserve_knows_the_container_and_its_port() -> None:
    assert CONTAINER["name"] == "kserve-container"
    assert [(port["name"], port["containerPort"]) for port in CONTAINER["ports"]] == [("http1", Settings().port)]
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {Settings().port}


def test_the_probes_ask_routes_that_there_are() -> None:
    paths = create_app(Settings(models=ROOT / "models")).api.openapi()["paths"]
    assert {CONTAINER[probe]["httpGet"]["path"] for probe in PROBES} <= paths.keys()


def test_the_time_to_stop_is_enough() -> None:
    settings = load({}, variables()).settings
    assert settings.settle_seconds + settings.drain_seconds + SPARE_S <= predictor().grace


def test_the_runtime_serves_what_kserve_lays_down_under_the_name_of_the_service(tmp_path: Path) -> None:
    name = SERVICE["metadata"]["name"]
    shutil.copytree(ROOT / "models" / name, tmp_path / name)
    elsewhere = {"UNDERSTUDY_MODELS": "", "UNDERSTUDY_SETTLE_SECONDS": ""}  # as good as unset
    with serving(tmp_path, launcher=("service",), **(variables() | elsewhere)) as running, running.client() as client:
        assert client.get(f"/v2/models/{name}/ready").status_code == 200
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a fine film"]}]}
        answer = client.post(f"/v2/models/{name}/infer", json=body).json()
    assert answer["model_name"] == name
    assert "positive" in [output["data"][0] for output in answer["outputs"] if output["name"] == "label"]


@NEEDED
def test_both_are_applied_together() -> None:
    assert [document["kind"] for document in rendered(DEPLOY / "kserve")] == ["ServingRuntime", "InferenceService"]
