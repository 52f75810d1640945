"""Students -> ONNX graphs, written straight from their weights.

torch's exporters can't export an LSTM that is told its lengths, and a graph without `sequence_lens` would read the
padding (docs/decisions/0004). Embeddings are stored as int8 with a scale for each row; the arithmetic is fp32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.networks.students import (
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
from service.bundle.manifest import OUTPUT

OPSET = 17
IR_VERSION = 9

Array = NDArray[np.float32]
Weights = dict[str, NDArray[Any]]
"""Initialisers by their names in the graph."""


def student_graph(student: nn.Module) -> bytes:
    """The exact graph: int8 embedding table, fp32 LSTM with `sequence_lens`. Raises KeyError for an unknown student."""
    graph: bytes = WRITERS[type(student)](student).SerializeToString()
    return graph


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
