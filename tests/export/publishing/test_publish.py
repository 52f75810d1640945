"""A bundle says what was measured of it, proves itself, and is written whole or not at all."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from export.errors import ModelError, RecipeError
from export.publishing.card import model_card
from export.publishing.publish import (
    FILES,
    PROOF_TEXTS,
    Reads,
    Reference,
    Trained,
    encoder_of,
    free_place,
    leeway,
    publish,
    versions,
)
from export.tasks.targets import targets_of
from export.texts.datasets import Example
from service.bundle.encoder import Text
from service.bundle.errors import BundleExists, GraphMismatch
from service.bundle.manifest import EDGES, Lineage, Network, Precision, Role, Task
from service.bundle.runtime import open_bundle, open_graph
from service.bundle.store import find_bundles, read_manifest
from tests.toys import toy

EXAMPLES = tuple(
    Example(text, i % 3) for i, text in enumerate(["good", "a dull film", "not bad , but too long", ""] * 9)
)
GRAPHS = {Precision.EXACT: toy.student_graph(), Precision.FAST: toy.rounded(toy.student_graph())}


def trained(**changes: object) -> Trained:
    whole = Trained(
        name="toy",
        version=1,
        role=Role.STUDENT,
        network=Network.RECURRENT,
        task=Task.SINGLE_LABEL,
        labels=toy.LABELS,
        texts=1,
        tokenizer_json=toy.tokenizer(special=False).decode(),
        max_tokens=32,
        pad_id=0,
        graphs=GRAPHS,
        lineage=Lineage(teacher="a teacher", method="none", recipe="seed = 1\n", versions=versions()),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def reference(away: float = 0.0, of: Trained | None = None) -> Reference:
    """A network's own logits moved by `away`, as if torch had said so; a teacher who always says the first label."""
    of = of or trained()
    encoder = encoder_of(of.tokenizer_json, Reads(of.network), of.max_tokens, of.pad_id)
    graph = open_graph(of.graphs[Precision.EXACT])
    rows = encoder.encode([example.text for example in EXAMPLES])
    logits = np.concatenate([graph.run(encoder.collate([row])) for row in rows]) + np.float32(away)
    beside = np.tile(np.array([[1, 0, 0]], np.float32), (len(EXAMPLES), 1))
    return Reference(
        "own sentences",
        [example.text for example in EXAMPLES],
        targets_of(EXAMPLES, Task.SINGLE_LABEL, 3),
        logits,
        beside,
    )


def test_a_published_bundle_opens_with_each_graph(tmp_path: Path) -> None:
    folder = publish(trained(), reference(), tmp_path, "make it")
    assert folder == tmp_path / "toy" / "1"
    for precision, file in FILES.items():
        bundle = open_bundle(folder, precision)
        assert bundle.precision is precision
        assert bundle.manifest.graphs[precision].file == file
        assert bundle.manifest.proof.texts == PROOF_TEXTS


def test_a_fast_graph_that_answers_otherwise_is_left_out(tmp_path: Path) -> None:
    strange = {Precision.EXACT: toy.student_graph(), Precision.FAST: toy.student_graph(seed=4)}
    manifest = open_bundle(publish(trained(graphs=strange), reference(), tmp_path, "make it")).manifest
    assert set(manifest.graphs) == set(manifest.proof.logits) == {Precision.EXACT}
    assert FILES[Precision.FAST] not in {file.name for file in (tmp_path / "toy" / "1").iterdir()}
    assert {row.what for row in manifest.results} == {"its teacher, torch", "student, torch", "student, exact"}


def of_task(task: Task, labels: tuple[str, ...], fast_seed: int | None) -> Trained:
    """A network that gives so many numbers; its fast graph is coarse, or another network altogether."""
    exact = toy.student_graph(width=len(labels))
    fast = toy.rounded(exact) if fast_seed is None else toy.student_graph(fast_seed, width=len(labels))
    return trained(task=task, labels=labels, graphs={Precision.EXACT: exact, Precision.FAST: fast})


def reader(fast_seed: int | None) -> Trained:
    """The same of a network that answers questions."""
    exact = toy.teacher_graph(38, width=2, of_pieces=True)
    fast = toy.rounded(exact) if fast_seed is None else toy.teacher_graph(fast_seed, width=2, of_pieces=True)
    changes = {"role": Role.TEACHER, "network": Network.TRANSFORMER, "texts": 2}
    return trained(
        task=Task.ANSWERING,
        labels=EDGES,
        tokenizer_json=toy.tokenizer(special=True).decode(),
        graphs={Precision.EXACT: exact, Precision.FAST: fast},
        **changes,
    )


UNDECIDED: dict[str, tuple[Callable[[int | None], Trained], int]] = {
    "numbers": (partial(of_task, Task.REGRESSION, ("score", "mood")), 1),
    "vectors": (partial(of_task, Task.EMBEDDING, ("0", "1", "2", "3")), 1),
    "answers": (reader, 2),
}
"""What decides nothing: a network of the kind, and texts in a row."""


def unlabelled(texts: int, count: int = 36) -> Reference:
    """Rows that were not asked of torch."""
    words = [f"{example.text} , and {'very ' * (i % 5)}long" for i, example in enumerate(EXAMPLES[:count])]
    rows: list[Text] = [*words] if texts == 1 else [("is the film good", text) for text in words]
    return Reference("own sentences", rows, None, None, None)


@pytest.mark.parametrize("kind", UNDECIDED)
def test_a_fast_graph_of_what_decides_nothing_is_left_out_where_it_answers_otherwise(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, texts = UNDECIDED[kind]
    kept = publish(make(None), unlabelled(texts), tmp_path / "kept", "make it")
    assert set(read_manifest(kept).graphs) == set(Precision)
    assert "no fast graph" not in capsys.readouterr().err
    exact_only = publish(make(4), unlabelled(texts), tmp_path / "left", "make it")
    assert set(read_manifest(exact_only).graphs) == {Precision.EXACT}
    assert "no fast graph" in capsys.readouterr().err


def test_two_numbers_tell_nothing_of_a_correlation(tmp_path: Path) -> None:
    strange = of_task(Task.REGRESSION, ("score",), fast_seed=4)
    assert set(read_manifest(publish(strange, unlabelled(1, 2), tmp_path, "make it")).graphs) == set(Precision)


def test_a_graph_that_answers_otherwise_than_torch_is_never_published(tmp_path: Path) -> None:
    strange = {Precision.EXACT: toy.student_graph(seed=4)}
    told = r"toy: its exact graph beside torch on own sentences, share of decisions alike 0\.\d+, and 0\.9 is asked"
    with pytest.raises(ModelError, match=f"^{told}; export it to ONNX by other means and `adopt` that$"):
        publish(trained(graphs=strange), reference(), tmp_path, "make it")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_distances_are_measured_and_kept(tmp_path: Path) -> None:
    graphs = open_bundle(publish(trained(), reference(away=0.25), tmp_path, "make it")).manifest.graphs
    assert graphs[Precision.EXACT].parity == pytest.approx(0.25, abs=1e-5)
    assert graphs[Precision.EXACT].wander <= 1e-5
    assert graphs[Precision.EXACT].flips == 0
    assert graphs[Precision.FAST].tolerance > graphs[Precision.EXACT].tolerance


def test_an_int8_graph_has_leeway_for_what_dev_and_for_what_the_proof_showed() -> None:
    """A small dev may have moved much less than the proof's texts, which are short and long."""
    assert leeway(0.0, 0.0) == pytest.approx(0.1)
    assert leeway(0.05, 0.05) == pytest.approx(0.3)
    assert leeway(0.01, 0.15) > 0.15
    assert leeway(5.0, 0.0) == 10


def test_results_name_teacher_torch_and_every_graph(tmp_path: Path) -> None:
    manifest = open_bundle(publish(trained(), reference(), tmp_path, "make it")).manifest
    found = {(row.what, row.metric): row.value for row in manifest.results}
    whats = {"its teacher, torch", "student, torch", "student, exact", "student, fast"}
    assert set(found) == {
        (what, metric) for what in whats for metric in ("accuracy", "macro-F1", "agreement with the teacher")
    }
    assert found["its teacher, torch", "accuracy"] == pytest.approx(1 / 3)
    assert found["its teacher, torch", "agreement with the teacher"] == 1
    assert {(row.dataset, row.split, row.rows) for row in manifest.results} == {("own sentences", "dev", len(EXAMPLES))}


def test_a_teacher_has_nobody_to_agree_with(tmp_path: Path) -> None:
    files = toy.teacher_files()
    own = trained(
        role=Role.TEACHER,
        network=Network.TRANSFORMER,
        tokenizer_json=files["tokenizer.json"].decode(),
        graphs={Precision.EXACT: files["model.onnx"]},
    )
    beside = replace(reference(of=own), teacher_logits=None)
    manifest = open_bundle(publish(own, beside, tmp_path, "make it")).manifest
    assert {row.what for row in manifest.results} == {"teacher, torch", "teacher, exact"}
    assert {row.metric for row in manifest.results} == {"accuracy", "macro-F1"}


def test_a_graph_that_reads_the_padding_is_never_published(tmp_path: Path) -> None:
    blind = {Precision.EXACT: toy.student_graph(minds_lengths=False)}
    with pytest.raises(Exception, match="batched, its logits differ from those alone"):
        publish(trained(graphs=blind), reference(), tmp_path, "make it")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_graph_with_other_labels_is_never_published(tmp_path: Path) -> None:
    with pytest.raises((GraphMismatch, ValueError)):
        publish(trained(labels=("a", "b")), reference(), tmp_path, "make it")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_version_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    folder = publish(trained(), reference(), tmp_path, "make it")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BundleExists):
        publish(trained(), reference(away=1), tmp_path, "make it again")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    publish(trained(version=2), reference(), tmp_path, "make another")
    assert [bundle.version for bundle in find_bundles(tmp_path)] == ["1", "2"]


def test_a_place_is_asked_for_beforehand(tmp_path: Path) -> None:
    assert free_place(tmp_path, "toy", 1) == tmp_path / "toy" / "1"
    publish(trained(), reference(), tmp_path, "make it")
    with pytest.raises(BundleExists, match="choose the next version"):
        free_place(tmp_path, "toy", 1)
    assert free_place(tmp_path, "toy", 2) == tmp_path / "toy" / "2"
    for name in ("", "My Student", "../x", "a/b", "-x"):
        with pytest.raises(RecipeError, match="can't name a bundle"):
            free_place(tmp_path, name, 1)


def test_the_card_tells_everything_to_people(tmp_path: Path) -> None:
    folder = publish(trained(), reference(), tmp_path, "python -m export distill my.toml")
    card = (folder / "README.md").read_text()
    for part in (
        "# toy, version 1",
        *toy.LABELS,
        "python -m export distill my.toml",
        "seed = 1",
        "36",
        "32 word pieces",
    ):
        assert part in card
    for file in FILES.values():
        assert f"`{file}`" in card
    manifest = open_bundle(folder).manifest
    files = {file: (folder / file).read_bytes() for file in manifest.files}
    assert card == model_card(manifest, files, "python -m export distill my.toml")
