"""What is cut out of an encoder computes what it computed there, and nothing is cut along the wrong axis."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, DistilBertConfig, PreTrainedModel, RobertaConfig

from export.errors import ModelError
from export.networks.extraction import NEW, Importance, Kept, choose, extract, shape_of, uniform_layers
from export.networks.importance import Gates, gated, importance, masked_words, projected_states
from export.networks.shapes import BertShape

SHAPE = BertShape(layers=3, hidden=12, heads=3, intermediate=10)
VOCABULARY = 40
CONFIGS = [BertConfig, RobertaConfig]


def encoder(config: type = BertConfig, shape: BertShape = SHAPE, seed: int = 0) -> Any:  # its layers have no types
    """Random, and no weight is what it would be by default: LayerNorms and biases count."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModel.from_config(
        config(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate,
            max_position_embeddings=20,
            pad_token_id=0,
        )
    )
    for weight in model.parameters():
        nn.init.normal_(weight, 0.1, 0.4)
    model.eval()
    return model


def batch(seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
    return {"input_ids": torch.randint(2, VOCABULARY, (3, 6)), "attention_mask": mask}


@torch.inference_mode()
def states_of(model: PreTrainedModel) -> Tensor:
    """The last ones of all real tokens, (R, H)."""
    found: Tensor = model(**batch()).last_hidden_state[batch()["attention_mask"].bool()]
    return found


def whole(shape: BertShape = SHAPE) -> Kept:
    every, neurons = np.arange(shape.hidden), np.arange(shape.intermediate)
    layers = shape.layers
    return Kept(tuple(range(layers)), every, (every,) * layers, (every,) * layers, (neurons,) * layers)


@pytest.mark.parametrize("config", CONFIGS)
def test_an_extract_of_everything_is_the_teacher(config: type) -> None:
    teacher = encoder(config)
    assert shape_of(teacher) == SHAPE
    assert torch.equal(states_of(extract(teacher, whole(), SHAPE.heads)), states_of(teacher))


@pytest.mark.parametrize("config", CONFIGS)
@given(seed=st.integers(0, 10_000))
def test_the_same_order_of_dimensions_runs_through_everything(config: type, seed: int) -> None:
    """Units are shuffled, of each kind by itself. Only one order for the whole stream of hidden dimensions, and the
    same one on both sides of heads and neurons, gives the teacher's states in that order."""
    rng = np.random.default_rng(seed)
    teacher, head = encoder(config), SHAPE.hidden // SHAPE.heads
    hidden = rng.permutation(SHAPE.hidden)

    def heads() -> tuple[np.ndarray, np.ndarray]:
        order = rng.permutation(SHAPE.heads)
        sides = [np.concatenate([at * head + rng.permutation(head) for at in order]) for _ in range(2)]
        return sides[0], sides[1]

    chosen = [heads() for _ in range(SHAPE.layers)]
    kept = replace(
        whole(),
        hidden=hidden,
        queries=tuple(queries for queries, _ in chosen),
        values=tuple(values for _, values in chosen),
        neurons=tuple(rng.permutation(SHAPE.intermediate) for _ in range(SHAPE.layers)),
    )
    found = states_of(extract(teacher, kept, SHAPE.heads))
    torch.testing.assert_close(found, states_of(teacher)[:, hidden], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_heads_and_neurons_that_do_nothing_may_go(seed: int) -> None:
    """One head of three in each layer and half of the neurons: two heads are left, as wide together as three were."""
    teacher, head = encoder(seed=seed), SHAPE.hidden // SHAPE.heads
    gone = np.arange(1, SHAPE.intermediate, 2)
    for number, layer in enumerate(teacher.encoder.layer):
        with torch.no_grad():
            layer.attention.output.dense.weight[:, number * head : (number + 1) * head] = 0
            layer.output.dense.weight[:, gone] = 0
    counts = importance(teacher, [batch()], projected_states, seed=0)
    assert (counts.heads.argmin(axis=1) == [0, 1, 2]).all()
    assert counts.heads.min(axis=1) == pytest.approx([0, 0, 0])
    assert (counts.neurons[:, gone] == 0).all()
    smaller = replace(SHAPE, heads=2, intermediate=SHAPE.intermediate - len(gone))
    kept = choose(counts, smaller)
    assert NEW in kept.queries[0]
    torch.testing.assert_close(states_of(extract(teacher, kept, heads=2)), states_of(teacher), atol=1e-4, rtol=1e-4)


def test_a_wider_head_learns_in_all_its_dimensions() -> None:
    student: Any = extract(
        encoder(), choose(Importance.by_chance(SHAPE, np.random.default_rng(0)), replace(SHAPE, heads=2)), 2
    )
    for _ in range(2):  # what is multiplied by zero learns from the second step on
        student(**batch()).last_hidden_state.square().sum().backward()
        with torch.no_grad():
            for weight in student.parameters():
                if weight.grad is not None:
                    weight.sub_(weight.grad, alpha=1e-3)
    attention = student.encoder.layer[0].attention
    for name in ("query", "key", "value"):
        gradient = getattr(attention.self, name).weight.grad
        assert gradient is not None
        assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("teacher", "student", "wanted"),
    [
        (6, 3, (1, 3, 5)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (12, 4, (2, 5, 8, 11)),
        (6, 4, (1, 2, 4, 5)),
        (6, 1, (5,)),
        (5, 2, (2, 4)),
    ],
)
def test_layers_are_chosen_at_even_distances_up_to_the_last(
    teacher: int, student: int, wanted: tuple[int, ...]
) -> None:
    assert uniform_layers(teacher, student) == wanted


@given(
    seed=st.integers(0, 10_000), layers=st.integers(1, 3), hidden=st.sampled_from([4, 6, 8]), heads=st.integers(1, 2)
)
def test_an_extract_of_any_size_runs(seed: int, layers: int, hidden: int, heads: int) -> None:
    shape = BertShape(layers, hidden, heads, 7)
    kept = choose(Importance.by_chance(SHAPE, np.random.default_rng(seed)), shape)
    student = extract(encoder(), kept, heads)
    assert shape_of(student) == shape
    assert states_of(student).isfinite().all()
    assert len(set(kept.hidden.tolist())) == hidden


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (replace(SHAPE, layers=4), "4 layers cannot be cut out of 3"),
        (replace(SHAPE, hidden=15), "15 hidden dimensions cannot be cut out of 12"),
        (replace(SHAPE, heads=4), "4 heads cannot be cut out of 3"),
        (replace(SHAPE, intermediate=11), "11 neurons cannot be cut out of 10"),
    ],
)
def test_what_is_larger_than_the_teacher_is_refused(shape: BertShape, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        choose(Importance.by_chance(SHAPE, np.random.default_rng(0)), shape)


def test_another_make_of_network_is_refused() -> None:
    other = AutoModel.from_config(DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2, hidden_dim=8))
    with pytest.raises(ModelError, match=r"of its weights .* nothing can be cut out"):
        shape_of(other)


def test_importance_is_the_effect_of_switching_a_unit_off() -> None:
    """To first order: the difference that a gate of 1 - e makes, divided by e."""
    model, generator = encoder().double(), torch.Generator()
    counts = importance(model, [batch()], projected_states, seed=3)
    gates = Gates(*(torch.ones(size, dtype=torch.double) for size in ((12,), (3, 12), (3, 12), (3, 10))))

    def loss() -> float:
        with gated(model, gates), torch.no_grad():
            return projected_states(model, batch(), generator.manual_seed(3)).item()

    def effect(gate: Tensor, place: tuple[int, ...]) -> float:
        before, small = loss(), 1e-6
        gate[place] -= small
        changed = loss()
        gate[place] += small
        return abs(changed - before) / small

    for place in range(0, 12, 5):
        assert counts.hidden[place] == pytest.approx(effect(gates.hidden, (place,)), rel=1e-3)
        assert counts.queries[1].ravel()[place] == pytest.approx(effect(gates.queries, (1, place)), rel=1e-3)
        assert counts.values[2].ravel()[place] == pytest.approx(effect(gates.values, (2, place)), rel=1e-3)
    assert counts.neurons[0, 7] == pytest.approx(effect(gates.neurons, (0, 7)), rel=1e-3)


def test_masked_words_may_decide_what_counts() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=10
    )
    model = AutoModelForMaskedLM.from_config(config)
    labels = batch()["input_ids"].masked_fill(torch.rand(3, 6) > 0.5, -100)
    counts = importance(model, [batch() | {"labels": labels}], masked_words, seed=0)
    assert (counts.heads > 0).all()
    assert counts.hidden.shape == (12,)
    model.zero_grad()
    model(
        **batch(), labels=labels
    ).loss.backward()  # a head's gate scales its part of the output, and so that part's weights
    dense = model.bert.encoder.layer[1].attention.output.dense.weight
    each = (dense * dense.grad).sum(dim=0).view(3, 4).sum(dim=1).abs()
    assert counts.heads[1] == pytest.approx(each.detach().numpy(), rel=1e-4)
