"""The tables of docs/results/engine.md: a BiLSTM of random weights by several engines, in turns within one run.

python docs/results/engine.py [--hidden 150] [--embedding 300]; OpenVINO takes part where it is installed.
Times are this process's processor time on one thread, so that whatever else the machine does is not counted.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.graphs.student_graphs import student_graph
from export.graphs.to_onnx import fast_graph
from export.networks.students import BiLSTM, Shape
from service.bundle.engine import open_graph
from service.bundle.engines import EngineOptions, Isa
from service.bundle.errors import EngineUnfit
from service.bundle.native import open_native
from service.bundle.rows import Feeds
from service.bundle.tasks import Logits

VOCABULARY, LABELS, TOKENS, ROWS = 30_522, 2, 24, 32
BATCHES = 40  # of tokens that differ, so that no cache holds all of what they read

Run = Callable[[Feeds], Logits]


@dataclass(frozen=True)
class Workload:
    """Batches of one form."""

    name: str
    batches: Sequence[Feeds]

    @property
    def rows(self) -> int:
        return len(self.batches[0]["lengths"])


def student(embedding: int, hidden: int) -> bytes:
    """Weights about as large as learned ones; the last layer's are larger, so that logits spread like a student's."""
    torch.manual_seed(0)
    network = BiLSTM(Shape(VOCABULARY, embedding, hidden, 150, LABELS)).eval()
    for parameter in network.lstm.parameters():
        nn.init.normal_(parameter, 0, 0.08)
    nn.init.normal_(network.embedding.weight, 0, 0.3)
    nn.init.normal_(network.output.weight, 0, 1)
    return student_graph(network)


def workload(name: str, rows: int, mixed: bool) -> Workload:
    chance = np.random.default_rng(0)
    batches = []
    for _ in range(BATCHES):
        lengths = chance.integers(4, 2 * TOKENS - 3, rows) if mixed else np.full(rows, TOKENS)
        ids = chance.integers(0, VOCABULARY, (rows, int(lengths.max())))
        batches.append({"input_ids": ids, "lengths": lengths.astype(np.int64)})
    return Workload(name, batches)


def engines(graph: bytes) -> dict[str, Run]:
    """Those that there are here, ONNX Runtime's exact graph first."""
    found: dict[str, Run] = {
        "ONNX Runtime, exact": open_graph(graph).run,
        "ONNX Runtime, all int8": open_graph(fast_graph(graph)).run,
    }
    if importlib.util.find_spec("openvino"):
        found["OpenVINO, fp32"] = openvino(graph)
    for isa in Isa:
        try:
            if isa not in (Isa.AUTO, Isa.EMULATED):
                found[f"native, {isa}"] = open_native(graph, EngineOptions(isa=isa)).run
        except EngineUnfit:
            continue
    return found


def openvino(graph: bytes) -> Run:
    """One thread, shapes as they come: it heeds no lengths, so rows of one length alone are answered rightly."""
    import openvino

    core = openvino.Core()
    setup = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(graph), "CPU", setup).create_infer_request()

    def run(feeds: Feeds) -> Logits:
        logits: Logits = request.infer(feeds)[0]
        return logits

    return run


def race(runs: dict[str, Run], load: Workload, rounds: int) -> Iterator[list[float]]:
    """Microseconds a row of each engine: a round at a time, each after one batch that is not counted."""
    for number in range(rounds):
        yield [_turn(run, load, number) for run in runs.values()]


def _turn(run: Run, load: Workload, number: int) -> float:
    batches = [load.batches[(4 * number + place) % BATCHES] for place in range(4)]
    run(batches[0])
    started = process_time()
    for batch in batches[1:]:
        run(batch)
    return (process_time() - started) / 3 / load.rows * 1e6


def distances(runs: dict[str, Run], load: Workload) -> dict[str, tuple[float, float]]:
    """Of each engine's logits: from ONNX Runtime's exact ones, and between a row alone and in its batch."""
    exact = next(iter(runs.values()))
    found = {}
    for name, run in runs.items():
        off = wander = 0.0
        for feeds in load.batches[:4]:
            logits, alone = run(feeds).copy(), np.concatenate([run(row).copy() for row in _rows(feeds)])
            off = max(off, float(np.abs(logits - exact(feeds)).max()))
            wander = max(wander, float(np.abs(logits - alone).max()))
        found[name] = off, wander
    return found


def _rows(feeds: Feeds) -> Iterator[Feeds]:
    for ids, length in zip(feeds["input_ids"], feeds["lengths"], strict=True):
        yield {"input_ids": ids[None, :length].copy(), "lengths": np.array([length])}


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--embedding", type=int, default=300)
    flags.add_argument("--hidden", type=int, default=150)
    flags.add_argument("--rounds", type=int, default=30)
    told = flags.parse_args()
    torch.set_num_threads(1)
    runs = engines(student(told.embedding, told.hidden))
    loads = (
        workload(f"{ROWS} x {TOKENS}", ROWS, mixed=False),
        workload(f"{ROWS} of 4 to {2 * TOKENS - 4}", ROWS, mixed=True),
        workload(f"1 x {TOKENS}", 1, mixed=False),
    )
    for load in loads:
        times: NDArray[np.float64] = np.array(list(race(runs, load, told.rounds)))
        ratios = np.median(times[:, :1] / times, axis=0)
        apart = distances(runs, load)
        tell(f"\n| {load.name} | median | least | times ONNX Runtime, exact | logits off | alone or batched |")
        tell("|---|--:|--:|--:|--:|--:|")
        for place, name in enumerate(runs):
            off, wander = apart[name]
            middle, least = np.median(times[:, place]), times[:, place].min()
            tell(f"| {name} | {middle:.1f} | {least:.1f} | {ratios[place]:.2f} | {off:.1e} | {wander:.1e} |")


if __name__ == "__main__":
    main()
