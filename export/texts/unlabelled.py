"""How arrays of labels say that a row, or a piece, has none: what torch's cross entropy leaves out."""

UNLABELLED = -100
