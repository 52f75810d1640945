"""Is a folder exactly what its manifest says, and the manifest what was published? Reads it and compares digests.

It knows files and bytes. It knows nothing of what is in a graph or a tokenizer.
"""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from service.bundle.errors import (
    BrokenSeal,
    InvalidManifest,
    MissingFile,
    UnexpectedFile,
    UnknownFormat,
    WrongDigest,
)
from service.bundle.manifest import FORMAT, Manifest, SealedManifest

MANIFEST_FILE = "manifest.json"
_SEAL = "seal"  # the field
CARD_FILE = "README.md"
"""The model card: for people, so it may be edited and has no digest."""

LARGEST_MANIFEST = 64 * 2**20
LARGEST_FILE = 2**31 - 1
"""What protobuf, and so ONNX, can hold in one file."""


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """What `Manifest.files` says of these contents."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def sealed(manifest_json: str) -> str:
    """The same manifest with its seal, whatever seal it had: the sha256 of everything else in it.

    It is taken of the values and not of how they are written: white space, the order of fields and the spelling of a
    number don't matter. Raises ValueError if it is no JSON that can be read in one way only.
    """
    declared = _parsed(manifest_json)
    return json.dumps(declared | {_SEAL: _seal_of(declared)}, indent=2, ensure_ascii=False)


def read_manifest(folder: Path) -> SealedManifest:
    """Read and check `manifest.json`. Says nothing of the other files: see `verify`."""
    path = folder / MANIFEST_FILE
    try:
        content = _content(path, LARGEST_MANIFEST)
    except OSError as error:
        raise MissingFile(f"{path}: cannot be read ({error.strerror}); is {folder} a bundle?") from error
    try:
        declared = _parsed(content.decode())
        _check_format(path, declared)
        _check_seal(path, declared)
    except ValueError as error:
        raise InvalidManifest(f"{path}: not JSON as it should be ({error}); publish the bundle again") from error
    try:  # of what was sealed, so that no other parser reads the bytes in another way
        return SealedManifest.model_validate_json(json.dumps(declared), strict=True)
    except ValidationError as error:
        raise InvalidManifest(f"{path}: {_first(error)}; publish the bundle again") from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that has other files than the manifest lists, or other contents."""
    verified(folder, manifest, ())


def verified(folder: Path, manifest: Manifest, wanted: Collection[str]) -> dict[str, bytes]:
    """The contents of the wanted files of a folder that passed `verify`.

    Each file is read once and its digest taken of those very bytes: a folder that is changed meanwhile can't pass
    one content and give another.
    """
    if folder.is_symlink():
        raise UnexpectedFile(f"{folder}: a link; copy the bundle itself to its place")
    _check_names(folder, manifest)
    kept = {}
    for name, digest in manifest.files.items():
        path = folder / name
        try:
            content = _content(path, LARGEST_FILE)
        except OSError as error:
            raise MissingFile(f"{path}: cannot be read ({error.strerror}); copy the whole bundle") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise WrongDigest(f"{path}: not what the manifest describes; copy the bundle again")
        if name in wanted:
            kept[name] = content
    return kept


def _content(path: Path, most: int) -> bytes:
    """The bytes of a plain file. Links are not followed and pipes not waited for, even if one appears this moment."""
    try:
        with open(path, "rb", opener=_open_itself) as file:  # Path.open takes no opener
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_size <= most:
                return file.read(most)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UnexpectedFile(f"{path}: a link; copy the file itself to its place") from error
    raise UnexpectedFile(f"{path}: not a plain file of at most {most} bytes; copy the bundle again")


def _open_itself(path: str, flags: int) -> int:
    careful = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK"))  # not every system has both
    return os.open(path, reduce(or_, careful, flags))


def _parsed(content: str) -> dict[str, object]:
    """An object that every reader reads alike: no field twice, no NaN. Raises ValueError."""
    try:
        declared: object = json.loads(content, object_pairs_hook=_each_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(declared, dict):
        raise ValueError("no object")
    return declared


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands in it twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _seal_of(declared: Mapping[str, object]) -> str:
    """Raises ValueError for what JSON or UTF-8 can't hold: infinite numbers, halves of surrogate pairs."""
    rest = {name: value for name, value in declared.items() if name != _SEAL}
    try:
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _check_seal(path: Path, declared: Mapping[str, object]) -> None:
    """Before any rule: a changed manifest may still keep them all."""
    if _SEAL not in declared:
        raise InvalidManifest(f"{path}: has no seal; publish the bundle again")
    if declared[_SEAL] != _seal_of(declared):
        raise BrokenSeal(f"{path}: not as it was published; copy the bundle again")


def _check_format(path: Path, declared: Mapping[str, object]) -> None:
    """First of all: a newer format may differ in everything else."""
    if "format" not in declared:
        raise InvalidManifest(f"{path}: declares no format; publish the bundle again")
    if declared["format"] != FORMAT or isinstance(declared["format"], bool):
        raise UnknownFormat(
            f"{path}: format {declared['format']!r:.20}, and this version reads format {FORMAT}; "
            "serve it with the version that wrote it, or publish it again"
        )


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # A field that a spoilt manifest invented may hold anything, a path of this machine too; ours are words.
    place = ".".join(part if re.fullmatch(r"[A-Za-z0-9._-]{1,100}", part) else "…" for part in map(str, problem["loc"]))
    line = f"{place}: {problem['msg']}" if place else problem["msg"]
    return " ".join(line.split())[:300]


def _check_names(folder: Path, manifest: Manifest) -> None:
    allowed = {MANIFEST_FILE, CARD_FILE, *manifest.files}
    found = {entry.name: entry for entry in folder.iterdir()}
    for name, entry in sorted(found.items()):
        if entry.is_symlink() or not entry.is_file():
            raise UnexpectedFile(f"{entry}: a link or a folder, not a plain file; copy it in, or remove it")
        if name not in allowed:
            raise UnexpectedFile(f"{entry}: the manifest does not list it; remove it")
    for name in manifest.files:
        if name not in found:
            raise MissingFile(f"{folder / name}: missing; copy the whole bundle")
