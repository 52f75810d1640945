"""What a student takes over before training: its embeddings, from the teacher or from a file of word vectors.

Pure arithmetic and one reader; nothing here trains.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from export.errors import RecipeError, first_line

Table = NDArray[np.float32]
"""A row for each word or piece, (V, E)."""

SCALE = 0.25
"""Standard deviation of every embedding table before training, also of vectors that come from a file: an LSTM's gates
then start in their linear part."""


def svd_embeddings(rows: Table, width: int) -> Table:
    """The best rank-`width` picture of the teacher's embeddings: (V, H) -> (V, width).

    XtremeDistil (Mukherjee & Awadallah 2020, section 3.2) starts its student so. Raises RecipeError if width > H.
    """
    if width > min(rows.shape):
        have = f"{rows.shape[1]} columns in {rows.shape[0]} rows"
        raise RecipeError(f"student.embedding: the teacher's embeddings have {have}, {width} asked")
    _, _, directions = np.linalg.svd(rows, full_matrices=False)  # (H, H), strongest first
    return _scaled(rows @ directions[:width].T)


def random_embeddings(count: int, width: int, rng: Generator) -> Table:
    """(count, width) normal values."""
    return _scaled(rng.standard_normal((count, width), dtype=np.float32))


def file_embeddings(path: Path, pieces: Sequence[str], width: int, rng: Generator) -> Table:
    """Vectors of whole-word pieces from a word2vec, GloVe or fastText file (text or binary), scaled together to SCALE;
    the rest stay random.

    Returns (len(pieces), width). Raises RecipeError when the file can't be read or has another width.
    """
    vectors = read_word_vectors(path)
    if vectors.vector_size != width:
        raise RecipeError(f"student.embedding: {path} has vectors of {vectors.vector_size}, {width} asked")
    found = {i: vectors[piece] for i, piece in enumerate(pieces) if piece in vectors.key_to_index}
    if not found:
        raise RecipeError(f"{path}: holds none of the vocabulary's {len(pieces)} pieces; is it of this language?")
    table = random_embeddings(len(pieces), width, rng)
    rows = np.fromiter(found, dtype=np.int64)
    table[rows] = _scaled(np.stack(list(found.values())).astype(np.float32))
    return table


def read_word_vectors(path: Path) -> Any:  # gensim has no types
    """gensim's KeyedVectors of a file, its format told from its first bytes. Raises RecipeError."""
    from gensim.models import KeyedVectors
    from gensim.models.fasttext import load_facebook_vectors

    if not path.is_file():
        raise RecipeError(f"student.embeddings: {path} is no file; use 'svd', 'random' or a word-vector file")
    try:
        kind = _kind(path)
        if kind == "fasttext":
            return load_facebook_vectors(str(path))
        return KeyedVectors.load_word2vec_format(str(path), binary=kind == "binary", no_header=kind == "glove")
    except (
        Exception
    ) as error:  # gensim raises whatever a bad file makes it stumble over, struct.error and TypeError too
        raise RecipeError(f"student.embeddings: {path}: no word vectors ({first_line(error)})") from error


def _kind(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        start = stream.read(4096)
    if start[:4] == (793712314).to_bytes(4, "little"):  # fastText's own mark of its binary models
        return "fasttext"
    header, _, rest = start.partition(b"\n")
    if len(header.split()) != 2:
        return "glove"  # no header line: the first line is a word already
    line, whole, _ = rest.partition(b"\n")
    values = line.split()[1:] if whole else line.split()[1:-1]  # the last number may be cut off
    try:
        return "text" if len([float(value) for value in values]) else "binary"
    except ValueError:
        return "binary"


def _scaled(table: Table) -> Table:
    scaled: Table = (table * (SCALE / table.std())).astype(np.float32)
    return scaled
