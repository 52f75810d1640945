"""`config`: every setting with its value and where that came from; secrets are never shown."""

import json
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from service.commands.flags import flag_of, group_of, text_of, with_flags
from service.commands.terminal import Misused, say, show
from service.environment import Resolved, load, variable_of
from service.settings import Group, Settings

HEAD = """\
# Settings

Each is a flag of `python -m service serve` and an environment variable; the flag wins. Lists take commas, switches
are `--x` and `--no-x` (as a variable: true or false). There is no configuration file; with Kubernetes use `envFrom`
([why](decisions/0012-settings-from-flags-and-variables.md)). `python -m service config --markdown` prints this page.
"""


@with_flags
def config(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/settings.md.")] = False,
    **flags: Any,
) -> None:
    """Print the settings that `serve` would use with these flags and this environment.

    A wrong value is refused as `serve` refuses it. Secrets are shown as asterisks.
    """
    if as_json and as_markdown:
        raise Misused("--json and --markdown: choose one of them")
    if as_markdown:
        say("\n".join(page()))
        return
    resolved = load(flags, os.environ)
    if as_json:
        values = resolved.settings.model_dump(mode="json")
        listed = {name: {"value": value, "from": resolved.origins[name]} for name, value in values.items()}
        say(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        _show(resolved)


def page() -> Iterator[str]:
    """docs/settings.md, line by line."""
    yield HEAD
    yield "| flag | variable | default | |"
    yield "|---|---|---|---|"
    for title, names in grouped():
        if title:
            yield f"| **{title}** | | | |"
        for name in names:
            field = Settings.model_fields[name]
            default = text_of(field.default)
            flag = flag_of(name).replace("/", "`, `")
            shown = f"`{default}`" if default else ""
            reason = re.sub(r"[<|*]", r"\\\g<0>", field.description or "")  # signs that Markdown would take for its own
            yield f"| `{flag}` | `{variable_of(name)}` | {shown} | {reason} |"


def grouped() -> Iterator[tuple[str, list[str]]]:
    """The names of all settings, group by group."""
    for group in (*Group, None):
        names = [name for name, field in Settings.model_fields.items() if group_of(field) is group]
        if names:
            yield group.value if group else "", names


def _show(resolved: Resolved) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "from", "variable")
    for title, names in grouped():
        table.add_section()
        table.add_row(Text(title, "bold"))
        for name in names:
            value = getattr(resolved.settings, name)
            shown = Text("unset", "dim") if value is None else Text(text_of(value))
            origin = resolved.origins[name]
            table.add_row(name, shown, Text(origin, "" if origin == "default" else "bold"), variable_of(name))
    show(table)
