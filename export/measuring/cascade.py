"""What student and teacher give together, at the calibrated threshold and at every other: accuracy against the share of
texts that the teacher sees.

It knows logits, labels and calibrations. It knows nothing of how they are served.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from export.errors import ModelError
from export.measuring.thresholds import Flags, Tried, at
from service.bundle.confidence import Values, margins
from service.bundle.manifest import Calibration, Manifest, Precision

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """The same rows answered by both, the teacher's columns in the student's order."""

    student: Logits  # (N, L)
    teacher: Logits  # (N, L)
    labels: Labels | None  # (N,); none where nobody knows them

    @property
    def agrees(self) -> Flags:
        """Whose labels are the same, (N,)."""
        return np.asarray(self.student.argmax(axis=1) == self.teacher.argmax(axis=1))

    def accuracy(self, asked: Flags) -> float | None:
        """Of the teacher's answers where it is asked (N,), and of the student's elsewhere."""
        if self.labels is None:
            return None
        chosen = np.where(asked, self.teacher.argmax(axis=1), self.student.argmax(axis=1))
        return float((chosen == self.labels).mean())


@dataclass(frozen=True)
class Point:
    """A threshold, and what it does."""

    tried: Tried
    accuracy: float | None

    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the agreement on accepted rows (Clopper and Pearson 1934)."""
        if not self.tried.accepted:
            return 0.0, 1.0
        found = binomtest(self.tried.agreed, self.tried.accepted).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def calibration_of(manifest: Manifest, precision: Precision) -> Calibration:
    """Raises ModelError where there is none."""
    if precision not in manifest.calibration:
        raise ModelError(
            f"{manifest.name}@{manifest.version} ({precision}): has no calibration; run python -m export calibrate"
        )
    return manifest.calibration[precision]


def point(answered: Answered, sure: Values, threshold: float) -> Point:
    """What this threshold does with rows of these margins (N,)."""
    return Point(at(threshold, sure, answered.agrees), answered.accuracy(sure < threshold))


def curve(answered: Answered, temperature: float, points: int = 201) -> list[Point]:
    """From asking the teacher for nothing to asking it for all."""
    sure = margins(answered.student, temperature)
    steps = np.quantile(sure, np.linspace(0, 1, points)).tolist()
    return [point(answered, sure, threshold) for threshold in [*steps, np.nextafter(max(steps), 2)]]


def summary(answered: Answered, calibration: Calibration) -> dict[str, str]:
    """What a table says of the calibrated threshold, name -> value."""
    sure = margins(answered.student, calibration.temperature)
    found = point(answered, sure, calibration.threshold)
    low, high = found.interval()
    everyone = np.ones(len(sure), dtype=bool)
    accuracies = {
        "accuracy of the teacher": answered.accuracy(everyone),
        "accuracy of the student": answered.accuracy(~everyone),
        "accuracy of the cascade": found.accuracy,
    }
    return {name: f"{value:.4f}" for name, value in accuracies.items() if value is not None} | {
        "threshold": f"{calibration.threshold:g} at temperature {calibration.temperature:g}",
        "share that the teacher sees": f"{found.tried.escalation:.2%}",
        "agreement on all rows": f"{answered.agrees.mean():.4f}",
        "agreement on accepted rows": f"{found.tried.agreement:.4f} ({found.tried.agreed} of {found.tried.accepted})",
        "its 95 % interval": f"{low:.4f} to {high:.4f}",
        "target": f"{calibration.target:g}",
    }


def draw(answered: Answered, calibration: Calibration, title: str, file: Path) -> None:
    """An SVG against the teacher's share: accuracy of the whole, if it is known, and agreement on accepted rows."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cascade"})  # small, and the same each time
    points = curve(answered, calibration.temperature)
    chosen = point(answered, margins(answered.student, calibration.temperature), calibration.threshold)
    accuracies = [each.accuracy for each in points if each.accuracy is not None]
    figure = Figure(figsize=(9, 3.6) if accuracies else (5, 3.6), layout="constrained")
    *left, right = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
    shares = [100 * each.tried.escalation for each in points]
    here = 100 * chosen.tried.escalation
    for panel in left:
        panel.plot(shares, accuracies, label="least sure first")
        panel.plot([here], [chosen.accuracy], "o", color="C3", label="calibrated threshold")
        panel.plot([0, 100], [accuracies[0], accuracies[-1]], "--", color="0.5", label="at random")
        panel.axhline(accuracies[-1], lw=0.8, ls=":", color="0.3", label="teacher alone")
        panel.set(xlabel="texts that the teacher sees, %", ylabel="accuracy of the cascade")
    some = [each.tried for each in points if each.tried.accepted]
    right.plot(
        [100 * tried.escalation for tried in some], [tried.agreement for tried in some], label="least sure first"
    )
    right.plot([here], [chosen.tried.agreement], "o", color="C3", label="calibrated threshold")
    right.axhline(calibration.target, lw=0.8, ls=":", color="0.3", label="target")
    right.set(xlabel="texts that the teacher sees, %", ylabel="agreement on accepted")
    for panel in (*left, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="lower right")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(file, format="svg", metadata={"Date": None})
