"""The teacher: any Hugging Face encoder, fine-tuned for the task (`fine_tune`), then asked for its logits (`Teacher`).

Fine-tuning uses `transformers.Trainer` (accelerate under it): checkpoints, resuming, mixed precision and devices are
its business. This module knows nothing of students.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import logging

from export.datasets import Example
from export.errors import DataError, ModelError, RecipeError, first_line
from export.recipe import Adaptation, Loop, TeachRecipe, as_toml
from export.sentences import shaped_texts
from service.bundle.manifest import Task

AVERAGE = "average.pt"
RECIPE = "recipe.toml"
SHORT = 128
"""Tokens that a teacher reads unless told otherwise: its users' texts are short."""


@dataclass(frozen=True)
class Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Texts as the Trainer wants them: token ids, and labels where there are some."""

    encoding: BatchEncoding
    labels: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.encoding["input_ids"])

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = {key: values[i] for key, values in self.encoding.items()}
        return row if self.labels is None else row | {"labels": self.labels[i]}


class MaskedLanguageTrainer(Trainer):
    """A Trainer that computes the vocabulary's logits at the masked places only: a seventh of them, the same loss."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inner = self.accelerator.unwrap_model(model)
        heads = [part for name, part in inner.named_children() if name != inner.base_model_prefix]
        if len(heads) != 1:  # an architecture that keeps its head in several parts: let it do the whole
            return super().compute_loss(model, inputs, *args, **kwargs)
        labels = inputs.pop("labels")  # (B, T), -100 where nothing is asked
        states = inner.base_model(**inputs).last_hidden_state  # (B, T, H)
        asked = labels != -100
        return torch.nn.functional.cross_entropy(heads[0](states[asked]).float(), labels[asked])


class AveragedTrainer(Trainer):
    """A Trainer that judges and keeps a moving average of the weights.

    Between neighbouring evaluations on a small data set the weights themselves jump by points, their average hardly
    does (Polyak and Juditsky 1992). The best average by dev accuracy lies in `best.safetensors` beside the checkpoints.
    """

    def __init__(self, model: PreTrainedModel, decay: float, **options: Any) -> None:
        super().__init__(model, **options)
        self.latest = model
        self.best = output_folder(self) / "best.safetensors"
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        self.average.update_parameters(model)
        return super().training_step(model, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        latest = {name: weights.clone() for name, weights in self.latest.state_dict().items()}
        self.latest.load_state_dict(self.average.module.state_dict())
        metrics = super().evaluate(*args, **kwargs)
        if self.state.best_metric is None or metrics["eval_accuracy"] > self.state.best_metric:
            save_model(self.latest, str(self.best))
        self.latest.load_state_dict(latest)
        return metrics

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        folder = output_folder(self) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        unfinished = folder / f"{AVERAGE}.tmp"
        torch.save(self.average.state_dict(), unfinished)
        unfinished.replace(folder / AVERAGE)  # whole or not at all

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.average.load_state_dict(torch.load(Path(resume_from_checkpoint, AVERAGE), weights_only=True))


def fine_tune(recipe: TeachRecipe, folder: Path) -> Path:
    """Adapt (if asked) and fine-tune; the finished teacher lies in `folder`, a Hugging Face model folder.

    Interrupted runs go on from their last checkpoint. Raises ModelError for a model that can't be loaded, DataError for
    data that doesn't fit, RecipeError where another recipe's checkpoints lie.
    """
    data = recipe.data.read()
    source = recipe.teacher.model
    if recipe.adaptation:
        source = str(_adapt(recipe, recipe.adaptation, folder.with_name(folder.name + ".adapted")))
    tokenizer = load_tokenizer(recipe.teacher.model)
    set_seed(recipe.seed)  # a new head's weights are drawn when it is loaded, before the Trainer sets its seed
    names = dict(enumerate(data.labels))
    model = _load_model(
        AutoModelForSequenceClassification,
        source,
        num_labels=len(names),
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    steps = max(1, math.ceil(len(data.train) / recipe.training.batch_size) // recipe.training.evaluations_per_epoch)
    _check_limit(model.config, recipe.teacher.model, recipe.teacher.max_tokens)
    trainer = AveragedTrainer(
        model,
        recipe.training.average,
        args=_arguments(recipe.training, folder, recipe.seed, save_steps=steps, evaluate=True),
        train_dataset=_encode(tokenizer, data.train, recipe.teacher.max_tokens),
        eval_dataset=_encode(tokenizer, data.dev, recipe.teacher.max_tokens),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy,
    )
    _claim(_checkpoints(folder), recipe.model_dump_json())
    _train(trainer)
    load_model(model, str(trainer.best))
    _finish(trainer, tokenizer, folder)
    (folder / RECIPE).write_text(as_toml(recipe), encoding="utf-8")
    return folder


def teacher_recipe(folder: str) -> str:
    """The recipe of a teacher that `fine_tune` made; of others, only where they come from."""
    file = Path(folder, RECIPE)
    return file.read_text(encoding="utf-8") if file.is_file() else tomli_w.dumps({"model": folder})


def _adapt(recipe: TeachRecipe, adaptation: Adaptation, folder: Path) -> Path:
    _claim(folder, recipe.model_dump_json(include={"seed", "teacher", "adaptation"}))
    if (folder / "tokenizer.json").exists():  # what `_finish` writes last
        return folder
    tokenizer = load_tokenizer(recipe.teacher.model)
    texts = [text for source in adaptation.texts for text in shaped_texts(source)]
    if not texts:
        raise DataError("adaptation.texts: not one text fits; look at min_words, max_words, skip")
    encoding = tokenizer(texts, truncation=True, max_length=recipe.teacher.max_tokens, return_token_type_ids=False)
    set_seed(recipe.seed)
    trainer = MaskedLanguageTrainer(
        model=_load_model(AutoModelForMaskedLM, recipe.teacher.model),
        args=_arguments(adaptation, folder, recipe.seed, save_steps=1000, evaluate=False),
        train_dataset=Encoded(encoding),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=adaptation.mask),
    )
    _train(trainer)
    return _finish(trainer, tokenizer, folder)


def _train(trainer: Trainer) -> None:
    checkpoints = output_folder(trainer)
    written_last = AVERAGE if isinstance(trainer, AveragedTrainer) else TRAINER_STATE_NAME
    for checkpoint in checkpoints.glob("checkpoint-*"):
        if not (checkpoint / written_last).exists():  # the run was killed in the middle of this one
            shutil.rmtree(checkpoint)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None)


def _finish(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(str(folder))
    shutil.rmtree(output_folder(trainer), ignore_errors=True)
    return folder


def output_folder(trainer: Trainer) -> Path:
    """Where the checkpoints lie; `_arguments` always names a folder."""
    return Path(str(trainer.args.output_dir))


def _claim(folder: Path, recipe: str) -> None:
    """Note beside the checkpoints whose they are: going on with another recipe's would make a teacher of neither."""
    note = folder / "recipe.json"
    if note.exists() and note.read_text(encoding="utf-8") != recipe:
        raise RecipeError(f"{folder}: left by another recipe; remove it to start anew, or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(recipe, encoding="utf-8")


def _checkpoints(folder: Path) -> Path:
    return folder.with_name(folder.name + ".checkpoints")


def _arguments(loop: Loop, folder: Path, seed: int, *, save_steps: int, evaluate: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(_checkpoints(folder)),
        num_train_epochs=loop.epochs,
        per_device_train_batch_size=loop.batch_size,
        per_device_eval_batch_size=128,
        learning_rate=loop.learning_rate,
        weight_decay=loop.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=loop.warmup,  # a share of the steps, as transformers reads a value below 1
        bf16=loop.bf16,
        use_cpu=not torch.cuda.is_available(),  # else bf16 is refused on a machine without a GPU
        train_sampling_strategy="group_by_length",
        eval_strategy="steps" if evaluate else "no",
        eval_steps=save_steps,
        save_steps=save_steps,
        save_total_limit=2,
        metric_for_best_model="accuracy" if evaluate else None,
        logging_steps=100,
        report_to="none",
        seed=seed,
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = np.asarray(prediction.predictions)  # (N, L)
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}


def _encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], max_tokens: int) -> Encoded:
    texts = [example.text for example in examples]
    return Encoded(tokenizer(texts, truncation=True, max_length=max_tokens), [example.label for example in examples])


def load_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """The teacher's fast tokenizer, from a hub id or a folder. Raises ModelError."""
    tokenizer: PreTrainedTokenizerFast = _load(AutoTokenizer, source)
    if len(tokenizer) <= len(
        tokenizer.all_special_ids
    ):  # transformers makes up an empty one where the files are missing
        raise ModelError(f"teacher {source}: has no tokenizer; give a folder with tokenizer.json")
    return tokenizer


def _load_model(kind: Any, source: str, **options: Any) -> Any:
    """In fp32, whatever the file holds: training in bare bfloat16 loses small steps."""
    return _load(kind, source, dtype=torch.float32, **options)


def _load(kind: Any, source: str, **options: Any) -> Any:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is wrong is raised; and a new head is no surprise
    logging.set_tqdm_hook(_no_bar)  # for reading a file; downloads have bars of their own
    try:
        return kind.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"teacher {source}: {first_line(error)}; give a hub id or a folder with config.json"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(None)


def _no_bar(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **(options | {"disable": True}))


def _check_limit(config: Any, source: str, max_tokens: int) -> None:
    limit = getattr(config, "max_position_embeddings", max_tokens)
    if max_tokens > limit:
        raise ModelError(f"teacher {source}: reads at most {limit} tokens; set teacher.max_tokens = {limit} or less")


def task_of(config: Any) -> Task:
    """What a classifier's logits mean, as transformers' own text-classification pipeline reads its configuration."""
    if config.problem_type == "regression":
        return Task.REGRESSION
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return Task.MULTI_LABEL
    return Task.SINGLE_LABEL


def plain_tokenizer_json(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer without padding and truncation, which each call of it leaves set."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps(content | {"truncation": None, "padding": None}, ensure_ascii=False)


class Teacher:
    """A fine-tuned classifier that is only asked, never changed."""

    made_of = "torch"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.eval().to(self.device)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, source: str, max_tokens: int | None = None) -> "Teacher":
        """Without `max_tokens` it reads what it can, at most `SHORT`. Raises ModelError when it can't be loaded
        or is no classifier."""
        model, found = _load_model(AutoModelForSequenceClassification, source, output_loading_info=True)
        if found["missing_keys"]:
            raise ModelError(f"teacher {source}: is no fine-tuned classifier (it lacks {min(found['missing_keys'])})")
        if max_tokens is None:
            max_tokens = min(SHORT, int(getattr(model.config, "max_position_embeddings", SHORT)))
        _check_limit(model.config, source, max_tokens)
        return cls(model, load_tokenizer(source), max_tokens)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        names: dict[int, str] = self.model.config.id2label
        return tuple(names[i] for i in sorted(names))

    @property
    def task(self) -> Task:
        """What its logits mean."""
        return task_of(self.model.config)

    @property
    def tokenizer_json(self) -> str:
        """Its tokenizer.json."""
        return plain_tokenizer_json(self.tokenizer)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The word-piece embeddings, (V, H)."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table.detach().cpu().float().numpy()

    def logits(self, texts: Sequence[str], batch_size: int = 128) -> Iterator[NDArray[np.float32]]:
        """Stream logits (B, L) in the order of `texts`. Sort the texts by length first: padding costs."""
        for start in range(0, len(texts), batch_size):
            yield self._batch(list(texts[start : start + batch_size]))

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> NDArray[np.float32]:
        inputs = self.tokenizer(
            texts, truncation=True, max_length=self.max_tokens, padding=True, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.model(**inputs).logits
        return logits.float().cpu().numpy()

    def digest(self) -> str:
        """What decides its logits: weights, tokeniser, limit."""
        digest = hashlib.sha256(f"{self.max_tokens}{self.tokenizer_json}".encode())
        for name, weights in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def exact_logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (N, L) in fp32, each text alone: what a graph of this teacher is held against."""
        found = []
        for text in texts:
            inputs = self.tokenizer(text, truncation=True, max_length=self.max_tokens, return_tensors="pt")
            logits: Tensor = self.model(**inputs.to(self.device)).logits
            found.append(logits.float().cpu().numpy())
        return np.concatenate(found)
