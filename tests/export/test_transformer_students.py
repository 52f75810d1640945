"""Small transformers as students: they learn a teacher's logits as BiLSTMs do, and are served as students are."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from export.errors import ModelError, RecipeError
from export.learning.fine_tuning import fine_tune
from export.networks.pretrained import load_tokenizer
from export.networks.students import Transformer
from export.pipeline import Judged, Places, adopt, distill
from export.publishing.publish import Called
from export.recipe import DistillRecipe, as_toml, read_recipe
from export.texts.datasets import Columns
from service.bundle.encoder import Text
from service.bundle.manifest import TRANSFORMER_INPUTS, Manifest, Precision, Role
from service.bundle.runtime import open_bundle
from service.bundle.seal import read_manifest
from tests.toys.pairing_shop import PairShop, open_pair_shop
from tests.toys.workshop import LABELS, ROOT, Shop, command

TRAINING = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "bf16": False, "average": 0.8, "patience": 99}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairShop:
    return open_pair_shop(tmp_path_factory.mktemp("pairs"))


def student(encoder: Path) -> dict[str, Any]:
    return {"architecture": "transformer", "begins": str(encoder), "max_tokens": 32}


def measured(manifest: Manifest, what: str) -> dict[str, float]:
    return {row.metric: row.value for row in manifest.results if row.what == what}


def test_a_transformer_learns_its_teachers_logits_and_is_served_as_a_student(
    shop: Shop, taught: Path, tmp_path: Path
) -> None:
    recipe = shop.distill_recipe(taught, student=student(shop.encoder), training=TRAINING)
    bundle = distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test")
    manifest = read_manifest(bundle)
    assert (manifest.role, manifest.inputs) == (Role.STUDENT, TRANSFORMER_INPUTS)
    for precision in Precision:
        assert measured(manifest, f"student, {precision}")["accuracy"] > 0.9
        assert open_bundle(bundle, precision).precision is precision  # proved alone and batched
    assert manifest.graphs[Precision.EXACT].wander < 1e-5
    assert measured(manifest, "student, exact")["agreement with the teacher"] > 0.9


def test_one_of_pairs_reads_both_texts_in_one_sequence(pairs: PairShop, tmp_path: Path) -> None:
    taught = fine_tune(pairs.teach_recipe(), tmp_path / "taught")
    recipe = pairs.distill_recipe(taught, student=student(pairs.encoder), training=TRAINING)
    bundle = open_bundle(distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test"))
    assert measured(bundle.manifest, "student, exact")["accuracy"] > 0.9
    assert bundle.manifest.texts == 2


def rows(tokenizer: PreTrainedTokenizerFast, texts: list[Text]) -> Any:
    firsts, seconds = ([text if isinstance(text, str) else text[side] for text in texts] for side in range(2))
    return tokenizer(firsts, None if isinstance(texts[0], str) else seconds, padding=True, return_tensors="pt")


@pytest.mark.parametrize(
    "texts", [["the film is good", "dull"], [("the film", "a joy and a bore"), ("her voice was awful", "good")]]
)
def test_its_logits_are_the_models_own(texts: list[Text], taught: Path) -> None:
    """Mask and token types are told from ids and lengths alone."""
    model = AutoModelForSequenceClassification.from_pretrained(taught).eval()
    with torch.no_grad():  # so that types count
        model.bert.embeddings.token_type_embeddings.weight.normal_()
    tokenizer = load_tokenizer(str(taught))
    inputs = rows(tokenizer, texts)
    network = Transformer(model, tokenizer.sep_token_id)
    with torch.no_grad():
        found = network(inputs["input_ids"], inputs["attention_mask"].sum(dim=1))
        wanted = model(**inputs, output_hidden_states=True)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5)
    np.testing.assert_allclose(found.representation, wanted.hidden_states[-1][:, 0], atol=1e-5)


def test_a_model_without_token_types_gets_none(taught: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(taught).eval()
    tokenizer = load_tokenizer(str(taught))
    inputs = rows(tokenizer, [("the film", "a joy")])
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    with torch.no_grad():
        found = Transformer(model, None)(inputs["input_ids"], inputs["attention_mask"].sum(dim=1))
        np.testing.assert_allclose(found.logits, model(**inputs).logits, atol=1e-5)


def test_a_fine_tuned_one_is_adopted_as_a_student(shop: Shop, taught: Path, tmp_path: Path) -> None:
    called = Called("small", role=Role.STUDENT)
    manifest = read_manifest(adopt(str(taught), called, Judged(str(shop.dev), Columns()), tmp_path, "a test"))
    assert (manifest.role, manifest.inputs) == (Role.STUDENT, TRANSFORMER_INPUTS)
    done = command(
        "adopt", taught, "--name", "other", "--role", "student", "--dev", shop.dev, "--models", tmp_path, cwd=tmp_path
    )
    assert (done.returncode, read_manifest(tmp_path / "other" / "1").role) == (0, Role.STUDENT)
    assert "Teacher: none, it learned from labels." in (tmp_path / "other" / "1" / "README.md").read_text()


def test_an_encoder_of_vectors_may_be_a_student_too(shop: Shop, tmp_path: Path) -> None:
    options = ("--name", "vectors", "--role", "student", "--pooling", "mean", "--models", tmp_path)
    done = command("adopt", shop.encoder, *options, "--dev", shop.unlabelled, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "vectors" / "1").role is Role.STUDENT


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"student": {"architecture": "transformer"}}, "student.begins: Field required"),
        ({"student": {"architecture": "transformer", "begins": "x", "hidden": 5}}, "unknown key"),
        (
            {
                "student": {"architecture": "transformer", "begins": "x"},
                "method": "mukherjee2020",
                "stages": [{"logits": 1.0}],
            },
            "a transformer learns by 'tang2019'",
        ),
    ],
)
def test_what_a_transformer_cannot_is_refused(
    changes: dict[str, Any], problem: str, shop: Shop, taught: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    content = tomllib.loads(as_toml(shop.distill_recipe(taught))) | changes
    file.write_text(tomli_w.dumps(content))
    with pytest.raises(RecipeError, match=problem):
        read_recipe(DistillRecipe, file)


def test_an_encoder_that_reads_less_or_is_not_there_is_refused(shop: Shop, taught: Path, tmp_path: Path) -> None:
    places = Places(tmp_path / "work", tmp_path / "models")
    wanted = student(shop.encoder) | {"max_tokens": 4096}
    with pytest.raises(ModelError, match="reads at most"):
        distill(shop.distill_recipe(taught, student=wanted, training=TRAINING), places, "a test")
    with pytest.raises(ModelError, match="nowhere"):
        distill(shop.distill_recipe(taught, student=student(tmp_path / "nowhere")), places, "a test")


def test_the_recipe_of_the_house_is_one(shop: Shop) -> None:
    recipe = read_recipe(DistillRecipe, ROOT / "export" / "recipes" / "chen2021-sst2.toml")
    assert recipe.student.architecture == "transformer"
    assert recipe.data.labels == LABELS
