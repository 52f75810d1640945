"""Tang, Lu, Liu, Mou, Vechtomova and Lin 2019: Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
(arXiv 1903.12136).

A single-layer BiLSTM learns the teacher's logits on the training texts and on synthetic or unlabelled ones:

    L = alpha * L_CE + (1 - alpha) * L_distill      (eq. 5; the paper's best alpha is 0)
    L_distill = || z_teacher - z_student ||²        (eq. 4)

Our departures: AdamW with a warm-up and a linear decay instead of AdaDelta; word pieces of the teacher instead of
words, their embeddings from the SVD of the teacher's instead of word2vec (both in the recipe); batches of equally long
rows; unlabelled in-domain text beside the augmentation.
"""

from export.objectives import SOFT, cross_entropy, cross_entropy_or_argmax, mixture
from export.recipe import DistillRecipe
from export.training import Stage
from export.transfer import TransferSet


def stages(recipe: DistillRecipe, transfer: TransferSet) -> list[Stage]:
    """One stage: everything learns at once."""
    objective = recipe.objective
    hard = cross_entropy_or_argmax if objective.argmax else cross_entropy
    loss = mixture(objective.alpha, hard, SOFT[objective.soft](objective.temperature))
    return [Stage("tang2019", transfer, loss, recipe.training)]
