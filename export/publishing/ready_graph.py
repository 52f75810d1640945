"""A classifier that is a graph already, as Optimum writes it: a folder of model.onnx, config.json, tokenizer.json.

The graph becomes a teacher's as it is. Only an input for token types is added where it takes none, since the format
declares one; nothing in the graph reads it. This module knows nothing of torch or training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, helper
from transformers import AutoConfig

from export.errors import ModelError, first_line
from export.networks.pretrained import SHORT, labels_of, limit_of, load_tokenizer, plain_tokenizer_json, task_of
from service.bundle.engine import open_graph
from service.bundle.errors import GraphMismatch
from service.bundle.manifest import OUTPUT, TRANSFORMER_INPUTS, Task
from service.bundle.tasks import TASKS

PLACES = ("model.onnx", "onnx/model.onnx")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKEN_TYPES = TRANSFORMER_INPUTS[2]


@dataclass(frozen=True)
class ReadyGraph:
    """All of a teacher that a bundle holds."""

    graph: bytes
    task: Task
    labels: tuple[str, ...]
    tokenizer_json: str
    max_tokens: int
    pad_id: int


def graph_file(source: str) -> Path | None:
    """The graph, if this is a folder with one and without torch's weights, which are preferred."""
    folder = Path(source)
    if any(True for pattern in WEIGHTS for _ in folder.glob(pattern)):
        return None
    return next((folder / place for place in PLACES if (folder / place).is_file()), None)


def read_ready_graph(file: Path, source: str) -> ReadyGraph:
    """Check the graph against its configuration. Raises ModelError for what can't be a teacher's graph."""
    config = _config(source)
    labels, task = labels_of(config), task_of(config)
    graph = _fitting(file)
    try:
        meaning = TASKS[task]
        open_graph(graph, source=str(file)).check(TRANSFORMER_INPUTS, meaning.width(len(labels)), meaning.dimensions)
    except GraphMismatch as error:
        raise ModelError(f"teacher {source}: {error} ({len(labels)} labels in config.json)") from error
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        raise ModelError(f"teacher {source}: its tokenizer has no padding token; name one in tokenizer_config.json")
    limit = min(SHORT, limit_of(config) or SHORT)
    return ReadyGraph(graph, task, labels, plain_tokenizer_json(tokenizer), limit, int(tokenizer.pad_token_id))


def _config(source: str) -> Any:  # each model's has fields of its own
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(f"teacher {source}: {first_line(error)}; copy config.json beside the graph") from error


def _fitting(file: Path) -> bytes:
    """The graph's bytes, with an input for token types if it has none."""
    content = file.read_bytes()
    try:
        proto = onnx.load_from_string(content)
    except Exception as error:  # protobuf's own, a library that we do not import ourselves
        raise ModelError(f"{file}: not an ONNX file ({first_line(error)}); export it again") from error
    held = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in held]
    outputs = [value.name for value in proto.graph.output]
    if OUTPUT not in outputs:
        raise ModelError(
            f"{file}: gives {', '.join(outputs) or 'nothing'}, not {OUTPUT}; export it for text-classification"
        )
    if set(inputs) == set(TRANSFORMER_INPUTS) - {TOKEN_TYPES}:
        return _with_token_types(proto)
    if set(inputs) != set(TRANSFORMER_INPUTS):
        raise ModelError(
            f"{file}: takes {', '.join(inputs) or 'nothing'}; a teacher takes {', '.join(TRANSFORMER_INPUTS)}"
            " (the last one may be missing)"
        )
    return content


def _with_token_types(proto: ModelProto) -> bytes:
    proto.graph.input.append(helper.make_tensor_value_info(TOKEN_TYPES, TensorProto.INT64, ["B", "T"]))
    content: bytes = proto.SerializeToString()
    return content
