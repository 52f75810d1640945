"""A teacher's bundle teaches as it is served: its labels, its embeddings, its logits, and no weights beside it."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from export.beginnings.vocabulary import student_vocabulary
from export.errors import ModelError
from export.graphs.to_onnx import embedding_table, teacher_graph
from export.pipeline import Places, distill
from export.sections import TeacherSource
from export.teachers.hugging_face import Teacher
from export.teachers.opened import open_teacher
from export.teachers.served import ServedTeacher, is_bundle
from service.bundle.manifest import Role
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from tests.toys import toy
from tests.toys.workshop import Shop, sentences

TEXTS = [text for text, _ in sentences()[:50]]


@pytest.fixture(scope="module")
def served(adopted: Path) -> ServedTeacher:
    return ServedTeacher.load(str(adopted))


@pytest.fixture(scope="module")
def torch_teacher(taught: Path) -> Teacher:
    return Teacher.load(str(taught))


def test_a_bundle_is_told_from_a_model(adopted: Path, taught: Path) -> None:
    assert is_bundle(str(adopted))
    assert not is_bundle(str(taught))
    assert not is_bundle("some/id-of-the-hub")
    assert isinstance(open_teacher(TeacherSource(model=str(adopted)), 1), ServedTeacher)
    assert isinstance(open_teacher(TeacherSource(model=str(taught), max_tokens=64), 1), Teacher)


def test_it_says_what_the_service_says(served: ServedTeacher, adopted: Path) -> None:
    bundle = open_bundle(adopted)
    together = np.concatenate([found.logits for found in served.signals(TEXTS, None, batch_size=7)])
    np.testing.assert_allclose(together, bundle.classify(TEXTS), atol=1e-5)
    np.testing.assert_allclose(served.exact_logits(TEXTS), together, atol=1e-5)
    assert (served.labels, served.task) == (bundle.manifest.labels, bundle.manifest.task)
    assert served.digest() == bundle.manifest.seal


def test_its_embeddings_are_torchs_to_eight_bits(served: ServedTeacher, torch_teacher: Teacher) -> None:
    """The toy's table is small enough to be stored in fp32; another one is stored as int8 in the test below."""
    np.testing.assert_allclose(served.embeddings, torch_teacher.embeddings, atol=1e-6)


def test_a_table_that_is_stored_as_int8_is_multiplied_out(
    torch_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graphs.to_onnx.LARGE", 100)
    wanted = torch_teacher.embeddings
    found = embedding_table(teacher_graph(torch_teacher.model))
    assert found.shape == wanted.shape
    step = np.abs(wanted).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - wanted) <= step).all()
    assert not np.array_equal(found, wanted)


def test_a_graph_without_a_table_says_what_to_do() -> None:
    value = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"])
    out = helper.make_tensor_value_info("logits", TensorProto.INT64, ["B", "T"])
    graph = helper.make_graph([helper.make_node("Identity", ["input_ids"], ["logits"])], "none", [value], [out])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    with pytest.raises(ModelError, match=r"set student\.embeddings = 'random'"):
        embedding_table(content)


def test_its_tokenizer_is_the_models(served: ServedTeacher, torch_teacher: Teacher) -> None:
    ours, theirs = served.tokenizer, torch_teacher.tokenizer
    assert (ours.mask_token, ours.pad_token, ours.pad_token_id) == ("[MASK]", "[PAD]", theirs.pad_token_id)
    for prune in (False, True):
        one, other = (student_vocabulary(tokenizer, TEXTS, prune) for tokenizer in (ours, theirs))
        assert (one.pieces, one.pad_id) == (other.pieces, other.pad_id)
        assert one.kept.tolist() == other.kept.tolist()


def test_what_is_no_teacher_of_single_texts_is_refused(zoo: Path, tmp_path: Path) -> None:
    student = toy.publish(tmp_path, "toy", "1", Role.STUDENT)
    refused = (student, "is no teacher; name one"), (zoo / "same" / "1", "reads pairs, .* look at data.pair")
    for folder, why in refused:
        with pytest.raises(ModelError, match=why):
            ServedTeacher.load(str(folder))


def test_a_student_is_distilled_from_a_bundle_alone(shop: Shop, adopted: Path, tmp_path: Path) -> None:
    recipe = shop.distill_recipe(adopted)
    folder = distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test")
    manifest = read_manifest(folder)
    assert manifest.lineage.teacher == str(adopted)
    found = {(row.what, row.metric): row.value for row in manifest.results}
    assert found["its teacher, as served", "accuracy"] > 0.9
    assert found["student, exact", "agreement with the teacher"] > 0.9
