"""A bundle is opened only if it is whole, true and proved; and it is written as a whole or not at all."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
    ProviderMissing,
    UnexpectedFile,
    UnknownFormat,
    WrongDigest,
)
from service.bundle.manifest import Precision, Role
from service.bundle.runtime import EngineOptions, open_bundle, open_graph
from service.bundle.store import check_place, digests, find_bundles, read_manifest, write_bundle
from tests import toy

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def student(toy_student: Path, tmp_path: Path) -> Path:
    """A copy of the student that a test may spoil."""
    return Path(shutil.copytree(toy_student, tmp_path / "models" / "toy" / "1"))


def edit(folder: Path, change: Change) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Another file with a true digest, so that only a later check can object."""
    (folder / name).write_bytes(content)
    edit(folder, lambda manifest: manifest["files"].update(digests({name: content})))


def test_a_student_opens_with_either_graph(toy_student: Path) -> None:
    exact, fast = (open_bundle(toy_student, precision) for precision in Precision)
    assert (exact.precision, fast.precision) == (Precision.EXACT, Precision.FAST)
    assert np.abs(exact.classify(["good"]) - fast.classify(["good"])).max() > 1e-4


def test_a_teacher_without_a_fast_graph_opens_with_its_exact_one(toy_teacher: Path) -> None:
    assert open_bundle(toy_teacher, Precision.FAST).precision is Precision.EXACT


def test_scores_of_a_row_add_up_to_one(toy_student: Path) -> None:
    bundle = open_bundle(toy_student)
    scores = bundle.scores(bundle.classify(["good film", ""]))
    assert scores.shape == (2, len(toy.LABELS))
    assert np.allclose(scores.sum(axis=1), 1)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx", "model_quantized.onnx"])
def test_a_missing_file_is_refused(student: Path, name: str) -> None:
    (student / name).unlink()
    with pytest.raises(MissingFile, match=name):
        open_bundle(student)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx", "model_quantized.onnx"])
def test_a_changed_file_is_refused_even_if_it_is_not_the_one_to_be_used(student: Path, name: str) -> None:
    (student / name).write_bytes((student / name).read_bytes() + b" ")
    with pytest.raises(WrongDigest, match=name):
        open_bundle(student)


def test_an_extra_file_is_refused(student: Path) -> None:
    (student / "notes.txt").write_text("hello")
    with pytest.raises(UnexpectedFile, match=r"notes\.txt"):
        open_bundle(student)


def test_an_extra_folder_is_refused(student: Path) -> None:
    (student / "onnx").mkdir()
    with pytest.raises(UnexpectedFile, match="onnx"):
        open_bundle(student)


def test_a_link_is_refused_even_to_the_right_contents(student: Path, toy_student: Path) -> None:
    (student / "model.onnx").unlink()
    (student / "model.onnx").symlink_to(toy_student / "model.onnx")
    with pytest.raises(UnexpectedFile, match=r"model\.onnx"):
        open_bundle(student)


def test_a_linked_folder_is_refused(student: Path) -> None:
    (student.parent / "2").symlink_to(student)
    with pytest.raises(UnexpectedFile, match="link"):
        open_bundle(student.parent / "2")


def test_the_card_is_free_to_change_or_to_go(student: Path) -> None:
    (student / "README.md").write_text("other words")
    open_bundle(student)
    (student / "README.md").unlink()
    open_bundle(student)


def test_an_unknown_format_is_named_before_anything_else(student: Path) -> None:
    (student / "manifest.json").write_text('{"format": 2, "all": "else differs"}')
    with pytest.raises(UnknownFormat, match="format 2"):
        open_bundle(student)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", "\udcff"])
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
        (lambda m: m.update(labels=["a"]), "labels"),
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


def test_a_provider_that_is_not_there_is_named() -> None:
    with pytest.raises(ProviderMissing, match="NoSuchProvider"):
        open_graph(toy.student_graph(), EngineOptions(provider="NoSuchProvider"))


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
    assert read_manifest(models / "toy" / "1") == manifest


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
