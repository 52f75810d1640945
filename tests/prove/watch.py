"""Looks at the service's processes from time to time, in a thread of its own."""

from time import perf_counter

from service.bench.process import Usage, usage_of_each
from tests.prove.aside import Aside

EVERY_S = 0.1


class Watch(Aside):
    """What each process used, as long as this is open; `looks` are (moment, pid -> usage)."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(self._look, "watch")
        self._pid = pid
        self.looks: list[tuple[float, dict[int, Usage]]] = []

    def most_mib(self, start: float, end: float) -> float | None:
        """The most memory of all processes together between two moments of perf_counter."""
        found = [
            sum(usage.rss_mib for usage in of_each.values()) for moment, of_each in self.looks if start <= moment < end
        ]
        return max(found, default=None)

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            of_each = usage_of_each(self._pid)
            if of_each:
                self.looks.append((perf_counter(), of_each))
