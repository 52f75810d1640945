"""The watch's statistics: held against scipy, their definitions, and traffic that shifts or does not."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, chi2_contingency

from service.bundle.confidence import MARGIN_EDGES, TOKEN_EDGES, UNKNOWN_EDGES, histogram
from service.bundle.manifest import Profile
from service.oversight.agreement import FEWEST, MARGIN, Agreement, Scored
from service.oversight.drift import ALPHA, BLOCK, BLOCKS, EXPECTED, SHIFTED, Drift, Feature, Sample, compare
from service.oversight.intervals import chi_square_tail, wilson
from service.oversight.sampling import Skips

Counts = list[int]
counts = st.lists(st.integers(0, 300), min_size=2, max_size=24)


# --- intervals


@given(trials=st.integers(1, 5000), data=st.data())
def test_wilsons_interval_is_scipys(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    wanted = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson(successes, trials)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0, 1)


@given(freedom=st.integers(1, 256), statistic=st.floats(0, 1200))
def test_the_chi_square_tail_is_scipys(freedom: int, statistic: float) -> None:
    wanted = chi2.sf(statistic, freedom)
    assert chi_square_tail(statistic, freedom) == pytest.approx(wanted, rel=1e-9, abs=1e-290)


@pytest.mark.parametrize(
    ("statistic", "freedom", "wanted"), [(5, 0, 1), (0, 3, 1), (5e-324, 7, 1), (1e9, 8, 0), (1e9, 255, 0)]
)
def test_the_tails_ends(statistic: float, freedom: int, wanted: float) -> None:
    assert chi_square_tail(statistic, freedom) == wanted


# --- two histograms


@given(reference=counts, data=st.data())
def test_the_statistic_is_scipys_on_the_merged_bins(reference: Counts, data: st.DataObject) -> None:
    recent = data.draw(st.lists(st.integers(0, 300), min_size=len(reference), max_size=len(reference)))
    assume(sum(reference) and sum(recent))
    found = compare(reference, recent)
    old, new = merged(reference, recent)
    assert found.freedom == len(old) - 1
    if found.freedom:
        statistic, probability, _, expected = chi2_contingency([old, new], correction=False)
        assert found.statistic == pytest.approx(statistic, rel=1e-9, abs=1e-9)
        assert found.probability == pytest.approx(probability, rel=1e-6, abs=1e-290)
        assert expected.min() >= EXPECTED - 1e-9


def merged(reference: Sequence[int], recent: Sequence[int]) -> tuple[Counts, Counts]:
    """From the left, a bin takes in the next ones until both sides may expect enough; the rest joins the last."""
    share = min(sum(reference), sum(recent)) / (sum(reference) + sum(recent))
    bins: list[list[int]] = []
    gathered: list[int] = []
    for place, both in enumerate(np.add(reference, recent).tolist()):
        gathered.append(place)
        if (sum(reference[at] + recent[at] for at in gathered)) * share >= EXPECTED - 1e-9:
            bins.append(gathered)
            gathered = []
        assert both >= 0
    if bins:
        bins[-1] += gathered
    else:
        bins = [gathered]
    return [sum(reference[at] for at in each) for each in bins], [sum(recent[at] for at in each) for each in bins]


@given(reference=counts)
def test_a_histogram_is_like_itself(reference: Counts) -> None:
    assume(sum(reference))
    found = compare(reference, reference)
    assert (found.statistic, found.probability) == (0, 1)
    assert found.effect <= 0


def test_the_effect_is_unbiased_where_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    shares = np.full(20, 0.05)
    effects = [
        compare(rng.multinomial(900, shares).tolist(), rng.multinomial(1000, shares).tolist()).effect
        for _ in range(400)
    ]
    assert np.mean(effects) == pytest.approx(0, abs=0.002)
    assert max(effects) < SHIFTED / 3


def test_the_probability_is_what_it_says_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    shares = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])
    found = [
        compare(rng.multinomial(872, shares).tolist(), rng.multinomial(1000, shares).tolist()).probability
        for _ in range(2000)
    ]
    for level in (0.2, 0.05, 0.01):
        assert np.mean(np.array(found) < level) <= level + 3 * np.sqrt(level * (1 - level) / len(found))


# --- traffic over time


def features(rng: np.random.Generator, rows: int, longer: float = 1.0, surer: float = 1.0) -> Sample:
    """Rows of some traffic; it is shifted by other factors than 1."""
    tokens = np.rint(rng.gamma(5, 4 * longer, rows)) + 1
    unknown = np.where(rng.random(rows) < 0.9, 0, rng.random(rows) / 2)
    return Sample(tokens, unknown, rng.random(rows) ** (0.1 / surer))


def profile(sample: Sample) -> Profile:
    return Profile(
        dataset="drawn",
        rows=len(sample.tokens),
        tokens=histogram(sample.tokens, TOKEN_EDGES),
        unknown=histogram(sample.unknown, UNKNOWN_EDGES),
        margin=histogram(sample.margin, MARGIN_EDGES),
        agreement=None,
    )


def show(drift: Drift, sample: Sample, step: int = 37) -> list[tuple[int, set[Feature]]]:
    """Let it see rows step by step: after how many which alarms were on, at each look."""
    found = []
    for start in range(0, len(sample.tokens), step):
        if drift.add(Sample(*(values[start : start + step] for values in sample))):
            found.append((drift.rows, {verdict.feature for verdict in drift.verdicts() if verdict.alarm}))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_traffic_like_the_profile_raises_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drift = Drift(profile(features(rng, 872)))
    assert {alarm for _, alarms in show(drift, features(rng, 20_000)) for alarm in alarms} == set()


@pytest.mark.parametrize(("feature", "shift"), [(Feature.TOKENS, {"longer": 1.6}), (Feature.MARGIN, {"surer": 0.4})])
def test_a_shift_is_noticed_and_its_end_too(feature: Feature, shift: dict[str, float]) -> None:
    rng = np.random.default_rng(3)
    drift = Drift(profile(features(rng, 900)))
    assert all(not alarms for _, alarms in show(drift, features(rng, 3000)))
    noticed = [rows for rows, alarms in show(drift, features(rng, 2000, **shift)) if alarms == {feature}]
    assert noticed
    assert noticed[0] <= 3000 + 1000
    ended = [rows for rows, alarms in show(drift, features(rng, 2000)) if not alarms]
    assert ended[0] <= 5000 + BLOCK * (BLOCKS + 1)


def test_tiny_differences_are_significant_some_day_and_no_alarm() -> None:
    rng = np.random.default_rng(4)
    drift = Drift(profile(features(rng, 200_000)))
    looks = show(drift, features(rng, 20_000, longer=1.08), step=100)
    assert all(not alarms for _, alarms in looks)
    [tokens] = [verdict for verdict in drift.verdicts() if verdict.feature is Feature.TOKENS]
    assert tokens.comparison is not None
    assert tokens.comparison.probability < 0.01
    assert 0 < tokens.comparison.effect < SHIFTED


@given(sizes=st.lists(st.integers(0, 250), min_size=1, max_size=30))
@settings(max_examples=30)
def test_how_rows_are_dealt_out_does_not_matter(sizes: list[int]) -> None:
    rng = np.random.default_rng(5)
    reference, traffic = profile(features(rng, 500)), features(rng, sum(sizes), longer=1.3)
    dealt, whole = Drift(reference), Drift(reference)
    start = 0
    for size in sizes:
        dealt.add(Sample(*(values[start : start + size] for values in traffic)))
        start += size
    whole.add(traffic)
    assert dealt.verdicts() == whole.verdicts()
    assert dealt.rows == whole.rows == sum(sizes)


def test_the_levels_of_all_looks_add_up_to_alpha() -> None:
    assert sum(ALPHA / (look * (look + 1)) for look in range(1, 10**6)) == pytest.approx(ALPHA, rel=1e-5)


# --- the sample


@given(share=st.floats(0.001, 1), sizes=st.lists(st.integers(0, 50), max_size=40), seed=st.integers(0, 2**32))
def test_dealing_out_does_not_change_what_is_taken(share: float, sizes: list[int], seed: int) -> None:
    dealt, whole = Skips(share, Random(seed)), Skips(share, Random(seed))
    start, found = 0, []
    for size in sizes:
        found += [start + place for place in dealt.take(size)]
        start += size
    assert found == whole.take(start)
    assert all(0 <= place < start for place in found)
    assert found == sorted(set(found))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_each_row_is_taken_with_the_same_probability(share: float) -> None:
    skips, times = Skips(share, Random(6)), 4000
    taken: NDArray[np.int64] = np.zeros(20, dtype=np.int64)
    for _ in range(times):
        taken[skips.take(20)] += 1
    # Each place for itself, at a level that twenty of them keep together; and all of them.
    assert all(binomtest(int(each), times, share).pvalue > 1e-4 for each in taken)
    assert binomtest(int(taken.sum()), 20 * times, share).pvalue > 0.001


def test_all_or_nothing() -> None:
    assert Skips(1).take(5) == [0, 1, 2, 3, 4]
    assert Skips(0).take(10**9) == []
    assert Skips(1e-300).take(10**9) == []
    assert Skips(5e-324).take(10**9) == []


# --- agreement


@given(rows=st.lists(st.booleans(), max_size=300), window=st.integers(1, 50))
def test_agreement_counts_all_and_the_last(rows: list[bool], window: int) -> None:
    agreement = Agreement(window, None)
    for agrees in rows:
        agreement.add(Scored(agrees, 0.25 if agrees else 0.75))
    last = rows[-window:]
    assert (agreement.ever.rows, agreement.ever.agreed) == (len(rows), sum(rows))
    assert (agreement.lately.rows, agreement.lately.agreed) == (len(last), sum(last))
    wanted = pytest.approx(np.mean([0.25 if agrees else 0.75 for agrees in last])) if last else None
    assert agreement.distance == wanted
    assert agreement.ever.share == (pytest.approx(np.mean(rows)) if rows else None)
    assert not agreement.alarm


@pytest.mark.parametrize(("truth", "expected", "alarms"), [(0.97, 0.97, False), (0.85, 0.97, True), (0.5, None, False)])
def test_too_little_agreement_raises_the_alarm(truth: float, expected: float | None, alarms: bool) -> None:
    agreement, dice = Agreement(1000, expected), Random(7)
    raised = []
    for _ in range(10_000):
        agreement.add(Scored(dice.random() < truth, 0.0))
        raised.append(agreement.alarm)
    assert any(raised) is alarms
    assert not any(raised[: FEWEST - 1])
    assert all(raised[FEWEST:]) is alarms
    if alarms and expected is not None:
        assert agreement.lately.interval.high < expected - MARGIN
