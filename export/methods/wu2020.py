"""Wu, Zhang, Li, Wang, Feng, Huang and Wang 2020: Towards Non-task-specific Distillation of BERT via Sentence
Representation Approximation (AACL). Read: its abstract and notes on it; what they leave open is chosen here.

A BiLSTM learns on plain text to give the vector that a pre-trained BERT, tuned for no task, gives a sentence:

    L = 1 - cos(student's vector, teacher's vector)     (recalled with 1/2 before it, which changes the rate alone)

Then it is fine-tuned like BERT on any task of sentences: a head on its vector, or, of pairs, on [u, v, u * v, |u - v|];
from the labels alone, or from a fine-tuned teacher's logits too (`student.begins` in a recipe of `distill`).

Chosen: which vector, [CLS] or the mean, of which layer, is the recipe's; the LSTM's states are pooled by their last
ones or their greatest; the dense layer that makes the vector has no activation, for BERT's has negative numbers.
"""

from export.objectives.outputs import REPRESENTATION, ObjectiveFunction
from export.recipe import ApproximateRecipe


def objective(recipe: ApproximateRecipe) -> ObjectiveFunction:
    """How vectors are compared; the whole encoder learns from it at once."""
    return REPRESENTATION[recipe.states]
