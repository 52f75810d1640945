"""Taggers of toys: their folder, and what their bundles say themselves."""

from collections.abc import Sequence
from pathlib import Path

from service.bundle.manifest import Histogram, Manifest, Precision, Profile, Role, Task
from service.bundle.rows import Spanned
from service.bundle.runtime import OpenBundle
from service.bundle.spans import Aggregation, Entity, Tag, entities
from service.bundle.store import write_bundle
from tests.toys import toy

PERMUTED = (*toy.TAGS[3:], *toy.TAGS[:3])
TEXTS = (
    "",
    "Too was and bright GOODNESS very dullest goodness but",
    "Gööd films 😀 東京 dullest a\u0301 film . very bad",
    "a dull film but too long and very brightly bad " * 12,  # more than is read
    "is good not bad and the very film",
)


def publish_taggers(models: Path) -> Path:
    """A tagger with a profile, its teacher with the tags in another order, and a pair of classifiers beside them."""
    files = toy.tagger_files()
    manifest = toy.draft("ner", "1", Role.STUDENT, files, task=Task.TAGGING, labels=toy.TAGS)
    write_bundle(models / "ner" / "1", profiled(manifest), files, card=None)
    toy.publish(models, "ner-teacher", "1", Role.TEACHER, task=Task.TAGGING, labels=PERMUTED)
    toy.publish(models, "toy", "1", Role.STUDENT)
    toy.publish(models, "toy-teacher", "1", Role.TEACHER)
    return models


def profiled(manifest: Manifest) -> Manifest:
    """As if it had been made for texts of ten tokens, all known."""
    tokens = Histogram(edges=(8, 12), counts=(0, 400, 0))
    unknown = Histogram(edges=(0.1,), counts=(400, 0))
    profile = Profile(dataset="toy", rows=400, tokens=tokens, unknown=unknown, margin=None, agreement=None)
    return manifest.model_copy(update={"profile": {Precision.EXACT: profile}})


def expected(
    bundle: OpenBundle, texts: Sequence[str], how: Aggregation = Aggregation.FIRST
) -> list[tuple[Entity, ...]]:
    """Each text for itself, without anything of the service."""
    tags = tuple(map(Tag.of, bundle.manifest.labels))
    found = []
    for row in bundle.encoder.encode(texts):
        assert isinstance(row, Spanned)
        (own,) = bundle.apart([row], bundle.run([row]))
        found.append(entities(row, bundle.scores(own), tags, how))
    return found
