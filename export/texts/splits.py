"""Which labelled rows learn, which select, and which only lend their texts. Seeded, so that a teacher and its student,
whose recipes say the same of the data, learn from the same rows.

It knows examples. It knows nothing of files or models.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from export.errors import DataError
from export.texts.answers import Answers
from export.texts.datasets import Example

Examples = tuple[Example, ...]


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """The rows that learn, and `share` of them, at least one, that select: of each label alike where that can be.

    Questions about one text stand on one side: who has learnt from a text knows it. Raises DataError where there is
    only one row, or only one text.
    """
    if len(examples) < 2:
        raise DataError("data.train: has a single row, and data.dev_share would take it to select with; name data.dev")
    dev = min(max(round(share * len(examples)), 1), len(examples) - 1)
    if isinstance(examples[0].label, Answers):
        selecting, learning = _parted(examples, _of_whole_texts(examples, dev, seed))
        return learning, selecting
    labels = [str(example.label) for example in examples]
    kinds = Counter(labels)
    alike = min(kinds.values()) > 1 and len(kinds) <= min(dev, len(examples) - dev)
    learn, select = train_test_split(
        range(len(examples)), test_size=dev, random_state=seed, stratify=labels if alike else None
    )
    return tuple(examples[i] for i in sorted(learn)), tuple(examples[i] for i in sorted(select))


def besides(learning: Examples, selecting: Examples) -> Examples:
    """Those that learn, without texts that select. Raises DataError where none is left."""
    known = {example.text for example in selecting}
    found = tuple(example for example in learning if example.text not in known)
    if not found:
        raise DataError("data.train: each of its texts stands in data.dev too; select on other rows than you train on")
    return found


def _of_whole_texts(examples: Examples, count: int, seed: int) -> list[int]:
    """The places of so many questions or a few more, with all others about their texts; one text is left."""
    by_text: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        by_text[example.text[1]].append(place)
    if len(by_text) < 2:
        raise DataError("data.train: all questions are about one text, and data.dev_share parts texts; name data.dev")
    groups, chosen = list(by_text.values()), list[int]()
    for group in _shuffled(len(groups), seed)[:-1]:
        if len(chosen) < count:
            chosen.extend(groups[group])
    return chosen


def few_of_each_label(examples: Examples, count: int, seed: int) -> tuple[Examples, Examples]:
    """At most `count` rows of each label, and the rest."""
    by_label: dict[object, list[int]] = defaultdict(list)
    for place in _shuffled(len(examples), seed):
        by_label[examples[place].label].append(place)
    return _parted(examples, [place for places in by_label.values() for place in places[:count]])


def few(examples: Examples, count: int, seed: int) -> tuple[Examples, Examples]:
    """At most `count` rows, whatever their labels, and the rest."""
    return _parted(examples, _shuffled(len(examples), seed)[:count])


def _shuffled(count: int, seed: int) -> list[int]:
    order: list[int] = np.random.default_rng(seed).permutation(count).tolist()
    return order


def _parted(examples: Examples, places: Sequence[int]) -> tuple[Examples, Examples]:
    """Those at these places, and the others, both in their own order."""
    chosen = set(places)
    return (
        tuple(example for i, example in enumerate(examples) if i in chosen),
        tuple(example for i, example in enumerate(examples) if i not in chosen),
    )
