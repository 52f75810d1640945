"""A witness of what Python does in a process (PEP 578): code from data, other programs, files, connections.

It sees what goes through Python: what a library does in C by itself raises no event. Nothing counts before `arm`.
"""

import os
import sys
from pathlib import Path
from types import CodeType

PROGRAMS = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
CONNECTIONS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg")
FORBIDDEN = frozenset(("pickle.find_class", "pty.spawn", *PROGRAMS, *CONNECTIONS))
CHANGES = frozenset(
    ("remove", "rename", "mkdir", "rmdir", "link", "symlink", "chmod", "chown", "truncate", "utime", "setxattr")
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
INSTALLED = tuple(os.path.join(os.path.abspath(folder), "") for folder in {*sys.path, sys.prefix, sys.base_prefix})  # noqa: PTH100, PTH118
DEEPEST = 6  # calls that are told of


class Audit:
    """Writes a line for each thing that must not happen."""

    def __init__(self, report: Path, allowed: tuple[Path, ...]) -> None:
        """Files below `allowed` may be written."""
        self._out = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._allowed = tuple(f"{folder}{os.sep}" for folder in allowed)
        self._armed = False
        sys.addaudithook(self._hear)

    def arm(self) -> None:
        """From now on."""
        self._armed = True

    def _hear(self, event: str, details: tuple[object, ...]) -> None:
        if self._armed and self._is_wrong(event, details):
            shown = ascii(details)[:200]
            os.write(self._out, f"{event} {shown} from {_callers()}\n".encode())

    def _is_wrong(self, event: str, details: tuple[object, ...]) -> bool:
        if event in FORBIDDEN:
            return True
        if event == "open":
            path, _, flags = details
            return isinstance(flags, int) and bool(flags & WRITING) and not self._may_write(path)
        if event == "ctypes.dlopen":
            return details[0] is not None  # None: the process itself, for what libc offers
        if event == "compile":
            return not _is_installed(details[1])
        if event == "exec":
            return not (isinstance(details[0], CodeType) and _is_installed(details[0].co_filename))
        family, _, verb = event.partition(".")
        return family == "os" and verb in CHANGES and not self._may_write(details[0])

    def _may_write(self, path: object) -> bool:
        if isinstance(path, int):  # opened before, and judged then
            return True
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self._allowed)


def _is_installed(name: object) -> bool:
    """Is it the name of a source file on the module path, as an import has it? Others are strings."""
    return isinstance(name, str | bytes) and os.fsdecode(name).startswith(INSTALLED)


def _callers() -> str:
    frame, names = sys._getframe(2), list[str]()
    while frame is not None and len(names) < DEEPEST:
        names.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(names)
