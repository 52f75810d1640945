"""Texts that a service has captured, read from its store: an SQLite file of one table, whose version stands in it.

The file is opened for reading alone, so a service may be writing to it. This module knows nothing of models.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from export.errors import DataError

SUFFIX = ".db"
VERSION = 1
"""Of the table `texts`, as `user_version`: the one that this code reads."""

_TEXTS = "SELECT id, text FROM texts WHERE text_pair IS NULL ORDER BY id"  # students learn from single texts


def captured_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each row's number and text, in the order in which they were captured; pairs of texts are left out.

    Raises DataError for a file that is missing, broken, or of another version.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
            (found,) = store.execute("PRAGMA user_version").fetchone()
            if found != VERSION:
                raise DataError(f"{path}: a store of version {found}, and this reads version {VERSION}")
            rows = store.execute(_TEXTS).fetchall()  # at once: a service that writes must not wait for training
    except sqlite3.Error as error:
        raise DataError(
            f"{path}: no store that can be read ({error}); copy it again, with its -wal file, to a folder of yours"
        ) from error
    yield from rows
