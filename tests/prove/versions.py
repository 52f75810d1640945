"""New versions of a bundle, published while it is served: each calls the labels the other way round.

So an answer shows which version it is of by more than the name that it carries: the scores of two versions differ
wherever the scores of two labels do.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from service.bundle.seal import MANIFEST_FILE, sealed


@dataclass(frozen=True, slots=True)
class Shelf:
    """One model's folder in a folder of models."""

    folder: Path  # <models>/<name>

    def publish(self, source: Path, version: int) -> None:
        """Copy a bundle there as this version, all at once."""
        staging = self.folder / f".{version}"
        shutil.copytree(source, staging)
        path = staging / MANIFEST_FILE
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest |= {"version": str(version), "labels": labels_of(tuple(manifest["labels"]), version)}
        path.write_text(sealed(json.dumps(manifest)), encoding="utf-8")
        staging.rename(self.folder / str(version))

    def withdraw(self, version: int) -> None:
        shutil.rmtree(self.folder / str(version), ignore_errors=True)


def labels_of(labels: tuple[str, ...], version: int) -> tuple[str, ...]:
    """Odd versions have them as the bundle has."""
    return labels if version % 2 else labels[::-1]
