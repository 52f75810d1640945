"""What must hold of the image: each check is one row of the page of results. It knows nothing of how it came to run."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from image.building import ROOT, Builder, Image
from image.running import PATIENCE_S, Container, await_that, free_port, hears_signals, running, started, status_of

MOST_MB = 350
"""Of the service's image, above its base."""

Check = Callable[[Container], tuple[bool, str]]


def is_its_user(container: Container) -> tuple[bool, str]:
    status = status_of(container)
    users = set(status["Uid"] + status["Gid"])
    rights = int(status["CapEff"][0], 16) | int(status["CapPrm"][0], 16) | int(status["CapAmb"][0], 16)
    fine = len(users) == 1 and "0" not in users and status["NSpid"][-1] == "1" and not rights
    return fine, f"uid and gid {'/'.join(sorted(users))}, process {status['NSpid'][-1]}, capabilities {rights:x}"


def answers(container: Container) -> tuple[bool, str]:
    status, answer = container.ask("/v1/classify", {"input": "a gripping, beautifully acted film"})
    row = answer["data"][0]
    fine = status == 200 and row["label"] == "positive"
    return fine, f"`{answer['model']}` says {row['label']}, {row['score']:.4f}"


def is_healthy(container: Container) -> tuple[bool, str]:
    """By the image's own command; and sick where nobody listens."""
    well = container.run(*container.image.healthcheck).returncode
    sick = container.run(*container.image.healthcheck, UNDERSTUDY_PORT=str(free_port())).returncode
    return well == 0 and sick != 0, f"exit code {well}; {sick} where nothing listens"


def cannot_be_written(container: Container) -> tuple[bool, str]:
    """Not even by root."""
    folders = ("/", "/app", "/app/models", "/venv/bin", "/etc", "/tmp", "/var/tmp")
    tries = {folder: container.run("touch", f"{folder}/x", user="0:0") for folder in folders}
    open_to = [folder for folder, done in tries.items() if "Read-only file system" not in done.stderr]
    return not open_to, f"{len(folders)} folders tried as root, writable: {', '.join(open_to) or 'none'}"


def is_slim(container: Container) -> tuple[bool, str]:
    names = ("torch", "transformers", "onnx", "pip", "setuptools")
    there = [name for name in names if container.run("python", "-c", f"import {name}").returncode == 0]
    return not there, f"{', '.join(names)}: {'none importable' if not there else 'there is ' + ', '.join(there)}"


def is_as_locked(container: Container) -> tuple[bool, str]:
    """What is installed, what the SBOM says and what the lock says are the same."""
    listing = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = {spelt(pin) for pin in container.run("python", "-c", listing).stdout.split()}
    told = json.loads((container.root / "app/sbom.cdx.json").read_text())
    sbom = {spelt(f"{part['name']}=={part['version']}") for part in told["components"]}
    lock = (ROOT / "deploy/locks/service.txt").read_text().splitlines()
    locked = {spelt(line.split()[0]) for line in lock if "==" in line}
    ours = {pin for pin in installed if pin.startswith(("understudy==", "understudy-native=="))}
    odd = (installed - ours) ^ locked | sbom - ours ^ locked
    facts = f"{len(installed)} packages, CycloneDX {told['specVersion']}"
    differences = f"differences: {', '.join(sorted(odd))}" if odd else "no difference"
    return len(ours) == 2 and not odd, f"{facts}, {differences}"


def runs_its_engine(container: Container) -> tuple[bool, str]:
    """The student by our own, with what this processor has."""
    _, listed = container.ask("/v1/models")
    found = {model["name"]: model["engine"] for model in listed["data"]}
    return found.get("sst2-bilstm") == "native", ", ".join(f"`{name}` by {engine}" for name, engine in found.items())


def spelt(pin: str) -> str:
    return pin.lower().replace("_", "-").replace(".", "-")


def has_labels(container: Container) -> tuple[bool, str]:
    ours = [name for name in container.image.labels if name.startswith("org.opencontainers.image.")]
    return len(ours) >= 5, ", ".join(name.rpartition(".")[2] for name in sorted(ours))


CHECKS: dict[str, Check] = {
    "runs without root, as process 1, without capabilities": is_its_user,
    "classifies over HTTP": answers,
    "engine": runs_its_engine,
    "health check": is_healthy,
    "root file system": cannot_be_written,
    "slim": is_slim,
    "installed, SBOM, lock": is_as_locked,
    "OCI labels": has_labels,
}
Row = tuple[str, bool, str]


def tried(image: Image, root: Path) -> Iterator[Row]:
    """Run it once as it is, and once with workers and somebody else's models."""
    began = time.monotonic()
    with running(image, root) as container:
        yield "ready", True, f"{time.monotonic() - began:.2f} s after its start"
        for name, check in CHECKS.items():
            yield name, *check(container)
        yield stopped("SIGTERM", container)
    with started(image, root) as container:
        await_that(container, hears_signals)
        yield stopped("SIGTERM while it starts", container)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "models/voice-intents", f"{folder}/voice-intents")
        Path(folder).chmod(0o755)
        with running(image, root, Path(folder), UNDERSTUDY_WORKERS="2") as container:
            _, listed = container.ask("/v1/models")
            names = [model["name"] for model in listed["data"]]
            yield "`models/` mounted, two workers", names == ["voice-intents"], f"serves {', '.join(names)}"
            yield stopped("SIGTERM, two workers", container)


def ran(image: Image, root: Path) -> Iterator[Row]:
    """Run it to its end: the workshop says how it is used."""
    with started(image, root) as container:
        code = container.shell.wait(PATIENCE_S)
    yield f"`{' '.join(image.command)}`", code == 0, f"exit code {code}"


def stopped(name: str, container: Container) -> Row:
    code, seconds = container.stop()
    return name, code == 0, f"exit code {code} after {seconds:.2f} s"


def measured(builder: Builder, base: str, name: str, work: Path, most_mb: int | None) -> Iterator[Row]:
    above = used_mb(builder.root(name)) - used_mb(builder.root(base))
    layers = builder.layers(name, work / "oci")
    limit = "" if most_mb is None else f" (at most {most_mb})"
    yield "unpacked, above the base", most_mb is None or above <= most_mb, f"{above:.0f} MB{limit}"
    yield "its layer, compressed", True, f"{layers[-1] / 1e6:.0f} MB; the base's {layers[0] / 1e6:.0f} MB"


def used_mb(tree: Path) -> float:
    """Of its files, each counted once."""
    files = {(stat.st_dev, stat.st_ino): stat.st_size for path in tree.rglob("*") for stat in [path.lstat()]}
    return sum(files.values()) / 1e6
