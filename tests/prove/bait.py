"""A folder that nobody has any business in: has it been changed, has anything in it been opened?"""

import ctypes
import hashlib
import os
import sys
from pathlib import Path

ACCESS, MODIFY, ATTRIB, OPEN, MOVED, CREATE, DELETE = 0x1, 0x2, 0x4, 0x20, 0xC0, 0x100, 0x200
EVENT = 16  # bytes of an inotify event without its name


class Bait:
    """Watches a folder from outside, with inotify where there is such a thing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle = _watch(folder)
        self.arm()

    @property
    def watched(self) -> bool:
        """Would an opened file be noticed?"""
        return self._handle is not None

    def arm(self) -> None:
        """What happened until now was ours."""
        self._before = snapshot(self._folder)
        self.touched()

    def changed(self) -> bool:
        """Is anything there not as it was?"""
        return snapshot(self._folder) != self._before

    def touched(self) -> int:
        """How often anything in it was opened, read or changed since the last question, by its place in the folder."""
        if self._handle is None:
            return 0
        count = 0
        while True:
            try:
                events = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return count
            count += _count(events)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Path -> mode, time of the last change (but not of a folder), and what is in it; of everything below."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        content = os.fspath(path.readlink()) if path.is_symlink() else _digest(path)
        changed = 0 if path.is_dir() else stat.st_mtime_ns
        found[path.relative_to(folder).as_posix()] = (stat.st_mode, changed, content)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _watch(folder: Path) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.inotify_init1(os.O_NONBLOCK)
    wanted = ACCESS | MODIFY | ATTRIB | OPEN | MOVED | CREATE | DELETE
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    watched = handle >= 0 and all(libc.inotify_add_watch(handle, os.fsencode(each), wanted) >= 0 for each in folders)
    return handle if watched else None


def _count(events: bytes) -> int:
    count, place = 0, 0
    while place < len(events):
        place += EVENT + int.from_bytes(events[place + 12 : place + 16], sys.byteorder)  # and the name
        count += 1
    return count
