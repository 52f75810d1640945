"""Tang, Lu, Liu, Mou, Vechtomova and Lin 2019: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
(arXiv 1903.12136).

A single-layer BiLSTM learns the teacher's logits on the training texts and on synthetic or unlabelled ones:

    L = alpha * L_CE + (1 - alpha) * L_distill      (eq. 5; the paper's best alpha is 0)
    L_distill = || z_teacher - z_student ||²        (eq. 4)

Pairs are read by one BiLSTM, text by text, and [h1, h2, h1 * h2, |h1 - h2|] is classified (section 3.1).

Our departures: gradients are clipped, rows of a batch are equally long where they can be, L_distill is a mean over
labels, and there may be unlabelled in-domain text beside the augmentation. Each table of embeddings, word2vec's too, is
brought to a standard deviation of 0.25 before training (`export.beginnings.inherit`). Dev is looked at four times an
epoch, and the best weights are kept. AdamW with a warm-up and a linear decay, word pieces of the teacher, the SVD of
its embeddings and an end where dev grows no better (`training.patience`) are what recipes choose by default in the
place of AdaDelta, words, word2vec and all epochs; the recipes of QQP, MNLI and `tang2019-sst2-paper` choose as the
paper does.
"""

from export.learning.training import Stage
from export.objectives.outputs import SOFT, mixture
from export.recipe import DistillRecipe
from export.tasks.learnt import LEARNING
from export.transfer.transfer_set import TransferSet


def stages(recipe: DistillRecipe, transfer: TransferSet) -> list[Stage]:
    """One stage: everything learns at once."""
    objective = recipe.objective
    learning = LEARNING[recipe.data.task]
    hard = learning.hard_or_teacher if objective.argmax else learning.hard
    loss = mixture(objective.alpha, hard, SOFT[objective.soft](objective.temperature))
    return [Stage("tang2019", transfer, loss, recipe.training)]
