"""A first pair of recipes for one's own data: one makes a teacher, one a student. They are to be read and changed.

The figures in them are rules of thumb, chosen so that a small file trains long enough and a large one not for ever.
"""

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from export.errors import OptionError, RecipeError
from export.recipe import DistillRecipe, TeachRecipe
from export.survey import Survey
from service.bundle.manifest import Task

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
MANY = 20
"""More labels than this need a wider network, and are learnt by their distribution."""

FEW = 10
"""Rows of a label below which little can be learnt of it, and nothing told on dev."""


@dataclass(frozen=True)
class Wishes:
    """What the user says besides the data."""

    name: str
    teacher: str = TEACHER
    fine_tuned: bool = False  # the teacher knows the task already
    dev: str | None = None
    unlabelled: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)  # what a fine-tuned teacher calls a label -> what data do


@dataclass(frozen=True)
class Started:
    """The files that were written, and what to do with them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]
    warnings: tuple[str, ...]


def start(seen: Survey, wishes: Wishes, folder: Path) -> Started:
    """Write the recipes into a folder; none is written over. Raises OptionError, or RecipeError where what was found or
    wished for stands in no recipe; then nothing is written."""
    teacher, student = folder / f"{wishes.name}-teacher.toml", folder / f"{wishes.name}.toml"
    texts = {student: _student(seen, wishes)}
    if not wishes.fine_tuned:
        texts = {teacher: _teacher(seen, wishes)} | texts
    for file, text in texts.items():
        if file.exists():
            raise OptionError(f"{file}: already there; choose another --name or --into")
        _check(TeachRecipe if file == teacher else DistillRecipe, text, file)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    commands = [
        f"python -m export distill {student}",
        f"python -m export evaluate models/{wishes.name}/1 TEST_FILE{_columns(seen)}",
    ]
    if not wishes.fine_tuned:
        commands.insert(0, f"python -m export teach {teacher} --out {_made(wishes)}")
        commands.append(f"python -m export adopt {_made(wishes)} --name {wishes.name}-teacher --dev TEST_FILE")
    return Started(tuple(texts), tuple(commands), _warnings(seen, wishes))


def _check(kind: type[TeachRecipe | DistillRecipe], text: str, file: Path) -> None:
    """What is refused must not be handed out. Raises RecipeError."""
    try:
        kind.model_validate(tomllib.loads(text))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise RecipeError(f"{file}: {'.'.join(map(str, found['loc']))}: {found['msg']}") from error


def _columns(seen: Survey) -> str:
    """The options that name columns otherwise than they are called by default."""
    wanted = (("--text", seen.text, "text"), ("--pair", seen.pair, None), ("--label", seen.label, "label"))
    return "".join(f" {option} {shlex.quote(name)}" for option, name, usual in wanted if name and name != usual)


def _made(wishes: Wishes) -> str:
    return wishes.teacher if wishes.fine_tuned else f"runs/{wishes.name}-teacher"


def _warnings(seen: Survey, wishes: Wishes) -> tuple[str, ...]:
    rare = [name for name, count in zip(seen.labels, seen.counts, strict=False) if count < FEW]
    warnings = []
    if seen.quoted and ".tsv" in Path(seen.source).suffixes:
        warnings.append(
            f"{seen.quoted:,} texts stand between quotes and have doubled ones within: a .tsv is read as it stands, so "
            "write it without quotes, or with commas as .csv"
        )
    if rare and seen.task is not Task.TAGGING:
        listed = ", ".join(rare[:5]) + (" …" if len(rare) > 5 else "")
        warnings.append(
            f"{len(rare)} labels have fewer than {FEW} rows: {listed}; more rows help them more than all else"
        )
    if wishes.dev is None and seen.rows < 1000:
        warnings.append("a tenth of so few rows selects with little certainty; a file for --dev of its own is better")
    if not wishes.unlabelled:
        warnings.append("unlabelled texts of the same kind (--unlabelled) help a student more than anything else")
    return tuple(warnings)


def _teacher(seen: Survey, wishes: Wishes) -> str:
    epochs = _between(3, round(60_000 / seen.rows), 15)
    return f"""# A teacher for {_what(seen)}.
# Make it: python -m export teach THIS_FILE --out {_made(wishes)}
name = {_text(wishes.name)}
seed = 1

[teacher]
model = {_text(wishes.teacher)} # any encoder: a hub id or a local folder; larger ones teach better
max_tokens = {_tokens(seen)} # of a text; what is longer is cut. A text in twenty has more than {seen.long_words} words

{_data(seen, wishes)}
[training]
epochs = {epochs}
batch_size = {32 if seen.rows < 20_000 else 64}
learning_rate = 1e-4 # for encoders of MiniLM's size; 2e-5 suits BERT-base
evaluations_per_epoch = {1 if epochs > 5 else 4} # dev selects the best of them
average = {0.99 if seen.rows < 20_000 else 0.998} # the moving average of the weights is what dev judges
bf16 = true # mixed precision where the device is quick at it
"""


def _student(seen: Survey, wishes: Wishes) -> str:
    several = len(seen.labels)
    return f"""# A BiLSTM student for {_what(seen)}: Tang et al. 2019 (export/methods/tang2019.py).
# Make it: python -m export distill THIS_FILE
name = {_text(wishes.name)} # of the bundle: models/{wishes.name}/1
version = 1
method = "tang2019"
seed = 1

[teacher]
model = {_text(_made(wishes))} # {"fine-tuned for these labels" if wishes.fine_tuned else "made by the recipe beside"}
max_tokens = {_tokens(seen)}
{_renamed(wishes)}
{_data(seen, wishes)}
{_transfer(seen, wishes)}
[student]
embedding = 128 # wider ones need more memory, not more time
hidden = {256 if several > MANY else 128} # LSTM units per direction: what a request costs
dense = {max(128, 2 * several)}
dropout = 0.1
max_tokens = {_tokens(seen)}

[objective]
alpha = 0.0 # weight of the labels beside the teacher's logits; the paper's best is 0
{_soft(seen)}

[training]
epochs = {_between(5, round(400_000 / (seen.rows * (1 + _copies(seen)))), 60)}
batch_size = {64 if seen.rows < 20_000 else 256}
learning_rate = 2e-3
weight_decay = 0.0
average = {0.99 if seen.rows < 20_000 else 0.998}
patience = 8 # evaluations without a better one
"""


def _renamed(wishes: Wishes) -> str:
    pairs = ", ".join(f"{_text(theirs)} = {_text(ours)}" for theirs, ours in wishes.rename.items())
    return f"rename = {{ {pairs} }} # what it calls a label, and what the rows do\n" if pairs else ""


def _soft(seen: Survey) -> str:
    """Of many labels the squares of all logits count alike, and few of them decide anything."""
    if seen.task is Task.SINGLE_LABEL and len(seen.labels) > MANY:
        return 'soft = "kl" # of many labels it learns sooner than by mse\ntemperature = 2.0'
    return 'soft = "mse"'


def _data(seen: Survey, wishes: Wishes) -> str:
    labels = "".join(f"  {_text(name)},{_rows(seen, place)}\n" for place, name in enumerate(seen.labels))
    selects = (
        f"dev = {_text(wishes.dev)} # selects; keep the rows that test for the very end\n"
        if wishes.dev
        else "dev_share = 0.1 # of the rows select, the same ones for teacher and student\n"
    )
    pair = f"pair = {_text(seen.pair)}\n" if seen.pair else ""
    metric = 'metric = "macro-F1" # selects: the labels differ much in number, and each shall count\n'
    return (
        f"[data] # {seen.rows:,} rows\n"
        f"train = {_text(seen.source)}\n{selects}"
        f"task = {_text(seen.task)}\n"
        f"text = {_text(seen.text)} # the column\n{pair}label = {_text(seen.label)}\n"
        f"{metric if seen.lopsided and seen.task is Task.SINGLE_LABEL else ''}"
        f"labels = [ # {_counted(seen)}\n{labels}]\n"
    )


def _counted(seen: Survey) -> str:
    if seen.labels == tuple(map(str, range(len(seen.labels)))):
        return "as the rows count them; their names, in this order, may stand here instead"
    return "in the order of the logits"


def _transfer(seen: Survey, wishes: Wishes) -> str:
    """Of tagging none is augmented: a word that changes may change its tag."""
    augment = f"[transfer.augment] # section 3.3 of the paper\ncopies = {_copies(seen)} # of each row\n"
    texts = "".join(_unlabelled(seen, source) for source in wishes.unlabelled)
    return ("" if seen.task is Task.TAGGING else augment) + texts


def _unlabelled(seen: Survey, source: str) -> str:
    """A table of unlabelled texts is taken to name its columns as the labelled one does; lines of text have none."""
    lines = ".txt" in Path(source).suffixes
    column = "" if lines or seen.text == "text" else f"column = {_text(seen.text)}\n"
    pair = f"pair = {_text(seen.pair)}\n" if seen.pair else ""
    return f"""
[[transfer.texts]] # unlabelled; they should look like those to come
source = {_text(source)}
{column}{pair}# sentences = true # cut documents into sentences
# max_words = 64 # leave out longer ones; unset: none
"""


def _copies(seen: Survey) -> int:
    return 0 if seen.task is Task.TAGGING else _between(2, round(40_000 / seen.rows), 20)


def _rows(seen: Survey, place: int) -> str:
    return f" # {seen.counts[place]:,}" if seen.counts else ""


def _what(seen: Survey) -> str:
    rows = "pairs" if seen.pair else "texts"
    labels = "" if seen.task is Task.REGRESSION else f", {len(seen.labels)} labels"
    return f"{seen.rows:,} {rows} of {seen.source} ({seen.task}{labels})"


def _tokens(seen: Survey) -> int:
    """Some 1.5 word pieces a word; a power of two that has room for all but the longest texts."""
    wanted = 1.5 * seen.long_words + 8
    return next((size for size in (32, 64, 128, 256) if size >= wanted), 512)


def _between(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))


def _text(value: str) -> str:
    """As TOML writes it."""
    return tomli_w.dumps({"value": str(value)}).removeprefix("value = ").rstrip("\n")
