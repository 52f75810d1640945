"""How sure a model is, and what rows look like to it: the same arithmetic when a bundle is made and when it serves.

It knows logits and token ids. It knows nothing of texts, thresholds or teachers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Histogram
from service.bundle.tasks import Logits, softmax

Values = NDArray[np.float64]

TOKEN_EDGES = (2, 4, 6, 8, 10, 12, 15, 18, 21, 24, 28, 32, 38, 46, 56, 70, 90, 120, 180, 256, 384, 512)
"""Of a row's number of tokens: finer where most texts are, up to the longest that students read."""

UNKNOWN_EDGES = (0.001, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the share of unknown pieces: the first bin holds rows without any."""

MARGIN_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995, 0.998)
"""Of the margin: finer near 1, where a good student's answers are."""


def margins(logits: Logits, temperature: float = 1.0) -> Values:
    """(B, L) -> (B,): the largest probability less the next, of softmax(logits / temperature), from 0 to 1.

    Margin sampling is the best way to choose whom to ask the teacher for, by a single model, in Cache & Distil
    (Ramirez et al. 2023). Guo et al. 2017 for the temperature.
    """
    probabilities = softmax(np.asarray(logits / temperature, dtype=np.float32))  # (B, L)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]  # (B, 2): the next, the largest
    found: Values = best[:, 1] - best[:, 0]
    return found


def unknown_shares(rows: Sequence[Sequence[int]], unknown_id: int) -> Values:
    """Rows of token ids -> (B,): which share of each row's tokens is the unknown piece; 0 for an empty row."""
    return np.array([row.count(unknown_id) / (len(row) or 1) for row in rows], dtype=np.float64)


def histogram(values: Sequence[float] | Values, edges: tuple[float, ...]) -> Histogram:
    """Count values into the bins that these edges make."""
    places = np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="right")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return Histogram(edges=edges, counts=tuple(counts.tolist()))
