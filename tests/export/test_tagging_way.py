"""Tagging the whole way: tagged sentences, a teacher, its signals a piece, a student, a bundle, entities over HTTP."""

import re
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_model

from export.beginnings.initial import new_student
from export.beginnings.vocabulary import vocabulary_of
from export.graphs.student_graphs import int8_rows
from export.learning.fine_tuning import fine_tune
from export.networks.pooling import Pooled
from export.networks.students import BiLSTMTagger
from export.objectives.signals import Stacked, stretches
from export.pipeline import Judged, Places, adopt, distill
from export.publishing.publish import Called
from export.recipe import DistillRecipe
from export.sections import HiddenStates
from export.teachers.hugging_face import TaggingTeacher, Teacher
from export.teachers.served import ServedTeacher
from export.texts.datasets import Columns, Names, read_examples
from export.texts.tags import Words
from export.texts.unlabelled import UNLABELLED
from export.transfer.labelling import label
from export.transfer.transfer_set import TransferSet, collect, encode
from service.api.answers import Entities
from service.bundle.manifest import Manifest, Precision, Role, Task
from service.bundle.rows import Spanned
from service.bundle.runtime import open_bundle
from service.bundle.spans import Tag, entities
from service.bundle.store import read_manifest
from service.bundle.tasks import softmax
from service.routes.classify import ClassifyResponse
from tests.running import serving
from tests.toys.tagging_shop import TAGS, TagShop, open_tag_shop
from tests.toys.workshop import bilstm, command

TEXTS = ("", "Anna Lund lives in Port-au-Prince.", "nobody came .", "Emre O'Hara, of the U.N. Plaza , met Özdemir 😀")
LAYER = HiddenStates(layer=1, pooling=Pooled.FIRST)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TagShop:
    return open_tag_shop(tmp_path_factory.mktemp("tags"))


@pytest.fixture(scope="module")
def taught(shop: TagShop) -> Path:
    return fine_tune(shop.teach_recipe(), shop.folder / "teacher")


@pytest.fixture(scope="module")
def teacher(taught: Path) -> TaggingTeacher:
    found = Teacher.load(str(taught), 64)
    assert isinstance(found, TaggingTeacher)
    return found


@pytest.fixture(scope="module")
def adopted(shop: TagShop, taught: Path) -> Path:
    return adopt(str(taught), Called("toy-ner"), Judged(str(shop.dev), Columns()), shop.folder / "models", "a test")


@pytest.fixture(scope="module")
def recipe(shop: TagShop, taught: Path) -> DistillRecipe:
    return shop.distill_recipe(taught)


@pytest.fixture(scope="module")
def bundle(shop: TagShop, recipe: DistillRecipe) -> Path:
    return distill(recipe, Places(shop.folder / "work", shop.folder / "models"), "a test")


@pytest.fixture(scope="module")
def student(shop: TagShop, recipe: DistillRecipe, teacher: TaggingTeacher, bundle: Path) -> BiLSTMTagger:
    """The network out of which the bundle was made."""
    texts = collect(recipe.data.read(), recipe.transfer, "", recipe.seed)
    vocabulary = vocabulary_of(bilstm(recipe), teacher.tokenizer, texts.strings)
    labels = len(recipe.data.labels)
    found = new_student(bilstm(recipe), recipe.data.form, labels, vocabulary, teacher, recipe.seed)
    assert isinstance(found, BiLSTMTagger)
    (best,) = (shop.folder / "work").glob("students/*/*/best.safetensors")
    load_model(found, str(best))
    values, scales = int8_rows(found.table().detach().numpy(), axis=0)  # as the graph keeps them
    found.begin_with(torch.from_numpy(values * scales))
    return found.eval()


def measured(manifest: Manifest, what: str) -> dict[str, float]:
    return {row.metric: row.value for row in manifest.results if row.what == what}


def texts_of(path: Path) -> list[str]:
    examples = read_examples(str(path), Names(TAGS, Task.TAGGING), Columns())
    return [example.text for example in examples if isinstance(example.text, str)]


def test_a_teacher_learns_its_tags(teacher: TaggingTeacher, adopted: Path) -> None:
    assert (teacher.task, teacher.labels) == (Task.TAGGING, TAGS)
    manifest = read_manifest(adopted)
    assert (manifest.task, manifest.role, manifest.labels) == (Task.TAGGING, Role.TEACHER, TAGS)
    assert measured(manifest, "teacher, torch")["entity F1"] > 0.8
    assert manifest.graphs[Precision.EXACT].parity < 0.2  # large matrices are stored as int8
    assert manifest.graphs[Precision.EXACT].wander < 1e-4
    assert all(row.rows == 60 for row in manifest.results)


def test_signals_are_of_pieces_without_special_tokens(teacher: TaggingTeacher) -> None:
    (found,) = teacher.signals(TEXTS, LAYER)
    assert found.pieces is not None
    rows = teacher.read(TEXTS)
    assert found.pieces.counts.tolist() == [len(row) - 2 for row in rows]
    assert found.pieces.places.tolist() == [list(place) for row in rows for place in row.places[1:-1]]
    starts = np.cumsum([0, *map(len, rows)])
    inner = np.concatenate([np.arange(a + 1, b - 1) for a, b in pairwise(starts)])
    np.testing.assert_allclose(found.logits, teacher.exact_logits(TEXTS)[inner], atol=0.3)  # bfloat16 beside fp32
    assert found.hidden is not None
    assert found.hidden.shape == (sum(len(row) - 2 for row in rows), 32)
    with torch.inference_mode():
        states = teacher.model(input_ids=torch.tensor([list(rows[1])]), output_hidden_states=True).hidden_states[1]
    own = found.hidden[np.arange(len(rows[1]) - 2)]  # the first text has none
    np.testing.assert_allclose(own.astype(np.float32), states[0, 1:-1].numpy(), atol=0.1)


def test_signals_come_back_in_the_order_of_the_texts_and_are_kept(
    teacher: TaggingTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = (TEXTS, TEXTS[::-1], TEXTS[3:])
    found = label(teacher, groups, LAYER, tmp_path)
    assert found.pieces is not None
    assert found.hidden is not None
    offsets = found.pieces.offsets
    for place, text in enumerate(text for group in groups for text in group):
        (alone,) = teacher.signals([text], LAYER)
        assert alone.pieces is not None
        assert alone.hidden is not None
        own = np.arange(offsets[place], offsets[place + 1])
        assert np.array_equal(found.pieces.places[own], alone.pieces.places)
        np.testing.assert_allclose(found.logits[own], alone.logits, atol=0.3)
        np.testing.assert_allclose(found.hidden[own], alone.hidden[np.arange(len(own))], atol=0.1)
    monkeypatch.setattr(TaggingTeacher, "signals", None)  # asked for again, it would fail
    again = label(teacher, groups, LAYER, tmp_path)
    assert np.array_equal(again.logits, found.logits)
    assert np.array_equal(np.asarray(again.hidden), np.asarray(found.hidden))


def transfer_set(recipe: DistillRecipe, teacher: TaggingTeacher, cache: Path, student_tokens: int = 48) -> TransferSet:
    """As `distill` makes it."""
    from export.pipeline import student_encoder

    texts = collect(recipe.data.read(), recipe.transfer, "[MASK]", recipe.seed)
    signals = label(teacher, texts.groups, LAYER, cache)
    recipe = recipe.model_copy(update={"student": bilstm(recipe).model_copy(update={"max_tokens": student_tokens})})
    vocabulary = vocabulary_of(bilstm(recipe), teacher.tokenizer, texts.strings)
    return encode(student_encoder(recipe, vocabulary), texts, signals, recipe.data, vocabulary.pad_id)


def test_a_student_learns_the_teachers_pieces(recipe: DistillRecipe, teacher: TaggingTeacher, tmp_path: Path) -> None:
    found = transfer_set(recipe, teacher, tmp_path)
    assert found.pieces
    assert found.theirs is None  # the very same pieces
    assert len(found.targets) == len(found.signals.logits) == len(found.tokens[0].flat)
    texts = collect(recipe.data.read(), recipe.transfer, "[MASK]", recipe.seed)
    assert found.labelled.tolist() == list(range(len(texts.groups[0])))
    batch = found.batch(np.array([3, 0]), torch.device("cpu"))
    lengths = found.lengths[[3, 0]]
    assert len(batch.target.logits) == len(batch.target.labels) == lengths.sum()
    own = stretches(found.tokens[0].offsets, [3, 0])
    assert np.array_equal(batch.target.logits.numpy(), found.signals.logits[own])
    last = texts.labels[found.labelled[-1]]
    assert isinstance(last, Words)
    rest = found.tokens[0].offsets[found.labelled[-1] :]
    learnt = found.targets[rest[0] : rest[1]]
    assert (learnt[0], set(learnt.tolist()) >= set(last.tags)) == (last.tags[0], True)
    assert set(found.targets[rest[1] :].tolist()) == {UNLABELLED}


def test_what_either_cuts_off_is_learnt_by_neither(recipe: DistillRecipe, taught: Path, tmp_path: Path) -> None:
    short = Teacher.load(str(taught), 8)
    assert isinstance(short, TaggingTeacher)
    by_teacher = transfer_set(recipe, short, tmp_path)
    assert by_teacher.lengths.max() == 6
    by_student = transfer_set(recipe, short, tmp_path, student_tokens=4)
    assert by_student.lengths.max() == 4
    assert by_student.theirs is not None
    for found in (by_teacher, by_student):
        batch = found.batch(np.arange(len(found)), torch.device("cpu"))
        assert len(batch.target.logits) == len(batch.target.labels) == found.lengths.sum()


def test_augmented_sentences_get_their_tags_from_the_teacher(
    shop: TagShop, taught: Path, teacher: TaggingTeacher, tmp_path: Path
) -> None:
    copies = {"copies": 1, "p_mask": 0.3, "p_pos": 0.0, "p_ngram": 0.3}
    recipe = shop.distill_recipe(taught, transfer={"augment": copies})
    found = transfer_set(recipe, teacher, tmp_path)
    assert found.theirs is None
    assert len(found) > len(found.labelled) > 0


def test_a_bundles_signals_are_its_own_networks(teacher: TaggingTeacher, adopted: Path) -> None:
    served = ServedTeacher.load(str(adopted))
    assert (served.task, served.labels) == (Task.TAGGING, TAGS)
    (ours,), (theirs,) = served.signals(TEXTS, None), teacher.signals(TEXTS, None)
    assert ours.pieces is not None
    assert theirs.pieces is not None
    assert np.array_equal(ours.pieces.places, theirs.pieces.places)
    assert ours.pieces.counts.tolist() == theirs.pieces.counts.tolist()
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=0.4)
    np.testing.assert_allclose(served.exact_logits(TEXTS), teacher.exact_logits(TEXTS), atol=0.2)


def test_a_student_goes_the_whole_way(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert (manifest.task, manifest.role, manifest.labels) == (Task.TAGGING, Role.STUDENT, TAGS)
    taught, exact = measured(manifest, "its teacher, torch"), measured(manifest, "student, exact")
    assert taught["entity F1"] > 0.8
    assert exact["entity F1"] > 0.75
    assert exact["agreement with the teacher"] > 0.85
    assert taught["agreement with the teacher"] == 1
    assert manifest.graphs[Precision.EXACT].wander == 0
    assert manifest.graphs[Precision.EXACT].parity < 0.1
    assert manifest.profile[Precision.EXACT].margin is None
    assert manifest.profile[Precision.EXACT].rows == 60
    for folder in (bundle, *(bundle.parent.parent / "toy-ner").glob("[0-9]")):
        for precision in read_manifest(folder).graphs:
            open_bundle(folder, precision)  # proves itself


def entities_of(student: BiLSTMTagger, rows: Sequence[Spanned]) -> list[list[tuple[str, int, int]]]:
    """What the network itself finds in each row alone."""
    found = []
    for row in rows:
        ids = torch.tensor([list(row) or [0]])
        with torch.inference_mode():
            logits = student(ids, torch.tensor([ids.shape[1]])).logits[: len(row)].numpy()
        scores = softmax(logits.reshape(-1, len(TAGS)))
        found.append([entity.place for entity in entities(row, scores, list(map(Tag.of, TAGS)))])
    return found


def test_entities_over_http_are_the_torch_students(shop: TagShop, student: BiLSTMTagger, bundle: Path) -> None:
    texts = [*TEXTS, *texts_of(shop.dev)]
    rows = open_bundle(bundle).encoder.encode(texts)
    wanted = entities_of(student, [row for row in rows if isinstance(row, Spanned)])
    with serving(bundle.parent.parent, "--default", bundle.parent.name) as server, server.client() as client:
        answer = client.post("/v1/classify", json={"input": texts})
    assert answer.status_code == 200, answer.text
    results = ClassifyResponse.model_validate_json(answer.content).data
    found = []
    for row in results:
        assert isinstance(row, Entities)
        found.append([(each.label, each.start, each.end) for each in row.entities])
    assert found == wanted
    assert sum(map(len, found)) > 60


def test_stages_with_hidden_states_learn_pieces(shop: TagShop, taught: Path, tmp_path: Path) -> None:
    plans = [{"representation": 1.0}, {"logits": 1.0, "unfreeze": True}, {"labels": 1.0, "unfreeze": True}]
    loop = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "evaluations_per_epoch": 1, "bf16": False}
    wanted = {"embedding": 16, "hidden": 16, "dense": 32, "activation": "gelu", "max_tokens": 48}
    recipe = shop.distill_recipe(taught, method="mukherjee2020", stages=plans, training=loop, student=wanted)
    source = recipe.teacher.model_copy(update={"hidden": HiddenStates(layer=2)})
    recipe = recipe.model_copy(update={"teacher": source})
    manifest = read_manifest(distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test"))
    assert manifest.lineage.method == "mukherjee2020"
    assert measured(manifest, "student, torch")["entity F1"] > 0.5


def test_a_student_of_whole_words_learns_from_first_pieces(shop: TagShop, taught: Path, tmp_path: Path) -> None:
    wanted = {
        "vocabulary": "words",
        "embeddings": "random",
        "embedding": 16,
        "hidden": 16,
        "dense": 32,
        "max_tokens": 48,
    }
    recipe = shop.distill_recipe(taught, student=wanted)
    manifest = read_manifest(distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test"))
    assert measured(manifest, "student, exact")["entity F1"] > 0.7


def test_a_graph_that_is_there_already_is_adopted(shop: TagShop, taught: Path, adopted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(taught, tmp_path / "onnx"))
    (folder / "model.safetensors").unlink()
    shutil.copy(adopted / "model.onnx", folder)
    manifest = read_manifest(
        adopt(str(folder), Called("graph"), Judged(str(shop.dev), Columns()), tmp_path / "models", "a test")
    )
    assert manifest.task is Task.TAGGING
    assert measured(manifest, "teacher, exact")["entity F1"] > 0.8


def test_several_data_sets_are_evaluated_beside_each_other(shop: TagShop, bundle: Path, adopted: Path) -> None:
    other = shop.folder / "gpe.conll"
    other.write_text("Anna\tI-PER\nlives\tO\nin\tO\nUlm\tB-GPE\nin\tO\nMay\tB-DATE\n")
    options = ("--relabel", "GPE=LOC", "--relabel", "DATE=O", "--repair", "--teacher", adopted)
    found = command("evaluate", bundle, shop.dev, other, *options, cwd=shop.folder)
    assert (found.returncode, found.stderr) == (0, "")
    head, _, *lines = found.stdout.splitlines()
    assert head == "| data | rows | entity F1 | precision | recall | F1 by characters | agreement with the teacher |"
    assert [line.split(" | ")[0] for line in lines] == [f"| {shop.dev}", f"| {other}", "| mean", "| spread"]
    values = np.array([[float(cell) for cell in line.strip("| ").split(" | ")[-5:]] for line in lines])
    np.testing.assert_allclose(values[2:], [values[:2].mean(axis=0), values[:2].std(axis=0, ddof=1)], atol=1e-4)
    exact = measured(read_manifest(bundle), "student, exact")
    assert 0.5 < values[0, 3] <= values[0, 0]  # words with marks in them may be torn
    exact["F1 by characters"] = values[0, 3]
    np.testing.assert_allclose(values[0], [exact[name] for name in head.strip("| ").split(" | ")[2:]], atol=1e-4)


REFUSED = {
    "an unknown entity": ("evaluate {bundle} {other}", "line 1: I-PER, but it begins the sentence"),
    "another entity": ("evaluate {bundle} {other} --repair", "line 4: unknown tag 'B-GPE'"),
    "half a name": ("evaluate {bundle} {other} --relabel GPE", "--relabel GPE: write NAME=OTHER"),
    "a calibration": (
        "calibrate {bundle} --teacher {adopted} --texts {dev}",
        "does tagging; only a single label",
    ),
}


@pytest.mark.parametrize(("line", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_with_tags_is_one_line(
    shop: TagShop, bundle: Path, adopted: Path, tmp_path: Path, line: str, message: str
) -> None:
    other = tmp_path / "gpe.conll"
    other.write_text("Anna\tI-PER\nlives\tO\nin\tO\nUlm\tB-GPE\n")
    words = [word.format(bundle=bundle, adopted=adopted, other=other, dev=shop.dev) for word in line.split()]
    found = command(*words, cwd=tmp_path)
    assert found.returncode == 2
    assert re.fullmatch(rf"export: .*{re.escape(message)}.*\n", found.stderr)


PARTS = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@given(sizes=PARTS, data=st.data())
def test_stacked_arrays_are_read_as_one(sizes: list[int], data: st.DataObject) -> None:
    whole = np.arange(3 * sum(sizes), dtype=np.float16).reshape(-1, 3)
    stacked = Stacked(np.split(whole, np.cumsum(sizes)[:-1]))
    places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1))), dtype=np.int64)
    assert np.array_equal(stacked[places], whole[places])
    assert (stacked.shape, len(stacked)) == (whole.shape, len(whole))
    assert np.array_equal(np.asarray(stacked), whole)
