"""A student before it learns: its words, and its network with the embeddings or the encoder that it takes over."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from export.beginnings import inherit
from export.beginnings.encoders import SavedEncoder, load_encoder
from export.beginnings.vocabulary import Vocabulary, vocabulary_of
from export.data import Data
from export.errors import ModelError, RecipeError
from export.networks.compute import bert_flops, lstm_flops
from export.networks.extraction import shape_of
from export.networks.pretrained import check_limit, load_network, load_tokenizer
from export.networks.students import STUDENTS, Form, Recurrent, Shape, Transformer, TransformerReader, count_parameters
from export.progress import console
from export.sections import AnyStudent, Student, TransformerStudent
from export.tasks.learnt import LEARNING
from service.bundle.manifest import Task

TOLD = 32
"""Tokens of a text whose cost is told."""


class Embedded(Protocol):
    """A teacher, as far as its words go."""

    tokenizer: PreTrainedTokenizerFast

    @property
    def embeddings(self) -> inherit.Table: ...


class Untrained(NamedTuple):
    """A student that has learnt nothing of its task."""

    network: Recurrent | Transformer
    vocabulary: Vocabulary


def untrained(wanted: AnyStudent, data: Data, teacher: Embedded, texts: Sequence[str], seed: int) -> Untrained:
    """As the recipe says; `texts` are those that it will learn from.

    Raises RecipeError for embeddings or an encoder that don't fit, ModelError for an encoder that can't be loaded.
    """
    if isinstance(wanted, TransformerStudent):
        return _transformer(wanted, data, seed)
    begun = None if wanted.begins is None else load_encoder(wanted.begins)
    vocabulary = begun.vocabulary if begun else vocabulary_of(wanted, teacher.tokenizer, texts)
    return Untrained(new_student(wanted, data.form, len(data.labels), vocabulary, teacher, seed, begun), vocabulary)


def _transformer(wanted: TransformerStudent, data: Data, seed: int) -> Untrained:
    """The encoder with a new head, whose weights are drawn from the seed."""
    tokenizer = load_tokenizer(wanted.begins)
    names = dict(enumerate(data.labels))
    torch.manual_seed(seed)
    answers = data.task is Task.ANSWERING
    model = load_network(
        AutoModelForQuestionAnswering if answers else AutoModelForSequenceClassification,
        wanted.begins,
        num_labels=len(names),
        problem_type=LEARNING[data.task].problem_type,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    check_limit(model.config, wanted.begins, wanted.max_tokens)
    typed = "token_type_ids" in tokenizer.model_input_names
    student = (TransformerReader if answers else Transformer)(model, tokenizer.sep_token_id if typed else None)
    vocabulary = Vocabulary.whole(tokenizer)
    _tell(student, f"{len(vocabulary):,} pieces")
    return Untrained(student, vocabulary)


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
    _tell(student, f"{len(vocabulary):,} {wanted.vocabulary}")
    return student


def _tell(student: Recurrent | Transformer, words: str) -> None:
    """Before it learns: what it is, and what it will cost."""
    size, flops = count_parameters(student), _flops(student, TOLD)
    cost = f"; {flops / 1e6:,.1f} million floating-point operations for a text of {TOLD} tokens" if flops else ""
    console.log(f"student: {size.total:,} weights, {size.without_embeddings:,} without embeddings; {words}{cost}")


def _flops(student: Recurrent | Transformer, tokens: int) -> float | None:
    """Without the head, which is small beside it; None of a transformer of another make than BERT's."""
    if isinstance(student, Recurrent):
        shape = student.shape
        return lstm_flops(shape.channels * shape.embedding, shape.hidden, tokens)
    encoder: Any = student.model.base_model
    with suppress(ModelError):
        return bert_flops(shape_of(encoder), tokens)
    return None


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
