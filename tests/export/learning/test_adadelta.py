"""AdaDelta as in Zeiler 2012, and a run of it that is interrupted goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.learning.training import fit, optimizer_of
from export.sections import Distillation
from tests.export.learning.judges import Stopped, stopping_at
from tests.export.learning.test_training import assert_equal, closeness, new_student, stage

PAPER = {
    "optimizer": "adadelta",
    "learning_rate": 1.0,
    "warmup": 0.0,
    "decay": "constant_with_warmup",
    "weight_decay": 0.0,
}


def loop(**changes: object) -> Distillation:
    return Distillation.model_validate({"epochs": 1, "batch_size": 1} | PAPER | changes)


@pytest.mark.parametrize("rho", [0.95, 0.5])
def test_the_steps_are_those_of_algorithm_1(rho: float) -> None:
    """E[g²] = rho E[g²] + (1 - rho) g²; step = -RMS[step] / RMS[g] g; E[step²] = rho E[step²] + (1 - rho) step²."""
    place, square, moved, small = 3.0, 0.0, 0.0, 1e-6
    weight = nn.Parameter(torch.tensor([place], dtype=torch.float64))
    optimizer = optimizer_of(loop(rho=rho), [weight])
    for _ in range(20):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        gradient = 2 * place
        square = rho * square + (1 - rho) * gradient**2
        step = -np.sqrt(moved + small) / np.sqrt(square + small) * gradient
        moved = rho * moved + (1 - rho) * step**2
        place += step
        assert weight.item() == pytest.approx(place, rel=1e-9)


def test_adamw_is_what_nobody_asks_for() -> None:
    weight = nn.Parameter(torch.ones(2))
    wanted = Distillation(epochs=1, batch_size=1, learning_rate=1e-3)
    assert isinstance(optimizer_of(wanted, [weight]), torch.optim.AdamW)


def test_a_student_learns_by_it(tmp_path: Path) -> None:
    student = new_student()
    before = closeness(student.eval())
    best = fit(student, [stage(epochs=20, **PAPER)], closeness, tmp_path, seed=1)
    assert best > before / 2


def test_an_interrupted_run_of_it_goes_on(tmp_path: Path) -> None:
    whole, stopped = new_student(), new_student()
    wanted = fit(whole, [stage(**PAPER)], closeness, tmp_path / "whole", seed=1)
    with pytest.raises(Stopped):
        fit(stopped, [stage(**PAPER)], stopping_at(2, closeness), tmp_path / "stopped", seed=1)
    again = new_student()
    assert fit(again, [stage(**PAPER)], closeness, tmp_path / "stopped", seed=1) == wanted
    assert_equal(again, whole)
