"""What tests of the native engine share: random students' graphs, both engines, and rows for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from export.graphs.student_graphs import WRITERS, student_graph
from export.networks.students import STUDENTS, Activation, Form, Pooling, Shape
from service.bundle.blueprint import Blueprint, recognise
from service.bundle.engine import open_graph
from service.bundle.engines import EngineOptions, Isa
from service.bundle.native import NativeGraph, open_native
from service.bundle.onnx_file import OnnxFile
from service.bundle.rows import Feeds, Ids
from service.bundle.tasks import Logits

NEEDED = pytest.mark.skipif(
    find_spec("understudy_native") is None, reason="the native engine is not installed: it wants a C++ compiler"
)

NAMES = tuple({network: name for name, network in reversed(list(STUDENTS.items())) if network in WRITERS}.values())
"""Of each network that has a graph of its own one; some stand in the table twice."""


@dataclass(frozen=True)
class Kind:
    """A student's network and its widths."""

    name: tuple[str, Form]
    shape: Shape

    @property
    def pairs(self) -> bool:
        return self.name[1] is Form.PAIR

    def graph(self, seed: int = 0, scale: float = 0.4) -> bytes:
        """Of random weights; no bias is zero, which would hide a backward direction that reads the padding."""
        torch.manual_seed(seed)
        student = STUDENTS[self.name](self.shape)
        for parameter in (*student.parameters(), *student.buffers()):
            nn.init.normal_(parameter, 0, scale)
        return student_graph(student.eval())


PLAIN = Shape(vocabulary=40, embedding=7, hidden=9, dense=6, labels=3)
OTHER = Shape(40, 5, 13, 10, 2, pooling=Pooling.MAX, activation=Activation.GELU, channels=2)
LINEAR = Shape(40, 4, 6, 5, 4, activation=Activation.LINEAR)


def isas() -> list[Isa]:
    """Those that this processor has."""
    import understudy_native

    return [Isa(name) for name in understudy_native.isas()]


def blueprint(graph: bytes) -> Blueprint:
    return recognise(OnnxFile.read(graph))


def native(graph: bytes, threads: int = 1, isa: Isa = Isa.AUTO) -> NativeGraph:
    return open_native(graph, EngineOptions(threads=threads, isa=isa))


def reference(graph: bytes, feeds: Feeds) -> Logits:
    """ONNX Runtime's."""
    return open_graph(graph).run(feeds)


def block(rows: Sequence[Sequence[int]], more: int = 0, pad: int = 0) -> tuple[Ids, Ids]:
    """Rows -> ids (B, T), padded and with more padding, and lengths (B,)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.full((len(rows), int(lengths.max()) + more), pad, np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids, lengths


def feeds_of(kind: Kind, rows: Sequence[Sequence[int]], more: int = 0, pad: int = 0) -> Feeds:
    """The second text of a pair is the first one turned round, and one token longer."""
    ids, lengths = block(rows, more, pad)
    if not kind.pairs:
        return {"input_ids": ids, "lengths": lengths}
    other, others = block([[*row[::-1], row[0]] for row in rows], more, pad)
    return {"input_ids": ids, "lengths": lengths, "pair_ids": other, "pair_lengths": others}


def own(logits: Logits, lengths: Sequence[int]) -> list[Logits]:
    """Each row's, without a tagger's padding."""
    if logits.ndim == 2:
        return list(logits)
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]
