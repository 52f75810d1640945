"""What a service has captured is read as transfer data: while it writes, read-only, and only if it is such a store."""

import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from export.errors import DataError
from export.measuring.calibrate import Source
from export.recipe import as_toml
from export.texts.captured import captured_pairs, captured_texts
from export.texts.datasets import Columns, Names, read_labelled, read_pairs, read_texts
from service.bundle.store import read_manifest
from service.oversight.store import Reason, Record, Store
from tests.toys.workshop import Distilled, Shop, command, process

LOGITS = np.array([1, -1], "<f4").tobytes()


def record(text: str, pair: str | None = None) -> Record:
    return Record(1.0, text, pair, "toy@1", "0" * 64, None, None, LOGITS, None, Reason.SAMPLED, 0.5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that a service left: texts, one of them twice, one empty, and a pair."""
    path = tmp_path / "capture.db"
    texts = ["the cast was warm", "ein Film\nin zwei Zeilen 😀", "the cast was warm", ""]
    with closing(Store(path, 10**7)) as opened:
        opened.write([*map(record, texts), record("one", "other")])
    return path


def test_texts_come_in_their_order_and_pairs_are_left_out(store: Path) -> None:
    assert list(captured_texts(store)) == [
        (1, "the cast was warm"),
        (2, "ein Film\nin zwei Zeilen 😀"),
        (3, "the cast was warm"),
        (4, ""),
    ]
    assert list(read_texts(str(store))) == [text for _, text in captured_texts(store)]


def test_pairs_come_alone_where_their_column_is_asked_for(store: Path) -> None:
    assert list(captured_pairs(store)) == [(5, "one", "other")]
    assert list(read_pairs(str(store), ("text", "text_pair"))) == [("one", "other")]


def test_those_who_measure_read_its_pairs_without_being_told_its_columns(store: Path) -> None:
    assert Source(str(store)).read(2) == [("one", "other")]
    assert Source(str(store)).read(1) == ["the cast was warm", "ein Film\nin zwei Zeilen 😀", ""]
    with pytest.raises(DataError, match="text2"):
        Source(str(store), pair="text2").read(2)


def test_it_is_read_while_a_service_writes(store: Path) -> None:
    with closing(Store(store, 10**7)) as opened:
        opened.write([record("just now")])
        assert list(captured_texts(store))[-1] == (6, "just now")
        reading = captured_texts(store)
        next(reading)
        opened.write([record("and now")])  # nobody is waited for
        opened.drop_before(2.0)
    assert list(captured_texts(store)) == []


def test_reading_changes_nothing(store: Path) -> None:
    before = store.read_bytes()
    list(captured_texts(store))
    assert store.read_bytes() == before


def spoil(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 2", "a store of version 2, and this reads version 1"),
        ("PRAGMA user_version = 0", "a store of version 0"),
        ("DROP TABLE texts", r"no store that can be read \(no such table: texts\)"),
        ("ALTER TABLE texts RENAME COLUMN text TO words", r"no store that can be read \(no such column: text\)"),
        ("UPDATE texts SET text = CAST(x'ff' AS TEXT)", "no store that can be read"),
    ],
)
def test_another_store_is_refused_in_one_line(store: Path, statement: str, message: str) -> None:
    spoil(store, statement)
    with pytest.raises(DataError, match=message) as caught:
        list(read_texts(str(store)))
    assert str(caught.value).startswith(f"{store}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_store_is_refused(store: Path, tmp_path: Path) -> None:
    content = store.read_bytes()
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at as one. " * 99)
    (tmp_path / "cut.db").write_bytes(content[: len(content) // 2])
    for name in ("text.db", "cut.db"):
        with pytest.raises(DataError, match="no store that can be read"):
            list(captured_texts(tmp_path / name))
    with pytest.raises(DataError, match="no such file"):
        list(captured_texts(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_it_has_no_labels_and_no_other_column(store: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'label'; there is text"):
        read_labelled(str(store), Names(("a", "b")), Columns())
    with pytest.raises(DataError, match=r"no column 'student_digest'; there is text"):
        list(read_texts(str(store), "student_digest"))


@pytest.mark.slow
def test_a_second_version_is_distilled_from_captured_texts(
    shop: Shop, distilled: Distilled, store: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(as_toml(distilled.recipe))
    options = ("--set", "version=2", "--transfer", store, "--set", "training.epochs=1", "--models", "staging")
    found = process("distill", recipe, *options, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    manifest = read_manifest(tmp_path / "staging" / "toy-student" / "2")
    sources = tomllib.loads(manifest.lineage.recipe)["transfer"]["texts"]
    assert [source["source"] for source in sources] == [str(shop.unlabelled), str(store)]


def test_a_bad_store_is_exit_code_2(distilled: Distilled, store: Path, tmp_path: Path) -> None:
    spoil(store, "PRAGMA user_version = 7")
    (tmp_path / "recipe.toml").write_text(as_toml(distilled.recipe))
    found = command("distill", "recipe.toml", "--set", "version=2", "--transfer", store, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].endswith("a store of version 7, and this reads version 1")
