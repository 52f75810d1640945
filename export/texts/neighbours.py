"""Pairs out of single texts: each with those that are most like it, by the words that they share.

Data sets of pairs are often made so, of news about the same event or captions of the same picture, and unlabelled pairs
are rare where unlabelled texts are plenty. Distilled students of pairs learn little from pairs that were drawn by lot,
since almost none is alike.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

APART = 1 - 1e-6
"""Distance of texts that share no word, but for rounding."""

COMMON = 0.05
"""Words of more than this share of the texts tell little, and would make every text a neighbour of every other."""


def neighbour_pairs(texts: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Each text with the `count` others that have the greatest cosine of TF-IDF vectors with it, each pair once.

    Texts that share no word with another one have no neighbours. Equal texts are one.
    """
    unique = list(dict.fromkeys(texts))
    if len(unique) < 2:
        return
    rows = _vectors(unique)
    found = NearestNeighbors(n_neighbors=min(count + 1, len(unique)), metric="cosine", algorithm="brute").fit(rows)
    distances, others = found.kneighbors(rows)  # (N, count + 1) each, the text itself among them
    seen: set[tuple[int, int]] = set()
    for place, (near, far) in enumerate(zip(others.tolist(), distances.tolist(), strict=True)):
        alike = [other for other, distance in zip(near, far, strict=True) if other != place and distance < APART]
        for other in alike[:count]:
            pair = (min(place, other), max(place, other))
            if pair not in seen:
                seen.add(pair)
                yield unique[place], unique[other]


def _vectors(texts: Sequence[str]) -> csr_matrix:
    """(N, words), of length one each."""
    few = len(texts) < 1 / COMMON  # then a word of two texts is "common" already
    vectorizer = TfidfVectorizer(
        token_pattern=r"(?u)\b\w+\b", max_df=1.0 if few else COMMON, sublinear_tf=True, dtype=np.float32
    )
    try:
        return csr_matrix(vectorizer.fit_transform(texts))
    except ValueError:  # no word is left: all are in too many texts
        return csr_matrix((len(texts), 1), dtype=np.float32)
