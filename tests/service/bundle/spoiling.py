"""Ways to spoil a bundle on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.bundle.seal import sealed
from service.bundle.store import digests

Change = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Change, *, reseal: bool = True) -> None:
    """Change the manifest; sealed again, so that only a later check can object."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    changed = json.dumps(manifest)
    path.write_text(sealed(changed) if reseal else changed)


def replace(folder: Path, name: str, content: bytes) -> None:
    """Another file with a true digest, so that only a later check can object."""
    (folder / name).write_bytes(content)
    edit(folder, lambda manifest: manifest["files"].update(digests({name: content})))
