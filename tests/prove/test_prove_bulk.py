"""The proof of big files: it would see a row that is lost, doubled, moved or wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.bundle.manifest import Precision
from service.offline.bulk.running import Place
from tests.prove.alone import Alone
from tests.prove.bulk import reference, write_input, wrong_rows
from tests.running import PATIENCE_S, ROOT, environment
from tests.service.offline.bulking import WITH_ID, asked, parts, scored
from tests.service.offline.tables import write

TEXTS = ("good", "bad", "so so", "a good film", "")


def test_what_is_not_as_it_should_be_is_counted(toy_student: Path, tmp_path: Path) -> None:
    source, out = write_input(tmp_path / "in.parquet", TEXTS, 12, seed=7), tmp_path / "out"
    scores = reference(Alone(toy_student, Precision.EXACT, TEXTS, 0, 1))
    scored(asked(toy_student, [source.path], WITH_ID), Place(out, toy_student))
    assert wrong_rows(out, source, scores) == 0
    first, second, third = parts(out)
    content = second.read_bytes()
    second.write_bytes(first.read_bytes())
    assert wrong_rows(out, source, scores) == 4  # doubled
    second.unlink()
    assert wrong_rows(out, source, scores) == 8  # lost, and moved
    second.write_bytes(content)
    assert wrong_rows(out, source, scores + 0.01) == 12
    (out / "part-00009.parquet").write_bytes(third.read_bytes())
    assert wrong_rows(out, source, scores) == 8  # four that are wrong, and as many too many


@pytest.mark.slow
def test_a_small_file_that_is_killed_is_proved_whole(toy_student: Path, tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.txt", "\n".join(TEXTS))
    flags = ["--texts", str(texts), "--rows", "200_000", "--part-rows", "2000", "--seconds", "0.2"]
    flags += ["--kill", "--engines", ""]
    done = subprocess.run(
        [sys.executable, "-m", "tests.prove.bulk", *flags, "--bundle", str(toy_student), "--folder", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=8 * PATIENCE_S,
        check=False,
    )
    (killed,) = json.loads(done.stdout)["runs"]  # how quick toys are says nothing, so it may end with 1
    assert (killed["wrong_rows"], killed["killed_after"]) == (0, 50)
