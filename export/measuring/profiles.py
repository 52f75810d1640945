"""What texts look like to a student: the histograms that later traffic is held against.

It knows rows of tokens and logits. It knows nothing of files or thresholds; the bins are the service's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bundle.confidence import MARGIN_EDGES, TOKEN_EDGES, UNKNOWN_EDGES, histogram, margins, unknown_shares
from service.bundle.encoder import Row
from service.bundle.manifest import Profile
from service.bundle.rows import pieces

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """Texts as a student reads them, and where they come from."""

    dataset: str
    rows: Sequence[Row]
    unknown_id: int

    def profile(self, logits: Logits, temperature: float, teacher: Logits | None) -> Profile:
        """Of the student's logits (N, L) for these rows, and of its teacher's if there is one; N >= 1."""
        agreement = None if teacher is None else float((logits.argmax(axis=1) == teacher.argmax(axis=1)).mean())
        margin = histogram(margins(logits, temperature), MARGIN_EDGES)
        return self.profile_of_texts().model_copy(update={"margin": margin, "agreement": agreement})

    def profile_of_texts(self) -> Profile:
        """Of the rows alone, where a row has not one label."""
        return Profile(
            dataset=self.dataset,
            rows=len(self.rows),
            tokens=histogram([len(row) for row in self.rows], TOKEN_EDGES),
            unknown=histogram(unknown_shares(list(map(pieces, self.rows)), self.unknown_id), UNKNOWN_EDGES),
            margin=None,
            agreement=None,
        )
