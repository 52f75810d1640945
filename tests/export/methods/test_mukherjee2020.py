"""Mukherjee and Awadallah 2020 on toys: which stages a recipe makes, what each may move, and the whole way."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.errors import ModelError, RecipeError
from export.learning.training import Stage, fit
from export.methods import mukherjee2020
from export.networks.students import STUDENTS, Form, Shape
from export.objectives.outputs import REPRESENTATION, log_odds, log_odds_mse
from export.objectives.signals import Output, Signals, Target
from export.pipeline import Places, distill, hidden_to_learn
from export.recipe import DistillRecipe, as_toml, read_recipe
from export.teachers.opened import open_teacher
from export.transfer.transfer_set import Tokens, TransferSet
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from tests.export.learning.judges import Stopped, closeness_to, stopping_at
from tests.toys.workshop import Shop, sentences

WORDS, WIDTH = 12, 7  # of the invented language and its teacher
LABELLED = 24
LOOP = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-2, "bf16": False, "average": 0.2, "patience": 99}
LOOP |= {"evaluations_per_epoch": 1}
STAGED = [{"representation": 1}, {"logits": 1, "unfreeze": True}, {"labels": 1, "unfreeze": True}]
PARTS = ["head", "projection", "bilstm", "embeddings"]
BELOW_THE_HEAD = ["representation-projection", "representation-bilstm", "representation-embeddings"]
BEGINNINGS = {"head": "output.", "projection": "dense.", "bilstm": "lstm.", "embeddings": "embedding."}


@dataclass(frozen=True)
class Toy:
    """A recipe of toy stages and what it learns from."""

    recipe: DistillRecipe
    transfer: TransferSet

    @property
    def stages(self) -> list[Stage]:
        return mukherjee2020.stages(self.recipe, self.transfer)


def transfer_set(rows: int = 96) -> TransferSet:
    """Rows of 1 to 4 words. Logits and hidden states, which GELU can give, follow from the mean of the words; a few
    rows have labels."""
    rng = np.random.default_rng(0)
    words = [rng.integers(0, WORDS, size=rng.integers(1, 5)) for _ in range(rows)]
    score = np.array([(row - WORDS / 2).mean() for row in words], np.float32)
    hidden = np.maximum(0.1, np.outer(score, np.linspace(-0.5, 0.5, WIDTH))).astype(np.float16)
    labels = np.where(np.arange(rows) < LABELLED, score < 0, -100).astype(np.int64)
    tokens = Tokens.of([row.tolist() for row in words], pad_id=0)
    return TransferSet((tokens,), Signals(np.stack([score, -score], axis=1), hidden), labels)


closeness = closeness_to(transfer_set())


def toy(stages: list[dict[str, Any]], **changes: Any) -> Toy:
    recipe = {
        "name": "toy",
        "method": "mukherjee2020",
        "seed": 1,
        "teacher": {"model": "none", "hidden": {"layer": 1}},
        "data": {"train": "none.tsv", "labels": ["bad", "good"]},
        "student": {"embedding": 6, "hidden": 5, "dense": WIDTH, "activation": "gelu"},
        "stages": stages,
        "training": LOOP,
    }
    return Toy(DistillRecipe.model_validate(recipe | changes), transfer_set())


def new_student() -> nn.Module:
    torch.manual_seed(0)
    return STUDENTS["bilstm", Form.TEXT](Shape(WORDS, 6, 5, WIDTH, labels=2, dropout=0.1))


def weights(student: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in student.state_dict().items()}


def moved(before: dict[str, Tensor], student: nn.Module) -> set[str]:
    """The parts of which something is another than before."""
    names = {name for name, value in student.state_dict().items() if not torch.equal(before[name], value)}
    return {part for part, beginning in BEGINNINGS.items() if any(name.startswith(beginning) for name in names)}


def test_the_three_stages_have_nine_steps_from_the_head_down() -> None:
    steps = toy(STAGED).stages
    assert [step.name for step in steps] == [
        "representation",
        *(f"logits-{part}" for part in PARTS),
        *(f"labels-{part}" for part in PARTS),
    ]
    assert steps[0].trainable == ("dense", "lstm", "embedding")  # all below the head
    for stage in (steps[1:5], steps[5:]):
        assert [step.trainable[-1] for step in stage] == ["output", "dense", "lstm", "embedding"]
        assert all(set(above.trainable) < set(below.trainable) for above, below in pairwise(stage))


@pytest.mark.parametrize("kind", list(STUDENTS), ids="-".join)
def test_the_layers_from_the_head_down_are_all_that_a_student_has(kind: tuple[str, Form]) -> None:
    student = STUDENTS[kind](Shape(WORDS, 6, 5, WIDTH, labels=2))
    names = {name.partition(".")[0] for name, _ in student.named_parameters()}
    assert names == set(student.layers)
    assert set(mukherjee2020.PARTS) - names == ({"output"} if kind[1] is Form.VECTOR else set())


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        ([{"labels": 1}], ["labels"]),
        ([{"logits": 1}, {"labels": 1}], ["logits", "labels"]),
        ([{"labels": 1, "logits": 0.1, "representation": 10}], ["representation+logits+labels"]),
        ([{"representation": 1, "unfreeze": True}, {"labels": 1}], [*BELOW_THE_HEAD, "labels"]),
    ],
)
def test_any_subset_of_stages_and_their_sum_can_be_asked_for(stages: list[dict[str, Any]], names: list[str]) -> None:
    assert [step.name for step in toy(stages).stages] == names


def test_each_stage_learns_from_the_rows_that_say_something_to_it() -> None:
    steps = {step.name: step.data for step in toy([{"representation": 1}, {"logits": 1}, {"labels": 1}]).stages}
    assert {name: len(data) for name, data in steps.items()} == {"representation": 86, "logits": 96, "labels": LABELLED}
    labelled = steps["labels"].batch(np.arange(LABELLED), torch.device("cpu")).target.labels
    assert (labelled >= 0).all()
    (hard,) = toy([{"labels": 1}], objective={"argmax": True}).stages
    assert len(hard.data) == 96


def test_a_stage_has_settings_of_its_own_and_the_rest_from_training() -> None:
    of_labels = {"epochs": 7, "batch_size": 3, "learning_rate": 1e-4, "evaluations_per_epoch": 1, "patience": 2}
    logits, labels = toy([{"logits": 1}, {"labels": 1} | of_labels]).stages
    training = toy(STAGED).recipe.training
    assert logits.loop == training
    assert labels.loop == training.model_copy(update=of_labels)


def test_gradients_reach_what_is_unfrozen_and_nothing_else(tmp_path: Path) -> None:
    chosen = toy(STAGED)
    student, before = new_student(), weights(new_student())
    for count, step in enumerate(chosen.stages):
        fit(student, [step], closeness, tmp_path / str(count), seed=1)
        learns = {part for part, beginning in BEGINNINGS.items() if beginning.startswith(step.trainable)}
        assert moved(before, student) <= learns
        before = weights(student)


@pytest.mark.parametrize("part", PARTS)
def test_the_step_of_a_layer_moves_it_and_all_above(tmp_path: Path, part: str) -> None:
    student, before = new_student(), weights(new_student())
    step = next(step for step in toy([{"logits": 1, "unfreeze": True}]).stages if step.name == f"logits-{part}")
    fit(student, [step], closeness, tmp_path, seed=1)
    assert moved(before, student) == set(PARTS[: PARTS.index(part) + 1])


@pytest.mark.parametrize("states", REPRESENTATION)
def test_the_projection_learns_the_teachers_states(tmp_path: Path, states: str) -> None:
    chosen = toy([{"representation": 1, "epochs": 20}, {"labels": 1}], objective={"states": states})
    student, (first, _) = new_student(), chosen.stages
    assert first.judge is not None
    before = first.judge(student.eval())
    after = fit(student, [first], lambda _: pytest.fail("dev says nothing of it"), tmp_path, seed=1)
    assert after > before / 2  # both are minus a loss
    assert first.judge(student.eval()) == after


def test_the_rows_that_judge_a_representation_are_not_learnt_from() -> None:
    data = toy(STAGED).stages[0].data
    assert isinstance(data, TransferSet)
    assert data.rows is not None
    assert len(set(data.rows)) == len(data.rows) == 86


def test_a_later_step_that_betters_nothing_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    both = toy([{"logits": 1}, {"labels": 1}]).stages
    values = iter([0.1, 0.9])
    one, whole = new_student(), new_student()
    fit(one, both[:1], lambda _: next(values), tmp_path / "one", seed=1)
    values = iter([0.1, 0.9, 0.9, *[0.3] * 100])
    assert fit(whole, both, lambda _: next(values), tmp_path / "whole", seed=1) == 0.9
    assert not moved(weights(one), whole)


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    stages = toy(STAGED).stages
    whole, stopped = new_student(), new_student()
    wanted = fit(whole, stages, closeness, tmp_path / "whole", seed=1)
    for number in (1, 2, 9):  # in the first step that dev judges, at its end, and two steps later
        with pytest.raises(Stopped):
            fit(stopped, stages, stopping_at(number, closeness), tmp_path / "stopped", seed=1)
        stopped = new_student()
        torch.manual_seed(number)  # the state of the world at the next start is another
    assert fit(stopped, stages, closeness, tmp_path / "stopped", seed=1) == wanted
    assert not moved(weights(whole), stopped)
    assert len(list(tmp_path.glob("stopped/*/best.safetensors"))) == 9
    # A state is as large as several students, and nobody goes on from those of the other steps.
    assert [state.parent.name for state in tmp_path.glob("stopped/*/state-*")] == ["8-labels-embeddings"]


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(log_odds(logits), torch.logit(logits.double().softmax(dim=1)).float())
    sure = torch.tensor([[60.0, -60.0, 0.0]])  # where 1 - p is no float any more
    torch.testing.assert_close(log_odds(sure), torch.tensor([[60.0, -120.0, -60.0]]))
    output = Output(log_odds(logits), torch.zeros(6, 1))
    assert log_odds_mse(output, Target(logits, torch.zeros(6))).value.item() == 0


ENCODER = {"architecture": "encoder", "embedding": 6, "hidden": 5, "dense": WIDTH}

# What a recipe says, and the line that refuses it.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no stages": ({"stages": []}, r"the last of \[\[stages\]\] teaches the student to answer"),
    "an empty stage": ({"stages": [{}]}, "give representation, logits or labels a weight above 0"),
    "no answers": ({"stages": [{"labels": 1}, {"representation": 1}]}, "give it logits or labels"),
    "a negative weight": ({"stages": [{"labels": -1}]}, "greater than or equal to 0"),
    "an unknown key": ({"stages": [{"labels": 1, "warm": 3}]}, "Extra inputs"),
    "alpha": ({"objective": {"alpha": 0.5}}, r"objective\.alpha is tang2019's; weigh labels"),
    "tang's stages": ({"method": "tang2019"}, r"tang2019 has no \[\[stages\]\]"),
    "tang's states": ({"method": "tang2019", "stages": [], "objective": {"states": "kl"}}, "no objective.states"),
    "log-odds of several": (
        {"objective": {"soft": "logodds"}, "data": {"train": "x", "labels": ["a"], "task": "multi-label"}},
        r"objective\.soft: logodds is of one label among several; write 'mse' for multi-label",
    ),
    "a pair's representation": (
        {"student": ENCODER, "data": {"train": "x", "labels": ["a", "b"], "pair": "other"}},
        r"student\.architecture: of a pair an encoder has a vector each, .*; write 'bilstm', or no representation",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_method_would_ignore_or_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(**({"stages": STAGED} | changes))


def test_an_encoder_learns_the_representation_of_a_text_and_the_logits_of_a_pair() -> None:
    pairs = {"train": "x", "labels": ["a", "b"], "pair": "other"}
    assert toy(STAGED, student=ENCODER).recipe.learns_states
    assert not toy([{"logits": 1}], student=ENCODER, data=pairs).recipe.learns_states


def test_a_recipe_with_stages_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    recipe = toy(STAGED).recipe
    (tmp_path / "recipe.toml").write_text(as_toml(recipe))
    assert read_recipe(DistillRecipe, tmp_path / "recipe.toml") == recipe
    changed = read_recipe(DistillRecipe, tmp_path / "recipe.toml", ["stages=[{labels=1}]", "stages.0.epochs=3"])
    assert [(plan.name, plan.epochs) for plan in changed.stages] == [("labels", 3)]


def whole_way(shop: Shop, folder: Path, stages: list[dict[str, Any]], **changes: Any) -> DistillRecipe:
    """Forty labels; the other rows of the train split lend their texts."""
    loop = {"epochs": 6, "batch_size": 16, "learning_rate": 2e-2, "bf16": False, "average": 0.5, "patience": 99}
    settings: dict[str, Any] = {
        "method": "mukherjee2020",
        "teacher": {"model": str(folder), "max_tokens": 64, "hidden": {"layer": 1, "pooling": "mean"}},
        "data": shop.data | {"per_label": 20},
        "transfer": {},
        "student": {"embedding": 16, "hidden": 12, "dense": 32, "pooling": "max", "activation": "gelu"},
        "stages": stages,
        "training": loop,
    }
    return DistillRecipe.model_validate(shop.distill_recipe(folder).model_dump() | settings | changes)


WAYS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "hard": ([{"labels": 1}], {"objective": {"argmax": True}}),
    "soft": ([{"logits": 1}], {"objective": {"soft": "logodds"}}),
    "joint": ([{"labels": 1, "representation": 0.1, "logits": 1}], {"objective": {"states": "cosine"}}),
    "staged": (STAGED, {}),
}


@pytest.mark.parametrize(("stages", "changes"), WAYS.values(), ids=WAYS.keys())
def test_a_student_of_few_labels_learns_the_task(
    shop: Shop, taught: Path, tmp_path: Path, stages: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    recipe = whole_way(shop, taught, stages, **changes)
    bundle = open_bundle(distill(recipe, Places(tmp_path / "runs", tmp_path / "models"), "a test"))
    assert bundle.manifest.lineage.method == "mukherjee2020"
    rows = sentences()[200:]  # the dev split
    found = bundle.classify([text for text, _ in rows]).argmax(axis=1)
    assert (found == np.array([label for _, label in rows])).mean() > 0.9


def test_hidden_states_are_recorded_where_a_stage_learns_them(shop: Shop, taught: Path) -> None:
    teacher = open_teacher(whole_way(shop, taught, STAGED).teacher, 1)
    recipe = whole_way(shop, taught, STAGED)
    assert hidden_to_learn(recipe, teacher) == recipe.teacher.hidden
    assert hidden_to_learn(whole_way(shop, taught, [{"logits": 1}]), teacher) is None
    unnamed = whole_way(shop, taught, STAGED, teacher={"model": str(taught)})
    with pytest.raises(RecipeError, match=r"teacher\.hidden: unset, .* write layer = 1 .* the middle one of 2"):
        hidden_to_learn(unnamed, teacher)
    narrow = {"embedding": 16, "hidden": 12, "dense": 16}
    with pytest.raises(RecipeError, match=r"student\.dense: 16, but the teacher's states are 32 wide; write 32"):
        hidden_to_learn(whole_way(shop, taught, STAGED, student=narrow), teacher)
    deep = {"model": str(taught), "hidden": {"layer": 3}}
    with pytest.raises(ModelError, match=r"teacher\.hidden\.layer: it has 2 layers, not 3"):
        hidden_to_learn(whole_way(shop, taught, STAGED, teacher=deep), teacher)


def test_a_bundle_has_no_hidden_states_to_learn(shop: Shop, adopted: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"teacher\.hidden: a bundle gives no hidden states"):
        distill(whole_way(shop, adopted, STAGED), Places(tmp_path / "runs", tmp_path / "models"), "a test")
    assert read_manifest(adopted)
    assert not list(tmp_path.iterdir())
