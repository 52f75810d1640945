"""Toys for the workshop's tests: a labelled data set of our own sentences and a tiny real BERT to start from."""

import contextlib
import io
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tomli_w
import torch
from pydantic import BaseModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from export.__main__ import main
from export.pipeline import Places
from export.recipe import DistillRecipe, TeachRecipe
from export.sections import Student

LABELS = ("negative", "positive")
SUBJECTS = ("the film", "this story", "her voice", "the cast", "a quiet scene", "our evening")
VERBS = ("is", "was", "seems", "stays")
PRAISE = ("good", "warm and clever", "a joy", "lovely", "funny")
BLAME = ("bad", "dull and slow", "a bore", "awful", "clumsy")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROOT = Path(__file__).resolve().parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@dataclass(frozen=True)
class Shop:
    """A workshop with data and an encoder, and nothing made yet."""

    folder: Path
    train: Path
    dev: Path
    unlabelled: Path
    encoder: Path

    @property
    def data(self) -> dict[str, Any]:
        """The recipe's table."""
        return {"train": str(self.train), "dev": str(self.dev), "labels": list(LABELS)}

    def teach_recipe(self, **changes: Any) -> TeachRecipe:
        """Eight epochs, without adaptation unless asked."""
        loop = {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8}
        recipe = {"name": "toy", "seed": 1, "teacher": {"model": str(self.encoder), "max_tokens": 64}}
        return TeachRecipe.model_validate(recipe | {"data": self.data, "training": loop} | changes)

    def distill_recipe(self, teacher: Path, **changes: Any) -> DistillRecipe:
        """A small student from 200 labelled, some augmented and 100 unlabelled texts."""
        loop = {"epochs": 10, "batch_size": 16, "learning_rate": 5e-3, "patience": 99}  # at 2e-2 all ReLUs die
        recipe = {
            "name": "toy-student",
            "seed": 1,
            "teacher": {"model": str(teacher), "max_tokens": 64},
            "data": self.data,
            "transfer": {"augment": {"copies": 2}, "texts": [{"source": str(self.unlabelled), "limit": 100}]},
            "student": {"embedding": 16, "hidden": 12, "dense": 16, "max_tokens": 32},
            "training": loop | {"bf16": False, "average": 0.8},
        }
        return DistillRecipe.model_validate(recipe | changes)


def bilstm(recipe: DistillRecipe) -> Student:
    """Of a recipe whose student is one."""
    assert isinstance(recipe.student, Student)
    return recipe.student


@dataclass(frozen=True)
class Distilled:
    """A student that went the whole way."""

    recipe: DistillRecipe
    places: Places
    bundle: Path


def write_recipe(recipe: BaseModel, file: Path) -> Path:
    """As a file of a user's."""
    file.write_text(tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    return file


def open_shop(folder: Path) -> Shop:
    """Write data and encoder below `folder`."""
    return Shop(folder, *write_data(folder), write_encoder(folder / "encoder", plain_texts()))


@dataclass(frozen=True)
class Ended:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object, cwd: Path) -> Ended:
    """`python -m export …` as a user types it, but in this process: loading torch anew takes some seconds."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["export", *map(str, arguments)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer puts one of its own there
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setenv("COLUMNS", OFFLINE["COLUMNS"])
        for handler in _handlers():
            patch.setattr(handler, "stream", err)
        with pytest.raises(SystemExit) as stop:
            main()
    return Ended(int(stop.value.code or 0), out.getvalue(), err.getvalue())


def process(*arguments: object, cwd: Path) -> Ended:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "export", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | OFFLINE | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def _handlers() -> Iterator[logging.Handler]:
    """Those of libraries, which hold the stderr that was there when they were imported."""
    for name in list(logging.root.manager.loggerDict):
        yield from (handler for handler in logging.getLogger(name).handlers if type(handler) is logging.StreamHandler)


@contextlib.contextmanager
def running(*arguments: object, cwd: Path) -> "Iterator[subprocess.Popen[str]]":
    """The same, under way; killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "export", *map(str, arguments)],
        cwd=cwd,
        # A shell that runs the tests in the background lets them ignore Ctrl-C, and this process would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | OFFLINE | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


def sentences() -> list[tuple[str, int]]:
    """240 labelled sentences in a fixed, mixed order."""
    grid = itertools.product(SUBJECTS, VERBS, enumerate((BLAME, PRAISE)))
    rows = [(f"{subject} {verb} {word}", label) for subject, verb, (label, words) in grid for word in words]
    random.Random(0).shuffle(rows)
    return rows


def plain_texts() -> list[str]:
    """The same without labels."""
    return [text for text, _ in sentences()]


def write_data(folder: Path) -> tuple[Path, Path, Path]:
    """train.tsv, dev.tsv and unlabelled.txt."""
    rows = sentences()
    paths = folder / "train.tsv", folder / "dev.tsv", folder / "unlabelled.txt"
    for path, part in zip(paths[:2], (rows[:200], rows[200:]), strict=True):
        lines = [f"{text}\t{label}\n" for text, label in part]
        path.write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
    paths[2].write_text("".join(f"{text} and {other}\n" for (text, _), (other, _) in itertools.pairwise(rows)))
    return paths


def write_encoder(folder: Path, texts: Iterable[str], pieces: int = 200) -> Path:
    """A random BERT of two layers with a WordPiece vocabulary of these texts' own, as a Hugging Face folder."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=pieces, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    inputs = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own tokenizers have them
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **names)
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder
