"""The whole way, one line an arrow: recipe -> data -> teacher's signals -> student -> graphs -> bundle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.beginnings.encoders import check_no_student
from export.beginnings.initial import untrained
from export.beginnings.vocabulary import Vocabulary
from export.data import Data, Sources, listed, read_all
from export.errors import DataError, ModelError, RecipeError
from export.graphs.to_onnx import graphs_of, teacher_graph
from export.learning.fine_tuning import teacher_recipe
from export.learning.training import Judge, fit
from export.measuring.evaluation import asked, report
from export.methods import METHODS
from export.networks.device import processes
from export.objectives.signals import Output, Signals, hidden_parts
from export.progress import console
from export.publishing.publish import Called, Reads, Reference, Trained, encoder_of, free_place, publish, versions
from export.publishing.ready_graph import ReadyGraph, graph_file, read_ready_graph
from export.recipe import DistillRecipe, as_toml, fingerprint
from export.sections import HiddenStates, Student
from export.tasks.metrics import Logits, Targets, selecting
from export.tasks.targets import Marks, marks_of, targets_of
from export.teachers.hugging_face import PlainTeacher, Teacher, weights_digest
from export.teachers.labels import check_labels, knows_no_task, renamed
from export.teachers.opened import AnyTeacher, open_teacher
from export.texts.datasets import Columns, Dataset, Names, read_pairs
from export.texts.records import read_records
from export.transfer.labelling import Elsewhere, label
from export.transfer.transfer_set import Tokens, TransferSet, TransferTexts, collect, encode, tokens_of
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.manifest import Lineage, Network, Precision, Role, Task
from service.cluster import Cluster


@dataclass(frozen=True)
class Places:
    """Where a run keeps its things: caches and checkpoints below `work`, finished bundles below `models`."""

    work: Path
    models: Path


def distill(recipe: DistillRecipe, places: Places, command: str, cluster: Cluster | None = None) -> Path:
    """Distil a student and publish it; returns the bundle's folder. An interrupted run goes on where it stopped.

    The teacher may be a bundle: then it labels the texts as it does when it is served. Under torchrun or `accelerate
    launch` each process labels and learns a part, in one folder for all. On a cluster the nodes label.

    Raises ExportError for input that can't be used, BundleError when the bundle doesn't prove itself.
    """
    place = free_place(places.models, recipe.name, recipe.version)
    data = recipe.data.read()
    teacher = load_teacher(recipe)
    hidden = hidden_to_learn(recipe, teacher)
    texts = collect(data, recipe.transfer, teacher.tokenizer.mask_token or "", recipe.seed)
    # Before the teacher is asked, which takes long: what a student can't begin with is said at once.
    student, vocabulary = untrained(recipe.student, recipe.data, teacher, texts.strings, recipe.seed)
    signals = _asked(recipe, teacher, texts, hidden, places.work / "logits", cluster)
    encoder = student_encoder(recipe, vocabulary)
    transfer = encode(encoder, texts, signals, recipe.data, vocabulary.pad_id)
    dev = encode_dev(encoder, data, recipe.data, vocabulary.pad_id)
    folder = places.work / "students" / f"{recipe.name}-{_digest(recipe, transfer, dev, student)}"
    fit(student, METHODS[recipe.method](recipe, transfer), judge_on(dev), folder, recipe.seed)
    if not processes().is_main_process:
        return place  # where one of us publishes it for all
    return _publish_student(recipe, places, command, student, vocabulary, teacher, dev)


class Judged(NamedTuple):
    """Rows on which an adopted model is measured."""

    dev: Sources
    columns: Columns
    labelled: bool = False  # they must have the column of labels; else, without it, the graph alone is measured


def _asked(
    recipe: DistillRecipe,
    teacher: AnyTeacher,
    texts: TransferTexts,
    hidden: HiddenStates | None,
    cache: Path,
    cluster: Cluster | None,
) -> Signals:
    """What the teacher says of all texts; nothing, where nothing of it is learnt."""
    if recipe.learns_labels_alone:
        return Signals(np.zeros((len(texts.labels), len(recipe.data.labels)), dtype=np.float32))
    opener = partial(open_teacher, recipe.teacher.anywhere, recipe.data.form.texts)
    elsewhere = None if cluster is None else Elsewhere(cluster, opener)
    return label(teacher, texts.groups, hidden, cache, elsewhere)


def adopt(folder: str, called: Called, judged: Judged, models: Path, command: str) -> Path:
    """Publish a Hugging Face classifier, or an ONNX graph of one as it is, as a bundle, measured on `judged`.

    Returns the bundle's folder.
    """
    free_place(models, called.name, called.version)
    file = graph_file(folder)
    if file is None:
        teacher = Teacher.load(folder)
        labels = renamed(folder, teacher.labels, called.rename)
        rows = _rows_of(judged, Names(labels, teacher.task))
        torch_logits = teacher.exact_logits(rows.texts)
        ready = _ready_graph(teacher)
    else:
        ready, torch_logits = read_ready_graph(file, folder), None
        labels = renamed(folder, ready.labels, called.rename)
        rows = _rows_of(judged, Names(labels, ready.task))
    trained = Trained(
        name=called.name,
        version=called.version,
        role=called.role,
        network=Network.TRANSFORMER,
        task=ready.task,
        labels=labels,
        texts=len(judged.columns.texts),
        tokenizer_json=ready.tokenizer_json,
        max_tokens=ready.max_tokens,
        pad_id=ready.pad_id,
        graphs={Precision.EXACT: ready.graph},
        lineage=Lineage(teacher=None, method="fine-tuning", recipe=teacher_recipe(folder), versions=versions()),
    )
    reference = Reference(listed(judged.dev), rows.texts, rows.targets, torch_logits, None, marks=rows.marks)
    return publish(trained, reference, models, command)


class _Rows(NamedTuple):
    """What an adopted model is measured on."""

    texts: list[Text]
    targets: Targets | None
    marks: Marks | None


def _rows_of(judged: Judged, names: Names) -> _Rows:
    """With their labels if the first row has one. Raises DataError, also when there are no rows."""
    dev, columns, wanted = judged
    sources = (dev,) if isinstance(dev, str) else dev
    first = next(chain.from_iterable(map(read_records, sources)), None)
    if first is not None and (wanted or columns.label in first[1]):
        examples = read_all(dev, names, columns)
        targets = targets_of(examples, names.task, len(names.labels))
        return _Rows([example.text for example in examples], targets, marks_of(examples))
    texts = [text for source in sources for text in read_pairs(source, columns.texts)]
    if not texts:
        raise DataError(f"{listed(dev)}: has no rows, so there is nothing to measure")
    console.log(f"{listed(dev)}: no column {columns.label!r}, so the graph alone is measured; --label names another")
    return _Rows(texts, None, None)


def _ready_graph(teacher: Teacher) -> ReadyGraph:
    return ReadyGraph(
        graph=teacher_graph(teacher.model),
        task=teacher.task,
        labels=teacher.labels,
        tokenizer_json=teacher.tokenizer_json,
        max_tokens=teacher.max_tokens,
        pad_id=teacher.tokenizer.pad_token_id,
    )


def load_teacher(recipe: DistillRecipe) -> AnyTeacher:
    """Raises ModelError when the teacher has another task, other labels than the recipe or in another order, or can't
    mask. Where the labels alone are learnt it may be an encoder that knows no task."""
    check_no_student(recipe.teacher.model)
    if recipe.learns_labels_alone and knows_no_task(recipe.teacher.model):
        return PlainTeacher.load(recipe.teacher.model, recipe.teacher.max_tokens)
    teacher = open_teacher(recipe.teacher, recipe.data.form.texts)
    if teacher.task is not recipe.data.task:
        raise ModelError(f"teacher {recipe.teacher.model}: does {teacher.task}; data.task says {recipe.data.task}")
    theirs = renamed(recipe.teacher.model, teacher.labels, recipe.teacher.rename)
    check_labels(recipe.teacher.model, theirs, recipe.data.labels)
    augment = recipe.transfer.augment
    if teacher.tokenizer.mask_token is None and augment.copies and augment.p_mask:
        raise ModelError(f"teacher {recipe.teacher.model}: has no mask token; set transfer.augment.p_mask = 0")
    return teacher


def hidden_to_learn(recipe: DistillRecipe, teacher: AnyTeacher) -> HiddenStates | None:
    """The hidden states that the method learns from, if any.

    Raises ModelError when the teacher doesn't give them, RecipeError when the recipe doesn't name them or the student's
    representation is not as wide.
    """
    if not recipe.learns_states:
        return None
    hidden, (layers, width) = recipe.teacher.hidden, teacher.states
    if not layers:
        raise ModelError("teacher.hidden: a bundle gives no hidden states; name the teacher's Hugging Face folder")
    if hidden is None:
        raise RecipeError(
            "teacher.hidden: unset, and the stage of the representation learns a layer's states; "
            f"write layer = {math.ceil(layers / 2)} below [teacher.hidden], the middle one of {layers}"
        )
    if hidden.layer > layers:
        raise ModelError(f"teacher.hidden.layer: it has {layers} layers, not {hidden.layer}")
    if isinstance(recipe.student, Student) and recipe.student.dense != width:
        raise RecipeError(
            f"student.dense: {recipe.student.dense}, but the teacher's states are {width} wide; write {width}"
        )
    return hidden


def student_encoder(recipe: DistillRecipe, vocabulary: Vocabulary) -> Encoder:
    """The encoder that a server will make for the student."""
    reads = Reads(recipe.student.network, recipe.data.task, recipe.data.form.texts)
    return encoder_of(vocabulary.tokenizer_json, reads, recipe.student.max_tokens, vocabulary.pad_id)


@dataclass(frozen=True)
class Dev:
    """The dev split as the student reads it."""

    task: Task
    labels: tuple[str, ...]
    texts: tuple[Text, ...]
    rows: Sequence[Row]
    tokens: tuple[Tokens, ...]  # of each text of a row
    targets: Targets  # (N,), (N, L), or of words (W, 2)
    marks: Marks | None  # of texts with tags, or with answers
    metric: str | None = None  # selects; the task's first if none is named

    def asked(self, logits: Logits) -> Logits:
        """What is measured of the student's answers."""
        return asked(logits, self.rows, self.marks, self.labels)


def encode_dev(encoder: Encoder, data: Dataset, described: Data, pad_id: int) -> Dev:
    """Tokens and targets of every dev row."""
    texts = tuple(example.text for example in data.dev)
    rows: Sequence[Row] = encoder.encode(texts)
    targets = targets_of(data.dev, described.task, len(data.labels))
    tokens = tokens_of(rows, pad_id)
    return Dev(described.task, data.labels, texts, rows, tokens, targets, marks_of(data.dev), described.metric)


def judge_on(dev: Dev) -> Judge:
    """The dev metric of a network that selects."""
    metric = selecting(dev.task, dev.metric)
    return lambda student: metric(dev.asked(torch_logits(student, dev)), dev.targets, dev.labels)


@torch.inference_mode()
def torch_logits(student: nn.Module, dev: Dev) -> Logits:
    """Logits (N, L) of the network itself, in fp32, without padding where rows are single texts; a tagger's (R, L)."""
    student.eval()
    device = next(student.parameters()).device
    found: dict[int, Logits] = {}
    by_length: dict[tuple[int, ...], list[int]] = {}
    for i, lengths in enumerate(zip(*(tokens.lengths.tolist() for tokens in dev.tokens), strict=True)):
        by_length.setdefault(lengths, []).append(i)
    for places in by_length.values():
        blocks = [part for tokens in dev.tokens for part in tokens.block(np.array(places))]
        output: Output = student(*(torch.from_numpy(part).to(device) for part in blocks))
        own = np.split(output.logits.float().cpu().numpy(), len(places))  # a row's (1, L), a tagger's (T, L)
        found.update(zip(places, own, strict=True))
    if dev.marks is None:
        return np.concatenate([found[i] for i in range(len(dev.rows))])
    return np.concatenate([found[i][: len(row)] for i, row in enumerate(dev.rows)])  # an empty row has a pad token


def _publish_student(
    recipe: DistillRecipe,
    places: Places,
    command: str,
    student: nn.Module,
    vocabulary: Vocabulary,
    teacher: AnyTeacher,
    dev: Dev,
) -> Path:
    trained = Trained(
        name=recipe.name,
        version=recipe.version,
        role=Role.STUDENT,
        network=recipe.student.network,
        task=dev.task,
        labels=recipe.data.labels,
        texts=recipe.data.form.texts,
        tokenizer_json=vocabulary.tokenizer_json,
        max_tokens=recipe.student.max_tokens,
        pad_id=vocabulary.pad_id,
        graphs=graphs_of(student),
        lineage=Lineage(
            teacher=None if teacher.task is Task.EMBEDDING else recipe.teacher.model,
            method=recipe.method,
            recipe=as_toml(recipe),
            versions=versions(),
        ),
    )
    beside = None if teacher.task is Task.EMBEDDING else teacher.exact_logits(dev.texts)  # which answers nothing
    logits = torch_logits(student, dev)
    if beside is not None and dev.marks is not None:
        beside = asked(beside, teacher.read(dev.texts), dev.marks, dev.labels)
    console.log(f"student on dev: {report(dev.task, dev.asked(logits), dev.targets, beside, dev.labels)}")
    reference = Reference(recipe.data.selects, dev.texts, dev.targets, logits, beside, teacher.made_of, dev.marks)
    return publish(trained, reference, places.models, command)


def _digest(recipe: DistillRecipe, transfer: TransferSet, dev: Dev, student: nn.Module) -> str:
    """Also of the teacher, whose signals they are, and of the files that the student begins with, by its weights."""
    found: list[NDArray[Any]] = [np.frombuffer(repr(dev.texts).encode(), dtype=np.uint8)]
    for side in (*transfer.tokens, *dev.tokens):
        found.extend((side.flat, side.offsets))
    found.extend((transfer.signals.logits, *hidden_parts(transfer.signals)))
    found.extend(part for part in (transfer.theirs, transfer.targets, dev.targets) if part is not None)
    if dev.marks is not None:  # right answers, where words begin
        found.append(np.frombuffer(repr(dev.marks).encode(), dtype=np.uint8))
    if recipe.student.begins_with_files:  # an SVD's last bits depend on the threads, and its run must be found again
        found.append(np.frombuffer(weights_digest(student).encode(), dtype=np.uint8))
    return fingerprint(recipe, found)
