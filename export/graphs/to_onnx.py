"""Transformers -> ONNX graphs, and any student's graph -> a quicker one. BiLSTMs' own: `export.graphs.student_graphs`.

A transformer goes through `torch.onnx.export`. Its large matrices are stored as int8 with a scale for each row or
column; the arithmetic stays fp32.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from export.errors import ModelError
from export.graphs.student_graphs import Array, int8_rows, student_graph
from export.networks.pretrained import task_of
from export.networks.students import Transformer, TransformerReader
from service.bundle.manifest import OUTPUT, TRANSFORMER_INPUTS, Precision, Task

LARGE = 10_000
"""Matrices with more elements than this are stored as int8 in a teacher's graph."""

AGAIN = "again_"  # before the name of a weight's copy


def graphs_of(student: nn.Module) -> Mapping[Precision, bytes]:
    """A student's graphs, exact and fast. Raises TypeError for a network that has none."""
    if isinstance(student, Transformer):
        wrapped = _Edges if isinstance(student, TransformerReader) else _Logits
        proto = _exported(wrapped(student.model))
        quick = onnx.load_from_string(fast_graph(proto.SerializeToString()))
        return {Precision.EXACT: _stored_as_int8(proto), Precision.FAST: _stored_as_int8(quick)}
    exact = student_graph(student)
    return {Precision.EXACT: exact, Precision.FAST: fast_graph(exact)}


def fast_graph(exact: bytes) -> bytes:
    """The same graph with its LSTM and products in int8 (ONNX Runtime's dynamic quantisation): quicker, and its answers
    depend a little on the other rows of the batch, since activations are scaled over the whole batch."""
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "exact.onnx"), Path(folder, "fast.onnx")
        onnx.save(_each_with_its_own_weights(onnx.load_from_string(exact)), source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["LSTM", "MatMul"],
            weight_type=QuantType.QInt8,
            reduce_range=True,  # seven bits: without VNNI a processor adds products of eight in 16, which overflows
        )
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
    wrapped = _Edges if task_of(model.config) is Task.ANSWERING else _Logits
    return _stored_as_int8(_exported(wrapped(model)))


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
    chosen = next((n for n in proto.graph.node if n.op_type == "Gather" and n.input[1] == TRANSFORMER_INPUTS[0]), None)
    if chosen is None:
        raise ModelError("the teacher's graph has no table of embeddings; set student.embeddings = 'random'")
    proto.graph.ClearField("output")
    proto.graph.output.append(helper.make_tensor_value_info(chosen.input[0], TensorProto.FLOAT, None))
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    one = np.ones((1, 1), dtype=np.int64)
    table: Array = session.run(None, {node.name: one for node in session.get_inputs()})[0]
    return table


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


class _Edges(nn.Module):
    """The same of a model for question answering: the logits of start and end of each piece."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return torch.stack([found.start_logits, found.end_logits], dim=2)  # (B, T) twice -> (B, T, 2)


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
            input_names=list(TRANSFORMER_INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=[{0: batch, 1: length}] * 3,
            verbose=False,
        )
        assert program is not None  # with dynamo=True there is always one
        program.save(str(target), external_data=False)
        return _bare(onnx.load(target))


def _bare(proto: ModelProto) -> ModelProto:
    """Without the exporter's remarks: places in this machine's files, and shapes that ONNX Runtime's quantiser takes
    for contradictions."""
    proto.graph.ClearField("value_info")
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
    return proto


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
