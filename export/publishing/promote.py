"""May a new student take the old one's place? Both beside their teacher on texts that neither was trained on.

The test is McNemar's, exact and one-sided (McNemar 1947): of the rows on which only one of both agrees with the
teacher, a new student that is no better has the half at most. This module knows nothing of training.
"""

from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from export.errors import ModelError, OptionError, Unmet
from export.measuring.calibrate import Source, answers
from export.measuring.pair import name_of, teacher_columns
from export.measuring.thresholds import Flags
from export.publishing.reissue import newest
from service.bundle.errors import BundleExists
from service.bundle.manifest import Manifest, Precision
from service.bundle.runtime import open_bundle
from service.bundle.seal import CARD_FILE, read_manifest, verified
from service.bundle.store import check_place, write_bundle


@dataclass(frozen=True)
class Rule:
    """The new student must agree on more rows, and that by more than chance gives; and by so much, if asked."""

    level: float = 0.05
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise OptionError(f"--level {self.level}: must lie between 0 and 1, without either")
        if not 0 <= self.min_gain <= 1:
            raise OptionError(f"--min-gain {self.min_gain}: a share of the rows, from 0 to 1")

    def breach(self, found: "Match") -> str | None:
        """Why the new one must not take the place; None if it may."""
        if found.gain <= 0:
            return "it does not agree with the teacher on more rows"
        if found.p_value >= self.level:
            return f"its gain may be chance (p = {found.p_value:.3g}, asked: below {self.level:g}); give more texts"
        if found.gain < self.min_gain:
            return f"its gain of {found.gain:.2%} is less than the {self.min_gain:.2%} asked"
        return None


@dataclass(frozen=True)
class Match:
    """On how many rows each agrees with the teacher."""

    rows: int
    both: int
    only_old: int
    only_new: int

    @classmethod
    def of(cls, old: Flags, new: Flags) -> "Match":
        """From each row's agreement with the teacher, (N,) and (N,)."""
        return cls(len(old), int((old & new).sum()), int((old & ~new).sum()), int((new & ~old).sum()))

    @property
    def old(self) -> float:
        """The old one's agreement."""
        return (self.both + self.only_old) / self.rows

    @property
    def new(self) -> float:
        """The new one's agreement."""
        return (self.both + self.only_new) / self.rows

    @property
    def gain(self) -> float:
        """Exact, also where the agreements are rounded."""
        return (self.only_new - self.only_old) / self.rows

    @property
    def p_value(self) -> float:
        """How likely a gain like this is, or a larger one, if the new one is no better."""
        apart = self.only_old + self.only_new
        return float(binomtest(self.only_new, apart, 0.5, alternative="greater").pvalue) if apart else 1.0

    def table(self) -> dict[str, str]:
        """What a table says of it, name -> value."""
        return {
            "agreement of the old": f"{self.old:.4f}",
            "agreement of the new": f"{self.new:.4f}",
            "gain": f"{self.gain:+.4f}",
            "both agree": str(self.both),
            "only the old agrees": str(self.only_old),
            "only the new agrees": str(self.only_new),
            "p (McNemar, one-sided)": f"{self.p_value:.3g}",
        }


def check_place_for(candidate: Path, old: Path) -> Path:
    """Where the candidate will lie: beside the old one, as the newest. Raises ModelError, BundleExists."""
    new, current = read_manifest(candidate), read_manifest(old)
    check_place(candidate, new)
    check_place(old, current)
    if new.name != current.name:
        raise ModelError(f"{name_of(new)} can't take the place of {name_of(current)}; distil it with --set name=…")
    target, last = old.with_name(new.version), newest(old)
    if candidate.absolute().parent.resolve() == old.absolute().parent.resolve():
        raise ModelError(f"{candidate}: lies among the served ones already; distil into another folder (--models)")
    if int(new.version) <= last:
        raise BundleExists(f"{target}: {last} is there; distil it with --set version={last + 1}")
    return target


def compare(candidate: Path, old: Path, teacher: Path, source: Source, precision: Precision) -> Match:
    """Old and new beside the teacher, as served, on the same texts."""
    beside = open_bundle(teacher)
    texts = source.read(beside.manifest.texts)
    students = [open_bundle(folder, precision) for folder in (old, candidate)]
    orders = [teacher_columns(student.manifest, beside.manifest) for student in students]
    wanted = answers(beside, beside.encoder.encode(texts))
    agrees = [
        answers(student, student.encoder.encode(texts)).argmax(axis=1) == wanted[:, order].argmax(axis=1)
        for student, order in zip(students, orders, strict=True)
    ]
    return Match.of(*agrees)


def promote(candidate: Path, target: Path, found: Match, rule: Rule) -> Path:
    """Copy the candidate to its place among the served ones, whole or not at all. Raises Unmet if it may not."""
    breach = rule.breach(found)
    if breach:
        raise Unmet(f"{candidate}: not promoted, {breach}")
    manifest = read_manifest(candidate)
    files = verified(candidate, manifest, tuple(manifest.files))
    card = candidate / CARD_FILE
    kept = Manifest.model_validate({name: value for name, value in manifest if name != "seal"})
    write_bundle(target, kept, files, card.read_text(encoding="utf-8") if card.is_file() else None)
    return target
