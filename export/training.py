"""The training loop. It knows stages, not papers: what is learnt from, by which objective, by which weights.

`accelerate` brings devices and mixed precision. Everything random hangs on one seed; a moving average of the weights
is judged on dev and the best one kept; an interrupted run goes on from its last evaluation.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import get_linear_schedule_with_warmup

from export.objectives import ObjectiveFunction
from export.progress import Bar, console, progress_bar
from export.recipe import Distillation
from export.transfer import TransferSet, length_batches

Judge = Callable[[nn.Module], float]
"""The dev metric of a student; more is better."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training."""

    name: str
    data: TransferSet
    objective: ObjectiveFunction
    loop: Distillation
    trainable: tuple[str, ...] = ("",)  # prefixes of parameters that learn; "" stands for all


@dataclass
class Standing:
    """How far a stage has come: all that must survive an interruption beside weights and optimiser."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    worse: int = 0  # evaluations since the best one


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """The update of an exponential moving average that warms up, for `AveragedModel`.

    A student starts at random weights, so a short run's average must forget them: of the n-th update the decay is
    min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], latest: Sequence[Tensor], updates: Tensor | int) -> None:
        warm = min(decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(list(averages), list(latest), 1 - warm)

    return update


def fit(student: nn.Module, stages: Sequence[Stage], judge: Judge, folder: Path, seed: int) -> float:
    """Run the stages one after the other; each starts from the best weights of the one before.

    Leaves the student with its best weights and returns their dev metric.
    """
    best = -math.inf
    for number, stage in enumerate(stages):
        best = _run(student, stage, judge, folder / f"{number}-{stage.name}", seed + number)
    return best


def _run(student: nn.Module, stage: Stage, judge: Judge, folder: Path, seed: int) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(any(name.startswith(prefix) for prefix in stage.trainable))
    run = _Run(student, stage, judge, folder, seed)
    if not (folder / "finished").exists():
        run.train()
        (folder / "finished").touch()
    load_model(student, str(folder / "best.safetensors"))
    return run.standing.best


class _Run:
    """One stage under way."""

    def __init__(self, student: nn.Module, stage: Stage, judge: Judge, folder: Path, seed: int) -> None:
        self.stage, self.judge, self.folder, self.seed = stage, judge, folder, seed
        loop = stage.loop
        self.steps_per_epoch = sum(1 for _ in self._batches(0))
        self.steps = max(1, math.ceil(loop.epochs * self.steps_per_epoch))
        self.every = max(1, self.steps_per_epoch // loop.evaluations_per_epoch)
        learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, loop.learning_rate, weight_decay=loop.weight_decay, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, int(loop.warmup * self.steps), self.steps)
        AcceleratorState._reset_state()  # accelerate keeps one precision a process; the run before may have had another
        self.accelerator = Accelerator(mixed_precision="bf16" if loop.bf16 else "no")
        self.student, self.optimizer = self.accelerator.prepare(student, optimizer)
        self.schedule = schedule
        self.average = AveragedModel(student, multi_avg_fn=moving_average(loop.average))
        self.accelerator.register_for_checkpointing(schedule, self.average)
        self.standing = self._restore()

    def train(self) -> None:
        with progress_bar(self.stage.name, self.steps, "steps", done=self.standing.step) as bar:
            for indices in self._remaining():
                if self.standing.worse >= self.stage.loop.patience:
                    break  # asked before the step: a resumed run may have lost its patience already
                self._step(indices)
                self.standing.step += 1
                if self.standing.step % self.every == 0 or self.standing.step == self.steps:
                    self._evaluate()
                self._report(bar)

    def _step(self, indices: np.ndarray) -> None:
        self.student.train()
        data, device = self.stage.data, self.accelerator.device
        ids = torch.from_numpy(data.rows(indices).astype(np.int64)).to(device)  # (B, T)
        lengths = torch.full((len(ids),), ids.shape[1])
        teacher, labels = (torch.from_numpy(part[indices]).to(device) for part in (data.logits, data.labels))
        with self.accelerator.autocast():
            logits: Tensor = self.student(ids, lengths)
        self.accelerator.backward(self.stage.objective(logits.float(), teacher, labels))
        self.accelerator.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.accelerator.unwrap_model(self.student))

    def _evaluate(self) -> None:
        standing, average = self.standing, self.average.module.eval()
        metric = self.judge(average)
        standing.worse += 1
        if metric > standing.best:
            standing.best, standing.best_step, standing.worse = metric, standing.step, 0
            save_model(average, str(self.folder / "best.safetensors"))
        console.log(
            f"{self.stage.name}: step {standing.step} of {self.steps}, dev {metric:.4f}, best {standing.best:.4f}"
        )
        self._save()

    def _save(self) -> None:
        """The state first, then the standing that names it: an interruption in between loses nothing."""
        self.accelerator.save_state(str(self._state()), safe_serialization=True)
        unfinished = self.folder / "standing.json.tmp"
        unfinished.write_text(json.dumps(asdict(self.standing)))
        unfinished.replace(self.folder / "standing.json")
        for old in set(self.folder.glob("state-*")) - {self._state()}:
            shutil.rmtree(old)

    def _state(self) -> Path:
        return self.folder / f"state-{self.standing.step}"

    def _restore(self) -> Standing:
        file = self.folder / "standing.json"
        if not file.exists():
            return Standing()
        standing = Standing(**json.loads(file.read_text()))
        self.accelerator.load_state(str(self.folder / f"state-{standing.step}"))
        return standing

    def _remaining(self) -> Iterator[np.ndarray]:
        """The batches that are still to come: their order depends on seed and epoch alone."""
        epoch, skip = divmod(self.standing.step, self.steps_per_epoch)
        left = self.steps - self.standing.step
        while left > 0:
            for number, indices in enumerate(self._batches(epoch)):
                if number >= skip and left > 0:
                    left -= 1
                    yield indices
            epoch, skip = epoch + 1, 0

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        return length_batches(self.stage.data.lengths, self.stage.loop.batch_size, rng)

    def _report(self, bar: Bar) -> None:
        bar.advance(1, f"best {self.standing.best:.4f}" if self.standing.best > 0 else "")
