"""The whole way, one line an arrow: recipe -> data -> teacher's signals -> student -> graphs -> bundle."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from export import inherit
from export.datasets import Columns, Dataset, Example, read_labelled, read_texts
from export.errors import DataError, ModelError, first_line
from export.evaluation import Labels, Logits, accuracy, labels_of, report
from export.methods import METHODS
from export.progress import console
from export.publish import Reference, Trained, encoder_of, free_place, publish, versions
from export.ready_graph import ReadyGraph, graph_file, read_ready_graph
from export.recipe import DistillRecipe, Section, as_toml
from export.students import STUDENTS, Shape, count_parameters
from export.teacher import Teacher, load_tokenizer, teacher_recipe
from export.teachers import AnyTeacher, open_teacher
from export.to_onnx import fast_graph, student_graph, teacher_graph
from export.training import Judge, fit
from export.transfer import TransferSet, collect, encode, label
from export.vocabulary import Vocabulary, student_vocabulary
from service.bundle.encoder import Encoder
from service.bundle.manifest import Lineage, Precision, Role, Task


@dataclass(frozen=True)
class Places:
    """Where a run keeps its things: caches and checkpoints below `work`, finished bundles below `models`."""

    work: Path
    models: Path


def distill(recipe: DistillRecipe, places: Places, command: str) -> Path:
    """Distil a student and publish it; returns the bundle's folder. An interrupted run goes on where it stopped.

    The teacher may be a bundle: then it labels the texts as it does when it is served.

    Raises ExportError for input that can't be used, BundleError when the bundle doesn't prove itself.
    """
    free_place(places.models, recipe.name, recipe.version)
    data = recipe.data.read()
    teacher = load_teacher(recipe)
    texts = collect(data, recipe.transfer, teacher.tokenizer.mask_token or "", recipe.seed)
    logits = label(teacher, texts.groups, places.work / "logits")
    vocabulary = student_vocabulary(teacher.tokenizer, texts.texts, recipe.student.prune)
    encoder = encoder_of(vocabulary.tokenizer_json, Role.STUDENT, recipe.student.max_tokens, vocabulary.pad_id)
    transfer = encode(encoder, texts, logits, vocabulary.pad_id)
    student = new_student(recipe, vocabulary, teacher)
    dev = encode_dev(encoder, data, vocabulary.pad_id)
    folder = places.work / "students" / f"{recipe.name}-{_digest(recipe, transfer, dev)}"
    fit(student, METHODS[recipe.method](recipe, transfer), judge_on(dev), folder, recipe.seed)
    return _publish_student(recipe, places, command, student, vocabulary, teacher, data, dev)


def adopt(folder: str, name: str, version: int, dev: str, columns: Columns, models: Path, command: str) -> Path:
    """Publish a Hugging Face classifier, or an ONNX graph of one as it is, as a teacher bundle, measured on `dev`.

    The metrics are for one label a row: of models for other tasks, only the graph is measured, on the texts. Returns
    the bundle's folder.
    """
    free_place(models, name, version)
    file = graph_file(folder)
    if file is None:
        teacher = Teacher.load(folder)
        texts, labels = _dev_rows(teacher.task, teacher.labels, dev, columns)
        torch_logits = teacher.exact_logits(texts)
        ready = _ready_graph(teacher)
    else:
        ready, torch_logits = read_ready_graph(file, folder), None
        texts, labels = _dev_rows(ready.task, ready.labels, dev, columns)
    trained = Trained(
        name=name,
        version=version,
        role=Role.TEACHER,
        task=ready.task,
        labels=ready.labels,
        tokenizer_json=ready.tokenizer_json,
        max_tokens=ready.max_tokens,
        pad_id=ready.pad_id,
        graphs={Precision.EXACT: ready.graph},
        lineage=Lineage(teacher=None, method="fine-tuning", recipe=teacher_recipe(folder), versions=versions()),
    )
    return publish(trained, Reference(dev, texts, labels, torch_logits, None), models, command)


def _ready_graph(teacher: Teacher) -> ReadyGraph:
    return ReadyGraph(
        graph=teacher_graph(teacher.model),
        task=teacher.task,
        labels=teacher.labels,
        tokenizer_json=teacher.tokenizer_json,
        max_tokens=teacher.max_tokens,
        pad_id=teacher.tokenizer.pad_token_id,
    )


def _dev_rows(task: Task, names: tuple[str, ...], dev: str, columns: Columns) -> tuple[list[str], Labels | None]:
    """The texts, and their labels (N,) where the metrics can use them."""
    if task is Task.SINGLE_LABEL:
        examples = read_labelled(dev, names, columns)
        return [example.text for example in examples], labels_of(examples)
    texts = list(read_texts(dev, columns.text))
    if not texts:
        raise DataError(f"{dev}: has no rows, so there is nothing to measure")
    return texts, None


def load_teacher(recipe: DistillRecipe) -> AnyTeacher:
    """Raises ModelError when the teacher has another task, other labels than the recipe or in another order, or can't
    mask."""
    teacher = open_teacher(recipe.teacher)
    if teacher.task is not Task.SINGLE_LABEL:
        raise ModelError(f"teacher {recipe.teacher.model}: does {teacher.task}; students learn single-label tasks")
    if teacher.labels != recipe.data.labels:
        raise ModelError(
            f"teacher {recipe.teacher.model} knows the labels {', '.join(teacher.labels)}; "
            f"data.labels says {', '.join(recipe.data.labels)}"
        )
    augment = recipe.transfer.augment
    if teacher.tokenizer.mask_token is None and augment.copies and augment.p_mask:
        raise ModelError(f"teacher {recipe.teacher.model}: has no mask token; set transfer.augment.p_mask = 0")
    return teacher


def new_student(recipe: DistillRecipe, vocabulary: Vocabulary, teacher: AnyTeacher) -> nn.Module:
    """An untrained student with the embeddings that it inherits."""
    torch.manual_seed(recipe.seed)
    wanted, rng = recipe.student, np.random.default_rng(recipe.seed)
    count = len(vocabulary.kept)
    shape = Shape(count, wanted.embedding, wanted.hidden, wanted.dense, len(recipe.data.labels), wanted.dropout)
    student = STUDENTS[wanted.architecture](shape)
    if wanted.embeddings == "svd":
        table = inherit.svd_embeddings(teacher.embeddings, vocabulary.kept, wanted.embedding)
    elif wanted.embeddings == "random":
        table = inherit.random_embeddings(count, wanted.embedding, rng)
    else:
        table = inherit.file_embeddings(Path(wanted.embeddings), vocabulary.pieces, wanted.embedding, rng)
    student.get_parameter("embedding.weight").data.copy_(torch.from_numpy(table))
    size = count_parameters(student)
    console.log(f"student: {size.total:,} weights, {size.without_embeddings:,} without embeddings; {count:,} pieces")
    return student


@dataclass(frozen=True)
class Dev:
    """The dev split as the student reads it."""

    examples: tuple[Example, ...]
    rows: tuple[list[int], ...]


def encode_dev(encoder: Encoder, data: Dataset, pad_id: int) -> Dev:
    """Tokens of every dev text; an empty one is one pad token."""
    rows = encoder.encode([example.text for example in data.dev])
    return Dev(data.dev, tuple(row or [pad_id] for row in rows))


def judge_on(dev: Dev) -> Judge:
    """Dev accuracy of a network."""
    labels = labels_of(dev.examples)
    return lambda student: accuracy(torch_logits(student, dev).argmax(axis=1), labels)


@torch.inference_mode()
def torch_logits(student: nn.Module, dev: Dev) -> Logits:
    """Logits (N, L) of the network itself, in fp32, without padding."""
    student.eval()
    device = next(student.parameters()).device
    found: dict[int, Logits] = {}
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(dev.rows):
        by_length.setdefault(len(row), []).append(i)
    for length, places in by_length.items():
        ids = torch.tensor([dev.rows[i] for i in places], device=device)  # (B, T)
        logits = student(ids, torch.full((len(places),), length)).float().cpu().numpy()
        found.update(zip(places, logits, strict=True))
    return np.stack([found[i] for i in range(len(dev.rows))])


def _publish_student(
    recipe: DistillRecipe,
    places: Places,
    command: str,
    student: nn.Module,
    vocabulary: Vocabulary,
    teacher: AnyTeacher,
    data: Dataset,
    dev: Dev,
) -> Path:
    exact = student_graph(student)
    trained = Trained(
        name=recipe.name,
        version=recipe.version,
        role=Role.STUDENT,
        task=Task.SINGLE_LABEL,
        labels=data.labels,
        tokenizer_json=vocabulary.tokenizer_json,
        max_tokens=recipe.student.max_tokens,
        pad_id=vocabulary.pad_id,
        graphs={Precision.EXACT: exact, Precision.FAST: fast_graph(exact)},
        lineage=Lineage(
            teacher=recipe.teacher.model, method=recipe.method, recipe=as_toml(recipe), versions=versions()
        ),
    )
    texts, labels = [example.text for example in data.dev], labels_of(data.dev)
    beside = teacher.exact_logits(texts)
    logits = torch_logits(student, dev)
    console.log(report(logits, labels, beside))
    reference = Reference(recipe.data.dev, texts, labels, logits, beside, teacher.made_of)
    return publish(trained, reference, places.models, command)


def random_teacher(source: str, labels: tuple[str, ...], folder: Path) -> Path:
    """A classifier of this configuration (hub id or folder) with random weights: useless, but as slow as a real one."""
    try:
        config = AutoConfig.from_pretrained(source, num_labels=len(labels), id2label=dict(enumerate(labels)))
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: {first_line(error)}") from error
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)
    return folder


def _digest(recipe: Section, transfer: TransferSet, dev: Dev) -> str:
    """All that decides a student: another teacher at the same place must not find the old one's checkpoints."""
    digest = hashlib.sha256(f"{as_toml(recipe)}{dev}".encode())
    for part in (transfer.tokens, transfer.offsets, transfer.logits, transfer.labels):
        digest.update(part.tobytes())
    return digest.hexdigest()[:12]
