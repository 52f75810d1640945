"""Which texts go to the teacher, and what it may cost: arithmetic in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.pace import Pace
from service.oversight.budget import BURST_S, Budget
from service.strategy import Fate, Server, affordable, served_by, unsure

MARGINS = st.lists(st.floats(0, 1), max_size=20)
COSTS = st.lists(st.floats(0, 3), max_size=20)


@given(MARGINS, st.floats(0, 1))
def test_the_unsure_are_those_below_the_threshold_and_the_least_sure_come_first(
    margins: list[float], threshold: float
) -> None:
    places = unsure(margins, threshold)
    assert sorted(places) == [place for place, margin in enumerate(margins) if margin < threshold]
    assert [margins[place] for place in places] == sorted(margins[place] for place in places)


@given(COSTS, st.floats(-1, 10))
def test_a_text_may_begin_while_those_before_it_left_anything(costs: list[float], left: float) -> None:
    count = affordable(costs, left)
    assert sum(costs[: max(0, count - 1)]) < left or count == 0
    assert count == len(costs) or sum(costs[:count]) >= left


def test_with_nothing_left_nothing_begins_and_a_long_text_does_not_wait_for_ever() -> None:
    assert affordable([1.0], 0.0) == 0
    assert affordable([100.0, 1.0], 0.01) == 1
    assert affordable([], 1.0) == 0


@pytest.mark.parametrize(
    ("by", "said"),
    [([Server.STUDENT], "student"), ([Server.TEACHER] * 2, "teacher"), ([Server.STUDENT, Server.TEACHER], "both")],
)
def test_a_whole_answer_says_who_gave_it(by: list[Server], said: str) -> None:
    assert served_by(Fate(each, 0.5) for each in by) == said


def test_a_budget_begins_full_and_fills_by_its_share() -> None:
    budget = Budget(0.5, now=100.0)
    assert budget.left(100.0) == 0.5 * BURST_S
    budget.spend(0.5 * BURST_S)
    assert budget.left(100.0) == 0
    assert budget.left(102.0) == pytest.approx(1.0)
    assert budget.left(1000.0) == 0.5 * BURST_S


def test_what_cost_more_than_was_thought_is_paid_for_later() -> None:
    budget = Budget(0.1, now=0.0)
    budget.spend(0.2)  # as estimated
    budget.spend(3.0 - 0.2)  # as it was
    assert budget.left(0.0) == pytest.approx(-2.0)
    assert budget.wait_s(0.0) == pytest.approx(20.0)
    assert budget.wait_s(21.0) == 0
    budget.spend(-50)
    assert budget.left(21.0) == pytest.approx(0.1 * BURST_S)  # never more than it holds


def test_a_budget_of_nothing_lets_nothing_begin_and_one_of_all_is_none() -> None:
    nothing = Budget(0.0, now=0.0)
    assert affordable([0.0], nothing.left(1e6)) == 0
    assert nothing.wait_s(1e6) == float("inf")
    assert Budget(1.0, now=0.0).unlimited
    assert not Budget(0.999, now=0.0).unlimited


@given(
    st.floats(0.05, 0.9),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1), st.floats(0.2, 3)), min_size=1, max_size=200),
)
def test_over_time_no_more_than_the_share_is_spent(share: float, asked: list[tuple[float, float, float]]) -> None:
    """Whatever comes when, and however wrong the estimates: spent <= share x (time + burst) + the last text."""
    budget, now, spent, largest = Budget(share, now=0.0), 0.0, 0.0, 0.0
    for pause, estimate, wrong_by in asked:
        now += pause
        if affordable([estimate], budget.left(now)):
            cost = estimate * wrong_by
            budget.spend(estimate)
            budget.spend(cost - estimate)
            spent, largest = spent + cost, max(largest, cost)
    assert spent <= share * (now + BURST_S) + largest + 1e-6


def test_a_pace_is_learned_from_the_first_run_and_follows_slowly() -> None:
    pace = Pace()
    assert pace.token_s == 0
    pace.learn(100, 0.5)
    assert pace.token_s == pytest.approx(0.005)
    pace.learn(100, 1.0)
    assert pace.token_s == pytest.approx(0.006)
    pace.learn(0, 0.0)
    assert pace.token_s == pytest.approx(0.0048)
