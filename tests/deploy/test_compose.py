"""The compose file: valid by the specification's own schema, and in step with the service and the files beside it."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from service.commands.serve import SPARE_S
from service.environment import load
from service.settings import PREFIX
from tests.deploy.manifests import DEPLOY, Document, read

COMPOSE = read("compose.yaml")
SERVICE: Document = COMPOSE["services"]["understudy"]


def checked(path: Path) -> "subprocess.CompletedProcess[str]":
    """By the schema of compose-spec that check-jsonschema brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_is_valid() -> None:
    done = checked(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_a_wrong_field_is_noticed(tmp_path: Path) -> None:
    wrong = COMPOSE | {"services": {"understudy": SERVICE | {"read-only": True}}}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    done = checked(tmp_path / "compose.yaml")
    assert done.returncode == 1
    assert "read-only" in done.stdout


def test_the_variables_are_settings_and_the_time_to_stop_is_enough() -> None:
    variables = SERVICE["environment"]
    assert all(name.startswith(PREFIX) for name in variables)
    settings = load({}, variables).settings
    needed = settings.settle_seconds + settings.drain_seconds + SPARE_S
    assert needed <= int(SERVICE["stop_grace_period"].removesuffix("s"))


def test_the_service_has_no_rights_that_it_does_not_need() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]


def test_what_is_mounted_is_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service["volumes"]]
    places = [mount.split(":")[0] for mount in mounts]
    assert [place for place in places if place.startswith(".") and not (DEPLOY / place).exists()] == []
    assert {place for place in places if not place.startswith(".")} == set(COMPOSE["volumes"])


def test_it_builds_a_target_of_the_dockerfile() -> None:
    root = DEPLOY / SERVICE["build"]["context"]
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (root / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert SERVICE["build"]["target"] == stages[-1] == "service"


def test_prometheus_reads_the_service_and_the_alarms() -> None:
    config = read("prometheus/prometheus.yml")
    assert all((DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["understudy:8000"]}]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/understudy.yaml")["providers"]
    mounted = dict(mount.split(":")[1::-1] for mount in COMPOSE["services"]["grafana"]["volumes"])
    assert list((DEPLOY / mounted[provider["options"]["path"]]).glob("*.json"))
