"""The loop: what was interrupted ends as if it had not been, the best weights by dev are kept, the frozen stay."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.errors import RecipeError
from export.learning.training import Judge, Stage, fit
from export.networks.device import quick_at_bfloat16
from export.networks.students import STUDENTS, Form, Shape
from export.objectives.outputs import logit_mse
from export.objectives.signals import Signals
from export.sections import Distillation
from export.transfer.transfer_set import Tokens, TransferSet
from tests.export.learning.judges import Stopped, closeness_to, stopping_at

PLACES = 12  # words of the invented language


def transfer_set(rows: int = 96) -> TransferSet:
    """Rows of 1 to 4 words whose logits say whether small words outweigh large ones: learnable."""
    rng = np.random.default_rng(0)
    words = [rng.integers(0, PLACES, size=rng.integers(1, 5)) for _ in range(rows)]
    score = np.array([(row - PLACES / 2).mean() for row in words], np.float32)
    tokens = Tokens.of([row.tolist() for row in words], pad_id=0)
    return TransferSet((tokens,), Signals(np.stack([score, -score], axis=1)), (score < 0).astype(np.int64))


DATA = transfer_set()
closeness = closeness_to(DATA)


in_bfloat16 = pytest.mark.skipif(
    not quick_at_bfloat16(torch.device("cpu")), reason="this processor has no instructions for bfloat16"
)


def loop(**changes: Any) -> Distillation:
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "bf16": False, "average": 0.2}
    values |= {"evaluations_per_epoch": 2, "patience": 99}
    return Distillation.model_validate(values | changes)


def stage(**changes: Any) -> Stage:
    return Stage("toy", DATA, logit_mse, loop(**changes))


def new_student(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return STUDENTS["bilstm", Form.TEXT](Shape(PLACES, 6, 5, 4, labels=2, dropout=0.3))


def scripted(*values: float) -> Judge:
    """A judge who has made up his mind beforehand; the last value is repeated."""
    left = list(values)
    return lambda student: left.pop(0) if len(left) > 1 else left[0]


def weights(student: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in student.state_dict().items()}


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name


def moved(before: dict[str, Tensor], student: nn.Module) -> set[str]:
    return {name for name, value in student.state_dict().items() if not torch.equal(before[name], value)}


def test_a_student_learns(tmp_path: Path) -> None:
    student = new_student()
    before = closeness(student.eval())
    best = fit(student, [stage(epochs=15, learning_rate=5e-2)], closeness, tmp_path, seed=1)
    assert best > before / 4
    assert closeness(student.eval()) == best


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    students = [new_student() for _ in range(3)]
    for number, (student, seed) in enumerate(zip(students, (1, 1, 2), strict=True)):
        fit(student, [stage()], closeness, tmp_path / str(number), seed)
    assert_equal(students[0], students[1])
    assert moved(weights(students[0]), students[2])


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=in_bfloat16)])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, bf16: bool) -> None:
    whole, stopped = new_student(), new_student()
    wanted = fit(whole, [stage(bf16=bf16)], closeness, tmp_path / "whole", seed=1)
    for number in (1, 3, 2):  # before anything was kept, then later, then later still
        torch.manual_seed(number)  # the state of the world at the next start is another
        with pytest.raises(Stopped):
            fit(stopped, [stage(bf16=bf16)], stopping_at(number, closeness), tmp_path / "stopped", seed=1)
        stopped = new_student()
    assert fit(stopped, [stage(bf16=bf16)], closeness, tmp_path / "stopped", seed=1) == wanted
    assert_equal(stopped, whole)


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.bin"])
def test_a_state_that_was_half_written_is_not_gone_on_from(tmp_path: Path, part: str) -> None:
    whole, killed = new_student(), new_student()
    fit(whole, [stage()], closeness, tmp_path / "whole", seed=1)
    with pytest.raises(Stopped):
        fit(killed, [stage()], stopping_at(3, closeness), tmp_path / "killed", seed=1)
    (state,) = (tmp_path / "killed" / "0-toy").glob("state-*")
    step = int(state.name.removeprefix("state-"))
    half = state.with_name(f"state-{step + step // 2}")  # what the next one would be called
    half.mkdir()
    (half / part).write_bytes((state / part).read_bytes()[:50])
    (tmp_path / "killed" / "0-toy" / "best.safetensors").write_bytes(b"half")
    killed = new_student()
    fit(killed, [stage()], closeness, tmp_path / "killed", seed=1)
    assert_equal(killed, whole)
    assert len(list((tmp_path / "killed" / "0-toy").glob("state-*"))) == 1


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    student, again = new_student(), new_student(seed=5)
    best = fit(student, [stage()], closeness, tmp_path, seed=1)
    assert fit(again, [stage()], stopping_at(1, closeness), tmp_path, seed=1) == best
    assert_equal(again, student)


def test_the_best_weights_are_kept_and_not_the_last(tmp_path: Path) -> None:
    kept: list[dict[str, Tensor]] = []
    values = scripted(0.5, 0.9, 0.7, 0.9, 0.1)

    def judge(student: nn.Module) -> float:
        kept.append(weights(student))
        return values(student)

    student = new_student()
    assert fit(student, [stage()], judge, tmp_path, seed=1) == 0.9
    assert not moved(kept[1], student)  # the first of two that are equally good
    assert moved(kept[-1], student)


def test_patience_stops_and_a_resumed_run_stops_at_the_same_place(tmp_path: Path) -> None:
    calls: list[int] = []

    def judging(values: Judge) -> Judge:
        def judge(student: nn.Module) -> float:
            calls.append(1)
            return values(student)

        return judge

    impatient = stage(epochs=20, patience=3)
    assert fit(new_student(), [impatient], judging(scripted(0.1, 0.6, 0.2)), tmp_path, seed=1) == 0.6
    assert len(calls) == 5
    (tmp_path / "0-toy" / "finished").unlink()  # killed just before this was written
    assert fit(new_student(), [impatient], judging(scripted(1.0)), tmp_path, seed=1) == 0.6
    assert len(calls) == 5


def test_dev_is_looked_at_as_often_as_asked_and_at_the_end(tmp_path: Path) -> None:
    calls: list[bool] = []

    def judge(student: nn.Module) -> float:
        calls.append(student.training)
        return 0.5

    fit(new_student(), [stage(epochs=2.5, evaluations_per_epoch=1)], judge, tmp_path, seed=1)
    assert calls == [False] * 3  # after epochs 1 and 2 and at the end, never with dropout


@pytest.mark.parametrize("trainable", [("dense", "output"), ("embedding",), ("lstm.weight_hh",)])
def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path: Path, trainable: tuple[str, ...]) -> None:
    student = new_student()
    before = weights(student)
    fit(student, [replace(stage(weight_decay=0.1), trainable=trainable)], closeness, tmp_path, seed=1)
    assert moved(before, student) == {name for name in before if name.startswith(trainable)}


def test_a_stage_starts_from_the_best_of_the_one_before(tmp_path: Path) -> None:
    first, both = new_student(), new_student()
    judges: list[Callable[[nn.Module], float]] = [scripted(0.3, 0.8, 0.1), scripted(0.3, 0.8, 0.1, 0.1, 0.1, 0.1, 0.0)]
    head = replace(stage(), name="head", trainable=("output",))
    fit(first, [stage()], judges[0], tmp_path / "first", seed=1)
    fit(both, [stage(), head], judges[1], tmp_path / "both", seed=1)
    assert moved(weights(first), both) == {"output.weight", "output.bias"}
    assert {folder.name for folder in (tmp_path / "both").iterdir()} == {"0-toy", "1-head"}


@in_bfloat16
def test_runs_of_different_precision_live_in_one_process(tmp_path: Path) -> None:
    found = {}
    for name, bf16 in (("a", False), ("b", True), ("c", False)):
        found[name] = new_student()
        fit(found[name], [stage(bf16=bf16)], closeness, tmp_path / name, seed=1)
    assert_equal(found["a"], found["c"])
    assert moved(weights(found["a"]), found["b"])
    assert {value.dtype for value in found["b"].state_dict().values()} == {torch.float32}


def test_a_fraction_of_an_epoch_is_at_least_one_step(tmp_path: Path) -> None:
    student = new_student()
    before = weights(student)
    fit(student, [stage(epochs=0.001, warmup=0)], closeness, tmp_path, seed=1)
    assert moved(before, student)


def test_a_run_that_diverges_says_so_and_how_to_mend_it(tmp_path: Path) -> None:
    steps = len(DATA) // 8
    with pytest.raises(RecipeError) as refused:
        fit(new_student(), [stage(learning_rate=1e30, warmup=0)], closeness, tmp_path, seed=1)
    assert str(refused.value).startswith(f"toy: diverged at step {steps // 2}: ")
    assert str(refused.value).endswith("; lower training.learning_rate")
    with pytest.raises(RecipeError, match="diverged"):  # also of a judge whom nothing strikes, and when run again
        fit(new_student(), [stage(learning_rate=1e30, warmup=0)], scripted(0.5), tmp_path, seed=1)


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_ends_a_run(tmp_path: Path, metric: float) -> None:
    with pytest.raises(RecipeError, match=r"toy: diverged at step \d+: .* lower training\.learning_rate"):
        fit(new_student(), [stage()], scripted(0.5, metric), tmp_path, seed=1)
