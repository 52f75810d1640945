"""A uniform sample of a stream, at hardly any cost for what is not taken. It knows nothing of what the stream is of."""

from math import log, log1p
from random import Random


class Skips:
    """Takes each item with the same probability, independently, and rolls a die only for those that it takes.

    The number of items between two that are taken is geometric: floor(ln U / ln(1 - share)), U uniform in (0, 1].
    """

    def __init__(self, share: float, dice: Random | None = None) -> None:
        self._share = share
        self._dice = dice or Random()
        self._ahead = self._gap()

    def take(self, items: int) -> list[int]:
        """Which of the next `items` are taken, by their places."""
        taken = []
        while self._ahead < items:
            taken.append(int(self._ahead))
            self._ahead += 1 + self._gap()
        self._ahead -= items
        return taken

    def _gap(self) -> float:
        if self._share <= 0:
            return float("inf")
        if self._share >= 1:
            return 0
        return log(1 - self._dice.random()) // log1p(-self._share)  # a share may be so small that this is no int
