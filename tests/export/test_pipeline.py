"""The whole way on toy data, and the commands as a user types them: interrupted, refused, done."""

import contextlib
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from export.__main__ import app
from export.errors import ModelError, OptionError, RecipeError
from export.learning.fine_tuning import fine_tune
from export.measuring.evaluation import evaluate
from export.pipeline import Judged, Places, adopt, distill, load_teacher
from export.publishing.publish import Called
from export.recipe import DistillRecipe, as_toml, read_recipe
from export.tasks.metrics import accuracy
from export.teachers.hugging_face import Teacher
from export.texts.datasets import Columns
from service.bundle.errors import BundleExists
from service.bundle.manifest import Manifest, Precision, Role
from service.bundle.runtime import open_bundle
from service.bundle.store import read_manifest
from tests.running import until
from tests.toys.workshop import LABELS, Distilled, Shop, command, process, running, sentences

PATIENCE = 120  # seconds that a slow machine may take
BRIEF = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-2, "bf16": False}  # where nothing needs to be learnt


def measured(manifest: Manifest, what: str) -> dict[str, float]:
    return {row.metric: row.value for row in manifest.results if row.what == what}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Ctrl-C, and once more if nothing comes of it: in a callback of foreign code the exception may be lost.

    Not soon, or the second one would come upon a busy machine that still answers the first.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE / 4)
            return


def test_a_student_learns_its_teachers_task_and_serves_it(distilled: Distilled, adopted: Path) -> None:
    student, teacher = open_bundle(distilled.bundle), open_bundle(adopted)
    assert (student.manifest.role, teacher.manifest.role) == (Role.STUDENT, Role.TEACHER)
    for bundle in (student, teacher):
        assert bundle.manifest.labels == LABELS
        rows = sentences()
        found = bundle.classify([text for text, _ in rows]).argmax(axis=1)
        assert accuracy(found, np.array([label for _, label in rows])) > 0.9
    assert measured(student.manifest, "student, exact")["accuracy"] > 0.9


def test_the_results_in_the_manifest_are_what_evaluate_finds(shop: Shop, distilled: Distilled, adopted: Path) -> None:
    manifest = read_manifest(distilled.bundle)
    for precision in Precision:
        found = evaluate(distilled.bundle, precision, str(shop.dev), Columns(), adopted)
        kept = measured(manifest, f"student, {precision}")
        assert found.metrics == {name: kept[name] for name in found.metrics}
        assert found.agreement == kept["agreement with the teacher"]


def test_the_exact_graphs_are_near_torch_and_do_not_wander(distilled: Distilled, adopted: Path) -> None:
    for folder in (distilled.bundle, adopted):
        exact = read_manifest(folder).graphs[Precision.EXACT]
        assert exact.wander <= 1e-5
        assert exact.flips == 0
        assert exact.parity < 0.05
    assert read_manifest(distilled.bundle).graphs[Precision.FAST].parity < 0.5


def test_the_recipe_in_the_manifest_makes_the_same_student(distilled: Distilled, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text(read_manifest(distilled.bundle).lineage.recipe)
    recipe = read_recipe(DistillRecipe, tmp_path / "again.toml")
    assert recipe == distilled.recipe
    again = distill(recipe, Places(tmp_path / "work", tmp_path / "models"), "a test")
    assert read_manifest(again).files == read_manifest(distilled.bundle).files


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"alpha": 1.0}, "transfer": {}},
        {"objective": {"alpha": 0.5, "soft": "kl", "temperature": 2.0, "argmax": True}},
        {"student": {"embedding": 40, "hidden": 4, "dense": 4, "embeddings": "random", "prune": False}},
    ],
    ids=["labels alone", "mixed with KL", "random and whole vocabulary"],
)
def test_every_switch_of_a_recipe_leads_to_a_bundle(
    shop: Shop, taught: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = shop.distill_recipe(taught, training=BRIEF | {"bf16": True}, **changes)
    assert open_bundle(distill(recipe, Places(tmp_path, tmp_path), "a test")).manifest.name == "toy-student"


def test_a_dev_split_of_one_label_is_enough(shop: Shop, taught: Path, tmp_path: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("text\tlabel\nthe film is good\tpositive\n\tpositive\n")
    recipe = shop.distill_recipe(taught, data=shop.data | {"dev": str(dev)}, training=BRIEF)
    manifest = read_manifest(distill(recipe, Places(tmp_path, tmp_path), "a test"))
    assert {row.rows for row in manifest.results} == {2}


def test_embeddings_that_do_not_fit_are_refused(shop: Shop, taught: Path, tmp_path: Path) -> None:
    student = {"embedding": 33, "hidden": 4, "dense": 4}
    with pytest.raises(RecipeError, match="embeddings have 32 columns"):
        distill(shop.distill_recipe(taught, student=student), Places(tmp_path, tmp_path), "a test")


def test_a_killed_run_goes_on_and_gives_the_same_student(distilled: Distilled, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(as_toml(distilled.recipe))
    places = Places(tmp_path / "work", tmp_path / "models")
    with running("distill", "recipe.toml", "--work", places.work, "--models", places.models, cwd=tmp_path) as process:
        until(lambda: list(places.work.glob("students/*/*/standing.json")), process, within_s=PATIENCE)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not places.models.exists()
    again = distill(distilled.recipe, places, "a test")
    assert read_manifest(again).files == read_manifest(distilled.bundle).files
    assert len(list(places.work.glob("students/*"))) == 1  # it went on, and did not begin anew


def test_an_interrupted_teacher_goes_on(shop: Shop, tmp_path: Path) -> None:
    recipe = shop.teach_recipe()
    # Long enough not to be over before the signal comes, on a machine that does something else as well.
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 12})})
    (tmp_path / "recipe.toml").write_text(as_toml(recipe))
    out = tmp_path / "teacher"
    with running("teach", "recipe.toml", "--out", out, cwd=tmp_path) as process:
        until(lambda: list(tmp_path.glob("teacher.checkpoints/*/average.pt")), process, within_s=PATIENCE)
        interrupt(process)
        assert process.stderr
        said = process.stderr.read()
    assert process.returncode == 130
    assert "export: interrupted; run the same command again to go on" in said.splitlines()
    assert "Traceback" not in said
    assert not out.exists()
    folders = (fine_tune(recipe, out), fine_tune(recipe, tmp_path / "whole"))
    resumed, whole = (Teacher.load(str(folder)).model.state_dict() for folder in folders)
    for name, weights in whole.items():  # two processes do not add up to the last bit; a lost step moves them by 1e-2
        torch.testing.assert_close(resumed[name], weights, atol=1e-4, rtol=0)


def test_another_teacher_at_the_same_place_is_another_run(shop: Shop, taught: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(taught, tmp_path / "teacher"))
    recipe = shop.distill_recipe(teacher, training=BRIEF)
    first = distill(recipe, Places(tmp_path / "work", tmp_path / "one"), "a test")
    shutil.rmtree(teacher)
    fine_tune(shop.teach_recipe(seed=7, training=BRIEF), teacher)
    second = distill(recipe, Places(tmp_path / "work", tmp_path / "two"), "a test")
    assert read_manifest(first).files["model.onnx"] != read_manifest(second).files["model.onnx"]


def test_other_word_vectors_at_the_same_place_are_another_run(shop: Shop, taught: Path, tmp_path: Path) -> None:
    file, places = tmp_path / "vectors.txt", [Places(tmp_path / "work", tmp_path / part) for part in ("a", "b", "c")]
    student = {"embedding": 4, "hidden": 4, "dense": 4, "embeddings": str(file)}
    recipe = shop.distill_recipe(taught, student=student, training=BRIEF, transfer={})
    file.write_text("the 1 2 3 4\nis 4 3 2 1\nwas 1 1 2 2\n")
    first, same = (read_manifest(distill(recipe, place, "a test")).files["model.onnx"] for place in places[:2])
    assert first == same
    assert len(list(places[0].work.glob("students/*"))) == 1
    file.write_text("the 4 1 1 9\nis 1 3 7 1\nwas 6 1 2 2\n")
    assert read_manifest(distill(recipe, places[2], "a test")).files["model.onnx"] != first


def test_a_version_that_is_there_is_refused_before_anything_is_done(
    shop: Shop, distilled: Distilled, adopted: Path, tmp_path: Path
) -> None:
    before = contents(distilled.places.models)
    elsewhere = Places(tmp_path / "work", distilled.places.models)
    with pytest.raises(BundleExists, match="choose the next version"):
        distill(distilled.recipe, elsewhere, "a test")
    with pytest.raises(BundleExists, match="choose the next version"):
        adopt("nowhere", Called(adopted.parent.name), Judged(str(shop.dev), Columns()), elsewhere.models, "a test")
    assert not elsewhere.work.exists()
    assert contents(distilled.places.models) == before


@pytest.mark.parametrize("labels", [["positive", "negative"], ["negative", "positive", "mixed"]])
def test_a_teacher_with_other_labels_is_refused(shop: Shop, taught: Path, tmp_path: Path, labels: list[str]) -> None:
    recipe = shop.distill_recipe(taught, data=shop.data | {"labels": labels})
    with pytest.raises(ModelError, match=r"data\.labels"):
        distill(recipe, Places(tmp_path, tmp_path), "a test")
    assert not list(tmp_path.iterdir())


def test_a_teacher_may_call_its_labels_otherwise(shop: Shop, taught: Path) -> None:
    ours = {"data": shop.data | {"labels": ["bad", "good"]}}
    model = {"model": str(taught), "max_tokens": 64}
    renamed = model | {"rename": {"negative": "bad", "positive": "good"}}
    load_teacher(DistillRecipe.model_validate(shop.distill_recipe(taught, **ours).model_dump() | {"teacher": renamed}))
    with pytest.raises(ModelError, match=r'bad, good, which it does not know; .* teacher\.rename."negative" = "bad"'):
        load_teacher(shop.distill_recipe(taught, **ours))
    with pytest.raises(ModelError, match="in another order, negative, positive; write this order"):
        load_teacher(shop.distill_recipe(taught, data=shop.data | {"labels": ["positive", "negative"]}))
    twice = model | {"rename": {"negative": "positive"}}
    with pytest.raises(ModelError, match=r"two labels of teacher .* would have one name"):
        load_teacher(DistillRecipe.model_validate(shop.distill_recipe(taught).model_dump() | {"teacher": twice}))


def test_a_teacher_is_not_written_over(shop: Shop, taught: Path) -> None:
    with pytest.raises(OptionError, match=f"--out {taught}: a teacher lies there already"):
        fine_tune(shop.teach_recipe(), taught)


def test_what_is_adopted_is_measured_where_its_rows_have_labels(shop: Shop, taught: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tsv"
    other.write_text(shop.dev.read_text().replace("text\tlabel", "text\tmood", 1))
    asked = ("adopt", taught, "--dev", other, "--models", tmp_path / "models")
    refused = command(*asked, "--name", "a", "--label", "moood", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("no column 'moood'; there is text, mood")) == (2, 1)
    done = command(*asked, "--name", "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no column 'label', so the graph alone is measured" in " ".join(done.stderr.split())
    other.write_text(re.sub(r"\t0$", "\tbad", other.read_text(), flags=re.M))
    named = (*asked, "--label", "mood", "--name")
    assert "unknown label 'bad'; the recipe knows negative, positive" in command(*named, "c", cwd=tmp_path).stderr
    done = command(*named, "c", "--rename", "negative=bad", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "models/c/1")
    assert manifest.labels == ("bad", "positive")
    assert manifest.results


def test_the_help_names_every_command(tmp_path: Path) -> None:
    found = command("--help", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    names = [registered.name or getattr(registered.callback, "__name__", "") for registered in app.registered_commands]
    assert len(names) > 10
    for name in names:
        assert re.search(rf"\b{name}\b", found.stdout)


def test_evaluate_prints_its_table(shop: Shop, distilled: Distilled, adopted: Path, tmp_path: Path) -> None:
    found = command("evaluate", distilled.bundle, shop.dev, "--teacher", adopted, cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    kept = measured(read_manifest(distilled.bundle), "student, exact")
    for name, value in kept.items():
        assert re.search(rf"{name} .* {value:.4f}", found.stdout)


# What the user can mend: what is typed (with the paths in braces filled in), and what the line on standard error says.
MENDABLE = {
    "no recipe": ("distill none.toml", "none.toml: No such file"),
    "an unknown key": ("distill recipe.toml --set student.width=3", "recipe.toml: unknown key 'student.width'"),
    "an override that is none": ("distill recipe.toml --set seed", "--set seed: write table.key=value"),
    "a teacher's recipe": ("teach recipe.toml --out x", "recipe.toml: unknown key"),
    "no data": ("evaluate {bundle} none.tsv", "none.tsv: no such file"),
    "a bad row": ("evaluate {bundle} bad.tsv", "bad.tsv, line 3: unknown label 'so-so'"),
    "no train file": ("distill recipe.toml --set data.train=none.tsv", "none.tsv: no such file"),
    "no teacher": ("distill recipe.toml --set teacher.model=./none", "teacher ./none: "),
    "other labels": (
        'distill recipe.toml --set data.labels=["positive","negative"]',
        "has them in another order, negative, positive; write this order",
    ),
    "no classifier": ("adopt {encoder} --name x --dev {dev}", "is no fine-tuned classifier"),
    "a name that is none": ("adopt {encoder} --name X --dev {dev}", "name: 'X' can't name a bundle"),
}


@pytest.mark.parametrize(("line", "message"), MENDABLE.values(), ids=MENDABLE.keys())
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    shop: Shop, distilled: Distilled, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "recipe.toml").write_text(as_toml(distilled.recipe))
    (tmp_path / "bad.tsv").write_text("text\tlabel\ngood\tpositive\nfair\tso-so\n")
    words = [word.format(bundle=distilled.bundle, encoder=shop.encoder, dev=shop.dev) for word in line.split()]
    found = command(*words, cwd=tmp_path)
    assert found.returncode == 2
    (said,) = found.stderr.splitlines()
    assert said.startswith("export: ")
    assert message in said
    assert found.stdout == ""


@pytest.mark.parametrize("line", ["evaluate nowhere none.tsv", "distill recipe.toml --models {models}"])
def test_a_bad_bundle_is_one_line_and_exit_code_3(distilled: Distilled, tmp_path: Path, line: str) -> None:
    (tmp_path / "recipe.toml").write_text(as_toml(distilled.recipe))
    found = command(*line.format(models=distilled.places.models).split(), cwd=tmp_path)
    assert found.returncode == 3
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("evaluate {bundle} {dev} --teacher {teacher}", 0),
        ("evaluate {bundle} bad.tsv", 2),
        ("evaluate nowhere none.tsv", 3),
    ],
)
def test_a_process_of_its_own_ends_and_speaks_as_the_command_does_here(
    shop: Shop, distilled: Distilled, adopted: Path, tmp_path: Path, line: str, code: int
) -> None:
    (tmp_path / "bad.tsv").write_text("text\tlabel\ngood\tpositive\nfair\tso-so\n")
    places = {"bundle": distilled.bundle, "dev": shop.dev, "teacher": adopted}
    words = [word.format(**places) for word in line.split()]
    found = process(*words, cwd=tmp_path)
    assert found == command(*words, cwd=tmp_path)
    assert found.returncode == code


@pytest.mark.parametrize(
    "line", ["", "distil", "distill", "distill a.toml --colour", "adopt x --name y --dev z --version one"]
)
def test_what_is_no_command_is_exit_code_2_without_a_traceback(tmp_path: Path, line: str) -> None:
    found = command(*line.split(), cwd=tmp_path)
    assert found.returncode == 2
    assert "Usage:" in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_the_sentences_are_of_both_labels() -> None:
    assert {label for _, label in sentences()} == {0, 1}
