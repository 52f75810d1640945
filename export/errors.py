"""What can be wrong with a user's input to the workshop. Each message is one line: what, where, how to mend it.

ExportError            the command stops with exit code 2
├── RecipeError        a recipe that can't be read, or names what it doesn't know
├── OptionError        a value on the command line that can't be
├── DataError          a file, row or label that doesn't fit (file and line number in the message)
├── ModelError         a teacher that can't be loaded, or doesn't fit the recipe
└── Unmet              everything could be used, and what was measured is not enough: exit code 4, and nothing changed
"""

from collections.abc import Sequence


def first_line(error: Exception) -> str:
    """What a library says, shortened to a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def few(names: Sequence[str], most: int = 12) -> str:
    """Their list, for a message: of very many only the first."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed}, … ({len(names)} in all)"


class ExportError(Exception):
    """The user's input can't be used; the message says why in one line."""


class RecipeError(ExportError):
    """The recipe can't be used as it stands."""


class OptionError(ExportError):
    """A value on the command line can't be."""


class DataError(ExportError):
    """A file, a row or a label doesn't fit."""

    @classmethod
    def at(cls, place: str, line: int, what: str) -> "DataError":
        """Name the file (or data set) and the line, counted from 1."""
        return cls(f"{place}, line {line}: {what}")


class ModelError(ExportError):
    """The teacher can't be loaded or doesn't fit the recipe."""


class Unmet(ExportError):
    """What was measured is not what was asked for, so nothing was written."""
