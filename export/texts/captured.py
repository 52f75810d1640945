"""Texts that a service has captured, read from its store: an SQLite file of one table, whose version stands in it.

The file is opened for reading alone, so a service may be writing to it. This module knows nothing of models.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from export.errors import DataError

SUFFIX = ".db"
VERSION = 1
"""Of the table `texts`, as `user_version`: the one that this code reads."""

TEXT, PAIR = "text", "text_pair"
"""The columns; the second one holds the second text, where the model reads pairs."""

_TEXTS = f"SELECT id, text FROM texts WHERE {PAIR} IS NULL ORDER BY id"
_PAIRS = f"SELECT id, text, {PAIR} FROM texts WHERE {PAIR} IS NOT NULL ORDER BY id"


def is_store(source: str) -> bool:
    """Does it name such a file?"""
    return Path(source).suffix.lower() == SUFFIX


def captured_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each row's number and text, in the order in which they were captured; pairs of texts are left out.

    Raises DataError for a file that is missing, broken, or of another version.
    """
    yield from _rows(path, _TEXTS)


def captured_pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """The same of pairs, and single texts are left out."""
    yield from _rows(path, _PAIRS)


def _rows(path: Path, question: str) -> list[tuple[Any, ...]]:
    """All at once: a service that writes must not wait for training."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
            (found,) = store.execute("PRAGMA user_version").fetchone()
            if found != VERSION:
                raise DataError(f"{path}: a store of version {found}, and this reads version {VERSION}")
            rows: list[tuple[Any, ...]] = store.execute(question).fetchall()
            return rows
    except sqlite3.Error as error:
        raise DataError(
            f"{path}: no store that can be read ({error}); copy it again, with its -wal file, to a folder of yours"
        ) from error
