"""Editions of one bundle: the same tokenizer, other weights, and a proof of their own. No two answer alike.

It knows how to make one and what it answers. It knows nothing of servers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from service.bundle.manifest import OUTPUT, TOKENIZER_FILE, Precision
from service.bundle.runtime import OpenBundle, open_bundle, open_graph
from service.bundle.seal import MANIFEST_FILE, digests, sealed
from tests.prove.versions import labels_of

GRAPH_FILE = "model.onnx"

Scores = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Edition:
    """One version, where it waits, its own answer to each text, in the source's order of labels, and its seal."""

    version: int
    folder: Path
    answers: tuple[Scores, ...]
    digest: str


class Press:
    """Makes editions out of a bundle's exact graph, in a folder."""

    def __init__(self, source: Path, waiting: Path, texts: Sequence[str]) -> None:
        self._bundle = open_bundle(source)
        self._tokenizer = (source / TOKENIZER_FILE).read_bytes()
        self._graph = onnx.load(source / self._bundle.manifest.graphs[Precision.EXACT].file)
        self._waiting = waiting
        self.texts = tuple(texts)
        self.name = self._bundle.manifest.name
        self.labels = self._bundle.manifest.labels

    def make(self, version: int) -> Edition:
        """Write it, open it as a server would, and ask it everything."""
        folder = self._waiting / str(version)
        folder.mkdir(parents=True)
        files = {TOKENIZER_FILE: self._tokenizer, GRAPH_FILE: self._weights(version)}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        manifest = self._manifest(version, files)
        (folder / MANIFEST_FILE).write_text(sealed(json.dumps(manifest)), encoding="utf-8")
        bundle = open_bundle(folder)
        return Edition(version, folder, answers(bundle, self.texts, self.labels), bundle.manifest.seal)

    def _weights(self, version: int) -> bytes:
        """The last layer gets other weights, smaller ones lest the scores are all next to 0 and 1."""
        chance = np.random.default_rng(version)
        graph = onnx.ModelProto()
        graph.CopyFrom(self._graph)
        last = next(node for node in graph.graph.node if OUTPUT in node.output)
        for tensor in graph.graph.initializer:
            if tensor.name in last.input:
                values = numpy_helper.to_array(tensor)
                noise = chance.normal(0, 0.3, values.shape)
                # What is added to all rows alike tells versions apart even where a text says nothing.
                changed = values * 0.3 * (1 + noise) + noise * (values.ndim == 1)
                tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
        content: bytes = graph.SerializeToString()
        return content

    def _manifest(self, version: int, files: dict[str, bytes]) -> dict[str, object]:
        declared = self._bundle.manifest
        opened = replace(self._bundle, graph=open_graph(files[GRAPH_FILE]))
        logits = [opened.classify([text])[0].tolist() for text in declared.proof.texts]
        exact = declared.graphs[Precision.EXACT].model_dump() | {"file": GRAPH_FILE}
        changed = {
            "version": str(version),
            "labels": labels_of(self.labels, version),
            "graphs": {Precision.EXACT: exact},
            "files": digests(files),
            "proof": {"texts": declared.proof.texts, "logits": {Precision.EXACT: logits}},
        }
        return declared.model_dump(mode="json") | changed


def answers(bundle: OpenBundle, texts: Sequence[str], labels: Sequence[str]) -> tuple[Scores, ...]:
    """Each text alone, its scores in this order of labels."""
    places = [bundle.manifest.labels.index(label) for label in labels]
    rows = [bundle.scores(bundle.classify([text]))[0].tolist() for text in texts]
    return tuple(tuple(row[place] for place in places) for row in rows)


def told_apart(editions: Sequence[Edition], tolerance: float) -> float:
    """The share of all pairs of versions, for all texts, whose answers differ by much more than is allowed."""
    scores = np.array([edition.answers for edition in editions])  # (V, N, L)
    earlier, later = np.triu_indices(len(editions), k=1)
    distance = np.abs(scores[earlier] - scores[later]).max(axis=2)  # (pairs, N)
    return float((distance > 10 * tolerance).mean())
