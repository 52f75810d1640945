"""The repository's Python files and what they import, read over the syntax tree."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from tests.running import ROOT


@dataclass(frozen=True)
class Source:
    """One Python file, real or invented."""

    path: str
    text: str


@cache
def tree(source: Source) -> ast.Module:
    """Parsed once, and not for each rule."""
    return ast.parse(source.text)


def imported(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere in the file, also inside functions and by name."""
    for node in ast.walk(tree(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = ".".join(Path(source.path).parts[:-level]) if level else ""
                start = ".".join(part for part in (package, module) if part)
                yield from ((node.lineno, f"{start}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


@lru_cache(maxsize=1)
def sources() -> tuple[Source, ...]:
    folders = ("service", "export", "tests", "models", "deploy")
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return tuple(Source(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in sorted(files))
