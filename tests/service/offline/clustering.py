"""`python -m tests.service.offline.clustering NODES`: a Ray cluster of so many nodes on this machine, until stdin ends.

A process of its own, so that neither Ray's threads nor its warnings are in that of the tests. Says in one line of JSON
where it is, and which process is which node's raylet: a node dies when that is killed.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Any

from tests.running import PATIENCE_S, ROOT, environment

STORE = 80 * 2**20
"""Bytes of each node's store, near the least that Ray takes: what travels here is small."""

SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 2}
"""A node that is gone is missed after some two seconds, and not after fifteen."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where a cluster is, and the processes that are its nodes; its head has no cores."""

    address: str
    raylets: tuple[int, ...]


@contextmanager
def cluster(nodes: int) -> Iterator[Nodes]:
    """Such a cluster, until the block ends."""
    variables = environment() | {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "tests.service.offline.clustering", str(nodes)]
    with Popen(command, cwd=ROOT, env=variables, stdin=PIPE, stdout=PIPE, encoding="utf-8") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = next(line for line in process.stdout if line.startswith("{"))
            found = json.loads(said)
            yield Nodes(found["address"], tuple(found["raylets"]))
        finally:
            process.stdin.close()
            process.wait(2 * PATIENCE_S)


def main(nodes: int) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": SOON}
    found: Any = Cluster(initialize_head=True, head_node_args=head)
    started = [found.add_node(num_cpus=1, object_store_memory=STORE, wait=False) for _ in range(nodes)]
    found.wait_for_nodes()
    raylets = [node.all_processes["raylet"][0].process.pid for node in started]
    sys.stdout.write(json.dumps({"address": found.address, "raylets": raylets}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    found.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
