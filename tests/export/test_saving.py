"""How much computing a better beginning saves, told from the runs' own curves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import ModelError
from export.recipe import ExtractRecipe, as_toml, read_recipe
from export.saving import COST, Point, Run, check_alike, read_run, saving, table
from tests.running import ROOT
from tests.toys.workshop import command

RANDOM = Run("random", (Point(2, 0.9), Point(4, 0.5), Point(6, 0.4), Point(8, 0.45)))
EXTRACTED = Run("extracted", (Point(3, 0.6), Point(5, 0.4), Point(7, 0.2)))
WORSE = Run("worse", (Point(2, 0.9), Point(8, 0.41)))

LOSSES = st.lists(st.floats(0.01, 1), min_size=1, max_size=8)


def written(folder: Path, run: Run, *changed: str) -> Path:
    place = folder / run.name
    place.mkdir()
    recipe = read_recipe(ExtractRecipe, ROOT / "export/recipes/chen2021-minilm.toml", changed)
    (place / "recipe.toml").write_text(as_toml(recipe))
    (place / COST).write_text(json.dumps({"total": 0, "curve": [point._asdict() for point in run.curve]}))
    return place


def test_the_saving_is_what_was_not_spent_when_it_was_first_as_good() -> None:
    assert saving(EXTRACTED, RANDOM) == pytest.approx(1 - 5 / 8)  # the best of the other one is 0.4, of 8 in all
    assert saving(WORSE, RANDOM) is None
    assert saving(RANDOM, RANDOM) == pytest.approx(1 - 6 / 8)  # it was as good as at its end before its end


@given(LOSSES, LOSSES)
def test_one_that_saves_is_as_good_at_what_it_spent(ours: list[float], theirs: list[float]) -> None:
    one, other = (Run("a", tuple(Point(i + 1, loss) for i, loss in enumerate(losses))) for losses in (ours, theirs))
    saved = saving(one, other)
    assert (saved is None) is (min(ours) > min(theirs))
    if saved is not None:
        best = one.at((1 - saved) * other.compute + 1e-9)
        assert best is not None
        assert best <= other.best


def test_the_table_has_both_ways_of_looking(tmp_path: Path) -> None:
    lines = table([EXTRACTED, WORSE], RANDOM)
    assert lines[2].startswith("| random | 8 | 0.4000 | 0.4000 |")
    assert lines[3] == "| extracted | 7 | 0.2000 | 0.2000 | 38% |"
    assert lines[4].endswith("never as good |")
    late = Run("late", (Point(9, 0.1),))
    assert table([late], RANDOM)[3] == "| late | 9 | 0.1000 |  | -12% |"


def test_the_command_reads_what_pretrain_wrote(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `report` draws")
    first, second = written(tmp_path, RANDOM, "extraction.by=nothing"), written(tmp_path, EXTRACTED)
    plot = tmp_path / "saving.svg"
    done = command("saving", first, second, "--plot", plot, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| extracted | 7 | 0.2000 | 0.2000 | 38% |" in done.stdout
    assert plot.read_text().startswith("<?xml")


def test_what_differs_in_more_than_its_beginning_is_not_compared(tmp_path: Path) -> None:
    first = written(tmp_path, RANDOM, "extraction.by=nothing", "name=first")
    check_alike(first, [written(tmp_path, EXTRACTED, "extraction.by=chance", "name=second")])
    other = written(tmp_path, WORSE, "comparing.by=tinybert")
    with pytest.raises(ModelError, match=f"{other}: has another comparing than {first}"):
        check_alike(first, [other])
    with pytest.raises(ModelError, match=f"{other}: began by importance; name one first that began with nothing"):
        check_alike(other, [first])


def test_a_folder_without_costs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no encoder of `pretrain` with its costs"):
        read_run(tmp_path)
    empty = written(tmp_path, Run("empty", ()))
    with pytest.raises(ModelError, match="was never evaluated"):
        read_run(empty)
