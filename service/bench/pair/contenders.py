"""Who takes part: students, their teachers, and teacher-shaped models with random weights. Measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.bench.engine import Entry, parse_entry
from service.bundle.manifest import UNTRAINED, Precision, Task
from service.bundle.store import find_bundles, read_manifest

SHAPES = Path("runs/shapes")
"""Where models with random weights are kept: not among those that are served."""


class UnfitPair(Exception):
    """These models cannot be compared with each other."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One graph of one bundle. Of one with random weights only the time means anything."""

    title: str  # name@version:precision, or :native
    teacher: bool  # the others are held against it
    random: bool
    labels: tuple[str, ...]
    graph_bytes: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Names:
    """What the command line says."""

    students: Sequence[str]
    teachers: Sequence[str] = ()
    shapes: Sequence[str] = ()
    shape_models: Path = SHAPES


def contenders_of(names: Names) -> tuple[Contender, ...]:
    """Students first. Raises UnfitPair, BundleError."""
    students = [contender(parse_entry(text), teacher=False) for text in names.students]
    entries = [*map(parse_entry, names.teachers), *(_shaped(shape, names) for shape in names.shapes)]
    teachers = [contender(entry, teacher=True) for entry in entries]
    if not teachers:
        raise UnfitPair("there is nobody to compare with; name a --teacher or a --shape")
    found = (*students, *teachers)
    for number, each in enumerate(found):
        if each.title in [other.title for other in found[:number]]:
            raise UnfitPair(f"{each.title}: named twice")
        if not each.random and set(each.labels) != set(found[0].labels):
            others = f"{', '.join(each.labels)}; those of {found[0].title} are {', '.join(found[0].labels)}"
            raise UnfitPair(f"{each.title}: its labels are {others}; compare models of one task")
    return found


def contender(entry: Entry, *, teacher: bool) -> Contender:
    """What a bundle says of itself. Raises UnfitPair for a task whose answers are no single labels."""
    manifest = read_manifest(entry.folder)
    precision = entry.precision if entry.precision in manifest.graphs else Precision.EXACT
    entry = replace(entry, precision=precision)
    if manifest.task is not Task.SINGLE_LABEL or manifest.texts != 1:
        raise UnfitPair(f"{entry.folder}: pairs are compared on single labels of single texts; see `bench engine`")
    return Contender(
        title=f"{manifest.name}@{manifest.version}:{entry.suffix}",
        teacher=teacher,
        random=manifest.lineage.method == UNTRAINED,
        labels=manifest.labels,
        graph_bytes=(entry.folder / manifest.graphs[precision].file).stat().st_size,
        entry=entry,
    )


def _shaped(shape: str, names: Names) -> Entry:
    """The newest bundle that was made for this shape."""
    name = f"random-{shape}"
    found = find_bundles(names.shape_models) if names.shape_models.is_dir() else []
    folders = [place.folder for place in found if place.name == name]
    if not folders:
        like = parse_entry(names.teachers[0]).folder if names.teachers else "TEACHER_BUNDLE"
        made = f"python -m export shape {shape} --like {like} --models {names.shape_models}"
        raise UnfitPair(f"--shape {shape}: {names.shape_models} holds no {name}; make it with: {made}")
    return Entry(folders[-1], Precision.EXACT)
