"""Deployment files as tests meet them: YAML as it lies there, and as kubectl renders it. It knows no kind of them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBECTL = shutil.which("kubectl")
NEEDED = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed, and only it renders")
VERSIONS = ("1.30", "1.33", "1.37")
"""Of Kubernetes: from the first that knows `sleep` before a stop to the newest with a schema here."""

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def read(path: str) -> Document:
    """The only document of a file under deploy/."""
    (document,) = documents((DEPLOY / path).read_text(encoding="utf-8"))
    return document


def rendered(folder: Path) -> list[Document]:
    """What `kubectl apply -k` would send."""
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def with_component(name: str, folder: Path) -> list[Document]:
    """The base and one component, put together in that folder."""
    parts = {"resources": ["base"], "components": [f"components/{name}"]}
    places = {
        kind: [os.path.relpath(DEPLOY / "kubernetes" / part, folder) for part in of] for kind, of in parts.items()
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(places))
    return rendered(folder)


def faults_of_schema(document: Document, version: str) -> str | None:
    """What the API server of that version would refuse it for; unknown fields too."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as problem:
        return f"{document['kind']}: {problem.message}"
    return None


def pods(found: list[Document]) -> Iterator[Document]:
    """The specs of all pods that these make."""
    return (document["spec"]["template"]["spec"] for document in found if document["kind"] == "Deployment")


def only(found: list[Document], kind: str) -> Document:
    (document,) = [document for document in found if document["kind"] == kind]
    return document


def unrestricted(pod: Document) -> list[str]:
    """What the Pod Security Standard `restricted`, and more that we want, refuses in a pod."""
    faults = [f"{name} is shared" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    faults += [f"volume {volume['name']}" for volume in pod.get("volumes", ()) if "hostPath" in volume]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        context = pod.get("securityContext", {}) | container.get("securityContext", {})
        capabilities = context.get("capabilities", {})
        wanted = {
            "root": context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0,
            "more rights": context.get("allowPrivilegeEscalation") is False and not context.get("privileged"),
            "a root that can be written": context.get("readOnlyRootFilesystem") is True,
            "system calls": context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "capabilities": capabilities.get("drop") == ["ALL"] and not capabilities.get("add"),
            "no limits": {"cpu", "memory"} <= container.get("resources", {}).get("limits", {}).keys(),
        }
        faults += [f"{container['name']}: {name}" for name, fine in wanted.items() if not fine]
    return faults
