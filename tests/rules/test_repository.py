"""What stands around the code: pins, Makefile, Dockerfile, README and decisions agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BY_HAND = ("fuzz", "release")
"""Extras that are not in .venv-dev: nobody here can say what they bring."""
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    """Name -> version of everything in constraints.txt."""
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def declared(*but: str) -> list[Requirement]:
    """Everything that pyproject.toml names: base, extras (but these) and what builds the project."""
    project = PROJECT["project"]
    groups = [project["dependencies"], PROJECT["build-system"]["requires"]]
    groups += (lines for extra, lines in project["optional-dependencies"].items() if extra not in but)
    return [Requirement(line) for group in groups for line in group]


def needed(wanted: list[Requirement]) -> Iterator[str]:
    """The names of these and of all that they bring here, unless whoever brings it pins it exactly.

    (So torch's own GPU packages need no pin here: a build without them lists none, one with them pins each.)
    """
    seen: set[str] = set()
    queue = [requirement for requirement in wanted if applies(requirement)]
    while queue:
        name = canonicalize_name(queue.pop().name)
        if name not in seen:
            seen.add(name)
            brought = map(Requirement, requires(name) or [])
            queue += (requirement for requirement in brought if applies(requirement) and is_loose(requirement))
            yield name


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def is_loose(requirement: Requirement) -> bool:
    return not str(requirement.specifier).startswith("==")


def locked(name: str) -> dict[str, list[str]]:
    """Pin -> hashes of one of the lock files."""
    entries = read(f"deploy/locks/{name}.txt").replace(" \\\n", " ").splitlines()
    return {pin: hashes for pin, *hashes in (entry.split() for entry in entries)}


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    lines = [line.split()[1:-1] for line in read("Dockerfile").splitlines() if line.startswith("COPY")]
    return [name for names in lines if not names[0].startswith("--from") for name in names]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_declared_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_what_the_dependencies_bring_is_pinned_too() -> None:
    assert set(needed(declared(*BY_HAND))) - pins().keys() == set()


def test_no_pin_names_a_build_or_a_registry() -> None:
    text = read("constraints.txt")
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())
    assert "://" not in text
    assert not re.search(r"^\s*-", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_every_install_uses_the_pins(name: str) -> None:
    installs = [line for line in read(name).splitlines() if re.search(r"pip .*\binstall ", line)]
    assert installs
    pinned = ("--constraint constraints.txt", "--require-hashes", "--no-index --no-deps")
    assert all(any(way in line for way in pinned) for line in installs)


@pytest.mark.parametrize("name", ["service", "tools"])
def test_a_lock_holds_the_pins_and_their_hashes_and_nothing_else(name: str) -> None:
    lock = locked(name)
    assert lock.keys() <= {f"{package}=={version}" for package, version in pins().items()}
    assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", digest) for digests in lock.values() for digest in digests)
    assert all(lock.values())


def test_the_service_is_locked_with_all_that_it_brings() -> None:
    base = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert set(needed(base)) - {pin.partition("==")[0] for pin in locked("service")} == set()


def test_the_extra_native_is_the_folder_beside_the_project() -> None:
    asking = "import setuptools, distutils.core as c; d = c.run_setup('setup.py', stop_after='config'); "
    asking += "print(*d.metadata.extras_require['native'], len(d.metadata.extras_require))"
    done = subprocess.run(
        [sys.executable, "-c", asking], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    extras = len(PROJECT["project"]["optional-dependencies"]) + 1
    assert done.stdout.splitlines()[-1] == f"understudy-native @ {(ROOT / 'native').as_uri()} {extras}"


def test_the_slim_install_has_no_torch() -> None:
    base = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert {"torch", "transformers", "onnx", "datasets", "accelerate"}.isdisjoint(needed(base))


def test_what_the_image_copies_exists_and_reaches_the_engine() -> None:
    let_through = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert let_through == set(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_ci_is_the_script_that_everybody_can_run() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert ".ci/run" in read(".github/workflows/ci.yml")
    assert {"check", "test"} <= set(re.findall(r"^make ([a-z]+)$", read(".ci/run"), flags=re.MULTILINE))


def test_the_commands_that_the_documents_show_are_targets() -> None:
    shown = {
        target
        for name in ("README.md", "CONTRIBUTING.md", "Dockerfile", ".ci/run")
        for target in re.findall(r"(?:^|`|#\s+)make ([a-z]+)", read(name), flags=re.MULTILINE)
    }
    assert {"serve", "test"} <= shown <= targets()


def test_every_target_is_explained_and_no_file_can_hide_it() -> None:
    explained = set(re.findall(r"^([a-z]+):.*## ", read("Makefile"), flags=re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)[0].split())
    assert targets() == explained == phony


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_short_and_says_what_was_rejected(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert text.startswith(f"# {path.name[:4]} ")
    assert "**Decision.**" in text
    assert "**Rejected.**" in text


def test_the_version_is_in_the_changelog() -> None:
    assert f"## [{PROJECT['project']['version']}]" in read("CHANGELOG.md")
