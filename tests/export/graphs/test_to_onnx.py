"""Graphs give the logits of their networks: alone, in any batch, at any padding."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from export.graphs.student_graphs import WRITERS, int8_rows, student_graph
from export.graphs.to_onnx import LARGE, fast_graph, teacher_graph
from export.networks.students import STUDENTS, Activation, Form, Pooling, Recurrent, Shape
from service.bundle.encoder import Feeds
from service.bundle.manifest import INPUTS, OUTPUT, TRANSFORMER_INPUTS, Network
from service.bundle.runtime import OpenGraph, open_graph

SHAPE = Shape(vocabulary=50, embedding=12, hidden=9, dense=8, labels=3)
NAMES = {network: name for name, network in reversed(list(STUDENTS.items()))}.values()
"""Of each network one; some stand in the table twice."""
OTHER = replace(SHAPE, pooling=Pooling.MAX, activation=Activation.GELU, channels=2)
KINDS = {
    f"{'-'.join(name)}{note}": (name, shape) for name in NAMES for note, shape in (("", SHAPE), (", other", OTHER))
}
WORDS = 120

rows_of = st.lists(st.lists(st.integers(0, SHAPE.vocabulary - 1), min_size=1, max_size=12), min_size=1, max_size=8)
longer_rows_of = st.lists(st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=20), min_size=1, max_size=6)


def random_student(kind: str) -> Recurrent:
    """No bias is zero: zero biases hide a backward LSTM that reads the padding."""
    torch.manual_seed(0)
    name, shape = KINDS[kind]
    student = STUDENTS[name](shape)
    for parameter in (*student.parameters(), *student.buffers()):
        nn.init.normal_(parameter, 0, 0.5)
    return student.eval()


def on_the_grid(student: Recurrent) -> Recurrent:
    """The same student with its embedding table rounded as in the graph."""
    rounded = copy.deepcopy(student)
    values, scales = int8_rows(student.table().detach().numpy(), axis=0)
    *static, tuned = torch.from_numpy(values * scales).chunk(student.shape.channels, dim=1)
    rounded.get_parameter("embedding.weight").data.copy_(tuned)
    for channel in static:
        rounded.get_buffer("static").copy_(channel)
    return rounded


STUDENT = {kind: random_student(kind) for kind in KINDS}
ROUNDED = {kind: on_the_grid(student) for kind, student in STUDENT.items()}
EXACT = {kind: open_graph(student_graph(student)) for kind, student in STUDENT.items()}


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    """A random BERT with matrices large enough to be stored as int8."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=40,
        id2label={0: "a", 1: "b", 2: "c"},
        initializer_range=0.15,
    )
    model: BertForSequenceClassification = BertForSequenceClassification(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.2)
    return model


@pytest.fixture(scope="module")
def bert_graph(bert: BertForSequenceClassification) -> bytes:
    return teacher_graph(copy.deepcopy(bert))


@pytest.fixture(scope="module")
def teacher(bert_graph: bytes) -> OpenGraph:
    return open_graph(bert_graph)


def student_feeds(rows: list[list[int]], more: int = 0, pad: int = 0, kind: str = "bilstm-text") -> Feeds:
    """The second text of a pair is the first one turned round, and then some."""
    feeds = _one_text(rows, more, pad)
    if KINDS[kind][0][1] is not Form.PAIR:
        return feeds
    other = _one_text([[*row[::-1], row[0]] for row in rows], more, pad)
    return feeds | {"pair_ids": other["input_ids"], "pair_lengths": other["lengths"]}


def _one_text(rows: list[list[int]], more: int, pad: int) -> Feeds:
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.full((len(rows), int(lengths.max()) + more), pad, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return {"input_ids": ids, "lengths": lengths}


def teacher_feeds(rows: list[list[int]], more: int = 0, pad: int = 0) -> Feeds:
    feeds = _one_text(rows, more, pad)
    ids, lengths = feeds["input_ids"], feeds["lengths"]
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


@torch.inference_mode()
def torch_logits(student: nn.Module, feeds: Feeds) -> NDArray[np.float32]:
    """(R, L)"""
    found: NDArray[np.float32] = student(*map(torch.from_numpy, feeds.values())).logits.numpy()
    return found


def graph_logits(graph: OpenGraph, feeds: Feeds) -> NDArray[np.float32]:
    """(R, L): of a tagger those of the pieces that are no padding."""
    found = graph.run(feeds)
    if found.ndim == 2:
        return found
    return np.concatenate([row[:length] for row, length in zip(found, feeds["lengths"], strict=True)])


def test_every_student_has_a_writer() -> None:
    assert {type(student) for student in STUDENT.values()} == set(WRITERS)


@pytest.mark.parametrize("name", KINDS)
@given(rows=rows_of, more=st.integers(0, 6), pad=st.integers(0, SHAPE.vocabulary - 1))
def test_the_exact_graph_is_the_network_on_the_int8_grid(name: str, rows: list[list[int]], more: int, pad: int) -> None:
    feeds = student_feeds(rows, more, pad, name)
    np.testing.assert_allclose(graph_logits(EXACT[name], feeds), torch_logits(ROUNDED[name], feeds), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
@given(rows=rows_of, more=st.integers(0, 6), pad=st.integers(0, SHAPE.vocabulary - 1))
def test_the_exact_graph_gives_a_row_the_same_logits_alone(
    name: str, rows: list[list[int]], more: int, pad: int
) -> None:
    together = graph_logits(EXACT[name], student_feeds(rows, more, pad, name))
    alone = np.concatenate([graph_logits(EXACT[name], student_feeds([row], kind=name)) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_the_exact_graph_is_near_the_network_itself(name: str) -> None:
    feeds = student_feeds([[i, i + 1, i + 2] for i in range(40)], kind=name)
    np.testing.assert_allclose(graph_logits(EXACT[name], feeds), torch_logits(STUDENT[name], feeds), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_the_fast_graph_is_near_the_exact_one_and_smaller(name: str) -> None:
    torch.manual_seed(1)
    network, shape = KINDS[name]
    student = STUDENTS[network](replace(shape, vocabulary=500, embedding=64, hidden=64, dense=32)).eval()
    student.begin_with(torch.randn(500, 64))
    exact = student_graph(student)
    fast = fast_graph(exact)
    assert len(fast) < len(exact) / 2
    feeds = student_feeds([[i, 2 * i, 3 * i] for i in range(1, 60)], kind=name)
    wanted = graph_logits(open_graph(exact), feeds)
    found = graph_logits(open_graph(fast), feeds)
    assert 0 < np.abs(found - wanted).max() < min(0.1, wanted.std() / 2)
    assert {node.op_type for node in onnx.load_from_string(fast).graph.node} >= {"DynamicQuantizeLSTM"}


@pytest.mark.parametrize("name", KINDS)
def test_graphs_name_their_inputs_and_output_as_the_format_says(name: str) -> None:
    exact = student_graph(STUDENT[name])
    inputs = INPUTS[Network.RECURRENT, STUDENT[name].inputs]
    for content in (exact, fast_graph(exact)):
        graph = onnx.load_from_string(content).graph
        assert tuple(node.name for node in graph.input) == inputs
        assert [node.name for node in graph.output] == [OUTPUT]
        size = [dimension.dim_value for dimension in graph.output[0].type.tensor_type.shape.dim]
        width = SHAPE.dense if KINDS[name][0][1] is Form.VECTOR else SHAPE.labels
        assert size == [0] * (len(size) - 1) + [width]  # 0: any
        assert len(size) == (3 if KINDS[name][0][1] is Form.PIECES else 2)


@pytest.mark.parametrize("name", KINDS)
def test_the_embedding_table_is_stored_as_int8_and_nothing_else_is(name: str) -> None:
    stored = {
        tensor.name: tensor.data_type
        for tensor in onnx.load_from_string(student_graph(STUDENT[name])).graph.initializer
    }
    assert [key for key, kind in stored.items() if kind == TensorProto.INT8] == ["embedding"]


def test_writing_a_graph_is_repeatable_and_leaves_the_student_as_it_was() -> None:
    student = random_student("bilstm-text")
    assert student_graph(student) == student_graph(student)
    for name, value in random_student("bilstm-text").state_dict().items():
        assert torch.equal(student.state_dict()[name], value)


def test_an_unknown_network_has_no_graph() -> None:
    with pytest.raises(KeyError):
        student_graph(nn.Linear(2, 2))


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    axis=st.integers(0, 1),
    seed=st.integers(0, 99),
    scale=st.floats(1e-6, 1e6),
)
def test_int8_values_are_off_by_half_a_step_at_most(
    rows: int, columns: int, axis: int, seed: int, scale: float
) -> None:
    table = (np.random.default_rng(seed).normal(size=(rows, columns)) * scale).astype(np.float32)
    values, scales = int8_rows(table, axis)
    assert scales.shape == ((rows, 1), (1, columns))[axis]
    assert np.all(np.abs(values.astype(int)) <= 127)
    assert np.all(np.abs(values * scales - table) <= scales * 0.5001)


def test_a_row_of_zeros_stays_one() -> None:
    values, scales = int8_rows(np.zeros((2, 3), np.float32), axis=0)
    assert not (values * scales).any()


@given(rows=longer_rows_of, more=st.integers(0, 5), pad=st.integers(0, WORDS - 1))
def test_the_teachers_graph_gives_a_row_the_same_logits_alone(
    teacher: OpenGraph, rows: list[list[int]], more: int, pad: int
) -> None:
    together = teacher.run(teacher_feeds(rows, more, pad))
    alone = np.concatenate([teacher.run(teacher_feeds([row])) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_the_teachers_graph_is_near_the_network(teacher: OpenGraph, bert: BertForSequenceClassification) -> None:
    feeds = teacher_feeds([[i, i + 1, i + 2, i + 3][: 1 + i % 4] for i in range(60)])
    with torch.inference_mode():
        wanted = bert(**{key: torch.from_numpy(value) for key, value in feeds.items()}).logits.numpy()
    assert 0 < np.abs(teacher.run(feeds) - wanted).max() < 0.05 * np.abs(wanted).max()


def test_the_teachers_large_matrices_are_int8_and_small_ones_are_not(bert_graph: bytes) -> None:
    model = onnx.load_from_string(bert_graph)
    onnx.checker.check_model(model)
    sizes = {TensorProto.INT8: [], TensorProto.FLOAT: []}  # type: dict[int, list[int]]
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type in sizes:
            sizes[tensor.data_type].append(int(np.prod(tensor.dims)))
    assert min(sizes[TensorProto.INT8]) >= LARGE
    assert max(size for size in sizes[TensorProto.FLOAT] if size) < LARGE
    assert len(sizes[TensorProto.INT8]) == 14  # the words, six matrices a layer, the pooler
    open_graph(bert_graph).check(TRANSFORMER_INPUTS, 3)


def test_a_graph_tells_nothing_of_the_machine_that_made_it(bert_graph: bytes) -> None:
    assert b".py" not in bert_graph  # the exporter notes its stack at each node


def test_a_teacher_without_token_types_takes_the_same_inputs() -> None:
    config = DistilBertConfig(vocab_size=30, dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=20)
    graph = open_graph(teacher_graph(DistilBertForSequenceClassification(config)))
    graph.check(TRANSFORMER_INPUTS, 2)
    together = graph.run(teacher_feeds([[1, 2, 3], [4]]))
    np.testing.assert_allclose(together[1:], graph.run(teacher_feeds([[4]])), atol=1e-5, rtol=0)


def test_quantising_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    fast_graph(student_graph(STUDENT["bilstm-text"]))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
