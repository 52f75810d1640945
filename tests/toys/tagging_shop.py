"""A workshop for tagging: sentences of our own with names and places, and a tiny BERT that splits words into pieces."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.recipe import DistillRecipe, TeachRecipe
from tests.toys.workshop import Shop, write_encoder

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
FIRST = ("Anna", "Bertil", "Cleo", "Dag", "Emre", "Fatou")
LAST = ("Lund", "O'Hara", "Nwosu", "St. John", "Özdemir")
PLACES = ("Lima", "New Delhi", "U.N. Plaza", "Ulm", "Port-au-Prince")
FRAMES = (
    "{} lives in {} .",
    "from {1} came {0}",
    "{0} and the mayor of {1} met",
    "in {1} , {0} slept",
    "nobody came .",
)

Tagged = list[tuple[str, str]]
"""Words with their tags."""


@dataclass(frozen=True)
class TagShop(Shop):
    """A workshop with sentences whose words have tags."""

    @property
    def data(self) -> dict[str, Any]:
        """The recipe's table."""
        return {"train": str(self.train), "dev": str(self.dev), "task": "tagging", "labels": list(TAGS)}

    def teach_recipe(self, **changes: Any) -> TeachRecipe:
        """Ten epochs."""
        loop = {"epochs": 10, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8}
        loop |= {"evaluations_per_epoch": 1}
        recipe = {"name": "toy-ner", "seed": 1, "teacher": {"model": str(self.encoder), "max_tokens": 64}}
        return TeachRecipe.model_validate(recipe | {"data": self.data, "training": loop} | changes)

    def distill_recipe(self, teacher: Path, **changes: Any) -> DistillRecipe:
        """A small tagger from the labelled and the unlabelled sentences."""
        loop = {"epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "patience": 99, "evaluations_per_epoch": 1}
        recipe = {
            "name": "toy-tagger",
            "seed": 1,
            "teacher": {"model": str(teacher), "max_tokens": 64},
            "data": self.data,
            "transfer": {"texts": [{"source": str(self.unlabelled)}]},
            "student": {"embedding": 16, "hidden": 16, "dense": 32, "dropout": 0.0, "max_tokens": 48},
            "training": loop | {"bf16": False, "average": 0.8},
        }
        return DistillRecipe.model_validate(recipe | changes)


def open_tag_shop(folder: Path) -> TagShop:
    """Write data and encoder below `folder`."""
    rows = sentences()
    train, dev, rest = folder / "train.conll", folder / "dev.conll", folder / "unlabelled.txt"
    train.write_text(conll(rows[:160]), encoding="utf-8")
    dev.write_text(conll(rows[160:220]), encoding="utf-8")
    rest.write_text("".join(" ".join(word for word, _ in row) + "\n" for row in rows[220:]), encoding="utf-8")
    return TagShop(folder, train, dev, rest, write_splitting_encoder(folder / "encoder", rows))


def sentences(count: int = 300) -> list[Tagged]:
    """In a fixed, mixed order."""
    rng = random.Random(0)
    return [_sentence(rng.choice(FRAMES), rng) for _ in range(count)]


def conll(rows: Sequence[Tagged]) -> str:
    """As a file has it."""
    return "-DOCSTART-\tO\n\n" + "\n".join("".join(f"{word}\t{tag}\n" for word, tag in row) for row in rows)


def write_splitting_encoder(folder: Path, rows: Sequence[Tagged]) -> Path:
    """An encoder with so few pieces that names are split."""
    return write_encoder(folder, [" ".join(word for word, _ in row) for row in rows], pieces=110)


def _sentence(frame: str, rng: random.Random) -> Tagged:
    name, place = f"{rng.choice(FIRST)} {rng.choice(LAST)}", rng.choice(PLACES)
    row: Tagged = []
    for part in frame.replace("{}", "{0}", 1).replace("{}", "{1}", 1).split():
        if part in ("{0}", "{1}"):
            label, words = ("PER", name.split()) if part == "{0}" else ("LOC", place.split())
            row.extend((word, f"{'I' if i else 'B'}-{label}") for i, word in enumerate(words))
        else:
            row.append((part, "O"))
    return row
