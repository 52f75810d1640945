"""A toy of pairs for the workshop's tests: the second text is praise or blame, the first one says nothing of it."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.recipe import DistillRecipe, TeachRecipe
from tests.toys.workshop import BLAME, LABELS, PRAISE, SUBJECTS, VERBS, Shop, plain_texts, write_encoder

COLUMNS = "first", "second", "verdict"


@dataclass(frozen=True)
class PairShop(Shop):
    """A workshop with pairs of texts."""

    @property
    def data(self) -> dict[str, Any]:
        """The recipe's table."""
        text, pair, label = COLUMNS
        named = {"text": text, "pair": pair, "label": label, "labels": list(LABELS)}
        return named | {"train": str(self.train), "dev": str(self.dev)}

    def teach_recipe(self, **changes: Any) -> TeachRecipe:
        """Enough to learn what counts."""
        loop = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8}
        recipe = {"name": "pairs", "seed": 1, "teacher": {"model": str(self.encoder), "max_tokens": 48}}
        return TeachRecipe.model_validate(recipe | {"data": self.data, "training": loop} | changes)

    def distill_recipe(self, teacher: Path, **changes: Any) -> DistillRecipe:
        """A small siamese student from labelled, augmented and unlabelled pairs."""
        loop = {"epochs": 5, "batch_size": 16, "learning_rate": 5e-3, "patience": 99}
        text, pair, _ = COLUMNS
        unlabelled = {"source": str(self.unlabelled), "column": text, "pair": pair}
        recipe = {
            "name": "twins",
            "seed": 1,
            "teacher": {"model": str(teacher), "max_tokens": 48},
            "data": self.data,
            "transfer": {"augment": {"copies": 3}, "texts": [unlabelled]},
            "student": {"embedding": 16, "hidden": 12, "dense": 16, "max_tokens": 32},
            "training": loop | {"bf16": False, "average": 0.8},
        }
        return DistillRecipe.model_validate(recipe | changes)


def pairs() -> list[tuple[str, str, str]]:
    """240 rows in a fixed, mixed order."""
    draw = random.Random(0)
    grid = list(itertools.product(SUBJECTS, VERBS, enumerate((BLAME, PRAISE)), range(5)))
    draw.shuffle(grid)
    rows = []
    for subject, verb, (label, words), place in grid:
        first = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(SUBJECTS)}"
        rows.append((first, f"{subject} {verb} {words[place]}", LABELS[label]))
    return rows


def open_pair_shop(folder: Path) -> PairShop:
    """Write data and encoder below `folder`."""
    rows = pairs()
    paths = folder / "train.tsv", folder / "dev.tsv", folder / "unlabelled.tsv"
    more = [(second, first, "") for first, second, _ in rows[:60]]
    for path, part in zip(paths, (rows[:180], rows[180:], more), strict=True):
        path.write_text("".join("\t".join(row) + "\n" for row in (COLUMNS, *part)), encoding="utf-8")
    return PairShop(folder, *paths, write_encoder(folder / "encoder", plain_texts()))
