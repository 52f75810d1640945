"""`python -m tests.prove.simulation --seeds 10000 [--first 0]`: the batcher's simulation over many seeds, as JSON.

Exit code 1 with the seed if an invariant is broken; keep that seed in tests/service/batching/test_simulation.py.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from time import perf_counter

from tests.service.batching.simulation import Violation, simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # workers die and hang on purpose
    started, seen, broken = perf_counter(), Counter[str](), list[str]()
    for seed in range(asked.first, asked.first + asked.seeds):
        try:
            seen += simulate(seed)
        except (Violation, TimeoutError) as error:
            broken.append(f"{seed}: {error}")
    report = {
        "seeds": asked.seeds,
        "first": asked.first,
        "violations": broken,
        "events": dict(sorted(seen.items())),
        "seconds": round(perf_counter() - started, 1),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
