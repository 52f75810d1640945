"""The transfer set: which texts, asked once, in batches that need no padding."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.beginnings.vocabulary import student_vocabulary
from export.errors import DataError, ModelError
from export.networks.pooling import Pooled
from export.objectives.signals import Signals
from export.publishing.publish import Reads, encoder_of
from export.sections import Augmentation, HiddenStates, Transfer
from export.teachers.hugging_face import Teacher
from export.texts.datasets import Dataset, Example
from export.texts.sentences import TextSource
from export.texts.splits import besides
from export.texts.unlabelled import UNLABELLED
from export.transfer.labelling import SHARD, label
from export.transfer.transfer_set import Tokens, TransferSet, TransferTexts, collect, encode, length_batches
from service.bundle.encoder import Text
from service.bundle.manifest import Network
from tests.toys.workshop import Shop, sentences

MASK = "[MASK]"
TRAIN = tuple(Example(text, index) for text, index in sentences()[:60])
DEV = tuple(Example(text, index) for text, index in sentences()[60:90])
DATA = Dataset(("negative", "positive"), TRAIN, DEV)
BOTH = Augmentation(copies=3, p_mask=0.2, p_ngram=0.5)


class CountingTeacher(Teacher):
    """A real teacher that notes what it was asked."""

    asked: int = 0
    patience: int = 10**9

    def signals(self, texts: Sequence[Text], hidden: HiddenStates | None, batch_size: int = 128) -> Iterator[Signals]:
        for found in super().signals(texts, hidden, batch_size):
            self.asked += len(found.logits)
            if self.asked > self.patience:
                raise KeyboardInterrupt
            yield found


@pytest.fixture
def teacher(taught: Path) -> CountingTeacher:
    found = CountingTeacher.load(str(taught), max_tokens=64)
    assert isinstance(found, CountingTeacher)
    return found


@pytest.fixture
def texts(tmp_path: Path) -> TextSource:
    """Unlabelled texts; some of them stand in train or dev, some come twice."""
    own = ["an evening of its own", "quite another film"]
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in [*own, TRAIN[0].text, DEV[0].text, *own]))
    return TextSource(source=str(path))


def test_labelled_texts_come_first_with_their_labels(texts: TextSource) -> None:
    found = collect(DATA, Transfer(augment=BOTH, texts=(texts,)), MASK, seed=0)
    assert found.texts[: len(TRAIN)] == tuple(example.text for example in TRAIN)
    assert list(found.labels[: len(TRAIN)]) == [example.label for example in TRAIN]
    assert set(found.labels[len(TRAIN) :]) == {None}
    assert len(found.labels) == len(found.texts)
    assert [len(group) > 0 for group in found.groups] == [True] * 3


def test_no_text_of_the_dev_split_is_learnt_from(texts: TextSource) -> None:
    leaky = besides((DEV[1], *TRAIN, DEV[2]), DEV)
    found = collect(Dataset(DATA.labels, leaky, DEV), Transfer(augment=BOTH, texts=(texts,)), MASK, seed=0)
    assert not {example.text for example in DEV} & set(found.texts)
    assert list(found.labels[: len(TRAIN)]) == [example.label for example in TRAIN]


def test_unlabelled_texts_are_new_and_come_once(texts: TextSource) -> None:
    assert collect(DATA, Transfer(texts=(texts,)), MASK, seed=0).groups[1] == (
        "an evening of its own",
        "quite another film",
    )


def test_of_each_source_is_said_how_many_texts_it_had_and_how_many_are_kept(
    texts: TextSource, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(texts.source).parent)  # a name that fits into the line
    collect(DATA, Transfer(texts=(TextSource(source="texts.txt"),)), MASK, seed=0)
    assert "texts.txt: 6 texts read, 2 kept" in capsys.readouterr().err


def test_a_source_of_which_nothing_is_left_is_refused(texts: TextSource, tmp_path: Path) -> None:
    long = texts.model_copy(update={"min_words": 99})
    with pytest.raises(DataError, match=r"texts\.txt: not one of its 6 texts is new and fits; look at min_words"):
        collect(DATA, Transfer(texts=(texts, long)), MASK, seed=0)
    (tmp_path / "known.txt").write_text(f"{TRAIN[0].text}\n{DEV[0].text}\n")
    with pytest.raises(DataError, match=r"known\.txt: not one of its 2 texts is new"):
        collect(DATA, Transfer(texts=(TextSource(source=str(tmp_path / "known.txt")),)), MASK, seed=0)


def test_without_augmentation_and_texts_only_the_labelled_ones_are_left() -> None:
    assert collect(DATA, Transfer(), MASK, seed=0).groups == (tuple(example.text for example in TRAIN),)


def test_a_train_split_that_is_the_dev_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"each of its texts stands in data\.dev too"):
        besides(DEV, DEV)


def test_the_same_seed_collects_the_same_texts() -> None:
    one, same, other = (collect(DATA, Transfer(augment=BOTH), MASK, seed).texts for seed in (1, 1, 2))
    assert one == same != other


def test_logits_are_the_teachers_in_the_order_of_the_texts(teacher: CountingTeacher, tmp_path: Path) -> None:
    groups = (("the film is good", "a bore"), ("our evening was lovely and her voice is awful",))
    found = label(teacher, groups, None, tmp_path).logits
    wanted = teacher.exact_logits([text for group in groups for text in group])
    np.testing.assert_allclose(found, wanted, atol=0.05)  # it labels in bfloat16
    assert found.dtype == np.float32


def test_a_second_call_asks_the_teacher_nothing(teacher: CountingTeacher, tmp_path: Path) -> None:
    groups = (tuple(example.text for example in TRAIN), ("one more",))
    first = label(teacher, groups, None, tmp_path).logits
    assert teacher.asked == 61
    assert np.array_equal(label(teacher, groups, None, tmp_path).logits, first)
    assert np.array_equal(
        label(teacher, groups[1:], None, tmp_path).logits, first[60:]
    )  # another recipe with the same source
    assert teacher.asked == 61


def test_another_text_is_asked_for(teacher: CountingTeacher, tmp_path: Path) -> None:
    label(teacher, (("one", "two"), ("three",)), None, tmp_path)
    label(teacher, (("one", "two"), ("four",)), None, tmp_path)
    assert teacher.asked == 4
    label(teacher, (("on", "etwo"),), None, tmp_path)
    assert teacher.asked == 6


def test_another_teacher_is_asked_again(teacher: CountingTeacher, tmp_path: Path) -> None:
    groups = (("one", "two"),)
    first = label(teacher, groups, None, tmp_path).logits
    teacher.max_tokens = 3
    label(teacher, groups, None, tmp_path)
    assert teacher.asked == 4
    teacher.max_tokens = 64
    with torch.no_grad():
        teacher.model.get_parameter("classifier.bias").add_(1)
    moved = label(teacher, groups, None, tmp_path).logits
    assert teacher.asked == 6
    np.testing.assert_allclose(moved, first + 1, atol=0.05)


def test_interrupted_labelling_goes_on_where_it_stopped(teacher: CountingTeacher, tmp_path: Path) -> None:
    many = tuple(f"the film number {i}" for i in range(SHARD + 200))
    teacher.patience = SHARD + 1
    with pytest.raises(KeyboardInterrupt):
        label(teacher, (many,), None, tmp_path)
    teacher.asked, teacher.patience = 0, 10**9
    found = label(teacher, (many,), None, tmp_path).logits
    assert teacher.asked == 200
    assert len(found) == len(many)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_a_killed_run_left_half_written_is_not_read(teacher: CountingTeacher, tmp_path: Path) -> None:
    whole = label(teacher, (("one", "two"),), None, tmp_path).logits
    (shard,) = tmp_path.glob("*.npy")
    shutil.copy(shard, shard.with_suffix(".1.tmp"))
    shard.with_suffix(".1.tmp").write_bytes(shard.read_bytes()[:20])
    shard.unlink()
    assert np.array_equal(label(teacher, (("one", "two"),), None, tmp_path).logits, whole)


def test_a_text_without_tokens_becomes_one_pad_token(shop: Shop, teacher: CountingTeacher) -> None:
    group = ("", "the film", "\u200b", "the cast is good")
    vocabulary = student_vocabulary(teacher.tokenizer, group, prune=True)
    encoder = encoder_of(vocabulary.tokenizer_json, Reads(Network.RECURRENT), 3, vocabulary.pad_id)
    signals, data = Signals(np.zeros((4, 2), np.float32)), shop.teach_recipe().data
    found = encode(encoder, TransferTexts((group,), (0, 1, None, 0)), signals, data, vocabulary.pad_id)
    assert found.lengths.tolist() == [1, 2, 1, 3]
    assert found.tokens[0].block(np.array([0, 2]))[0].tolist() == [[vocabulary.pad_id]] * 2
    assert found.tokens[0].block(np.array([1]))[0].tolist() == encoder.encode(["the film"])
    assert found.targets.tolist() == [0, 1, UNLABELLED, 0]
    assert len(found) == 4


def test_hidden_states_are_kept_beside_the_logits_and_asked_for_once(teacher: CountingTeacher, tmp_path: Path) -> None:
    groups = (("the film is good", "a bore"), ("our evening was lovely and her voice is awful",))
    label(teacher, groups, None, tmp_path)
    kinds = [HiddenStates(layer=1), HiddenStates(layer=2), HiddenStates(layer=2, pooling=Pooled.MEAN)]
    found = [label(teacher, groups, kind, tmp_path).hidden for kind in kinds]
    assert teacher.asked == 12  # logits alone, then three kinds of states
    for kind, states in zip(kinds, found, strict=True):
        assert states is not None
        for text, state in zip([text for group in groups for text in group], np.asarray(states), strict=True):
            inputs = teacher.tokenizer(text, return_tensors="pt")
            layer = teacher.model(**inputs, output_hidden_states=True).hidden_states[kind.layer][0]
            wanted = layer[0] if kind.pooling is Pooled.FIRST else layer.mean(dim=0)
            np.testing.assert_allclose(state, wanted.detach().numpy(), atol=0.05)  # in bfloat16
        again = label(teacher, groups, kind, tmp_path).hidden
        assert again is not None
        assert np.array_equal(again, states)
    assert teacher.asked == 12


def test_a_layer_that_the_teacher_has_not_is_refused(teacher: CountingTeacher, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"teacher\.hidden\.layer: it has 2 layers, not 3"):
        label(teacher, (("one",),), HiddenStates(layer=3), tmp_path)


def test_a_batch_has_the_rows_their_signals_and_their_targets() -> None:
    tokens = Tokens.of([[5, 6], [7], [8, 9, 4]], pad_id=0), Tokens.of([[1], [2, 3], []], pad_id=0)
    signals = Signals(np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3, dtype=np.float16).reshape(3, 1))
    found = TransferSet(tokens, signals, np.array([1, 0, UNLABELLED])).batch(np.array([2, 1]), torch.device("cpu"))
    assert [part.tolist() for part in found.inputs] == [[[8, 9, 4], [7, 0, 0]], [3, 1], [[0, 0], [2, 3]], [1, 2]]
    assert found.target.logits.tolist() == [[4, 5], [2, 3]]
    assert found.target.labels.tolist() == [UNLABELLED, 0]
    assert found.target.hidden is not None
    assert found.target.hidden.tolist() == [[2], [1]]


def test_where_pieces_answer_a_batch_has_those_of_its_rows() -> None:
    tokens = (Tokens.of([[5, 6], [7], [8, 9, 4]], pad_id=0),)
    signals = Signals(np.arange(6, dtype=np.float32).reshape(6, 1))
    found = TransferSet(tokens, signals, np.arange(6), pieces=True).batch(np.array([2, 0]), torch.device("cpu"))
    assert found.target.logits.squeeze(1).tolist() == [3, 4, 5, 0, 1]
    assert found.target.labels.tolist() == [3, 4, 5, 0, 1]


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=80), size=st.integers(1, 9), seed=st.integers(0, 999))
def test_every_row_is_in_one_batch_of_its_own_length_where_that_fills_batches(
    lengths: list[int], size: int, seed: int
) -> None:
    found = list(length_batches(np.array(lengths), size, np.random.default_rng(seed)))
    assert sorted(int(i) for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert 1 <= len(batch) <= size
        kinds = {lengths[i] for i in batch}
        if any(lengths.count(length) >= size / 2 for length in kinds):  # enough for batches of its own
            assert len(kinds) == 1
        between = {length for length in lengths if min(kinds) < length < max(kinds)}
        assert all(lengths.count(length) < size / 2 for length in between)  # neighbours, nothing skipped
    fewest = sum(-(-lengths.count(length) // size) for length in set(lengths))
    assert len(found) <= fewest


def test_batches_are_shuffled_and_seeded() -> None:
    def batches(seed: int) -> list[list[int]]:
        found = length_batches(np.repeat([3, 5, 7], 20), 4, np.random.default_rng(seed))
        return [batch.tolist() for batch in found]

    assert batches(1) == batches(1) != batches(2)
    assert batches(1) != sorted(batches(1))
