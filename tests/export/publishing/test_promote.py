"""A new student takes the old one's place if it agrees with the teacher by more than chance, and else nothing moves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from export.errors import ModelError, OptionError, Unmet
from export.measuring.calibrate import Source
from export.publishing.promote import Match, Rule, check_place_for, compare, promote
from service.bundle.errors import BundleExists
from service.bundle.manifest import Precision, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import find_bundles, read_manifest, write_bundle
from tests.toys import toy
from tests.toys.workshop import Distilled, command, process, sentences

counts = st.integers(0, 60)


@given(counts, counts, counts, st.integers(1, 60))
def test_agreements_and_the_exact_test(both: int, only_old: int, only_new: int, neither: int) -> None:
    rows = both + only_old + only_new + neither
    found = Match(rows, both, only_old, only_new)
    assert found.gain == pytest.approx(found.new - found.old)
    assert found.p_value == pytest.approx(binom.sf(only_new - 1, only_old + only_new, 0.5))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_rows_are_counted_in_pairs(rows: list[tuple[bool, bool]]) -> None:
    old, new = (np.array([row[side] for row in rows]) for side in range(2))
    found = Match.of(old, new)
    assert found.old == pytest.approx(old.mean())
    assert found.new == pytest.approx(new.mean())
    assert found.only_old == rows.count((True, False))


@pytest.mark.parametrize(
    ("match", "rule", "breach"),
    [
        (Match(100, 80, 0, 5), Rule(), None),  # 2 ** -5 is less than 5 %
        (Match(100, 80, 0, 4), Rule(), "may be chance"),
        (Match(100, 80, 0, 4), Rule(level=0.1), None),
        (Match(100, 80, 5, 5), Rule(level=0.9), "does not agree with the teacher on more rows"),
        (Match(100, 80, 6, 5), Rule(level=0.9), "does not agree with the teacher on more rows"),
        (Match(100, 100, 0, 0), Rule(), "does not agree with the teacher on more rows"),
        (Match(100, 60, 0, 20), Rule(min_gain=0.2), None),
        (Match(100, 60, 0, 20), Rule(min_gain=0.21), "less than the 21.00% asked"),
    ],
)
def test_the_rule(match: Match, rule: Rule, breach: str | None) -> None:
    found = rule.breach(match)
    assert found == breach or (found is not None and breach is not None and breach in found)


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 1}, {"min_gain": -0.1}, {"min_gain": 3}])
def test_a_rule_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Rule(**options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def under_name(folder: Path, models: Path, version: str) -> Path:
    """The same student as toy-student of this version."""
    manifest = read_manifest(folder)
    files = {name: (folder / name).read_bytes() for name in manifest.files}
    target = models / "toy-student" / version
    write_bundle(target, manifest.model_copy(update={"name": "toy-student", "version": version}), files, "# Ours\n")
    return target


@pytest.fixture
def good(distilled: Distilled, tmp_path: Path) -> Path:
    """A distilled student in a staging folder, as version 2."""
    return under_name(distilled.bundle, tmp_path / "staging", "2")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A random student among the served ones, as version 1."""
    random = toy.publish(tmp_path / "random", "random", "1", Role.STUDENT, labels=("positive", "negative"))
    return under_name(random, tmp_path / "models", "1")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in sentences()))
    return Source(str(path))


def test_the_better_one_is_copied_to_its_place(good: Path, bad: Path, adopted: Path, source: Source) -> None:
    target = check_place_for(good, bad)
    assert target == bad.with_name("2")
    found = compare(good, bad, adopted, source, Precision.EXACT)
    assert found.new > found.old
    assert promote(good, target, found, Rule()) == target
    assert contents(target) == contents(good)  # the seal too
    assert open_bundle(target).manifest == read_manifest(good)
    assert [place.version for place in find_bundles(bad.parent.parent)] == ["1", "2"]


def test_the_agreement_is_that_with_the_teachers_label_whatever_its_place(
    good: Path, bad: Path, adopted: Path, source: Source
) -> None:
    texts = [text for text, _ in sentences()]
    teacher, new, old = (open_bundle(folder) for folder in (adopted, good, bad))
    said = [
        [bundle.manifest.labels[place] for place in bundle.classify(texts).argmax(axis=1)]
        for bundle in (teacher, new, old)
    ]
    found = compare(good, bad, adopted, source, Precision.EXACT)
    for agreement, labels in ((found.new, said[1]), (found.old, said[2])):
        assert agreement == pytest.approx(np.mean([a == b for a, b in zip(labels, said[0], strict=True)]))


def test_the_command_promotes_and_prints_a_table(good: Path, bad: Path, adopted: Path, source: Source) -> None:
    folder = good.parents[2]
    options = ("--against", bad, "--teacher", adopted, "--texts", source.place)
    found = command("promote", good, *options, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "agreement of the new" in found.stdout
    assert found.stderr.splitlines()[-1] == f"promoted: {bad.with_name('2')}"
    again = command("promote", good, *options, cwd=folder)
    assert (again.returncode, again.stdout) == (3, "")
    assert "distil it with --set version=3" in again.stderr


def test_one_that_is_no_better_is_exit_code_4_and_changes_nothing(
    good: Path, bad: Path, adopted: Path, source: Source
) -> None:
    folder = good.parents[2]
    shutil.rmtree(bad)
    served = under_name(good, folder / "models", "1")
    before = contents(folder)
    found = process("promote", good, "--against", served, "--teacher", adopted, "--texts", source.place, cwd=folder)
    assert found.returncode == 4
    assert "gain" in found.stdout
    assert found.stderr.splitlines()[-1] == (
        f"export: {good}: not promoted, it does not agree with the teacher on more rows"
    )
    assert contents(folder) == before


def test_a_gain_that_is_asked_for_must_be_there(good: Path, bad: Path, adopted: Path, source: Source) -> None:
    found = compare(good, bad, adopted, source, Precision.EXACT)
    with pytest.raises(Unmet, match="less than the 100"):
        promote(good, check_place_for(good, bad), found, Rule(min_gain=1.0))
    assert [place.version for place in find_bundles(bad.parent.parent)] == ["1"]


def test_a_candidate_must_be_newer_of_the_same_name_and_elsewhere(good: Path, bad: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="distil into another folder"):
        check_place_for(under_name(good, tmp_path / "models", "3"), bad)
    with pytest.raises(BundleExists, match="distil it with --set version=4"):
        check_place_for(good, bad)
    other = toy.publish(tmp_path / "staging", "other", "9", Role.STUDENT)
    with pytest.raises(ModelError, match=r"other@9 can't take the place of toy-student@1"):
        check_place_for(other, bad)
