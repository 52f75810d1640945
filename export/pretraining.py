"""Making an encoder for no task in particular: a smaller one learns on plain text what stands inside a larger one.

The result is a Hugging Face folder, with which `teach` and `distill` begin as with any other encoder. Nothing of a
teacher is stored: what stands inside it is as large as all its layers, so it runs beside the student.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from export.errors import ModelError, OptionError, RecipeError, few
from export.learning.training import Stage, evaluations, fit, judge_by
from export.methods import chen2021
from export.networks.compute import BACKWARD, bert_flops, gates_flops, map_flops, relation_flops
from export.networks.device import processes, quick
from export.networks.extraction import Importance, Places, check_part, choose, extract, shape_of, shaped, uniform_layers
from export.networks.importance import LOSSES, Batch, importance
from export.networks.inside import Watched
from export.networks.pretrained import RECIPE, check_limit, load_network, load_tokenizer
from export.networks.shapes import BertShape, parse_shape
from export.networks.students import count_parameters
from export.objectives.relations import Inside
from export.progress import console
from export.recipe import ExtractRecipe, as_toml, fingerprint
from export.saving import COST
from export.teachers.hugging_face import weights_digest
from export.transfer.transfer_set import Tokens, length_batches


@dataclass(frozen=True)
class Watching:
    """Some rows for the student, and what stood inside the teacher as it read them."""

    inputs: tuple[Tensor, ...]  # ids (B, T) and their mask (B, T)
    target: Inside


@dataclass(frozen=True)
class PlainRows:
    """Plain texts as both read them, and the teacher, which is asked anew each time."""

    tokens: Tokens
    teacher: Watched
    bf16: bool

    def __len__(self) -> int:
        return len(self.tokens.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,)."""
        return self.tokens.lengths

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Watching:
        """These rows, (B,)."""
        ids, lengths = self.tokens.block(indices)
        mask = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)).to(device)
        inputs = torch.from_numpy(ids).to(device), mask
        with torch.no_grad(), quick(device, self.bf16):
            found: Inside = self.teacher.to(device)(*inputs)
        return Watching(inputs, found.exact())


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a run; it may end before all rows are learnt, where dev grows no better."""

    extraction: float
    row: float  # to learn from one, on average
    rows: float  # that are learnt from, each as often as there are epochs

    @property
    def total(self) -> float:
        return self.after(1)

    def after(self, share: float) -> float:
        """When so much of the run is done."""
        return self.extraction + self.row * self.rows * share


def pretrain(recipe: ExtractRecipe, out: Path, work: Path) -> Path:
    """Extract a student and distil it; it lies in `out`. An interrupted run goes on from its last evaluation.

    Raises ExportError for input that can't be used.
    """
    if (out / "config.json").exists():
        raise OptionError(f"{out}: a model lies there already; choose another --out")
    shape, tokenizer = parse_shape(recipe.student), load_tokenizer(recipe.teacher.model)
    set_seed(recipe.seed)  # what a teacher lacks, such as a pooler, is drawn when it is loaded
    teacher = load_network(AutoModel, recipe.teacher.model).eval()
    check_limit(teacher.config, recipe.teacher.model, recipe.teacher.max_tokens)
    whole, heads = shape_of(teacher), _relation_heads(recipe, shape_of(teacher), shape)
    _check_fits(recipe, whole, shape)  # before texts are read, which takes long
    learnt, held = _rows(recipe, tokenizer)
    set_seed(recipe.seed)
    student, hidden = _begun(recipe, teacher, tokenizer, shape, learnt)
    cost = cost_of(recipe, (whole, shape), learnt, int(teacher.config.vocab_size))
    console.log(f"student: {_counted(student)}; teacher: {_counted(teacher)}; {_spent(cost)}")
    watched, watching = chen2021.compared(recipe, teacher, student, hidden)
    rows, judging = (PlainRows(part, watched, recipe.training.bf16) for part in (learnt, held))
    objective = chen2021.objective(recipe, heads)
    judge = judge_by(objective, judging, recipe.training.batch_size)
    folder = work / "encoders" / f"{recipe.name}-{_fingerprint(recipe, teacher, learnt)}"
    # Nothing is compared of what lies above the last layer, such as a pooler.
    stage = Stage("chen2021", rows, objective, recipe.training, judge=judge, idle=True)
    fit(watching, [stage], judge, folder, recipe.seed)
    if not processes().is_main_process:
        return out  # where one of us saves it for all
    student.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / RECIPE).write_text(as_toml(recipe), encoding="utf-8")
    curve = [{"compute": cost.after(seen.done), "loss": -seen.metric} for seen in evaluations(folder, stage)]
    told = asdict(cost) | {"total": cost.total, "curve": curve}
    (out / COST).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return out


def _check_fits(recipe: ExtractRecipe, teacher: BertShape, student: BertShape) -> None:
    if recipe.extraction.by == "nothing":
        uniform_layers(teacher.layers, student.layers)  # with which its own are compared
    else:
        check_part(teacher, student)


def _relation_heads(recipe: ExtractRecipe, teacher: BertShape, student: BertShape) -> int:
    heads, common = recipe.comparing.heads or teacher.heads, gcd(teacher.hidden, student.hidden)
    fitting = [str(number) for number in range(common, 0, -1) if common % number == 0]
    if teacher.hidden % heads or student.hidden % heads:
        raise RecipeError(
            f"comparing.heads: {heads} relation heads do not divide both {teacher.hidden} and {student.hidden} hidden "
            f"dimensions; one of {few(fitting)} does"
        )
    return heads


def _rows(recipe: ExtractRecipe, tokenizer: PreTrainedTokenizerFast) -> tuple[Tokens, Tokens]:
    """What is learnt from, and what selects."""
    texts = list(recipe.read())
    np.random.default_rng(recipe.seed).shuffle(texts)
    held, learnt = texts[: recipe.judging], texts[recipe.judging :]
    return _tokens(recipe, tokenizer, learnt), _tokens(recipe, tokenizer, held)


def _tokens(recipe: ExtractRecipe, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tokens:
    found = tokenizer(list(texts), truncation=True, max_length=recipe.teacher.max_tokens)["input_ids"]
    return Tokens.of(found, int(tokenizer.pad_token_id))


def _begun(
    recipe: ExtractRecipe, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, shape: BertShape, rows: Tokens
) -> tuple[PreTrainedModel, Places | None]:
    """The student before it learns, and which of the teacher's hidden dimensions it has."""
    if recipe.extraction.by == "nothing":
        fresh: PreTrainedModel = AutoModel.from_config(shaped(teacher.config, shape))
        return fresh, None
    if recipe.extraction.by == "chance":
        counts = Importance.by_chance(shape_of(teacher), np.random.default_rng(recipe.seed))
    else:
        counts = _importance(recipe, teacher, tokenizer, rows)
    kept = choose(counts, shape)
    return extract(teacher, kept, shape.heads), kept.hidden


def _importance(
    recipe: ExtractRecipe, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Tokens
) -> Importance:
    """Measured in fp32. Raises ModelError where masked words are asked for and the teacher lost the head for them."""
    model: Any = teacher
    if recipe.extraction.loss == "masked":
        model, found = load_network(AutoModelForMaskedLM, recipe.teacher.model, output_loading_info=True)
        if found["missing_keys"]:
            raise ModelError(
                f"teacher {recipe.teacher.model}: has no head for masked words; set extraction.loss = 'states'"
            )
    batches = list(_batches(recipe, tokenizer, rows))
    return importance(model, batches, LOSSES[recipe.extraction.loss], recipe.seed)


def _batches(recipe: ExtractRecipe, tokenizer: PreTrainedTokenizerFast, rows: Tokens) -> Iterator[Batch]:
    """The first texts, in batches of like lengths; some words masked where the loss asks for them."""
    count = min(recipe.extraction.texts, len(rows.lengths))
    mask = DataCollatorForLanguageModeling(tokenizer)  # draws from torch's own generator, which `pretrain` seeds
    for places in length_batches(rows.lengths[:count], recipe.extraction.batch_size, np.random.default_rng(0)):
        ids, lengths = rows.block(places)
        real = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(real)}
        if recipe.extraction.loss == "masked":
            batch["input_ids"], batch["labels"] = mask.torch_mask_tokens(batch["input_ids"])
        yield batch


def cost_of(recipe: ExtractRecipe, shapes: tuple[BertShape, BertShape], rows: Tokens, vocabulary: int) -> Cost:
    """Of a teacher, of a vocabulary of so many pieces, and its student.

    Each row counts as one of the mean length without padding: of attention, which grows with the square, that is a
    little short. Evaluations and poolers are left out.
    """
    (teacher, student), tokens = shapes, float(rows.lengths.mean())
    whole = recipe.comparing.by == "tinybert"
    compared = student.layers if whole else 2  # scores of each layer; attention and values of the last one
    theirs = bert_flops(teacher, tokens) + relation_flops(teacher.hidden, tokens, compared)
    ours = relation_flops(student.hidden, tokens, compared)
    if whole:  # W_h, of the embeddings' states too
        ours += (student.layers + 1) * map_flops(student.hidden, teacher.hidden, tokens)
    row = theirs + bert_flops(student, tokens) + ours + BACKWARD * (ours + _reached(student, tokens, whole=whole))
    count = len(rows.lengths)
    extraction = min(recipe.extraction.texts, count) * _importance_flops(recipe, teacher, tokens, vocabulary)
    return Cost(extraction, row, recipe.training.epochs * count)


def _reached(student: BertShape, tokens: float, *, whole: bool) -> float:
    """By gradients, of a forward pass: of the last layer only its queries, keys and values where not the whole is
    compared."""
    if whole:
        return bert_flops(student, tokens)
    below = replace(student, layers=student.layers - 1)
    return bert_flops(below, tokens) + 3 * map_flops(student.hidden, student.hidden, tokens)


def _importance_flops(recipe: ExtractRecipe, teacher: BertShape, tokens: float, vocabulary: int) -> float:
    """Of a row from which importance is told, if it is."""
    if recipe.extraction.by != "importance":
        return 0.0
    encoder, width = gates_flops(teacher, tokens), teacher.hidden
    if recipe.extraction.loss != "masked":
        return encoder
    head = map_flops(width, width, tokens) + map_flops(width, vocabulary, tokens)
    return encoder + 2 * head  # there and back; its weights have no gradients either


def _fingerprint(recipe: ExtractRecipe, teacher: nn.Module, rows: Tokens) -> str:
    theirs = np.frombuffer(weights_digest(teacher).encode(), dtype=np.uint8)
    return fingerprint(recipe, [theirs, rows.flat, rows.offsets])


def _counted(model: nn.Module) -> str:
    size = count_parameters(model)
    return f"{size.total:,} weights, {size.without_embeddings:,} without embeddings"


def _spent(cost: Cost) -> str:
    return (
        f"{cost.total:.3g} floating-point operations to learn from {cost.rows:,.0f} texts, {cost.extraction:.2g} of "
        "them to choose what to begin with"
    )
