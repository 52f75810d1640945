"""The teacher's signals of texts, from a cache on disk, which is filled here or on a cluster.

Labelling is the dear part, so logits and hidden states are cached by content: by what the teacher is, which texts it
read, and in which arithmetic: bfloat16 where the device is quick at it (`training.bf16` is the student's business),
else fp32. Interrupted labelling goes on where it stopped, and recipes that share texts share logits. A shard is the
same whoever asked for it, but for that arithmetic's last bits: another processor, or a GPU, adds up in another order.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ModelError, OptionError
from export.networks.device import processes
from export.objectives.signals import Pieces, Signals, Stacked, stretches
from export.progress import progress_bar
from export.sections import HiddenStates
from export.teachers.hugging_face import Teacher
from export.teachers.opened import AnyTeacher
from service.bundle.encoder import Text
from service.bundle.manifest import OF_PIECES
from service.cluster import Cluster, ClusterError

SHARD = 4096


@dataclass(frozen=True)
class Elsewhere:
    """A cluster whose nodes see the folder of the cache, and how one of them opens the teacher; it is pickled."""

    cluster: Cluster
    open: Callable[[], AnyTeacher]


def label(
    teacher: AnyTeacher,
    groups: Sequence[Sequence[Text]],
    hidden: HiddenStates | None,
    cache: Path,
    elsewhere: Elsewhere | None = None,
) -> Signals:
    """The teacher's signals group after group, from the cache where they are there already.

    Several processes each ask it about some of the texts, and find all answers in the cache, one folder for all. A
    cluster does so for all of them. Raises OptionError when there is none to work with, and what the teacher raises.
    """
    cache.mkdir(parents=True, exist_ok=True)
    shelf = Shelf(teacher, teacher.digest(), hidden, cache)
    shards = [group[start : start + SHARD] for group in groups for start in range(0, len(group), SHARD)]
    state = processes()
    if elsewhere is None:
        _ask_here(shelf, shards[state.process_index :: state.num_processes])
    elif state.is_main_process:
        _ask_there(shelf, [shard for shard in shards if not shelf.has(shard)], elsewhere)
    state.wait_for_everyone()
    return _joined([shelf.signals(shard) for shard in shards])


def _ask_here(shelf: "Shelf", shards: Sequence[Sequence[Text]]) -> None:
    with progress_bar("teacher's logits", sum(map(len, shards)), "rows") as bar:
        for shard in shards:
            shelf.signals(shard)
            bar.advance(len(shard))


def _ask_there(shelf: "Shelf", shards: Sequence[Sequence[Text]], elsewhere: Elsewhere) -> None:
    """The texts lie beside the cache meanwhile: what travels over a cluster is short."""
    folder = shelf.folder.resolve()
    asked = {folder / f"{shelf.name(shard)}.texts.json": shard for shard in shards}
    if not asked:
        return
    work = _Labelling(elsewhere.open, shelf.identity, _in_bf16(shelf.teacher), shelf.hidden, tuple(asked))
    try:
        for file, shard in asked.items():
            file.write_text(json.dumps(shard), encoding="utf-8")
        with progress_bar("teacher's logits", sum(map(len, shards)), "rows") as bar:
            for rows in elsewhere.cluster.run(work, range(len(asked))):
                bar.advance(int(rows))
    except ClusterError as error:
        raise OptionError(str(error)) from error
    finally:
        for file in asked:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Labelling:
    """What a node is told."""

    open: Callable[[], AnyTeacher]
    identity: str
    bf16: bool  # as it would be here
    hidden: HiddenStates | None
    files: tuple[Path, ...]  # of texts, each beside the signals to be made of it

    def begin(self) -> Callable[[int], str]:
        """Raises ModelError where the node has another teacher by that name, or is not quick at bfloat16 where it is
        asked to be; what it gives does, of texts not seen."""
        teacher, node = self.open(), socket.gethostname()
        if self.bf16 and not _in_bf16(teacher):
            raise ModelError(f"teacher: node {node} is not quick at bfloat16 as this machine is; leave it out")
        if isinstance(teacher, Teacher):
            teacher.bf16 = self.bf16
        if teacher.digest() != self.identity:
            raise ModelError(f"teacher: on node {node} it has other weights or another tokenizer than here")
        shelf = Shelf(teacher, self.identity, self.hidden, self.files[0].parent)

        def ask(number: int) -> str:
            try:
                read = json.loads(self.files[number].read_text(encoding="utf-8"))
            except OSError as error:
                raise ModelError(
                    f"--work: node {node} must see {shelf.folder} as this machine does ({error})"
                ) from error
            texts = [text if isinstance(text, str) else (text[0], text[1]) for text in read]
            shelf.signals(texts)
            return str(len(texts))

        return ask


@dataclass(frozen=True)
class Shelf:
    """The cache of one teacher: a file of logits a shard, and one of each kind of hidden states that was asked for."""

    teacher: AnyTeacher
    identity: str
    hidden: HiddenStates | None
    folder: Path

    def name(self, texts: Sequence[Text]) -> str:
        """Of the files of these texts' signals."""
        return _digest(self.identity, texts)

    def has(self, texts: Sequence[Text]) -> bool:
        """Are all of them there?"""
        return all(file.exists() for file in self._files(texts))

    def signals(self, texts: Sequence[Text]) -> Signals:
        """From the cache, where they lie afterwards in any case."""
        logits, *others = files = self._files(texts)
        if not all(file.exists() for file in files):
            self._make(texts, files)
        states = _stored(others.pop(0)) if self.hidden is not None else None
        return Signals(_stored(logits), states, Pieces(*map(_stored, others)) if others else None)

    def _files(self, texts: Sequence[Text]) -> list[Path]:
        """Of logits, of hidden states if they are asked for, and of a tagger's pieces."""
        name = self.name(texts)
        kinds = [""]
        if self.hidden is not None:
            kinds.append(f"-{self.hidden.layer}-{self.hidden.pooling}")
        if self.teacher.task in OF_PIECES:
            kinds.extend(f"-{what}" for what in Pieces._fields)
        return [self.folder / f"{name}{kind}.npy" for kind in kinds]

    def _make(self, texts: Sequence[Text], files: Sequence[Path]) -> None:
        asked = self._ask(texts)
        states = [] if asked.hidden is None else [np.asarray(asked.hidden)]
        found = [asked.logits, *states, *(asked.pieces or ())]
        for file, values in zip(files, found, strict=True):
            _store(file, values)

    def _ask(self, texts: Sequence[Text]) -> Signals:
        order = sorted(range(len(texts)), key=lambda i: _chars(texts[i]))  # neighbours of one length: little padding
        found = _joined(list(self.teacher.signals([texts[i] for i in order], self.hidden)))
        if found.hidden is not None and not np.isfinite(found.hidden).all():
            raise ModelError("teacher.hidden: this layer's states are greater than float16 holds; choose another layer")
        back, pieces = np.argsort(order), found.pieces
        places = back if pieces is None else stretches(pieces.offsets, back)  # of their signals
        return Signals(
            found.logits[places],
            None if found.hidden is None else found.hidden[places],
            None if pieces is None else Pieces(pieces.counts[back], pieces.places[places]),
        )


def _in_bf16(teacher: AnyTeacher) -> bool:
    """Does it multiply in bfloat16? A bundle never does."""
    return isinstance(teacher, Teacher) and teacher.bf16


def _joined(parts: Sequence[Signals]) -> Signals:
    """One behind the other; hidden states stay where they lie."""
    hidden = [np.asarray(part.hidden) for part in parts if part.hidden is not None]
    pieces = [part.pieces for part in parts if part.pieces is not None]
    return Signals(
        np.concatenate([part.logits for part in parts]),
        Stacked(hidden) if hidden else None,
        Pieces(*map(np.concatenate, zip(*pieces, strict=True))) if pieces else None,
    )


def _stored(file: Path) -> NDArray[Any]:
    stored: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)  # else joining holds hidden states twice
    return stored


def _store(file: Path, values: NDArray[Any]) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as stream:
        np.save(stream, values)
    unfinished.replace(file)  # whole or not at all


def _chars(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def _digest(identity: str, texts: Sequence[Text]) -> str:
    digest = hashlib.sha256(identity.encode())
    for text in texts:
        spelt = f"{len(text)}:{text}" if isinstance(text, str) else f"2:{len(text[0])}:{text[0]}{text[1]}"
        digest.update(spelt.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
