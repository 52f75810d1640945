"""What the teacher may cost: a share of time, spent in advance by an estimate and corrected afterwards.

Pure arithmetic; whoever calls says what time it is. It knows nothing of models or requests.
"""

BURST_S = 10.0
"""So much time may be saved up: quiet moments pay for busy ones."""


class Budget:
    """A token bucket of seconds: it fills by `share` of a second each second, up to the share of `BURST_S`."""

    def __init__(self, share: float, now: float) -> None:
        self.share = share
        self._most = share * BURST_S
        self._left = self._most
        self._filled = now

    @property
    def unlimited(self) -> bool:
        """All of the time is as good as no limit: one worker runs no more."""
        return self.share >= 1

    def left(self, now: float) -> float:
        """Seconds that may be spent now; below 0 after something cost more than was thought."""
        self._left = min(self._most, self._left + (now - self._filled) * self.share)
        self._filled = now
        return self._left

    def spend(self, seconds: float) -> None:
        """In advance what it may cost; afterwards what was missing, or below 0 what was too much."""
        self._left = min(self._most, self._left - seconds)

    def wait_s(self, now: float) -> float:
        """How long until anything may be spent; infinite where nothing ever may."""
        missing = -self.left(now)
        if self.share:
            return max(0.0, missing / self.share)
        return float("inf")
