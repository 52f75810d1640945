"""A folder is opened only if it is exactly what its manifest says, the manifest only if it is what was published,
and nothing outside the folder is ever read."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx.external_data_helper import set_external_data

from service.bundle import runtime, seal
from service.bundle.errors import (
    BrokenSeal,
    BundleError,
    GraphMismatch,
    InvalidManifest,
    MissingFile,
    UnexpectedFile,
    WrongDigest,
)
from service.bundle.manifest import Manifest
from service.bundle.runtime import EngineOptions, OpenGraph, open_bundle, open_graph
from service.bundle.store import BundlePath, digests, find_bundles, read_manifest
from tests.service.bundle.spoiling import Change, edit, replace
from tests.toys import toy

MODELS = Path(__file__).resolve().parents[3] / "models"
FLIPPED_BYTES = 300


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


# --- the seal of the manifest


@pytest.mark.parametrize("place", find_bundles(MODELS), ids=lambda place: place.name)
def test_the_seal_is_the_sha256_of_everything_else_as_canonical_json(place: BundlePath) -> None:
    declared = json.loads((place.folder / "manifest.json").read_text(encoding="utf-8"))
    seal = declared.pop("seal")
    canonical = json.dumps(declared, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert seal == hashlib.sha256(canonical.encode("utf-8")).hexdigest() == read_manifest(place.folder).seal


@pytest.mark.parametrize("place", find_bundles(MODELS), ids=lambda place: place.name)
def test_no_flipped_bit_changes_what_a_manifest_says(place: BundlePath, tmp_path: Path) -> None:
    """Every bit of so many bytes of a real one: refused, or what it says is the same (the end of a long number)."""
    good = (place.folder / "manifest.json").read_bytes()
    said, path, refused = json.loads(good), tmp_path / "manifest.json", 0
    for byte in random.Random(1).sample(range(len(good)), FLIPPED_BYTES):
        for bit in range(8):
            path.write_bytes(good[:byte] + bytes([good[byte] ^ 1 << bit]) + good[byte + 1 :])
            try:
                read_manifest(tmp_path)
            except BundleError as error:
                assert "\n" not in str(error)
                refused += 1
            else:
                assert json.loads(path.read_bytes()) == said, (byte, bit)
    assert refused > 0.9 * 8 * FLIPPED_BYTES


CHANGES: dict[str, Change] = {
    "a word": lambda m: m["lineage"].update(method="another"),
    "a result": lambda m: m["results"][0].update(value=0.5000000000000001),
    "an order": lambda m: m["labels"].reverse(),
    "a field less": lambda m: m.pop("texts"),  # it has a default
    "a digest": lambda m: m["files"].update({"model.onnx": "0" * 64}),
    "the seal": lambda m: m.update(seal="0" * 64),
    "the kind of seal": lambda m: m.update(seal=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest_is_refused_even_if_it_keeps_the_rules(student: Path, change: Change) -> None:
    edit(student, change, reseal=False)
    with pytest.raises(BrokenSeal, match=r"manifest\.json: not as it was published; copy the bundle again"):
        open_bundle(student)


def test_a_manifest_without_a_seal_is_refused(student: Path) -> None:
    edit(student, lambda manifest: manifest.pop("seal"), reseal=False)
    with pytest.raises(InvalidManifest, match="has no seal"):
        open_bundle(student)


def test_the_way_in_which_a_manifest_is_written_is_free(student: Path) -> None:
    path = student / "manifest.json"
    found = read_manifest(student)
    backwards = dict(reversed(json.loads(path.read_text(encoding="utf-8")).items()))
    for content in (
        json.dumps(backwards, indent=7),  # ASCII alone
        json.dumps(backwards, ensure_ascii=False, separators=(",", ":")),
        path.read_text(encoding="utf-8").replace("1e-05", "0.000010"),
    ):
        assert content != path.read_text(encoding="utf-8")
        path.write_text(content, encoding="utf-8")
        assert read_manifest(student) == found
        assert seal.sealed(content) == seal.sealed(seal.sealed(content))


AMBIGUOUS = {
    "a field twice": (b'"role":', b'"role": "teacher", "role":'),
    "a field twice, further in": (b'"parity":', b'"parity": 1, "parity":'),
    "no number": (b'"value": 0.5', b'"value": NaN'),
    "an infinite number": (b'"value": 0.5', b'"value": 1e999'),
    "half a surrogate pair": (b'"random weights"', b'"\\ud800"'),
    "half a surrogate pair, in bytes": (b'"random weights"', b'"\xed\xa0\x80"'),
}


@pytest.mark.parametrize(("good", "bad"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_manifest_that_can_be_read_in_two_ways_is_not_sealed_and_not_read(
    student: Path, good: bytes, bad: bytes
) -> None:
    path = student / "manifest.json"
    content = path.read_bytes()
    assert good in content
    path.write_bytes(content.replace(good, bad))
    with pytest.raises(InvalidManifest, match="not JSON as it should be"):
        read_manifest(student)
    with pytest.raises(ValueError, match=r".+"):
        seal.sealed(path.read_bytes().decode())


def test_a_manifest_in_another_encoding_is_refused(student: Path) -> None:
    path = student / "manifest.json"
    text = path.read_text(encoding="utf-8")
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        path.write_text(text, encoding=encoding)
        with pytest.raises(InvalidManifest, match="not JSON"):
            read_manifest(student)
