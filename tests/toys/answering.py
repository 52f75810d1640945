"""Toys that answer questions: a small transformer and its teacher, and what their bundles say themselves."""

from pathlib import Path

from service.bundle.manifest import EDGES, TOKENIZER_FILE, Role, Task
from service.bundle.passages import AnswerSpan, Search, answers
from service.bundle.rows import Passage
from service.bundle.runtime import OpenBundle
from service.bundle.store import write_bundle
from tests.toys import toy

SEEDS = {"asks": (Role.STUDENT, 5), "asks-teacher": (Role.TEACHER, 38)}


def publish_both(models: Path) -> Path:
    """A folder with both, and a classifier of pairs beside them."""
    for name, (role, seed) in SEEDS.items():
        graph = toy.teacher_graph(seed, width=len(EDGES), of_pieces=True)
        files = {TOKENIZER_FILE: toy.tokenizer(special=True), "model.onnx": graph}
        manifest = toy.draft(name, "1", Role.TEACHER, files, toy.PROOF_PAIRS, task=Task.ANSWERING, labels=EDGES)
        write_bundle(models / name / "1", manifest.model_copy(update={"role": role}), files, card=None)
    toy.publish(models, "twins", "1", Role.STUDENT, pairs=True)
    return models


def alone(bundle: OpenBundle, question: str, context: str, search: Search) -> list[AnswerSpan]:
    """Each part of the text run by itself."""
    parts = [row for row in bundle.encoder.encode([(question, context)]) if isinstance(row, Passage)]
    return answers(parts, [bundle.run([part])[0] for part in parts], search)
