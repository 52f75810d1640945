"""Objectives are pure: nothing at equality, gradients for the student alone, blind to the order of rows."""

import math

import pytest
import torch
from torch import Tensor

from export.objectives import (
    SOFT,
    UNLABELLED,
    ObjectiveFunction,
    cross_entropy,
    cross_entropy_or_argmax,
    logit_mse,
    mixture,
    tempered_kl,
)

SOFTS = {f"{name}, T = {temperature}": make(temperature) for name, make in SOFT.items() for temperature in (1.0, 3.0)}
HARDS: dict[str, ObjectiveFunction] = {"labels": cross_entropy, "labels or argmax": cross_entropy_or_argmax}
ALL = SOFTS | HARDS | {"mixed": mixture(0.3, cross_entropy, logit_mse)}


def rows(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student's logits, teacher's logits (9, 3) and labels (9,), three of them missing."""
    torch.manual_seed(seed)
    labels = torch.tensor([0, 1, 2, UNLABELLED, 1, UNLABELLED, 0, 2, UNLABELLED])
    return torch.randn(9, 3), torch.randn(9, 3), labels


@pytest.mark.parametrize("objective", SOFTS.values(), ids=SOFTS.keys())
def test_a_student_like_its_teacher_loses_nothing(objective: ObjectiveFunction) -> None:
    _, teacher, labels = rows()
    assert objective(teacher.clone(), teacher, labels).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", HARDS.values(), ids=HARDS.keys())
def test_a_student_that_is_sure_and_right_loses_nothing(objective: ObjectiveFunction) -> None:
    _, teacher, labels = rows()
    right = torch.where(labels == UNLABELLED, teacher.argmax(dim=1), labels)
    assert objective(100 * torch.eye(3)[right], teacher, labels).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL.keys())
def test_a_loss_is_a_positive_scalar_whose_gradient_goes_to_the_student_alone(objective: ObjectiveFunction) -> None:
    logits, teacher, labels = rows()
    logits.requires_grad_()
    loss = objective(logits, teacher, labels)
    assert loss.shape == ()
    assert loss.item() > 0
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert teacher.grad is None
    assert not teacher.requires_grad


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL.keys())
def test_the_order_of_rows_is_irrelevant(objective: ObjectiveFunction) -> None:
    logits, teacher, labels = rows()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    turned = objective(logits[order], teacher[order], labels[order])
    torch.testing.assert_close(turned, objective(logits, teacher, labels))


def test_values_by_hand() -> None:
    logits, teacher, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([1])
    assert logit_mse(logits, teacher, labels).item() == pytest.approx((1 + 4) / 2)
    assert cross_entropy(logits, teacher, labels).item() == pytest.approx(math.log(1 + math.e))
    p, q = 1 / (1 + math.exp(2)), math.e / (1 + math.e)  # first label: teacher, student
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert tempered_kl(logits, teacher, labels, temperature=1).item() == pytest.approx(divergence, rel=1e-5)


def test_kl_at_temperature_t_is_t_squared_times_kl_of_the_softened_logits() -> None:
    logits, teacher, labels = rows()
    for temperature in (0.5, 2.0, 10.0):
        softened = tempered_kl(logits / temperature, teacher / temperature, labels, temperature=1)
        torch.testing.assert_close(tempered_kl(logits, teacher, labels, temperature), temperature**2 * softened)


def test_rows_without_a_label_do_not_count() -> None:
    logits, teacher, labels = rows()
    known = labels != UNLABELLED
    torch.testing.assert_close(
        cross_entropy(logits, teacher, labels), cross_entropy(logits[known], teacher[known], labels[known])
    )


def test_a_batch_without_labels_gives_no_loss_and_no_gradient() -> None:
    logits, teacher, labels = rows()
    logits.requires_grad_()
    loss = cross_entropy(logits, teacher, torch.full_like(labels, UNLABELLED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_a_row_without_a_label_can_take_its_teachers() -> None:
    logits, teacher, labels = rows()
    filled = torch.where(labels == UNLABELLED, teacher.argmax(dim=1), labels)
    torch.testing.assert_close(cross_entropy_or_argmax(logits, teacher, labels), cross_entropy(logits, teacher, filled))


def test_a_mixture_weighs_both_and_computes_no_term_of_weight_0() -> None:
    logits, teacher, labels = rows()
    hard, soft = (objective(logits, teacher, labels) for objective in (cross_entropy, logit_mse))
    mixed = mixture(0.25, cross_entropy, logit_mse)(logits, teacher, labels)
    torch.testing.assert_close(mixed, 0.25 * hard + 0.75 * soft)
    assert mixture(0, cross_entropy, logit_mse) is logit_mse
    assert mixture(1, cross_entropy, logit_mse) is cross_entropy
