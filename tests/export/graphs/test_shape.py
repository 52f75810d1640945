"""Teachers of a given shape with random weights: bundles like any other that say what they are."""

from pathlib import Path

import pytest

from export.errors import ModelError
from export.networks.shapes import SHAPES, BertShape, parse_shape
from export.publishing.shape import random_bert, shape_bundle
from service.bench.pair.contenders import Names, contenders_of
from service.bundle.errors import BundleExists
from service.bundle.manifest import UNTRAINED, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from tests.toys.workshop import command


def test_a_shape_becomes_a_bundle_that_proves_itself_and_can_be_timed(adopted: Path, tmp_path: Path) -> None:
    done = command("shape", "2x16x2x32", "--like", adopted, "--models", tmp_path / "shapes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder, around = tmp_path / "shapes/random-2x16x2x32/1", read_manifest(adopted)
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    assert (manifest.role, manifest.lineage.method, manifest.results) == (Role.TEACHER, UNTRAINED, ())
    assert (manifest.labels, manifest.max_tokens) == (around.labels, around.max_tokens)
    assert bundle.classify(["a film", "a much longer text about the film"]).shape == (2, 2)
    assert bundle.encoder.encode(["the film"]) == open_bundle(adopted).encoder.encode(["the film"])
    assert "Its weights are random" in (folder / "README.md").read_text()
    [_, found] = contenders_of(Names([str(adopted)], shapes=["2x16x2x32"], shape_models=tmp_path / "shapes"))
    assert found.random
    with pytest.raises(BundleExists, match="choose the next version"):
        shape_bundle("2x16x2x32", adopted, 1, tmp_path / "shapes", "a test")


def test_the_network_has_the_shape_that_was_asked_for() -> None:
    model = random_bert(BertShape(3, 16, 4, 24), pieces=50, max_tokens=64, labels=3)
    shapes = {name: tuple(weights.shape) for name, weights in model.named_parameters()}
    assert len(model.bert.encoder.layer) == 3
    assert shapes["bert.encoder.layer.2.intermediate.dense.weight"] == (24, 16)
    assert shapes["bert.embeddings.word_embeddings.weight"] == (50, 16)
    assert shapes["classifier.weight"] == (3, 16)


@pytest.mark.parametrize(("name", "millions"), [("bert-base", 109), ("bert-large", 335)])
def test_the_named_shapes_have_as_many_weights_as_their_papers_say(name: str, millions: int) -> None:
    from torch import device

    with device("meta"):  # counted, not made
        model = random_bert(SHAPES[name], pieces=30522, max_tokens=128, labels=2)
    assert round(sum(each.numel() for each in model.parameters()) / 1e6) == millions


@pytest.mark.parametrize("text", ["bert", "3x3", "0x16x2x32", "2x16x3x32", "1x2x3x4x5", ""])
def test_what_is_no_shape_is_refused(text: str, adopted: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^shape "):
        parse_shape(text)


def test_a_shape_like_a_student_or_too_large_is_refused(toy_student: Path, adopted: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no teacher"):
        shape_bundle("2x16x2x32", toy_student, 1, tmp_path, "a test")
    with pytest.raises(ModelError, match="fit into a bundle"):
        shape_bundle("48x1600x25x6400", adopted, 1, tmp_path, "a test")
    assert not list(tmp_path.iterdir())
