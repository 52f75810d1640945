"""Networks -> ONNX graphs with the inputs that the bundle format declares.

A student's graph is written straight from its weights: torch's exporters can't export a packed LSTM, and a graph
without `sequence_lens` would read the padding (docs/decisions/0004). A teacher goes through `torch.onnx.export`. Large
tables are stored as int8 with a scale for each row or column; the arithmetic of the exact graphs stays fp32.
"""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from export.errors import ModelError
from export.students import (
    Activation,
    BiLSTM,
    BiLSTMEncoder,
    BiLSTMTagger,
    Pooling,
    Recurrent,
    Shape,
    SiameseBiLSTM,
    SiameseEncoder,
)
from service.bundle.manifest import OUTPUT, TEACHER_INPUTS

OPSET = 17
IR_VERSION = 9
LARGE = 10_000
"""Matrices with more elements than this are stored as int8 in a teacher's graph."""

AGAIN = "again_"  # before the name of a weight's copy

Array = NDArray[np.float32]
Weights = dict[str, NDArray[Any]]
"""Initialisers by their names in the graph."""


def student_graph(student: nn.Module) -> bytes:
    """The exact graph: int8 embedding table, fp32 LSTM with `sequence_lens`. Raises KeyError for an unknown student."""
    graph: bytes = WRITERS[type(student)](student).SerializeToString()
    return graph


def fast_graph(exact: bytes) -> bytes:
    """The same graph with an int8 LSTM (ONNX Runtime's dynamic quantisation): quicker, and its answers depend a little
    on the other rows of the batch, since activations are scaled over the whole batch."""
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "exact.onnx"), Path(folder, "fast.onnx")
        onnx.save(_each_with_its_own_weights(onnx.load_from_string(exact)), source)
        quantize_dynamic(source, target, op_types_to_quantize=["LSTM", "MatMul"], weight_type=QuantType.QInt8)
        content: bytes = _sharing_again(onnx.load(target)).SerializeToString()
        return content


def _each_with_its_own_weights(proto: ModelProto) -> ModelProto:
    """Give a node copies of what it shares with an earlier one: ONNX Runtime's quantiser turns the weights of an LSTM
    and of a Gemm round in place, so those of two nodes are turned twice, which may fail nowhere and answer nonsense."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken: set[str] = set()
    for node in proto.graph.node:
        turned = [place for place in _TURNED.get(node.op_type, ()) if node.input[place] in weights]
        for place in turned:
            if node.input[place] in taken:
                copied = TensorProto()
                copied.CopyFrom(weights[node.input[place]])
                node.input[place] = copied.name = AGAIN + copied.name
                proto.graph.initializer.append(copied)
        taken.update(node.input[place] for place in turned)
    return proto


_TURNED = {"LSTM": (1, 2), "Gemm": (1,)}
"""A node -> which of its inputs are weights that the quantiser turns round."""


def _sharing_again(proto: ModelProto) -> ModelProto:
    """The same without the copies, now that nobody turns them round."""
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = name.removeprefix(AGAIN)
    kept = [tensor for tensor in proto.graph.initializer if not tensor.name.startswith(AGAIN)]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


def teacher_graph(model: nn.Module) -> bytes:
    """A BERT classifier with its large matrices stored as int8 and computed in fp32, so that it too gives a row the
    same logits in any batch (docs/decisions/0006)."""
    return _stored_as_int8(_exported(_Logits(model)))


def encoder_graph(model: nn.Module, pool: Callable[[Tensor, Tensor], Tensor]) -> bytes:
    """The same of an encoder without a head: `pool` makes (B, H) of its last states (B, T, H) and the mask (B, T)."""
    return _stored_as_int8(_exported(_Vectors(model, pool)))


def _stored_as_int8(proto: ModelProto) -> bytes:
    _store_as_int8(proto)
    content: bytes = proto.SerializeToString()
    return content


def embedding_table(graph: bytes) -> Array:
    """The table (V, H) out of which a teacher's token ids choose rows, also where it is stored as int8.

    Raises ModelError for a graph without one.
    """
    proto = onnx.load_from_string(graph)
    chosen = next((n for n in proto.graph.node if n.op_type == "Gather" and n.input[1] == TEACHER_INPUTS[0]), None)
    if chosen is None:
        raise ModelError("the teacher's graph has no table of embeddings; set student.embeddings = 'random'")
    proto.graph.ClearField("output")
    proto.graph.output.append(helper.make_tensor_value_info(chosen.input[0], TensorProto.FLOAT, None))
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    one = np.ones((1, 1), dtype=np.int64)
    table: Array = session.run(None, {node.name: one for node in session.get_inputs()})[0]
    return table


def int8_rows(table: Array, axis: int) -> tuple[NDArray[np.int8], Array]:
    """Symmetric int8 with a scale for each slice along `axis`: table ≈ values * scales; scales keep the dimensions."""
    scales = np.abs(table).max(axis=1 - axis, keepdims=True) / 127
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales


@dataclass
class _Draft:
    """A graph that is being written: nodes and the weights that they share."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One more node; returns the name of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """One more weight, under its name."""
        self.weights[name] = value
        return name


def _bilstm(student: BiLSTM) -> ModelProto:
    """ids (B, T) -> states (B, 2H) -> logits (B, L)."""
    draft = _draft(student)
    states = _pooled(draft, student.shape, "input_ids", "lengths")
    _answer(draft, student, states)
    return _model("bilstm", draft, {"input_ids": ["B", "T"], "lengths": ["B"]}, ["B", student.shape.labels])


def _siamese(student: SiameseBiLSTM) -> ModelProto:
    """ids (B, T1), ids (B, T2) -> h1, h2 (B, 2H) -> [h1, h2, h1 * h2, |h1 - h2|] (B, 8H) -> logits (B, L)."""
    draft = _draft(student)
    first = _pooled(draft, student.shape, "input_ids", "lengths")
    second = _pooled(draft, student.shape, "pair_ids", "pair_lengths")
    _answer(draft, student, _compared(draft, first, second))
    inputs = {"input_ids": ["B", "T"], "lengths": ["B"], "pair_ids": ["B", "T2"], "pair_lengths": ["B"]}
    return _model("siamese-bilstm", draft, inputs, ["B", student.shape.labels])


def _encoder(student: BiLSTMEncoder) -> ModelProto:
    """ids (B, T) -> states (B, 2H) -> vectors (B, D)."""
    draft = _draft(student)
    states = _pooled(draft, student.shape, "input_ids", "lengths")
    draft.add("Identity", [_vector(draft, student, states, "vector")], OUTPUT)
    return _model("bilstm-encoder", draft, {"input_ids": ["B", "T"], "lengths": ["B"]}, ["B", student.shape.dense])


def _siamese_encoder(student: SiameseEncoder) -> ModelProto:
    """ids (B, T1), ids (B, T2) -> u, v (B, D) -> [u, v, u * v, |u - v|] (B, 4D) -> logits (B, L)."""
    draft = _draft(student)
    first = _vector(draft, student, _pooled(draft, student.shape, "input_ids", "lengths"), "first")
    second = _vector(draft, student, _pooled(draft, student.shape, "pair_ids", "pair_lengths"), "second")
    _linear(draft, student.output, _compared(draft, first, second), OUTPUT)
    inputs = {"input_ids": ["B", "T"], "lengths": ["B"], "pair_ids": ["B", "T2"], "pair_lengths": ["B"]}
    return _model("siamese-bilstm-encoder", draft, inputs, ["B", student.shape.labels])


def _tagger(student: BiLSTMTagger) -> ModelProto:
    """ids (B, T) -> states (B, T, 2H) -> logits (B, T, L); those of padding mean nothing."""
    shape, draft = student.shape, _draft(student)
    states = _by_row(draft, shape, _lstm(draft, shape, "input_ids", "lengths", "Y"), "input_ids")
    flat = draft.constant("flat", np.array([-1, 2 * shape.hidden], dtype=np.int64))
    logits = _answer(draft, student, draft.add("Reshape", [states, flat], "pieces"), "piece_logits")  # (B x T, L)
    labels = draft.constant("labels", np.array([shape.labels], dtype=np.int64))
    size = draft.add("Concat", [draft.add("Shape", ["input_ids"], "ids_shape"), labels], "logits_shape", axis=0)
    draft.add("Reshape", [logits, size], OUTPUT)
    return _model("bilstm-tagger", draft, {"input_ids": ["B", "T"], "lengths": ["B"]}, ["B", "T", shape.labels])


WRITERS: dict[type[nn.Module], Callable[..., ModelProto]] = {
    BiLSTM: _bilstm,
    SiameseBiLSTM: _siamese,
    BiLSTMTagger: _tagger,
    BiLSTMEncoder: _encoder,
    SiameseEncoder: _siamese_encoder,
}
"""Student network -> the writer of its graph."""


def _draft(student: Recurrent) -> _Draft:
    """The weights that all of a student's nodes read."""
    values, scales = int8_rows(_array(student.table()), axis=0)  # (V, E), (V, 1)
    draft = _Draft()
    draft.weights = {"embedding": values, "embedding_scales": scales, **_lstm_weights(student.lstm)}
    return draft


def _lstm(draft: _Draft, shape: Shape, ids: str, lengths: str, output: str) -> str:
    """ids (B, T), lengths (B,) -> Y: states (T, 2, B, H), or Y_h: the last ones (2, B, H)."""
    # Time first, as the LSTM wants it: turning the ids round is cheaper than turning their embeddings.
    turned = draft.add("Transpose", [ids], f"{ids}_turned", perm=[1, 0])
    rows = draft.add("Gather", ["embedding", turned], f"{ids}_rows")
    wide = draft.add("Cast", [rows], f"{ids}_fp32", to=TensorProto.FLOAT)
    scales = draft.add("Gather", ["embedding_scales", turned], f"{ids}_scales")  # (T, B, 1)
    embedded = draft.add("Mul", [wide, scales], f"{ids}_embedded")  # (T, B, E)
    short = draft.add("Cast", [lengths], f"{lengths}_int32", to=TensorProto.INT32)
    name = f"{ids}_{output}"
    draft.nodes.append(
        helper.make_node(
            "LSTM",
            [embedded, "lstm_input", "lstm_recurrent", "lstm_bias", short],
            [name if given == output else "" for given in ("Y", "Y_h", "Y_c")],
            hidden_size=shape.hidden,
            direction="bidirectional",
        )
    )
    return name


def _pooled(draft: _Draft, shape: Shape, ids: str, lengths: str) -> str:
    """ids (B, T), lengths (B,) -> one vector a row, (B, 2H)."""
    if shape.pooling is Pooling.LAST:
        last = _lstm(draft, shape, ids, lengths, "Y_h")
        by_row = draft.add("Transpose", [last], f"{ids}_last", perm=[1, 0, 2])  # (B, 2, H)
        width = draft.constant("states_shape", np.array([0, 2 * shape.hidden], dtype=np.int64))
        return draft.add("Reshape", [by_row, width], f"{ids}_states")
    states = _by_row(draft, shape, _lstm(draft, shape, ids, lengths, "Y"), ids)
    draft.constant("zero", np.array(0, dtype=np.int64))
    draft.constant("one", np.array(1, dtype=np.int64))
    draft.constant("last_axes", np.array([1, 2], dtype=np.int64))
    draft.constant("lowest", np.array(np.finfo(np.float32).min, dtype=np.float32))
    width = draft.add("Gather", [draft.add("Shape", [ids], f"{ids}_shape"), "one"], f"{ids}_width")
    places = draft.add("Range", ["zero", width, "one"], f"{ids}_places")  # (T,)
    column = draft.add("Unsqueeze", [lengths, draft.constant("row", np.array([1], dtype=np.int64))], f"{ids}_column")
    real = draft.add("Less", [places, column], f"{ids}_real")  # (B, T)
    mask = draft.add("Unsqueeze", [real, draft.constant("unit", np.array([2], dtype=np.int64))], f"{ids}_mask")
    masked = draft.add("Where", [mask, states, "lowest"], f"{ids}_masked")
    return draft.add("ReduceMax", [masked], f"{ids}_pooled", axes=[1], keepdims=0)


def _by_row(draft: _Draft, shape: Shape, states: str, ids: str) -> str:
    """(T, 2, B, H) -> (B, T, 2H)."""
    turned = draft.add("Transpose", [states], f"{ids}_by_row", perm=[2, 0, 1, 3])
    width = draft.constant("states_by_piece", np.array([0, 0, 2 * shape.hidden], dtype=np.int64))
    return draft.add("Reshape", [turned, width], f"{ids}_states")


def _answer(draft: _Draft, student: Recurrent, states: str, output: str = OUTPUT) -> str:
    """(R, vectors x 2H) -> dense (R, D) -> logits (R, L)."""
    return _linear(draft, student.output, _vector(draft, student, states, "dense"), output)


def _vector(draft: _Draft, student: Recurrent, states: str, name: str) -> str:
    """(R, vectors x 2H) -> (R, D); with two texts in a row both share the weights."""
    return _ACTIVATIONS[student.shape.activation](draft, _linear(draft, student.dense, states, name, weights="dense"))


def _compared(draft: _Draft, first: str, second: str) -> str:
    """Two vectors -> one that is four times as wide."""
    product = draft.add("Mul", [first, second], "product")
    distance = draft.add("Abs", [draft.add("Sub", [first, second], "difference")], "distance")
    return draft.add("Concat", [first, second, product, distance], "compared", axis=1)


def _linear(draft: _Draft, layer: nn.Linear, values: str, name: str, weights: str | None = None) -> str:
    """`weights`: what its weights are called; as its output unless said otherwise."""
    weight = draft.constant(f"{weights or name}_weight", _array(layer.weight))
    bias = draft.constant(f"{weights or name}_bias", _array(layer.bias))
    return draft.add("Gemm", [values, weight, bias], name, transB=1)


def _relu(draft: _Draft, values: str) -> str:
    return draft.add("Relu", [values], f"{values}_active")


def _as_it_is(_draft: _Draft, values: str) -> str:
    return values


def _gelu(draft: _Draft, values: str) -> str:
    """x / 2 * (1 + erf(x / √2)), of which ONNX Runtime makes one kernel."""
    root = draft.constant("root", np.array(math.sqrt(2), dtype=np.float32))
    share = draft.add("Erf", [draft.add("Div", [values, root], f"{values}_scaled")], f"{values}_erf")
    whole = draft.add("Add", [share, draft.constant("unity", np.array(1, dtype=np.float32))], f"{values}_whole")
    product = draft.add("Mul", [values, whole], f"{values}_product")
    return draft.add("Mul", [product, draft.constant("half", np.array(0.5, dtype=np.float32))], f"{values}_active")


_ACTIVATIONS: dict[Activation, Callable[[_Draft, str], str]] = {
    Activation.RELU: _relu,
    Activation.GELU: _gelu,
    Activation.LINEAR: _as_it_is,
}


def _lstm_weights(lstm: nn.LSTM) -> dict[str, Array]:
    """torch orders the gates i, f, g, o; ONNX i, o, f, c. Directions are stacked: (2, 4H, E), (2, 4H, H), (2, 8H)."""

    def gates(name: str) -> Array:
        i, f, g, o = np.split(_array(getattr(lstm, name)), 4)
        return np.concatenate([i, o, f, g])

    both = [("_l0", "_l0_reverse")[k] for k in range(2)]
    biases = [np.concatenate([gates(f"bias_ih{d}"), gates(f"bias_hh{d}")]) for d in both]
    return {
        "lstm_input": np.stack([gates(f"weight_ih{d}") for d in both]),
        "lstm_recurrent": np.stack([gates(f"weight_hh{d}") for d in both]),
        "lstm_bias": np.stack(biases),
    }


def _model(name: str, draft: _Draft, inputs: dict[str, list[str]], output: list[str | int]) -> ModelProto:
    graph = helper.make_graph(
        draft.nodes,
        name,
        [helper.make_tensor_value_info(key, TensorProto.INT64, dims) for key, dims in inputs.items()],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in draft.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _array(weights: Tensor) -> Array:
    return weights.detach().cpu().float().numpy()


class _Logits(nn.Module):
    """A Hugging Face classifier with positional inputs and the logits alone as output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits


class _Vectors(nn.Module):
    """A Hugging Face encoder with positional inputs and a vector a text as output."""

    def __init__(self, model: nn.Module, pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.pool = pool

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self.pool(found.last_hidden_state, attention_mask)


def _exported(model: nn.Module) -> ModelProto:
    batch, length = torch.export.Dim("B", min=1, max=4096), torch.export.Dim("T", min=1, max=512)
    example = torch.ones(2, 8, dtype=torch.int64)
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "teacher.onnx")
        program = torch.onnx.export(
            model.cpu().float().eval(),
            (example, example.clone(), torch.zeros_like(example)),
            dynamo=True,
            input_names=list(TEACHER_INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=[{0: batch, 1: length}] * 3,
            verbose=False,
        )
        assert program is not None  # with dynamo=True there is always one
        program.save(str(target), external_data=False)
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' deprecations and advice ("torchvision is not installed", "consider pre-processing")."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _store_as_int8(proto: ModelProto) -> None:
    """Replace each large fp32 matrix by int8 values and scales; ONNX Runtime multiplies them out once, on opening."""
    gathered = {node.input[0] for node in proto.graph.node if node.op_type == "Gather"}
    front: list[NodeProto] = []
    for tensor in list(proto.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < LARGE:
            continue
        values, scales = int8_rows(numpy_helper.to_array(tensor), axis=0 if tensor.name in gathered else 1)
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(values, f"{tensor.name}_int8"))
        proto.graph.initializer.append(numpy_helper.from_array(scales, f"{tensor.name}_scales"))
        front.append(helper.make_node("Cast", [f"{tensor.name}_int8"], [f"{tensor.name}_cast"], to=TensorProto.FLOAT))
        front.append(helper.make_node("Mul", [f"{tensor.name}_cast", f"{tensor.name}_scales"], [tensor.name]))
    nodes = [*front, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
