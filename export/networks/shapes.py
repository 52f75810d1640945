"""The sizes of a transformer of BERT's make, and how the command line names them. It knows nothing of weights."""

import re
from dataclasses import dataclass

from export.errors import ModelError


@dataclass(frozen=True)
class BertShape:
    """Layers × hidden × heads × intermediate, as their papers count them."""

    layers: int
    hidden: int
    heads: int
    intermediate: int


SHAPES = {"bert-base": BertShape(12, 768, 12, 3072), "bert-large": BertShape(24, 1024, 16, 4096)}


def parse_shape(text: str) -> BertShape:
    """A name of SHAPES, or four numbers such as 6x384x12x1536. Raises ModelError."""
    if text in SHAPES:
        return SHAPES[text]
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){3}", text):
        raise ModelError(f"shape {text}: use {', '.join(SHAPES)} or LAYERSxHIDDENxHEADSxINTERMEDIATE: 6x384x12x1536")
    shape = BertShape(*map(int, text.split("x")))
    if shape.hidden % shape.heads:
        raise ModelError(f"shape {text}: {shape.hidden} hidden units are not a multiple of {shape.heads} heads")
    return shape
