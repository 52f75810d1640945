"""A folder is opened only if it is exactly what its manifest says, and nothing outside it is ever read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx.external_data_helper import set_external_data

from service.bundle import runtime, seal
from service.bundle.errors import GraphMismatch, MissingFile, UnexpectedFile, WrongDigest
from service.bundle.manifest import Manifest
from service.bundle.runtime import EngineOptions, OpenGraph, open_bundle, open_graph
from service.bundle.store import digests
from tests import toy
from tests.spoiling import edit, replace


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


def test_a_linked_manifest_is_refused(student: Path, toy_student: Path) -> None:
    (student / "manifest.json").unlink()
    (student / "manifest.json").symlink_to(toy_student / "manifest.json")
    with pytest.raises(UnexpectedFile, match=r"manifest\.json: a link"):
        open_bundle(student)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_pipe_is_refused_and_not_waited_for(student: Path, name: str) -> None:
    (student / name).unlink()
    os.mkfifo(student / name)
    with pytest.raises(UnexpectedFile, match=name):
        open_bundle(student)


def test_a_link_that_appears_after_the_check_is_not_followed(
    student: Path, toy_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = seal._check_names

    def check_then_swap(folder: Path, manifest: Manifest) -> None:
        check(folder, manifest)
        (student / "model.onnx").unlink()
        (student / "model.onnx").symlink_to(toy_student / "model.onnx")

    monkeypatch.setattr(seal, "_check_names", check_then_swap)
    with pytest.raises(UnexpectedFile, match=r"model\.onnx: a link"):
        open_bundle(student)


def test_a_hard_link_to_the_right_contents_is_as_good_as_a_copy(student: Path, tmp_path: Path) -> None:
    os.link(student / "model.onnx", tmp_path / "elsewhere.onnx")
    assert (student / "model.onnx").stat().st_nlink == 2
    open_bundle(student)


def test_a_manifest_of_any_size_is_not_read(student: Path) -> None:
    with (student / "manifest.json").open("ab") as file:
        file.truncate(seal.LARGEST_MANIFEST + 1)
    with pytest.raises(UnexpectedFile, match=r"manifest\.json: not a plain file of at most"):
        open_bundle(student)


def test_what_was_hashed_is_what_runs(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is changed between its check and its use; what was checked is used."""
    bright = open_bundle(student).classify(["good"])

    def swap_then_open(content: bytes, options: EngineOptions, source: str) -> OpenGraph:
        Path(source).write_bytes(toy.student_graph(seed=9))
        return open_graph(content, options, source)

    monkeypatch.setattr(runtime, "open_graph", swap_then_open)
    assert (open_bundle(student).classify(["good"]) == bright).all()


def test_a_linked_folder_is_refused(student: Path) -> None:
    (student.parent / "2").symlink_to(student)
    with pytest.raises(UnexpectedFile, match="link"):
        open_bundle(student.parent / "2")


def test_the_card_is_free_to_change_or_to_go(student: Path) -> None:
    (student / "README.md").write_text("other words")
    open_bundle(student)
    (student / "README.md").unlink()
    open_bundle(student)


def hard_link(bundle: Path, file: Path) -> str:
    os.link(file, bundle / "weights.bin")
    return "weights.bin"


def symbolic_link(bundle: Path, file: Path) -> str:
    (bundle / "weights.bin").symlink_to(file)
    return "weights.bin"


OUTSIDE: dict[str, Callable[[Path, Path], str]] = {
    "in the folder": lambda bundle, file: str(shutil.copy(file, bundle / file.name)) and file.name,
    "outside by ..": lambda bundle, file: f"../../../{file.name}",
    "absolute": lambda bundle, file: str(file),
    "through a link": symbolic_link,
    "through a hard link": hard_link,
    "in memory": lambda bundle, file: "*/_ORT_MEM_ADDR_/*",
}


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("listed", [True, False])
def test_a_graph_with_data_outside_itself_is_refused(student: Path, tmp_path: Path, place: str, listed: bool) -> None:
    """With true digests; `listed`: where it can be, the other file even passes for one of the bundle's."""
    file = tmp_path / "weights.bin"
    model = onnx.load_from_string(toy.student_graph())
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "out")
    file.write_bytes(weights.raw_data)
    location = OUTSIDE[place](student, file)
    inside = student / "weights.bin"
    if listed and inside.exists():
        location = "model_quantized.onnx"
        inside.replace(student / location)
        true = digests({location: file.read_bytes()})
        edit(student, lambda manifest: manifest["files"].update(true))
    set_external_data(weights, location)
    weights.ClearField("raw_data")
    content = model.SerializeToString()
    replace(student, "model.onnx", content)
    with pytest.raises((GraphMismatch, UnexpectedFile)) as caught:
        open_bundle(student)
    assert "\n" not in str(caught.value)
    with pytest.raises(GraphMismatch, match="wants data from outside its file"):
        open_graph(content)
