"""A calibrated bundle: the next version or the same, the model unchanged, and nothing written where none is found."""

import json
import re
import shutil
from pathlib import Path

import pytest

from export.errors import DataError, ModelError, OptionError, Unmet
from export.measuring.calibrate import Calibrated, Source, measure
from export.measuring.pair import teacher_columns
from export.measuring.thresholds import Promise
from export.publishing.card import recalibrated
from export.publishing.reissue import Into, check_target, reissue
from service.bundle.confidence import margins
from service.bundle.errors import BundleError, BundleExists
from service.bundle.manifest import Precision, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import find_bundles, read_manifest, rewrite_manifest
from tests.toys import toy
from tests.toys.workshop import Distilled, command, sentences

PROMISE = Promise(0.95, 0.9)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 sentences, each of them twice."""
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in sentences() * 2))
    return path


@pytest.fixture(scope="session")
def calibrated(distilled: Distilled, adopted: Path, texts: Path) -> Calibrated:
    return measure(distilled.bundle, adopted, Source(str(texts)), PROMISE)


@pytest.fixture
def bundle(distilled: Distilled, tmp_path: Path) -> Path:
    """A copy of the student that a test may change."""
    return Path(shutil.copytree(distilled.bundle, tmp_path / "models" / "toy-student" / "1"))


def test_the_profile_may_be_of_other_texts(
    calibrated: Calibrated, distilled: Distilled, adopted: Path, texts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "traffic.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in sentences()[:20]))
    found = measure(distilled.bundle, adopted, Source(str(texts)), PROMISE, Source(str(path)))
    assert found.calibration == calibrated.calibration
    for precision, profile in found.profile.items():
        assert (profile.dataset, profile.rows) == (str(path), 20)
        assert profile.margin is not None
        assert sum(profile.margin.counts) == sum(profile.tokens.counts) == 20
        assert profile.agreement is not None
        assert profile != calibrated.profile[precision]


def test_each_graph_is_calibrated_and_profiled(
    calibrated: Calibrated, distilled: Distilled, adopted: Path, texts: Path
) -> None:
    student = read_manifest(distilled.bundle)
    assert calibrated.calibration.keys() == calibrated.profile.keys() == student.graphs.keys()
    for precision, found in calibrated.calibration.items():
        assert (found.teacher, found.dataset, found.rows) == ("toy-bert@1", str(texts), 192)
        assert found.bound >= found.target == 0.95
        profile = calibrated.profile[precision]
        assert profile.rows == 240  # each text once
        for histogram in (profile.tokens, profile.unknown, profile.margin):
            assert histogram is not None
            assert sum(histogram.counts) == 240
        student_labels, teacher_labels = (
            open_bundle(*opened).classify([text for text, _ in sentences()]).argmax(axis=1)
            for opened in ((distilled.bundle, precision), (adopted, Precision.EXACT))
        )
        assert profile.agreement == pytest.approx((student_labels == teacher_labels).mean(), abs=0.01)


def test_a_text_of_the_margin_that_was_promised_is_accepted(calibrated: Calibrated, distilled: Distilled) -> None:
    """The threshold is of the margin at the temperature, as the service computes it."""
    student = open_bundle(distilled.bundle)
    found = calibrated.calibration[Precision.EXACT]
    sure = margins(student.classify([text for text, _ in sentences()]), found.temperature)
    assert (sure < found.threshold).mean() == pytest.approx(found.escalation, abs=0.1)


def test_the_next_version_has_the_same_model_and_the_old_one_stays(bundle: Path, calibrated: Calibrated) -> None:
    before = contents(bundle)
    target = reissue(bundle, calibrated, check_target(bundle, Into.NEXT))
    assert target == bundle.with_name("2")
    assert contents(bundle) == before
    old, new = read_manifest(bundle), open_bundle(target).manifest
    assert (new.calibration, new.profile) == (calibrated.calibration, calibrated.profile)
    free = {"version", "seal", "calibration", "profile"}
    assert new.model_dump(exclude=free) == old.model_dump(exclude=free)
    assert new.seal != old.seal
    card = (target / "README.md").read_text()
    assert card.startswith("# toy-student, version 2\n")
    assert "toy-bert@1" in card
    assert check_target(bundle, Into.NEXT) == bundle.with_name("3")
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


def test_the_same_version_changes_its_manifest_and_card_alone(bundle: Path, calibrated: Calibrated) -> None:
    before = contents(bundle)
    for _ in range(2):
        assert reissue(bundle, calibrated, check_target(bundle, Into.SAME)) == bundle
    after = contents(bundle)
    assert {name for name in after if after[name] != before[name]} == {"manifest.json", "README.md"}
    assert after.keys() == before.keys()
    assert open_bundle(bundle, Precision.FAST).manifest.calibration == calibrated.calibration
    assert after["README.md"].count(b"## Calibration") == 1
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


def test_nothing_but_a_calibration_may_be_rewritten(bundle: Path) -> None:
    before = contents(bundle)
    for change in ({"max_tokens": 7}, {"version": "2"}, {"labels": ("a", "b")}):
        with pytest.raises(BundleError):
            rewrite_manifest(bundle, read_manifest(bundle).model_copy(update=change), None)
    assert contents(bundle.parent.parent) == {f"toy-student/1/{name}": content for name, content in before.items()}


def test_a_card_keeps_what_people_wrote(bundle: Path, calibrated: Calibrated) -> None:
    manifest = read_manifest(reissue(bundle, calibrated, check_target(bundle, "7")))
    card = "# Our own title\n\nOur words.\n\n## Limits\n\nFew.\n\n## Thanks\n\nTo all.\n"
    written = recalibrated(card, manifest)
    assert re.findall(r"^#.*", written, re.MULTILINE) == ["# Our own title", "## Calibration", "## Limits", "## Thanks"]
    assert recalibrated(written, manifest) == written
    assert recalibrated(written, manifest.model_copy(update={"calibration": {}})) == card


def test_a_student_is_published_with_the_profile_of_dev(distilled: Distilled) -> None:
    manifest = read_manifest(distilled.bundle)
    assert manifest.calibration == {}
    assert manifest.profile.keys() == manifest.graphs.keys()
    for precision, profile in manifest.profile.items():
        assert (profile.dataset, profile.rows) == (distilled.recipe.data.dev, 40)
        assert profile.margin is not None
        assert sum(profile.margin.counts) == 40
        (kept,) = [
            row.value
            for row in manifest.results
            if (row.what, row.metric) == (f"student, {precision}", "agreement with the teacher")
        ]
        assert profile.agreement == kept


def test_a_teacher_has_no_profile(adopted: Path) -> None:
    assert read_manifest(adopted).profile == {}


def test_the_teachers_labels_may_stand_in_another_order(tmp_path: Path) -> None:
    toy.publish(tmp_path, "student", "1", Role.STUDENT, labels=("a", "b", "c"))
    toy.publish(tmp_path, "teacher", "1", Role.TEACHER, labels=("b", "c", "a"))
    student, teacher = (read_manifest(tmp_path / name / "1") for name in ("student", "teacher"))
    assert teacher_columns(student, teacher) == [2, 0, 1]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ("toy-teacher/1", "toy-teacher/1", "toy-teacher@1 is no student"),
        ("toy/1", "toy/1", "toy@1 is no teacher"),
        ("toy/1", "few/1", "knows the labels"),
        ("twins/1", "same/1", "only a single label has a margin"),
        ("pairs/1", "toy-teacher/1", "reads 2 texts a row, its teacher 1"),
    ],
)
def test_two_that_are_no_pair_are_refused(
    toy_models: Path, zoo: Path, tmp_path: Path, student: str, teacher: str, message: str
) -> None:
    toy.publish(tmp_path, "few", "1", Role.TEACHER, labels=toy.LABELS[:2])
    toy.publish(tmp_path, "pairs", "1", Role.STUDENT, pairs=True)
    one, other = (
        next(path for path in (tmp_path / name, toy_models / name, zoo / name) if path.is_dir())
        for name in (student, teacher)
    )
    with pytest.raises(ModelError, match=message):
        measure(one, other, Source("none.tsv"), PROMISE)


def test_a_student_of_pairs_is_calibrated_on_pairs(zoo: Path, tmp_path: Path) -> None:
    rows = [f"{first}\t{second}\n" for first, _ in sentences()[:20] for second, _ in sentences()[:20]]
    (tmp_path / "pairs.tsv").write_text("text\tother\n" + "".join(rows))
    source = Source(str(tmp_path / "pairs.tsv"), "text", "other")
    assert len(source.read(2)) == 400
    assert source.read(2)[0] == (sentences()[0][0], sentences()[0][0])
    student = toy.publish(tmp_path, "pairs", "1", Role.STUDENT, pairs=True)
    with pytest.raises(Unmet):  # both are random
        measure(student, zoo / "same" / "1", source, PROMISE)


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.tsv").write_text("text\n")
    with pytest.raises(DataError, match="has no rows"):
        Source(str(tmp_path / "none.tsv")).read(1)


@pytest.mark.parametrize("into", ["last", "0", "-1", "1.5", ""])
def test_a_version_is_a_number_or_next(bundle: Path, into: str) -> None:
    with pytest.raises(OptionError, match="write next, or the number of a version"):
        check_target(bundle, into)


def test_a_version_that_is_taken_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleExists, match="choose the next version"):
        check_target(bundle, "1")


def test_the_command_publishes_the_next_version(bundle: Path, adopted: Path, texts: Path, tmp_path: Path) -> None:
    options = ("--texts", texts, "--target", "0.95", "--confidence", "0.9")
    found = command("calibrate", bundle, "--teacher", adopted, *options, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stderr.splitlines()[-1] == f"calibrated: {bundle.with_name('2')}"
    assert [place.version for place in find_bundles(bundle.parent.parent)] == ["1", "2"]


def test_a_promise_that_cannot_be_kept_is_exit_code_4_and_changes_nothing(
    bundle: Path, adopted: Path, texts: Path, tmp_path: Path
) -> None:
    before = contents(tmp_path)
    found = command("calibrate", bundle, "--teacher", adopted, "--texts", texts, "--replace", cwd=tmp_path)
    assert found.returncode == 4
    said = found.stderr.splitlines()[-1]
    assert said.startswith(f"export: {bundle} (exact): no threshold keeps 0.99")
    assert "299 must be accepted" in said
    assert contents(tmp_path) == before
