"""A smaller encoder is made of a larger one on plain text, from whatever it begins with, and used like any encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, PreTrainedModel

from export.errors import DataError, ModelError, RecipeError
from export.learning.fine_tuning import fine_tune
from export.methods import chen2021
from export.networks.compute import bert_flops, lstm_flops, relation_flops
from export.networks.extraction import shape_of
from export.networks.importance import LOSSES, importance
from export.networks.inside import Watched
from export.networks.pretrained import load_network, load_tokenizer
from export.networks.shapes import BertShape
from export.objectives.relations import products
from export.pretraining import PlainRows, cost_of, pretrain
from export.recipe import ExtractRecipe
from export.saving import read_run
from export.teachers.hugging_face import Teacher
from export.transfer.transfer_set import Tokens
from tests.toys.workshop import LABELS, Shop, command

SMALL = BertShape(1, 16, 2, 24)
TRAINING = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8, "patience": 99}


def recipe(shop: Shop, **changes: Any) -> ExtractRecipe:
    """Of the shop's encoder a half in each direction."""
    content = {
        "name": "small",
        "method": "chen2021",
        "seed": 1,
        "teacher": {"model": str(shop.encoder), "max_tokens": 32},
        "texts": [{"source": str(shop.unlabelled)}],
        "student": "1x16x2x24",
        "comparing": {"by": "minilm", "heads": 4},
        "extraction": {"texts": 64},
        "training": TRAINING,
        "judging": 40,
    }
    return ExtractRecipe.model_validate(content | changes)


def held_out_losses(text: str) -> list[float]:
    return [float(part.split()[0].rstrip(",")) for part in text.split("held-out loss ")[1:]]


@pytest.mark.parametrize("by", ["importance", "chance", "nothing"])
@pytest.mark.parametrize("compare", ["minilm", "tinybert"])
def test_a_student_comes_nearer_to_its_teacher(
    by: str, compare: str, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = recipe(shop, extraction={"by": by, "texts": 64}, comparing={"by": compare, "heads": 4})
    folder = pretrain(wanted, tmp_path / "small", tmp_path / "work")
    said = capsys.readouterr().err
    losses = held_out_losses(said)
    assert len(losses) > 10
    assert losses[-1] < 0.7 * losses[0]
    assert "floating-point" in said
    assert shape_of(AutoModel.from_pretrained(folder)) == SMALL
    assert 'method = "chen2021"' in (folder / "recipe.toml").read_text()
    cost = json.loads((folder / "cost.json").read_text())
    assert cost["total"] == pytest.approx(cost["extraction"] + cost["row"] * cost["rows"])
    assert (cost["extraction"] > 0) is (by == "importance")
    curve = read_run(folder).curve
    assert [point.loss for point in curve] == pytest.approx(losses, abs=1e-4)
    assert curve[-1].compute == pytest.approx(cost["total"])
    assert curve[0].compute > cost["extraction"]


def test_the_best_weights_are_those_that_are_written(shop: Shop, tmp_path: Path) -> None:
    """And a run that was stopped goes on to the same ones."""
    whole = pretrain(recipe(shop), tmp_path / "whole", tmp_path / "work")
    again = pretrain(recipe(shop), tmp_path / "again", tmp_path / "work")  # from its checkpoints: nothing is left to do
    other = pretrain(recipe(shop), tmp_path / "other", tmp_path / "elsewhere")
    first, *others = (load_network(AutoModel, str(folder)).state_dict() for folder in (whole, again, other))
    for weights in others:
        assert all(torch.equal(weights[name], first[name]) for name in first)


def test_it_is_fine_tuned_like_any_encoder(shop: Shop, tmp_path: Path) -> None:
    folder = pretrain(recipe(shop), tmp_path / "small", tmp_path / "work")
    teach = shop.teach_recipe(teacher={"model": str(folder), "max_tokens": 32})
    teacher = Teacher.load(str(fine_tune(teach, tmp_path / "taught")))
    assert teacher.labels == LABELS
    assert teacher.states.width == 16


def test_by_the_command(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    import tomli_w

    file.write_text(tomli_w.dumps(recipe(shop).model_dump(mode="json", exclude_none=True)))
    done = command("pretrain", file, "--out", "made", "--set", "training.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "encoder: made" in done.stderr + done.stdout
    assert (tmp_path / "made" / "tokenizer.json").exists()
    twice = command("pretrain", file, "--out", "made", cwd=tmp_path)
    assert twice.returncode == 2
    assert "made: a model lies there already" in twice.stderr


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"student": "1x16x2"}, ModelError, "shape 1x16x2"),
        ({"student": "3x16x2x24"}, ModelError, "3 layers cannot be cut out of 2"),
        ({"comparing": {"heads": 3}}, RecipeError, "3 relation heads do not divide both 32 and 16"),
        ({"judging": 5000}, DataError, "judging takes 5,000"),
        ({"extraction": {"loss": "masked"}}, ModelError, "has no head for masked words"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line(
    changes: dict[str, Any], error: type[Exception], problem: str, shop: Shop, tmp_path: Path
) -> None:
    with pytest.raises(error, match=problem):
        pretrain(recipe(shop, **changes), tmp_path / "small", tmp_path / "work")
    assert not (tmp_path / "small").exists()


def test_words_are_masked_alike_whatever_was_drawn_before(shop: Shop, tmp_path: Path) -> None:
    """Where importance is told from masked words, by a teacher that has the head for them and no pooler."""
    encoder = tmp_path / "encoder"
    AutoModelForMaskedLM.from_pretrained(shop.encoder).save_pretrained(encoder)
    load_tokenizer(str(shop.encoder)).save_pretrained(encoder)
    teacher = {"model": str(encoder), "max_tokens": 32}
    extraction = {"loss": "masked", "texts": 64}
    wanted = recipe(shop, teacher=teacher, extraction=extraction, training=TRAINING | {"epochs": 0.1})
    found = []
    for name in ("one", "other"):
        torch.rand(len(name))
        folder = pretrain(wanted, tmp_path / name, tmp_path / f"{name}-work")
        found.append(load_network(AutoModel, str(folder)).state_dict())
    assert all(torch.equal(weights, found[1][name]) for name, weights in found[0].items())


def bert(shape: BertShape, vocabulary: int, *, head: bool = False) -> PreTrainedModel:
    """Random, and of products that torch counts, without a pooler."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
    )
    options = {} if head else {"add_pooling_layer": False}
    kind: Any = AutoModelForMaskedLM if head else AutoModel
    made: PreTrainedModel = kind.from_config(config, attn_implementation="eager", **options)
    return made


ROWS, LENGTH, VOCABULARY = 5, 7, 30
SHAPES = BertShape(4, 24, 3, 40), BertShape(2, 16, 2, 24)


def rows_of_a_length() -> Tokens:
    """Without padding."""
    return Tokens.of(np.random.default_rng(0).integers(1, VOCABULARY, (ROWS, LENGTH)), pad_id=0)


@pytest.mark.parametrize("compare", ["minilm", "tinybert"])
def test_to_learn_from_a_row_costs_what_torch_counts(compare: str, shop: Shop) -> None:
    wanted = recipe(shop, comparing={"by": compare, "heads": 4})
    teacher, student = (bert(shape, VOCABULARY) for shape in SHAPES)
    watched, watching = chen2021.compared(wanted, teacher, student, None)
    rows = rows_of_a_length()
    with FlopCounterMode(display=False) as counted:
        batch = PlainRows(rows, watched, bf16=False).batch(np.arange(ROWS), torch.device("cpu"))
        chen2021.objective(wanted, 4)(watching(*batch.inputs), batch.target).value.backward()
    cost = cost_of(wanted, SHAPES, rows, VOCABULARY)
    assert counted.get_total_flops() == cost.row * ROWS
    assert cost.rows == ROWS * TRAINING["epochs"]


@pytest.mark.parametrize("loss", LOSSES)
def test_to_tell_importance_costs_what_torch_counts(loss: str, shop: Shop) -> None:
    """Of the rows that there are, where more are asked for."""
    rows, model = rows_of_a_length(), bert(SHAPES[0], VOCABULARY, head=True)
    ids = torch.from_numpy(rows.block(np.arange(ROWS))[0])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | ({"labels": ids} if loss == "masked" else {})
    with FlopCounterMode(display=False) as counted:
        importance(model, [batch], LOSSES[loss], seed=0)
    wanted = recipe(shop, extraction={"loss": loss, "texts": 64})
    assert counted.get_total_flops() == cost_of(wanted, SHAPES, rows, VOCABULARY).extraction


@pytest.mark.parametrize("tokens", [7, 12])
def test_costs_are_those_that_torch_counts(tokens: int) -> None:
    shape = BertShape(2, 24, 3, 40)
    model = bert(shape, 9)
    ids = torch.ones(1, tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as counted:
        model(input_ids=ids)
    assert counted.get_total_flops() == bert_flops(shape, tokens)
    with FlopCounterMode(display=False) as counted:
        products(torch.ones(1, tokens, 24), torch.ones(1, tokens, 24), 4)
    assert counted.get_total_flops() == relation_flops(24, tokens, 1)


def test_a_watched_encoder_tells_what_it_multiplies(shop: Shop) -> None:
    encoder = load_network(AutoModel, str(shop.encoder)).eval()
    ids, mask = torch.randint(5, 50, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    found = Watched(encoder, [1], states=True)(ids, mask)
    states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert torch.equal(found.states[0], states[0])
    assert torch.equal(found.states[1], states[2])
    own = encoder.encoder.layer[1].attention.self
    assert torch.equal(found.queries[0], own.query(states[1]))
    assert torch.equal(found.keys[0], own.key(states[1]))
    assert torch.equal(found.values[0], own.value(states[1]))
    assert not own.query._forward_hooks


@pytest.mark.parametrize("tokens", [7, 12])
def test_a_bilstm_costs_a_product_and_a_sum_for_each_weight_and_token(tokens: int) -> None:
    lstm = torch.nn.LSTM(10, 6, bidirectional=True)
    weights = sum(value.numel() for name, value in lstm.named_parameters() if name.startswith("weight"))
    assert lstm_flops(10, 6, tokens) == 2 * tokens * weights
