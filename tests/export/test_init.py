"""A first pair of recipes: columns and tasks are guessed as people would, and what is written can be run."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.errors import DataError, ModelError, OptionError, RecipeError
from export.recipe import DistillRecipe, TeachRecipe, read_recipe
from export.starter import Wishes, start
from export.survey import MOST_LABELS, Chosen, Survey, survey
from export.teachers.labels import as_known
from service.bundle.manifest import Task
from tests.toys.workshop import Shop, command

FILES = {
    "one label": (
        "a.csv",
        "id,Review,Stars\n" + "1,a fine film§,good\n2,so so and dull§,bad\n" * 8,
        Chosen(label="Stars"),
    ),
    "grades": ("g.csv", "text,label\n" + "a b§,-1\nc§,0\nd§,1\n" * 5, Chosen()),
    "floats": ("h.jsonl", '{"text": "a§", "label": 0.0}\n{"text": "b§", "label": 1.0}\n' * 8, Chosen()),
    "several": ("b.tsv", "text\tlabels\n" + "a b§\tx, y\nc d§\ty\ne§\t\nf§\tx\ng§\tx,z\nh§\ty,z\n" * 4, Chosen()),
    "lists": ("c.jsonl", '{"text": "a b§", "labels": ["x", "y"]}\n{"text": "c§", "labels": ["y"]}\n' * 5, Chosen()),
    "numbers": ("d.tsv", "sentence1\tsentence2\tscore\n" + "a b§\tc\t4.5\nd§\te\t0.25\n" * 5, Chosen()),
    "pairs": ("e.tsv", "premise\thypothesis\tlabel\n" + "a§\tb\t0\nc§\td\t1\ne§\tf\t2\n" * 5, Chosen()),
    "tags": ("f.conll", "Alice§\tB-PER\nsleeps\tO\n\nin§\tO\nNew\tB-LOC\nYork\tI-LOC\n\n" * 6, Chosen()),
}
FOUND = {
    "one label": (Task.SINGLE_LABEL, "Review", None, "Stars", ("bad", "good")),
    "grades": (Task.SINGLE_LABEL, "text", None, "label", ("-1", "0", "1")),
    "floats": (Task.SINGLE_LABEL, "text", None, "label", ("0.0", "1.0")),
    "several": (Task.MULTI_LABEL, "text", None, "labels", ("x", "y", "z")),
    "lists": (Task.MULTI_LABEL, "text", None, "labels", ("x", "y")),
    "numbers": (Task.REGRESSION, "sentence1", "sentence2", "score", ("score",)),
    "pairs": (Task.SINGLE_LABEL, "premise", "hypothesis", "label", ("0", "1", "2")),
    "tags": (Task.TAGGING, "text", None, "label", ("O", "B-LOC", "I-LOC", "B-PER")),
}


def written(folder: Path, kind: str) -> str:
    name, content, _ = FILES[kind]
    each = itertools.count(1)
    (folder / name).write_text(re.sub("§", lambda _: str(next(each)), content))  # no text twice
    return str(folder / name)


@pytest.mark.parametrize("kind", FILES)
def test_columns_task_and_labels_are_guessed_and_the_recipes_read_that_data(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind)
    seen = survey(source, FILES[kind][2])
    assert (seen.task, seen.text, seen.pair, seen.label, seen.labels) == FOUND[kind]
    started = start(seen, Wishes("mine", unlabelled=(source,)), tmp_path / "recipes")
    teacher, student = (
        read_recipe(TeachRecipe, started.files[0]),
        read_recipe(DistillRecipe, started.files[1]),
    )
    assert teacher.data == student.data
    data = student.data.read()
    assert len(data.train) + len(data.dev) == seen.rows
    assert data == teacher.data.read()  # the very same rows are held out


def test_the_label_column_must_be_said_where_it_has_no_usual_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"which column is it\? There is id, Review, Stars; say so with --label"):
        survey(written(tmp_path, "one label"), Chosen())
    with pytest.raises(OptionError, match=r"--text Body: .*a\.csv has no such column; there is id, Review, Stars"):
        survey(written(tmp_path, "one label"), Chosen(text="Body", label="Stars"))


def test_a_column_of_texts_is_no_column_of_labels(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\n" + "".join(f"a\tanswer {i}\n" for i in range(MOST_LABELS + 1)))
    with pytest.raises(OptionError, match="column 'label' has more than 1000 different values"):
        survey(str(file), Chosen())


@pytest.mark.parametrize("numbers", [[i - 12 for i in range(25)], [0.5 * i for i in range(8)]])
def test_many_or_broken_numbers_are_measured(tmp_path: Path, numbers: list[float]) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\n" + "".join(f"a\t{number}\n" for number in numbers))
    assert survey(str(file), Chosen()).task is Task.REGRESSION


def test_labels_are_counted_however_many_ways_they_go_together(tmp_path: Path) -> None:
    names = [f"l{i:02}" for i in range(30)]
    sets = list(itertools.combinations(names, 3))[: 3 * MOST_LABELS]
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabels\n" + "".join(f"a\t{', '.join(each)}\n" for each in sets) + "b\tlast\n")
    seen = survey(str(file), Chosen())
    assert (seen.task, seen.labels) == (Task.MULTI_LABEL, (*names, "last"))
    assert seen.counts == tuple(sum(name in each for each in [*sets, ("last",)]) for name in seen.labels)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (
            "text\tlabel\na\tgood\nb\t\nc\tbad\nd\t \n",
            "2 of 4 rows have nothing in column 'label', the first in line 3",
        ),
        ("text\tlabel\na\t0.5\nb\t\nc\t1.25\n", "1 of 3 rows have nothing in column 'label', the first in line 3"),
        ('{"text": "a"}\n{"text": "b", "label": "x"}\n{"text": "c", "label": null}\n', "2 of 3 rows .* in line 1;"),
        ("text\tlabel\na\t\nb\t\n", "2 of 2 rows have nothing"),
    ],
)
def test_rows_without_a_label_are_refused_before_anything_is_written(tmp_path: Path, content: str, where: str) -> None:
    file = tmp_path / ("a.tsv" if content.startswith("text") else "a.jsonl")
    file.write_text(content)
    with pytest.raises(DataError, match=where):
        survey(str(file), Chosen(label="label"))
    done = command("init", file, "--label", "label", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == [file]


def test_one_value_is_nothing_to_learn_and_no_row_is_nothing_to_look_at(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\na\tgood\nb\tgood\n")
    with pytest.raises(DataError, match="has one value only, 'good'"):
        survey(str(file), Chosen())
    file.write_text("text\tlabel\n")
    with pytest.raises(DataError, match="has no rows"):
        survey(str(file), Chosen())


def test_rare_and_lopsided_labels_are_said_and_selected_for(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("text\tlabel\n" + "a b c\tusual\n" * 90 + "d e\trare\n" * 3)
    started = start(survey(str(file), Chosen()), Wishes("mine"), tmp_path)
    assert read_recipe(DistillRecipe, started.files[1]).data.metric == "macro-F1"
    assert started.warnings[0].startswith("1 labels have fewer than 10 rows: rare")


def test_nothing_is_written_over_and_nothing_is_left_half_written(tmp_path: Path) -> None:
    seen = survey(written(tmp_path, "pairs"), Chosen())
    (tmp_path / "mine.toml").write_text("name = 'of yesterday'")
    with pytest.raises(OptionError, match=r"mine\.toml: already there"):
        start(seen, Wishes("mine"), tmp_path)
    assert (tmp_path / "mine.toml").read_text() == "name = 'of yesterday'"
    assert not (tmp_path / "mine-teacher.toml").exists()


def test_of_two_recipes_none_is_written_where_one_is_refused(tmp_path: Path) -> None:
    seen = survey(written(tmp_path, "pairs"), Chosen())
    with pytest.raises(RecipeError, match=r"My Films\.toml: name: String should match pattern") as refusal:
        start(seen, Wishes("My Films"), tmp_path / "recipes")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "recipes").exists()


def test_unlabelled_texts_are_taken_whole_and_how_to_shorten_them_is_said(tmp_path: Path) -> None:
    started = start(
        survey(written(tmp_path, "grades"), Chosen()), Wishes("mine", unlabelled=("reviews.txt",)), tmp_path
    )
    assert "# max_words = 64 #" in started.files[1].read_text()
    (texts,) = read_recipe(DistillRecipe, started.files[1]).transfer.texts
    assert texts.max_words is None


def test_a_teacher_that_knows_the_labels_needs_no_recipe(tmp_path: Path) -> None:
    seen = survey(written(tmp_path, "pairs"), Chosen())
    started = start(seen, Wishes("mine", "models/my-bert/1", fine_tuned=True), tmp_path)
    assert [file.name for file in started.files] == ["mine.toml"]
    assert read_recipe(DistillRecipe, started.files[0]).teacher.model == "models/my-bert/1"
    assert not any("teach" in line.split() for line in started.commands)


label_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(label_names.filter(lambda name: name.strip() == name and "," not in name), min_size=2, unique=True)
)
def test_labels_of_any_spelling_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("init")
    rows = [json.dumps({"text": "a text", "label": name}) for name in names for _ in range(2)]
    (folder / "a.jsonl").write_text("\n".join(rows))
    seen = survey(str(folder / "a.jsonl"), Chosen(task=Task.SINGLE_LABEL))
    recipe = read_recipe(DistillRecipe, start(seen, Wishes("mine"), folder).files[1])
    assert set(recipe.data.labels) == set(names)
    assert recipe.data.labels == seen.labels


def labels_in(folder: Path, content: str, dev: str | None = None, **chosen: Any) -> Survey:
    file = folder / "rows.tsv"
    file.write_text(f"text\tlabel\n{content}")
    if dev is not None:
        (folder / "dev.tsv").write_text(f"text\tlabel\n{dev}")
    return survey(str(file), Chosen(**chosen), None if dev is None else str(folder / "dev.tsv"))


def test_lists_of_what_also_stands_alone_are_several_labels(tmp_path: Path) -> None:
    found = labels_in(tmp_path, "a\twheat,grain\nb\tgrain\nc\tcorn,barley\nd\toats,rye\n")
    assert (found.task, len(found.labels)) == (Task.MULTI_LABEL, 6)
    found = labels_in(tmp_path, "a\tyes, of course\nb\tno, never\nc\tperhaps\n")
    assert (found.task, len(found.labels)) == (Task.SINGLE_LABEL, 3)


def test_labels_that_only_the_selecting_rows_have_are_known(tmp_path: Path) -> None:
    found = labels_in(tmp_path, "a\tx\nb\tz\n", dev="c\ty\n")
    assert (found.labels, found.counts) == (("x", "y", "z"), (1, 0, 1))
    with pytest.raises(OptionError, match=r"--dev: .* has no column 'label'; there is text"):
        (tmp_path / "dev.tsv").write_text("text\na\n")
        survey(str(tmp_path / "rows.tsv"), Chosen(), str(tmp_path / "dev.tsv"))


@pytest.mark.parametrize(
    ("task", "problem"),
    [(Task.REGRESSION, "has 'x', which is no number"), (Task.TAGGING, "has 'x'; tagging wants a tag for each word")],
)
def test_a_task_that_cannot_be_is_refused(tmp_path: Path, task: Task, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        labels_in(tmp_path, "a\tx\nb\tz\n", task=task)


def test_other_ways_to_write_a_table_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\na;x\nb;y\n")
    with pytest.raises(OptionError, match=r"has one column, text;label; a .csv has commas between columns"):
        survey(str(tmp_path / "a.csv"), Chosen())
    seen = labels_in(tmp_path, '"he said ""no"""\tx\n"a quoted title"\ty\nshe said "no"\ty\n')
    assert seen.quoted == 1
    assert any("1 texts stand between quotes" in note for note in start(seen, Wishes("mine"), tmp_path).warnings)


def test_a_fine_tuned_teacher_says_which_labels_there_are(shop: Shop, taught: Path, tmp_path: Path) -> None:
    """It knows negative and positive, in this order."""
    seen = labels_in(tmp_path, "a\tpositive\nb\tnegative\nc\tpositive\n")
    assert as_known(seen, str(taught), {}) == replace(seen, labels=("negative", "positive"), counts=(1, 2))
    counted = labels_in(tmp_path, "a\t1\nb\t0\n")
    assert as_known(counted, str(taught), {}).labels == ("negative", "positive")
    other = labels_in(tmp_path, "a\tgood\nb\tbad\n")
    with pytest.raises(ModelError, match=r"knows negative, positive, and not bad, good of .*: --rename negative=bad"):
        as_known(other, str(taught), {})
    renamed = {"negative": "bad", "positive": "good"}
    known = as_known(other, str(taught), renamed)
    assert known.labels == ("bad", "good")
    (file,) = start(known, Wishes("mine", str(taught), fine_tuned=True, rename=renamed), tmp_path).files
    assert read_recipe(DistillRecipe, file).teacher.rename == renamed
    with pytest.raises(ModelError, match="is no fine-tuned classifier; --teacher names an encoder"):
        as_known(seen, str(shop.encoder), {})
    with pytest.raises(ModelError, match="knows no label 'neutral'"):
        as_known(other, str(taught), {"neutral": "so so"})
    with pytest.raises(ModelError, match=r"does single-label; .* has labels of regression"):
        as_known(labels_in(tmp_path, "a\t0.5\nb\t1.25\n"), str(taught), {})


def test_the_command_says_what_it_found_and_what_comes_next(shop: Shop, tmp_path: Path) -> None:
    done = command("init", shop.train, "--name", "films", "--teacher", shop.encoder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2, of" in done.stdout
    assert "next: python -m export teach films-teacher.toml --out runs/films-teacher" in done.stderr
    assert "next: python -m export adopt runs/films-teacher --name films-teacher --dev TEST_FILE" in done.stderr
    again = command("init", shop.train, "--name", "films", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already there" in again.stderr
