"""Ways to spoil a bundle on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.bundle.store import digests

Change = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Change) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Another file with a true digest, so that only a later check can object."""
    (folder / name).write_bytes(content)
    edit(folder, lambda manifest: manifest["files"].update(digests({name: content})))
