"""`python -m tests.service.audited REPORT SCRATCH PLANT serve …`: the service under the audit of `tests.service.audit`.

From the moment at which it is ready, in the one process or in each worker. PLANT is `nothing`, or `fault`: then each
request does what none may.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.service.audit import Audit

if TYPE_CHECKING:
    from service.processes.line import Line, Said

REPORT, SCRATCH, PLANT = PLACES = ("AUDIT_REPORT", "AUDIT_SCRATCH", "AUDIT_PLANT")


def main() -> None:
    os.environ.update(zip(PLACES, sys.argv[1:4], strict=True))  # workers inherit them
    sys.argv[1:4] = []
    witness()
    from service.__main__ import main

    main()


def witness() -> None:
    """Let whoever serves in this process be heard from when it is ready."""
    audit = Audit(Path(os.environ[REPORT]), (Path(os.environ[SCRATCH]),))
    from service import worker
    from service.api import exchange

    live, within_limits = worker.live, exchange._within_limits

    def witnessed(settings: Any, door: Any, tell: "Callable[[Said], None]", line: "Line | None" = None) -> int:
        def tells(said: "Said") -> None:
            if said.ready is not None:
                audit.arm()
            tell(said)

        return live(settings, door, tells, line)

    def faulty(settings: Any, ask: Any) -> Any:
        exec("pass")
        return within_limits(settings, ask)

    worker.live = witnessed
    if os.environ[PLANT] == "fault":
        exchange._within_limits = faulty


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # in a worker, before its work is unpickled
    witness()
