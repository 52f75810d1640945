"""Run by torchrun: an encoder and a teacher, of the recipes in a folder, in one start of several processes."""

import sys
from pathlib import Path

from export.learning.fine_tuning import fine_tune
from export.pretraining import pretrain
from export.recipe import ExtractRecipe, TeachRecipe, read_pretraining, read_recipe


def main(folder: Path) -> None:
    """`small.toml` -> `two/`, `teach.toml` -> `teacher/`."""
    small = read_pretraining(folder / "small.toml")
    assert isinstance(small, ExtractRecipe)
    pretrain(small, folder / "two", folder / "work")
    fine_tune(read_recipe(TeachRecipe, folder / "teach.toml"), folder / "teacher")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
