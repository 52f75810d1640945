"""Two processes train one student: by the loss of whole batches, so to the weights that one process alone comes to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import RecipeError
from export.learning.fine_tuning import share
from export.pipeline import Places, distill
from export.pretraining import pretrain
from export.recipe import DistillRecipe, ExtractRecipe
from service.bundle.runtime import open_bundle
from tests.running import until
from tests.toys.workshop import LABELS, OFFLINE, ROOT, Ended, Shop, write_recipe

LOOP = {"epochs": 2, "batch_size": 15, "learning_rate": 1e-2, "bf16": False, "average": 0.5, "patience": 99}
"""Fifteen rows are no equal shares of two, and the last batch of an epoch may have a single one."""

STAGES = [
    {"representation": 1},
    {"logits": 1, "labels": 0.5, "unfreeze": True},  # labels of some rows of a batch, and not of others
    {"labels": 1},
]
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """`torchrun … -m MODULE …`, under way."""
    return subprocess.Popen(
        [*TOGETHER, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | OFFLINE | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(*arguments: object, cwd: Path) -> Ended:
    """The same, to its end."""
    with start(*arguments, cwd=cwd) as process:
        out, err = process.communicate(timeout=240)
    return Ended(process.returncode, out, err)


def staged(shop: Shop, teacher: Path) -> DistillRecipe:
    """Without dropout."""
    settings: dict[str, Any] = {
        "method": "mukherjee2020",
        "teacher": {"model": str(teacher), "max_tokens": 64, "hidden": {"layer": 1, "pooling": "mean"}},
        "data": shop.data | {"per_label": 20},
        "transfer": {},
        "student": {"embedding": 16, "hidden": 12, "dense": 32, "activation": "gelu", "dropout": 0},
        "stages": STAGES,
        "training": LOOP,
    }
    return DistillRecipe.model_validate(shop.distill_recipe(teacher).model_dump() | settings)


def curves(work: Path) -> dict[str, list[tuple[float, float]]]:
    """Of each step: what was seen at its evaluations."""
    found = sorted(work.glob("students/*/*/standing.json"))
    return {file.parent.name: json.loads(file.read_text())["seen"] for file in found}


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    assert list(ours) == list(theirs)
    for name, seen in ours.items():
        np.testing.assert_allclose(seen, theirs[name], atol=tolerance, err_msg=name)


def without_dropout(encoder: Path, copy: Path) -> Path:
    """Whose masks would be others in each process."""
    shutil.copytree(encoder, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def alone(shop: Shop, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    distill(staged(shop, taught), Places(folder / "runs", folder / "models"), "a test")
    return folder


@pytest.mark.slow
def test_two_come_to_what_one_comes_to_even_when_they_are_killed_and_started_again(
    shop: Shop, taught: Path, alone: Path, tmp_path: Path
) -> None:
    command = (
        "export",
        "distill",
        write_recipe(staged(shop, taught), tmp_path / "staged.toml"),
        "--work",
        "runs",
        "--models",
        "models",
    )
    with start(*command, cwd=tmp_path) as killed:
        second_of_six = "runs/students/*/1-*/standing.json"
        until(lambda: list(tmp_path.glob(second_of_six)), killed, within_s=240)
        subprocess.run(["pkill", "-KILL", "-P", str(killed.pid)], check=False)
        killed.kill()
    assert not list(tmp_path.glob("models/*/*/manifest.json"))
    done = together(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("student: models/toy-student/1") == 1  # one speaks for both
    assert_alike(curves(tmp_path / "runs"), curves(alone / "runs"), tolerance=2e-3)
    texts = shop.unlabelled.read_text().splitlines()[1:]
    ours, theirs = (open_bundle(folder / "models" / "toy-student" / "1") for folder in (tmp_path, alone))
    np.testing.assert_allclose(ours.classify(texts), theirs.classify(texts), atol=2e-3)


@pytest.mark.slow
def test_two_make_the_encoder_that_one_makes_and_a_teacher(shop: Shop, tmp_path: Path) -> None:
    """Also where weights have no part in the objective. A teacher's batches come in another order."""
    content = {
        "name": "small",
        "method": "chen2021",
        "seed": 1,
        "teacher": {"model": str(without_dropout(shop.encoder, tmp_path / "encoder")), "max_tokens": 32},
        "texts": [{"source": str(shop.unlabelled)}],
        "student": "1x16x2x24",
        "comparing": {"by": "minilm", "heads": 4},
        "extraction": {"texts": 64},
        "training": LOOP,
        "judging": 40,
    }
    wanted = ExtractRecipe.model_validate(content)
    alone = pretrain(wanted, tmp_path / "alone", tmp_path / "runs")
    write_recipe(wanted, tmp_path / "small.toml")
    adaptation = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "texts": [{"source": str(shop.unlabelled)}]}
    write_recipe(shop.teach_recipe(adaptation=adaptation), tmp_path / "teach.toml")
    done = together("tests.export.several", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ours, theirs = (json.loads((folder / "cost.json").read_text())["curve"] for folder in (tmp_path / "two", alone))
    assert [point["loss"] for point in ours] == pytest.approx([point["loss"] for point in theirs], rel=1e-2)
    assert json.loads((tmp_path / "teacher" / "dev.json").read_text())["value"] > 0.9
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["id2label"]["1"] == LABELS[1]
    assert not list(tmp_path.glob("teacher.checkpoints"))


def test_shares_of_a_teachers_batch_must_be_equal() -> None:
    assert share(16, 4) == 4
    with pytest.raises(RecipeError, match="batch_size: 15 rows are no equal shares for 2 processes"):
        share(15, 2)
