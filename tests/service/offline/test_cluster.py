"""A Ray cluster of several nodes: what it writes is what one machine writes, though a node is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from service.offline.bulk.running import Place
from tests.running import ROOT, environment, until
from tests.service.offline.bulking import WITH_ID, asked, parts, rows, scored, table
from tests.service.offline.clustering import Nodes, cluster

if TYPE_CHECKING:  # the workshop brings torch, which big files do without
    from tests.toys.workshop import Shop

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)"),
]

PATIENCE_S = 120  # only ever waited for when a test fails; Ray takes its time
COUNT, PART_ROWS = 60_000, 1000


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head without cores, and two nodes of one core each."""
    with cluster(2) as found:
        yield found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some seconds of work for toys."""
    columns = {"id": range(COUNT), "text": [f"{'so ' * (number % 9)}good" for number in range(COUNT)]}
    return table(tmp_path_factory.mktemp("source") / "in.parquet", columns, 7000)


def begun(toy_models: Path, nodes: Nodes, *arguments: object) -> subprocess.Popen[str]:
    flags = ["--models", str(toy_models), "--engine", "ray", "--ray-address", nodes.address, *map(str, arguments)]
    return subprocess.Popen(
        [sys.executable, "-m", "service", "classify", *flags],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_a_bad_row_on_some_node_is_one_line(toy_models: Path, nodes: Nodes, tmp_path: Path) -> None:
    bad = table(tmp_path / "in.parquet", {"text": ["good", None]})
    with begun(toy_models, nodes, bad, "--out", f"{tmp_path}/out/") as process:
        said, problem = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (2, "")
    assert problem == f"understudy: {bad}: row 2: text is null\n"


def test_a_cluster_that_is_not_there_is_one_line(toy_models: Path, source: Path, tmp_path: Path) -> None:
    with begun(toy_models, Nodes("127.0.0.1:9", ()), source, "--out", f"{tmp_path}/out/") as process:
        said, problem = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said, problem.count("\n")) == (2, "", 1)
    assert problem.startswith("understudy: 127.0.0.1:9: no Ray cluster answers there")


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed (the extra `export`)")
def test_a_teacher_is_asked_on_the_nodes(shop: Shop, taught: Path, nodes: Nodes, tmp_path: Path) -> None:
    from tests.toys.workshop import command, process, write_recipe

    few = {"augment": {"copies": 1}, "texts": [{"source": str(shop.unlabelled), "limit": 100}]}
    loop = {"epochs": 1, "batch_size": 32, "learning_rate": 5e-3, "bf16": False}
    recipe = write_recipe(shop.distill_recipe(taught, transfer=few, training=loop), tmp_path / "toy.toml")
    flags = ["--engine", "ray", "--ray-address", nodes.address]
    there = process("distill", recipe, "--work", "there", "--models", "there", *flags, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    here = command("distill", recipe, "--work", "here", "--models", "here", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    ours, theirs = (sorted((tmp_path / place / "logits").iterdir()) for place in ("here", "there"))
    assert [file.name for file in ours] == [file.name for file in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.load(mine), np.load(other), atol=1e-5)
    assert (tmp_path / "there" / "toy-student" / "1" / "manifest.json").exists()


def test_a_killed_driver_and_a_killed_node_cost_no_row_and_double_none(
    toy_models: Path, toy_student: Path, nodes: Nodes, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scored"
    flags = (source, "--keep", "id", "--part-rows", PART_ROWS, "--out", f"{out}/")
    with begun(toy_models, nodes, *flags) as process:
        until(lambda: len(parts(out)) >= 2)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert len(parts(out)) < COUNT // PART_ROWS / 2
    with begun(toy_models, nodes, *flags) as process:
        before = len(parts(out))
        until(lambda: len(parts(out)) >= before + 4 and scores_on(nodes.raylets[0]))
        assert len(parts(out)) < COUNT // PART_ROWS
        os.kill(nodes.raylets[0], signal.SIGKILL)
        said, problem = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (0, f"{COUNT:,} rows: {COUNT:,} scored; 60 parts in {out}\n"), problem
    scored(asked(toy_student, [source], WITH_ID, part_rows=PART_ROWS), Place(tmp_path / "here", toy_student))
    found = rows(out)
    assert [row["id"] for row in found] == list(range(COUNT))
    assert found == rows(tmp_path / "here")


def scores_on(raylet: int) -> bool:
    """Has this node an actor?"""
    return any("MapWorker" in " ".join(child.cmdline()) for child in psutil.Process(raylet).children())
