"""Toys for the workshop's tests: a labelled data set of our own sentences and a tiny real BERT to start from."""

import itertools
import random
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LABELS = ("negative", "positive")
SUBJECTS = ("the film", "this story", "her voice", "the cast", "a quiet scene", "our evening")
VERBS = ("is", "was", "seems", "stays")
PRAISE = ("good", "warm and clever", "a joy", "lovely", "funny")
BLAME = ("bad", "dull and slow", "a bore", "awful", "clumsy")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences() -> list[tuple[str, int]]:
    """240 labelled sentences in a fixed, mixed order."""
    grid = itertools.product(SUBJECTS, VERBS, enumerate((BLAME, PRAISE)))
    rows = [(f"{subject} {verb} {word}", label) for subject, verb, (label, words) in grid for word in words]
    random.Random(0).shuffle(rows)
    return rows


def write_data(folder: Path) -> tuple[Path, Path, Path]:
    """train.tsv, dev.tsv and unlabelled.txt."""
    rows = sentences()
    paths = folder / "train.tsv", folder / "dev.tsv", folder / "unlabelled.txt"
    for path, part in zip(paths[:2], (rows[:200], rows[200:]), strict=True):
        lines = [f"{text}\t{label}\n" for text, label in part]
        path.write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
    paths[2].write_text("".join(f"{text} and {other}\n" for (text, _), (other, _) in zip(rows, rows[1:], strict=False)))
    return paths


def write_encoder(folder: Path) -> Path:
    """A random BERT of two layers with a WordPiece vocabulary of its own, as a Hugging Face folder."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([text for text, _ in sentences()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder
