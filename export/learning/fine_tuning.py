"""Fine-tuning: from any Hugging Face encoder and labelled data to a teacher, a Hugging Face folder.

`transformers.Trainer` (accelerate under it) does it: checkpoints, resuming, mixed precision, devices and processes are
its business. What it is given of a task stands in `export.learning.lessons`. This module knows nothing of students.
"""

import hashlib
import json
import math
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import tomli_w
import torch
from pydantic import ValidationError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    AutoModelForMaskedLM,
    BatchEncoding,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from export.beginnings.encoders import check_no_student
from export.errors import DataError, OptionError, RecipeError
from export.learning.averaging import moving_average
from export.learning.lessons import DEV, Encoded, lesson
from export.learning.training import diverged, finite
from export.networks.device import LONGEST_WAIT, default_device, processes, quick_at_bfloat16
from export.networks.pretrained import RECIPE, check_limit, load_network, load_tokenizer
from export.progress import console
from export.recipe import TeachRecipe, as_toml
from export.sections import Adaptation, Loop
from export.tasks.learnt import LEARNING
from export.tasks.metrics import METRICS
from export.teachers.hugging_face import tokenized
from export.texts.datasets import Columns, Example
from export.texts.sentences import TextSource, shaped_rows

AVERAGE = "average.pt"
SCORE = "dev.json"
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


class MaskedLanguageTrainer(Trainer):
    """A Trainer that computes the vocabulary's logits at the masked places only: a seventh of them, the same loss."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inner = self.accelerator.unwrap_model(model)
        heads = [part for name, part in inner.named_children() if name != inner.base_model_prefix]
        # An architecture may keep its head in several parts, and what is wrapped around the whole puts the gradients of
        # several processes together: let it do the whole.
        if len(heads) != 1 or inner is not model:
            return super().compute_loss(model, inputs, *args, **kwargs)
        labels = inputs.pop("labels")  # (B, T), -100 where nothing is asked
        asked = labels != -100
        with self.accelerator.autocast():  # what accelerate wraps in it is the whole model's forward, which is not run
            states = inner.base_model(**inputs).last_hidden_state  # (B, T, H)
            logits = heads[0](states[asked])
        return torch.nn.functional.cross_entropy(logits.float(), labels[asked])


class _Averaging(TrainerCallback):
    """Takes the weights into their average behind each step of the optimiser, however many batches it is made of."""

    def __init__(self, average: AveragedModel, latest: nn.Module) -> None:
        self.average, self.latest = average, latest

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.average.update_parameters(self.latest)


class AveragedTrainer(Trainer):
    """A Trainer that judges and keeps a moving average of the weights.

    Between neighbouring evaluations on a small data set the weights themselves jump by points, their average hardly
    does (Polyak and Juditsky 1992). The best average by dev metric lies in `best.safetensors` beside the checkpoints.
    """

    def __init__(self, model: PreTrainedModel, decay: float, **options: Any) -> None:
        super().__init__(model, **options)
        self.latest = model
        self.best = output_folder(self) / "best.safetensors"
        self.average = AveragedModel(model, multi_avg_fn=moving_average(decay))
        self.add_callback(_Averaging(self.average, model))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Of the average. Raises RecipeError where its loss or its metric is no finite number."""
        latest = {name: weights.clone() for name, weights in self.latest.state_dict().items()}
        self.latest.load_state_dict(self.average.module.state_dict())
        metrics = super().evaluate(*args, **kwargs) if finite(self.latest) else {"eval_loss": math.nan}
        if not all(map(math.isfinite, metrics.values())):
            raise RecipeError(diverged("teacher", self.state.global_step))
        # Of equals the later one: on a small dev split the first is often hardly more than the weights it began with.
        better = self.state.best_metric is None or metrics[f"eval_{DEV}"] >= self.state.best_metric
        if better and self.is_world_process_zero():
            save_model(self.latest, str(self.best))
        self.latest.load_state_dict(latest)
        return metrics

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int]:
        return SequentialSampler(eval_dataset)  # type: ignore[arg-type]  # what judges knows its rows by their order

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        if not self.is_world_process_zero():
            return
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
    data that doesn't fit, RecipeError where another recipe's checkpoints lie or where it diverges.
    """
    _check(recipe, folder)
    data, source = recipe.data.read(), recipe.teacher.model
    if recipe.adaptation:
        source = str(_adapt(recipe, recipe.adaptation, folder.with_name(folder.name + ".adapted")))
    tokenizer = load_tokenizer(recipe.teacher.model)
    set_seed(recipe.seed)  # a new head's weights are drawn when it is loaded, before the Trainer sets its seed
    names = dict(enumerate(data.labels))
    given = lesson(tokenizer, data, recipe)
    model = load_network(
        given.network,
        source,
        num_labels=len(names),
        problem_type=LEARNING[recipe.data.task].problem_type,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    steps = max(1, math.ceil(len(data.train) / recipe.training.batch_size) // recipe.training.evaluations_per_epoch)
    check_limit(model.config, recipe.teacher.model, recipe.teacher.max_tokens)
    trainer = AveragedTrainer(
        model,
        recipe.training.average,
        args=_arguments(recipe.training, folder, recipe.seed, save_steps=steps, evaluate=True),
        train_dataset=given.train,
        eval_dataset=given.dev,
        data_collator=given.collator,
        compute_metrics=given.judge,
    )
    _claim(_checkpoints(folder), _told(recipe, source, chain(data.train, data.dev)))
    _train(trainer)
    load_model(model, str(trainer.best))
    _finish(trainer, tokenizer, folder)
    if trainer.is_world_process_zero():
        _tell(recipe, len(data.dev), trainer, folder)
    return folder


def _check(recipe: TeachRecipe, folder: Path) -> None:
    """What can be refused before anything is read."""
    check_no_student(recipe.teacher.model)
    if (folder / RECIPE).exists():  # written last
        raise OptionError(f"--out {folder}: a teacher lies there already; choose another, or remove it")


def _tell(recipe: TeachRecipe, rows: int, trainer: Trainer, folder: Path) -> None:
    """What it was made by, and how good it is on dev: to people and beside it."""
    (folder / RECIPE).write_text(as_toml(recipe), encoding="utf-8")
    metric = recipe.data.metric or next(iter(METRICS[recipe.data.task]))
    best = float(trainer.state.best_metric or 0.0)
    console.log(f"teacher on dev: {rows:,} rows; {metric} {best:.4f}, the best of all evaluations")
    told = {"metric": metric, "value": best, "rows": rows, "data": recipe.data.selects}
    (folder / SCORE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def teacher_recipe(folder: str) -> str:
    """The recipe of a teacher that `fine_tune` made; of others, only where they come from."""
    file = Path(folder, RECIPE)
    return file.read_text(encoding="utf-8") if file.is_file() else tomli_w.dumps({"model": folder})


def taught_columns(folder: str, **given: Any) -> Columns:
    """Where the rows had their texts and labels that `fine_tune` made a teacher of, and of other models the usual
    columns; but those that are given."""
    columns, file = Columns(), Path(folder, RECIPE)
    if file.is_file():
        with suppress(ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError):  # `pretrain`'s, or somebody else's
            columns = TeachRecipe.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).data.columns
    return replace(columns, **{name: value for name, value in given.items() if value})


def _adapt(recipe: TeachRecipe, adaptation: Adaptation, folder: Path) -> Path:
    told = recipe.model_dump(mode="json", include={"seed", "teacher", "adaptation"})
    claim = json.dumps(told | {"files": _files_digest(recipe.teacher.model, adaptation.texts)})
    tokenizer = load_tokenizer(recipe.teacher.model)
    finished = (folder / "tokenizer.json").exists()  # what `_finish` writes last
    encoding = None if finished else masked_rows(tokenizer, adaptation, recipe.teacher.max_tokens)
    _claim(folder, claim)  # once they could be read: those that are mended differ
    if encoding is None:
        return folder
    set_seed(recipe.seed)
    trainer = MaskedLanguageTrainer(
        model=load_network(AutoModelForMaskedLM, recipe.teacher.model),
        args=_arguments(adaptation, folder, recipe.seed, save_steps=1000, evaluate=False),
        train_dataset=Encoded(encoding),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=adaptation.mask),
    )
    _train(trainer)
    return _finish(trainer, tokenizer, folder)


def _files_digest(model: str, sources: Sequence[TextSource]) -> str:
    """Of local files, an encoder's weights and texts. Of the hub's only names are known, which the recipe has."""
    digest = hashlib.sha256()
    weights = sorted(path for names in WEIGHTS for path in Path(model).glob(names))
    named = [texts.source + ending for texts in sources for ending in ("", "-wal")]  # where a store is written
    for path in (*weights, *map(Path, named)):
        if path.is_file():
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _told(recipe: TeachRecipe, source: str, examples: Iterable[Example]) -> str:
    """All that a teacher is made of: the recipe, the encoder's weights where they lie here, and the labelled rows."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode(errors="surrogatepass"))
    files = {"files": _files_digest(source, ()), "rows": digest.hexdigest()}
    return json.dumps(recipe.model_dump(mode="json") | files)


def masked_rows(tokenizer: PreTrainedTokenizerFast, adaptation: Adaptation, max_tokens: int) -> BatchEncoding:
    """The token ids of all texts, a pair in one sequence, whose words it must look for in the other text.

    Raises DataError where none fits.
    """
    whole: dict[str, list[list[int]]] = {}
    for source in adaptation.texts:
        rows = list(shaped_rows(source))
        for key, values in (tokenized(tokenizer, rows, max_tokens) if rows else {}).items():
            whole.setdefault(key, []).extend(values)
    if not whole:
        raise DataError("adaptation.texts: not one text fits; look at min_words, max_words, skip")
    return BatchEncoding(whole)


def _train(trainer: Trainer) -> None:
    checkpoints, lead = output_folder(trainer), trainer.is_world_process_zero()
    written_last = AVERAGE if isinstance(trainer, AveragedTrainer) else TRAINER_STATE_NAME
    for checkpoint in checkpoints.glob("checkpoint-*"):
        if lead and not (checkpoint / written_last).exists():  # the run was killed in the middle of this one
            shutil.rmtree(checkpoint)
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None)


def _finish(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()  # the best weights lie among the checkpoints, and all have read them now
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(str(folder))
        shutil.rmtree(output_folder(trainer), ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return folder


def output_folder(trainer: Trainer) -> Path:
    """Where the checkpoints lie; `_arguments` always names a folder."""
    return Path(str(trainer.args.output_dir))


def _claim(folder: Path, claim: str) -> None:
    """Note beside the checkpoints whose they are: going on with another recipe's, or with those of other weights or
    other data, would make a teacher of neither."""
    note = folder / "recipe.json"
    if note.exists() and note.read_text(encoding="utf-8") != claim:
        raise RecipeError(
            f"{folder}: left by another recipe or by other files; remove it to start anew, or choose another --out"
        )
    if processes().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(claim, encoding="utf-8")


def _checkpoints(folder: Path) -> Path:
    return folder.with_name(folder.name + ".checkpoints")


def share(batch_size: int, shares: int) -> int:
    """Of a batch, what one of so many processes takes. Raises RecipeError where they can't take equal shares."""
    if batch_size % shares:
        raise RecipeError(f"batch_size: {batch_size} rows are no equal shares for {shares} processes")
    return batch_size // shares


def _arguments(loop: Loop, folder: Path, seed: int, *, save_steps: int, evaluate: bool) -> TrainingArguments:
    device = default_device()
    return TrainingArguments(
        output_dir=str(_checkpoints(folder)),
        num_train_epochs=loop.epochs,
        per_device_train_batch_size=share(loop.batch_size, int(processes().num_processes)),
        per_device_eval_batch_size=128,
        learning_rate=loop.learning_rate,
        weight_decay=loop.weight_decay,
        lr_scheduler_type=loop.decay,
        warmup_steps=loop.warmup,  # a share of the steps, as transformers reads a value below 1
        bf16=loop.bf16 and quick_at_bfloat16(device),
        use_cpu=device.type == "cpu",  # else bf16 is refused on a machine without a GPU
        train_sampling_strategy="group_by_length",
        eval_strategy="steps" if evaluate else "no",
        eval_steps=save_steps,
        save_steps=save_steps,
        save_total_limit=2,
        metric_for_best_model=DEV if evaluate else None,
        logging_steps=100,
        ddp_timeout=int(LONGEST_WAIT.total_seconds()),
        report_to="none",
        seed=seed,
    )
