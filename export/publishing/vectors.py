"""Encoders of sentences as bundles: what makes vectors of texts is published, and held against people's judgement.

An encoder is a folder of `pretrain` (Wu et al. 2020) or a Hugging Face model without a head, whose last states are
pooled. A vector's dimensions are called by their numbers.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.beginnings.encoders import is_encoder, load_encoder
from export.data import Sources, listed, read_all
from export.errors import DataError, OptionError
from export.graphs.student_graphs import student_graph
from export.graphs.to_onnx import encoder_graph, fast_graph
from export.learning.fine_tuning import teacher_recipe
from export.measuring.evaluation import LIKENESS, both_sides
from export.networks.pooling import Pooled
from export.networks.pretrained import RECIPE, plain_tokenizer_json
from export.networks.students import BiLSTMEncoder
from export.publishing.publish import Called, Reads, Reference, Trained, encoder_of, free_place, publish, versions
from export.recipe import as_toml, read_pretraining
from export.tasks.metrics import Logits, Targets
from export.tasks.targets import targets_of
from export.teachers.hugging_face import PlainTeacher, pooled, without_padding
from export.texts.datasets import Columns, read_pairs
from service.bundle.encoder import Text
from service.bundle.manifest import Lineage, Network, Precision, Role, Task


def adopt_vectors(
    source: str, called: Called, dev: Sources, columns: Columns, pooling: Pooled, models: Path, command: str
) -> Path:
    """Publish an encoder as a bundle that makes vectors; `dev` are texts on which its graph is measured. Of pairs with
    people's judgement of their likeness it is also measured how well their cosines go with it.

    Pooling and role are a Hugging Face model's; a BiLSTM of ours has its own pooling, and is a student.

    Raises ModelError, DataError, BundleExists.
    """
    if called.rename:
        raise OptionError("--rename: a vector's dimensions have no names; leave it out")
    free_place(models, called.name, called.version)
    texts, targets = _judged(dev, columns) if columns.pair else (_texts(dev, columns.text), None)
    if not texts:
        raise DataError(f"{listed(dev)}: has no rows, so there is nothing to measure")
    make = _of_ours if is_encoder(source) else partial(_of_hugging_face, pooling=pooling)
    trained, vectors = make(source, called, texts)
    return publish(trained, Reference(listed(dev), texts, targets, vectors, None), models, command)


def _texts(dev: Sources, column: str) -> list[Text]:
    sources = (dev,) if isinstance(dev, str) else dev
    return [text for each in sources for text in read_pairs(each, (column,))]


def _judged(dev: Sources, columns: Columns) -> tuple[list[Text], Targets]:
    examples = read_all(dev, LIKENESS, columns)
    return both_sides(examples), targets_of(examples, Task.REGRESSION, 1)


def _of_ours(source: str, called: Called, texts: Sequence[Text]) -> tuple[Trained, Logits]:
    saved, recipe = load_encoder(source), read_pretraining(Path(source, RECIPE))
    network = BiLSTMEncoder(saved.shape)
    network.load_state_dict(saved.weights)
    network.eval()
    exact = student_graph(network)
    trained = Trained(
        name=called.name,
        version=called.version,
        role=Role.STUDENT,
        network=Network.RECURRENT,
        task=Task.EMBEDDING,
        labels=_dimensions(saved.shape.dense),
        texts=1,
        tokenizer_json=saved.tokenizer_json,
        max_tokens=saved.max_tokens,
        pad_id=saved.pad_id,
        graphs={Precision.EXACT: exact, Precision.FAST: fast_graph(exact)},
        lineage=Lineage(
            teacher=recipe.teacher.model, method=recipe.method, recipe=as_toml(recipe), versions=versions()
        ),
    )
    reads = Reads(Network.RECURRENT, Task.EMBEDDING)
    rows = encoder_of(saved.tokenizer_json, reads, saved.max_tokens, saved.pad_id).encode(texts)
    return trained, _network_vectors(network, [row or [saved.pad_id] for row in rows if isinstance(row, list)])


@torch.inference_mode()
def _network_vectors(network: BiLSTMEncoder, rows: Sequence[list[int]]) -> Logits:
    def run(places: Sequence[int]) -> Tensor:
        ids = torch.tensor([rows[i] for i in places])
        vectors: Tensor = network(ids, torch.full((len(ids),), ids.shape[1])).logits
        return vectors

    return np.stack(without_padding(list(map(len, rows)), run))


def _of_hugging_face(source: str, called: Called, texts: Sequence[Text], *, pooling: Pooled) -> tuple[Trained, Logits]:
    teacher = PlainTeacher.load(source)

    def pool(states: Tensor, mask: Tensor) -> Tensor:
        return pooled(states, mask, pooling)

    vectors = teacher.vectors(list(map(str, texts)), pooling)
    trained = Trained(
        name=called.name,
        version=called.version,
        role=called.role,
        network=Network.TRANSFORMER,
        task=Task.EMBEDDING,
        labels=_dimensions(vectors.shape[1]),
        texts=1,
        tokenizer_json=plain_tokenizer_json(teacher.tokenizer),
        max_tokens=teacher.max_tokens,
        pad_id=int(teacher.tokenizer.pad_token_id),
        graphs={Precision.EXACT: encoder_graph(teacher.model, pool)},
        lineage=Lineage(
            teacher=None,
            method=f"as it was trained; {pooling} states",
            recipe=teacher_recipe(source),
            versions=versions(),
        ),
    )
    return trained, vectors


def _dimensions(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
