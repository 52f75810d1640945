"""Nothing is imported in a circle: neither modules, nor the packages of the service and of the workshop."""

from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rules.syntax import Source, imported, sources


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Of what imports what: parts that lead back to where they began, if there are any."""
    needs: dict[str, set[str]] = {}
    for user, used in edges:
        if user != used:
            needs.setdefault(user, set()).add(used)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def module_of(path: str) -> str:
    return ".".join(part for part in Path(path).with_suffix("").parts if part != "__init__")


def between_modules(files: Iterable[Source]) -> Iterator[tuple[str, str]]:
    """A name of a package that is no module of it is the package's own."""
    files = list(files)
    known = {module_of(source.path) for source in files}
    for source in files:
        for _, name in imported(source):
            used = name if name in known else name.rpartition(".")[0]
            if used in known:
                yield module_of(source.path), used


def between_parts(files: Iterable[Source]) -> Iterator[tuple[str, str]]:
    """A part is a package or a module of the top level."""
    for user, used in between_modules(files):
        yield ".".join(user.split(".")[:2]), ".".join(used.split(".")[:2])


@pytest.mark.parametrize(
    ("top", "between"),
    [
        ("service", between_modules),
        ("service", between_parts),
        ("export", between_modules),
        ("export", between_parts),
        ("tests", between_modules),
    ],
)
def test_nothing_is_imported_in_a_circle(
    top: str, between: Callable[[Iterable[Source]], Iterator[tuple[str, str]]]
) -> None:
    assert circle(between(source for source in sources() if source.path.startswith(f"{top}/"))) == []


@pytest.mark.parametrize(
    ("between", "expected"),
    [(between_modules, []), (between_parts, ["service.wire", "service.api", "service.wire"])],
)
def test_a_circle_of_parts_need_not_be_one_of_modules(
    between: Callable[[Iterable[Source]], Iterator[tuple[str, str]]], expected: list[str]
) -> None:
    files = (
        Source("service/api/door.py", "from service.wire.call import Call"),
        Source("service/wire/call.py", "import json"),
        Source("service/wire/quick.py", "def f() -> None:\n    from service.api import door"),
    )
    found = circle(between(files))
    assert sorted(set(found)) == sorted(set(expected))
    assert found[:1] == found[-1:]
