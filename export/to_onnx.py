"""Networks -> ONNX graphs with the inputs that the bundle format declares.

A student's graph is written straight from its weights: torch's exporters can't export a packed LSTM, and a graph
without `sequence_lens` would read the padding (docs/decisions/0004). A teacher goes through `torch.onnx.export`. Large
tables are stored as int8 with a scale for each row or column; the arithmetic of the exact graphs stays fp32.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from export.students import BiLSTM
from service.bundle.manifest import OUTPUT, STUDENT_INPUTS, TEACHER_INPUTS

OPSET = 17
IR_VERSION = 9
LARGE = 10_000
"""Matrices with more elements than this are stored as int8 in a teacher's graph."""

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
        source.write_bytes(exact)
        quantize_dynamic(source, target, op_types_to_quantize=["LSTM", "MatMul"], weight_type=QuantType.QInt8)
        return target.read_bytes()


def teacher_graph(model: nn.Module) -> bytes:
    """A BERT classifier with its large matrices stored as int8 and computed in fp32, so that it too gives a row the
    same logits in any batch (docs/decisions/0006)."""
    proto = _exported(model)
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


def _bilstm(student: BiLSTM) -> ModelProto:
    """ids (B, T) -> (T, B) -> embeddings (T, B, E) -> last states (2, B, H) -> (B, 2H) -> (B, D) -> logits (B, L)."""
    shape = student.shape
    values, scales = int8_rows(_array(student.embedding.weight), axis=0)  # (V, E), (V, 1)
    weights: Weights = {
        "embedding": values,
        "embedding_scales": scales,
        **_lstm_weights(student.lstm),
        "dense_weight": _array(student.dense.weight),
        "dense_bias": _array(student.dense.bias),
        "output_weight": _array(student.output.weight),
        "output_bias": _array(student.output.bias),
        "states_shape": np.array([0, 2 * shape.hidden], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        # time first, as the LSTM wants it: turning the ids round is cheaper than turning their embeddings
        node("Transpose", ["input_ids"], ["ids"], perm=[1, 0]),
        node("Gather", ["embedding", "ids"], ["rows"]),
        node("Cast", ["rows"], ["rows_fp32"], to=TensorProto.FLOAT),
        node("Gather", ["embedding_scales", "ids"], ["row_scales"]),  # (T, B, 1)
        node("Mul", ["rows_fp32", "row_scales"], ["embedded"]),
        node("Cast", ["lengths"], ["lengths_int32"], to=TensorProto.INT32),
        node(
            "LSTM",
            ["embedded", "lstm_input", "lstm_recurrent", "lstm_bias", "lengths_int32"],
            ["", "last", ""],
            hidden_size=shape.hidden,
            direction="bidirectional",
        ),
        node("Transpose", ["last"], ["last_by_row"], perm=[1, 0, 2]),  # (B, 2, H)
        node("Reshape", ["last_by_row", "states_shape"], ["states"]),  # (B, 2H)
        node("Gemm", ["states", "dense_weight", "dense_bias"], ["dense"], transB=1),
        node("Relu", ["dense"], ["active"]),
        node("Gemm", ["active", "output_weight", "output_bias"], [OUTPUT], transB=1),
    ]
    return _model("bilstm", nodes, weights, {"input_ids": ["B", "T"], "lengths": ["B"]}, shape.labels)


WRITERS: dict[type[nn.Module], Callable[..., ModelProto]] = {BiLSTM: _bilstm}
"""Student network -> the writer of its graph."""


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


def _model(
    name: str, nodes: list[NodeProto], weights: Weights, inputs: dict[str, list[str]], labels: int
) -> ModelProto:
    assert tuple(inputs) == STUDENT_INPUTS
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, TensorProto.INT64, dims) for key, dims in inputs.items()],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", labels])],
        [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in weights.items()],
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


def _exported(model: nn.Module) -> ModelProto:
    batch, length = torch.export.Dim("B", min=1, max=4096), torch.export.Dim("T", min=1, max=512)
    example = torch.ones(2, 8, dtype=torch.int64)
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "teacher.onnx")
        program = torch.onnx.export(
            _Logits(model.cpu().float().eval()),
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
