"""Objectives are pure: nothing at equality, gradients for the student alone, blind to the order of rows."""

import math

import pytest
import torch
from torch import Tensor

from export.objectives.outputs import (
    REPRESENTATION,
    SOFT,
    ObjectiveFunction,
    binary_cross_entropy,
    binary_cross_entropy_or_teacher,
    cross_entropy,
    cross_entropy_or_argmax,
    log_odds,
    logit_mse,
    mixture,
    squared_error,
    squared_error_or_teacher,
    tempered_kl,
    weighted,
)
from export.objectives.signals import Output, Target
from export.texts.unlabelled import UNLABELLED

SOFTS = {f"{name}, T = {temperature}": make(temperature) for name, make in SOFT.items() for temperature in (1.0, 3.0)}
HARDS: dict[str, ObjectiveFunction] = {"labels": cross_entropy, "labels or argmax": cross_entropy_or_argmax}
OF_EACH: dict[str, ObjectiveFunction] = {
    "yes or no": binary_cross_entropy,
    "yes or no, or the teacher's": binary_cross_entropy_or_teacher,
    "numbers": squared_error,
    "numbers, or the teacher's": squared_error_or_teacher,
}
MIXED = {"mixed": weighted([(0.3, cross_entropy), (0.5, logit_mse), (2.0, REPRESENTATION["mse"])])}
ALL = {**SOFTS, **HARDS, **REPRESENTATION, **MIXED}


def rows(seed: int = 0) -> tuple[Output, Target]:
    """Of nine rows and three labels, three of them without; representations of five units."""
    torch.manual_seed(seed)
    labels = torch.tensor([0, 1, 2, UNLABELLED, 1, UNLABELLED, 0, 2, UNLABELLED])
    return Output(torch.randn(9, 3), torch.randn(9, 5)), Target(torch.randn(9, 3), labels, torch.randn(9, 5))


def several(seed: int = 0) -> tuple[Output, Target]:
    """The same with yes or no for each label, or numbers: NaN where there are none."""
    output, target = rows(seed)
    labels = (torch.randn(9, 3) > 0).float()
    labels[target.labels == UNLABELLED] = torch.nan
    return output, target._replace(labels=labels)


def given(of: Output, target: Target, places: Tensor) -> tuple[Output, Target]:
    """Some rows, or all in another order."""
    assert target.hidden is not None
    return (
        Output(of.logits[places], of.representation[places]),
        Target(target.logits[places], target.labels[places], target.hidden[places]),
    )


@pytest.mark.parametrize("name", SOFTS)
def test_a_student_like_its_teacher_loses_nothing(name: str) -> None:
    output, target = rows()
    like = log_odds(target.logits) if name.startswith("logodds") else target.logits.clone()
    assert SOFTS[name](output._replace(logits=like), target).value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", REPRESENTATION.values(), ids=REPRESENTATION.keys())
def test_a_student_with_its_teachers_states_loses_nothing(objective: ObjectiveFunction) -> None:
    output, target = rows()
    assert target.hidden is not None
    like = output._replace(representation=target.hidden.clone())
    assert objective(like, target).value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", REPRESENTATION.values(), ids=REPRESENTATION.keys())
def test_states_that_were_not_recorded_are_missed(objective: ObjectiveFunction) -> None:
    output, target = rows()
    with pytest.raises(ValueError, match="were not recorded"):
        objective(output, target._replace(hidden=None))


@pytest.mark.parametrize("objective", HARDS.values(), ids=HARDS.keys())
def test_a_student_that_is_sure_and_right_loses_nothing(objective: ObjectiveFunction) -> None:
    output, target = rows()
    right = torch.where(target.labels == UNLABELLED, target.logits.argmax(dim=1), target.labels)
    sure = output._replace(logits=100 * torch.eye(3)[right])
    assert objective(sure, target).value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", (ALL | OF_EACH).values(), ids=(ALL | OF_EACH).keys())
def test_a_loss_is_a_positive_scalar_whose_gradient_goes_to_the_student_alone(objective: ObjectiveFunction) -> None:
    output, target = several() if objective in OF_EACH.values() else rows()
    for part in output:
        part.requires_grad_()
    loss = objective(output, target).value
    assert loss.shape == ()
    assert loss.item() > 0
    loss.backward()
    gradients = [part.grad for part in output if part.grad is not None]
    assert gradients
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert target.logits.grad is None
    assert not target.logits.requires_grad


@pytest.mark.parametrize("objective", (ALL | OF_EACH).values(), ids=(ALL | OF_EACH).keys())
def test_the_order_of_rows_is_irrelevant(objective: ObjectiveFunction) -> None:
    output, target = several() if objective in OF_EACH.values() else rows()
    order = torch.randperm(len(target.labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(objective(*given(output, target, order)).value, objective(output, target).value)


def test_values_by_hand() -> None:
    output = Output(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    target = Target(torch.tensor([[0.0, 2.0]]), torch.tensor([1]), torch.tensor([[4.0, 3.0]]))
    assert logit_mse(output, target).value.item() == pytest.approx((1 + 4) / 2)
    assert cross_entropy(output, target).value.item() == pytest.approx(math.log(1 + math.e))
    p, q = 1 / (1 + math.exp(2)), math.e / (1 + math.e)  # first label: teacher, student
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert tempered_kl(output, target, temperature=1).value.item() == pytest.approx(divergence, rel=1e-5)
    assert REPRESENTATION["mse"](output, target).value.item() == pytest.approx(1)
    assert REPRESENTATION["cosine"](output, target).value.item() == pytest.approx(1 - 24 / 25)
    each = target._replace(labels=torch.tensor([[1.0, 0.0]]))
    sure = math.log(1 + math.exp(-1))
    assert binary_cross_entropy(output, each).value.item() == pytest.approx((sure + math.log(2)) / 2)
    assert squared_error(output, target._replace(labels=torch.tensor([[0.0, 3.0]]))).value.item() == pytest.approx(5)


def test_kl_at_temperature_t_is_t_squared_times_kl_of_the_softened_logits() -> None:
    output, target = rows()
    for temperature in (0.5, 2.0, 10.0):
        softened = tempered_kl(
            output._replace(logits=output.logits / temperature),
            target._replace(logits=target.logits / temperature),
            temperature=1,
        ).value
        torch.testing.assert_close(tempered_kl(output, target, temperature).value, temperature**2 * softened)


def test_rows_without_a_label_do_not_count() -> None:
    output, target = rows()
    known = torch.nonzero(target.labels != UNLABELLED).squeeze(1)
    torch.testing.assert_close(cross_entropy(output, target).value, cross_entropy(*given(output, target, known)).value)
    output, target = several()
    for objective in (binary_cross_entropy, squared_error):
        torch.testing.assert_close(objective(output, target).value, objective(*given(output, target, known)).value)


def test_a_batch_without_labels_gives_no_loss_and_no_gradient() -> None:
    for objective, (output, target), none in (
        (cross_entropy, rows(), UNLABELLED),
        (binary_cross_entropy, several(), torch.nan),
        (squared_error, several(), torch.nan),
    ):
        output.logits.requires_grad_()
        loss = objective(output, target._replace(labels=torch.full_like(target.labels, none))).value
        loss.backward()
        assert loss.item() == 0
        assert output.logits.grad is not None
        assert output.logits.grad.abs().sum() == 0


def test_a_row_without_a_label_can_take_its_teachers() -> None:
    output, target = rows()
    filled = torch.where(target.labels == UNLABELLED, target.logits.argmax(dim=1), target.labels)
    wanted = cross_entropy(output, target._replace(labels=filled)).value
    torch.testing.assert_close(cross_entropy_or_argmax(output, target).value, wanted)
    output, target = several()
    for takes, plain, theirs in (
        (binary_cross_entropy_or_teacher, binary_cross_entropy, (target.logits >= 0).float()),
        (squared_error_or_teacher, squared_error, target.logits),
    ):
        full = target._replace(labels=torch.where(target.labels.isnan(), theirs, target.labels))
        torch.testing.assert_close(takes(output, target).value, plain(output, full).value)


def test_a_mixture_weighs_both_and_computes_no_term_of_weight_0() -> None:
    output, target = rows()
    hard, soft = (objective(output, target).value for objective in (cross_entropy, logit_mse))
    both = mixture(0.25, cross_entropy, logit_mse)(output, target)
    torch.testing.assert_close(both.value, 0.25 * hard + 0.75 * soft)
    assert mixture(0, cross_entropy, logit_mse) is logit_mse
    assert mixture(1, cross_entropy, logit_mse) is cross_entropy
    without = target._replace(hidden=None)  # whose objective would fail
    half = weighted([(0.5, logit_mse), (0, REPRESENTATION["mse"])])(output, without)
    torch.testing.assert_close(half.value, soft / 2)
