"""Is a folder exactly what its manifest says? Reads manifests and compares sha256 digests.

It knows files and bytes. It knows nothing of what is in a graph or a tokenizer.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_
from pathlib import Path

from pydantic import ValidationError

from service.bundle.errors import InvalidManifest, MissingFile, UnexpectedFile, UnknownFormat, WrongDigest
from service.bundle.manifest import FORMAT, Manifest

MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
"""The model card: for people, so it may be edited and has no digest."""

LARGEST_MANIFEST = 64 * 2**20
LARGEST_FILE = 2**31 - 1
"""What protobuf, and so ONNX, can hold in one file."""


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """What `Manifest.files` says of these contents."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`. Says nothing of the other files: see `verify`."""
    path = folder / MANIFEST_FILE
    try:
        content = _content(path, LARGEST_MANIFEST)
    except OSError as error:
        raise MissingFile(f"{path}: cannot be read ({error.strerror}); is {folder} a bundle?") from error
    _check_format(path, content)
    try:
        return Manifest.model_validate_json(content, strict=True)
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


def _check_format(path: Path, content: bytes) -> None:
    """First of all: a newer format may differ in everything else."""
    try:
        declared = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"{path}: not JSON ({error}); publish the bundle again") from error
    if not isinstance(declared, dict) or "format" not in declared:
        raise InvalidManifest(f"{path}: declares no format; publish the bundle again")
    if declared["format"] != FORMAT or isinstance(declared["format"], bool):
        raise UnknownFormat(
            f"{path}: format {declared['format']!r:.20}, and this version reads format {FORMAT}; "
            "serve it with the version that wrote it, or publish it again"
        )


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
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
