"""What a network costs: floating-point operations, a multiplication and an addition counting two.

Only products of matrices count; all else is small beside them. Pure arithmetic.
"""

from export.shape import BertShape

BACKWARD = 2
"""Times the forward pass: gradients of the inputs, and of the weights."""


def bert_flops(shape: BertShape, tokens: float) -> float:
    """Of one forward pass of an encoder over a row of so many tokens."""
    projections = 8 * shape.hidden**2  # queries, keys, values, output
    feed_forward = 4 * shape.hidden * shape.intermediate
    attention = 4 * tokens * shape.hidden  # each token with each: products, and values by their shares
    return shape.layers * tokens * (projections + feed_forward + attention)


def relation_flops(width: int, tokens: float, relations: int) -> float:
    """Of so many relations between all tokens of a row, vectors of this width."""
    return relations * 2 * tokens**2 * width
