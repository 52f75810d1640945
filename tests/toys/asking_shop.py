"""A toy of questions for the workshop's tests: the answer to each is the praise that stands in its text."""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.recipe import DistillRecipe, TeachRecipe
from service.bundle.manifest import EDGES
from tests.toys.workshop import BLAME, PRAISE, SUBJECTS, VERBS, Shop, plain_texts, write_encoder

QUESTION = "what is good"
COLUMNS = ("question", "context", "answers")
LOOP = {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8}
MAX_TOKENS = 32


@dataclass(frozen=True)
class AskShop(Shop):
    """A workshop with questions."""

    @property
    def data(self) -> dict[str, Any]:
        """The recipe's table."""
        text, pair, label = COLUMNS
        named = {"text": text, "pair": pair, "label": label, "labels": list(EDGES), "task": "question-answering"}
        return named | {"train": str(self.train), "dev": str(self.dev)}

    def teach_recipe(self, **changes: Any) -> TeachRecipe:
        """Enough to learn what praise is."""
        recipe = {"name": "asks", "seed": 1, "teacher": {"model": str(self.encoder), "max_tokens": MAX_TOKENS}}
        return TeachRecipe.model_validate(recipe | {"data": self.data, "training": LOOP} | changes)

    def distill_recipe(self, teacher: Path, **changes: Any) -> DistillRecipe:
        """A transformer that begins with the encoder."""
        student = {"architecture": "transformer", "begins": str(self.encoder), "max_tokens": MAX_TOKENS}
        recipe = {
            "name": "small-asks",
            "seed": 1,
            "teacher": {"model": str(teacher), "max_tokens": MAX_TOKENS},
            "data": self.data,
            "student": student,
            "training": LOOP | {"patience": 99},
        }
        return DistillRecipe.model_validate(recipe | changes)


def texts() -> list[tuple[str, str]]:
    """240 texts and the praise in each, in a fixed, mixed order; some are longer than what the model reads at once."""
    draw = random.Random(0)
    grid = list(itertools.product(SUBJECTS, VERBS, PRAISE, range(2)))
    draw.shuffle(grid)
    found = []
    for subject, verb, praise, after in grid:
        blame = [
            f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(BLAME)}" for _ in range(draw.choice((1, 2, 9)))
        ]
        place = len(blame) if after else 0
        sentences = [*blame[:place], f"{subject} {verb} {praise}", *blame[place:]]
        found.append((" . ".join(sentences), praise))
    return found


def squad(rows: list[tuple[str, str]]) -> dict[str, Any]:
    """As SQuAD's files are written."""
    paragraphs = [
        {
            "context": text,
            "qas": [
                {"id": str(i), "question": QUESTION, "answers": [{"text": praise, "answer_start": text.index(praise)}]}
            ],
        }
        for i, (text, praise) in enumerate(rows)
    ]
    return {"version": "1.1", "data": [{"title": "toys", "paragraphs": paragraphs}]}


def open_ask_shop(folder: Path) -> AskShop:
    """Write data and encoder below `folder`."""
    train, dev, rows = folder / "train.json", folder / "dev.jsonl", texts()
    train.write_text(json.dumps(squad(rows[:200])))
    with dev.open("w") as stream:
        for text, praise in rows[200:]:
            answers = {"text": [praise], "answer_start": [text.index(praise)]}  # as the hub's data set has them
            stream.write(json.dumps({"question": QUESTION, "context": text, "answers": answers}) + "\n")
    unlabelled = folder / "unlabelled.txt"
    unlabelled.write_text("\n".join(plain_texts()))
    encoder = write_encoder(folder / "encoder", [*plain_texts(), QUESTION])
    return AskShop(folder, train, dev, unlabelled, encoder)
