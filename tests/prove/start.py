"""`python -m tests.prove.start`: how long until the service is ready, and how much memory it then holds.

From the start of the process to the line that says where it serves; digests and proofs of its bundles included.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from service.bench.machine import these_surroundings
from service.bench.process import usage
from service.bench.served import only, serve_command, started
from service.bench.worker import Cpus
from tests.prove.bounds import Bound, conclude, run
from tests.prove.flags import cpus

MOST_S, MOST_MIB = 1.0, 180 / 1.048576  # 180 MB


@dataclass(frozen=True, slots=True)
class Starts:
    """Of one folder of models."""

    models: str
    ready_s: tuple[float, ...]
    rss_mib: tuple[float, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("models/sst2-bilstm/1"), help="served alone")
    parser.add_argument("--models", type=Path, default=Path("models"), help="served together, after that")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--server-cpu", type=cpus, default=(), help="cores of the service")
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    asked = parser.parse_args()
    with only(asked.bundle) as alone:
        student = measure(str(asked.bundle), alone, asked.times, asked.server_cpu)
    both = measure(str(asked.models), asked.models, asked.times, asked.server_cpu)
    bounds = (
        Bound("seconds until the student alone is ready, median", median(student.ready_s), MOST_S),
        Bound("MiB of the service with the student alone, most", max(student.rss_mib), MOST_MIB),
        Bound("seconds until all models are ready, median", median(both.ready_s), MOST_S),
    )
    starts = [asdict(student), asdict(both)]
    return conclude(bounds, {"surroundings": asdict(these_surroundings()), "starts": starts}, asked.json)


def measure(name: str, models: Path, times: int, cores: Cpus) -> Starts:
    ready: list[float] = []
    memory: list[float] = []
    for _ in range(times + 1):
        with started(serve_command(models, ()), cores) as service:
            used = usage(service.pid)
            ready.append(service.ready_s or 0.0)
            memory.append(used.rss_mib if used else 0.0)
    return Starts(name, tuple(ready[1:]), tuple(memory[1:]))  # the first one fills the disk's cache


if __name__ == "__main__":
    run(main)
