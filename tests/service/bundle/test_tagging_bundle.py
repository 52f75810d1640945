"""A tagger's bundle: opened only if it is one, and blind to the neighbours of a text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.engines import EngineOptions
from service.bundle.errors import GraphMismatch, InvalidManifest, ProofFailed
from service.bundle.manifest import Precision, Role, Task
from service.bundle.rows import Buckets
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.spans import Entity
from service.bundle.store import read_manifest
from service.offline.records import Record
from service.offline.scoring import Scorer, Sizes
from tests.service.bundle.spoiling import Change, edit, replace
from tests.toys import toy
from tests.toys.tagging import TEXTS, expected

TIGHT = EngineOptions(buckets=Buckets(rows=(2, 4, 16), lengths=(8, 32, 64)))
words = st.sampled_from((*toy.WORDS, "goodly", "films", "dullest", "Ünknown", "好", "[SEP]", "\n"))
texts = st.lists(words, max_size=60).map(" ".join) | st.text(max_size=80)


@pytest.fixture(scope="module", params=["ner", "ner-teacher"])
def folder(request: pytest.FixtureRequest, taggers: Path) -> Path:
    return taggers / str(request.param) / "1"


@pytest.fixture(scope="module")
def bundle(folder: Path) -> OpenBundle:
    return open_bundle(folder)


@pytest.fixture(scope="module")
def tight(folder: Path) -> OpenBundle:
    return open_bundle(folder, options=TIGHT)


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return toy.publish(tmp_path, "ner", "1", Role.STUDENT, task=Task.TAGGING, labels=toy.TAGS)


def own(bundle: OpenBundle, batch: list[str]) -> list[np.ndarray]:
    rows = bundle.encoder.encode(batch)
    return list(bundle.apart(rows, bundle.run(rows)))


@settings(max_examples=60)
@given(batch=st.lists(texts, min_size=1, max_size=10))
def test_a_text_gets_the_same_logits_alone_as_in_any_batch(
    bundle: OpenBundle, tight: OpenBundle, batch: list[str]
) -> None:
    alone = [own(bundle, [text])[0] for text in batch]
    for found in (own(bundle, batch), own(tight, batch)):
        for ours, wanted, row in zip(found, alone, bundle.encoder.encode(batch), strict=True):
            assert ours.shape == wanted.shape == (len(row), len(toy.TAGS))
            assert np.abs(ours - wanted).max(initial=0) < 1e-5


def test_buckets_do_pad(tight: OpenBundle) -> None:
    rows = tight.encoder.encode(["a good film"])
    assert tight.run(rows).shape == (1, 8, len(toy.TAGS))


def test_both_graphs_open_and_differ(tagger: Path) -> None:
    exact, fast = (own(open_bundle(tagger, precision), ["a good film"])[0] for precision in Precision)
    assert 1e-4 < np.abs(exact - fast).max() < 1


def test_a_proof_has_the_logits_of_all_pieces(folder: Path, bundle: OpenBundle) -> None:
    proof = read_manifest(folder).proof
    lengths = [len(row) for row in bundle.encoder.encode(proof.texts)]
    assert [len(row) for row in proof.logits[Precision.EXACT]] == [length * len(toy.TAGS) for length in lengths]
    assert len(set(lengths)) > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(labels=["O", "B-A", "I-A", "S-A", "E-A"]), "labels of a tagging task must be O and names"),
        (lambda m: m.update(labels=["O", "B-A", "I-A", "B-", "I-B"]), "labels of a tagging task must be O and names"),
        (lambda m: m.update(labels=["X", "B-A", "I-A", "B-B", "I-B"]), "labels of a tagging task must be O and names"),
        (lambda m: m.update(labels=["O"]), "labels of a tagging task must be 2 or more"),
        (lambda m: m.update(texts=2, inputs=["input_ids", "lengths", "pair_ids", "pair_lengths"]), "of single texts"),
        (lambda m: m["proof"]["logits"]["exact"][1].pop(), "one logit per label and piece"),
        (lambda m: m["proof"]["logits"]["exact"].pop(), "one logit per label and piece"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(tagger: Path, change: Change, message: str) -> None:
    edit(tagger, change)
    with pytest.raises(InvalidManifest, match=message):
        read_manifest(tagger)


@pytest.mark.parametrize("labels", [("O", "A", "B", "C", "D"), ("I-A", "I-B", "O", "I-C", "I-D"), toy.TAGS[::-1]])
def test_each_scheme_is_taken(tagger: Path, labels: tuple[str, ...]) -> None:
    edit(tagger, lambda manifest: manifest.update(labels=labels))
    assert open_bundle(tagger).manifest.labels == labels


def test_a_graph_of_whole_texts_tags_nothing(tagger: Path) -> None:
    replace(tagger, "model.onnx", toy.student_graph(width=len(toy.TAGS)))
    with pytest.raises(GraphMismatch, match="for 5 labels of each piece"):
        open_bundle(tagger)


def test_a_tagger_classifies_nothing(student: Path) -> None:
    replace(student, "model.onnx", toy.tagger_graph(width=len(toy.LABELS)))
    with pytest.raises(GraphMismatch, match=r"gives logits of shape \['B', 'T', 3\] for 3 labels"):
        open_bundle(student)


def test_tags_that_do_not_match_the_graph_are_refused(tagger: Path) -> None:
    replace(tagger, "model.onnx", toy.tagger_graph(width=7))
    with pytest.raises(GraphMismatch, match="for 5 labels of each piece"):
        open_bundle(tagger)


def test_a_graph_that_reads_the_padding_is_refused(tagger: Path) -> None:
    replace(tagger, "model.onnx", toy.tagger_graph(minds_lengths=False))
    with pytest.raises(ProofFailed, match="batched, its logits differ from those alone"):
        open_bundle(tagger)


def test_other_weights_fail_the_proof(tagger: Path) -> None:
    replace(tagger, "model.onnx", toy.tagger_graph(seed=9))
    with pytest.raises(ProofFailed, match="differ from the exporter's"):
        open_bundle(tagger)


def test_a_proof_of_another_tokenizer_is_refused(tagger: Path) -> None:
    edit(tagger, lambda manifest: manifest["proof"]["logits"]["exact"][1].extend([0.0] * len(toy.TAGS)))
    with pytest.raises(ProofFailed, match="gives 5 logits for text 1 of its proof, not 10"):
        open_bundle(tagger)


@given(batch=st.lists(texts, max_size=20))
def test_files_are_tagged_as_if_each_text_were_alone(bundle: OpenBundle, batch: list[str]) -> None:
    records = [Record(line, text) for line, text in enumerate((*batch, *TEXTS))]
    with Scorer(bundle, 2, Sizes(window_rows=7, window_chars=200, batch_rows=3, batch_tokens=30)) as scorer:
        answers = list(scorer.answers(iter(records), "here"))
    assert [answer.record for answer in answers] == records
    for answer, wanted in zip(answers, expected(bundle, [str(record.text) for record in records]), strict=True):
        found = [entity for entity in answer.found if isinstance(entity, Entity)]
        assert [entity.place for entity in found] == [entity.place for entity in wanted]
        assert [entity.score for entity in found] == pytest.approx([entity.score for entity in wanted], abs=1e-6)
    assert any(answer.found for answer in answers)
