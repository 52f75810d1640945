"""What student and teacher give together: points of the curve by hand, the table, and a plot that any browser reads."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import ModelError
from export.measuring.calibrate import Source, measure
from export.measuring.cascade import Answered, calibration_of, curve, draw, point, summary
from export.measuring.evaluation import answer_both
from export.measuring.thresholds import Promise
from export.publishing.reissue import Into, check_target, reissue
from export.tasks.metrics import accuracy
from export.texts.datasets import Columns
from service.bundle.confidence import margins
from service.bundle.manifest import Calibration, Precision
from service.bundle.store import read_manifest
from tests.toys.workshop import Distilled, Shop, command, sentences

CALIBRATION = Calibration(
    teacher="t@1",
    dataset="own",
    rows=9,
    temperature=1.5,
    threshold=0.4,
    target=0.9,
    bound=0.9,
    confidence=0.95,
    agreement=0.9,
    escalation=0.1,
)


def answered(rows: int, seed: int = 0) -> Answered:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2, rows, 3)).astype(np.float32)
    return Answered(logits[0], logits[1], rng.integers(0, 3, rows))


@given(st.integers(1, 80), st.integers(0, 50))
def test_the_curve_runs_from_the_student_to_the_teacher(rows: int, seed: int) -> None:
    both = answered(rows, seed)
    assert both.labels is not None
    points = curve(both, 1.5, 11)
    assert points[0].tried.escalation == 0
    assert points[0].accuracy == accuracy(both.student.argmax(axis=1), both.labels)
    assert points[-1].tried.escalation == 1
    assert points[-1].accuracy == accuracy(both.teacher.argmax(axis=1), both.labels)
    shares = [each.tried.escalation for each in points]
    assert shares == sorted(shares)


@given(st.integers(1, 80), st.integers(0, 50), st.floats(0, 1))
def test_a_point_by_hand(rows: int, seed: int, threshold: float) -> None:
    both = answered(rows, seed)
    assert both.labels is not None
    sure = margins(both.student, 1.5)
    found = point(both, sure, threshold)
    right = agreed = accepted = 0
    for student, teacher, label, margin in zip(both.student, both.teacher, both.labels, sure, strict=True):
        keeps = margin >= threshold
        accepted += keeps
        agreed += keeps and student.argmax() == teacher.argmax()
        right += (student if keeps else teacher).argmax() == label
    assert (found.tried.accepted, found.tried.agreed) == (accepted, agreed)
    assert found.accuracy == pytest.approx(right / rows)
    low, high = found.interval()
    assert 0 <= low <= found.tried.agreement <= high <= 1 or not accepted


def test_without_labels_there_is_agreement_alone() -> None:
    both = replace(answered(50), labels=None)
    assert {each.accuracy for each in curve(both, 1.0)} == {None}
    assert not [name for name in summary(both, CALIBRATION) if name.startswith("accuracy")]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_plot_is_small_and_the_same_each_time(tmp_path: Path, labelled: bool) -> None:
    both = answered(3_000)
    files = [tmp_path / name for name in ("one.svg", "two.svg")]
    for file in files:
        draw(both if labelled else replace(both, labels=None), CALIBRATION, "A <title> & more", file)
    content = files[0].read_text()
    assert content == files[1].read_text()
    assert len(content) < 100_000
    text = "".join(ElementTree.fromstring(content).itertext())
    assert "A <title> & more" in text
    assert "agreement on accepted" in text
    assert ("teacher alone" in text) == labelled


def test_one_that_is_not_calibrated_says_what_to_do(distilled: Distilled) -> None:
    with pytest.raises(ModelError, match="has no calibration; run python -m export calibrate"):
        calibration_of(read_manifest(distilled.bundle), Precision.EXACT)


def test_the_command_prints_a_table_and_draws(shop: Shop, distilled: Distilled, adopted: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in sentences()))
    found = measure(distilled.bundle, adopted, Source(str(tmp_path / "texts.jsonl")), Promise(0.95, 0.9))
    target = Path(shutil.copytree(distilled.bundle, tmp_path / "models" / "toy-student" / "1"))
    bundle = reissue(target, found, check_target(target, Into.SAME))
    ran = command("cascade", bundle, shop.dev, "--teacher", adopted, "--plot", "curve.svg", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    both = answer_both(bundle, Precision.EXACT, adopted, str(shop.dev), Columns())
    for value in summary(both, found.calibration[Precision.EXACT]).values():
        assert value in ran.stdout
    assert (tmp_path / "curve.svg").stat().st_size > 1000
    bare = command("cascade", bundle, tmp_path / "texts.jsonl", "--teacher", adopted, "--unlabelled", cwd=tmp_path)
    assert bare.returncode == 0, bare.stderr
    assert "accuracy" not in bare.stdout
