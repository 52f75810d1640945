"""A teacher is fine-tuned from any encoder, goes on after an interruption, and is refused when it is none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    TrainingArguments,
)

from export.errors import DataError, ModelError, RecipeError
from export.learning.fine_tuning import AveragedTrainer, MaskedLanguageTrainer, fine_tune, masked_rows
from export.learning.lessons import lesson
from export.networks.device import quick_at_bfloat16
from export.networks.pretrained import BEHIND_PADDING, check_limit, load_tokenizer
from export.tasks.metrics import accuracy
from export.tasks.targets import targets_of
from export.teachers.hugging_face import Teacher, weights_digest
from export.texts.datasets import Names, read_examples
from service.bundle.manifest import Task
from tests.toys.workshop import LABELS, Shop, sentences

TINY = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
TINY |= {"max_position_embeddings": 12}
ADAPTATION = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3, "bf16": False}


@pytest.fixture
def copied(taught: Path, tmp_path: Path) -> Path:
    """A copy of the teacher that a test may spoil."""
    return Path(shutil.copytree(taught, tmp_path / "copied"))


def test_a_fine_tuned_teacher_knows_its_labels_and_the_task(shop: Shop, taught: Path) -> None:
    teacher = Teacher.load(str(taught), max_tokens=64)
    assert teacher.labels == LABELS
    dev = list(read_examples(str(shop.dev), Names(LABELS), shop.teach_recipe().data.columns))
    logits = teacher.exact_logits([example.text for example in dev])
    assert accuracy(logits.argmax(axis=1), targets_of(dev, Task.SINGLE_LABEL, 2)) > 0.9
    assert not shop.folder.joinpath("teacher.checkpoints").exists()
    told = json.loads((taught / "dev.json").read_text())
    assert told["value"] == accuracy(logits.argmax(axis=1), targets_of(dev, Task.SINGLE_LABEL, 2))
    assert (told["metric"], told["rows"], told["data"]) == ("accuracy", len(dev), str(shop.dev))


def test_the_same_recipe_gives_the_same_teacher(shop: Shop, taught: Path, tmp_path: Path) -> None:
    again = fine_tune(shop.teach_recipe(), tmp_path / "again")
    assert Teacher.load(str(again)).digest() == Teacher.load(str(taught)).digest()


def test_a_teacher_is_adapted_before_it_is_fine_tuned(shop: Shop, taught: Path, tmp_path: Path) -> None:
    texts = [{"source": str(shop.unlabelled)}]
    recipe = shop.teach_recipe(adaptation=ADAPTATION | {"texts": texts})
    adapted = tmp_path / "out.adapted"
    adapted.mkdir()
    shutil.copy(shop.encoder / "config.json", adapted)  # killed while it was writing the adapted encoder
    found = fine_tune(recipe, tmp_path / "out")
    assert Teacher.load(str(found)).digest() != Teacher.load(str(taught)).digest()
    words = [AutoModel.from_pretrained(folder).get_input_embeddings().weight for folder in (shop.encoder, adapted)]
    assert not torch.equal(*words)
    written = (adapted / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(found)
    fine_tune(recipe, found)
    assert (adapted / "model.safetensors").stat().st_mtime_ns == written  # adapted once
    other = shop.teach_recipe(adaptation=ADAPTATION | {"texts": texts, "mask": 0.3})
    shutil.rmtree(found)
    with pytest.raises(RecipeError, match=r"out\.adapted: left by another recipe"):
        fine_tune(other, found)


def test_an_adaptation_to_other_texts_or_of_other_weights_is_another(shop: Shop, tmp_path: Path) -> None:
    texts, encoder = tmp_path / "texts.txt", Path(shutil.copytree(shop.encoder, tmp_path / "encoder"))
    loop = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3, "bf16": False}
    adaptation = ADAPTATION | {"texts": [{"source": str(texts)}]}
    model = {"model": str(encoder), "max_tokens": 64}
    recipe = shop.teach_recipe(teacher=model, training=loop, adaptation=adaptation)
    with pytest.raises(DataError, match="no such file"):
        fine_tune(recipe, tmp_path / "out")
    texts.write_text("the film is good\nher voice was awful\n")  # what is mended is no other recipe
    shutil.rmtree(fine_tune(recipe, tmp_path / "out"))
    before = texts.read_text()
    texts.write_text(before + "and one more\n")
    with pytest.raises(RecipeError, match=r"out\.adapted: left by another recipe or by other files"):
        fine_tune(recipe, tmp_path / "out")
    texts.write_text(before)
    shutil.rmtree(fine_tune(recipe, tmp_path / "out"))
    weights = load_file(encoder / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match=r"out\.adapted: left by another recipe or by other files"):
        fine_tune(recipe, tmp_path / "out")


def test_a_pair_is_adapted_to_in_one_sequence(shop: Shop, tmp_path: Path) -> None:
    """So that the encoder learns to look for a masked word in the other text."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("one\tother\nthe film is good\tthe film was good\n", encoding="utf-8")
    texts = [{"source": str(pairs), "column": "one", "pair": "other"}, {"source": str(shop.unlabelled), "limit": 2}]
    recipe = shop.teach_recipe(adaptation=ADAPTATION | {"texts": texts})
    assert recipe.adaptation is not None
    tokenizer = load_tokenizer(str(shop.encoder))
    rows = masked_rows(tokenizer, recipe.adaptation, 64)
    assert tokenizer.decode(rows["input_ids"][0]) == "[CLS] the film is good [SEP] the film was good [SEP]"
    assert set(rows["token_type_ids"][0]) == {0, 1}
    assert [len(values) for values in rows.values()] == [3] * len(rows)


@pytest.mark.parametrize(("bf16", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_an_adaptation_multiplies_as_it_is_asked_and_has_the_loss_of_all_places(
    bf16: bool, wanted: torch.dtype, shop: Shop, tmp_path: Path
) -> None:
    """Of the whole vocabulary's logits only those of masked places are computed."""
    model = AutoModelForMaskedLM.from_pretrained(shop.encoder).eval()
    trainer = MaskedLanguageTrainer(
        model=model, args=TrainingArguments(output_dir=str(tmp_path), bf16=bf16, use_cpu=True, report_to="none")
    )
    tokenizer = load_tokenizer(str(shop.encoder))
    rows = tokenizer(["the film is good", "her voice was awful and dull"], padding=True, return_tensors="pt")
    asked = torch.zeros_like(rows["input_ids"], dtype=torch.bool)
    asked[0, 2] = asked[1, 3] = True
    labels = rows["input_ids"].masked_fill(~asked, -100)
    seen: list[torch.dtype] = []
    layer = model.bert.encoder.layer[0].output.dense
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    found = trainer.compute_loss(model, {**rows, "labels": labels})
    assert seen == [wanted]
    assert found.item() == pytest.approx(model(**rows, labels=labels).loss.item(), rel=0.02 if bf16 else 1e-5)


def test_an_adaptation_without_texts_is_refused(shop: Shop, tmp_path: Path) -> None:
    texts = [{"source": str(shop.unlabelled), "min_words": 60}]
    with pytest.raises(DataError, match=r"adaptation\.texts: not one text fits"):
        fine_tune(shop.teach_recipe(adaptation=ADAPTATION | {"texts": texts}), tmp_path / "out")


def test_checkpoints_of_another_recipe_are_refused(shop: Shop, tmp_path: Path) -> None:
    checkpoints = tmp_path / "out.checkpoints"
    checkpoints.mkdir()
    (checkpoints / "recipe.json").write_text(shop.teach_recipe(seed=2).model_dump_json())
    with pytest.raises(RecipeError, match=r"out\.checkpoints: left by another recipe or by other files; remove"):
        fine_tune(shop.teach_recipe(), tmp_path / "out")


def test_checkpoints_of_other_rows_are_refused(shop: Shop, tmp_path: Path) -> None:
    train = Path(shutil.copy(shop.train, tmp_path / "train.tsv"))
    loop = {"epochs": 1, "batch_size": 16, "learning_rate": 1e30, "warmup": 0, "bf16": False, "average": 0.8}
    recipe = shop.teach_recipe(data=shop.data | {"train": str(train)}, training=loop)
    for _ in range(2):
        with pytest.raises(RecipeError, match="diverged"):  # and left a claim
            fine_tune(recipe, tmp_path / "out")
    with train.open("a", encoding="utf-8") as stream:
        stream.write("one more\t0\n")
    with pytest.raises(RecipeError, match=r"out\.checkpoints: left by another recipe or by other files; remove"):
        fine_tune(recipe, tmp_path / "out")


def test_a_checkpoint_that_was_half_written_is_not_gone_on_from(shop: Shop, tmp_path: Path) -> None:
    half = tmp_path / "out.checkpoints" / "checkpoint-50"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    (half / "trainer_state.json").write_text("{}")  # all but the average of the weights
    assert Teacher.load(str(fine_tune(shop.teach_recipe(), tmp_path / "out"))).labels == LABELS


def test_a_run_that_diverges_says_so_and_how_to_mend_it(shop: Shop, tmp_path: Path) -> None:
    loop = {"epochs": 1, "batch_size": 16, "learning_rate": 1e30, "warmup": 0, "bf16": False, "average": 0.8}
    with pytest.raises(RecipeError, match=r"^teacher: diverged at step 3: .*; lower training\.learning_rate$"):
        fine_tune(shop.teach_recipe(training=loop), tmp_path / "out")


@pytest.mark.parametrize("batches", [1, 2])
def test_an_average_of_the_latest_alone_is_the_weights_behind_the_last_step(
    batches: int, shop: Shop, tmp_path: Path
) -> None:
    recipe, model = shop.teach_recipe(), AutoModelForSequenceClassification.from_pretrained(shop.encoder)
    given = lesson(load_tokenizer(str(shop.encoder)), recipe.data.read(), recipe)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=3, gradient_accumulation_steps=batches, use_cpu=True, report_to="none"
    )
    trainer = AveragedTrainer(model, 0, args=arguments, train_dataset=given.train, data_collator=given.collator)
    trainer.train()
    latest, average = (network.state_dict() for network in (model, trainer.average.module))
    assert [name for name in latest if not torch.equal(latest[name], average[name])] == []
    assert int(trainer.average.n_averaged) == 3


def test_a_text_has_the_same_logits_alone_and_in_batches(taught: Path) -> None:
    teacher, texts = Teacher.load(str(taught)), [text for text, _ in sentences()[:30]]
    batched = np.concatenate([found.logits for found in teacher.signals(texts, None, batch_size=7)])
    np.testing.assert_allclose(batched, teacher.exact_logits(texts), atol=0.1)  # bfloat16 against fp32


def test_a_digest_is_of_what_a_teacher_is_and_not_of_what_it_was_asked(taught: Path) -> None:
    teacher = Teacher.load(str(taught))
    before = teacher.digest()
    list(teacher.signals(["one", "and two"], None))
    teacher.exact_logits(["three"])
    assert teacher.digest() == before
    assert Teacher.load(str(taught), max_tokens=5).digest() != before


def test_a_digest_is_of_the_arithmetic_too_and_of_fp32_it_is_what_it_always_was(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for capable in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capable=capable: {"avx512_bf16": capable})
        teacher = Teacher.load(str(taught))
        assert teacher.bf16 is quick_at_bfloat16(teacher.device)
        digests.append(teacher.digest())
    assert digests[0] == weights_digest(teacher.model, f"{teacher.max_tokens}{teacher.tokenizer_json}")
    assert digests[1] != digests[0]


def test_weights_are_fp32_whatever_the_file_holds(taught: Path, copied: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(taught).to(torch.bfloat16).save_pretrained(copied)
    teacher = Teacher.load(str(copied))
    assert teacher.model.dtype == torch.float32
    assert teacher.digest()


def without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "give a hub id or a folder with config.json"),
    "no config": (without("config.json"), "Unrecognized model"),
    "no weights": (without("model.safetensors"), "no file named model.safetensors"),
    "broken weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"half" * 9), "header too large"),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        "has no tokenizer; give a folder with tokenizer.json",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_folder_that_is_no_teacher_is_refused_in_one_line(
    copied: Path, spoil: Callable[[Path], object], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(copied)
    with pytest.raises(ModelError) as refusal:
        Teacher.load(str(copied))
    assert str(refusal.value).startswith(f"teacher {copied}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_an_encoder_that_was_never_fine_tuned_is_refused(shop: Shop) -> None:
    with pytest.raises(ModelError, match=r"is no fine-tuned classifier \(it lacks classifier\.bias\)"):
        Teacher.load(str(shop.encoder))


def test_a_limit_that_the_encoder_does_not_reach_is_refused(shop: Shop, taught: Path, tmp_path: Path) -> None:
    message = r"reads at most 64 tokens; set teacher\.max_tokens = 64 or less"
    with pytest.raises(ModelError, match=message):
        Teacher.load(str(taught), max_tokens=65)
    with pytest.raises(ModelError, match=message):
        fine_tune(shop.teach_recipe(teacher={"model": str(shop.encoder), "max_tokens": 65}), tmp_path / "out")
    assert Teacher.load(str(taught)).max_tokens == 64


def test_a_roberta_reads_as_many_tokens_as_it_has_positions_behind_the_paddings(shop: Shop, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(shop.encoder))
    config = AutoConfig.for_model("roberta", pad_token_id=tokenizer.pad_token_id, **TINY | {"vocab_size": 200})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"reads at most 11 tokens; set teacher\.max_tokens = 11 or less"):
        Teacher.load(str(tmp_path), max_tokens=12)
    for teacher in (Teacher.load(str(tmp_path), max_tokens=11), Teacher.load(str(tmp_path))):
        assert teacher.max_tokens == 11
        assert np.isfinite(teacher.exact_logits(["the film is good " * 9])).all()


@pytest.mark.parametrize("kind", sorted(BEHIND_PADDING))
def test_so_do_all_of_its_kind(kind: str) -> None:
    config = AutoConfig.for_model(kind, entity_vocab_size=9, default_language="en_XX", **TINY)  # of LUKE, of X-MOD
    limit = TINY["max_position_embeddings"] - config.pad_token_id - 1
    check_limit(config, "toy", limit)
    with pytest.raises(ModelError, match=f"reads at most {limit} tokens"):
        check_limit(config, "toy", limit + 1)
    network = AutoModel.from_config(config).eval()
    ids = torch.full((1, limit + 1), 5)
    assert network(input_ids=ids[:, 1:]).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=ids)


def test_a_long_text_is_cut_at_the_limit(taught: Path) -> None:
    teacher = Teacher.load(str(taught), max_tokens=8)
    long = "the film is good " * 50
    assert np.array_equal(teacher.exact_logits([long]), teacher.exact_logits([long + "and bad"]))


def test_a_tokenizer_is_the_encoders_own(shop: Shop) -> None:
    assert load_tokenizer(str(shop.encoder)).tokenize("the film") == ["the", "film"]
