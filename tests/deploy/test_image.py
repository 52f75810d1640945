"""The image. What can be seen without building it is tested always; building and running it takes minutes and root."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.test_repository import PROJECT
from tests.running import ROOT, environment, serving

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
LAST = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
ASKED = os.environ.get("VERIFY_IMAGE")
TOOLS = ("buildah", "debootstrap")
CAN = all(map(shutil.which, TOOLS)) and os.geteuid() == 0


def instruction(name: str) -> str:
    """The argument of an instruction of the last stage."""
    (found,) = re.findall(rf"^{name} ?(.*)$", LAST, flags=re.MULTILINE)
    return str(found)


def health_check(port: str) -> int:
    """The exit code of the image's own command, in our interpreter."""
    program, *arguments = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert program == "python"
    variables = environment() | {
        "UNDERSTUDY_PORT": port,
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }
    return subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, check=False).returncode


def test_the_health_check_tells_well_from_ill_and_asks_no_proxy(toy_models: Path) -> None:
    with serving(toy_models) as running:
        port = running.url.rpartition(":")[2]
        assert health_check(port) == 0
    assert health_check(port) != 0


def test_the_image_that_is_built_by_default_serves_without_root() -> None:
    assert LAST.startswith("\nFROM ${BASE} AS service\n")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction("USER"))  # by number: see the Dockerfile
    assert json.loads(instruction("CMD"))[:4] == ["python", "-m", "service", "serve"]


def test_its_label_is_this_version() -> None:
    assert instruction("ARG VERSION") == f"={PROJECT['project']['version']}"


def test_every_stage_builds_on_the_base_that_one_asks_for() -> None:
    bases = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    stages = {stage for _, stage in bases}
    assert {base for base, _ in bases} - stages == {"${BASE}"}
    assert {"service", "export"} <= stages


def test_who_cannot_build_is_told_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/verify-image")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("deploy/verify-image: buildah, debootstrap")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not ASKED, reason="takes minutes and the network; VERIFY_IMAGE=1 asks for it")
@pytest.mark.skipif(bool(ASKED) and not CAN, reason=f"needs root, {' and '.join(TOOLS)}")
def test_the_image_can_be_built_and_run() -> None:
    done = subprocess.run([ROOT / "deploy/verify-image"], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "FAILED" not in done.stdout
