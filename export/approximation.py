"""Making a BiLSTM encoder for no task in particular: on plain text it learns a larger encoder's vectors of sentences.

The result is a folder (`export.beginnings.encoders`) with which `distill` begins. The teacher's vectors are small, so
they are stored once, like logits.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.beginnings.encoders import WEIGHTS, save_encoder
from export.beginnings.initial import new_student
from export.beginnings.vocabulary import vocabulary_of
from export.errors import OptionError, RecipeError
from export.learning.training import Stage, fit, judge_by
from export.methods import wu2020
from export.networks.device import processes
from export.networks.pretrained import RECIPE
from export.networks.students import Form
from export.objectives.signals import hidden_parts
from export.publishing.publish import Reads, encoder_of
from export.recipe import ApproximateRecipe, as_toml, fingerprint
from export.sections import HiddenStates
from export.teachers.hugging_face import PlainTeacher
from export.texts.unlabelled import UNLABELLED
from export.transfer.labelling import Elsewhere, label
from export.transfer.transfer_set import TransferSet, encode_texts, tokens_of
from service.cluster import Cluster


def approximate(recipe: ApproximateRecipe, out: Path, work: Path, cluster: Cluster | None = None) -> Path:
    """The encoder lies in `out`. An interrupted run goes on from its last evaluation.

    Raises ExportError for input that can't be used.
    """
    if (out / WEIGHTS).exists():
        raise OptionError(f"{out}: an encoder lies there already; choose another --out")
    teacher = PlainTeacher.load(recipe.teacher.model, recipe.teacher.max_tokens)
    hidden = _hidden(recipe, teacher)
    texts = recipe.read()
    source = recipe.teacher.anywhere
    opener = partial(PlainTeacher.load, source.model, source.max_tokens)
    elsewhere = None if cluster is None else Elsewhere(cluster, opener)
    signals = label(teacher, [texts], hidden, work / "logits", elsewhere)
    vocabulary = vocabulary_of(recipe.student, teacher.tokenizer, texts)
    reads = Reads(recipe.student.network)
    encoder = encoder_of(vocabulary.tokenizer_json, reads, recipe.student.max_tokens, vocabulary.pad_id)
    tokens = tokens_of(encode_texts(encoder, texts), vocabulary.pad_id)
    rows = TransferSet(tokens, signals, np.full(len(texts), UNLABELLED))
    order = np.random.default_rng(recipe.seed).permutation(len(texts))
    held, learnt = (rows.part(np.sort(part)) for part in np.split(order, [recipe.judging]))
    student = new_student(recipe.student, Form.VECTOR, 1, vocabulary, teacher, recipe.seed)
    objective = wu2020.objective(recipe)
    judge = judge_by(objective, held, recipe.training.batch_size)
    parts: list[NDArray[Any]] = [tokens[0].flat, tokens[0].offsets, *hidden_parts(signals)]
    folder = work / "encoders" / f"{recipe.name}-{fingerprint(recipe, parts)}"
    fit(student, [Stage("wu2020", learnt, objective, recipe.training, judge=judge)], judge, folder, recipe.seed)
    if not processes().is_main_process:
        return out  # where one of us saves it for all
    save_encoder(out, student, vocabulary, recipe.student.max_tokens)
    (out / RECIPE).write_text(as_toml(recipe), encoding="utf-8")
    return out


def _hidden(recipe: ApproximateRecipe, teacher: PlainTeacher) -> HiddenStates:
    """Which vector of a text; the teacher itself says whether it has such a layer."""
    width = teacher.states.width
    if recipe.student.dense != width:
        raise RecipeError(f"student.dense: {recipe.student.dense}, but the teacher's vectors are {width} wide")
    assert recipe.teacher.hidden is not None  # the recipe sees to it
    return recipe.teacher.hidden
