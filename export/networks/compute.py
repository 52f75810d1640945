"""What a network costs: floating-point operations, a multiplication and an addition counting two.

Only products of matrices count; all else is small beside them. Pure arithmetic.
"""

from export.networks.shapes import BertShape

BACKWARD = 2
"""Times the forward pass: gradients of both factors of each product, such as inputs and weights."""


def bert_flops(shape: BertShape, tokens: float) -> float:
    """Of one forward pass of an encoder over a row of so many tokens."""
    attention = relation_flops(shape.hidden, tokens, 2)  # products, and values by their shares
    return shape.layers * (_maps_flops(shape, tokens) + attention)


def gates_flops(shape: BertShape, tokens: float) -> float:
    """Of the gradients of an encoder's gates, the forward pass included: no weight has one."""
    return (1 + BACKWARD) * bert_flops(shape, tokens) - shape.layers * _maps_flops(shape, tokens)


def lstm_flops(width: int, hidden: int, tokens: float) -> float:
    """Of one forward pass of a BiLSTM layer, so many units a direction, over a row of so many vectors of this width."""
    return 2 * (map_flops(width, 4 * hidden, tokens) + map_flops(hidden, 4 * hidden, tokens))


def map_flops(width: int, other: int, tokens: float) -> float:
    """Of a linear map from one width to another, of so many tokens."""
    return 2 * tokens * width * other


def relation_flops(width: int, tokens: float, relations: int) -> float:
    """Of so many relations between all tokens of a row, vectors of this width."""
    return relations * 2 * tokens**2 * width


def _maps_flops(shape: BertShape, tokens: float) -> float:
    """Of a layer: queries, keys, values and output, and there and back to the neurons."""
    projections = 4 * map_flops(shape.hidden, shape.hidden, tokens)
    return projections + 2 * map_flops(shape.hidden, shape.intermediate, tokens)
