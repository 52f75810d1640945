"""Flags that every run under load has."""

import argparse
from pathlib import Path

from service.bench.worker import Cpus


def load_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the texts, the cores, the seed and where the report goes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="TXT or TSV, .gz too")
    parser.add_argument("--client-cpu", type=cpus, default=(), help="cores of the client, such as 1 or 2,3")
    parser.add_argument("--server-cpu", type=cpus, default=(), help="cores of the service")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here, not to stdout")
    return parser


def cpus(text: str) -> Cpus:
    return tuple(int(part) for part in text.split(",") if part)
