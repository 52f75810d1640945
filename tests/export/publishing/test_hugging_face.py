"""A Hugging Face classifier that became a bundle answers as transformers' own pipeline does, whatever its problem."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, Pipeline, PreTrainedTokenizerFast, pipeline

from export.errors import DataError, ModelError
from export.pipeline import Judged, Places, adopt, distill
from export.publishing.publish import Called
from export.tasks.metrics import METRICS
from export.texts.datasets import Columns
from service.bundle.encoder import Text
from service.bundle.manifest import Precision, Role, Task
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.store import write_bundle
from service.bundle.tasks import FUNCTIONS, Function
from tests.toys import toy
from tests.toys.workshop import Shop

SINGLE = ("", "good", "a very dull film .", "the film is not bad , but " * 20)
# Transformers takes an empty second text for none where it is given alone, and for a text in a list. Ours is a text.
PAIRS = (
    ("", "good"),
    ("good", "a film"),
    ("is it good ?", "not very , it is too long"),
    ("a film " * 40, "dull " * 30),
)
Problem = Literal["regression", "single_label_classification", "multi_label_classification"] | None
PROBLEMS: dict[str, tuple[Problem, int, Task]] = {
    "one label of three": ("single_label_classification", 3, Task.SINGLE_LABEL),
    "one label of two, undeclared": (None, 2, Task.SINGLE_LABEL),
    "several labels": ("multi_label_classification", 4, Task.MULTI_LABEL),
    "one label alone": (None, 1, Task.MULTI_LABEL),
    "a number": ("regression", 1, Task.REGRESSION),
    "three numbers": ("regression", 3, Task.REGRESSION),
}


def save(folder: Path, problem: Problem, labels: int) -> Path:
    """A random BERT with a head for this problem, as a Hugging Face folder."""
    torch.manual_seed(labels)
    config = BertConfig(
        vocab_size=len(toy.VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,  # heads are what is tested; test_to_onnx.py has deeper ones
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=toy.MAX_TOKENS,
        problem_type=problem,
        id2label={place: f"label {place}" for place in range(labels)},
        initializer_range=0.5,
    )
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.bias)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(toy.tokenizer(special=True).decode()),
        model_max_length=toy.MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
    ).save_pretrained(folder)
    return folder


def theirs(folder: Path) -> Pipeline:
    return pipeline("text-classification", model=str(folder), device="cpu")


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> tuple[Problem, int, Task]:
    return PROBLEMS[str(request.param)]


@pytest.fixture(scope="module")
def folder(problem: tuple[Problem, int, Task], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert") / "model", *problem[:2])


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return theirs(folder)


@pytest.fixture(scope="module")
def adopted(problem: tuple[Problem, int, Task], folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a bundle, by the command that people use."""
    models = tmp_path_factory.mktemp("models")
    dev = models.parent / f"{models.name}.tsv"
    cell = ",".join("1" * problem[1]) if problem[2] is Task.REGRESSION else "label 0"
    dev.write_text("text\tlabel\n" + "".join(f"{text or 'a'}\t{cell}\n" for text in SINGLE))
    return adopt(str(folder), Called("toy"), Judged(str(dev), Columns()), models, "a test")


@pytest.fixture(scope="module")
def bundle(adopted: Path) -> OpenBundle:
    return open_bundle(adopted)


@pytest.fixture(scope="module")
def of_pairs(adopted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph and tokenizer as a bundle that reads pairs."""
    single = open_bundle(adopted).manifest
    files = {name: (adopted / name).read_bytes() for name in single.files}
    manifest = toy.draft("pairs", "1", Role.TEACHER, files, toy.PROOF_PAIRS, task=single.task, labels=single.labels)
    written = tmp_path_factory.mktemp("models") / "pairs" / "1"
    write_bundle(written, manifest, files, card=None)
    return written


def scores(pipe: Pipeline, text: Text, **options: object) -> dict[str, float]:
    asked = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
    found = pipe(asked, top_k=None, truncation=True, max_length=toy.MAX_TOKENS, **options)
    return {row["label"]: row["score"] for row in found}


def ours(bundle: OpenBundle, text: Text) -> dict[str, float]:
    (found,) = bundle.scores(bundle.classify([text])).tolist()
    return dict(zip(bundle.manifest.labels, found, strict=True))


def test_adopting_reads_the_task_from_the_configuration(problem: tuple[Problem, int, Task], adopted: Path) -> None:
    manifest = open_bundle(adopted).manifest
    assert (manifest.task, len(manifest.labels)) == (problem[2], problem[1])
    assert {row.metric for row in manifest.results} == {*METRICS[problem[2]]}
    assert manifest.graphs[open_bundle(adopted).precision].parity < 1e-4


@pytest.mark.parametrize("text", SINGLE)
def test_a_text_gets_the_scores_of_the_pipeline(pipe: Pipeline, bundle: OpenBundle, text: str) -> None:
    assert ours(bundle, text) == pytest.approx(scores(pipe, text), abs=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_gets_the_scores_of_the_pipeline(pipe: Pipeline, of_pairs: Path, pair: tuple[str, str]) -> None:
    assert ours(open_bundle(of_pairs), pair) == pytest.approx(scores(pipe, pair), abs=1e-5)


def test_a_pair_is_not_the_same_the_other_way_round(of_pairs: Path) -> None:
    bundle = open_bundle(of_pairs)
    assert np.abs(bundle.classify([("good", "bad")]) - bundle.classify([("bad", "good")])).max() > 1e-3


@pytest.mark.parametrize("function", [Function.SOFTMAX, Function.SIGMOID, Function.NONE])  # a vector has no pipeline
def test_each_function_is_that_of_the_pipeline(pipe: Pipeline, bundle: OpenBundle, function: Function) -> None:
    found = FUNCTIONS[function](bundle.classify([SINGLE[2]]))[0].tolist()
    wanted = scores(pipe, SINGLE[2], function_to_apply=function.value)
    assert dict(zip(bundle.manifest.labels, found, strict=True)) == pytest.approx(wanted, abs=1e-5)


@given(data=st.data())
def test_the_same_logits_give_the_same_scores(pipe: Pipeline, bundle: OpenBundle, data: st.DataObject) -> None:
    width = len(bundle.manifest.labels)
    logits = data.draw(arrays(np.float32, (1, width), elements=st.floats(-80, 80, width=32)))
    theirs: Any = pipe.postprocess  # its base class has the types of another pipeline
    found = theirs({"logits": torch.from_numpy(logits)}, top_k=None, _legacy=False)
    wanted = {row["label"]: row["score"] for row in found}
    (ours,) = bundle.scores(logits).tolist()
    assert dict(zip(bundle.manifest.labels, ours, strict=True)) == pytest.approx(wanted, abs=1e-6)


def test_a_student_is_not_made_of_a_teacher_of_another_task(shop: Shop, tmp_path: Path) -> None:
    teacher = save(tmp_path / "teacher", "multi_label_classification", 2)
    recipe = shop.distill_recipe(teacher)
    shorter = recipe.teacher.model_copy(update={"max_tokens": toy.MAX_TOKENS})
    places = Places(tmp_path / "runs", tmp_path / "models")
    with pytest.raises(ModelError, match=r"does multi-label; data\.task says single-label"):
        distill(recipe.model_copy(update={"teacher": shorter}), places, "a test")


def test_without_labels_only_the_graph_is_measured(tmp_path: Path) -> None:
    teacher, dev = save(tmp_path / "teacher", "regression", 1), tmp_path / "dev.txt"
    dev.write_text("good\na very dull film .\n")
    folder = adopt(str(teacher), Called("toy"), Judged(str(dev), Columns()), tmp_path / "models", "a test")
    manifest = open_bundle(folder).manifest
    assert manifest.results == ()
    assert 0 < manifest.graphs[Precision.EXACT].parity < 1e-4


def test_a_graph_is_not_measured_on_nothing(tmp_path: Path) -> None:
    teacher, dev = save(tmp_path / "teacher", "regression", 1), tmp_path / "dev.txt"
    dev.write_text("")
    with pytest.raises(DataError, match="no rows"):
        adopt(str(teacher), Called("toy"), Judged(str(dev), Columns()), tmp_path / "models", "a test")
