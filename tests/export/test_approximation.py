"""A BiLSTM learns an encoder's vectors of sentences on plain text, and students of tasks begin with it."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from export.approximation import approximate
from export.beginnings.encoders import load_encoder
from export.beginnings.initial import new_student
from export.errors import DataError, ModelError, OptionError, RecipeError
from export.learning.fine_tuning import fine_tune
from export.networks.pooling import Pooled
from export.networks.students import BiLSTMEncoder, Form, Shape
from export.pipeline import Places, distill
from export.recipe import ApproximateRecipe
from export.sections import HiddenStates
from export.teachers.hugging_face import PlainTeacher
from export.teachers.opened import open_teacher
from service.bundle.manifest import Precision, Task
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from service.bundle.tasks import unit
from tests.toys.pairing_shop import COLUMNS, open_pair_shop
from tests.toys.workshop import Shop, bilstm, command

STUDENT = {"architecture": "encoder", "embedding": 16, "hidden": 12, "dense": 32, "activation": "linear"}
TRAINING = {"epochs": 10, "batch_size": 16, "learning_rate": 5e-3, "bf16": False, "average": 0.8, "patience": 99}


def recipe(shop: Shop, **changes: Any) -> ApproximateRecipe:
    content = {
        "name": "vectors",
        "method": "wu2020",
        "seed": 1,
        "teacher": {"model": str(shop.encoder), "max_tokens": 32, "hidden": {"layer": 2, "pooling": "mean"}},
        "texts": [{"source": str(shop.unlabelled)}],
        "student": STUDENT,
        "training": TRAINING,
        "judging": 40,
    }
    return ApproximateRecipe.model_validate(content | changes)


@pytest.fixture(scope="module")
def made(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("approximated")
    return approximate(recipe(shop), folder / "vectors", folder / "work")


def network(folder: Path) -> BiLSTMEncoder:
    saved = load_encoder(str(folder))
    student = BiLSTMEncoder(saved.shape)
    student.load_state_dict(saved.weights)
    student.eval()
    return student


def test_vectors_come_near_those_of_the_teacher(shop: Shop, made: Path) -> None:
    """On texts that it has not learnt from: its training sentences alone, not two of them joined."""
    teacher = PlainTeacher.load(str(shop.encoder), max_tokens=32)
    texts = [line.split("\t")[0] for line in shop.dev.read_text().splitlines()[1:]]
    wanted = HiddenStates(layer=2, pooling=Pooled.MEAN)
    theirs = np.concatenate([np.asarray(found.hidden) for found in teacher.signals(texts, wanted)])
    student, vocabulary = network(made), load_encoder(str(made)).vocabulary
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json)
    with torch.inference_mode():
        rows = [tokenizer.encode(text).ids for text in texts]
        ours = torch.cat([student(torch.tensor([row]), torch.tensor([len(row)])).logits for row in rows])
    near = torch.nn.functional.cosine_similarity(ours, torch.from_numpy(theirs.astype(np.float32)))
    fresh = BiLSTMEncoder(load_encoder(str(made)).shape).eval()
    with torch.inference_mode():
        before = torch.cat([fresh(torch.tensor([row]), torch.tensor([len(row)])).logits for row in rows])
    at_first = torch.nn.functional.cosine_similarity(before, torch.from_numpy(theirs.astype(np.float32)))
    assert near.mean() > 0.9 > at_first.mean()


def test_a_plain_teacher_has_vectors_and_no_logits(shop: Shop) -> None:
    teacher = PlainTeacher.load(str(shop.encoder), max_tokens=32)
    (found,) = teacher.signals(["the film is good", "her voice"], HiddenStates(layer=1, pooling=Pooled.FIRST))
    assert found.logits.shape == (2, 0)
    assert np.asarray(found.hidden).shape == (2, 32)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_student_of_texts_begins_with_it(alpha: float, shop: Shop, taught: Path, made: Path, tmp_path: Path) -> None:
    """From logits, and from the labels alone."""
    wanted = shop.distill_recipe(
        taught, student=STUDENT | {"begins": str(made), "max_tokens": 32}, objective={"alpha": alpha}, transfer={}
    )
    bundle = open_bundle(distill(wanted, Places(tmp_path / "work", tmp_path / "models"), "a test"))
    result = {row.metric: row.value for row in bundle.manifest.results if row.what == "student, exact"}
    assert result["accuracy"] > 0.9
    assert bundle.manifest.lineage.recipe.count(str(made)) == 1


def test_from_the_labels_alone_it_needs_no_teacher_that_knows_the_task(shop: Shop, made: Path, tmp_path: Path) -> None:
    begins = STUDENT | {"begins": str(made), "max_tokens": 32}
    wanted = shop.distill_recipe(shop.encoder, student=begins, objective={"alpha": 1.0}, transfer={})
    manifest = read_manifest(distill(wanted, Places(tmp_path / "work", tmp_path / "models"), "a test"))
    results = {(row.what, row.metric): row.value for row in manifest.results}
    assert results["student, exact", "accuracy"] > 0.9
    assert {what for what, _ in results} == {"student, torch", "student, exact", "student, fast"}
    assert manifest.lineage.teacher is None
    asked = wanted.model_copy(update={"objective": wanted.objective.model_copy(update={"alpha": 0.5})})
    with pytest.raises(ModelError, match=r"is no fine-tuned classifier .* `teach` makes one of it"):
        distill(asked, Places(tmp_path / "work", tmp_path / "others"), "a test")


def test_it_is_no_teacher_and_a_transformer_is_no_such_encoder(shop: Shop, made: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a BiLSTM of `pretrain`; `distill` begins a student with it, as"):
        fine_tune(shop.teach_recipe(teacher={"model": str(made)}), tmp_path / "taught")
    wanted = shop.distill_recipe(
        shop.encoder, student=STUDENT | {"begins": str(shop.encoder)}, objective={"alpha": 1.0}, transfer={}
    )
    with pytest.raises(ModelError, match=r"a transformer; write student\.architecture = 'transformer'"):
        distill(wanted, Places(tmp_path / "work", tmp_path / "models"), "a test")


def test_a_student_of_pairs_begins_with_it(tmp_path: Path) -> None:
    pairs = open_pair_shop(tmp_path)
    taught = fine_tune(pairs.teach_recipe(), tmp_path / "taught")
    texts = [{"source": str(pairs.unlabelled), "column": column} for column in COLUMNS[:2]]
    made = approximate(recipe(pairs, texts=texts, judging=10), tmp_path / "vectors", tmp_path / "work")
    student = STUDENT | {"begins": str(made), "max_tokens": 32}
    places = Places(tmp_path / "work", tmp_path / "models")
    bundle = open_bundle(distill(pairs.distill_recipe(taught, student=student), places, "a test"))
    assert bundle.manifest.inputs == ("input_ids", "lengths", "pair_ids", "pair_lengths")
    result = {row.metric: row.value for row in bundle.manifest.results if row.what == "student, exact"}
    assert result["accuracy"] > 0.9


def test_what_was_learnt_is_what_the_student_begins_with(shop: Shop, taught: Path, made: Path, tmp_path: Path) -> None:
    """Before it takes a step its vectors are those of the encoder."""
    saved = load_encoder(str(made))
    wanted = bilstm(shop.distill_recipe(taught, student=STUDENT | {"begins": str(made)}))
    teacher = open_teacher(shop.distill_recipe(taught).teacher, 1)
    student = new_student(wanted, Form.TEXT, 2, saved.vocabulary, teacher, seed=0, begun=saved)
    ids, lengths = torch.tensor([[5, 6, 7]]), torch.tensor([3])
    student.eval()
    assert torch.equal(student(ids, lengths).representation, network(made)(ids, lengths).logits)


def test_another_encoder_at_the_same_place_is_another_run(shop: Shop, taught: Path, made: Path, tmp_path: Path) -> None:
    begins = Path(shutil.copytree(made, tmp_path / "begins"))
    training, student = TRAINING | {"epochs": 1}, STUDENT | {"begins": str(begins), "max_tokens": 32}
    recipe = shop.distill_recipe(taught, student=student, training=training, transfer={})
    first = distill(recipe, Places(tmp_path / "work", tmp_path / "one"), "a test")
    weights = load_file(begins / "encoder.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, begins / "encoder.safetensors")
    second = distill(recipe, Places(tmp_path / "work", tmp_path / "two"), "a test")
    files = [open_bundle(bundle).manifest.files["model.onnx"] for bundle in (first, second)]
    assert files[0] != files[1]


@pytest.fixture(scope="module")
def published(made: Path, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As bundles: ours, and the encoder that it learnt from."""
    models = tmp_path_factory.mktemp("models")
    for name, source in (("ours", made), ("theirs", shop.encoder)):
        pooling = () if name == "ours" else ("--pooling", "mean")
        done = command(
            "adopt", source, "--name", name, "--dev", shop.dev, "--models", models, *pooling, cwd=made.parent
        )
        assert done.returncode == 0, done.stderr
    return models


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_it_is_published_as_a_bundle_that_makes_vectors(name: str, published: Path, made: Path, shop: Shop) -> None:
    bundle = open_bundle(published / name / "1")  # which proves it
    assert (bundle.manifest.task, len(bundle.manifest.labels)) == (Task.EMBEDDING, 32)
    assert bundle.manifest.graphs[Precision.EXACT].parity < 0.05
    texts = ["the film is good", "her voice was awful"]
    if name == "theirs":
        wanted = PlainTeacher.load(str(shop.encoder)).vectors(texts, Pooled.MEAN)
    else:
        tokenizer = Tokenizer.from_str(load_encoder(str(made)).tokenizer_json)
        rows = [torch.tensor([tokenizer.encode(text).ids]) for text in texts]
        with torch.inference_mode():
            found = [network(made)(row, torch.tensor([row.shape[1]])).logits.numpy() for row in rows]
        wanted = np.concatenate(found)
    np.testing.assert_allclose(bundle.classify(texts), wanted, atol=0.05)  # large tables are stored as int8
    assert "vectors of sentences: of 32 dimensions" in (published / name / "1" / "README.md").read_text()


def test_vectors_are_held_against_peoples_judgement(published: Path, made: Path, shop: Shop, tmp_path: Path) -> None:
    """Pairs of texts are alike as the cosine of their vectors says."""
    bundle = open_bundle(published / "ours" / "1")
    pairs = [
        ("the film is good", "the film is good"),
        ("the film is good", "her voice was awful"),
        ("the cast", "a joy"),
    ]
    cosines = [float(np.prod(unit(bundle.classify(pair)), axis=0).sum()) for pair in pairs]
    file = tmp_path / "likeness.tsv"
    lines = [f"{first}\t{second}\t{5 * cosine}\n" for (first, second), cosine in zip(pairs, cosines, strict=True)]
    file.write_text("text\ttext2\tlabel\n" + "".join(lines), encoding="utf-8")
    done = command("evaluate", published / "ours" / "1", file, "--pair", "text2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count("1.0000") == 2  # Pearson and Spearman
    flags = ("--name", "judged", "--dev", file, "--pair", "text2", "--models", tmp_path)
    done = command("adopt", made, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    judged = open_bundle(tmp_path / "judged" / "1").manifest
    assert [row.value for row in judged.results if row.what == "student, exact"] == [pytest.approx(1), pytest.approx(1)]
    assert judged.lineage.teacher == recipe(shop).teacher.model
    alone = command("evaluate", published / "ours" / "1", file, cwd=tmp_path)
    assert (alone.returncode, "ours@1 makes vectors; name the column of the other text" in alone.stderr) == (2, True)


def test_by_the_command(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "vectors.toml"
    file.write_text(tomli_w.dumps(recipe(shop).model_dump(mode="json", exclude_none=True)))
    done = command("pretrain", file, "--out", "made", "--set", "training.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'method = "wu2020"' in (tmp_path / "made" / "recipe.toml").read_text()
    twice = command("pretrain", file, "--out", "made", cwd=tmp_path)
    assert (twice.returncode, "an encoder lies there already" in twice.stderr) == (2, True)
    other = command("pretrain", file, "--out", "other", "--set", "method=tang2019", cwd=tmp_path)
    assert other.returncode == 2
    assert "method: of an encoder for no task it is one of chen2021, wu2020" in other.stderr


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"judging": 5000}, DataError, "judging takes 5,000"),
        ({"student": STUDENT | {"dense": 8}}, RecipeError, "student.dense: 8, but the teacher's vectors are 32 wide"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[Exception], problem: str, shop: Shop, tmp_path: Path
) -> None:
    with pytest.raises(error, match=problem):
        approximate(recipe(shop, **changes), tmp_path / "out", tmp_path / "work")


def test_a_layer_that_is_not_there_is_refused(shop: Shop, tmp_path: Path) -> None:
    teacher = {"model": str(shop.encoder), "max_tokens": 32, "hidden": {"layer": 9}}
    with pytest.raises(ModelError, match="it has 2 layers, not 9"):
        approximate(recipe(shop, teacher=teacher), tmp_path / "out", tmp_path / "work")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher": {"model": "x"}}, "say which vector"),
        ({"student": STUDENT | {"architecture": "bilstm"}}, "write 'encoder'"),
        ({"texts": [{"source": "x", "pair": "y"}]}, "leave out pair and neighbours"),
    ],
)
def test_recipes_that_make_no_vectors_are_refused(changes: dict[str, Any], problem: str, shop: Shop) -> None:
    with pytest.raises(ValidationError, match=problem):
        recipe(shop, **changes)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"hidden": 8}, r"student\.hidden: .* was made with 12"),
        ({"activation": "relu"}, r"student\.activation: .* was made with linear"),
        ({"pooling": "max"}, r"student\.pooling: .* was made with last"),
    ],
)
def test_an_encoder_is_not_read_as_another_network(
    other: dict[str, Any], problem: str, shop: Shop, taught: Path, made: Path, tmp_path: Path
) -> None:
    wanted = shop.distill_recipe(taught, student=STUDENT | {"begins": str(made)} | other)
    with pytest.raises(RecipeError, match=problem):
        distill(wanted, Places(tmp_path / "work", tmp_path / "models"), "a test")


@pytest.mark.parametrize("spoil", ["encoder.json", "encoder.safetensors", "tokenizer.json"])
def test_a_folder_that_is_not_whole_is_refused(spoil: str, tmp_path: Path, made: Path) -> None:
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes() if file.name != spoil else b"{")
    if spoil == "tokenizer.json":
        (tmp_path / spoil).unlink()
    with pytest.raises(ModelError, match="no whole encoder of `python -m export pretrain`"):
        load_encoder(str(tmp_path))


def test_the_shape_is_told_for_people(made: Path) -> None:
    told = json.loads((made / "encoder.json").read_text())
    assert Shape(**told["shape"]) == load_encoder(str(made)).shape
    with pytest.raises(OptionError):
        approximate(recipe_of(made), made, made)


def recipe_of(folder: Path) -> ApproximateRecipe:
    return ApproximateRecipe.model_validate(tomllib.loads((folder / "recipe.toml").read_text()))
