"""A run from its request to its last part: begun or gone on with, on an engine, and counted at the end.

It knows the order of things. It knows nothing of flags, terminals or how an engine works.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.bundle.devices import Device
from service.bundle.engines import Isa
from service.offline.bulk.ledger import Ledger, alone_in, forget, plan_of
from service.offline.bulk.plan import Job, Plan, Receipt, Request, Total
from service.offline.bulk.survey import check_unchanged, make_plan

Engine = Callable[[Job, Sequence[int]], Iterator[Receipt]]
"""Scores the spans of these numbers in any order, and gives the receipt of each."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things lie, and what is done where they are not as they should be."""

    folder: Path
    bundle: Path
    device: Device = Device.CPU
    isa: Isa = Isa.AUTO
    rejects: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run that may begin: how much there is, and how much is done."""

    plan: Plan
    ledger: Ledger
    job: Job
    done: tuple[Receipt, ...]

    def receipts(self, engine: Engine) -> Iterator[Receipt]:
        """Do what is left."""
        there = {receipt.number for receipt in self.done}
        left = [span.number for span in self.plan.spans if span.number not in there]
        if left:
            yield from engine(self.job, left)

    def finish(self) -> Total:
        """Count, and say that it is complete."""
        for file in self.plan.request.files:
            check_unchanged(file)
        return self.ledger.finish(self.plan)


@contextmanager
def begin(request: Request, place: Place) -> Iterator[Run]:
    """Begin, or go on where an earlier run of the same request stopped. Raises OfflineError."""
    with alone_in(place.folder):
        if place.overwrite:
            forget(place.folder)
        ledger = Ledger(place.folder, request.format)
        plan = plan_of(place.folder, request)
        if plan is None:
            plan = make_plan(request)
            ledger.keep(plan)
        ledger.clean()
        done = tuple(receipt for span in plan.spans if (receipt := ledger.receipt(span)) is not None)
        if len(done) < len(plan.spans):
            ledger.open_again()
        job = Job(plan, place.folder.resolve(), place.bundle.resolve(), place.device, place.isa, place.rejects)
        try:
            yield Run(plan, ledger, job, done)
        finally:
            ledger.clean()
