"""buildah with a store of its own: a folder becomes the base, the Dockerfile an image. It runs none."""

import ast
import configparser
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DRIVER = os.environ.get("STORAGE_DRIVER", "vfs")
"""vfs copies whole trees and works wherever root does; overlay is quicker where the kernel lets it."""

OF_INDEX = ("index-url", "extra-index-url", "find-links", "cert", "client-cert", "trusted-host", "proxy")
"""What of pip's configuration says where packages come from; the rest is no business of the build."""


class Failed(Exception):
    """One line: what cannot be done, and how to mend it."""


@dataclass(frozen=True)
class Image:
    """What an engine reads of an image."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    user: str
    healthcheck: list[str]
    labels: dict[str, str]


class Builder:
    """buildah, with a store of its own."""

    def __init__(self, store: Path) -> None:
        self._command = ["buildah", "--storage-driver", DRIVER, "--root", f"{store}/root", "--runroot", f"{store}/run"]

    def __call__(self, *arguments: str) -> str:
        return said([*self._command, *arguments])

    def base(self, tree: Path) -> str:
        """An image of a folder."""
        container = self("from", "scratch")
        self("add", "--quiet", container, f"{tree}/", "/")
        self("commit", "--quiet", "--rm", container, "localhost/base")
        return "localhost/base"

    def build(self, base: str, target: str, pip: Path) -> str:
        secret, mounts = pip_secret(pip)
        shared = [f"--volume={path}:{path}:ro" for path in mounts]
        named = ["--build-arg", f"BASE={base}", "--build-arg", f"REVISION={revision()}", "--target", target]
        name = f"localhost/understudy-{target}"
        # Docker's format, since OCI's has no health check.
        how = ["--isolation", "chroot", "--format", "docker", "--secret", f"id=pip.conf,src={secret}"]
        self("build", *how, *shared, *named, "--tag", name, str(ROOT))
        return name

    def image(self, name: str) -> Image:
        read = json.loads(self("inspect", "--type", "image", name))["Docker"]["config"]
        return Image(
            command=[*(read.get("Entrypoint") or ()), *(read.get("Cmd") or ())],
            environment=dict(line.split("=", 1) for line in read["Env"]),
            folder=read["WorkingDir"],
            user=read["User"],
            healthcheck=(read.get("Healthcheck") or {}).get("Test", ["CMD"])[1:],
            labels=read["Labels"],
        )

    def root(self, name: str) -> Path:
        """Its files."""
        return Path(self("mount", self("from", name)))

    def layers(self, name: str, folder: Path) -> list[int]:
        """Bytes of its layers as they travel, the base's first."""
        self("push", "--quiet", name, f"oci:{folder}")
        blobs = folder / "blobs/sha256"
        index = json.loads((folder / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
        return [int(layer["size"]) for layer in manifest["layers"]]


def pip_secret(path: Path) -> tuple[Path, list[Path]]:
    """Where pip here finds packages, as a file for pip there; and what it needs of this machine's files."""
    listed = said([sys.executable, "-m", "pip", "config", "list"])
    found = dict(line.split("=", 1) for line in listed.splitlines())
    values = {name.split(".")[-1]: str(ast.literal_eval(value)) for name, value in found.items()}
    config = configparser.RawConfigParser()
    config["global"] = {name: value for name, value in values.items() if name in OF_INDEX}
    with path.open("w") as file:
        config.write(file)
    words = (word for value in config["global"].values() for word in value.split())
    return path, [Path(word) for word in words if word.startswith("/") and Path(word).exists()]


def revision() -> str:
    """Of the checkout; an unpacked archive has none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def said(command: list[str]) -> str:
    """What a command prints; its complaints go to ours. Raises Failed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise Failed(f"{' '.join(command[:8])} … failed with {done.returncode}, see above\n{tail}")
    return done.stdout.strip()
