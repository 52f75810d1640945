"""`python -m tests.prove.learning traffic | swap`: the two steps of learning again that need a service.

`traffic` serves a folder of models with capture on, sends each text once, and counts what was kept. `swap` serves it
again and runs `python -m export promote` while clients ask: the service must go over to the new version by itself, and
nobody may be left without an answer. docs/results/learn-again.sh has the steps between. Exit code 1 if a promise is
broken.
"""

import argparse
import http.client
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from service.bench.machine import these_surroundings
from service.bench.samples import OK
from service.bench.served import serve_command, started
from service.bench.wire import Target
from service.bundle.seal import read_manifest
from tests.prove.askers import Askers
from tests.prove.bounds import Bound, conclude, run

SENDERS, AT_ONCE = 4, 8
ASKED_TEXTS = 200
AFTER_S = 5.0  # that clients go on once the new version has answered
SWAP_S = 30.0
ASK_S = 60.0


def main() -> int:
    asked = _arguments()
    texts = [json.loads(line)["text"] for line in asked.texts.read_text(encoding="utf-8").splitlines()]
    details = {"surroundings": asdict(these_surroundings()), "arguments": vars(asked)}
    bounds, found = traffic(asked, texts) if asked.step == "traffic" else swap(asked, texts)
    return conclude(bounds, details | found, asked.json)


def traffic(asked: argparse.Namespace, texts: Sequence[str]) -> tuple[list[Bound], dict[str, Any]]:
    """Every text once, in requests of AT_ONCE; the store afterwards."""
    flags = ["--default", asked.name, "--capture", str(asked.capture), "--capture-share", str(asked.share)]
    parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
    begun = perf_counter()
    with started(serve_command(asked.models, flags)) as service, ThreadPoolExecutor(SENDERS) as senders:
        shares = [parts[number::SENDERS] for number in range(SENDERS)]
        statuses = sum(senders.map(lambda share: _send(service.target, share), shares), Counter[int]())
        seconds = perf_counter() - begun
    with closing(sqlite3.connect(f"{asked.capture.absolute().as_uri()}?mode=ro", uri=True)) as store:
        kept = dict(store.execute("SELECT reason, count(*) FROM texts GROUP BY reason").fetchall())
    bounds = [
        Bound("requests", statuses.total(), 1, at_least=True),
        Bound("requests that failed", statuses.total() - statuses[OK], 0),
        Bound("texts kept", sum(kept.values()), 0.9 * asked.share * len(texts), at_least=True),
    ]
    return bounds, {"texts": len(texts), "statuses": statuses, "seconds": seconds, "kept": kept}


def swap(asked: argparse.Namespace, texts: Sequence[str]) -> tuple[list[Bound], dict[str, Any]]:
    """Promote while clients ask for the old one, by its name alone."""
    new, labels = int(asked.candidate.name), read_manifest(asked.candidate).labels
    old = asked.models / asked.name / str(new - 1)
    promote = [sys.executable, "-m", "export", "promote", str(asked.candidate), "--against", str(old)]
    promote += ["--teacher", str(asked.teacher), "--texts", str(asked.texts), "--min-gain", str(asked.min_gain)]
    flags = ["--default", asked.name, "--reload-seconds", "1"]
    with (
        started(serve_command(asked.models, flags)) as service,
        Askers(service.target, asked.name, texts[:ASKED_TEXTS], labels) as askers,
    ):
        begun = perf_counter()
        code = subprocess.run(promote, check=False).returncode
        decided = perf_counter()
        came = askers.until(new, SWAP_S if code == 0 else 0)
        seconds = perf_counter() - decided
        sleep(AFTER_S)
    history = askers.history
    failed = sum(each.status != OK for each in history)
    by_version = Counter(each.version for each in history)
    bounds = [
        Bound("exit code of promote", code, 0),
        Bound("requests meanwhile", len(history), 1, at_least=True),
        Bound("requests that failed", failed, 0),
        Bound("the new version answers", int(came), 1, at_least=True),
    ]
    found = {"promote_s": decided - begun, "until_it_answered_s": seconds, "answers_by_version": by_version}
    return bounds, found


def _send(target: Target, parts: Sequence[Sequence[str]]) -> Counter[int]:
    """The statuses of these requests, one after the other; 0 where no answer came."""
    found = Counter[int]()
    connection = http.client.HTTPConnection(target.host, target.port, timeout=ASK_S)
    with closing(connection):
        for texts in parts:
            try:
                connection.request("POST", "/v1/classify", json.dumps({"input": texts}).encode(), _JSON)
                answer = connection.getresponse()
                answer.read()
                found[answer.status] += 1
            except (OSError, http.client.HTTPException):
                connection.close()
                found[0] += 1
    return found


_JSON = {"Content-Type": "application/json"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("traffic", "swap"))
    parser.add_argument("--models", type=Path, required=True, help="the folder that is served")
    parser.add_argument("--name", default="learner", help="the student's name in it")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines: the traffic, or what to judge on")
    parser.add_argument("--capture", type=Path, help="traffic: the store")
    parser.add_argument("--share", type=float, default=1.0, help="traffic: share of texts that is kept")
    parser.add_argument("--candidate", type=Path, help="swap: the new version, not yet served")
    parser.add_argument("--teacher", type=Path, help="swap: the teacher's bundle")
    parser.add_argument("--min-gain", type=float, default=0.0, help="swap: rise of the agreement that is asked")
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
