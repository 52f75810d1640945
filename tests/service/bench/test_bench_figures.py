"""The arithmetic of comparisons: which texts stand for a file, percentiles of histograms, ratios of rounds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bench.engine import Entry
from service.bench.pair.contenders import Contender
from service.bench.pair.papers import Batch, passes_of
from service.bench.pair.report import PERCENTILES, percentiles_of, speeds_of, times_faster
from service.bench.pair.sheets import number
from service.bench.pair.sweep import EVERY, FEWEST, Bucket, Case, Turn, buckets_of, chosen
from service.bundle.manifest import Precision
from tests.running import ROOT

LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=200).map(np.array)


def contender(title: str, *, teacher: bool = False) -> Contender:
    return Contender(title, teacher, False, ("a", "b"), 1, Entry(ROOT, Precision.EXACT))


@given(LENGTHS)
def test_buckets_do_not_overlap_and_have_enough_texts(lengths: np.ndarray) -> None:
    every, *found = buckets_of(lengths)
    assert every == EVERY
    for bucket in found:
        assert bucket.high is not None
        assert ((lengths >= bucket.low) & (lengths <= bucket.high)).sum() >= FEWEST
    for before, after in pairwise(found):
        assert before.high is not None
        assert before.high < after.low


@given(LENGTHS, st.integers(1, 300), st.integers(0, 3))
def test_chosen_texts_have_the_lengths_of_the_bucket(lengths: np.ndarray, count: int, seed: int) -> None:
    for bucket in buckets_of(lengths):
        places = chosen(lengths, bucket, count, seed)
        high = lengths.max() if bucket.high is None else bucket.high
        assert len(places) == count
        assert all(bucket.low <= lengths[place] <= high for place in places)
        assert places == chosen(lengths, bucket, count, seed)


@given(LENGTHS, st.integers(1, 4))
def test_as_many_texts_as_there_are_or_a_multiple_are_all_of_them(lengths: np.ndarray, times: int) -> None:
    places = chosen(lengths, Bucket(), len(lengths) * times, seed=0)
    assert sorted(places) == sorted([*range(len(lengths))] * times)


@given(st.dictionaries(st.floats(0.01, 1e4), st.integers(1, 1000), min_size=1, max_size=40))
def test_a_percentile_is_the_bucket_in_which_the_value_lies(histogram: dict[float, int]) -> None:
    found = percentiles_of(histogram)
    values = np.repeat(sorted(histogram), [histogram[bound] for bound in sorted(histogram)])
    wanted = np.percentile(values, PERCENTILES, method="inverted_cdf")
    assert [found[f"{share:g}"] for share in PERCENTILES] == wanted.tolist()


def test_nothing_has_no_percentiles() -> None:
    assert percentiles_of({}) == {}


@given(st.dictionaries(st.integers(0, 9), st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1))
def test_a_ratio_lies_among_those_of_the_rounds(rounds: dict[int, tuple[float, float]]) -> None:
    ours, theirs = ({number: pair[side] for number, pair in rounds.items()} for side in range(2))
    each = [theirs[number] / ours[number] for number in rounds]
    assert min(each) <= times_faster(ours, theirs) <= max(each)
    assert times_faster(ours, ours) == 1


def test_a_busy_round_does_not_move_a_ratio_and_what_was_left_out_has_none() -> None:
    case, large = Case(1, 8, EVERY), Case(1, 128, EVERY)
    timed = [("s", case, 0, 1.0), ("t", case, 0, 10.0), ("s", case, 1, 9.0), ("t", case, 1, 90.0)]
    turns = [Turn(*each) for each in [*timed, ("s", large, 0, 2.0)]]
    found = {
        (each.subject, each.batch): each for each in speeds_of(turns, [contender("s"), contender("t", teacher=True)])
    }
    assert found["s", 8].times == {"t": 10.0}
    assert (found["s", 8].median_us, found["s", 8].least_us, found["s", 8].most_us) == (5.0, 1.0, 9.0)
    assert found["s", 128].times == {}
    assert ("t", 128) not in found


def test_a_whole_pass_of_which_a_part_was_run_is_scaled_up_and_says_so() -> None:
    both = [contender("s"), contender("t", teacher=True)]
    batches = [Batch("s", 0, 512, 1.0), Batch("t", 0, 512, 30.0), Batch("s", 1, 88, 0.2)]
    student, teacher = passes_of(both, 600, batches)
    assert (student.ran, student.estimated) == (600, False)
    assert student.seconds == pytest.approx(1.2)
    assert (teacher.ran, teacher.estimated) == (512, True)
    assert teacher.seconds == pytest.approx(30 * 600 / 512)
    assert student.times == {"t": pytest.approx(30.0)}  # over the batch that both ran
    assert teacher.times == {"t": 1.0}


@given(st.floats(0.01, 1e6))
def test_a_number_keeps_three_figures(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051, abs=0.0051)
