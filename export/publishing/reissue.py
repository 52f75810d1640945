"""A bundle whose model stays and whose calibration is new: as the next version, or in its place.

It knows manifests and cards. It knows nothing of how calibrations are measured.
"""

from enum import StrEnum
from pathlib import Path

from export.errors import OptionError
from export.measuring.calibrate import Calibrated
from export.publishing.card import recalibrated
from export.publishing.publish import free_place
from service.bundle.manifest import Manifest
from service.bundle.seal import CARD_FILE, verified
from service.bundle.store import check_place, find_bundles, read_manifest, rewrite_manifest, write_bundle


class Into(StrEnum):
    """Where a calibration goes, if not into a version of this number."""

    NEXT = "next"
    SAME = "same"


def check_target(folder: Path, into: str) -> Path:
    """Where the calibrated bundle will lie; asked before anything dear is done. Raises OptionError, BundleExists."""
    manifest = read_manifest(folder)
    check_place(folder, manifest)
    if into == Into.SAME:
        return folder
    if into == Into.NEXT:
        return folder.with_name(str(newest(folder) + 1))
    if not into.isdecimal() or not 0 < int(into) < 10**18:
        raise OptionError(f"--into {into}: write next, or the number of a version")
    return free_place(folder.parent.parent, manifest.name, int(into))


def newest(folder: Path) -> int:
    """The highest version that lies beside this one."""
    found = find_bundles(folder.absolute().parent.parent)
    return max(int(place.version) for place in found if place.name == folder.absolute().parent.name)


def reissue(folder: Path, calibrated: Calibrated, target: Path) -> Path:
    """Write the bundle of `folder` with this calibration into `target`, whole or not at all."""
    current = read_manifest(folder)
    files = verified(folder, current, tuple(current.files))
    changes = {
        "version": target.name,
        "calibration": calibrated.calibration,
        "profile": calibrated.profile,
    }
    kept = {name: value for name, value in current if name != "seal"}
    manifest = Manifest.model_validate(kept | changes)
    card = folder / CARD_FILE
    text = recalibrated(card.read_text(encoding="utf-8"), manifest) if card.is_file() else None
    if target == folder:
        rewrite_manifest(folder, manifest, text)
    else:
        write_bundle(target, manifest, files, text)
    return target
