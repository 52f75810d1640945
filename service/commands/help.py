"""Help in panels that cut no name short, as typer's own do where lines are narrow; settings stand group by group.

It knows options and commands by their looks. It knows nothing of what they do.
"""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from service.commands.flags import choices_of, text_of
from service.environment import variable_of
from service.settings import Group, Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"


class Command(TyperCommand):
    """A command with such help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_rendered(self, ctx))


class CommandGroup(TyperGroup):
    """Commands with such help, in the order in which they were named."""

    names: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: self.names.index(name) if name in self.names else -1)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_rendered(self, ctx))


def _rendered(command: Any, ctx: Any) -> str:
    from rich.console import Console
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table

    screen = Console(highlight=False, markup=False)
    with screen.capture() as captured:
        screen.print(Padding(f"Usage: {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}", (1, 1)))
        screen.print(Padding(inspect.cleandoc(command.help or ""), (0, 1, 1, 1)))
        for title, rows in _panels(command, ctx):
            table = Table.grid(padding=(0, 2))
            table.add_column(style="bold cyan", no_wrap=True)
            for row in rows:
                table.add_row(*row)
            screen.print(Panel(table, title=title, title_align="left", border_style="dim"))
        if command.epilog:
            screen.print(Padding(inspect.cleandoc(command.epilog), (1, 1)))
    return captured.get()


def _panels(command: Any, ctx: Any) -> "Iterator[tuple[str, list[tuple[str, RenderableType]]]]":
    options = command.get_params(ctx)
    asked = [_title(option) for option in options]
    titles = dict.fromkeys([ARGUMENTS, OPTIONS, *(group.value for group in Group), *asked])
    for title in titles:
        rows = [(_head(option), _said(option)) for option in options if _title(option) == title]
        if rows:
            yield title, rows
    if isinstance(command, TyperGroup):
        found = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
        yield COMMANDS, [(name, each.get_short_help_str(limit=200)) for name, each in found if each is not None]


def _title(option: Any) -> str:
    if option.param_type_name == "argument":
        return ARGUMENTS
    return getattr(option, "rich_help_panel", None) or OPTIONS


def _head(option: Any) -> str:
    if option.param_type_name == "argument":
        return str(option.metavar or option.name.upper())
    names = "\n".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _said(option: Any) -> "RenderableType":
    from rich.text import Text

    if option.name not in Settings.model_fields or option.param_type_name == "argument":
        default = f" (default: {option.default})" if isinstance(option.default, str | int) and option.default else ""
        return Text.assemble(option.help or "", (default, "dim"))
    choices = choices_of(option.name)
    default = text_of(Settings.model_fields[option.name].default) or "unset"
    among = f" (of {', '.join(choices)})" if choices else ""
    return Text.assemble(option.help, "\n", (f"{variable_of(option.name)}, default: {default}{among}", "dim"))
