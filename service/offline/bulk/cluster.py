"""The engine of a cluster: actors score spans by their number, each with a bundle of its own.

An actor reads its span and writes its part where the plan says; a receipt is all that comes back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.cluster import Cluster, ClusterError
from service.offline.bulk.plan import Job, Receipt
from service.offline.bulk.running import Engine
from service.offline.errors import OfflineError


def ray_engine(address: str | None, most: int | None) -> Engine:
    """An engine on the cluster of this address: an actor a core, or at most so many. Raises OfflineError."""
    cluster = Cluster(address, most)
    try:
        cluster.check()
    except ClusterError as error:
        raise OfflineError(str(error)) from error

    def run(job: Job, numbers: Sequence[int]) -> Iterator[Receipt]:
        try:
            yield from map(Receipt.model_validate_json, cluster.run(_Scoring(job), numbers))
        except ClusterError as error:
            raise OfflineError(str(error)) from error

    return run


@dataclass(frozen=True, slots=True)
class _Scoring:
    job: Job

    def begin(self) -> Callable[[int], str]:
        from service.offline.bulk.labour import Labourer  # here, so that it is loaded after the actor has begun

        labourer = Labourer(self.job)
        return lambda number: labourer.score(number).model_dump_json()
