"""Which teacher belongs to a student, and what keeps a strategy from being followed at the start."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.manifest import Role, Task
from service.pairs import Pair, columns
from service.predictors import Outcome
from service.settings import Settings
from tests.running import command, opened
from tests.toys import toy
from tests.toys.pairing import calibration, publish_student, publish_teacher

NAMES = ("red", "green", "blue", "grey")


@given(st.permutations(NAMES), st.permutations(NAMES), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_columns_bring_scores_into_the_students_order(
    wanted: Sequence[str], given_: Sequence[str], scores: list[float]
) -> None:
    by_name = dict(zip(given_, scores, strict=True))
    pair = Pair(None, columns(wanted, given_))  # type: ignore[arg-type]  # no model is asked
    (found,) = pair.in_order([Outcome(scores, [-score for score in scores])])
    assert found.scores == [by_name[name] for name in wanted]
    assert found.logits == [-by_name[name] for name in wanted]
    assert (pair.columns is None) == (list(wanted) == list(given_))


def teacher_of(models: Path, student: str = "toy", **knobs: Any) -> str | None:
    async def act() -> str | None:
        async with opened(Settings.model_validate({"models": models, "versions": 9} | knobs)) as door:
            shelf = door.lifecycle.catalogue.shelf
            pair = shelf.pair_of(shelf.resolve(student))
            return None if pair is None else pair.teacher.name

    return asyncio.run(act())


def test_the_teacher_is_the_wanted_one_else_the_calibrations_else_the_first_by_name(tmp_path: Path) -> None:
    publish_student(tmp_path, calibrated=calibration(0.4, teacher="lead@1"))
    publish_student(tmp_path, "raw")
    publish_teacher(tmp_path, "adept", "1")
    publish_teacher(tmp_path, "adept", "10")
    publish_teacher(tmp_path, "adept", "9")
    assert teacher_of(tmp_path) == teacher_of(tmp_path, "raw") == "adept@10"
    publish_teacher(tmp_path, "lead", "2")
    assert (teacher_of(tmp_path), teacher_of(tmp_path, "raw")) == ("lead@2", "adept@10")
    publish_teacher(tmp_path, "lead", "1")
    assert teacher_of(tmp_path) == "lead@1"
    publish_teacher(tmp_path, "zealous")
    assert teacher_of(tmp_path, teacher="zealous") == teacher_of(tmp_path, "raw", teacher="zealous") == "zealous@1"
    assert teacher_of(tmp_path, teacher="adept@9") == "adept@9"
    assert teacher_of(tmp_path, "lead") is None


@pytest.mark.parametrize(
    ("labels", "task", "pairs"),
    [
        (toy.LABELS[:2], Task.SINGLE_LABEL, False),
        (("other", *toy.LABELS[1:]), Task.SINGLE_LABEL, False),
        (toy.LABELS, Task.MULTI_LABEL, False),
        (toy.LABELS, Task.SINGLE_LABEL, True),
    ],
)
def test_a_teacher_of_something_else_is_no_teacher(
    tmp_path: Path, labels: Sequence[str], task: Task, pairs: bool
) -> None:
    publish_student(tmp_path)
    toy.publish(tmp_path, "other", "1", Role.TEACHER, labels=labels, task=task, pairs=pairs)
    assert teacher_of(tmp_path) is None
    publish_teacher(tmp_path, "zealous")
    assert teacher_of(tmp_path) == teacher_of(tmp_path, teacher="other") == "zealous@1"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--strategy", "cascade"),
            "strategy cascade: toy@1 has no calibration for its exact graph; run `python -m ex",
        ),
        (("--strategy", "cascade", "--default", "good"), "strategy cascade: no teacher of good@1 is served; put one"),
        (("--strategy", "teacher"), "strategy teacher: no teacher of toy@1 is served; put one with the same labels"),
        (("--strategy", "cascade", "--default", "many"), "strategy cascade: a cascade is for models that choose one"),
        (("--teacher", "good"), "teacher: no teacher good is served; there is none"),
        (("--strategy", "both"), "--strategy (or UNDERSTUDY_STRATEGY): "),
        (("--cascade-threshold", "1.1"), "--cascade-threshold (or UNDERSTUDY_CASCADE_THRESHOLD): "),
    ],
)
def test_a_strategy_that_cannot_be_followed_stops_the_start_with_one_line(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    publish_student(tmp_path)
    publish_student(tmp_path, "good", calibrated=calibration(0.4))
    toy.publish(tmp_path, "many", "1", Role.STUDENT, task=Task.MULTI_LABEL, labels=NAMES)
    default = () if "--default" in flags else ("--default", "toy")
    ended = command("serve", "--port", "0", "--models", str(tmp_path), *default, *flags)
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if "WARNING" not in line]
    assert len(lines) == 1
    assert said in lines[0]
