"""A student before it learns: its network, with the embeddings or the whole encoder that it takes over."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from export import inherit
from export.encoders import SavedEncoder
from export.errors import RecipeError
from export.progress import console
from export.sections import Student
from export.students import STUDENTS, Form, Recurrent, Shape, count_parameters
from export.vocabulary import Vocabulary


class Embedded(Protocol):
    """A teacher, as far as its words go."""

    @property
    def embeddings(self) -> inherit.Table: ...


def new_student(
    wanted: Student,
    form: Form,
    labels: int,
    vocabulary: Vocabulary,
    teacher: Embedded,
    seed: int,
    begun: SavedEncoder | None = None,
) -> Recurrent:
    """An untrained student with so many labels. Raises RecipeError for embeddings or an encoder that don't fit."""
    torch.manual_seed(seed)
    shape = Shape(
        vocabulary=len(vocabulary),
        embedding=wanted.embedding,
        hidden=wanted.hidden,
        dense=wanted.dense,
        labels=labels,
        dropout=wanted.dropout,
        pooling=wanted.pooling,
        activation=wanted.activation,
        channels=wanted.channels,
    )
    student = STUDENTS[wanted.architecture, form](shape)
    if begun is None:
        student.begin_with(torch.from_numpy(_table(wanted, vocabulary, teacher, np.random.default_rng(seed))))
    else:
        _go_on_from(student, begun, wanted)
    size = count_parameters(student)
    console.log(
        f"student: {size.total:,} weights, {size.without_embeddings:,} without embeddings; "
        f"{len(vocabulary):,} {wanted.vocabulary}"
    )
    return student


def _table(wanted: Student, vocabulary: Vocabulary, teacher: Embedded, rng: np.random.Generator) -> inherit.Table:
    """(V, E)"""
    if wanted.embeddings == "svd":
        return inherit.svd_embeddings(vocabulary.rows(teacher.embeddings), wanted.embedding)
    if wanted.embeddings == "random":
        return inherit.random_embeddings(len(vocabulary), wanted.embedding, rng)
    return inherit.file_embeddings(Path(wanted.embeddings), vocabulary.pieces, wanted.embedding, rng)


def _go_on_from(student: Recurrent, begun: SavedEncoder, wanted: Student) -> None:
    """Raises RecipeError where the recipe would read its weights as another network than the one that learnt them."""
    for name in ("embedding", "hidden", "dense", "channels", "pooling", "activation"):
        there = getattr(begun.shape, name)
        if getattr(wanted, name) != there:
            raise RecipeError(f"student.{name}: {wanted.begins} was made with {there}; write the same")
    student.load_state_dict(student.state_dict() | begun.weights)
