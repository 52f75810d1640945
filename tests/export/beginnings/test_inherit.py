"""Embeddings come over whole from the teacher, and from every kind of word-vector file."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import save_facebook_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.beginnings.inherit import SCALE, file_embeddings, random_embeddings, read_word_vectors, svd_embeddings
from export.errors import RecipeError

WORDS = ("the", "film", "warm", "dull", "évening")
PIECES = ("[PAD]", "the", "##ing", "warm", "dull", "unheard")
WIDTH = 6
FILES = ("vectors.txt", "vectors.vec", "vectors.bin", "glove.txt", "vectors.txt.gz", "vectors.bin.gz", "glove.txt.gz")

Table = NDArray[np.float32]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def vectors(width: int = WIDTH, seed: int = 0) -> KeyedVectors:
    found = KeyedVectors(width)
    found.add_vectors(list(WORDS), rng(seed).normal(size=(len(WORDS), width)).astype(np.float32))
    return found


def write(path: Path, found: KeyedVectors) -> Path:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    found.save_word2vec_format(
        str(plain), binary=plain.suffix == ".bin", write_header=not plain.name.startswith("glove")
    )
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def test_a_student_as_wide_as_its_teacher_inherits_the_same_geometry() -> None:
    rows = rng().normal(size=(30, 8)).astype(np.float32)
    assert_same_geometry(svd_embeddings(rows, 8), rows)


def assert_same_geometry(one: Table, other: Table) -> None:
    """The same dot products up to a scale."""
    first, second = (table @ table.T for table in (one, other))
    np.testing.assert_allclose(first / np.linalg.norm(first), second / np.linalg.norm(second), atol=1e-5)


def test_a_narrower_student_keeps_the_strongest_directions() -> None:
    flat = (rng().normal(size=(50, 3)) @ rng(1).normal(size=(3, 10))).astype(np.float32)  # of rank 3
    assert_same_geometry(svd_embeddings(flat, 3), flat)
    noisy = (flat + rng(2).normal(size=flat.shape) / 100).astype(np.float32)
    rows = svd_embeddings(noisy, 3)
    best = np.linalg.svd(noisy)[1][:3]
    found = np.linalg.svd(rows)[1]
    np.testing.assert_allclose(found / found[0], best / best[0], atol=1e-4)


def test_rows_come_in_the_students_order() -> None:
    rows = rng().normal(size=(20, 4)).astype(np.float32)
    assert_same_geometry(svd_embeddings(rows[::-1], 4)[::-1], svd_embeddings(rows, 4))


@pytest.mark.parametrize(("rows", "width"), [(40, 9), (5, 6)])
def test_a_student_wider_than_what_there_is_is_refused(rows: int, width: int) -> None:
    with pytest.raises(RecipeError, match=f"student.embedding: .* 8 columns in {rows} rows, {width} asked"):
        svd_embeddings(np.ones((rows, 8), np.float32), width)


def test_every_table_starts_with_the_same_spread() -> None:
    table = (rng().normal(size=(300, 16)) * 40).astype(np.float32)
    for found in (svd_embeddings(table, 8), random_embeddings(300, 8, rng())):
        assert found.shape == (300, 8)
        assert found.dtype == np.float32
        assert found.std() == pytest.approx(SCALE, rel=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_told_from_its_content(tmp_path: Path, name: str) -> None:
    read = read_word_vectors(write(tmp_path / name, vectors()))
    np.testing.assert_allclose(read.vectors, vectors().vectors, atol=1e-5)
    assert tuple(read.index_to_key) == WORDS


@given(width=st.integers(1, 40), seed=st.integers(0, 999))
def test_no_bytes_of_a_binary_file_pass_for_text(
    tmp_path_factory: pytest.TempPathFactory, width: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("binary")
    read = read_word_vectors(write(folder / "vectors.bin", vectors(width, seed)))
    assert np.array_equal(read.vectors, vectors(width, seed).vectors)
    shutil.rmtree(folder)


def test_a_long_first_line_of_text_is_text(tmp_path: Path) -> None:
    read = read_word_vectors(write(tmp_path / "wide.txt", vectors(900)))  # longer than what is looked at
    assert read.vector_size == 900


def test_fasttexts_own_binary_is_read(tmp_path: Path) -> None:
    model = FastText([list(WORDS)] * 5, vector_size=WIDTH, min_count=1, bucket=50, seed=1, workers=1)
    save_facebook_model(model, str(tmp_path / "fast.bin"))
    read = read_word_vectors(tmp_path / "fast.bin")
    np.testing.assert_allclose(read["warm"], model.wv["warm"], atol=1e-5)
    table = file_embeddings(tmp_path / "fast.bin", PIECES, WIDTH, rng())
    assert table.shape == (len(PIECES), WIDTH)


def test_words_that_the_file_knows_take_its_vectors_and_the_others_stay_random(tmp_path: Path) -> None:
    path = write(tmp_path / "vectors.txt", vectors())
    table = file_embeddings(path, PIECES, WIDTH, rng())
    known = [i for i, piece in enumerate(PIECES) if piece in WORDS]
    wanted = np.stack([vectors()[PIECES[i]] for i in known])
    np.testing.assert_allclose(table[known] / table[known].std(), wanted / wanted.std(), atol=1e-4)
    assert table[known].std() == pytest.approx(SCALE, rel=1e-3)
    others = [i for i in range(len(PIECES)) if i not in known]
    assert np.array_equal(table[others], random_embeddings(len(PIECES), WIDTH, rng())[others])


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"student.embedding: .*vectors of 6, 7 asked"):
        file_embeddings(write(tmp_path / "vectors.txt", vectors()), PIECES, 7, rng())


def test_a_file_of_another_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds none of the vocabulary's 1 pieces"):
        file_embeddings(write(tmp_path / "vectors.txt", vectors()), ("nichts",), WIDTH, rng())


@pytest.mark.parametrize(
    "content",
    [b"", b"hello there\n", b"5 6\n", b"5 6\nthe 0.1\n", b"\x00\xff" * 50, b"3 2\n\xff\xfe"],
)
def test_a_file_that_holds_no_vectors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"student.embeddings: .*no word vectors") as refusal:
        read_word_vectors(path)
    assert "\n" not in str(refusal.value)


def test_a_broken_fasttext_or_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fast.bin").write_bytes((793712314).to_bytes(4, "little") + b"\x0c\x00\x00\x00rest")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"the 0.1\n" * 99)[:30])
    for name in ("fast.bin", "a.txt.gz"):
        with pytest.raises(RecipeError, match="no word vectors"):
            read_word_vectors(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is no file; use 'svd', 'random' or a word-vector file"):
        read_word_vectors(tmp_path / "none.vec")
