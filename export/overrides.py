"""`--set table.key=value`: one value of a parsed TOML file put in the place of another; an empty one takes it out.

It knows tables, arrays and values. It knows nothing of what they mean.
"""

import tomllib
from typing import Any

from export.errors import RecipeError


def overrule(content: dict[str, Any], override: str) -> None:
    """Set `table.key` (or `array.0.key`) of the parsed TOML, or take it out. Raises RecipeError where it can't."""
    key, equals, value = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"--set {override}: write table.key=value")
    place: Any = content
    for table in tables:
        place = _entered(place, table, override)
    if isinstance(place, list):
        raise RecipeError(f"--set {override}: {tables[-1]} is an array; name one of its tables by number")
    if value.strip():
        place[last] = _toml_value(value)
    elif last in place:  # its default holds again
        del place[last]
    else:
        raise RecipeError(f"--set {override}: there is no {last!r} to take out")


def _entered(place: Any, table: str, override: str) -> Any:
    if isinstance(place, list) and table.isdecimal() and int(table) < len(place):
        inner = place[int(table)]
    elif isinstance(place, dict):
        inner = place.setdefault(table, {})
    else:
        inner = None
    if not isinstance(inner, dict | list):
        raise RecipeError(f"--set {override}: there is no table {table!r}")
    return inner


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
