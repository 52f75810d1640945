"""Who tells of requests: the access log and traces, as far as they are on.

Traces are in `tracing.py`, since their packages are an extra. It knows nothing of HTTP or models.
"""

from typing import TYPE_CHECKING

from service.settings import SettingProblem, Settings
from service.telemetry.logs import log_visit
from service.telemetry.visits import Headers, Visit

if TYPE_CHECKING:
    from service.telemetry.tracing import Trace, Tracing


class Witness:
    """Tells of requests, in the access log and in traces, as far as they are on."""

    def __init__(self, access_log: bool, tracing: "Tracing | None") -> None:
        self._access_log = access_log
        self._tracing = tracing

    def begin(self, method: str, route: str, headers: Headers) -> "Trace | None":
        """A request arrived. Whatever becomes of it, `end` must follow, in the same task."""
        return None if self._tracing is None else self._tracing.begin(method, route, headers)

    def end(self, trace: "Trace | None", visit: Visit) -> None:
        """The answer is ready, or nobody waits for it any more."""
        if self._access_log:
            log_visit(visit)
        if trace is not None:
            trace.end(visit.status, visit.stages)

    def close(self, patience_s: float) -> None:
        """Send what was not sent yet."""
        if self._tracing is not None:
            self._tracing.close(patience_s)


def open_witness(settings: Settings, version: str) -> Witness | None:
    """None where nothing is to be told, so that it costs nothing. Raises SettingProblem if traces cannot be had."""
    tracing = open_tracing(version) if settings.traces else None
    return Witness(settings.access_log, tracing) if settings.access_log or tracing is not None else None


def open_tracing(version: str) -> "Tracing":
    """Raises SettingProblem if the packages for it are not there."""
    try:
        from service.telemetry.tracing import export_traces
    except ImportError as error:
        raise SettingProblem(
            f"traces: {error.name} is not installed; install understudy[traces], or leave traces off"
        ) from error
    return export_traces(version)
