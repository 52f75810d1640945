"""A BiLSTM encoder as it lies in a folder between `pretrain` and what begins with it: weights, shape, tokenizer."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.beginnings.vocabulary import Vocabulary
from export.errors import ModelError
from export.networks.students import Recurrent, Shape

WEIGHTS, SHAPE, TOKENIZER = "encoder.safetensors", "encoder.json", "tokenizer.json"


@dataclass(frozen=True)
class SavedEncoder:
    """All that a student takes over."""

    shape: Shape
    pad_id: int
    max_tokens: int
    tokenizer_json: str
    weights: dict[str, Tensor]  # by the names that they have in the student

    @property
    def vocabulary(self) -> Vocabulary:
        """Its own. Of which of a teacher's rows it is made is not known any more, and not needed."""
        rows = np.arange(self.shape.vocabulary, dtype=np.int64)
        return Vocabulary(self.tokenizer_json, rows, rows, self.pad_id)


def is_encoder(source: str) -> bool:
    """Does one of ours lie there?"""
    return Path(source, WEIGHTS).is_file()


def check_no_student(source: str) -> None:
    """Raises ModelError where a teacher is to be one of ours."""
    if is_encoder(source):
        raise ModelError(
            f"teacher {source}: is a BiLSTM of `pretrain`; `distill` begins a student with it, as student.begins"
        )


def save_encoder(folder: Path, student: Recurrent, vocabulary: Vocabulary, max_tokens: int) -> None:
    """The weights last: a folder that has them is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_text(vocabulary.tokenizer_json, encoding="utf-8")
    told = {"shape": asdict(student.shape), "pad_id": vocabulary.pad_id, "max_tokens": max_tokens}
    (folder / SHAPE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.contiguous() for name, value in student.state_dict().items()}
    unfinished = folder / f"{WEIGHTS}.tmp"
    save_file(weights, unfinished)
    unfinished.replace(folder / WEIGHTS)


def load_encoder(source: str) -> SavedEncoder:
    """Raises ModelError for a folder that `pretrain` has not finished."""
    folder = Path(source)
    try:
        told: dict[str, Any] = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
        shape = TypeAdapter(Shape).validate_python(told["shape"])
        tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
        return SavedEncoder(shape, int(told["pad_id"]), int(told["max_tokens"]), tokenizer, load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        transformer = "is a transformer; write student.architecture = 'transformer'"
        what = transformer if (folder / "config.json").is_file() else "no whole encoder of `python -m export pretrain`"
        raise ModelError(f"student.begins: {source}: {what}") from error
