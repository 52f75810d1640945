"""Files of texts to classify, and what a bundle says of a text alone."""

import csv
import gzip
import io
from pathlib import Path

from service.bundle.runtime import OpenBundle

ROWS = [("1", "a good film"), ("2", "very, very bad"), ("3", 'so "so"\nand long'), ("4", ""), ("5", "gut ✓")]


def alone(bundle: OpenBundle, text: str) -> list[float]:
    scores: list[float] = bundle.scores(bundle.classify([text]))[0].tolist()
    return scores


def write(path: Path, text: str) -> Path:
    content = text.encode("utf-8", errors="surrogateescape")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def as_csv(delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([("id", "text"), *ROWS])
    return stream.getvalue()
