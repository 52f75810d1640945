"""What `classify` was asked, and what is refused of it, be it for one stream of answers or for a folder of parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands.models import places_of
from service.commands.terminal import Misused

if TYPE_CHECKING:
    from service.bundle.manifest import SealedManifest
    from service.bundle.runtime import OpenBundle
    from service.offline.records import Columns
    from service.settings import Settings

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Input:
    """What is classified: texts, or a file, or else the lines of stdin as they come."""

    texts: Sequence[str]
    file: Path | None
    kind: str | None
    columns: "Columns"


@dataclass(frozen=True, slots=True)
class Output:
    """Where answers go, and as what."""

    path: Path | None
    overwrite: bool
    format: str | None
    top_k: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """How a big file is done; what is unset is as it is by default, and all is unset where there is none."""

    engine: str | None
    ray_address: str | None
    bad_rows: str | None
    part_rows: int | None


def check_one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """Refuse what is none of these."""
    if value not in known:
        raise Misused(f"{flag} {value}: unknown; use one of {', '.join(known)}")


def check_fits(manifest: "SealedManifest", pair: str | None, top_k: int | None) -> None:
    """Refuse what this model cannot be asked."""
    from service.bundle.tasks import TASKS, Choice

    choice, name, reads_pairs = TASKS[manifest.task].choice, manifest.name, manifest.texts == 2
    if choice is Choice.ANSWER and pair is None:
        raise Misused(f"{name} answers questions: name a file with --file, and --text-column and --pair-column of it")
    if reads_pairs and pair is None:
        raise Misused(f"{name} reads pairs of texts: name a file with --file, and the second column with --pair-column")
    if pair is not None and not reads_pairs:
        raise Misused(f"{name} reads single texts: leave --pair-column away")
    if top_k is not None and choice is Choice.SPANS:
        raise Misused(f"{name} marks entities and has no scores of labels: leave --top-k away")


def open_chosen(settings: "Settings") -> "OpenBundle":
    """The bundle that answers."""
    from service.bundle.store import read_manifest
    from service.catalogue import choose_default, newest_bundles, open_place

    newest = newest_bundles(settings.models).values()
    name = choose_default(settings, [read_manifest(place.folder) for place in newest])
    # Many runs of one thread each are quicker than one after the other of many.
    alone = settings.model_copy(update={"student_threads": 1, "teacher_threads": 1})
    return open_place(places_of([name], settings.models)[0], alone)
