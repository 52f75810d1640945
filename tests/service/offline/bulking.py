"""Big files small: runs in this process, which need no start of another, and what stands in their parts."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.bundle.engines import Engine
from service.bundle.manifest import Precision
from service.bundle.seal import read_manifest
from service.offline.bulk.labour import Labourer
from service.offline.bulk.plan import Job, Receipt, Request, Total
from service.offline.bulk.running import Place, begin
from service.offline.bulk.survey import find_files
from service.offline.records import Columns

TEXT = Columns()
WITH_ID = Columns(kept=("id",))


def asked(
    bundle: Path,
    files: Sequence[Path],
    columns: Columns = TEXT,
    kind: str = "parquet",
    part_rows: int = 4,
) -> Request:
    """What `classify` would ask."""
    manifest = read_manifest(bundle)
    return Request(
        files=find_files([str(file) for file in files]),
        model=f"{manifest.name}@{manifest.version}",
        seal=manifest.seal,
        precision=Precision.EXACT,
        engine=Engine.ONNXRUNTIME,
        text=columns.text,
        pair=columns.pair,
        kept=columns.kept,
        format=kind,
        top_k=None,
        part_rows=part_rows,
    )


def in_this_process(job: Job, numbers: Sequence[int]) -> Iterator[Receipt]:
    """An engine without processes."""
    with Labourer(job) as labourer:
        yield from map(labourer.score, numbers)


def scored(request: Request, place: Place) -> Total:
    """A whole run."""
    with begin(request, place) as run:
        for _ in run.receipts(in_this_process):
            pass
        return run.finish()


def parts(folder: Path) -> list[Path]:
    """In order."""
    return sorted(folder.glob("part-*"))


def contents(folder: Path) -> dict[str, bytes]:
    """Of each part, by its name."""
    return {path.name: path.read_bytes() for path in parts(folder)}


def thirteen(folder: Path) -> Path:
    """Thirteen rows: three parts of four, and one of one."""
    columns = {"id": range(13), "text": [f"good {'so ' * number}" for number in range(13)]}
    return table(folder / "in.parquet", columns)


def rows(folder: Path) -> list[dict[str, object]]:
    """All that stands in the parts."""
    return [row for part in parts(folder) for row in READ[part.suffix](part)]


def rejects(folder: Path) -> list[dict[str, object]]:
    """All that does not stand in them."""
    found = sorted(folder.glob("_rejects-*.jsonl"))
    return [json.loads(line) for path in found for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path, columns: Mapping[str, object], group: int = 1000, **types: pa.DataType) -> Path:
    """A Parquet file with row groups of so many rows."""
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, row_group_size=group)
    return path


def _of_parquet(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return found


def _of_csv(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


READ: dict[str, Callable[[Path], list[dict[str, object]]]] = {
    ".parquet": _of_parquet,
    ".csv": _of_csv,
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()],
}
