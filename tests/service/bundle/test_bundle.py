"""A bundle is opened only if it is whole, true and proved; and it is written as a whole or not at all."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from service.bundle.errors import (
    BundleError,
    BundleExists,
    GraphMismatch,
    InvalidManifest,
    InvalidTokenizer,
    MissingFile,
    ProofFailed,
    UnexpectedFile,
    UnknownFormat,
    WrongDigest,
)
from service.bundle.manifest import Precision, Role, Task
from service.bundle.runtime import open_bundle
from service.bundle.store import BundlePath, check_place, digests, find_bundles, read_manifest, write_bundle
from tests.service.bundle.spoiling import Change, edit, replace
from tests.toys import toy

MODELS = Path(__file__).resolve().parents[3] / "models"


def test_a_student_opens_with_either_graph(toy_student: Path) -> None:
    exact, fast = (open_bundle(toy_student, precision) for precision in Precision)
    assert (exact.precision, fast.precision) == (Precision.EXACT, Precision.FAST)
    assert np.abs(exact.classify(["good"]) - fast.classify(["good"])).max() > 1e-4


@pytest.mark.parametrize("place", find_bundles(MODELS), ids=lambda place: place.name)
def test_the_bundles_of_the_repository_open(place: BundlePath) -> None:
    for precision in Precision:
        assert open_bundle(place.folder, precision).manifest.name == place.name


def test_a_teacher_without_a_fast_graph_opens_with_its_exact_one(toy_teacher: Path) -> None:
    assert open_bundle(toy_teacher, Precision.FAST).precision is Precision.EXACT


def test_a_bundle_from_before_there_were_pairs_opens_as_it_is(student: Path) -> None:
    edit(student, lambda manifest: manifest.pop("texts"))
    assert open_bundle(student).manifest.texts == 1


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("task", "labels"),
    [(Task.SINGLE_LABEL, ("a", "b")), (Task.MULTI_LABEL, ("a", "b", "c")), (Task.REGRESSION, ("score",))],
)
def test_a_bundle_of_each_task_opens(
    tmp_path: Path, role: Role, task: Task, labels: tuple[str, ...], pairs: bool
) -> None:
    bundle = open_bundle(toy.publish(tmp_path, "toy", "1", role, task=task, labels=labels, pairs=pairs))
    assert (bundle.manifest.task, bundle.manifest.labels, bundle.manifest.texts) == (task, labels, 2 if pairs else 1)
    logits = bundle.classify([("good", "a film")] if pairs else ["good"])
    assert logits.shape == bundle.scores(logits).shape == (1, len(labels))


def test_a_proof_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = toy.publish(tmp_path, "toy", "1", Role.TEACHER, pairs=True)
    edit(folder, lambda manifest: manifest["proof"]["texts"].__setitem__(0, "one text"))
    with pytest.raises(InvalidManifest, match="proof must be of pairs"):
        open_bundle(folder)


def test_a_tokenizer_that_cannot_read_the_proof_is_refused(student: Path) -> None:
    content = json.loads((student / "tokenizer.json").read_text())
    del content["model"]["vocab"]["[UNK]"]
    replace(student, "tokenizer.json", json.dumps(content).encode())
    edit(student, lambda manifest: manifest["proof"]["texts"].__setitem__(1, "unknown"))
    with pytest.raises(ProofFailed, match="a text of its proof: the tokenizer cannot read it"):
        open_bundle(student)


def test_a_limit_that_tokenizers_would_ignore_is_refused(tmp_path: Path) -> None:
    folder = toy.publish(tmp_path, "toy", "1", Role.TEACHER)
    edit(folder, lambda manifest: manifest.update(max_tokens=2))
    with pytest.raises(InvalidTokenizer, match="leaves no room"):
        open_bundle(folder)


def test_scores_of_a_row_add_up_to_one(toy_student: Path) -> None:
    bundle = open_bundle(toy_student)
    scores = bundle.scores(bundle.classify(["good film", ""]))
    assert scores.shape == (2, len(toy.LABELS))
    assert np.allclose(scores.sum(axis=1), 1)


def test_an_unknown_format_is_named_before_anything_else(student: Path) -> None:
    (student / "manifest.json").write_text('{"format": 2, "all": "else differs"}')
    with pytest.raises(UnknownFormat, match="format 2"):
        open_bundle(student)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", "\udcff", "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(student: Path, content: str) -> None:
    (student / "manifest.json").write_text(content, errors="surrogateescape")
    with pytest.raises(InvalidManifest, match=r"manifest\.json"):
        open_bundle(student)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.pop("labels"), "labels"),
        (lambda m: m.update(name="Big"), "name"),
        (lambda m: m.update(name="../etc"), "name"),
        (lambda m: m.update(version="1.0"), "version"),
        (lambda m: m.update(labels=["a", "a", "b"]), "labels must differ"),
        (lambda m: m.update(labels=["a"]), "labels of a single-label task must be 2 or more"),
        (lambda m: m.update(labels=[], task="regression"), "labels"),
        (lambda m: m.update(task="guessing"), "task"),
        (lambda m: m.update(task="tagging"), "labels of a tagging task must be O and names"),
        (lambda m: m.update(texts=3), "texts"),
        (lambda m: m.update(texts=True), "texts"),
        (lambda m: m.update(texts=2), "inputs of a student for pairs"),
        (lambda m: m["proof"]["texts"].__setitem__(1, ["good", "bad"]), "proof must be of single texts"),
        (lambda m: m.update({"/root/a\nb": 1}), "json: …: Extra"),
        (lambda m: m.update(max_tokens="48"), "max_tokens"),
        (lambda m: m.update(max_tokens=0), "max_tokens"),
        (lambda m: m.update(pad_id=-1), "pad_id"),
        (lambda m: m.update(role="pupil"), "role"),
        (lambda m: m.update(role="teacher"), "inputs of a teacher"),
        (lambda m: m["inputs"].reverse(), "inputs of a student"),
        (lambda m: m["graphs"].pop("exact"), "exact"),
        (lambda m: m["graphs"]["fast"].update(file="model.onnx"), "file of its own"),
        (lambda m: m["graphs"]["exact"].update(file="../model.onnx"), "file"),
        (lambda m: m["graphs"]["exact"].update(tolerance=1e9), "tolerance"),
        (lambda m: m["graphs"]["exact"].update(flips=2), "flips"),
        (lambda m: m["files"].update({"more.onnx": "0" * 64}), "files must list"),
        (lambda m: m["files"].update({"model.onnx": "short"}), "files"),
        (lambda m: m["proof"]["logits"].pop("fast"), "logits for each graph"),
        (lambda m: m["proof"]["logits"]["exact"].pop(), "one logit per label"),
        (lambda m: m["proof"]["logits"]["exact"][0].pop(), "one logit per label"),
        (lambda m: m["proof"].update(texts=[]), "texts"),
        (lambda m: m["results"][0].update(value=1e300), "value"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(student: Path, change: Change, message: str) -> None:
    edit(student, change)
    with pytest.raises(InvalidManifest, match=message):
        read_manifest(student)


def test_a_broken_tokenizer_is_refused(student: Path) -> None:
    replace(student, "tokenizer.json", b"{}")
    with pytest.raises(InvalidTokenizer, match=r"tokenizer\.json"):
        open_bundle(student)


def test_a_broken_graph_is_refused(student: Path) -> None:
    replace(student, "model.onnx", b"not a graph")
    with pytest.raises(GraphMismatch, match=r"model\.onnx"):
        open_bundle(student)


def test_a_graph_with_other_inputs_is_refused(student: Path) -> None:
    replace(student, "model.onnx", toy.teacher_graph())
    with pytest.raises(GraphMismatch, match="attention_mask"):
        open_bundle(student)


def test_labels_that_do_not_match_the_graph_are_refused(student: Path) -> None:
    replace(student, "model.onnx", toy.student_graph(width=2))
    with pytest.raises(GraphMismatch, match="3 labels"):
        open_bundle(student)


def test_a_graph_with_an_output_of_another_name_is_refused(student: Path) -> None:
    model = onnx.load_from_string(toy.student_graph())
    model.graph.output[0].name = "scores"
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["scores"]))
    replace(student, "model.onnx", model.SerializeToString())
    with pytest.raises(GraphMismatch, match="logits"):
        open_bundle(student)


def test_other_weights_fail_the_proof(student: Path) -> None:
    replace(student, "model.onnx", toy.student_graph(seed=9))
    with pytest.raises(ProofFailed, match="differ from the exporter's"):
        open_bundle(student)


def test_a_tokenizer_that_cuts_differently_fails_the_proof(student: Path) -> None:
    edit(student, lambda manifest: manifest.update(max_tokens=4))
    with pytest.raises(ProofFailed):
        open_bundle(student)


def test_a_graph_that_ignores_lengths_fails_the_proof(tmp_path: Path) -> None:
    files = toy.student_files(minds_lengths=False)
    with pytest.raises(ProofFailed, match="batched"):
        write_bundle(tmp_path / "toy" / "1", toy.draft("toy", "1", Role.STUDENT, files), files, card=None)


def test_a_proof_that_cannot_fail_is_no_proof(tmp_path: Path) -> None:
    files = toy.student_files()
    manifest = toy.draft("toy", "1", Role.STUDENT, files, texts=("good film", "bad film"))
    with pytest.raises(ProofFailed, match="one length"):
        write_bundle(tmp_path / "toy" / "1", manifest, files, card=None)


def test_writing_leaves_either_a_bundle_or_nothing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    files = toy.student_files()
    manifest = toy.draft("toy", "1", Role.STUDENT, files)
    spoilt = files | {"model.onnx": toy.student_graph(seed=9)}
    with pytest.raises(ProofFailed):
        write_bundle(models / "toy" / "1", manifest.model_copy(update={"files": digests(spoilt)}), spoilt, card=None)
    assert list((models / "toy").iterdir()) == []
    write_bundle(models / "toy" / "1", manifest, files, card="# Card\n")
    assert sorted(file.name for file in (models / "toy" / "1").iterdir()) == [
        "README.md",
        "manifest.json",
        "model.onnx",
        "model_quantized.onnx",
        "tokenizer.json",
    ]
    found = read_manifest(models / "toy" / "1")
    assert found.model_dump(exclude={"seal"}) == manifest.model_dump()


def test_a_version_is_never_overwritten(student: Path) -> None:
    files = toy.student_files()
    before = {file: file.read_bytes() for file in student.iterdir()}
    with pytest.raises(BundleExists, match="next version"):
        write_bundle(student, toy.draft("toy", "1", Role.STUDENT, files), files, card=None)
    assert {file: file.read_bytes() for file in student.iterdir()} == before


def test_files_that_the_manifest_does_not_describe_are_not_written(tmp_path: Path) -> None:
    files = toy.student_files()
    manifest = toy.draft("toy", "1", Role.STUDENT, files)
    with pytest.raises(WrongDigest):
        write_bundle(tmp_path / "toy" / "1", manifest, files | {"more.txt": b""}, card=None)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_must_stand_where_its_manifest_says(student: Path) -> None:
    moved = student.rename(student.parent / "7")
    with pytest.raises(InvalidManifest, match="toy/1"):
        check_place(moved, read_manifest(moved))


def test_versions_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for place in ("b/10", "b/9", "a/1", ".staging/1", "b/.10-half", "lost+found"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "README.md").write_text("")
    assert [(place.name, place.version) for place in find_bundles(tmp_path)] == [
        ("a", "1"),
        ("b", "9"),
        ("b", "10"),
    ]


@pytest.mark.parametrize("place", ["Big/1", "a/latest", "a/1.0", "a/1\n"])
def test_what_is_no_place_for_a_bundle_is_not_passed_over_in_silence(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(UnexpectedFile, match="not a place"):
        find_bundles(tmp_path)


def test_a_folder_of_models_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        find_bundles(tmp_path / "nowhere")


def test_opening_a_bundle_leaves_the_arithmetic_of_the_process_alone(toy_student: Path) -> None:
    smallest = 5e-324  # a denormal number: a session can set the processor to take them for zero

    def after_opening() -> float:
        open_bundle(toy_student)
        return float(np.float64(smallest) * np.float64(1))

    with ThreadPoolExecutor(max_workers=1) as thread:
        assert thread.submit(after_opening).result() == smallest
    assert after_opening() == smallest


def test_every_error_is_one_line(student: Path) -> None:
    replace(student, "model.onnx", b"not a graph")
    with pytest.raises(BundleError) as caught:
        open_bundle(student)
    assert "\n" not in str(caught.value)
