"""The table of docs/results/sizes.md: weights of bundles beside those of BERT's sizes, with and without embeddings.

python docs/results/sizes.py models/sst2-bilstm/1 …
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto
from transformers import BertConfig, BertModel

from service.bundle.manifest import Precision
from service.bundle.seal import read_manifest

NUMBERS = (TensorProto.FLOAT, TensorProto.INT8)
BERTS = {
    "BERT-base": BertConfig(),
    "mBERT": BertConfig(vocab_size=119_547),
    "BERT-large": BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}
"""Their published shapes; heads for a task add little."""


class Weights(NamedTuple):
    """How many a network has."""

    total: int
    without_embeddings: int  # of words or pieces


def of_bert(config: BertConfig) -> Weights:
    """Counted without making them."""
    with torch.device("meta"):
        model = BertModel(config)
    total = sum(weights.numel() for weights in model.parameters())
    return Weights(total, total - model.get_input_embeddings().weight.numel())


def of_graph(file: Path) -> Weights:
    """Of an exact graph; the scales of what is stored as int8 are no weights."""
    graph = onnx.load(file).graph
    chosen = {node.input[0].removesuffix("_scales") for node in graph.node if node.op_type == "Gather"}
    sizes = {
        tensor.name.removesuffix("_int8"): int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type in NUMBERS and not tensor.name.endswith("_scales")
    }
    tables = [size for name, size in sizes.items() if name in chosen]
    return Weights(sum(sizes.values()), sum(sizes.values()) - max(tables))


def line(name: str, weights: Weights, files: str, beside: list[Weights]) -> str:
    """A row of the table."""
    times = " | ".join(f"{other.total / weights.total:,.3g}" for other in beside)
    rest = f"{beside[0].without_embeddings / weights.without_embeddings:,.3g}"
    return f"| {name} | {weights.total:,} | {weights.without_embeddings:,} | {files} | {times} | {rest} |"


def table(folders: list[Path]) -> Iterator[str]:
    """Its lines."""
    berts = {name: of_bert(config) for name, config in BERTS.items()}
    beside = list(berts.values())
    of = " | ".join(f"{name}'s, times larger" for name in berts)
    yield f"| model | weights | without embeddings | exact, fast graph, MB | {of} | BERT-base's body, times larger |"
    yield f"|---|--:|--:|--:|{'--:|' * (len(berts) + 1)}"
    for name, weights in berts.items():
        yield line(f"{name}'s shape", weights, "", beside)
    for folder in folders:
        manifest = read_manifest(folder)
        files = ", ".join(f"{(folder / graph.file).stat().st_size / 1e6:.1f}" for graph in manifest.graphs.values())
        yield line(manifest.name, of_graph(folder / manifest.graphs[Precision.EXACT].file), files, beside)


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}\n" for each in table([Path(argument) for argument in sys.argv[1:]]))
