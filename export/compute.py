"""What a network costs: floating-point operations, a multiplication and an addition counting two.

Only products of matrices count; all else is small beside them. Pure arithmetic.
"""

from export.shape import BertShape
from export.students import Shape

BACKWARD = 2
"""Times the forward pass: gradients of the inputs, and of the weights."""


def bert_flops(shape: BertShape, tokens: float) -> float:
    """Of one forward pass of an encoder over a row of so many tokens."""
    projections = 8 * shape.hidden**2  # queries, keys, values, output
    feed_forward = 4 * shape.hidden * shape.intermediate
    attention = 4 * tokens * shape.hidden  # each token with each: products, and values by their shares
    return shape.layers * tokens * (projections + feed_forward + attention)


def bilstm_flops(shape: Shape, tokens: float) -> float:
    """Of one forward pass of a BiLSTM student over a row of so many tokens; of a tagger's head for one token."""
    steps = 2 * 8 * shape.hidden * (shape.channels * shape.embedding + shape.hidden)
    head = 2 * shape.dense * (2 * shape.hidden + shape.labels)
    return tokens * steps + head


def relation_flops(width: int, tokens: float, relations: int) -> float:
    """Of so many relations between all tokens of a row, vectors of this width."""
    return relations * 2 * tokens**2 * width
