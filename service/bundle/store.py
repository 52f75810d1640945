"""The folder of bundles: `models/<name>/<version>/`. Find, read and verify; write all or nothing.

It knows files and their places. It knows nothing of training, HTTP or which model is served.
"""

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.bundle.errors import BundleExists, InvalidManifest, MissingFile, UnexpectedFile, WrongDigest
from service.bundle.manifest import NAME_PATTERN, VERSION_PATTERN, Manifest
from service.bundle.runtime import open_bundle
from service.bundle.seal import CARD_FILE, MANIFEST_FILE, digests, read_manifest, sealed, verified, verify

__all__ = [
    "BundlePath",
    "check_place",
    "digests",
    "find_bundles",
    "read_manifest",
    "rewrite_manifest",
    "sync",
    "verify",
    "write_bundle",
]

_IGNORED = frozenset({CARD_FILE, "lost+found"})  # mounted volumes have a lost+found


@dataclass(frozen=True, slots=True)
class BundlePath:
    """A place where a bundle should be."""

    name: str
    version: str
    folder: Path


def find_bundles(models: Path) -> list[BundlePath]:
    """All bundles by name, then by version, the newest last. They are not opened."""
    if not models.is_dir():
        raise MissingFile(f"{models}: no such folder; publish a bundle there, or name another folder")
    return [
        BundlePath(name.name, version.name, version)
        for name in _folders(models, NAME_PATTERN)
        for version in sorted(_folders(name, VERSION_PATTERN), key=lambda folder: int(folder.name))
    ]


def check_place(folder: Path, manifest: Manifest) -> None:
    """Refuse a bundle that was copied or moved under another name."""
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise InvalidManifest(f"{folder}: its manifest says {manifest.name}/{manifest.version}; move it there")


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes], card: str | None) -> None:
    """Publish: seal, write beside the target, open every graph as a server would, then rename. All or nothing."""
    if folder.exists() or folder.is_symlink():
        raise BundleExists(f"{folder}: already there, and versions are immutable; choose the next version")
    check_place(folder, manifest)
    if digests(files) != manifest.files:
        raise WrongDigest(f"{folder}: the manifest describes other files; fill it in with digests(files)")
    staging = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    staging.mkdir(parents=True)
    try:
        _fill(staging, manifest, files, card)
        for precision in manifest.graphs:
            open_bundle(staging, precision)
        _move(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def rewrite_manifest(folder: Path, manifest: Manifest, card: str | None) -> None:
    """Give a bundle that nobody serves yet another calibration and profile; its model and all the rest must stay.

    The manifest changes from the old to the new one at once, after the new one was opened as a server would.
    """
    current = read_manifest(folder)
    free = {"seal", "calibration", "profile"}
    if current.model_dump(exclude=free) != manifest.model_dump(exclude=free):
        raise BundleExists(f"{folder}: only its calibration may change; choose the next version for anything else")
    staging = folder.absolute().parent / f".{folder.name}-{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        _fill(staging, manifest, verified(folder, current, tuple(current.files)), card)
        for precision in manifest.graphs:
            open_bundle(staging, precision)
        for name in (MANIFEST_FILE,) if card is None else (MANIFEST_FILE, CARD_FILE):
            (staging / name).replace(folder / name)
        sync(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _folders(parent: Path, pattern: str) -> list[Path]:
    entries = [entry for entry in sorted(parent.iterdir()) if not entry.name.startswith(".")]
    for entry in entries:
        if entry.name not in _IGNORED and not (entry.is_dir() and re.fullmatch(pattern, entry.name)):
            raise UnexpectedFile(f"{entry}: not a place for a bundle (<name>/<version>); move it away")
    return [entry for entry in entries if entry.name not in _IGNORED]


def _fill(staging: Path, manifest: Manifest, files: Mapping[str, bytes], card: str | None) -> None:
    contents = {**files, MANIFEST_FILE: f"{sealed(manifest.model_dump_json())}\n".encode()}
    if card is not None:
        contents[CARD_FILE] = card.encode()
    for name, content in contents.items():
        with (staging / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync(staging)


def _move(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError as error:
        if folder.exists():  # somebody published the same version meanwhile
            raise BundleExists(f"{folder}: published by another meanwhile; choose the next version") from error
        raise
    sync(folder.parent)


def sync(path: Path) -> None:
    """To the disk, a file or a folder: the names in a folder reach it only when the folder itself is synced."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
