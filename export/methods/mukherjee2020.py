"""Mukherjee and Awadallah 2020: XtremeDistil: Multi-stage Distillation for Massive Multilingual Models (ACL 2020), and
their Distilling Transformers into Simple Neural Networks with Unlabeled Transfer Data (arXiv 1910.01769).

A BiLSTM learns from few labels and much unlabelled text, in stages, each a weighted sum of

    CE = cross entropy with the labels, or with the teacher's argmax (`objective.argmax`: hard distillation)
    RL = KL (or MSE, or cosine) between z = GELU(W h + b) and a layer's hidden states   (`objective.states`)
    LL = 1/2 (score - logit(p_teacher))²                                                (`objective.soft`: logodds)

Jointly, alpha CE + beta RL + gamma LL is one stage; Algorithm 1 has three: RL, then LL, then CE. With `unfreeze` a
stage has a step for each layer: first the head alone learns, then the projection too, the BiLSTM, and the embeddings:
1 + 4 + 4 steps. Each ends where it no longer gets better and hands on its best weights.

The student's dense layer with GELU and the teacher's width is the projection, and its head stands on it, as in the
authors' code (eq. 3 has it on h). RL alone says nothing of labels, so it is judged by itself on a tenth of the texts.

Our departures: signals are learnt of labelled texts too, not only of the unlabelled ones; LL is a mean, without its
1/2, and of logits where the recipe says so (as in the authors' second code); the stage of labels goes on with the head
of the stage before instead of a new one; weights that no step betters stay; AdamW, one warm-up and decay a step instead
of restarts.
"""

from dataclasses import replace

import numpy as np

from export.learning.training import Stage, judge_by
from export.networks.students import Recurrent
from export.objectives.outputs import REPRESENTATION, SOFT, ObjectiveFunction, weighted
from export.recipe import DistillRecipe
from export.sections import StagePlan
from export.tasks.learnt import LEARNING
from export.transfer.transfer_set import TransferSet

JUDGING = 0.1
"""Share of the texts that judge a representation which has no head yet."""
PARTS = {"output": "head", "dense": "projection", "lstm": "bilstm", "embedding": "embeddings"}
"""A layer of the student -> what the paper calls it."""


def stages(recipe: DistillRecipe, transfer: TransferSet) -> list[Stage]:
    """The steps of all stages, one behind the other."""
    steps = [step for plan in recipe.stages for step in _steps(recipe, plan, transfer)]
    return [steps[0], *(replace(step, keeps=True) for step in steps[1:])]


def _steps(recipe: DistillRecipe, plan: StagePlan, transfer: TransferSet) -> list[Stage]:
    """Of one stage: a step, or one for each layer from the uppermost that learns."""
    loss, loop = _objective(recipe, plan), plan.loop(recipe.training)
    data, judge = _rows(recipe, plan, transfer), None
    if not plan.answers:
        data, judging = _parted(data, recipe.seed)
        judge = judge_by(loss, judging, loop.batch_size)
    layers = Recurrent.layers if plan.answers else Recurrent.layers[1:]
    if not plan.unfreeze:
        return [Stage(plan.name, data, loss, loop, layers, judge)]
    return [
        Stage(f"{plan.name}-{PARTS[layer]}", data, loss, loop, layers[: place + 1], judge)
        for place, layer in enumerate(layers)
    ]


def _objective(recipe: DistillRecipe, plan: StagePlan) -> ObjectiveFunction:
    objective, learning = recipe.objective, LEARNING[recipe.data.task]
    hard = learning.hard_or_teacher if objective.argmax else learning.hard
    soft = SOFT[objective.soft](objective.temperature)
    states = REPRESENTATION[objective.states]
    return weighted([(plan.labels, hard), (plan.representation, states), (plan.logits, soft)])


def _rows(recipe: DistillRecipe, plan: StagePlan, transfer: TransferSet) -> TransferSet:
    """All, or those with labels where nothing else is learnt."""
    if plan.representation or plan.logits or recipe.objective.argmax:
        return transfer
    return transfer.part(transfer.labelled)


def _parted(data: TransferSet, seed: int) -> tuple[TransferSet, TransferSet]:
    """What is learnt from, and what judges: a row at least."""
    order = np.random.default_rng(seed).permutation(len(data))
    few = max(1, round(JUDGING * len(data)))
    return data.part(np.sort(order[few:])), data.part(np.sort(order[:few]))
