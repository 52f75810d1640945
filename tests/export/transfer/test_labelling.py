"""A teacher that is asked elsewhere: what a node is told, and what it leaves in the cache."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import ModelError, OptionError
from export.objectives.signals import Signals
from export.sections import HiddenStates, TeacherSource
from export.teachers.hugging_face import Teacher
from export.teachers.opened import open_teacher
from export.transfer.labelling import Elsewhere, label
from service.bundle.encoder import Text
from service.cluster import Cluster, ClusterError, Work
from tests.toys.workshop import Shop

TEXTS: tuple[Text, ...] = ("the film is good", "", "her voice was awful", "so-so", "a\tb \u00e9")
PAIRS: tuple[Text, ...] = (("the film", "is good"), ("her voice", "was \N{SNOWMAN} awful"))


@dataclass(frozen=True, slots=True)
class Beside(Cluster):
    """One node, in this process, which is told what it would be told there."""

    def run(self, work: Work, numbers: Sequence[int]) -> Iterator[str]:
        does = pickle.loads(pickle.dumps(work)).begin()
        yield from map(does, reversed(numbers))


@dataclass(frozen=True, slots=True)
class Gone(Cluster):
    """None."""

    def run(self, work: Work, numbers: Sequence[int]) -> Iterator[str]:
        raise ClusterError("nowhere: no Ray cluster answers there")


def elsewhere(source: Path, cluster: Cluster = Beside()) -> Elsewhere:
    return Elsewhere(cluster, partial(open_teacher, TeacherSource(model=str(source), max_tokens=64), 1))


def assert_same(ours: Signals, theirs: Signals) -> None:
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert (ours.hidden is None) == (theirs.hidden is None)
    if ours.hidden is not None and theirs.hidden is not None:
        np.testing.assert_array_equal(np.asarray(ours.hidden), np.asarray(theirs.hidden))


@pytest.mark.parametrize("hidden", [None, HiddenStates(layer=1)])
@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
def test_a_node_leaves_what_would_be_made_here(
    taught: Path, tmp_path: Path, texts: tuple[Text, ...], hidden: HiddenStates | None
) -> None:
    teacher = Teacher.load(str(taught), 64)
    here = label(teacher, [texts], hidden, tmp_path / "here")
    there = label(teacher, [texts], hidden, tmp_path / "there", elsewhere(taught))
    assert_same(there, here)
    names = [sorted(file.name for file in (tmp_path / place).iterdir()) for place in ("here", "there")]
    assert names[0] == names[1]  # also nothing of the texts


def test_what_is_there_is_not_asked_again(taught: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(str(taught), 64)
    here = label(teacher, [TEXTS], None, tmp_path)
    assert_same(label(teacher, [TEXTS], None, tmp_path, elsewhere(taught, Gone())), here)


def test_a_node_with_another_teacher_by_that_name_is_refused(shop: Shop, taught: Path, tmp_path: Path) -> None:
    other = shop.teach_recipe(seed=2, training={"epochs": 0.1, "batch_size": 16, "learning_rate": 1e-3, "bf16": False})
    from export.learning.fine_tuning import fine_tune

    folder = fine_tune(other, tmp_path / "other")
    with pytest.raises(ModelError, match=r"teacher: on node \S+ it has other weights or another tokenizer than here"):
        label(Teacher.load(str(taught), 64), [TEXTS], None, tmp_path / "cache", elsewhere(folder))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.fixture
def quick_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a teacher from now on is quick at bfloat16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def test_a_node_labels_in_the_arithmetic_of_who_asks_it(
    taught: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    teacher = Teacher.load(str(taught), 64)
    teacher.bf16 = False
    here = label(teacher, [TEXTS], None, tmp_path / "here")
    request.getfixturevalue("quick_node")
    assert_same(label(teacher, [TEXTS], None, tmp_path / "there", elsewhere(taught)), here)
    assert_same(label(teacher, [TEXTS], None, tmp_path / "there"), here)


@pytest.mark.usefixtures("quick_node")
def test_each_arithmetic_has_a_cache_of_its_own(taught: Path, tmp_path: Path) -> None:
    half, whole = (Teacher.load(str(taught), 64) for _ in range(2))
    whole.bf16 = False
    rounded = label(half, [TEXTS], None, tmp_path)
    exact = label(whole, [TEXTS], None, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert np.abs(rounded.logits - exact.logits).max() > 1e-4
    np.testing.assert_allclose(exact.logits, whole.exact_logits(TEXTS), atol=1e-5)
    assert_same(label(half, [TEXTS], None, tmp_path, elsewhere(taught, Gone())), rounded)


def test_a_node_that_is_not_quick_at_bfloat16_is_refused_by_one_that_is(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher.load(str(taught), 64)
    teacher.bf16 = True
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(
        ModelError, match=r"teacher: node \S+ is not quick at bfloat16 as this machine is; leave it out"
    ):
        label(teacher, [TEXTS], None, tmp_path, elsewhere(taught))
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_is_one_line(taught: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere: no Ray cluster answers there"):
        label(Teacher.load(str(taught), 64), [TEXTS], None, tmp_path / "cache", elsewhere(taught, Gone()))
    assert list((tmp_path / "cache").iterdir()) == []
