"""What the Trainer is given of a task: rows with labels, how they become a batch, and who judges it on dev.

A row is a text or a pair; a tagger's tokens have a label each (see `export.texts.alignment`), and two tokens of a
question's text are where its answer starts and ends (see `export.texts.answers`). It knows nothing of the loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BatchEncoding,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerFast,
)

from export.recipe import TeachRecipe
from export.tasks.metrics import selecting
from export.tasks.targets import answers_of, targets_of, words_of
from export.teachers.hugging_face import reader, tokenized
from export.texts.alignment import first_pieces, going_on, piece_tags, word_logits
from export.texts.answers import edges, nearness, passages
from export.texts.datasets import Dataset, Example
from service.bundle.encoder import Row, Text
from service.bundle.manifest import Task
from service.bundle.rows import Passage, Spanned

DEV = "dev"
"""What the Trainer calls the metric that selects."""

Judge = Callable[[EvalPrediction], dict[str, float]]


@dataclass(frozen=True)
class Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Texts as the Trainer wants them: token ids, and labels where there are some."""

    encoding: BatchEncoding
    labels: Sequence[int | list[int] | list[float]] | None = None

    def __len__(self) -> int:
        return len(self.encoding["input_ids"])

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = {key: values[i] for key, values in self.encoding.items()}
        return row if self.labels is None else row | {"labels": self.labels[i]}


@dataclass(frozen=True)
class Lesson:
    """Of one task. `dev` stays in its order, and `judge` is asked about all of it."""

    network: Any  # transformers' class of it
    train: Encoded
    dev: Encoded
    collator: Any
    judge: Judge


def lesson(tokenizer: PreTrainedTokenizerFast, data: Dataset, recipe: TeachRecipe) -> Lesson:
    """The rows of both splits, those of dev by length: neighbours of one length need little padding."""
    dev = sorted(data.dev, key=lambda example: _chars(example.text))
    return _MAKERS.get(recipe.data.task, _of_rows)(tokenizer, data.train, dev, recipe)


def _of_rows(
    tokenizer: PreTrainedTokenizerFast, train: Sequence[Example], dev: Sequence[Example], recipe: TeachRecipe
) -> Lesson:
    task, labels = recipe.data.task, len(recipe.data.labels)
    metric = selecting(task, recipe.data.metric)

    def encoded(examples: Sequence[Example]) -> Encoded:
        encoding = tokenized(tokenizer, [example.text for example in examples], recipe.teacher.max_tokens)
        return Encoded(encoding, targets_of(examples, task, labels).tolist())

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        return {DEV: metric(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))}  # (N, L), (N, ·)

    network = AutoModelForSequenceClassification
    return Lesson(network, encoded(train), encoded(dev), DataCollatorWithPadding(tokenizer), judge)


def _of_pieces(
    tokenizer: PreTrainedTokenizerFast, train: Sequence[Example], dev: Sequence[Example], recipe: TeachRecipe
) -> Lesson:
    labels, metric = recipe.data.labels, selecting(Task.TAGGING, recipe.data.metric)
    on = going_on(labels)
    targets = targets_of(dev, Task.TAGGING, len(labels))
    words = words_of(dev) or ()
    encoder = reader(tokenizer, recipe.teacher.max_tokens, of_pieces=True)

    def rows_of(examples: Sequence[Example]) -> list[Spanned]:
        rows: Sequence[Row] = encoder.encode([example.text for example in examples])
        return [row for row in rows if isinstance(row, Spanned)]

    def encoded(examples: Sequence[Example], rows: Sequence[Spanned]) -> Encoded:
        tags = [piece_tags(row, own, on) for row, own in zip(rows, words_of(examples) or (), strict=True)]
        masks = [[1] * len(row) for row in rows]
        return Encoded(BatchEncoding({"input_ids": [list(row) for row in rows], "attention_mask": masks}), tags)

    rows = rows_of(dev)

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        logits = np.asarray(prediction.predictions)  # (N, T, L)
        firsts = first_pieces(rows, words, width=logits.shape[1])
        own = word_logits(logits.reshape(-1, len(labels)), firsts, labels)  # (W, L)
        return {DEV: metric(own, targets, labels)}

    network, collator = AutoModelForTokenClassification, DataCollatorForTokenClassification(tokenizer)
    return Lesson(network, encoded(train, rows_of(train)), encoded(dev, rows), collator, judge)


def _of_passages(
    tokenizer: PreTrainedTokenizerFast, train: Sequence[Example], dev: Sequence[Example], recipe: TeachRecipe
) -> Lesson:
    """Of a long text each part is a row, which has the answer or says that it has not."""
    metric = selecting(Task.ANSWERING, recipe.data.metric)
    encoder = reader(tokenizer, recipe.teacher.max_tokens, 2, of_pieces=True)

    def rows_of(examples: Sequence[Example]) -> list[Passage]:
        return passages(encoder.encode([example.text for example in examples]))

    def encoded(examples: Sequence[Example], rows: Sequence[Passage]) -> Encoded:
        wanted = answers_of(examples)
        starts, ends = zip(*(edges(row, wanted[row.number]) for row in rows), strict=True)
        return Encoded(
            BatchEncoding(
                {
                    "input_ids": [row.ids for row in rows],
                    "attention_mask": [[1] * len(row) for row in rows],
                    "token_type_ids": [row.types for row in rows],
                    "start_positions": list(starts),
                    "end_positions": list(ends),
                }
            )
        )

    rows, wanted = rows_of(dev), answers_of(dev)

    def judge(prediction: EvalPrediction) -> dict[str, float]:
        starts, ends = (np.asarray(side) for side in prediction.predictions)  # (N, T) each
        own = [np.stack([starts[i, : len(row)], ends[i, : len(row)]], axis=1) for i, row in enumerate(rows)]
        return {DEV: metric(nearness(np.concatenate(own), rows, wanted), targets_of(dev, Task.ANSWERING, 2))}

    network, collator = AutoModelForQuestionAnswering, DataCollatorWithPadding(tokenizer)
    return Lesson(network, encoded(train, rows_of(train)), encoded(dev, rows), collator, judge)


_MAKERS = MappingProxyType({Task.TAGGING: _of_pieces, Task.ANSWERING: _of_passages})


def _chars(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
