"""A recipe says everything and nothing unknown; what is wrong is one line that names the key."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from export.errors import RecipeError
from export.recipe import PRETRAINING, ApproximateRecipe, DistillRecipe, ExtractRecipe, TeachRecipe, read_recipe
from export.sections import Augmentation
from tests.toys.workshop import bilstm

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted((ROOT / "export" / "recipes").glob("*.toml"))

RECIPE = """
name = "small"
[teacher]
model = "runs/teacher"
[data]
train = "train.tsv"
dev = "dev.tsv"
labels = ["bad", "good"]
[student]
embedding = 8
hidden = 8
dense = 8
[training]
epochs = 1
batch_size = 4
learning_rate = 1e-3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as refused:
        read_recipe(DistillRecipe, path, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def kind(path: Path) -> type[TeachRecipe | DistillRecipe | ExtractRecipe | ApproximateRecipe]:
    method = str(tomllib.loads(path.read_text()).get("method"))
    if method in PRETRAINING:
        return PRETRAINING[method]
    return TeachRecipe if path.stem.endswith("-teacher") else DistillRecipe


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_recipe_parses(committed: Path) -> None:
    assert read_recipe(kind(committed), committed).name


def test_there_are_recipes_of_each_kind() -> None:
    assert {kind(path) for path in COMMITTED} == {TeachRecipe, DistillRecipe, ExtractRecipe, ApproximateRecipe}


def test_defaults_are_filled_in_and_nothing_can_be_changed(path: Path) -> None:
    recipe = read_recipe(DistillRecipe, path)
    assert (recipe.version, recipe.objective.alpha, recipe.transfer.augment.copies) == (1, 0.0, 0)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_overrides_are_toml_values_or_bare_text(path: Path) -> None:
    overrides = [
        "student.hidden=16",
        "name = other",
        "training.bf16=false",
        'data.labels=["no", "yes", "maybe"]',
        "transfer.augment.copies=3",
        'transfer.texts=[{source="a.txt", sentences=true}]',
        "transfer.texts.0.limit=5",
        "student.embeddings=vectors=old.txt",
    ]
    recipe = read_recipe(DistillRecipe, path, overrides)
    student = bilstm(recipe)
    assert (student.hidden, recipe.name, recipe.training.bf16) == (16, "other", False)
    assert recipe.data.labels == ("no", "yes", "maybe")
    assert recipe.transfer.augment.copies == 3
    assert [(text.source, text.sentences, text.limit) for text in recipe.transfer.texts] == [("a.txt", True, 5)]
    assert student.embeddings == "vectors=old.txt"


def test_an_empty_override_takes_a_key_or_a_table_out(path: Path) -> None:
    there = read_recipe(DistillRecipe, path, ["student.dropout=0.5", "transfer.augment.copies=3"])
    assert (bilstm(there).dropout, there.transfer.augment.copies) == (0.5, 3)
    overrides = ["student.dropout=0.5", "student.dropout=", "transfer.augment.copies=3", "transfer.augment="]
    gone = read_recipe(DistillRecipe, path, overrides)
    assert bilstm(gone).dropout == bilstm(read_recipe(DistillRecipe, path)).dropout
    assert gone.transfer.augment == Augmentation()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.width=3", "unknown key 'student.width'"),
        ("colour=red", "unknown key 'colour'"),
        ("student.hidden=wide", "student.hidden: Input should be a valid integer"),
        ("student.hidden=0", "student.hidden: Input should be greater than or equal to 1"),
        ("training.epochs=inf", "training.epochs: Input should be a finite number"),
        ("training.learning_rate=nan", "training.learning_rate: Input should be"),
        ("transfer.augment.p_mask=1.5", "transfer.augment.p_mask: Input should be less than or equal to 1"),
        ("transfer.augment={p_mask=0.6, p_pos=0.6}", "transfer.augment: Value error, p_mask + p_pos"),
        ("transfer.augment={ngram_from=4, ngram_to=2}", "transfer.augment: Value error, ngram_from"),
        ("transfer.texts=[{source=1}]", "transfer.texts.0.source: Input should be a valid string"),
        ("data.labels=[]", "data.labels: Tuple should have at least 1 item"),
        ('data.labels=["a", "a"]', "data.labels: Value error, labels must differ"),
        ('data.labels=["a", ""]', "data.labels.1: String should have at least 1 character"),
        ("data.labels=good", "data.labels: Input should be a valid tuple"),
        ("name=My Student", "name: String should match pattern"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("seed=4294967296", "seed: Input should be less than 4294967296"),
        ("version=0", "version: Input should be greater than or equal to 1"),
        ("method=magic", "method: Input should be 'tang2019'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_key(path: Path, override: str, message: str) -> None:
    assert refusal(path, override).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student", "--set student: write table.key=value"),
        ("=3", "--set =3: write table.key=value"),
        ("student.=3", "--set student.=3: write table.key=value"),
        ("student.hiden=", "--set student.hiden=: there is no 'hiden' to take out"),
        ("name.first=a", "--set name.first=a: there is no table 'name'"),
        ("data.labels.0=a", "--set data.labels.0=a: labels is an array; name one of its tables by number"),
        ("data.labels.².x=1", "--set data.labels.².x=1: there is no table '²'"),
    ],
)
def test_an_override_that_is_none_is_refused(path: Path, override: str, message: str) -> None:
    assert refusal(path, override) == message


@pytest.mark.parametrize(
    ("overrides", "files"),
    [
        ([], False),
        (["student.embeddings=random"], False),
        (["student.embeddings=vectors.txt"], True),
        (["student.architecture=encoder", "student.begins=runs/encoder"], True),
        (['student={architecture="transformer", begins="runs/encoder"}'], True),
    ],
)
def test_what_a_student_begins_with_may_lie_in_files(path: Path, overrides: list[str], files: bool) -> None:
    assert read_recipe(DistillRecipe, path, overrides).student.begins_with_files is files


@pytest.mark.parametrize("soft", ["kl", "logodds"])
@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_what_is_no_distribution_is_learnt_by_mse_alone(path: Path, soft: str, task: str) -> None:
    overrides = [f"data.task={task}", 'data.labels=["score"]', f"objective.soft={soft}"]
    wanted = f"objective.soft: {soft} is of one label among several; write 'mse' for {task}"
    assert refusal(path, *overrides).endswith(wanted)
    assert read_recipe(DistillRecipe, path, [*overrides, "objective.soft=mse"]).objective.soft == "mse"


@pytest.mark.parametrize("name", ["sst2-paper", "qqp", "mnli"])
def test_a_recipe_set_up_as_in_the_paper_runs_all_its_epochs(name: str) -> None:
    training = read_recipe(DistillRecipe, ROOT / "export" / "recipes" / f"tang2019-{name}.toml").training
    assert training.epochs == 30
    assert training.patience > 2 * training.epochs * training.evaluations_per_epoch


def test_several_faults_are_counted(path: Path) -> None:
    assert refusal(path, "student.hidden=no", "student.dense=no").endswith("(and 1 more)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = \n", "not TOML: Invalid value (at line 1"),
        (b'name = "caf\xe9"\n', "not TOML: 'utf-8' codec can't decode"),
        (b'[teacher]\nmodel = "a"\nmodel = "b"\n', "not TOML: Cannot overwrite a value (at line 3"),
        (b"", "name: Field required (and 4 more)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: {message}")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "none.toml")
        == f"{tmp_path}/none.toml: No such file or directory; give the path of a recipe (TOML)"
    )
    assert refusal(tmp_path).startswith(f"{tmp_path}: Is a directory")


def test_a_teachers_recipe_is_no_students(path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key 'student'"):
        read_recipe(TeachRecipe, path)
