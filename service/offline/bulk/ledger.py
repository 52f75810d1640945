"""The folder of a run: its plan, its parts, and which of them are complete.

    scored/_ledger.json       the plan: input, model, columns, spans
    scored/part-00000.parquet a part, or .jsonl or .csv
    scored/_rejects-00000.jsonl the rows of that span that were not scored; only where there are some
    scored/_parts/00000.json  its receipt: written last, so a part with a receipt is complete
    scored/_SUCCESS           all parts are complete, and their rows add up to those of the input

Names that begin with an underscore are skipped by whoever reads such a folder as one table (Spark, pyarrow).
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from service.bundle.store import sync
from service.offline.bulk.blocks import Reject
from service.offline.bulk.plan import Plan, Receipt, Request, Span, Total
from service.offline.errors import OutputError

PLAN, RECEIPTS, SUCCESS = "_ledger.json", "_parts", "_SUCCESS"
STAGING = ".staging"


class Ledger:
    """One run's folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self._kind = kind

    def part(self, number: int) -> Path:
        """Where a part lies when it is complete."""
        return self.folder / f"part-{number:05}.{self._kind}"

    def rejects(self, number: int) -> Path:
        """Where the rows lie that it lacks."""
        return self.folder / f"_rejects-{number:05}.jsonl"

    def staging(self) -> Path:
        """A name for a file that is being written, which nobody else has."""
        place = self.folder / STAGING
        place.mkdir(exist_ok=True)
        return place / uuid.uuid4().hex

    def publish(self, staged: Path, rejects: Sequence[Reject], receipt: Receipt) -> None:
        """Make a part complete, whole or not at all; twice the same is as good as once."""
        number, said = receipt.number, self.rejects(receipt.number)
        if rejects:
            lines = (json.dumps({"file": receipt.file, **asdict(each)}, ensure_ascii=False) for each in rejects)
            _put("".join(f"{line}\n" for line in lines), self.staging(), said)
        else:
            said.unlink(missing_ok=True)
        sync(staged)
        staged.replace(self.part(number))
        sync(self.folder)
        _put(receipt.model_dump_json() + "\n", self.staging(), self._receipt(number))

    def receipt(self, span: Span) -> Receipt | None:
        """Of a part that is complete; None if it is to be made."""
        try:
            found = Receipt.model_validate_json(self._receipt(span.number).read_bytes())
            complete = self.part(span.number).stat().st_size == found.bytes and (
                not found.rejected or self.rejects(span.number).is_file()
            )
        except (OSError, ValidationError):
            return None
        return found if complete and found.read == span.rows else None

    def keep(self, plan: Plan) -> None:
        """Begin: from now on the folder is this plan's."""
        (self.folder / RECEIPTS).mkdir(exist_ok=True)
        _put(plan.model_dump_json(indent=1) + "\n", self.staging(), self.folder / PLAN)

    def finish(self, plan: Plan) -> Total:
        """Say that all is there, which is looked at once more: every span has its part, and no part has no span."""
        receipts = [receipt for span in plan.spans if (receipt := self.receipt(span)) is not None]
        total = Total.of(receipts)
        wanted = {self.part(span.number).name for span in plan.spans}
        found = {path.name for path in self.folder.glob("part-*")}
        if found != wanted or total.read != plan.rows or total.scored + total.rejected != total.read:
            problem = f"{len(found)} parts with {total.read} rows, and there must be {len(wanted)} with {plan.rows}"
            raise OutputError(f"{self.folder}: {problem}; did somebody change it? run the same command again")
        self.clean()
        said = {"rows": total.read, "scored": total.scored, "rejected": total.rejected, "parts": len(receipts)}
        _put(json.dumps(said) + "\n", self.folder / f"{SUCCESS}.new", self.folder / SUCCESS)
        return total

    def open_again(self) -> None:
        """Something is to be done: nobody shall take the folder for complete meanwhile."""
        (self.folder / SUCCESS).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what was left half written."""
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)

    def _receipt(self, number: int) -> Path:
        return self.folder / RECEIPTS / f"{number:05}.json"


def plan_of(folder: Path, request: Request) -> Plan | None:
    """The plan that the folder already has, if it is of the same request; None if it has none. Raises OutputError."""
    try:
        plan = Plan.model_validate_json((folder / PLAN).read_bytes())
    except FileNotFoundError:
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder}: not empty, and not of an earlier run; name another folder") from None
        return None
    except ValidationError as error:
        raise OutputError(f"{folder / PLAN}: not as it was written; begin anew with --overwrite") from error
    for difference in plan.request.differences(request):
        raise OutputError(f"{folder}: begun otherwise ({difference}); ask the same, or begin anew with --overwrite")
    return plan


def forget(folder: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    if not (folder / PLAN).is_file():
        return
    (folder / SUCCESS).unlink(missing_ok=True)
    for name in (RECEIPTS, STAGING):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in [*folder.glob("part-*"), *folder.glob("_rejects-*.jsonl"), folder / PLAN]:
        path.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and be the only run that writes there; the lock goes with the process, however it ends."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: not a folder; name another")
    if not folder.resolve().parent.is_dir():
        raise OutputError(f"{folder}: no such folder; make the one that it is to be in first")
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)
        if new and not any(folder.iterdir()):  # what was asked cannot be done
            folder.rmdir()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{folder}: another run is writing there; wait for it, or stop it") from error


def _put(text: str, staging: Path, target: Path) -> None:
    staging.write_text(text, encoding="utf-8")
    sync(staging)
    staging.replace(target)
    sync(target.parent)  # a name must not survive a power cut that its content does not
