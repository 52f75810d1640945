"""The training loop. It knows stages, not papers: what is learnt from, by which objective, by which weights.

`accelerate` brings devices, mixed precision and, under torchrun or `accelerate launch`, other processes: each takes a
part of every batch, and the loss is the whole batch's (`export.objectives.loss`). Everything random hangs on one seed;
a moving average of the weights is judged on dev and the best one kept; an interrupted run goes on from its last
evaluation.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import get_scheduler

from export.errors import RecipeError
from export.learning.averaging import moving_average
from export.networks.device import default_device, processes, quick_at_bfloat16
from export.objectives.loss import Loss
from export.progress import Bar, console, progress_bar
from export.sections import Distillation
from export.transfer.transfer_set import length_batches

STANDING = "standing.json"
OTHER_SEED = 1_000_003
"""Times the number of a process: far beyond the numbers of stages, which are added to the seed too."""

Judge = Callable[[nn.Module], float]
"""The dev metric of a student; more is better."""


class Exact(Protocol):
    """What a student gives."""

    def exact(self) -> Any:
        """The same in fp32: what objectives are given."""


class Batch(Protocol):
    """Some rows on their way through a student."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it is called with."""

    @property
    def target(self) -> Any:
        """What its output is held against."""


class Rows(Protocol):
    """What is learnt from."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,)."""

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """These rows, (B,)."""


Objective = Callable[[Any, Any], Loss]
"""What the student gives, in fp32, and its target -> how far apart they are."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training."""

    name: str
    data: Rows
    objective: Objective
    loop: Distillation
    trainable: tuple[str, ...] = ("",)  # prefixes of parameters that learn; "" stands for all
    judge: Judge | None = None  # whose opinion counts instead of the run's own, where dev says nothing yet
    keeps: bool = False  # the weights that it starts from are judged too, and stay if none are better
    idle: bool = False  # some weights that may learn have no part in the objective


@dataclass
class Standing:
    """How far a stage has come: all that must survive an interruption beside weights and optimiser."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    worse: int = 0  # evaluations since the best one
    seen: list[tuple[float, float]] = field(default_factory=list)  # of each evaluation: share of the steps, metric


def fit(student: nn.Module, stages: Sequence[Stage], judge: Judge, folder: Path, seed: int) -> float:
    """Run the stages one after the other; each starts from the best weights of the one before.

    Leaves the student with its best weights and returns their dev metric. Raises RecipeError where a stage diverges.
    """
    best = -math.inf
    for number, stage in enumerate(stages):
        place = _place(folder, stage, number)
        best = _run(student, stage, judge, place, seed + number)
        if number + 1 < len(stages) and processes().is_main_process:  # its best weights are all that the next needs
            _forget_states(place)
    return best


def _run(student: nn.Module, stage: Stage, judge: Judge, folder: Path, seed: int) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed + OTHER_SEED * processes().process_index)  # dropout differs between parts of a batch
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(any(name.startswith(prefix) for prefix in stage.trainable))
    if not (folder / "finished").exists():
        _Run(student, stage, stage.judge or judge, folder, seed).train()
        processes().wait_for_everyone()
        (folder / "finished").touch()
    load_model(student, str(folder / "best.safetensors"))
    return _standing(folder).best


def judge_by(objective: Objective, rows: Rows, batch_size: int) -> Judge:
    """Minus the mean of an objective over these rows: where no dev metric says anything yet."""
    batches = list(length_batches(rows.lengths, batch_size, np.random.default_rng(0)))

    @torch.no_grad()
    def judge(student: nn.Module) -> float:
        device = next(student.parameters()).device
        total, count = 0.0, 0
        for indices in batches:
            batch = rows.batch(indices, device)
            output: Exact = student(*batch.inputs)
            total += objective(output.exact(), batch.target).value.item() * len(indices)
            count += len(indices)
        return -total / count

    return judge


class Evaluation(NamedTuple):
    """What was seen of a student on its way."""

    done: float  # share of the stage's steps
    metric: float


def evaluations(folder: Path, stage: Stage, number: int = 0) -> list[Evaluation]:
    """Of a stage that `fit` has run, by its place among all."""
    return [Evaluation(*seen) for seen in _standing(_place(folder, stage, number)).seen]


def _place(folder: Path, stage: Stage, number: int) -> Path:
    return folder / f"{number}-{stage.name}"


def _standing(folder: Path) -> Standing:
    return Standing(**json.loads((folder / STANDING).read_text()))


def _forget_states(folder: Path, but: Path | None = None) -> None:
    for state in set(folder.glob("state-*")) - {but}:
        shutil.rmtree(state)


def diverged(what: str, step: int) -> str:
    """What is to be said of a run whose loss or metric is no finite number."""
    return f"{what}: diverged at step {step:,}: its loss or metric is no number any more; lower training.learning_rate"


def finite(network: nn.Module) -> bool:
    """Are all its weights numbers?"""
    return all(bool(weights.isfinite().all()) for weights in network.parameters())


def optimizer_of(loop: Distillation, learning: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or AdaDelta (Zeiler 2012), which weighs each step by its own history and is run at a rate of 1."""
    if loop.optimizer == "adadelta":
        return torch.optim.Adadelta(learning, loop.learning_rate, rho=loop.rho, weight_decay=loop.weight_decay)
    return torch.optim.AdamW(learning, loop.learning_rate, weight_decay=loop.weight_decay, fused=True)


class _Run:
    """One stage under way."""

    def __init__(self, student: nn.Module, stage: Stage, judge: Judge, folder: Path, seed: int) -> None:
        self.stage, self.judge, self.folder, self.seed = stage, judge, folder, seed
        loop = stage.loop
        self.steps_per_epoch = sum(1 for _ in self._batches(0))
        self.steps = max(1, math.ceil(loop.epochs * self.steps_per_epoch))
        self.every = max(1, self.steps_per_epoch // loop.evaluations_per_epoch)
        learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = optimizer_of(loop, learning)
        schedule = get_scheduler(loop.decay, optimizer, int(loop.warmup * self.steps), self.steps)
        AcceleratorState._reset_state()  # accelerate keeps one precision a process; the run before may have had another
        half = loop.bf16 and quick_at_bfloat16(processes().device)
        on_cpu = default_device().type == "cpu"
        parallel = DistributedDataParallelKwargs(find_unused_parameters=stage.idle)
        self.accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=on_cpu, kwargs_handlers=[parallel])
        self.student, self.optimizer = self.accelerator.prepare(student, optimizer)
        self.schedule = schedule
        self.average = AveragedModel(student, multi_avg_fn=moving_average(loop.average))
        self.accelerator.register_for_checkpointing(schedule, self.average)
        self.standing = self._restore()

    def train(self) -> None:
        if self.stage.keeps and self.standing.best == -math.inf:
            self._evaluate()
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
        mine = indices[self.accelerator.process_index :: self.accelerator.num_processes]
        # All must run the network together: who has no row of a small batch borrows one, which does not count.
        batch = self.stage.data.batch(mine if len(mine) else indices[:1], self.accelerator.device)
        with self.accelerator.autocast():
            output: Exact = self.student(*batch.inputs)
        found = self.stage.objective(output.exact(), batch.target)
        self.accelerator.backward(self._whole(found if len(mine) else found.nothing))
        self.accelerator.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.accelerator.unwrap_model(self.student))

    def _whole(self, mine: Loss) -> Tensor:
        """Of the whole batch, as far as it hangs on this part: gradients are averaged over processes, hence times their
        number."""
        if self.accelerator.num_processes == 1:
            return mine.value
        everywhere = self.accelerator.reduce(mine.numbers, "sum")
        return mine.over(torch.as_tensor(everywhere)) * int(self.accelerator.num_processes)

    def _judged(self, student: nn.Module) -> float:
        """One judges for all, so that all keep and stop alike."""
        verdict = [self.judge(student) if self.accelerator.is_main_process else 0.0]
        broadcast_object_list(verdict)
        return float(verdict[0])

    def _evaluate(self) -> None:
        standing, average = self.standing, self.average.module.eval()
        # A loss that was no finite number has left weights that are none, in all processes alike.
        metric = self._judged(average) if finite(average) else math.nan
        if not math.isfinite(metric):
            raise RecipeError(diverged(self.stage.name, standing.step))
        standing.worse += 1
        standing.seen.append((standing.step / self.steps, metric))
        if metric > standing.best:
            standing.best, standing.best_step, standing.worse = metric, standing.step, 0
            if self.accelerator.is_main_process:
                save_model(average, str(self.folder / "best.safetensors"))
        found = f"dev {metric:.4f}, best {standing.best:.4f}"
        if self.stage.judge is not None:  # by minus a loss
            found = f"held-out loss {-metric:.4f}, least {-standing.best:.4f}"
        console.log(f"{self.stage.name}: step {standing.step} of {self.steps}, {found}")
        self._save()

    def _save(self) -> None:
        """The state first, then the standing that names it: an interruption in between loses nothing."""
        self.accelerator.save_state(str(self._state()), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        unfinished = self.folder / f"{STANDING}.tmp"
        unfinished.write_text(json.dumps(asdict(self.standing)))
        unfinished.replace(self.folder / STANDING)
        _forget_states(self.folder, but=self._state())

    def _state(self) -> Path:
        return self.folder / f"state-{self.standing.step}"

    def _restore(self) -> Standing:
        if not (self.folder / STANDING).exists():
            return Standing()
        standing = _standing(self.folder)
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
