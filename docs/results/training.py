"""How long a training step of a student takes, by its own way with padding and by torch's packed sequences, and what a
network of MiniLM's shape takes in bfloat16 and in fp32, in one run:

python docs/results/training.py    (from the repository's root; one thread)

Both are timed in turns; the least of each counts, since whatever disturbs a run makes it longer.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import BertConfig, BertModel

from export.networks.device import quick_at_bfloat16
from export.networks.students import BiLSTM, Pooling, Shape

SIZES = [(256, 14, 256), (128, 26, 128), (64, 60, 128), (64, 200, 128)]
"""Rows of a batch, pieces of the longest row, LSTM units per direction."""


class PackedBiLSTM(BiLSTM):
    """The same student by packed sequences."""

    def _run(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.dropout(self._embed(input_ids))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        found, (last, _) = self.lstm(packed)
        states, _ = pad_packed_sequence(found, batch_first=True, total_length=input_ids.shape[1])
        return states, last


def step(student: BiLSTM, ids: Tensor, lengths: Tensor, bf16: bool) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = student(ids, lengths).logits
    logits.float().square().sum().backward()


def teach(teacher: BertModel, ids: Tensor, bf16: bool) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        states = teacher(ids).last_hidden_state
    states.float().square().sum().backward()


@torch.inference_mode()
def label(teacher: BertModel, ids: Tensor, bf16: bool) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        teacher(ids)


def least(ways: list[Callable[[], None]], turns: int) -> list[float]:
    """Milliseconds."""
    found = [float("inf")] * len(ways)
    for _ in range(turns):
        for place, way in enumerate(ways):
            start = time.perf_counter()
            way()
            found[place] = min(found[place], 1000 * (time.perf_counter() - start))
    return found


def write(row: str) -> None:
    sys.stdout.write(f"| {row} |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write("rows | pieces | units | arithmetic | packed, ms | ours, ms | ratio")
    write("--:|--:|--:|---|--:|--:|--:")
    for rows, pieces, hidden in SIZES:
        shape = Shape(12_000, 128, hidden, 128, 2, pooling=Pooling.MAX)
        ids = torch.randint(1, shape.vocabulary, (rows, pieces))
        lengths = torch.randint(int(pieces * 0.85), pieces, (rows,))
        lengths[0] = pieces
        students = [PackedBiLSTM(shape), BiLSTM(shape)]
        for bf16 in (True, False) if quick_at_bfloat16(torch.device("cpu")) else (False,):  # else it cannot be run
            packed, ours = least([partial(step, student, ids, lengths, bf16) for student in students], turns)
            arithmetic = "bfloat16" if bf16 else "fp32"
            write(f"{rows} | {pieces} | {hidden} | {arithmetic} | {packed:.0f} | {ours:.0f} | {packed / ours:.1f}")
    teacher = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )
    ids = torch.randint(1, 30_000, (32, 32))
    write("32 rows of 32 pieces, MiniLM's shape | bfloat16, ms | fp32, ms | ratio")
    write("---|--:|--:|--:")
    for what, way in (("forward and backward", teach), ("forward", label)):
        half, full = least([partial(way, teacher, ids, bf16) for bf16 in (True, False)], turns)
        write(f"{what} | {half:.0f} | {full:.0f} | {half / full:.2g}")


if __name__ == "__main__":
    main()
