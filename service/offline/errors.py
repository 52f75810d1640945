"""What can be wrong with a file that is to be classified. Each message is one line that names the file and its line.

OfflineError
├── InputError     a file or a row that cannot be read as asked
└── OutputError    a place where nothing may be written
"""


class OfflineError(Exception):
    """Something that asking differently would mend."""


class InputError(OfflineError):
    """A file or a row that cannot be read as asked."""

    @classmethod
    def at(cls, place: str, line: int, problem: str) -> "InputError":
        """Name the file and its line."""
        return cls(f"{place}:{line}: {problem}")


class OutputError(OfflineError):
    """A place where nothing may be written."""
