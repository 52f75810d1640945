"""A flag for every setting: `serve` and `config` take them all.

It knows the form of fields. It knows nothing of what a setting means.
"""

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings import Group, Settings

_KINDS: dict[type, str] = {int: "INTEGER", float: "NUMBER", Path: "PATH", tuple: "A,B,…", SecretStr: "SECRET"}


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take each setting as a flag besides its own; they arrive as `**flags`, None where not given."""
    own = [each for each in inspect.signature(command).parameters.values() if each.kind is not each.VAR_KEYWORD]
    every = [*own, *(_parameter(name, field) for name, field in Settings.model_fields.items())]
    command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in every}
    return command


def flag_of(name: str) -> str:
    """The flag that sets this field; one that is on or off has two, with a slash between."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if _types(Settings.model_fields[name])[0] is bool else f"--{flag}"


def choices_of(name: str) -> list[str]:
    """The values that this field may have, where they are few."""
    return _choices(_types(Settings.model_fields[name])[0])


def group_of(field: FieldInfo) -> Group | None:
    """What the setting is about."""
    return next((each for each in field.metadata if isinstance(each, Group)), None)


def text_of(value: object) -> str:
    """A value as a variable would spell it; empty if there is none, and never a secret."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case float():
            return f"{value:.15g}"
        case tuple():
            return ",".join(map(text_of, value))
    return str(value)  # a SecretStr shows asterisks


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field of the settings -> a parameter that typer understands."""
    group = group_of(field)
    kinds = _types(field)
    option = typer.Option(
        flag_of(name),
        help=field.description,
        metavar="" if kinds[0] is bool else _metavar(kinds[0]),
        rich_help_panel=group.value if group else "Options",
    )
    # All others are read as text, so that the settings alone decide what a value may be.
    kind = bool | None if kinds[0] is bool else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _types(field: FieldInfo) -> list[Any]:
    """The types that a value may have, None aside."""
    union = get_origin(field.annotation) in (Union, UnionType)
    return [each for each in (get_args(field.annotation) if union else [field.annotation]) if each is not type(None)]


def _choices(kind: Any) -> list[str]:
    """The values that there are, where they are few."""
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    return [str(each.value) for each in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _metavar(kind: Any) -> str:
    return "CHOICE" if _choices(kind) else _KINDS.get(get_origin(kind) or kind, "TEXT")
