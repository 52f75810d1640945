"""Pairs the whole way: a teacher of pairs, siamese students of pieces and of words, served and asked over HTTP."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from export.graphs.student_graphs import int8_rows
from export.learning.fine_tuning import fine_tune
from export.networks.pretrained import plain_tokenizer_json
from export.networks.students import Shape, SiameseBiLSTM
from export.pipeline import Places, distill
from export.recipe import DistillRecipe, as_toml
from export.teachers.hugging_face import Teacher
from export.transfer.transfer_set import tokens_of
from service.bundle.manifest import SIAMESE_INPUTS, TRANSFORMER_INPUTS, Precision, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from service.bundle.tasks import softmax
from tests.running import serving
from tests.toys.pairing_shop import COLUMNS, PairShop, open_pair_shop, pairs
from tests.toys.workshop import LABELS, bilstm, command

Pair = tuple[str, str]
TEXT, PAIR, LABEL = COLUMNS
NAMED = ("--text", TEXT, "--pair", PAIR, "--label", LABEL)
ASKED: tuple[Pair, ...] = (
    *((first, second) for first, second, _ in pairs()[:4]),
    ("", "the film is good"),
    ("the film is good", ""),
    ("", ""),
    ("nobody knows THESE zyxwv words", "naïve, isn't it? 映画"),
    ("the cast is dull and slow " * 20, "a joy"),
)
OTHER = {
    "name": "twins-of-words",
    "student": {
        "vocabulary": "words",
        "embeddings": "svd",
        "channels": 2,
        "pooling": "max",
        "embedding": 16,
        "hidden": 12,
        "dense": 16,
        "max_tokens": 32,
    },
}
"""Words in two channels."""


@dataclass(frozen=True)
class Made:
    """All that was made of the toy of pairs."""

    shop: PairShop
    teacher: Path
    places: Places
    recipes: dict[str, DistillRecipe]

    def bundle(self, name: str) -> Path:
        return self.places.models / name / "1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    shop = open_pair_shop(tmp_path_factory.mktemp("pairs"))
    teacher = fine_tune(shop.teach_recipe(), shop.folder / "teacher")
    places = Places(shop.folder / "runs", shop.folder / "models")
    options = ("--name", "pair-bert", "--dev", shop.dev, "--models", places.models)  # columns: as it was taught
    adopted = command("adopt", teacher, *options, cwd=shop.folder)
    assert adopted.returncode == 0, adopted.stderr
    served = places.models / "pair-bert" / "1"  # a bundle teaches as well
    recipes = {"twins": shop.distill_recipe(teacher), "twins-of-words": shop.distill_recipe(served, **OTHER)}
    for recipe in recipes.values():
        distill(recipe, places, "a test")
    return Made(shop, teacher, places, recipes)


@pytest.fixture(scope="module")
def client(made: Made) -> Iterator[httpx2.Client]:
    with serving(made.places.models, "--default", "twins") as server, server.client() as client:
        yield client


def answers(client: httpx2.Client, model: str) -> NDArray[np.float64]:
    """The scores of ASKED, (N, L)."""
    spoken = [{"text": first, "text_pair": second} for first, second in ASKED]
    answer = client.post("/v1/classify", json={"model": model, "input": spoken})
    assert answer.status_code == 200, answer.text
    return np.array([[row["scores"][label] for label in LABELS] for row in answer.json()["data"]])


def network(made: Made, name: str) -> SiameseBiLSTM:
    """The trained network, its embeddings on the int8 grid of its graph."""
    (weights,) = made.places.work.glob(f"students/{name}-????????????/0-tang2019/best.safetensors")
    state, wanted = load_file(weights), bilstm(made.recipes[name])
    count, width = state["embedding.weight"].shape
    student = SiameseBiLSTM(
        Shape(
            vocabulary=count,
            embedding=width,
            hidden=wanted.hidden,
            dense=wanted.dense,
            labels=len(LABELS),
            pooling=wanted.pooling,
            channels=wanted.channels,
        )
    )
    student.load_state_dict(state)
    values, scales = int8_rows(student.table().detach().numpy(), axis=0)
    grid = torch.from_numpy(values * scales)  # (V, channels x E), the static channel first
    with torch.no_grad():
        student.embedding.weight.copy_(grid[:, -width:])
        if wanted.channels == 2:
            student.get_buffer("static").copy_(grid[:, :width])
    return student.eval()


@torch.inference_mode()
def torch_scores(made: Made, name: str) -> NDArray[np.float64]:
    """Of the network itself, (N, L), each pair alone."""
    student, encoder = network(made, name), open_bundle(made.bundle(name)).encoder
    found = []
    for row in encoder.encode(ASKED):
        inputs = [part for tokens in tokens_of([row], 0) for part in tokens.block(np.array([0]))]
        found.append(student(*map(torch.from_numpy, inputs)).logits)
    return softmax(torch.cat(found).numpy())


@pytest.mark.parametrize("name", ["twins", "twins-of-words"])
def test_a_served_student_answers_pairs_as_its_network_does(client: httpx2.Client, made: Made, name: str) -> None:
    np.testing.assert_allclose(answers(client, name), torch_scores(made, name), atol=1e-4, rtol=0)


def test_a_served_teacher_answers_pairs_as_its_network_does(client: httpx2.Client, made: Made) -> None:
    parity = read_manifest(made.bundle("pair-bert")).graphs[Precision.EXACT].parity  # its weights are int8
    assert parity < 0.05
    wanted = softmax(Teacher.load(str(made.teacher)).exact_logits(ASKED))
    np.testing.assert_allclose(answers(client, "pair-bert"), wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize(("inputs", "types"), [(TRANSFORMER_INPUTS, {0, 1}), (TRANSFORMER_INPUTS[:2], {0})])
def test_token_types_are_what_transformers_gives_the_model(
    made: Made, inputs: tuple[str, ...], types: set[int]
) -> None:
    """Most tokenizers but BERT's give none, and what was trained without them must be served without them."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(made.shop.encoder, model_input_names=list(inputs))
    given = tokenizer("the film", "is good").get("token_type_ids", [0])
    served = Tokenizer.from_str(plain_tokenizer_json(tokenizer)).encode("the film", "is good")
    assert set(given) == set(served.type_ids) == types


@pytest.mark.parametrize("name", ["pair-bert", "twins", "twins-of-words"])
def test_all_learn_their_task_and_say_that_they_read_pairs(made: Made, name: str) -> None:
    opened = open_bundle(made.bundle(name))
    manifest = opened.manifest
    assert manifest.texts == 2
    assert manifest.inputs == (TRANSFORMER_INPUTS if manifest.role is Role.TEACHER else SIAMESE_INPUTS)
    rows = pairs()
    found = opened.classify([(first, second) for first, second, _ in rows]).argmax(axis=1)
    assert np.mean([LABELS[i] == label for i, (_, _, label) in zip(found, rows, strict=True)]) > 0.9


@pytest.mark.parametrize("name", ["twins", "twins-of-words"])
def test_the_exact_graphs_do_not_wander(made: Made, name: str) -> None:
    exact = read_manifest(made.bundle(name)).graphs[Precision.EXACT]
    assert (exact.flips, exact.wander <= 1e-5, exact.parity < 0.05) == (0, True, True)


def test_words_are_whole_and_rare_ones_unknown(made: Made) -> None:
    encoder = open_bundle(made.bundle("twins-of-words")).encoder
    (row,) = encoder.encode([("the FILM was clumsy", "the zyxwv , was it ?")])
    first, second = tokens_of([row], 0)
    assert [encoder.piece(int(i)) for i in first.flat] == ["the", "film", "was", "clumsy"]
    assert [encoder.piece(int(i)) for i in second.flat] == ["the", "[UNK]", "[UNK]", "was", "[UNK]", "[UNK]"]
    assert encoder.unknown_id == second.flat[1]


def test_evaluate_reads_pairs_and_prints_what_was_measured(made: Made) -> None:
    beside = ("--teacher", made.bundle("pair-bert"))
    found = command("evaluate", made.bundle("twins"), made.shop.dev, *NAMED, *beside, cwd=made.shop.folder)
    assert (found.returncode, found.stderr) == (0, "")
    kept = {
        row.metric: row.value for row in read_manifest(made.bundle("twins")).results if row.what == "student, exact"
    }
    assert re.search(rf"accuracy .* {kept['accuracy']:.4f}", found.stdout)
    assert re.search(r"agreement with the teacher .* [01]\.\d{4}", found.stdout)


MENDABLE = {
    "a pair model without a second column": (
        "evaluate {twins} {dev} --text first --label verdict",
        "export: --pair: twins@1 reads pairs; name the column of the second text",
    ),
    "a second column that is not there": (
        "evaluate {twins} {dev} --text first --label verdict --pair third",
        "line 2: no column 'third'; there is first, second, verdict",
    ),
    "sentences of pairs": (
        "texts {dev} --text first --pair second --sentences",
        "export: --sentences: a pair is not cut into sentences; leave it out, or --pair",
    ),
    "single texts among pairs": (
        'distill recipe.toml --set transfer.texts=[{{source="x.txt"}}]',
        "transfer.texts.0: pair: name the column of the second text, or set neighbours",
    ),
}


@pytest.mark.parametrize(("line", "message"), MENDABLE.values(), ids=MENDABLE.keys())
def test_what_the_user_can_mend_is_one_line(made: Made, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(as_toml(made.recipes["twins"]))
    words = [word.format(twins=made.bundle("twins"), dev=made.shop.dev) for word in line.split()]
    found = command(*words, cwd=tmp_path)
    assert found.returncode == 2
    (said,) = found.stderr.splitlines()
    assert said.startswith("export: ")
    assert message in said


def test_a_sources_pairs_are_printed_as_json(made: Made) -> None:
    found = command("texts", made.shop.dev, "--text", TEXT, "--pair", PAIR, "--limit", 3, cwd=made.shop.folder)
    assert (found.returncode, found.stderr) == (0, "")
    printed = [json.loads(line) for line in found.stdout.splitlines()]
    assert printed == [{"text": first, "text2": second} for first, second, _ in pairs()[180:183]]


def test_more_texts_are_read_as_pairs(made: Made) -> None:
    recipe = made.recipes["twins"].with_texts(["more.tsv", "capture.db"])
    found = [(texts.source, texts.column, texts.pair) for texts in recipe.transfer.texts[1:]]
    assert found == [("more.tsv", TEXT, PAIR), ("capture.db", "text", "text_pair")]


def test_pairs_among_single_texts_are_refused(made: Made) -> None:
    data = made.shop.data | {"pair": None}
    with pytest.raises(ValidationError, match=r"transfer.texts.0: leave out pair and neighbours"):
        made.shop.distill_recipe(made.teacher, data=data)
