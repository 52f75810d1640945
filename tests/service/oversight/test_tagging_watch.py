"""The watch over a tagger: agreement by entities, drift of its texts, and texts that are kept."""

from pathlib import Path

import numpy as np
import pytest

from service.api.door import Door
from service.bundle.runtime import OpenBundle, open_bundle
from service.bundle.spans import shared
from tests.toys import toy
from tests.toys.tagging import PERMUTED, expected
from tests.toys.watching import OTHERS, TEXTS, captured, classify, until, visit


def flat(bundle: OpenBundle, text: str) -> np.ndarray:
    return np.concatenate(bundle.classify([text]))[: len(bundle.encoder.encode([text])[0])]


def test_both_agree_where_they_find_the_same(taggers: Path, tmp_path: Path) -> None:
    student, teacher = (open_bundle(taggers / name / "1") for name in ("ner", "ner-teacher"))
    texts = [*TEXTS[:60], *toy.WORDS, ""]
    found = zip(expected(student, texts), expected(teacher, texts), strict=True)
    shares = [shared(one, other) for one, other in found]
    agreed = sum(share == 1 for share in shares)
    path = tmp_path / "texts.db"

    async def act(door: Door) -> None:
        await classify(door, texts)
        report = await until(door, lambda report: report["agreement"]["ever"]["rows"] == len(texts), "ner")
        assert 0 < agreed < len(texts)
        assert report["agreement"]["ever"]["agreed"] == agreed
        assert report["agreement"]["distance"] == pytest.approx(1 - sum(shares) / len(shares))
        assert report["agreement"]["teacher"] == "ner-teacher@1"
        assert report["off"] == []

    visit(
        taggers, act, default="ner", watch_share=1, watch_queue=500, capture=path, capture_share=1, capture_margin=0.9
    )
    order = [PERMUTED.index(tag) for tag in toy.TAGS]
    rows = captured(path)
    assert sorted(row[0] for row in rows) == sorted(texts)
    for text, name, told_by, ours, theirs, reason, _ in rows:
        assert (name, told_by, reason) == ("ner@1", "ner-teacher@1", "sampled")
        assert np.frombuffer(ours, "<f4") == pytest.approx(flat(student, text).ravel(), abs=1e-5)
        assert np.frombuffer(theirs, "<f4") == pytest.approx(flat(teacher, text)[:, order].ravel(), abs=1e-5)


def test_texts_that_have_changed_raise_an_alarm(taggers: Path) -> None:
    usual = [" ".join(("a good film",) * 3 + ("too",))] * 250  # ten tokens

    async def act(door: Door) -> None:
        await classify(door, usual)
        report = await until(door, lambda report: report["rows"] == 250, "ner")
        assert report["alarms"] == []
        for _ in range(40):
            await classify(door, OTHERS)
        report = await until(door, lambda report: report["rows"] == 250 + 40 * len(OTHERS), "ner")
        assert report["alarms"] == ["tokens"]
        assert [feature["feature"] for feature in report["drift"]["features"]] == ["tokens", "unknown"]

    visit(taggers, act, default="ner", drift=True)


def test_unknown_words_raise_one_too(taggers: Path) -> None:
    async def act(door: Door) -> None:
        for _ in range(2):
            await classify(door, ["zyx " * 10] * 150)
        report = await until(door, lambda report: report["rows"] == 300, "ner")
        assert report["alarms"] == ["unknown"]

    visit(taggers, act, default="ner", drift=True)
