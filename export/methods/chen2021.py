"""Chen, Yin, Shang, Wang, Jiang, Chen and Liu 2021: Extract Then Distill: Efficient and Effective Task-Agnostic BERT
Distillation (ICANN 2021). Read: its abstract and notes on it; what they leave open is chosen here.

A student of any size begins with a part of its teacher: hidden dimensions, heads and neurons, chosen at random
(ETD-Rand) or by importance (ETD-Impt), of layers at even distances (`export.networks.extraction`). Then it learns on
plain text what stands inside its teacher (`export.objectives.relations`), by TinyBERT's objective or by MiniLM's:

    TinyBERT:  sum over layers of MSE(scores) + MSE(W_h states), and the embeddings' MSE
    MiniLM:    KL(attention) + KL(value relation), of the last layer

Chosen: importance is that of `export.networks.importance`, measured with the whole teacher; a head's own dimensions are
chosen too where the student's heads are narrower, and new ones are added where they are wider; both objectives compare
relation heads (MiniLMv2's way), so that head counts may differ; W_h begins by putting each hidden dimension back in its
place; a layer is compared with the one that it was cut out of.
"""

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from export.networks.extraction import Places, shape_of, uniform_layers
from export.networks.inside import Watched, put_back
from export.objectives.loss import Loss
from export.objectives.relations import COMPARISONS, Inside
from export.recipe import ExtractRecipe


def compared(
    recipe: ExtractRecipe, teacher: PreTrainedModel, student: PreTrainedModel, hidden: Places | None
) -> tuple[Watched, Watched]:
    """Teacher and student, watched at the layers that this recipe's objective compares."""
    whole = recipe.comparing.by == "tinybert"
    theirs, ours = shape_of(teacher), shape_of(student)
    layers: Sequence[int] = range(ours.layers) if whole else [ours.layers - 1]
    of_teacher = uniform_layers(theirs.layers, ours.layers)
    watched = Watched(student, layers, states=whole, width=theirs.hidden if whole else None)
    if watched.to_width is not None and hidden is not None:
        put_back(watched.to_width, hidden.tolist())
    return Watched(teacher, [of_teacher[layer] for layer in layers], states=whole), watched


def objective(recipe: ExtractRecipe, heads: int) -> Callable[[Inside, Inside], Loss]:
    """What the recipe compares, over so many relation heads; everything learns from it at once."""
    compare = COMPARISONS[recipe.comparing.by]
    return lambda student, teacher: compare(student, teacher, heads)
